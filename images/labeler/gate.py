"""May the new model go live? Each rule says what it found, and by how much.

docs/reference/gate.md has the rules, and how often they err, by simulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.stats import hypergeom

from contracts.params import EvaluateParams
from contracts.params.service import RULES_OF_POSITIVE
from images.labeler.measures import Measure, is_of_nothing
from images.labeler.resampling import Difference, Lead, differences, holm


@dataclass(frozen=True)
class Finding:
    """What one rule says."""

    rule: str
    passed: bool
    text: str
    asked: bool = True
    """Whether it had anything to go by. Without (no champion) it is passed, and says so."""


GUARDED = ("valid",)
"""Measures in which a model must not be worse either; being better in them alone is no reason to
go live. `rules` are among those that matter by the task."""

FEWEST_SHARED = 20
"""Rows that both models have to call positive for their texts to be compared on them. With fewer,
texts 30 points worse too often pass for as good (docs/reference/gate.md)."""


def against(
    ours: Mapping[str, Measure], other: Mapping[str, Measure], matters: Sequence[str], rows: int
) -> list[Difference]:
    """Compare two models on the same rows in the measures that matter, and in those guarded."""
    names = dict.fromkeys(
        (*(RULES_OF_POSITIVE if name == "rules" else name for name in matters), *GUARDED)
    )
    texts = names.keys() & {RULES_OF_POSITIVE}
    found = {name: _texts(ours, other, rows) for name in texts}
    rest = differences(ours, other, [name for name in names if name not in texts], rows)
    found |= {each.name: each for each in rest}
    return [found[name] for name in names]


def _texts(our: Mapping[str, Measure], others: Mapping[str, Measure], rows: int) -> Difference:
    """Compare two models in the label rules on those rows alone that both have answered positively.

    An answer that says no has hardly a text to break a rule with: over all rows whoever finds more
    would lose, and whoever writes worse could win by finding less. With fewer than `FEWEST_SHARED`
    such rows they count as not compared; of all positive answers of each it is only told whether
    the candidate's are significantly worse.
    """
    ours, other = our[RULES_OF_POSITIVE], others[RULES_OF_POSITIVE]
    invalid = (our["valid"].counts[:, 0] == 0) | (others["valid"].counts[:, 0] == 0)
    shared = (ours.counts[:, 1] > 0) & (other.counts[:, 1] > 0)
    both = int(shared.sum())
    if both >= FEWEST_SHARED:
        found = _of_texts(ours.on(shared), other.on(shared), rows)
        return replace(found, rows=both, invalid=int((shared & invalid).sum()))
    kept, of = ours.counts.sum(axis=0).astype(int).tolist()
    other_kept, of_other = other.counts.sum(axis=0).astype(int).tolist()
    # Fisher's exact test, one-sided (Fisher 1935): the texts are on different rows.
    p_worse = 1.0  # of no texts at all
    if of and of_other:
        p_worse = float(hypergeom.cdf(kept, of + of_other, kept + other_kept, of))
    found = _of_texts(ours, other, rows)
    texts, without = min(of, of_other), int(invalid.sum())
    return replace(found, rows=both, p_worse=p_worse, texts=texts, invalid=without)


def _of_texts(ours: Measure, other: Measure, rows: int) -> Difference:
    name = RULES_OF_POSITIVE
    (found,) = differences({name: ours}, {name: other}, [name], rows)
    return replace(found, fewest=FEWEST_SHARED)


def judge(
    measured: Mapping[str, Measure],
    compared: Mapping[str, Sequence[Difference]],
    params: EvaluateParams,
    leads: Sequence[Lead] = (),
    *,
    silent: str = "",
    one_sided: str = "",
) -> list[Finding]:
    """Return the findings of every rule; the model may go live if all have passed.

    `measured` is of the candidate, on every row of its own; `compared` holds, for `champion` and
    `baseline`, how much better the candidate is. One that is missing is not there, or is the very
    same model; or it is a champion that could not be compared with, for the reason `silent`.
    `leads` are over a constant answer; `one_sided` says that the rows can tell nobody from one.
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
        *_one_sided(one_sided, params, live=bool(silent) or "champion" in compared),
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
        if is_of_nothing(name, measured[name]):
            told = f"{name} has nothing to go by: no answer is positive"
            yield Finding(name, True, told, asked=False)
        elif value < least:
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
        yield Finding("constant", True, f"{told} is off", asked=False)
        return
    for each in leads:
        than = f"the same answer to every row reaches {each.reached:.3g}"
        if each.attainable <= 0:
            told = f"{each.name} is {each.value:.3g}, and is not held against a constant answer"
            why = f"{than}, and on these rows no model could be shown to be better"
            yield Finding("constant", True, f"{told}: {why}", asked=False)
        elif each.least > 0:
            yield Finding("constant", True, f"{each.name} is {each.value:.3g}; {than}")
        elif each.value == each.reached:
            told = f"{each.name} is {each.value:.3g}, and {than} as well"
            yield Finding("constant", False, told)
        else:
            told = f"{each.name} is {each.value:.3g}, not shown to be better than a constant answer"
            yield Finding("constant", False, f"{told}: {than}")


