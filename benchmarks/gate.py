"""How often the gate errs, by simulation, beside a gate that believes the bare scores.

    python -m benchmarks.gate [--quick]

Models are simulated by what the gate sees of them: on each row and in each of three measures right
or wrong, with a chance of 0.8 for the champion, and 0.1 less for the base model. 35 % of the rows
are positive. A model finds them with the chance of the first measure, or with one of its own; of
the other rows it calls 5 % positive. Each text that it then writes breaks no label rule with a
chance of 0.8, or another; an answer without a text with 0.98. An answer is valid with a chance of
0.9995. Rows are hard or easy for all models alike (a latent normal with correlation 0.6, between
models and between measures), which is how two models of one family behave. The gate itself is the
real one, but for the rule on constant answers. Each line gives the share of simulated candidates
that go live, `ours` by the gate and `other` where the mean score decides (not below the champion's,
above the base model's; the label rules over all rows are one of its measures).

For a candidate that is worse, or no better than the base model, fewer is better; for a better one,
more is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from contracts.params import EvaluateParams
from contracts.params.service import RULES_OF_POSITIVE
from images.labeler.gate import against, judge
from images.labeler.measures import Floats, Measure

MEASURES = ("m1", "m2", "m3", "rules")
"""In the order of the chances; those of `rules` are of a text."""
ACCURACY = 0.8
VALID = 0.9995
POSITIVE = 0.35
"""Share of the rows that are positive; the labels of the shipped sample have as many."""
FALSE_ALARM = 0.05
"""Share of the other rows that a model calls positive."""
OTHER_TEXTS = 0.98
"""Chance that an answer without long texts breaks no label rule."""
CORRELATION = 0.6
_SEED = 11


@dataclass(frozen=True)
class Case:
    """Candidates that are `points` better than the champion, and `over_base` than the base model.

    `champion` says whether there is one. Points are of 100.
    """

    name: str
    points: float
    over_base: float
    good: bool
    champion: bool = True
    rules: float | None = None
    """Points over the other models in the texts, where they differ from the rest."""
    texts: float | None = None
    """Chance that a text breaks no label rule, of every model alike."""
    recall: float | None = None
    """Points over the other models in the share of the positive rows that is found."""


CASES = (
    Case("as the base model, nothing live", 0, 0, good=False, champion=False),
    Case("10 over it, texts 20 under it", 0, 10, good=False, champion=False, rules=-20),
    Case("10 over it, texts 10 under it", 0, 10, good=False, champion=False, rules=-10),
    Case("10 over it, every text breaks a rule", 0, 10, good=False, champion=False, texts=0),
    Case("10 over it, 70 % of the texts do", 0, 10, good=False, champion=False, texts=0.3),
    Case("10 over it, 30 % of the texts do", 0, 10, good=True, champion=False, texts=0.7),
    Case("10 over it, finds 40 more, texts as good", 0, 10, True, False, rules=0, recall=40),
    Case("10 over it, texts as good", 0, 10, good=True, champion=False, rules=0),
    Case("10 points worse than the champion", -10, 10, good=False),
    Case("5 points worse than the champion", -5, 10, good=False),
    Case("2 points worse than the champion", -2, 10, good=False),
    Case("5 better than the champion, texts 20 worse", 5, 10, good=False, rules=-20),
    Case("as the champion, 10 over the base model", 0, 10, good=True),
    Case("5 better, finds 20 more, texts as good", 5, 10, good=True, rules=0, recall=20),
    Case("2 points better than the champion", 2, 10, good=True),
    Case("5 points better than the champion", 5, 10, good=True),
    Case("10 points better than the champion", 10, 10, good=True),
)


def main() -> None:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer simulations, under 60 s")
    simulations = 20 if parser.parse_args().quick else 1000
    for rows in (150, 250):
        for case in CASES:
            ours, other = promoted(case, rows, simulations)
            pair = (ours, other) if case.good else (other, ours)
            line = {
                "name": f"{rows} rows: {case.name}",
                "ours": round(ours, 3),
                "other": round(other, 3),
                "ratio": round((pair[0] + 0.001) / (pair[1] + 0.001), 2),
                "unit": "share that goes live" + ("" if case.good else ", fewer is better"),
            }
            print(json.dumps(line), flush=True)


def promoted(case: Case, rows: int, simulations: int) -> tuple[float, float]:
    """Return the shares of candidates that the gate, and the mean score, let go live."""
    source = np.random.default_rng(_SEED)
    chances = chances_of(case, rows)
    others = ("champion", "baseline") if case.champion else ("baseline",)
    by_gate = by_score = 0
    for _ in range(simulations):
        models = simulate(source, chances)
        ours = models["candidate"]
        found = {each: against(ours, models[each], MEASURES, rows) for each in others}
        by_gate += all(each.passed for each in judge(ours, found, EvaluateParams()))
        leads = {each: _mean(ours) - _mean(models[each]) for each in others}
        by_score += min(leads.values()) >= 0 and leads["baseline"] > 0
    return by_gate / simulations, by_score / simulations


def _mean(found: dict[str, Measure]) -> float:
    return sum(found[name].observed for name in MEASURES) / len(MEASURES)


def chances_of(case: Case, rows: int) -> dict[str, Floats]:
    """Return each model's chances to be right, [rows, measures and finding]; the first rows are
    positive.
    """
    level = ACCURACY + case.points / 100
    base = level - case.over_base / 100
    finding = len(MEASURES)
    found = {}
    for model, chance in (("candidate", level), ("champion", ACCURACY), ("baseline", base)):
        chances = np.full((rows, len(MEASURES) + 1), chance)
        if case.rules is not None:
            more = case.rules / 100 if model == "candidate" else 0
            chances[:, MEASURES.index("rules")] = ACCURACY + more
        if case.texts is not None:
            chances[:, MEASURES.index("rules")] = case.texts
        if case.recall is not None:
            chances[:, finding] = 0.95 - (0 if model == "candidate" else case.recall / 100)
        chances[:, finding] = np.where(_positive(rows), chances[:, finding], FALSE_ALARM)
        found[model] = chances
    return found


def simulate(
    source: np.random.Generator, chances: dict[str, Floats]
) -> dict[str, dict[str, Measure]]:
    """Return every model's measures on rows that all of them have in common."""
    rows = len(next(iter(chances.values())))
    common = source.standard_normal((rows, 1))
    return {
        model: _measures(_latent(source, common, chance.shape) < ndtri(chance), source)
        for model, chance in chances.items()
    }


