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
from tasks.chat import QWEN3
from tasks.definition import Modelfile

Script = Callable[[list[dict[str, str]], int], str | Answer | Exception]
"""(messages, number of the request) → text, whole answer, or what is raised."""


def answer(text: str, *, finished: bool = True) -> Answer:
    """Return an answer with this text."""
    return Answer(text, finished, "stop" if finished else "length", 10, 20, 0.1)


class ScriptedEngine:
    """Has a teacher, `teacher:latest`; keeps what it was asked."""

    name = "scripted"

    def __init__(self, script: Script) -> None:
        self.script = script
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
        self, tag: str, gguf: Path, modelfile: Modelfile, progress: Progress | None = None
    ) -> Model:
        self.calls.append(f"create {tag}")
        if progress:
            progress(1, 1)
        self.tags[full_tag(tag)] = Model(full_tag(tag), "d2", 1)
        return self.tags[full_tag(tag)]

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
        found = self.script(asked, number)
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Answer) else answer(found)

    def render(self, tag: str, messages: Messages) -> str:
        return QWEN3.render_prompt(messages)

    def next_token(self, tag: str, text: str, *, options: Options, timeout_s: float) -> NextToken:
        raise NotImplementedError

    def close(self) -> None:
        self.calls.append("close")
