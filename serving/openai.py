"""A server that speaks the OpenAI chat protocol: vLLM, llama-server and others. It only answers.

What these servers make of a request differs, so only what both vLLM and llama-server document is
sent; the size of the context is the server's own setting.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

from serving.engine import Answer, Messages, Model, Options, require_options
from serving.http import ALIVE_S, SHORT_S, Connection, expected_shape, text_in, waited_s


class OpenAiServer:
    """The server; `address` is its base URL, with /v1 and without a slash at its end."""

    name = "openai"

    def __init__(self, address: str, token: str = "") -> None:
        todo = "Start the server, or take it out of the setting `teachers`."
        self._http = Connection("The server", address, todo=todo, token=token)

    def version(self) -> str:
        """Return "", as the protocol has no version; raises `EngineUnavailable` while it loads."""
        self._listed(ALIVE_S)
        return ""

    def models(self) -> dict[str, Model]:
        """Return the served models by their ids; the digest is of the id, as no other is told."""
        return {name: Model(name, digest_of_name(name), 0) for name in self._listed(SHORT_S)}

    def _listed(self, timeout_s: float) -> list[str]:
        with expected_shape("the server"):
            listed = self._http.json("GET", "/models", timeout_s).get("data") or []
            return [str(row["id"]) for row in listed]

    def chat(
        self,
        tag: str,
        messages: Messages,
        *,
        schema: dict[str, Any] | None = None,
        options: Options,
        timeout_s: float,
    ) -> Answer:
        """Ask a model, without thinking, and return its whole answer."""
        require_options(options)
        body: dict[str, Any] = {
            "model": tag,
            "messages": [dict(message) for message in messages],
            "stream": False,
            "max_tokens": options["num_predict"],
            "chat_template_kwargs": {"enable_thinking": False},
            **{name: options[name] for name in ("temperature", "top_p", "seed") if name in options},
        }
        if schema is not None:
            wanted = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        started = time.monotonic()
        found = self._http.json("POST", "/chat/completions", timeout_s, body=body, model=tag)
        return _answer(found, time.monotonic() - started)

    def close(self) -> None:
        """Nothing is held open between calls."""


def digest_of_name(name: str) -> str:
    """Return what stands for a model's digest where only its name is told."""
    return hashlib.sha256(name.encode()).hexdigest()


def _answer(found: dict[str, Any], seconds: float) -> Answer:
    with expected_shape("the server"):
        (choice,) = found["choices"]
        reason = str(choice["finish_reason"])
        usage = found.get("usage") or {}
        return Answer(
            text=text_in(choice["message"]),
            finished=reason == "stop",
            reason=reason,
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            answer_tokens=int(usage.get("completion_tokens") or 0),
            seconds=seconds,
            waited_s=waited_s(found, seconds),
        )