def _one_sided(told: str, params: EvaluateParams, *, live: bool) -> Iterable[Finding]:
    """Yield that the rows show only one side, if they do: enough to begin with, but not to take the
    place of a model that may know both.
    """
    if told and params.above_constant:
        why = "the live model may be one that can" if live else "no other model is live"
        told = f"{told}; {why}"
        yield Finding("constant", not live, told, asked=live)


def _not_worse_than_champion(
    found: Sequence[Difference] | None, params: EvaluateParams
) -> Iterable[Finding]:
    """Yield, for each measure that matters, whether the candidate can be worse than the champion.

    Refused for being significantly worse, or for not being shown to lose less than the margin. Not
    adjusted for the number of measures: that would let more of the worse ones pass.
    """
    if found is None:
        told = "no other model is live, so nothing can get worse"
        yield Finding("champion", True, told, asked=False)
        return
    for each in found:
        if told := _worse(each, "the champion's", params):
            yield Finding("champion", False, told)
        elif not each.compared:
            yield _not_compared("champion", each, "the champion's")
        elif each.high < -params.margin:  # on a few rows, which no test calls significant
            told = f"{each.name} is more than {params.margin:g} worse than the champion's"
            yield Finding("champion", False, f"{told}: {_by(each)}")
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


def _not_compared(rule: str, found: Difference, whose: str) -> Finding:
    told = f"{found.name} is not compared with {whose}: {_both(found)}, fewer than {found.fewest}"
    if not found.texts:
        told = f"{told}; at least one of the two calls no row positive"
    else:
        texts = "1 text" if found.texts == 1 else f"{found.texts} texts"
        told = f"{told}; {_all(found)} it is not significantly worse, which rests on no more than "
        told = f"{told}{texts} of one of them"
    return Finding(rule, True, told, asked=False)


def _by(found: Difference) -> str:
    told = f"{found.value:+.3f} (95 % interval {found.low:+.3f} to {found.high:+.3f})"
    if not found.compared:
        there = "there is" if found.rows == 1 else "there are"
        return f"{told} {_all(found)}, since {there} {_both(found)}"
    return f"{told} on the {_both(found)}" if found.fewest else told


def _both(found: Difference) -> str:
    rows = "1 row" if found.rows == 1 else f"{found.rows} rows"
    return f"{rows} that both call positive{' or answer invalidly' if found.invalid else ''}"


def _all(found: Difference) -> str:
    return f"over all positive {'or invalid ' if found.invalid else ''}answers of each"


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
        yield Finding("baseline", True, "no base model is named to compare with", asked=False)
        return
    for each in found:
        if told := _worse(each, "the base model's", params):
            yield Finding("baseline", False, told)
        elif not each.compared:
            yield _not_compared("baseline", each, "the base model's")
    yield _better([each for each in found if each.name not in GUARDED] or found, params)


def _better(found: Sequence[Difference], params: EvaluateParams) -> Finding:
    """Say whether the training has been worth it: better than the base model in one measure.

    Adjusted for the number of measures (Holm): of models that are as good as the base model in all
    of them, at most `alpha` pass.
    """
    found = [each for each in found if each.compared]
    if not found:
        told = "in no measure shown to be better than the base model: none could be compared"
        return Finding("baseline", False, told)
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
