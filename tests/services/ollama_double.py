"""A DOUBLE of Ollama's HTTP API for unit tests: it answers by script, no model is involved.

tests/docker talks to a real Ollama.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[str], str | int]
"""User message → the model's text, or an HTTP status to fail with."""


def good_answer(priority: str | None = "high", **changed: Any) -> str:
    """Return a valid answer of a relevant article, with some fields changed."""
    fields: dict[str, Any] = {
        "summary": "Das Land kürzt die Mittel.",
        "detailed_analysis": "Das Land kürzt die Mittel der Beratung zum Jahresende.",
        "argumentationskette": ["Beratung spart Folgekosten.", "Die Stellen sind überlastet."],
        "relevant": True,
        "relevance_score": 0.9,
        "priority": priority,
        "assigned_aks": ["AK1"],
        "tags": ["Haushalt"],
        "reasoning": "Die Kürzung trifft die Verbände.",
    }
    return json.dumps({**fields, **changed}, ensure_ascii=False)


class OllamaDouble:
    """A server on a free loopback port. `script` decides, `asked` keeps every chat request.

    While `open` is cleared, requests wait, as behind a slow model. Of models it knows names and
    digests; tags of one digest share a runner, which shows the first name it was asked by.
    """

    def __init__(self, *models: str, port: int = 0) -> None:
        self.models = list(models)
        self.digests: dict[str, str] = {}
        """Of the models whose digest is not just made of their name."""
        self.loaded: dict[str, str] = {}
        """By digest, the name that its runner was first asked by."""
        self.script: Script = lambda _: good_answer()
        self.cut_off = 0
        """How many of the next answers end before they are done: real ones do so after 30 equal
        tokens."""
        self.shown: dict[str, Any] = {"details": {}}
        """What /api/show says of each model: a Modelfile without anything in it."""
        self.asked: list[dict[str, Any]] = []
        self.open = threading.Event()
        self.open.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # The pause is how long a stop waits, in every test.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop serving; requests that wait are let go."""
        self.open.set()
        self._server.shutdown()
        self._server.server_close()

    def digest(self, name: str) -> str:
        """Return the digest that a name shows."""
        return self.digests.get(name, f"digest of {name}")

    def copy(self, source: str, destination: str) -> None:
        """Let a name show the digest of another."""
        if destination not in self.models:
            self.models.append(destination)
        self.digests[destination] = self.digest(source)

    def user_messages(self) -> list[str]:
        """Return what was asked, in order."""
        return [request["messages"][1]["content"] for request in self.asked]

    def _answer(self, request: dict[str, Any], digest: str) -> tuple[int, dict[str, Any]]:
        """Return the status and body of a chat, by the script."""
        self.asked.append({**request, "digest": digest})
        self.loaded.setdefault(digest, request["model"])
        self.open.wait()
        said = self.script(request["messages"][1]["content"])
        if isinstance(said, int):
            return said, {"error": "scripted"}
        cut_off = self.cut_off > 0
        self.cut_off -= cut_off
        return 200, {"message": {"content": said}, "done": not cut_off, "done_reason": "stop"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer /api/version and /api/ps, and /api/tags whatever the path."""
                if self.path == "/api/version":
                    self._reply(200, {"version": "0.33.1"})
                    return
                shown = {name: double.digest(name) for name in double.models}
                if self.path == "/api/ps":
                    shown = {name: digest for digest, name in double.loaded.items()}
                models = [{"name": n, "digest": d, "size": 1} for n, d in shown.items()]
                self._reply(200, {"models": models})

            def do_POST(self) -> None:
                """Answer /api/chat by the script; copy, show and unload as Ollama does."""
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/api/copy":
                    double.copy(request["source"], request["destination"])
                    self._reply(200, {})
                    return
                if self.path == "/api/show":
                    self._reply(200, double.shown)
                    return
                digest = double.digest(request["model"])
                if self.path == "/api/generate":
                    double.loaded.pop(digest, None)
                    self._reply(200, {"done": True, "done_reason": "unload"})
                    return
                self._reply(*double._answer(request, digest))

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

            def _reply(self, status: int, body: Any) -> None:
                encoded = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

        return Handler
