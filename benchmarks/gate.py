"""How often the gate errs, by simulation, beside a gate that believes the bare scores.

    python -m benchmarks.gate [--quick]

Models are simulated by what the gate sees of them: on each row and in each of four measures right
or wrong, with a chance of 0.8 for the champion and the base model. Rows are hard or easy for all
models alike (a latent normal with correlation 0.6, between models and between measures), which is
how two models of one family behave. The gate itself is the real one. Each line gives the share of
simulated candidates that go live, `ours` by the gate and `other` where the mean
score decides (not below the champion's, above the base model's).

For a candidate that is worse, or no better than the base model, fewer is better; for a better one,
more is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from contracts.params import EvaluateParams
from images.labeler.gate import judge
from images.labeler.measures import Floats, Measure
from images.labeler.resampling import Difference, differences

MEASURES = ("m1", "m2", "m3", "m4")
ACCURACY = 0.8
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


CASES = (
    Case("as the base model, nothing live", 0, 0, good=False, champion=False),
    Case("10 points worse than the champion", -10, 10, good=False),
    Case("5 points worse than the champion", -5, 10, good=False),
    Case("2 points worse than the champion", -2, 10, good=False),
    Case("as the champion, 10 over the base model", 0, 10, good=True),
    Case("2 points better than the champion", 2, 10, good=True),
    Case("5 points better than the champion", 5, 10, good=True),
    Case("10 points better than the champion", 10, 10, good=True),
)


def main() -> None:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer simulations, under 50 s")
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
    level = ACCURACY + case.points / 100
    chances = {"candidate": level, "champion": ACCURACY, "baseline": level - case.over_base / 100}
    by_gate = by_score = 0
    for _ in range(simulations):
        models = simulate(source, chances, rows)
        ours = models["candidate"]
        others = ("champion", "baseline") if case.champion else ("baseline",)
        found = {each: differences(ours, models[each], MEASURES, rows) for each in others}
        measured = {"valid": _share(np.ones(rows)), **ours}
        by_gate += all(each.passed for each in judge(measured, found, EvaluateParams()))
        by_score += (
            all(_mean(each) >= 0 for each in found.values()) and _mean(found["baseline"]) > 0
        )
    return by_gate / simulations, by_score / simulations


def _mean(found: Sequence[Difference]) -> float:
    return sum(each.value for each in found) / len(found)


def simulate(
    source: np.random.Generator, chances: dict[str, float], rows: int
) -> dict[str, dict[str, Measure]]:
    """Return every model's measures on rows that all of them have in common."""
    common = source.standard_normal((rows, 1))
    return {
        model: {
            name: _share((latent[:, number] < NormalDist().inv_cdf(chance)).astype(float))
            for number, name in enumerate(MEASURES)
        }
        for model, chance in chances.items()
        for latent in [_latent(source, common, rows)]
    }


def _latent(source: np.random.Generator, common: Floats, rows: int) -> Floats:
    own = source.standard_normal((rows, len(MEASURES)))
    latent: Floats = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own
    return latent


def _share(flags: Floats) -> Measure:
    counts = np.stack([flags, np.ones_like(flags)], axis=1)
    return Measure(counts, lambda sums: sums[..., 0] / sums[..., 1])


if __name__ == "__main__":
    main()
