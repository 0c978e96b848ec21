"""The Ollama client where a real server cannot be made to fail: a DOUBLE that answers by script.

tests/docker/test_ollama_contract.py has the same calls against a real one.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable, InputMissing, ModelMissing
from serving import ollama_address
from serving.engine import NextToken, TokenChance
from serving.ollama import Ollama
from tasks import load_task

MODELFILE = load_task("liga_relevance").modelfile()
OPTIONS: dict[str, float | int | list[str]] = {
    "num_ctx": 64,
    "num_predict": 8,
    "repeat_penalty": 1.0,
}
QUESTION = [{"role": "user", "content": "Hallo"}]
SUCCESS = b'{"status":"success"}\n'

Reply = tuple[int, bytes]
Handler = Callable[[Any], Reply]


class Double:
    """Answers `METHOD /path` from `replies`; keeps what it was sent."""

    def __init__(self) -> None:
        self.models = [{"name": "m:latest", "digest": "d1", "size": 5}]
        self.loaded: list[dict[str, Any]] = []
        self.sent: list[tuple[str, Any]] = []
        self.replies: dict[str, Handler] = {
            "GET /api/version": lambda _: (200, b'{"version":"0.33.1"}'),
            "GET /api/tags": lambda _: (200, json.dumps({"models": self.models}).encode()),
            "GET /api/ps": lambda _: (200, json.dumps({"models": self.loaded}).encode()),
            "HEAD /api/blobs": lambda _: (404, b""),
            "POST /api/blobs": lambda _: (201, b""),
            "POST /api/create": lambda _: (200, b'{"status":"parsing"}\n' + SUCCESS),
            "POST /api/copy": lambda _: (200, b""),
            "POST /api/generate": lambda _: (200, b'{"done":true,"done_reason":"unload"}'),
        }
        double = self

        class Handling(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = "/api/blobs" if self.path.startswith("/api/blobs") else self.path
                key = f"{self.command} {path}"
                double.sent.append((key, body))
                status, reply = double.replies[key](body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(reply)

            do_GET = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Keep the tests quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handling)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def says(self, key: str, status: int, body: bytes) -> None:
        self.replies[key] = lambda _: (status, body)


@pytest.fixture
def double() -> Iterator[Double]:
    made = Double()
    yield made
    made.close()


@pytest.fixture
def engine(double: Double) -> Ollama:
    return Ollama(double.address)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" * 3_000_000)
    return path


@pytest.mark.parametrize("version", ["0.17.1", "0.33.1", "1.0.0", "0.0.0", "0.33.0-rc2"])
def test_new_versions_and_source_builds_pass(double: Double, engine: Ollama, version: str) -> None:
    double.says("GET /api/version", 200, json.dumps({"version": version}).encode())
    assert engine.version() == version


@pytest.mark.parametrize("version", ["0.17.0", "0.6.8", ""])
def test_old_versions_are_refused_before_a_create(
    double: Double, engine: Ollama, gguf: Path, version: str
) -> None:
    double.says("GET /api/version", 200, json.dumps({"version": version}).encode())
    with pytest.raises(EngineUnavailable, match="too old") as caught:
        engine.create("m", gguf, MODELFILE)
    assert not caught.value.passing
    assert [key for key, _ in double.sent] == ["GET /api/version"]


@pytest.mark.parametrize(("status", "passing"), [(400, False), (500, True)])
def test_a_refusal_says_whether_it_would_repeat(
    double: Double, engine: Ollama, status: int, *, passing: bool
) -> None:
    double.says("POST /api/copy", status, b'{"error":"no"}')
    with pytest.raises(EngineUnavailable, match="refused") as caught:
        engine.copy("m", "n")
    assert caught.value.passing == passing
    assert "its own log says more" in caught.value.todo  # a server that answers needs no start


def test_a_file_is_uploaded_whole_with_progress(double: Double, engine: Ollama, gguf: Path) -> None:
    heard: list[tuple[float, float]] = []
    engine.create("m", gguf, MODELFILE, lambda done, total: heard.append((done, total)))
    body = next(body for key, body in double.sent if key == "POST /api/blobs")
    assert body == gguf.read_bytes()
    assert heard[-1] == (12_000_000, 12_000_000)
    assert len(heard) > 2
    created = json.loads(next(body for key, body in double.sent if key == "POST /api/create"))
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert created["files"] == {"model.gguf": f"sha256:{digest}"}
    assert created["parser"] == "passthrough"
    assert {"template", "system", "parameters"} <= created.keys()


def test_a_file_that_is_there_is_not_sent_again(double: Double, engine: Ollama, gguf: Path) -> None:
    double.says("HEAD /api/blobs", 200, b"")
    engine.create("m", gguf, MODELFILE)
    assert "POST /api/blobs" not in [key for key, _ in double.sent]


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b'{"status":"parsing"}\n{"error":"out of disk"}\n', "out of disk"),
        (b'{"status":"parsing"}\n', "its last line was"),
        (b"", "its last line was"),
        (b'{"status":"par', ""),
        (b"7\n", "no object"),
        (b'["success"]\n', "no object"),
    ],
)
def test_only_success_is_success(
    double: Double, engine: Ollama, gguf: Path, stream: bytes, why: str
) -> None:
    double.says("POST /api/create", 200, stream)
    with pytest.raises(EngineUnavailable) as caught:
        engine.create("m", gguf, MODELFILE)
    assert why in str(caught.value)


def test_a_create_that_left_nothing_is_found_out(
    double: Double, engine: Ollama, gguf: Path
) -> None:
    with pytest.raises(EngineUnavailable, match="does not have it"):
        engine.create("other", gguf, MODELFILE)


def test_a_missing_file_is_named(engine: Ollama, tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        engine.create("m", tmp_path / "none.gguf", MODELFILE)


def test_a_copy_that_did_not_take_is_found_out(double: Double, engine: Ollama) -> None:
    with pytest.raises(EngineUnavailable, match="alias:latest is not m:latest after the copy"):
        engine.copy("m", "alias")
    double.models.append({"name": "alias:latest", "digest": "d0", "size": 5})
    with pytest.raises(EngineUnavailable, match="after the copy"):
        engine.copy("m", "alias")
    double.models[-1]["digest"] = "d1"
    engine.copy("m", "alias")


def test_an_unload_that_hangs_ends_with_a_message(double: Double, engine: Ollama) -> None:
    double.loaded = [{"name": "m:latest", "digest": "d1", "size": 5}]
    with pytest.raises(EngineUnavailable, match=r"did not unload m:latest within 0\.3 s"):
        engine.unload("m", timeout_s=0.3)


def test_the_runner_from_before_an_alias_moved_is_unloaded_by_its_version(
    double: Double, engine: Ollama
) -> None:
    double.models = [
        {"name": "m:latest", "digest": "new", "size": 5},
        {"name": "m:v1", "digest": "old", "size": 5},
    ]
    double.loaded = [{"name": "m:latest", "digest": "old", "size": 5}]

    def unload(body: bytes) -> Reply:
        if json.loads(body)["model"] == "m:v1":
            double.loaded = []
        return 200, b'{"done":true}'

    double.replies["POST /api/generate"] = unload
    engine.unload("m", timeout_s=5)
    assert engine.loaded() == []


def test_a_slow_answer_is_a_time_out(double: Double, engine: Ollama) -> None:
    def sleep(_: bytes) -> Reply:
        time.sleep(1)
        return 200, b"{}"

    double.replies["POST /api/chat"] = sleep
    with pytest.raises(EngineUnavailable, match="did not answer in time"):
        engine.chat("m", QUESTION, options=OPTIONS, timeout_s=0.2)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"error":"out of memory"}'),
        (400, b'{"error":"exceed_context_size_error"}'),
        (200, b'{"error":"runner died"}'),
        (200, b'{"message":{"content":"{"},"done":false}'),
        (200, b"<html>"),
        (200, b"[]"),
        (502, b"<html>bad gateway"),
    ],
)
def test_no_answer_is_never_taken_for_one(
    double: Double, engine: Ollama, status: int, body: bytes
) -> None:
    double.says("POST /api/chat", status, body)
    with pytest.raises(EngineUnavailable):
        engine.chat("m", QUESTION, options=OPTIONS, timeout_s=5)


def test_an_error_that_is_null_is_none(double: Double, engine: Ollama) -> None:
    reply = {"message": {"content": "{}"}, "done": True, "done_reason": "stop", "error": None}
    double.says("POST /api/chat", 200, json.dumps(reply).encode())
    assert engine.chat("m", QUESTION, options=OPTIONS, timeout_s=5).finished


def test_whether_it_is_there_is_not_waited_for_as_long_as_for_an_answer(
    double: Double, engine: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was asked before waits for that, to go to another server."""
    let_go = threading.Event()

    def hang(_: bytes) -> Reply:
        let_go.wait(60)
        return 200, b"{}"

    double.replies["GET /api/version"] = hang
    monkeypatch.setattr("serving.ollama.ALIVE_S", 0.1)
    with pytest.raises(EngineUnavailable, match="did not answer in time"):
        engine.version()
    let_go.set()


