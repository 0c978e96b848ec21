"""Measures against hand-counted and reference values; they must be sums over rows."""

from __future__ import annotations

import random

import numpy as np
import pytest

from contracts.params.service import ERRORS
from images.labeler.measures import Judged, Measure, measure_names, measures
from tasks import load_task
from tasks.values import choices
from tests.unit.mixed_output import TASK, Output, made


def values(rows: list[Judged]) -> dict[str, float]:
    return {name: measure.observed for name, measure in measures(TASK, rows).items()}


ROWS = [
    Judged(made(), made()),
    Judged(
        made(),
        made(flag=False, colour="blue", colours=["blue", "red"], share=0.25, note=None),
        ("invented",),
    ),
    Judged(made(flag=False, colour=None, colours=[]), made(flag=True, colour=None, colours=[])),
    Judged(made(flag=False), None),
]


def test_values_of_hand_counted_answers() -> None:
    found = values(ROWS)
    assert (found["valid"], found["rules"]) == (0.75, 0.5)
    # Rows 1, 3 and the invalid one; row 2 is not answered as positive.
    assert found["rules.positive"] == pytest.approx(2 / 3)
    # Detected: rows 1 and 3, and wrongly the invalid one; expected: rows 1 and 2.
    assert found["flag"] == 0.25
    assert found["flag.precision"] == pytest.approx(1 / 3)
    assert (found["flag.recall"], found["flag.f1"]) == (0.5, 0.4)
    assert found["colour"] == 0.5
    # The invalid answer is both that are wrong. red: 1 hit of 3 expected, 1 answered; blue: 0 of 2
    # answered; none: 1 of 1 expected, 2 answered.
    assert found["colour.macro_f1"] == pytest.approx((0.5 + 0 + 2 / 3) / 3)
    # 2 hits of 3 expected and 4 answered values; red 2 of 3 and 2, blue 0 of 2 answered.
    assert found["colours"] == pytest.approx(4 / 7)
    assert found["colours.macro_f1"] == pytest.approx((0.8 + 0) / 2)
    assert found["colours.exact"] == 0.5
    assert found["share"] == pytest.approx(1 - (0 + 0.25 + 0 + 1) / 4)
    assert found["note"] == 0.5
    assert found["words"] == 0.75
    assert found["share.brier"] == pytest.approx((0.25 + 0.5625 + 0.25 + 1) / 4)
    # Bins: 0.5 (stated 1.0, true 1 of 2), 0.25 (stated 0.25, true 1), and the invalid one's.
    assert found["share.ece"] == pytest.approx((0.0 + 0.75 + 1) / 4)


def test_all_right_is_best_and_all_invalid_is_worst() -> None:
    best = values([Judged(made(share=1.0), made(share=1.0))] * 3)
    assert {name: v for name, v in best.items() if v != 1.0} == {"share.brier": 0, "share.ece": 0}
    worst = values([Judged(made(), None)] * 3)
    apart = {name: v for name, v in worst.items() if v != 0.0}
    assert apart == {"share.brier": 1.0, "share.ece": 1.0, "size.kappa": -1.0}


def test_nothing_expected_and_nothing_found_is_right_in_every_measure_of_finding() -> None:
    nothing = made(flag=False, colours=[])
    found = values([Judged(nothing, nothing)] * 2)
    names = ("flag.precision", "flag.recall", "flag.f1", "colours", "colours.macro_f1")
    assert {name: found[name] for name in names} == dict.fromkeys(names, 1.0)


def test_invalid_answers_where_nothing_was_expected_cost_every_field() -> None:
    """46 relevant rows answered perfectly, and 104 irrelevant ones without a valid answer."""
    nothing = made(flag=False, colours=[])
    rows = [Judged(made(), made())] * 46 + [Judged(nothing, None)] * 104
    found = values(rows)
    assert found["flag.recall"] == 1.0
    assert found["flag.precision"] == pytest.approx(46 / 150)
    # 46 hits of 46 expected; 104 wrong ones beside them: 2 · 46 / (46 + 46 + 104).
    assert found["flag.f1"] == pytest.approx(92 / 196)
    # Of the colours 104 of each: red has hits, blue has none.
    assert found["colours"] == pytest.approx(92 / 300)
    assert found["colours.macro_f1"] == pytest.approx((92 / 196 + 0) / 2)
    assert found["rules.positive"] == pytest.approx(46 / 150)
    assert values([Judged(nothing, None)])["colours.macro_f1"] == 0.0