def _measures(right: NDArray[np.bool_], source: np.random.Generator) -> dict[str, Measure]:
    rows = len(right)
    flags = right.astype(np.float64)
    found = {name: _share(flags[:, number]) for number, name in enumerate(MEASURES)}
    said_yes, whole = flags[:, len(MEASURES)], flags[:, MEASURES.index("rules")]
    without = (source.random(rows) < OTHER_TEXTS).astype(np.float64)
    found["rules"] = _share(np.where(said_yes > 0, whole, without))
    found[RULES_OF_POSITIVE] = _share(whole, said_yes)
    found["valid"] = _share((source.random(rows) < VALID).astype(np.float64))
    return found


def _positive(rows: int) -> NDArray[np.bool_]:
    return np.arange(rows) < POSITIVE * rows


def _latent(source: np.random.Generator, common: Floats, shape: tuple[int, ...]) -> Floats:
    own = source.standard_normal(shape)
    latent: Floats = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own
    return latent


def _share(flags: Floats, among: Floats | None = None) -> Measure:
    """Return the share of rows, or of those `among` them, with the flag; 1 of none."""
    counted = np.ones_like(flags) if among is None else among
    counts = np.stack([flags * counted, counted], axis=1)
    return Measure(
        counts, lambda s: np.where(s[..., 1] > 0, s[..., 0] / np.maximum(s[..., 1], 1), 1.0)
    )


if __name__ == "__main__":
    main()
