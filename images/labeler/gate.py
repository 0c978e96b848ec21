"""May the new model go live? Each rule says what it found, and by how much.

docs/reference/gate.md has the rules, and how often they err, by simulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contracts.params import EvaluateParams
from contracts.params.service import RULES_OF_POSITIVE
from images.labeler.measures import Measure
from images.labeler.resampling import Difference, Lead, differences, holm


@dataclass(frozen=True)
class Finding:
    """What one rule says. A rule that could not be asked (no champion) is passed, and says so."""

    rule: str
    passed: bool
    text: str


GUARDED = ("valid",)
"""Measures in which a model must not be worse either; being better in them alone is no reason to
go live. `rules` are among those that matter by the task."""


def against(
    ours: Mapping[str, Measure], other: Mapping[str, Measure], matters: Sequence[str], rows: int
) -> list[Difference]:
    """Compare two models on the same rows in the measures that matter, and in those guarded.

    In the label rules on those rows alone that both have answered positively: an answer that says
    no has hardly a text to break a rule with. Over all rows whoever finds more would lose, and
    whoever writes worse could win by finding less.
    """
    names = dict.fromkeys(
        (*(RULES_OF_POSITIVE if name == "rules" else name for name in matters), *GUARDED)
    )
    if RULES_OF_POSITIVE in names:
        shared = (ours[RULES_OF_POSITIVE].counts[:, 1] > 0) & (
            other[RULES_OF_POSITIVE].counts[:, 1] > 0
        )
        ours = {**ours, RULES_OF_POSITIVE: ours[RULES_OF_POSITIVE].on(shared)}
        other = {**other, RULES_OF_POSITIVE: other[RULES_OF_POSITIVE].on(shared)}
    return differences(ours, other, list(names), rows)


def judge(
    measured: Mapping[str, Measure],
    compared: Mapping[str, Sequence[Difference]],
    params: EvaluateParams,
    leads: Sequence[Lead] = (),
    *,
    silent: str = "",
) -> list[Finding]:
    """Return the findings of every rule; the model may go live if all have passed.

    `measured` is of the candidate, on every row of its own; `compared` holds, for `champion` and
    `baseline`, how much better the candidate is. One that is missing is not there, or is the very
    same model; or it is a champion that could not be compared with, for the reason `silent`.
    `leads` are over a constant answer.
    """
    if silent:
        champion: Iterable[Finding] = [Finding("champion", False, silent)]
    else:
        champion = _not_worse_than_champion(compared.get("champion"), params)
    return [
        *_thresholds(measured, params),
        *champion,
        *_against_base_model(compared.get("baseline"), params),
        *_above_constant(leads, params),
    ]


def _thresholds(measured: Mapping[str, Measure], params: EvaluateParams) -> Iterable[Finding]:
    """Yield whether each demanded value is reached."""
    demanded = {
        "valid": params.min_valid,
        "rules": params.min_rules,
        RULES_OF_POSITIVE: params.min_rules,
    }
    for name, least in (demanded | params.min_scores).items():
        value = measured[name].observed
        if value < least:
            yield Finding(name, False, f"{name} is {value:.4g}, under the {least:.4g} demanded")
        else:
            yield Finding(name, True, f"{name} is {value:.4g}, at least {least:.4g} as demanded")


def _above_constant(leads: Sequence[Lead], params: EvaluateParams) -> Iterable[Finding]:
    """Yield, for each measure, whether the model shows more than an answer that never changes.

    It needs no other model, so a model of no use is refused also where nothing is live. Each
    measure has to pass, so no adjustment for their number is needed. Where the labels themselves
    could not be shown to be better, as in a recall, or on rows of nearly one class, nothing is
    asked: no model could pass.
    """
    if not params.above_constant:
        told = "nobody asks whether it is better than a constant answer: evaluate.above_constant"
        yield Finding("constant", True, f"{told} is off")
        return
    for each in leads:
        than = f"the same answer to every row reaches {each.reached:.3g}"
        if each.attainable <= 0:
            told = f"{each.name} is {each.value:.3g}, and is not held against a constant answer"
            why = f"{than}, and on these rows no model could be shown to be better"
            yield Finding("constant", True, f"{told}: {why}")
        elif each.least > 0:
            yield Finding("constant", True, f"{each.name} is {each.value:.3g}; {than}")
        elif each.value == each.reached:
            told = f"{each.name} is {each.value:.3g}, and {than} as well"
            yield Finding("constant", False, told)
        else:
            told = f"{each.name} is {each.value:.3g}, not shown to be better than a constant answer"
            yield Finding("constant", False, f"{told}: {than}")


def _not_worse_than_champion(
    found: Sequence[Difference] | None, params: EvaluateParams
) -> Iterable[Finding]:
    """Yield, for each measure that matters, whether the candidate can be worse than the champion.

    Refused for being significantly worse, or for not being shown to lose less than the margin. Not
    adjusted for the number of measures: that would let more of the worse ones pass.
    """
    if found is None:
        yield Finding("champion", True, "no other model is live, so nothing can get worse")
        return
    for each in found:
        if told := _worse(each, "the champion's", params):
            yield Finding("champion", False, told)
        elif each.least < -params.margin:
            told = f"{each.name} may be more than {params.margin:g} worse than the champion's"
            yield Finding("champion", False, f"{told}: {_by(each)}; more test rows would tell")
        else:
            told = f"{each.name} is {_standing(each, params)}: {_by(each)}"
            yield Finding("champion", True, told)


def _worse(found: Difference, whose: str, params: EvaluateParams) -> str:
    """Say that a measure is significantly worse than another model's, "" where it is not."""
    if found.value >= 0 or found.p_worse >= params.alpha:
        return ""
    return (
        f"{found.name} is significantly worse than {whose}: {_by(found)}; chance alone looks this "
        f"bad with probability {found.p_worse:.2g}"
    )


