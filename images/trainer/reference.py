"""What base and adapter predict at some places of the validation answers, for later stages.

The record (contracts/reference.py) holds the predictions of the *original* base, in its own type,
with the adapter: that is what a merge has to give again. A training in 8 or 4 bits sees another
base, so the model as it was held in training is compared with the record here, once; from then on
the quantisation of the training plays no part. PEFT computes the one, images/weights/forward.py
the other, so the comparison is also one of two readings of the adapter.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from contracts import drift, files
from contracts.drift import Drift
from contracts.params import TrainParams
from contracts.reference import Position, ProbeRow, Reference, Trained
from images.trainer import sharding
from images.trainer.rows import Row
from images.trainer.world import World
from images.weights.forward import FromFiles, predict, tokens_in
from images.weights.lora import WEIGHTS, NotCovered, plan_updates
from images.weights.predictions import Predicted, compare, likeliest, packed_rows
from images.weights.shards import by_name, model_shards
from images.weights.tokenizer import template_digest
from tasks import ChatFormat

MOST_ROWS = 16
POSITIONS_PER_ROW = 32
ANSWER_TOKENS = 96
"""Of an answer no more is looked at, so that the budget goes to several rows."""

PROBES = (
    "Die Träger der Jugendhilfe (§ 8a SGB VIII) erhalten 1.234,56 € – „sofort“, so Müller-Groß.",
    "Öffnungszeiten:  07:30–18:00 Uhr\n\n\t* l'été, don't; https://example.org/?a=1&b=%20",
    "„Wir können nicht mehr“… 🙂 ½ Mio. m²\u2003日本語 абв",
)
"""Digits, white space, apostrophes, several scripts: where word splitting differs by tokenizer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recorded:
    """The record, and what was seen on the way; None where nothing was compared."""

    reference: Reference
    effect: float | None = None
    """Divergence of the trained model from the untrained, both as held in training."""
    held_drift: float | None = None


class Recorder:
    """Looks at a model before and after the training.

    Before, so that what cannot work fails in the first minute, and to know what the training did.
    """

    def __init__(
        self,
        base: Path,
        validation: Sequence[Row],
        tokenizer: Any,
        chat: ChatFormat,
        params: TrainParams,
    ) -> None:
        self._base, self._tokenizer, self._params = base, tokenizer, params
        self.rows = choose_rows(validation, tokenizer, params.reference_tokens)
        self._trained = what_was_trained(base, tokenizer, chat, params.load_in)
        self._untrained: Predicted = []

    def look_before(self, model: Any) -> None:
        """Keep what the model predicts with an adapter that is still without effect."""
        if self.rows:
            self._untrained = likeliest(as_held(model, self.rows, self._params))

    def record(self, model: Any, adapter: Path) -> Recorded:
        """Return the record for a published adapter, which the model in memory gets too.

        Of several processes each has to call: all compute, as a divided base needs it, and the
        first compares. Raises `SentinelTripped` where the training saw another model than the
        original base and the adapter are together.
        """
        if not self.rows:
            return Recorded(self.filled([], of="original"))
        put_adapter(model, adapter)
        held = as_held(model, self.rows, self._params)
        return World.here().decided(lambda: self._compared(held, adapter))

    def _compared(self, held: torch.Tensor, adapter: Path) -> Recorded:
        effect = compare(self._untrained, held).divergence
        try:
            predicted = of_original(self._base, adapter, self.rows, self._params.device)
        except NotCovered as reason:
            _log.warning("the reference is the model as it was held in training, since %s", reason)
            return Recorded(self.filled(likeliest(held), of="trained"), effect)
        known = likeliest(predicted)
        found = compare(known, held)
        load_in = self._params.load_in
        _log.warning("as held in %s: %s; the training made %.2g nats", load_in, found, effect)
        check_held(found, load_in)
        return Recorded(self.filled(known, of="original"), effect, found.divergence)

    def filled(self, predicted: Predicted, *, of: Literal["original", "trained"]) -> Reference:
        """Return the record: the rows with what is predicted in them."""
        waiting = iter(predicted)
        rows = []
        for row in self.rows:
            positions = tuple(_filled(position, next(waiting)) for position in row.positions)
            rows.append(row.model_copy(update={"positions": positions}))
        tokens = sorted({token for place in predicted for token in place})
        texts = {token: _text(token, self._tokenizer) for token in tokens}
        return Reference(trained=self._trained, of=of, texts=texts, rows=tuple(rows))


def choose_rows(rows: Sequence[Row], tokenizer: Any, budget: int) -> tuple[ProbeRow, ...]:
    """Return rows with places to predict at, of at most `budget` tokens computed.

    The order is that of the ids' digests, so it is by chance and always the same. The shortest row
    is taken even if it exceeds the budget by itself. Predictions are still empty.
    """
    if not budget:
        return ()
    cut = [_cut(row) for row in rows]
    cut.sort(key=lambda row: hashlib.sha256(row.id.encode()).digest())
    taken: list[_Cut] = []
    for row in cut:
        if len(taken) < MOST_ROWS and tokens_in([r.ids for r in [*taken, row]]) <= budget:
            taken.append(row)
    taken = taken or [min(cut, key=lambda row: len(row.ids))]
    probes = [_probe_row(row, tokenizer) for row in taken]
    return tuple(row for row in probes if row.positions)


