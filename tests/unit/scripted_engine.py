# ruff: noqa: ARG002  # the arguments are the interface's
"""A DOUBLE of a serving engine for unit tests: it answers by script, no model is involved."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.errors import EngineUnavailable, ModelMissing
from serving.engine import (
    Answer,
    Messages,
    Model,
    NextToken,
    Options,
    Progress,
    full_tag,
    require_options,
)
from tasks import load_task
from tasks.definition import Modelfile

Script = Callable[[list[dict[str, str]], int], str | Answer | Exception]
"""(messages, number of the request) → text, whole answer, or what is raised."""


def answer(text: str, *, finished: bool = True) -> Answer:
    """Return an answer with this text."""
    return Answer(text, finished, "stop" if finished else "length", 10, 20, 0.1)


def one_word_tokenizer(folder: Path) -> None:
    """Write a base model's tokenizer that knows one word, which stands for every text."""
    from tokenizers import Tokenizer, models

    folder.mkdir(parents=True, exist_ok=True)
    Tokenizer(models.WordLevel({"x": 0}, unk_token="x")).save(str(folder / "tokenizer.json"))


class ScriptedEngine:
    """Has a teacher, `teacher:latest`; keeps what it was asked."""

    name = "scripted"
    task = load_task("liga_relevance")

    def __init__(self, script: Script) -> None:
        self.script = script
        self.tag_script: Callable[[list[dict[str, str]], int, str], Any] | None = None
        """In place of `script`, for what hangs on the model."""
        self.tags = {"teacher:latest": Model("teacher:latest", "d1", 1)}
        self.asked: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.alive = True
        self._lock = threading.Lock()

    def version(self) -> str:
        if not self.alive:
            raise EngineUnavailable("the engine is gone")
        return "1"

    def models(self) -> dict[str, Model]:
        self.version()
        return dict(self.tags)

    def loaded(self) -> list[Model]:
        return []

    def create(
        self,
        tag: str,
        gguf: Path,
        modelfile: Modelfile,
        progress: Progress | None = None,
        *,
        base: str = "",
    ) -> Model:
        self.calls.append(f"create {tag}{f' on {base}' if base else ''}")
        if progress:
            progress(1, 1)
        self.tags[full_tag(tag)] = Model(full_tag(tag), "d2", 1)
        return self.tags[full_tag(tag)]

    def quantization(self, tag: str) -> str:
        return "q8_0"

    def num_ctx(self, tag: str) -> int | None:
        return self.task.serving.num_ctx

    def copy(self, source: str, destination: str) -> None:
        self.tags[full_tag(destination)] = self.tags[full_tag(source)]

    def delete(self, tag: str) -> None:
        self.calls.append(f"delete {tag}")
        if self.tags.pop(full_tag(tag), None) is None:
            raise ModelMissing(f"no {tag}")

    def unload(self, tag: str, timeout_s: float = 60) -> None:
        self.calls.append(f"unload {tag}")

    def chat(
        self,
        tag: str,
        messages: Messages,
        *,
        schema: dict[str, Any] | None = None,
        options: Options,
        timeout_s: float,
    ) -> Answer:
        require_options(options)
        with self._lock:
            number = len(self.asked)
            asked = [dict(message) for message in messages]
            self.asked.append(
                {"tag": tag, "messages": asked, "schema": schema, "options": dict(options)}
            )
        found = (
            self.tag_script(asked, number, tag) if self.tag_script else self.script(asked, number)
        )
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Answer) else answer(found)

    def render(self, tag: str, messages: Messages, *, think: bool | None = False) -> str:
        asked = list(messages)
        if asked[0]["role"] != "system":
            asked.insert(0, {"role": "system", "content": self.task.system_prompt})
        return self.task.render_prompt([dict(message) for message in asked])

    def tokenize(self, tag: str, prompt: str, options: Options) -> list[int]:
        return [0]  # what one_word_tokenizer makes of any text

    def next_token(self, tag: str, text: str, *, options: Options, timeout_s: float) -> NextToken:
        raise NotImplementedError

    def close(self) -> None:
        self.calls.append("close")