def test_a_chat_sends_what_older_defaults_would_change(double: Double, engine: Ollama) -> None:
    reply = {"message": {"content": "{}"}, "done": True, "done_reason": "length", "eval_count": 8}
    double.says("POST /api/chat", 200, json.dumps(reply).encode())
    found = engine.chat("m", QUESTION, schema={"type": "object"}, options=OPTIONS, timeout_s=5)
    assert (found.finished, found.reason, found.answer_tokens) == (False, "length", 8)
    sent = json.loads(double.sent[-1][1])
    assert (sent["stream"], sent["think"], sent["truncate"], sent["shift"]) == (False,) * 4
    assert sent["options"] == OPTIONS
    assert sent["format"] == {"type": "object"}
    assert sent["model"] == "m:latest"
    with pytest.raises(ValueError, match="repeat_penalty"):
        engine.chat("m", QUESTION, options={"num_ctx": 1, "num_predict": 1}, timeout_s=5)


def test_a_token_that_shows_nothing_is_drawn_again(double: Double, engine: Ollama) -> None:
    told = {"token": "a", "logprob": -0.5}
    silent: dict[str, Any] = {"done": True, "prompt_eval_count": 7}
    replies = [silent, {**silent, "logprobs": [{**told, "top_logprobs": [told]}]}]
    double.replies["POST /api/generate"] = lambda _: (200, json.dumps(replies.pop(0)).encode())
    found = engine.next_token("m", "Text", options=OPTIONS, timeout_s=5)
    assert found == NextToken(7, (TokenChance("a", -0.5, None),))
    first, second = (json.loads(body) for _, body in double.sent[-2:])
    assert (first["raw"], first["prompt"], first["options"]["num_predict"]) == (True, "Text", 1)
    assert first["options"]["temperature"] == 0
    assert second["options"]["temperature"] > 1

    double.says("POST /api/generate", 200, json.dumps(silent).encode())
    assert engine.next_token("m", "Text", options=OPTIONS, timeout_s=5) == NextToken(7, ())