def test_rules_are_counted_by_themselves_where_the_answer_is_positive() -> None:
    rows = [
        Judged(made(), made(), ("invented",)),
        Judged(made(), made()),
        Judged(made(), made(flag=False), ("invented",)),
        *[Judged(made(flag=False), made(flag=False))] * 6,
        Judged(made(), None),
    ]
    found = values(rows)
    # Two answers keep them of three that are, or should have been, positive; and six negative ones.
    assert found["rules"] == 0.7
    assert found["rules.positive"] == pytest.approx(1 / 3)


def test_kappa_is_cohens_with_quadratic_weights() -> None:
    # (expected, answered): how often. The formula once more, with loops.
    table = {
        ("s", "s"): 4,
        ("s", "m"): 1,
        ("m", "m"): 2,
        ("m", "l"): 1,
        ("l", "l"): 1,
        ("l", "m"): 1,
    }
    rows = [Judged(made(size=e), made(size=a)) for (e, a), n in table.items() for _ in range(n)]
    weight = {"s": 0, "m": 1, "l": 2}
    total = len(rows)
    observed = sum(n * (weight[e] - weight[a]) ** 2 / 4 for (e, a), n in table.items()) / total
    wanted = {e: sum(n for (x, _), n in table.items() if x == e) for e in weight}
    given = {a: sum(n for (_, y), n in table.items() if y == a) for a in weight}
    chance = (
        sum(wanted[e] * given[a] * (weight[e] - weight[a]) ** 2 / 4 for e in weight for a in weight)
        / total**2
    )
    assert values(rows)["size.kappa"] == pytest.approx(1 - observed / chance)
    assert 0.6 < values(rows)["size.kappa"] < 0.9


def test_an_invalid_answer_costs_kappa_more_than_a_near_miss() -> None:
    spread = [Judged(made(size=size), made(size=size)) for size in ("s", "m", "l") * 4]
    near = values([*spread, Judged(made(size="s"), made(size="m"))])["size.kappa"]
    none = values([*spread, Judged(made(size="s"), None)])["size.kappa"]
    assert none < near < 1.0


def drawn(source: random.Random) -> Judged:
    def one() -> Output:
        return made(
            flag=source.random() < 0.5,
            colour=source.choice([None, "red", "blue"]),
            size=source.choice(["s", "m", "l"]),
            colours=source.sample(["red", "blue"], source.randrange(3)),
            share=source.random(),
            note=source.choice([None, "n"]),
        )

    return Judged(one(), one() if source.random() < 0.9 else None)


def test_drawing_rows_and_weighing_sums_are_the_same() -> None:
    """What resampling rests on: the value of repeated rows is that of their weighted sums."""
    source = random.Random(5)  # noqa: S311
    rows = [drawn(source) for _ in range(30)]
    weights = np.bincount([source.randrange(30) for _ in range(30)], minlength=30).astype(float)
    repeated = [row for row, times in zip(rows, weights, strict=True) for _ in range(int(times))]
    expected = values(repeated)
    for name, measure in measures(TASK, rows).items():
        assert float(measure.of(weights @ measure.counts)) == pytest.approx(expected[name]), name


def test_many_sums_at_once_give_each_its_value() -> None:
    source = random.Random(7)  # noqa: S311
    found = measures(TASK, [drawn(source) for _ in range(20)])
    weights = np.array([[source.randrange(3) for _ in range(20)] for _ in range(6)], dtype=float)
    for name, measure in found.items():
        together = measure.of(weights @ measure.counts)
        one_by_one = [float(measure.of(row @ measure.counts)) for row in weights]
        assert together.tolist() == pytest.approx(one_by_one), name


def test_names_need_no_rows_and_sums_have_the_same_places_for_every_model() -> None:
    names = measure_names(TASK)
    assert names[:4] == ["valid", "rules", "rules.positive", "flag"]
    assert {"size.kappa", "share.brier", "colours.macro_f1"} <= set(names)
    few, many = measures(TASK, ROWS[:1]), measures(TASK, ROWS)
    for name in names:
        assert few[name].counts.shape[1] == many[name].counts.shape[1], name


def test_the_values_of_a_closed_set() -> None:
    fields = Output.model_fields
    assert choices(fields["colour"].annotation) == ["red", "blue", None]
    assert choices(fields["size"].annotation) == ["s", "m", "l"]
    assert choices(fields["colours"].annotation) == ["red", "blue"]


def test_the_errors_are_told_by_their_names() -> None:
    found = measures(load_task("liga_relevance"), [])
    errors = {name for name, measure in found.items() if not measure.higher_is_better}
    assert errors == {name for name in found if name.endswith(ERRORS)} != set()


def test_every_measure_that_matters_is_one() -> None:
    task = load_task("liga_relevance")
    assert set(task.matters) <= set(measure_names(task))
    assert all(isinstance(m, Measure) for m in measures(task, []).values())
