"""From a row of messages to token ids and labels: the one place that decides what is learnt.

TRL could render and tokenize by itself, and would then put a loss on the prompt as well, or on
the empty think block, or cut off the end of a long answer. So it is given finished ids.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contracts import files
from contracts.errors import ItemsInvalid, LabelsMissing, RowTooLong, SentinelTripped
from tasks import ChatFormat

IGNORED = -100
"""Label of a token that the loss leaves out (torch's convention)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One training row, tokenized. `ids` and `labels` are of the same length."""

    id: str
    ids: list[int]
    labels: list[int]

    @property
    def trained_tokens(self) -> int:
        """Return how many tokens the loss covers."""
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class Split:
    """The rows of a split that fit, and the ids of those that were left out."""

    rows: list[Row]
    dropped: list[str]


def read_split(
    path: Path,
    tokenizer: Any,
    chat: ChatFormat,
    *,
    max_length: int,
    too_long: Literal["error", "drop"],
) -> Split:
    """Read a split (`{"id", "messages"}` a line) and tokenize it.

    Raises `ItemsInvalid` for a row that is no chat ending with an answer, `RowTooLong` naming the
    rows of more than `max_length` tokens unless they are to be dropped and there are others,
    `SentinelTripped` where the tokenizer's chat template and the task's disagree, `LabelsMissing`
    when there is no row.
    """
    rows = [encode(row, tokenizer, chat) for row in files.read_jsonl(path)]
    long = [row for row in rows if len(row.ids) > max_length]
    if long:
        what = f"{len(long)} of {len(rows)} rows of {path.name} exceed {max_length} tokens"
        if too_long == "error":
            raise RowTooLong(what, why=_lengths(long))
        if len(long) == len(rows):
            raise RowTooLong(what, why=_lengths(long), todo="Raise train.max_length.")
        _log.warning("%s; left out: %s", what, _lengths(long))
    kept = [row for row in rows if len(row.ids) <= max_length]
    if not kept:
        raise LabelsMissing(f"{path.name} has no row to train on")
    if not any(row.trained_tokens for row in kept):
        raise SentinelTripped(
            "sentinel trained_tokens: no token of any row would be learnt",
            why=f"no answer in {path.name} has one",
            todo="Check the rows of the split.",
        )
    return Split(kept, [row.id for row in long])


def encode(row: dict[str, Any], tokenizer: Any, chat: ChatFormat) -> Row:
    """Tokenize a row; labels are on the answer and its end-of-turn token only.

    Prompt and answer are tokenized apart, as in serving: there the answer starts after a prompt
    that is tokenized already, so no token may span the two.
    """
    try:
        row_id, messages = row["id"], row["messages"]
        prompt, completion = chat.render_training(messages)
    except (KeyError, TypeError, ValueError) as error:
        raise ItemsInvalid(
            f"row {row.get('id')!r} cannot be rendered", why=f"{type(error).__name__}: {error}"
        ) from error
    _check_template(row_id, prompt, messages[:-1], tokenizer, chat)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    if answer_ids[-1:] != [tokenizer.convert_tokens_to_ids(chat.turn_end)]:
        raise SentinelTripped(
            f"sentinel end_of_turn: the answer of row {row_id} does not end with {chat.turn_end}",
            why="a model that never learns to stop answers until its limit",
            todo="Check the base's tokenizer, which has to know this markup as one token.",
        )
    markup = {tokenizer.convert_tokens_to_ids(text): text for text in chat.control_tokens}
    if found := [markup[token] for token in answer_ids[:-1] if token in markup]:
        raise SentinelTripped(
            f"sentinel end_of_turn: the answer of row {row_id} holds {found[0]} before its end",
            why="the tokenizer makes markup of it, and the model would learn to end there, or to "
            "begin another turn",
            todo="Take the text out of the row's label.",
        )
    return Row(row_id, prompt_ids + answer_ids, [IGNORED] * len(prompt_ids) + answer_ids)


def _check_template(
    row_id: str, prompt: str, messages: list[dict[str, str]], tokenizer: Any, chat: ChatFormat
) -> None:
    """Refuse to train on another prompt than the served model will be shown."""
    normal = [{**m, "content": chat.normalise(m["content"])} for m in messages]
    try:
        theirs = tokenizer.apply_chat_template(
            normal, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except ValueError as error:  # there is none, or several and none of them is the default
        raise SentinelTripped(
            "sentinel chat_template: the base model has no chat template that would be used",
            why=str(error).splitlines()[0],
            todo="Use a base model of this chat format, an instruct model.",
        ) from error
    if theirs == prompt:
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(prompt, theirs, strict=False)) if a != b),
        min(len(prompt), len(theirs)),
    )
    raise SentinelTripped(
        f"sentinel chat_template: the base model's template and {chat.name} differ in row {row_id}",
        why=f"at character {at}: the task says {prompt[at : at + 40]!r}, "
        f"the template {theirs[at : at + 40]!r}",
        todo="Use a base model of this chat format, or correct tasks/chat.py.",
    )


def _lengths(rows: Iterable[Row]) -> str:
    longest = sorted(rows, key=lambda row: -len(row.ids))
    return ", ".join(f"{row.id} ({len(row.ids)} tokens)" for row in longest)
