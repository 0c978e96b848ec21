"""Ways in which a server that labels misbehaves, by name: each does something else than answer.

`WHOLE` are whole answers, of no use: they count as attempts, and the item goes to the quarantine
with what is wrong with each. `BROKEN` are no answers: the request has failed.
"""

from __future__ import annotations

import copy
import gzip
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from tests.services.simulated_teacher import Chat, Fault

Edit = Callable[[str], Any]

TEN_MB = 10 << 20
LATE_S = 0.8
"""How long the slow ones take; the tests' time-out is shorter."""
LATE = frozenset({"slow", "trickle"})


# --- parts of an answer, in either protocol ------------------------------------------------------
def _message(good: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = good.get("message") or good["choices"][0]["message"]
    return found


def _saying(edit: Edit) -> Fault:
    """Return a fault that answers with another text, or with something else in its place."""

    def fault(chat: Chat, good: dict[str, Any]) -> None:
        changed = copy.deepcopy(good)
        message = _message(changed)
        message["content"] = edit(message["content"])
        chat.reply(200, changed)

    return fault


def _with(edit: Callable[[dict[str, Any]], None]) -> Fault:
    """Return a fault that changes the answer around the text."""

    def fault(chat: Chat, good: dict[str, Any]) -> None:
        changed = copy.deepcopy(good)
        edit(changed)
        chat.reply(200, changed)

    return fault


def _status(code: int) -> Fault:
    return lambda chat, _: chat.reply(code, {"error": f"scripted {code}"})


def _bytes(body: Callable[[bytes], bytes]) -> Fault:
    """Return a fault that sends other bytes than the answer's, under a 200."""
    return lambda chat, good: chat.reply(200, body(json.dumps(good).encode()))


def _field(**changed: Any) -> Edit:
    return lambda text: json.dumps({**json.loads(text), **changed}, ensure_ascii=False)


def _ended_by(reason: str | None) -> Callable[[dict[str, Any]], None]:
    def edit(good: dict[str, Any]) -> None:
        if "choices" in good:
            good["choices"][0]["finish_reason"] = reason
        else:
            good["done_reason"] = reason

    return edit


# --- connections ---------------------------------------------------------------------------------
def _close_before_headers(chat: Chat, _: dict[str, Any]) -> None:
    chat.sever()


def _reset(chat: Chat, _: dict[str, Any]) -> None:
    """Send RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    chat.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    chat.close_connection = True
    chat.connection.close()


def _close_after_headers(chat: Chat, good: dict[str, Any]) -> None:
    chat.send_response(200)
    chat.send_header("Content-Length", str(len(json.dumps(good))))
    chat.end_headers()
    chat.sever()


def _close_mid_body(chat: Chat, good: dict[str, Any]) -> None:
    body = json.dumps(good).encode()
    chat.send_response(200)
    chat.send_header("Content-Length", str(len(body)))
    chat.end_headers()
    chat.wfile.write(body[: len(body) // 2])
    chat.sever()


def _close_mid_chunks(chat: Chat, good: dict[str, Any]) -> None:
    """End a chunked body after a whole JSON object, without the chunk that says it is the end."""
    body = json.dumps(good).encode()
    chat.send_response(200)
    chat.send_header("Transfer-Encoding", "chunked")
    chat.end_headers()
    chat.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
    chat.sever()


def _slow(chat: Chat, good: dict[str, Any]) -> None:
    time.sleep(LATE_S)
    chat.reply(200, good)


def _trickle(chat: Chat, good: dict[str, Any]) -> None:
    """Send a byte now and then: never silent for long, never done in time."""
    body = json.dumps(good).encode()
    chat.send_response(200)
    chat.send_header("Content-Length", str(len(body)))
    chat.end_headers()
    for byte in body[: int(LATE_S / 0.05)]:
        chat.wfile.write(bytes([byte]))
        time.sleep(0.05)
    chat.sever()


def _not_http(chat: Chat, _: dict[str, Any]) -> None:
    chat.wfile.write(b"\x16\x03\x01 hello\r\n\r\n")
    chat.sever()


def _compressed_flood(chat: Chat, _: dict[str, Any]) -> None:
    """Send 10 MB of white space as 10 kB of gzip."""
    body = gzip.compress(b"{" + b" " * TEN_MB)
    chat.send_response(200)
    chat.send_header("Content-Encoding", "gzip")
    chat.send_header("Content-Length", str(len(body)))
    chat.end_headers()
    chat.wfile.write(body)


# --- streams, which nobody asked for -------------------------------------------------------------
def _lines(good: dict[str, Any], *last: dict[str, Any]) -> bytes:
    """Return the answer as Ollama streams it, a piece of the text a line, and `last`."""
    text = _message(good)["content"]
    parts = [{"message": {"role": "assistant", "content": each}, "done": False} for each in text]
    return "".join(json.dumps(each) + "\n" for each in [*parts[:20], *last]).encode()


def _stream_without_done(chat: Chat, good: dict[str, Any]) -> None:
    chat.reply(200, _lines(good))


def _error_line(chat: Chat, good: dict[str, Any]) -> None:
    chat.reply(200, _lines(good, {"error": "an error was encountered while running the model"}))


def _not_done(good: dict[str, Any]) -> None:
    good["done"] = False


BOTH = ("ollama", "openai")

WHOLE: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "broken-json": (_saying(lambda text: text[:-20]), BOTH),
    "fenced": (_saying(lambda text: f"```json\n{text}\n```"), BOTH),
    "two-answers": (_saying(lambda text: f"{text}\n{text}"), BOTH),
    "length": (_with(_ended_by("length")), BOTH),
    "no-reason": (_with(_ended_by(None)), BOTH),
    "empty": (_saying(lambda _: ""), BOTH),
    "null-content": (_saying(lambda _: None), BOTH),
    "thinking": (_saying(lambda text: f"<think>Die Liga …</think>\n\n{text}"), BOTH),
    "wrong-enum": (_saying(_field(priority="critical")), BOTH),
    "null-as-text": (_saying(_field(priority="null")), BOTH),
    "unknown-field": (_saying(_field(confidence=1)), BOTH),
    "duplicate-key": (_saying(lambda text: text[:-1] + ', "priority": "low"}'), BOTH),
    "deeply-nested": (_saying(lambda _: "[" * 100_000), BOTH),
    "escaped-surrogate": (_saying(lambda text: text.replace("Land", "L\\ud800nd")), BOTH),
    "many-digits": (_saying(lambda text: text.replace("0.9", "9" * 5000)), BOTH),
    "nul": (_saying(lambda text: text.replace("Land", "L\0nd")), BOTH),
}

BROKEN: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "500": (_status(500), BOTH),
    "400": (_status(400), BOTH),
    "404": (_status(404), BOTH),
    "slow": (_slow, BOTH),
    "trickle": (_trickle, BOTH),
    "broken-envelope": (_bytes(lambda body: body[:-5]), BOTH),
    "nested-envelope": (_bytes(lambda _: b"[" * 100_000), BOTH),
    "not-utf8": (_bytes(lambda body: body.replace(b'"', b"\xff", 1)), BOTH),
    "a-list": (_bytes(lambda body: b"[" + body + b"]"), BOTH),
    "no-body": (_bytes(lambda _: b""), BOTH),
    "not-http": (_not_http, BOTH),
    "error-under-200": (_bytes(lambda _: b'{"error": "scripted"}'), BOTH),
    "stream-without-done": (_stream_without_done, ("ollama",)),
    "not-done": (_with(_not_done), ("ollama",)),
    "error-line": (_error_line, ("ollama",)),
    "no-choice": (_with(lambda good: good.update(choices=[])), ("openai",)),
    "text-for-a-message": (_with(lambda good: good.update(message="Hallo")), ("ollama",)),
    "text-for-a-count": (
        _with(lambda good: good.update(eval_count="many", usage={"prompt_tokens": "many"})),
        BOTH,
    ),
    "text-for-a-time": (
        _with(lambda good: good.update(total_duration="long", timings={"prompt_ms": "long"})),
        BOTH,
    ),
    "a-list-of-counts": (_with(lambda good: good.update(usage=[1])), ("openai",)),
    "a-list-for-text": (_saying(lambda text: [{"type": "text", "text": text}]), BOTH),
    "lone-surrogate": (_saying(lambda text: text.replace("Land", "L\ud800nd")), BOTH),
    "infinite-count": (
        _bytes(lambda body: body[:-1] + b', "eval_count": 1e999, "timings": {"prompt_ms": NaN}}'),
        BOTH,
    ),
    "10-mb": (_saying(lambda text: text[:-1] + " " * TEN_MB + "}"), BOTH),
    "10-mb-error": (lambda chat, _: chat.reply(500, {"error": "x" * TEN_MB}), BOTH),
    "10-mb-gzip": (_compressed_flood, BOTH),
    "close-before-headers": (_close_before_headers, BOTH),
    "reset": (_reset, BOTH),
    "close-after-headers": (_close_after_headers, BOTH),
    "close-mid-body": (_close_mid_body, BOTH),
    "close-mid-chunks": (_close_mid_chunks, BOTH),
}


BUSY: dict[str, tuple[Fault, tuple[str, ...]]] = {
    str(code): (_status(code), BOTH) for code in (429, 502, 503)
}
"""The server's own trouble, whatever it was asked: it is no answer to the item."""


def cases(
    faults: dict[str, tuple[Fault, tuple[str, ...]]],
) -> list[tuple[str, str]]:
    """Return (name, protocol) of each fault in each protocol that can have it."""
    return [(name, protocol) for name, (_, protocols) in faults.items() for protocol in protocols]
