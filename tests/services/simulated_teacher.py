"""A DOUBLE of a server that labels: Ollama's API and the OpenAI protocol on one port, no model.

It answers by script, as many requests at once as it has slots, each at a fixed pace; the others
wait, and the times it reports say so, as Ollama's do. A `Fault` takes a request's place in the
answer (tests/services/teacher_faults.py). Used by tests and by benchmarks/labeling.py.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "teacher"
DIGEST = "5" * 64
VERSION = "0.33.1"

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Pace:
    """How long an answer takes: a time to its first token, and a time for each token, in s."""

    first_token_s: float = 0.0
    token_s: float = 0.0
    characters_per_token: float = 3.5

    def tokens(self, text: str) -> int:
        """Return how many tokens a text has here."""
        return max(1, round(len(text) / self.characters_per_token))

    def seconds(self, text: str) -> float:
        """Return how long the model works for an answer."""
        return self.first_token_s + self.token_s * self.tokens(text)


@dataclass(frozen=True)
class Asked:
    """A chat request, as the script and the faults see it."""

    number: int
    """Of all chat requests, from 0."""
    repeated: int
    """How often the same user message was asked before."""
    messages: Messages
    protocol: str
    """`ollama` or `openai`."""
    schema: dict[str, Any]
    """What the answer has to keep to, in Ollama's protocol; empty where nothing was said."""

    @property
    def item(self) -> str:
        """The user message: what is asked about."""
        return self.messages[1]["content"]


@dataclass
class Load:
    """What the server has had to do. Times by time.monotonic()."""

    requests: int = 0
    answered: int = 0
    busy_s: float = 0.0
    """Slots times seconds in which they worked."""
    most_at_once: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    by_item: Counter[str] = field(default_factory=Counter)


class Chat(BaseHTTPRequestHandler):
    """One request. A fault is given this object, and may do to the connection what it likes."""

    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_GET(self) -> None:
        """Answer what is looked up before and between the questions."""
        row = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "digest": DIGEST, "size": 1}
        rows = [row] if self.server.teacher.has_model else []
        named = [{"id": MODEL, "object": "model"}] if rows else []
        found = self.server.teacher.instead.get(self.path) or {
            "/api/version": {"version": VERSION},
            "/api/tags": {"models": rows},
            "/api/ps": {"models": rows},
            "/v1/models": {"object": "list", "data": named},
        }.get(self.path)
        self.reply(200 if found else 404, found or {"error": "not found"})

    def do_POST(self) -> None:
        """Answer a question, or do what a fault does."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        teacher = self.server.teacher
        if self.path == "/api/show":
            self.reply(200, {"capabilities": ["completion"], "model_info": {}})
        elif self.path in {"/api/chat", "/v1/chat/completions"}:
            teacher.answer(self, body["messages"], body.get("format") or {})
        else:
            self.reply(404, {"error": "not found"})

    def reply(self, status: int, body: Any) -> None:
        """Send a whole, correct answer; bytes are sent as they are."""
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def sever(self) -> None:
        """End the connection now; nothing that is still buffered goes out."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""


Fault = Callable[[Chat, dict[str, Any]], None]
"""(request, the right answer as it would have been sent) → does something else instead."""


class _Listener(ThreadingHTTPServer):
    """The socket, and the connections on it, which a restart severs."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, port: int, teacher: SimulatedTeacher) -> None:
        super().__init__(("127.0.0.1", port), Chat)
        self.teacher = teacher
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keep the connection in mind."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget it."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: the client was killed, or the server was."""

    def sever(self) -> None:
        """Drop every connection, as the kernel does for a process that was killed."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class SimulatedTeacher:
    """A server on a free loopback port; a context manager.

    `script` gives the text for a request. `fault` may return a fault for one; None answers well.
    """

    def __init__(
        self, script: Callable[[Asked], str], *, slots: int = 1, pace: Pace | None = None
    ) -> None:
        self.script = script
        self.fault: Callable[[Asked], Fault | None] = lambda _: None
        self.has_model = True
        self.instead: dict[str, Any] = {}
        """Other answers to what is looked up, by path."""
        self.load = Load()
        self.pace = pace or Pace()
        self._slots = threading.BoundedSemaphore(slots)
        self._lock = threading.Lock()
        self._working = 0
        self._listener = self._listen(0)
        self.port = self._listener.server_port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def word(self, protocol: str) -> str:
        """Return what RETRAIN_TEACHERS calls it, for `ollama` or `openai`."""
        address = f"127.0.0.1:{self.port}"
        return address if protocol == "ollama" else f"openai+http://{address}/v1#{MODEL}"

    def reset(self) -> None:
        """Forget what was asked."""
        with self._lock:
            self.load = Load()

    def stop(self) -> None:
        """Be gone: nobody listens, and requests under way get no answer."""
        self._listener.shutdown()
        self._listener.server_close()
        self._listener.sever()

    def start(self) -> None:
        """Listen again at the same address."""
        self._listener = self._listen(self.port)

    def answer(self, chat: Chat, messages: Messages, schema: dict[str, Any]) -> None:
        """Answer one request in its turn."""
        protocol = "ollama" if chat.path == "/api/chat" else "openai"
        arrived = time.monotonic()
        asked = self._note(messages, protocol, schema, arrived)
        fault = self.fault(asked)
        text = self.script(asked)
        with self._slots:
            began = time.monotonic()
            with self._lock:
                self._working += 1
                self.load.most_at_once = max(self.load.most_at_once, self._working)
            time.sleep(self.pace.seconds(text))
            ended = time.monotonic()
            with self._lock:
                self._working -= 1
                self.load.busy_s += ended - began
                self.load.answered += 1
                self.load.last_at = ended
        prompt = sum(self.pace.tokens(message["content"]) for message in messages)
        counts = (prompt, self.pace.tokens(text))
        good = (_ollama if protocol == "ollama" else _openai)(text, counts, arrived, began, ended)
        if fault is not None:
            fault(chat, good)
        else:
            chat.reply(200, good)

    def _note(self, messages: Messages, protocol: str, schema: dict[str, Any], now: float) -> Asked:
        with self._lock:
            item = messages[1]["content"]
            repeated = self.load.by_item[item]
            asked = Asked(self.load.requests, repeated, messages, protocol, schema)
            self.load.by_item[item] += 1
            self.load.requests += 1
            self.load.first_at = self.load.first_at or now
            return asked

    def _listen(self, port: int) -> _Listener:
        listener = _Listener(port, self)
        serving = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        serving.start()
        return listener


def _ollama(
    text: str, counts: tuple[int, int], arrived: float, began: float, ended: float
) -> dict[str, Any]:
    """Return an answer of /api/chat; `total_duration` (ns) has the waiting in it, as Ollama's."""
    return {
        "model": f"{MODEL}:latest",
        "message": {"role": "assistant", "content": text},
        "done": True,
        "done_reason": "stop",
        "total_duration": int((ended - arrived) * 1e9),
        "load_duration": 0,
        "prompt_eval_count": counts[0],
        "prompt_eval_duration": 0,
        "eval_count": counts[1],
        "eval_duration": int((ended - began) * 1e9),
    }


def _openai(
    text: str, counts: tuple[int, int], _arrived: float, began: float, ended: float
) -> dict[str, Any]:
    """Return a chat completion, with the `timings` (ms) of llama.cpp's server."""
    message = {"role": "assistant", "content": text}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": counts[0], "completion_tokens": counts[1]},
        "timings": {"prompt_ms": 0.0, "predicted_ms": (ended - began) * 1e3},
    }
