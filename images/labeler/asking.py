"""One request to a server, and whose fault it is when there is no answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from contracts.errors import EngineUnavailable, ModelMissing
from images.labeler.server import Gone, Server
from serving.engine import Answer, AnswerCutOff, ChatServer, EngineBusy, Messages, Options

CUT_OFF = "cut off twice by the engine"
"""Why an answer ended that `Request.may_be_cut_off`."""
Question = TypeVar("Question")


@dataclass(frozen=True)
class Request:
    """What a model is asked, and how."""

    messages: Messages
    schema: dict[str, Any] | None
    options: Options
    timeout_s: float
    may_be_cut_off: bool = False
    """Whether an answer that the engine has cut off twice is the model's, which repeats itself.
    Once may be a runner that has ended."""


def server_for(
    server: ChatServer,
    tag: str,
    request: Callable[[Question], Request],
    *,
    name: str,
    ceiling: int,
    ready: Callable[[], None] = lambda: None,
) -> Server[Question]:
    """Return a member of a pool that asks the model `tag` of a server.

    `ready` is called before the first request, and again after the server was gone; it raises
    `ModelMissing` if the server is not, or no longer, what it should be. A question counts as sent
    only to a server that was seen since it was last gone: no question is to blame for one that
    stays away. That a model is missing is believed where the server does not list it either.
    """
    is_ready = threading.Event()

    def ask(question: Question) -> Answer:
        asked = request(question)
        sent = False
        try:
            if not is_ready.is_set():
                server.version()
                ready()
                is_ready.set()
            sent = True
            return _chat(server, tag, asked)
        except ModelMissing as error:
            if sent and _still_has(server, tag):
                raise EngineUnavailable(error.what, why=f"{error.why}; it lists it") from error
            is_ready.clear()
            raise Gone(error) from error
        except EngineUnavailable as failure:
            try:
                server.version()
            except EngineUnavailable as error:
                is_ready.clear()
                raise Gone(error, sent=sent) from error
            if not sent or isinstance(failure, EngineBusy):
                raise Gone(failure, sent=sent) from failure
            raise

    return Server(name, ask, ceiling)


def _chat(server: ChatServer, tag: str, asked: Request) -> Answer:
    chat = partial(
        server.chat,
        tag,
        asked.messages,
        schema=asked.schema,
        options=asked.options,
        timeout_s=asked.timeout_s,
    )
    if not asked.may_be_cut_off:
        return chat()
    with suppress(AnswerCutOff):
        return chat()
    try:
        return chat()
    except AnswerCutOff:
        return Answer(
            "", finished=False, reason=CUT_OFF, prompt_tokens=0, answer_tokens=0, seconds=0
        )


def _still_has(server: ChatServer, tag: str) -> bool:
    """Return whether a server lists a model that it has just said it does not have."""
    try:
        return tag in server.models()
    except EngineUnavailable:
        return False
