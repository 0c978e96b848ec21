"""The interface to a serving engine: what the driver and the labeler's stages may ask of it.

Names are `[namespace/]model[:tag]` as Ollama has them; every method accepts the short form and
answers with the full one (`name` is `name:latest`). Failures are those of contracts/errors.py:
`EngineUnavailable` when the engine does not answer or answers wrongly, `ModelMissing` for a model
it does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from contracts.errors import EngineUnavailable, SettingsInvalid
from contracts.stage import Frozen
from tasks.definition import Modelfile

Messages = Sequence[Mapping[str, str]]
Options = Mapping[str, float | int | list[str]]
Progress = Callable[[float, float], None]
"""Told (done, total) in bytes."""

LIKELIEST = 20
"""How many tokens `next_token` tells; Ollama gives no more."""
DRAWS: tuple[dict[str, float | int], ...] = (
    {"temperature": 0.0},
    *({"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": n} for n in range(1, 6)),
)
"""Ways to draw a token. An engine tells no probabilities where the token that it draws shows
nothing (markup, a part of a character); then another is drawn, which the probabilities do not
depend on."""

_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}"
_TAG = re.compile(rf"(?:{_PART}/)?{_PART}(?::{_PART})?")


class EngineBusy(EngineUnavailable):
    """The engine says that it cannot answer now, whatever it is asked: it loads, or is full."""


class ModelFailed(EngineUnavailable):
    """The engine is there, and fails at this model or this request: it cannot load it, say."""


class AnswerCutOff(EngineUnavailable):
    """The engine has ended an answer before the model did: Ollama does that to a model that says
    the same token more than 30 times, and where a model's runner ends."""


@dataclass(frozen=True)
class Model:
    """A model as the engine has it: full tag, digest of its manifest in hex, size in bytes."""

    tag: str
    digest: str
    size_bytes: int


class Resident(Frozen):
    """A model that is loaded, and how: enough to load it again."""

    tag: str
    num_ctx: int
    until: float | None
    """When the engine unloads it by itself, in seconds since the epoch; None: never."""


@dataclass(frozen=True)
class Answer:
    """One answer. `finished` is False when it was cut off: such a text is never valid."""

    text: str
    finished: bool
    reason: str
    """Why it ended: `stop`, or `length` when the token limit was reached."""
    prompt_tokens: int
    answer_tokens: int
    seconds: float
    waited_s: float | None = None
    """How long the request waited until the model began; None where the server does not say."""


@dataclass(frozen=True)
class TokenChance:
    """A token that may come next, and the natural logarithm of its probability."""

    text: str
    """What it adds to the text; "" for markup and for a part of a character."""
    logprob: float
    number: int | None
    """Its number in the vocabulary, where the engine tells it."""


@dataclass(frozen=True)
class NextToken:
    """What a model expects behind a text."""

    prompt_tokens: int
    """How many tokens the engine made of the text."""
    chances: tuple[TokenChance, ...]
    """The likeliest tokens, likeliest first; empty where the engine does not tell."""


class ChatServer(Protocol):
    """A server that answers. `chat` and `version` may be called from several threads."""

    @property
    def name(self) -> str:
        """What people call it: `ollama`, `llamacpp`, `openai`."""
        ...

    def version(self) -> str:
        """Return the version of the engine; raises `EngineUnavailable` if it does not answer."""
        ...

    def models(self) -> dict[str, Model]:
        """Return every model the engine has, by full tag."""
        ...

    def chat(
        self,
        tag: str,
        messages: Messages,
        *,
        schema: dict[str, Any] | None = None,
        options: Options,
        timeout_s: float,
    ) -> Answer:
        """Ask a model and return its whole answer.

        `options` override the model's own parameters and hold at least `num_ctx`, `num_predict`
        and `repeat_penalty`, whose defaults differ between versions. A `schema` constrains the
        answer, but the caller validates it all the same.
        """
        ...

    def close(self) -> None:
        """Let go of connections and of memory that this object holds."""
        ...


class Engine(ChatServer, Protocol):
    """A serving engine, whose models can be made and removed."""

    def loaded(self) -> list[Model]:
        """Return the models that hold memory now."""
        ...

    def create(
        self,
        tag: str,
        gguf: Path,
        modelfile: Modelfile,
        progress: Progress | None = None,
        *,
        base: str = "",
    ) -> Model:
        """Make a model of a GGUF file; the same content under the same tag changes nothing.

        With `base`, a model that the engine has, the file is a LoRA adapter on it. Raises
        `ModelMissing` where there is no such base.
        """
        ...

    def quantization(self, tag: str) -> str:
        """Return the type of a model's weights in small letters (`q8_0`), "" if it is not told."""
        ...

    def num_ctx(self, tag: str) -> int | None:
        """Return the context that a model gives a request which names none; None: the engine's."""
        ...

    def copy(self, source: str, destination: str) -> None:
        """Let `destination` name the same model as `source`; both then show one digest."""
        ...

    def delete(self, tag: str) -> None:
        """Remove a name, which must exist; a loaded model stays loaded, so `unload` first."""
        ...

    def unload(self, tag: str, timeout_s: float = 60) -> None:
        """Free the memory of a model and wait until it is gone; nothing happens if it is not
        loaded. Raises `EngineUnavailable` after `timeout_s`.
        """
        ...

    def render(self, tag: str, messages: Messages, *, think: bool | None = False) -> str:
        """Return the prompt that the model would read: for comparing it with the trainer's.

        `think` is what a client says of it; None: nothing at all.
        """
        ...

    def tokenize(self, tag: str, prompt: str, options: Options) -> list[int]:
        """Return the ids of the tokens that the model reads for a rendered prompt, all that the
        engine adds included.

        `options` as in `chat`, so that the model is not loaded once more.
        """
        ...

    def next_token(self, tag: str, text: str, *, options: Options, timeout_s: float) -> NextToken:
        """Return what comes next behind a text, which is taken as it is: markup counts.

        The probabilities are the model's own, before any sampling. `options` as for `chat`.
        """
        ...


def full_tag(name: str) -> str:
    """Return a model's name with its tag (`name` is `name:latest`).

    Raises `SettingsInvalid` for what is no name at all: it would end up in file names and URLs.
    """
    if not _TAG.fullmatch(name):
        raise SettingsInvalid(
            f"{name!r} is not the name of a model", why="it must be [namespace/]model[:tag]"
        )
    return name if ":" in name else f"{name}:latest"


def require_options(options: Options) -> None:
    """Raise ValueError for a request that leaves a setting to the engine's changing defaults."""
    missing = {"num_ctx", "num_predict", "repeat_penalty"} - options.keys()
    if missing:
        raise ValueError(f"options without {', '.join(sorted(missing))}")
