"""Whether the served model reads what it was trained on, to the byte and to the token.

In production the template, the system prompt and the thinking block have each differed between
trainer and server once, and the model answered in the wrong form. So the engine itself is asked
how it renders the task's messages, as a request of the backend's form, for every row that is to be
asked, and which tokens it reads. What the backend really sends cannot be seen from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.entrypoint import StageContext
from contracts.errors import InputMissing, SentinelTripped
from contracts.params import EvaluateParams
from contracts.stages import BASE
from images.labeler.contestants import Question
from serving.engine import Engine
from tasks.definition import Task

_SHOWN, _SHOWN_TOKENS = 40, 5
"""How much of each is shown from the first difference on, in characters and in tokens."""


def check(
    context: StageContext[EvaluateParams],
    engine: Engine,
    tag: str,
    task: Task,
    questions: Sequence[Question],
) -> None:
    """Raise `SentinelTripped` at the first row whose prompt is not the trainer's.

    `tag` is the candidate. Compared are, for each row, the text that the engine renders from the
    messages, and the token ids that it reads; for the first row also what it renders for a client
    that sends no system message, or does not say that there is to be no thinking. The backend
    names no context either: the model's own has to be the task's at least.
    """
    tokenizer = _tokenizer(context.input(BASE))
    options = dict(task.modelfile().parameters)
    _same_context(tokenizer, task, questions, engine.num_ctx(tag))
    for number, question in enumerate(questions):
        expected = task.render_prompt(question.messages)
        _same_text(question.id, expected, engine.render(tag, question.messages))
        if number == 0:  # what stands in the model counts where the client says nothing
            own = engine.render(tag, question.messages[1:])
            _same_text(f"{question.id}, sent without a system message", expected, own)
            unsaid = engine.render(tag, question.messages, think=None)
            _same_text(f"{question.id}, sent without a word on thinking", expected, unsaid)
        ids = list(tokenizer.encode(expected, add_special_tokens=False).ids)
        _same_ids(question.id, tokenizer, ids, engine.tokenize(tag, expected, options))
        context.progress(number + 1, len(questions), "prompts")


def _tokenizer(base: Path) -> Any:
    """Return the tokenizer that the trainer has used, without the rest of transformers."""
    from tokenizers import Tokenizer

    path = base / "tokenizer.json"
    if not path.is_file():
        raise InputMissing(f"{path} is missing", why="trainer and server are compared by it")
    return Tokenizer.from_file(str(path))


def _same_context(
    tokenizer: Any, task: Task, questions: Sequence[Question], served: int | None
) -> None:
    if served is not None and served >= task.serving.num_ctx:
        return
    prompts = {each.id: task.render_prompt(each.messages) for each in questions}
    lengths = {
        row: len(tokenizer.encode(prompt, add_special_tokens=False).ids)
        for row, prompt in prompts.items()
    }
    longest = max(lengths, key=lambda row: lengths[row])
    raise SentinelTripped(
        f"sentinel served_context: the model's own num_ctx is {served or 'not set'}, "
        f"the task's {task.serving.num_ctx}",
        why=f"row {longest}, the longest, has {lengths[longest]} tokens, and its answer may have "
        f"{task.serving.num_predict}; the backend's requests name no num_ctx",
        todo="The model must have the task's parameters: compare `ollama show --parameters` with "
        "the task's Serving.",
    )


def _same_text(row: str, expected: str, served: str) -> None:
    if served == expected:
        return
    at = _first_difference(expected, served)
    raise SentinelTripped(
        f"sentinel prompt_parity: row {row} is served as another text than it was trained as",
        why=f"from character {at}: trained {expected[at : at + _SHOWN]!r}, "
        f"served {served[at : at + _SHOWN]!r}",
        todo="The engine must use the task's template: compare `ollama show --template` with "
        "tasks/chat.py.",
    )


def _same_ids(row: str, tokenizer: Any, expected: Sequence[int], served: Sequence[int]) -> None:
    if list(served) == list(expected):
        return
    at = _first_difference(expected, served)
    if at == len(expected):
        raise SentinelTripped(
            f"sentinel token_parity: row {row} is read with tokens that it was not trained with",
            why=f"{len(served) - at} more than the {at} of the prompt, added by the engine",
            todo="The GGUF most likely asks for a BOS token (tokenizer.ggml.add_bos_token).",
        )
    trained, read = (list(ids[at : at + _SHOWN_TOKENS]) for ids in (expected, served))
    words = (repr(tokenizer.decode(ids, skip_special_tokens=False)) for ids in (trained, read))
    said = [f"{ids} ({text})" for ids, text in zip((trained, read), words, strict=True)]
    raise SentinelTripped(
        f"sentinel token_parity: row {row} is read as other tokens than it was trained as",
        why=f"from token {at} of {len(expected)}: trained {said[0]}, served {said[1]}",
        todo="Look at the GGUF's tokenizer: its pre-tokenizer, added tokens, and a BOS.",
    )


def _first_difference(ours: Sequence[Any], theirs: Sequence[Any]) -> int:
    pairs = zip(ours, theirs, strict=False)
    shorter = min(len(ours), len(theirs))
    return next((place for place, (a, b) in enumerate(pairs) if a != b), shorter)
