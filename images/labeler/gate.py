"""May the new model go live? Each rule says what it found, and by how much.

docs/reference/gate.md has the rules, and how often they err, by simulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contracts.params import EvaluateParams
from images.labeler.measures import Measure
from images.labeler.resampling import Difference, Lead, holm


@dataclass(frozen=True)
class Finding:
    """What one rule says. A rule that could not be asked (no champion) is passed, and says so."""

    rule: str
    passed: bool
    text: str


def judge(
    measured: Mapping[str, Measure],
    compared: Mapping[str, Sequence[Difference]],
    params: EvaluateParams,
    leads: Sequence[Lead] = (),
) -> list[Finding]:
    """Return the findings of every rule; the model may go live if all have passed.

    `measured` is of the candidate; `compared` holds, for `champion` and `baseline`, how much better
    the candidate is. One that is missing is not there, or is the very same model. `leads` are over
    a constant answer.
    """
    return [
        *_thresholds(measured, params),
        *_not_worse(compared.get("champion"), params),
        _better(compared.get("baseline"), params),
        *_above_constant(leads, params),
    ]


def _thresholds(measured: Mapping[str, Measure], params: EvaluateParams) -> Iterable[Finding]:
    """Yield whether each demanded value is reached."""
    for name, least in {"valid": params.min_valid, **params.min_scores}.items():
        value = measured[name].observed
        if value < least:
            yield Finding(name, False, f"{name} is {value:.4g}, under the {least:.4g} demanded")
        else:
            yield Finding(name, True, f"{name} is {value:.4g}, at least {least:.4g} as demanded")


def _above_constant(leads: Sequence[Lead], params: EvaluateParams) -> Iterable[Finding]:
    """Yield, for each measure, whether the model shows more than an answer that never changes.

    It needs no other model, so a model of no use is refused also where nothing is live. Each
    measure has to pass, so no adjustment for their number is needed.
    """
    if not params.above_constant:
        told = "nobody asks whether it is better than a constant answer: evaluate.above_constant"
        yield Finding("constant", True, f"{told} is off")
        return
    for each in leads:
        than = f"the same answer to every row reaches {each.reached:.3g}"
        if each.least > 0:
            yield Finding("constant", True, f"{each.name} is {each.value:.3g}; {than}")
        elif each.value == each.reached:
            told = f"{each.name} is {each.value:.3g}, and {than} as well"
            yield Finding("constant", False, told)
        else:
            told = f"{each.name} is {each.value:.3g}, not shown to be better than a constant answer"
            yield Finding("constant", False, f"{told}: {than}")


def _not_worse(found: Sequence[Difference] | None, params: EvaluateParams) -> Iterable[Finding]:
    """Yield, for each measure that matters, whether the candidate can be worse than the champion.

    Refused for being significantly worse, or for not being shown to lose less than the margin. Not
    adjusted for the number of measures: that would let more of the worse ones pass.
    """
    if found is None:
        yield Finding("champion", True, "no other model is live, so nothing can get worse")
        return
    for each in found:
        by = f"{each.value:+.3f} (95 % interval {each.low:+.3f} to {each.high:+.3f})"
        if each.value < 0 and each.p_worse < params.alpha:
            told = (
                f"{each.name} is significantly worse than the champion's: {by}; chance alone looks "
                f"this bad with probability {each.p_worse:.2g}"
            )
        elif each.least < -params.margin:
            told = (
                f"{each.name} may be more than {params.margin:g} worse than the champion's: {by}; "
                "more test rows would tell"
            )
        else:
            yield Finding("champion", True, f"{each.name} is {_standing(each, params)}: {by}")
            continue
        yield Finding("champion", False, told)


def _standing(found: Difference, params: EvaluateParams) -> str:
    """Say how a measure that passes stands to the champion's, in words that need no p value."""
    if found.low > 0:
        return "better than the champion's"
    if found.value >= 0:
        return "no worse than the champion's"
    if params.margin < 1:
        return f"at most {params.margin:g} worse than the champion's, if at all"
    return "not significantly worse than the champion's"


def _better(found: Sequence[Difference] | None, params: EvaluateParams) -> Finding:
    """Say whether the training has been worth it: better than the base model in one measure.

    Adjusted for the number of measures (Holm): of models that are as good as the base model in all
    of them, at most `alpha` pass.
    """
    if found is None:
        return Finding("baseline", True, "no base model is named to compare with")
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