def _by(found: Difference) -> str:
    return f"{found.value:+.3f} (95 % interval {found.low:+.3f} to {found.high:+.3f})"


def _standing(found: Difference, params: EvaluateParams) -> str:
    """Say how a measure that passes stands to the champion's, in words that need no p value."""
    if found.low > 0:
        return "better than the champion's"
    if found.value >= 0:
        return "no worse than the champion's"
    if params.margin < 1:
        return f"at most {params.margin:g} worse than the champion's, if at all"
    return "not significantly worse than the champion's"


def _against_base_model(
    found: Sequence[Difference] | None, params: EvaluateParams
) -> Iterable[Finding]:
    """Yield in which measures the candidate is worse than the base model, and whether in one it is
    better.

    A gain in one measure makes up for no loss in another: a model can learn whom to hand an article
    to and forget how to write.
    """
    if found is None:
        yield Finding("baseline", True, "no base model is named to compare with")
        return
    for each in found:
        if told := _worse(each, "the base model's", params):
            yield Finding("baseline", False, told)
    yield _better([each for each in found if each.name not in GUARDED] or found, params)


def _better(found: Sequence[Difference], params: EvaluateParams) -> Finding:
    """Say whether the training has been worth it: better than the base model in one measure.

    Adjusted for the number of measures (Holm): of models that are as good as the base model in all
    of them, at most `alpha` pass.
    """
    adjusted = holm([each.p_better for each in found])
    best, p = min(zip(found, adjusted, strict=True), key=lambda pair: (pair[1], -pair[0].value))
    by = (
        f"{best.name} {best.value:+.3f} (chance alone looks this good in one of {len(found)} "
        f"measures with probability {p:.2g})"
    )
    if p < params.alpha:
        return Finding("baseline", True, f"better than the base model: {by}")
    told = f"in no measure significantly better than the base model; nearest: {by}"
    return Finding("baseline", False, told)