def as_held(model: Any, rows: Sequence[ProbeRow], params: TrainParams) -> torch.Tensor:
    """Return what the model predicts as it is held now: log-probabilities [places, vocabulary], row
    by row, in fp32 on the CPU."""
    causal = model.get_base_model()
    head = causal.get_output_embeddings().weight
    found = [torch.empty((0, len(head)))]
    autocast = torch.autocast(
        head.device.type, torch.bfloat16, params.device == "cuda" and params.load_in != "fp32"
    )
    with torch.no_grad(), autocast, _without_dropout(model):
        for row in rows:
            ids = torch.tensor([row.tokens], device=head.device)
            hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state[0]
            hidden = hidden[[each.before - 1 for each in row.positions]]
            logits = (hidden.to(head.dtype) @ head.T).float()
            found.append(torch.log_softmax(logits, dim=-1).cpu())
    return torch.cat(found)


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Let the model compute as in training, but for the dropout.

    Not `model.eval()`: on a CPU, bitsandbytes then packs its 4-bit weights in another way, and
    Unsloth computes with other kernels.
    """
    before = {module: module.training for module in model.modules()}
    model.train()
    for module in before:
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def put_adapter(model: Any, adapter: Path) -> None:
    """Give the model in memory this adapter: after the training it has the last, not the best."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    if sharding.is_divided(model):
        sharding.put_adapter(model, adapter)
    else:
        set_peft_model_state_dict(model, load_file(adapter / WEIGHTS))


def of_original(base: Path, adapter: Path, rows: Sequence[ProbeRow], device: str) -> torch.Tensor:
    """Return the same for the original base with the adapter beside it.

    Raises `NotCovered` for a model or an adapter that images/weights does not know.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    updates = plan_updates(adapter, by_name(model_shards(base)), config)
    with FromFiles(base, updates) as weights:
        try:
            return predict(weights, config, packed_rows(rows), device=device).cpu()
        except torch.OutOfMemoryError:
            _log.warning("the GPU has no room beside the model; the reference is made on the CPU")
            torch.cuda.empty_cache()
            return predict(weights, config, packed_rows(rows))


def check_held(found: Drift, load_in: str) -> None:
    """Raise `SentinelTripped` where training saw another model than the one that is merged."""
    drift.check(
        "held_drift",
        found,
        drift.AS_TRAINED[load_in],
        what=f"the model trained in {load_in} is not the original base with this adapter",
        todo="Set train.load_in to 8bit or bf16; if it is so already, the adapter is read wrongly.",
    )


def what_was_trained(base: Path, tokenizer: Any, chat: ChatFormat, load_in: str) -> Trained:
    """Return what serving has to keep."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    known = base / "tokenizer.json"
    return Trained(
        chat_format=chat.name,
        chat_template=template_digest(tokenizer.chat_template),
        turn_end=chat.turn_end,
        control_tokens={
            text: tokenizer.convert_tokens_to_ids(text) for text in chat.control_tokens
        },
        tokenizer=files.digest_path(known) if known.is_file() else "",
        context_length=config["max_position_embeddings"],
        load_in=load_in,
        probes={text: len(_ids(text, tokenizer)) for text in map(chat.normalise, PROBES)},
    )


class _Cut(NamedTuple):
    """The part of a row that is looked at; its answer begins at `start`."""

    id: str
    ids: list[int]
    start: int


def _cut(row: Row) -> _Cut:
    start = len(row.labels) - row.trained_tokens
    # The last token, the end of the turn, is only predicted.
    return _Cut(row.id, row.ids[:-1][: start + ANSWER_TOKENS], start)


def _probe_row(row: _Cut, tokenizer: Any) -> ProbeRow:
    """Return a row with places spread over its answer.

    An engine is shown text, so only such places count before which the text gives these tokens.
    """
    prompt = tokenizer.decode(row.ids[: row.start])
    lengths = range(row.start, len(row.ids) + 1)
    step = max(1.0, len(lengths) / POSITIONS_PER_ROW)
    chosen = [lengths[int(i * step)] for i in range(min(len(lengths), POSITIONS_PER_ROW))]
    positions = []
    for before in chosen:
        answer = tokenizer.decode(row.ids[row.start : before])
        if _ids(prompt + answer, tokenizer) == row.ids[:before]:
            positions.append(Position(before=before, answer=answer, tokens=(), logprobs=()))
    last = positions[-1].before if positions else row.start
    return ProbeRow(
        id=row.id,
        prompt=prompt,
        prompt_tokens=row.start,
        tokens=tuple(row.ids[:last]),
        positions=tuple(positions),
    )


def _filled(position: Position, known: dict[int, float]) -> Position:
    return position.model_copy(update={"tokens": tuple(known), "logprobs": tuple(known.values())})


def _ids(text: str, tokenizer: Any) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def _text(token: int, tokenizer: Any) -> str:
    added = tokenizer.added_tokens_decoder.get(token)
    text: str = tokenizer.decode([token])
    return "" if (added and added.special) or "\ufffd" in text else text
