"""Which answers are shown to a person, in which order, and what of them is marked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from driver.report.answers import SHOWN, choose, differs, section

KINDS = {"good": "flag", "level": "choice", "groups": "choices", "score": "number", "why": "text"}
RIGHT = {"good": True, "level": "high", "groups": ["a", "b"], "score": 0.9, "why": "a b c d"}


def told(answer: dict[str, Any] | None) -> dict[str, Any]:
    if answer is None:
        return {"answer": "{", "valid": False, "reason": "not JSON"}
    return {"answer": json.dumps(answer), "valid": True, "reason": ""}


def row(name: str, candidate: dict[str, Any] | None, **others: dict[str, Any] | None) -> Any:
    answers = {role: told(answer) for role, answer in others.items()}
    answers["candidate"] = told(None if candidate is None else RIGHT | candidate)
    return {"id": name, "expected": RIGHT, "answers": answers}


def test_what_got_worse_comes_first_and_each_kind_has_its_turn() -> None:
    low = RIGHT | {"level": "low"}
    rows = [
        row("right", {}, champion=RIGHT),
        row("better", {}, champion=low),
        row("both wrong", {"level": "low"}, champion=low),
        row("apart", {"level": "low"}, champion=RIGHT | {"level": "medium"}),
        row("both invalid", None, champion=None),
        row("worse", {"good": False}, champion=RIGHT),
        row("much worse", {"good": False, "level": "low"}, champion=RIGHT),
    ]
    cases = choose(rows, KINDS, ["good.f1"])
    assert [case.id for case in cases] == [
        "much worse",
        "worse",
        "both invalid",
        "apart",
        "both wrong",
        "better",
        "right",
    ]
    assert choose(rows[::-1], KINDS, ["good.f1"]) == cases


def test_many_of_one_kind_do_not_crowd_out_the_others() -> None:
    rows = [row(f"{n:03}", None, champion=RIGHT) for n in range(50)]
    rows += [row(f"better {n}", {}, champion=RIGHT | {"good": False}) for n in range(5)]
    cases = choose(rows, KINDS, [])
    assert len(cases) == SHOWN
    assert sum(case.id.startswith("better") for case in cases) == 5


def test_a_field_that_decides_counts_double() -> None:
    rows = [row("level", {"level": "low"}), row("good", {"good": False})]
    assert [case.id for case in choose(rows, KINDS, ["good.f1"])] == ["good", "level"]
    assert [case.id for case in choose(rows, KINDS, ["level.kappa"])] == ["level", "good"]


@pytest.mark.parametrize(
    ("expected", "answered", "kind", "other"),
    [
        (0.5, 0.59, "number", False),
        (0.5, 0.61, "number", True),
        (None, 0.5, "number", True),
        (["a", "b"], ["b", "a"], "choices", False),
        (["a"], [], "choices", True),
        (None, [], "choices", False),
        ("one text", "another", "text", False),
        (None, "a text", "text", True),
        (["x"], [], "text", True),
        ("low", "high", "choice", True),
        (True, True, "flag", False),
    ],
)
def test_what_counts_as_another_answer(
    expected: object, answered: object, kind: str, other: bool
) -> None:
    assert differs(expected, answered, kind) is other


def test_the_markup_marks_fields_and_words_and_escapes_the_rest() -> None:
    scores = {"fields": KINDS, "matters": []}
    candidate = {"why": "a b <i> d", "level": "low"}
    text = section([row("x<1", candidate, baseline=None)], scores, {"x<1": "First & line\nrest"})
    assert "<b>x&lt;1</b>" in text
    assert "First &amp; line" in text
    assert "better than the baseline" in text, "who stands in for a champion"
    assert "candidate: level low (high) · baseline: not valid" in text
    assert "a b <mark>&lt;i&gt;</mark> d" in text
    assert text.count('class="differs"') == 1
    assert "gave no valid answer: not JSON" in text


def test_a_text_that_is_another_altogether_is_not_marked_word_by_word() -> None:
    text = section([row("x", {"why": "p q r s"})], {"fields": KINDS, "matters": []}, {})
    assert "<mark>" not in text
    assert "p q r s" in text


def test_without_answers_there_is_no_section() -> None:
    assert section([], {"fields": KINDS, "matters": []}, {}) == ""


def test_the_longest_answers_do_not_make_it_large() -> None:
    """With the nine fields of the news task, each as long as it may be."""
    long = (
        RIGHT | {"why": "ä " * 3000, "level": "low"} | {f"text {n}": "ö " * 3000 for n in range(4)}
    )
    kinds = KINDS | {f"text {n}": "text" for n in range(4)}
    rows = [row(f"{n:02}", long, champion=long) for n in range(30)]
    asked = {f"{n:02}": "ü " * 3000 for n in range(30)}
    text = section(rows, {"fields": kinds, "matters": []}, asked)
    assert len(text.encode()) < 700_000
