"""Confusion and reliability against hand-counted values, for a task of other fields too."""

from __future__ import annotations

from images.labeler.measures import Judged
from images.labeler.tables import confusion, reliability
from tests.unit.mixed_output import TASK, made

ROWS = [
    Judged(made(flag=True, colour="red", size="s"), made(flag=True, colour=None, share=0.95)),
    Judged(made(flag=True, colour="blue", size="l"), made(flag=False, colour="blue", size="m")),
    Judged(made(flag=False, colour=None, size="m"), made(flag=False, colour="red", share=1.0)),
    Judged(made(flag=False, colour=None, size="m"), None),
]


def test_a_matrix_counts_what_was_answered_for_what() -> None:
    found = confusion(TASK, ROWS)
    assert list(found) == ["flag", "colour", "size"], "numbers, lists and texts have none"
    assert found["flag"] == {"values": ["true", "false"], "counts": [[1, 1, 0], [0, 1, 1]]}
    assert found["colour"] == {
        "values": ["red", "blue", "none"],
        "counts": [[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1]],
    }


def test_a_scale_stands_in_its_order() -> None:
    found = confusion(TASK, ROWS)["size"]
    assert found["values"] == ["s", "m", "l"]
    assert found["counts"] == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0]]


def test_reliability_tells_what_a_stated_probability_was_worth() -> None:
    assert reliability(TASK, ROWS) == {
        "share": {
            "truth": "flag",
            "bins": [
                {"rows": 1, "stated": 0.5, "true": 1.0},
                {"rows": 2, "stated": 0.975, "true": 0.5},
            ],
        }
    }


def test_without_rows_there_is_nothing_to_count() -> None:
    assert confusion(TASK, [])["flag"]["counts"] == [[0, 0, 0], [0, 0, 0]]
    assert reliability(TASK, [])["share"]["bins"] == []