def test_a_missing_model_is_named(double: Double, engine: Ollama, gguf: Path) -> None:
    double.says("POST /api/chat", 404, b'{"error":"model not found"}')
    double.says("DELETE /api/delete", 404, b'{"error":"model not found"}')
    with pytest.raises(ModelMissing, match="x:latest"):
        engine.chat("x", QUESTION, options=OPTIONS, timeout_s=5)
    with pytest.raises(ModelMissing):
        engine.delete("x")
    with pytest.raises(ModelMissing):
        engine.create_from("y", "x", MODELFILE)  # Ollama would try to pull it
    assert "POST /api/create" not in [key for key, _ in double.sent]


def test_nobody_there_is_named_with_the_address() -> None:
    with pytest.raises(EngineUnavailable, match=r"127\.0\.0\.1:9 cannot be reached"):
        Ollama("http://127.0.0.1:9").models()


def test_proxies_of_the_environment_are_not_used(
    double: Double, engine: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert set(engine.models()) == {"m:latest"}


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("gpu-host", "http://gpu-host:11434"),
        ("http://gpu-host", "http://gpu-host:80"),
        ("https://gpu-host/ollama/", "https://gpu-host:443/ollama"),
        ("[::1]:5", "http://[::1]:5"),
        ("::", "http://[::1]:11434"),
    ],
)
def test_addresses_are_read_as_ollama_reads_them(host: str, address: str) -> None:
    assert ollama_address(host) == address
