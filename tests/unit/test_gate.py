"""Intervals, tests and the gate: against formulas where there are any, and by simulation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from contracts.params import EvaluateParams
from images.labeler.gate import Finding, against, judge
from images.labeler.measures import Floats, Judged, Measure, measures
from images.labeler.resampling import Difference, differences, holm, intervals
from tests.unit.evaluation import TASK
from tests.unit.labeler_stage import label


def share(flags: Floats, *, higher_is_better: bool = True) -> Measure:
    counts = np.stack([flags, np.ones_like(flags)], axis=1)
    return Measure(counts, lambda sums: sums[..., 0] / sums[..., 1], higher_is_better)


def flags(right: int, rows: int) -> Floats:
    return np.array([1.0] * right + [0.0] * (rows - right))


def test_an_interval_is_near_the_binomial_one() -> None:
    found = intervals({"valid": share(flags(120, 150))}, 150)["valid"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 150)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.01)
    assert found.high == pytest.approx(0.8 + half, abs=0.01)


def test_intervals_are_the_same_each_time() -> None:
    measures = {"a": share(flags(100, 150))}
    assert intervals(measures, 150) == intervals(measures, 150)


def pair(ours_only: int, other_only: int, rows: int = 150) -> list[Difference]:
    """Compare two models that differ on some rows, and are both right on the others."""
    ours, other = np.ones(rows), np.ones(rows)
    other[:ours_only] = 0
    ours[ours_only : ours_only + other_only] = 0
    return differences({"m": share(ours)}, {"m": share(other)}, ["m"], rows)


def sign_test(better: int, worse: int) -> float:
    """Exact one-sided p of a sign test: what the permutation test is for shares (McNemar)."""
    total = better + worse
    return float(sum(math.comb(total, k) for k in range(better, total + 1)) / 2**total)


@pytest.mark.parametrize(("better", "worse"), [(8, 2), (12, 3), (5, 5), (1, 0), (20, 4)])
def test_p_values_are_those_of_the_exact_sign_test(better: int, worse: int) -> None:
    found = pair(better, worse)[0]
    assert found.p_better == pytest.approx(sign_test(better, worse), abs=0.012)
    mirrored = pair(worse, better)[0]
    assert mirrored.p_worse == pytest.approx(sign_test(better, worse), abs=0.012)


def test_alike_models_do_not_differ() -> None:
    found = pair(0, 0)[0]
    assert (found.value, found.low, found.high, found.least) == (0, 0, 0, 0)
    assert found.p_worse == found.p_better == 1.0


def test_of_an_error_less_is_better() -> None:
    low, high = (
        share(flags(10, 100), higher_is_better=False),
        share(flags(40, 100), higher_is_better=False),
    )
    found = differences({"brier": low}, {"brier": high}, ["brier"], 100)[0]
    assert found.value == pytest.approx(0.3)
    assert found.p_better < 0.001
    assert found.p_worse > 0.99


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# --- the gate ------------------------------------------------------------------------------------
MEASURED = {
    "valid": share(flags(150, 150)),
    "rules": share(flags(140, 150)),
    "rules.positive": share(flags(40, 50)),
}
PARAMS = EvaluateParams()
Made = Callable[..., Difference]


def difference(
    value: float = 0.0, least: float = -0.03, name: str = "relevant.f1", **p: float
) -> Difference:
    worse, better = p.get("p_worse", 0.5), p.get("p_better", 0.5)
    return Difference(name, value, value - 0.05, value + 0.05, least, worse, better, 150)


def refused(findings: list[Finding]) -> list[str]:
    return [each.text for each in findings if not each.passed]


def test_a_first_model_needs_the_thresholds_only() -> None:
    assert refused(judge(MEASURED, {}, PARAMS)) == []
    demanding = PARAMS.model_copy(update={"min_scores": {"rules": 0.95}})
    assert refused(judge(MEASURED, {}, demanding)) == ["rules is 0.9333, under the 0.95 demanded"]


@pytest.mark.parametrize("name", ["rules", "rules.positive"])
def test_there_is_a_floor_for_the_texts_whatever_else_is_good(name: str) -> None:
    poor = MEASURED | {name: share(flags(20, 50))}
    assert refused(judge(poor, {}, PARAMS)) == [f"{name} is 0.4, under the 0.5 demanded"]
    assert refused(judge(poor, {}, PARAMS.model_copy(update={"min_rules": 0.4}))) == []


@pytest.mark.parametrize("name", ["rules", "relevant.f1", "valid"])
def test_what_is_worse_than_the_base_model_is_made_up_for_by_nothing(name: str) -> None:
    gain = difference(0.3, p_better=0.0001, p_worse=1.0, name="priority.kappa")
    loss = difference(-0.08, p_worse=0.02, p_better=0.99, name=name)
    (told,) = refused(judge(MEASURED, {"baseline": [gain, loss]}, PARAMS))
    assert told.startswith(f"{name} is significantly worse than the base model's: -0.080")
    chance = difference(-0.08, p_worse=0.2, p_better=0.9, name=name)
    assert refused(judge(MEASURED, {"baseline": [gain, chance]}, PARAMS)) == []


def test_more_valid_answers_are_no_reason_to_go_live() -> None:
    alike, form = difference(), difference(0.3, p_better=0.0001, name="valid")
    (told,) = refused(judge(MEASURED, {"baseline": [alike, form]}, PARAMS))
    assert "in no measure significantly better" in told


def test_a_champion_that_could_not_be_compared_with_passes_nobody() -> None:
    findings = judge(MEASURED, {}, PARAMS, silent="the live model is broken")
    assert refused(findings) == ["the live model is broken"]
    assert not any("no other model is live" in each.text for each in findings)


def test_significantly_worse_in_one_measure_is_refused() -> None:
    bad = difference(-0.06, -0.09, p_worse=0.01)
    found = refused(judge(MEASURED, {"champion": [difference(), bad]}, PARAMS))
    told = (
        "relevant.f1 is significantly worse than the champion's: -0.060 (95 % interval -0.110 to "
    )
    assert found == [f"{told}-0.010); chance alone looks this bad with probability 0.01"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.096, "better than the champion's"),
        (0.02, "no worse than the champion's"),
        (-0.01, "at most 0.1 worse than the champion's, if at all"),
    ],
)
def test_what_passes_is_told_without_a_probability(value: float, said: str) -> None:
    """The chance of being this bad, 0.988, would read as not significant."""
    found = judge(MEASURED, {"champion": [difference(value, p_worse=0.988)]}, PARAMS)
    told = next(each.text for each in found if each.rule == "champion")
    interval = f"{value - 0.05:+.3f} to {value + 0.05:+.3f}"
    assert told == f"relevant.f1 is {said}: {value:+.3f} (95 % interval {interval})"


def test_what_may_be_much_worse_is_refused_too() -> None:
    unsure = difference(-0.02, -0.14, p_worse=0.4)
    found = refused(judge(MEASURED, {"champion": [unsure]}, PARAMS))
    assert "may be more than 0.1 worse" in found[0]
    assert (
        refused(judge(MEASURED, {"champion": [unsure]}, PARAMS.model_copy(update={"margin": 1.0})))
        == []
    )


def test_a_sure_loss_on_rows_too_few_for_significance_is_called_worse() -> None:
    (told,) = refused(judge(MEASURED, {"champion": [difference(-1.0, -1.0, p_worse=0.25)]}, PARAMS))
    assert told.startswith("relevant.f1 is more than 0.1 worse than the champion's: -1.000 (95 %")
    assert "would tell" not in told


def test_better_than_the_base_model_in_one_measure_after_holm() -> None:
    others = [difference(0.01, p_better=0.4)] * 3
    clear, thin = difference(0.2, p_better=0.001), difference(0.05, p_better=0.02)
    assert refused(judge(MEASURED, {"baseline": [*others, clear]}, PARAMS)) == []
    assert (
        "in no measure significantly better"
        in (refused(judge(MEASURED, {"baseline": [*others, thin]}, PARAMS))[0])
    )


def test_of_models_like_the_base_model_few_pass() -> None:
    """The promise of the gate, in small: benchmarks/gate.py has it at length."""
    source = np.random.default_rng(3)
    passed = 0
    for _ in range(60):
        names = [f"m{number}" for number in range(4)]
        ours = {name: share((source.random(150) < 0.8).astype(float)) for name in names}
        base = {name: share((source.random(150) < 0.8).astype(float)) for name in names}
        found = differences(ours, base, names, 150)
        passed += not refused(judge(MEASURED, {"baseline": found}, PARAMS))
    assert passed <= 8  # 3 of 60 are expected; 9 or more come once in 280 times


# --- the label rules: whose texts are held against whose -----------------------------------------
YES, NO = (TASK.parse(json.dumps(label(kind))) for kind in ("high", None))


def texts(found: range, broken: range, rows: int = 150, positive: int = 60) -> dict[str, Measure]:
    """Return the measures of a model that calls the rows `found` positive, as the first ones are,
    and breaks a label rule in those `broken`.
    """
    return measures(
        TASK,
        [
            Judged(
                YES if row < positive else NO,
                YES if row in found else NO,
                ("speculation",) if row in broken else (),
            )
            for row in range(rows)
        ],
    )


def test_who_finds_more_is_not_refused_for_writing_more() -> None:
    """Every third text of both breaks a rule; the candidate finds 57 of 60, the other 20."""
    ours, other = texts(range(57), range(57)[::3]), texts(range(20), range(20)[::3])
    assert ours["rules"].observed < other["rules"].observed - 0.05
    for role in ("champion", "baseline"):
        found = {role: against(ours, other, TASK.matters, 150)}
        params = EvaluateParams(margin=1.0)
        assert refused(judge(ours, found, params)) == []


def test_who_writes_worse_is_refused_though_he_finds_less() -> None:
    """The candidate finds 20 of 60 and breaks a rule in 9 of them, the champion in 6 of 60."""
    ours, other = texts(range(20), range(9)), texts(range(60), range(54, 60))
    assert ours["rules"].observed == pytest.approx(other["rules"].observed, abs=0.03)
    compared = against(ours, other, ("rules",), 150)
    (told,) = refused(judge(ours, {"champion": compared}, PARAMS))
    assert told.startswith("rules.positive is significantly worse than the champion's: -0.450")


@pytest.mark.parametrize("shared", [0, 4, 19])
def test_on_few_rows_that_both_call_positive_the_texts_are_not_compared(shared: int) -> None:
    """No difference would look like proof of none, whoever writes worse."""
    ours, other = texts(range(40), range(3)), texts(range(40 - shared, 60), range(0))
    for role, whose in (("champion", "the champion's"), ("baseline", "the base model's")):
        found = {role: against(ours, other, ("rules",), 150)}
        said = [each for each in judge(ours, found, PARAMS) if each.rule == role]
        rows = f"{shared} rows that both call positive, fewer than 20"
        (told,) = [each for each in said if not each.asked]
        assert told.passed
        assert told.text.startswith(f"rules.positive is not compared with {whose}: {rows}; ")
        texts_of_other = 20 + shared
        assert told.text.endswith(f"rests on no more than {texts_of_other} texts of one of them")


def test_texts_much_worse_are_refused_though_they_are_on_other_rows() -> None:
    """The champion finds 12 of 60, and breaks no rule; the candidate all, and breaks one in 30."""
    ours, other = texts(range(60), range(30)), texts(range(12), range(0))
    (told,) = refused(judge(ours, {"champion": against(ours, other, ("rules",), 150)}, PARAMS))
    assert told.startswith("rules.positive is significantly worse than the champion's: -0.500")
    assert "over all positive answers of each, since there are 12 rows that both call" in told


def test_texts_that_could_not_be_compared_are_not_better_than_the_base_models() -> None:
    ours, other = texts(range(40), range(0)), texts(range(30, 60), range(30, 60))
    compared = {"baseline": against(ours, other, ("rules",), 150)}
    (told,) = refused(judge(ours, compared, PARAMS))
    assert told == "in no measure shown to be better than the base model: none could be compared"


def test_a_difference_of_texts_names_its_rows() -> None:
    ours, other = texts(range(40), range(0)), texts(range(10, 60), range(0))
    compared = {"champion": against(ours, other, ("rules",), 150)}
    told = next(each.text for each in judge(ours, compared, PARAMS) if each.rule == "champion")
    assert told.endswith("(95 % interval +0.000 to +0.000) on the 30 rows that both call positive")


def test_without_a_positive_answer_the_texts_neither_pass_nor_fail() -> None:
    silent = texts(range(0), range(0))
    for demanding in (PARAMS, PARAMS.model_copy(update={"min_rules": 1.0})):
        (told,) = [each for each in judge(silent, {}, demanding) if each.rule == "rules.positive"]
        assert (told.passed, told.asked) == (True, False)
        assert told.text == "rules.positive has nothing to go by: no answer is positive"


def test_who_finds_nothing_is_refused_for_that() -> None:
    """By the live model where there is one, and by a constant answer where there is none."""
    silent, other = texts(range(0), range(0)), texts(range(60), range(0))
    findings = judge(silent, {"champion": against(silent, other, TASK.matters, 150)}, PARAMS)
    assert any(told.startswith("relevant.f1 is significantly worse") for told in refused(findings))
    (told,) = [each for each in findings if "not compared" in each.text]
    assert told.text.endswith(
        ": 0 rows that both call positive, fewer than 20; at least one of the two calls no row "
        "positive"
    )


def test_what_is_told_of_one_row_is_in_the_singular() -> None:
    ours, other = texts(range(1), range(0)), texts(range(60), range(0))
    found = {"champion": against(ours, other, ("rules",), 150)}
    (told,) = [each for each in judge(ours, found, PARAMS) if "not compared" in each.text]
    assert ": 1 row that both call positive, fewer" in told.text
    assert told.text.endswith("rests on no more than 1 text of one of them")


def test_invalid_answers_are_not_called_positive() -> None:
    none = measures(TASK, [Judged(YES if row < 60 else NO, None) for row in range(150)])
    found = {"champion": against(none, none, ("rules",), 150)}
    told = next(each.text for each in judge(none, found, PARAMS) if each.rule == "champion")
    assert told.endswith(" on the 150 rows that both call positive or answer invalidly")
