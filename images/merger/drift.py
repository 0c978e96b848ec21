"""What was merged, held against what was trained: its tokenizer, and what it predicts."""

from __future__ import annotations

import json
import logging

from contracts import drift, reference
from contracts.drift import Drift, Limit
from contracts.entrypoint import StageContext
from contracts.params import MergeParams
from contracts.stages import MERGED, REFERENCE
from images.weights.forward import FromFiles
from images.weights.lora import NotCovered
from images.weights.predictions import drift_of
from images.weights.tokenizer import check_tokenizer

_log = logging.getLogger(__name__)


def check_against_training(context: StageContext[MergeParams]) -> Drift | None:
    """Return the drift of the merged model from base and adapter, None where it is not measured.

    Raises `SentinelTripped` where it is too large, or where the tokenizer is another one.
    """
    merged, params = context.output(MERGED), context.params
    trained = reference.read(context.input(REFERENCE))
    check_tokenizer(merged, trained.trained)
    if not params.check_drift or not trained.positions():
        _log.warning("not compared with what was trained, as the settings have it")
        return None
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    try:
        with FromFiles(merged) as weights:
            found = drift_of(
                weights,
                config,
                trained,
                lambda done, total: context.progress(done, total, "layers compared"),
            )
    except NotCovered as reason:
        _log.warning("not compared with what was trained, since %s", reason)
        return None
    _log.warning("merged against base and adapter: %s", found)
    drift.check(
        "merge_drift",
        found,
        _limit(trained, params.dtype),
        what="the merged model does not predict what base and adapter do",
        todo="Keep the adapter and report it; `python -m driver stage merge` merges anew.",
    )
    return found


def _limit(trained: reference.Reference, dtype: str) -> Limit:
    if trained.of == "original":
        return drift.MERGED[dtype]
    return drift.AS_TRAINED[trained.trained.load_in]
