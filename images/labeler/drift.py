"""The candidate as it is served, held against what was trained: limits, tokens, probabilities.

The engine is shown a validation row up to some place of its answer, as text, and tells what it
expects next. So the file, the engine's tokenizer and its arithmetic are checked together, in the
very form that goes live.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from contracts import drift, reference
from contracts.drift import Drift, Limit
from contracts.entrypoint import StageContext
from contracts.errors import EngineUnavailable, SentinelTripped
from contracts.gguf_header import GgufInvalid, file_type, read_header
from contracts.params import EvaluateParams
from contracts.reference import Position, ProbeRow, Reference
from contracts.stages import GGUF, REFERENCE
from serving.engine import Engine, NextToken, TokenChance
from tasks.definition import Task

_MOST_UNTOLD = 0.5
"""Share of the places at which an engine may tell no probabilities."""

_log = logging.getLogger(__name__)

Key = int | str
"""A token's number, or where the engine does not tell it, its text."""


def check_candidate(
    context: StageContext[EvaluateParams], engine: Engine, tag: str, task: Task
) -> Drift | None:
    """Return the candidate's drift from base and adapter, None where it is not measured.

    Raises `SentinelTripped` where its limits, tokens or probabilities are not those of the
    training. The prompts are looked at in parity.py.
    """
    known = reference.read(context.input(REFERENCE))
    _check_limits(task, known)
    places = list(_places(known, context.params.drift_positions))
    if not places:
        _log.warning("not compared with what was trained, as the settings have it")
        return None
    ask = _Asking(context, engine, tag, task)
    for text, tokens in known.trained.probes.items():
        _same_count(ask.about(text), tokens, f"the text {text[:40]!r}…")
    pairs = []
    for done, (row, position) in enumerate(places):
        context.progress(done, len(places), "positions compared")
        found = ask.about(row.prompt + position.answer)
        _same_count(found, position.before, f"validation row {row.id}")
        pair = _comparable(position, found.chances, known.texts)
        if all(pair):
            pairs.append(pair)
    context.progress(len(places), len(places), "positions compared")
    if len(pairs) < (1 - _MOST_UNTOLD) * len(places):
        raise EngineUnavailable(
            f"{engine.name} tells probabilities at {len(pairs)} of {len(places)} positions",
            todo="Ollama tells them from 0.12.11 on; evaluate.drift_positions=0 leaves them out.",
            passing=False,
        )
    measured, base = drift.measure(pairs), context.params.base
    _log.warning("served against base and adapter: %s", measured)
    drift.check(
        "gguf_drift",
        measured,
        _limit(_served_type(context, engine), known),
        what="the candidate, as served, does not predict what base and adapter do",
        todo=f"{base} has to be the model of fetch, in one of {', '.join(drift.GGUF)}; if it is, "
        "convert the adapter anew (`python -m driver stage gguf`)."
        if base
        else "Convert anew (`python -m driver stage gguf`), take a wider gguf.outtype, or set "
        "OLLAMA_KV_CACHE_TYPE=f16 if it is another.",
    )
    return measured


class _Asking:
    """Requests to the candidate, with the options that it will be served with."""

    def __init__(
        self, context: StageContext[EvaluateParams], engine: Engine, tag: str, task: Task
    ) -> None:
        self._engine, self._tag = engine, tag
        self._options = dict(task.modelfile().parameters)
        self._timeout_s = context.params.timeout_s

    def about(self, text: str) -> NextToken:
        """Return what the candidate expects behind a text."""
        return self._engine.next_token(
            self._tag, text, options=self._options, timeout_s=self._timeout_s
        )


def _check_limits(task: Task, known: Reference) -> None:
    """Compare what the Modelfile says of an answer's end and of the context with the training."""
    parameters = task.modelfile().parameters
    stops, num_ctx = parameters.get("stop"), parameters["num_ctx"]
    end = known.trained.turn_end
    if end and not (isinstance(stops, list) and end in stops):
        raise SentinelTripped(
            "sentinel served_stop: the engine is not told how an answer ends",
            why=f"{end} is no stop of the Modelfile",
            todo="Set `stop` of the chat format in tasks/chat.py.",
        )
    if isinstance(num_ctx, int) and num_ctx > known.trained.context_length:
        raise SentinelTripped(
            f"sentinel served_context: num_ctx is {num_ctx}",
            why=f"the base was made for {known.trained.context_length} tokens",
            todo="Lower num_ctx in the task's Serving.",
        )


def _places(known: Reference, most: int) -> Iterator[tuple[ProbeRow, Position]]:
    """Yield at most `most` places, spread evenly; those of a row follow each other, so that the
    engine goes on from what it has just read.
    """
    every = [(row, position) for row in known.rows for position in row.positions]
    count = min(most, len(every))
    yield from (every[i * len(every) // count] for i in range(count))


def _same_count(found: NextToken, tokens: int, what: str) -> None:
    if found.prompt_tokens != tokens:
        raise SentinelTripped(
            f"sentinel served_tokenizer: the engine makes {found.prompt_tokens} tokens of {what}",
            why=f"it was {tokens} in training",
            todo="Update the engine: the vocabulary in the file was found to be right.",
        )


def _comparable(
    position: Position, chances: tuple[TokenChance, ...], texts: dict[int, str]
) -> tuple[dict[Key, float], dict[Key, float]]:
    """Return both predictions under keys that they share.

    Where only texts are told, those that stand for several tokens, or for none, are left out of
    both: the measure counts them to the rest.
    """
    if all(chance.number is not None for chance in chances):
        by_number: dict[Key, float] = {each.number or 0: each.logprob for each in chances}
        return {token: value for token, value in position.known().items()}, by_number  # noqa: C416
    told = Counter(chance.text for chance in chances)
    mine = Counter(texts[token] for token in position.tokens)
    clear = {text for text in told | mine if text and max(told[text], mine[text]) == 1}
    return (
        {texts[t]: value for t, value in position.known().items() if texts[t] in clear},
        {chance.text: chance.logprob for chance in chances if chance.text in clear},
    )


def _served_type(context: StageContext[EvaluateParams], engine: Engine) -> str:
    """Return the type of the weights that are served: the file's, or those of an adapter's base."""
    if context.params.base:
        return engine.quantization(context.params.base)
    try:
        return file_type(read_header(context.input(GGUF)))
    except GgufInvalid as error:
        raise SentinelTripped(
            "sentinel gguf: the file cannot be read",
            why=str(error),
            todo="Convert anew: `python -m driver stage gguf`.",
        ) from error


def _limit(served: str, known: Reference) -> Limit:
    """Return what a type of weights allows, and more where the record is of a quantised base.

    A type without a limit of its own gets the strictest.
    """
    limit = drift.GGUF.get(served, drift.GGUF["bf16"])
    if known.of == "original":
        return limit
    held = drift.AS_TRAINED[known.trained.load_in]
    return Limit(limit.divergence + held.divergence, limit.agreement + held.agreement - 1)
