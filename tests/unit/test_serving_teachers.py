"""Which servers label: how they are named, and whose model is the teacher."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable, ModelMissing
from serving.engine import Model
from serving.openai import OpenAiServer, digest_of_name
from serving.teachers import (
    TeacherServer,
    connect_teachers,
    identify_teacher,
    remembered_teacher,
)
from tests.unit.scripted_engine import ScriptedEngine

TAG = "teacher:latest"


def server(name: str, digest: str = "d1", *, alive: bool = True) -> TeacherServer:
    engine = ScriptedEngine(lambda _messages, _number: "{}")
    engine.name, engine.alive = name, alive
    engine.tags = {TAG: Model(TAG, digest, 1)} if digest else {}
    return TeacherServer(engine, f"{name}-{digest}", TAG)


def test_servers_are_named_as_ollama_names_them_or_by_the_protocol(tmp_path: Path) -> None:
    words = "gpu2 openai+http://vllm:8000/v1/#Qwen/Qwen3-32B openai+http://other:8000/v1"
    found = connect_teachers({"RETRAIN_TEACHERS": words}, tmp_path, "qwen3")
    assert [(each.server.name, each.address, each.tag) for each in found] == [
        ("ollama", "http://gpu2:11434", "qwen3:latest"),
        ("openai", "http://vllm:8000/v1", "Qwen/Qwen3-32B"),
        ("openai", "http://other:8000/v1", "qwen3"),
    ]


def test_without_names_the_serving_engine_labels(tmp_path: Path) -> None:
    (found,) = connect_teachers({"OLLAMA_HOST": "gpu1:1234"}, tmp_path, "qwen3:32b")
    assert (found.server.name, found.tag) == ("ollama", "qwen3:32b")


def test_the_digest_is_told_by_an_ollama_whichever_comes_first() -> None:
    silent, telling = server("openai", "of the name"), server("ollama", "d1")
    for servers in ([silent, telling], [telling, silent], [telling]):
        assert identify_teacher(servers, {})[:2] == (TAG, "d1")
    assert identify_teacher([silent], {}).digest == digest_of_name(TAG)


@pytest.mark.parametrize("listed", [5, [5], ["a"], [{}]])
def test_a_server_of_the_protocol_that_lists_no_models_is_unavailable(listed: Any) -> None:
    class Lists(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": listed}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Lists) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(EngineUnavailable, match="another shape"):
            OpenAiServer(f"http://127.0.0.1:{server.server_port}").models()
        server.shutdown()


@pytest.mark.parametrize("down", ["ollama", "openai"])
def test_the_digest_is_the_same_with_a_server_down(down: str) -> None:
    names = ("openai", "ollama")
    told = identify_teacher([server(name) for name in names], {}).told
    servers = [server(name, alive=name != down) for name in names]
    assert identify_teacher(servers, told).digest == "d1"


def test_an_ollama_that_never_told_its_digest_is_waited_for() -> None:
    servers = [server("ollama", alive=False), server("openai")]
    with pytest.raises(EngineUnavailable, match="no Ollama has told yet") as caught:
        identify_teacher(servers, {})
    assert "the engine is gone" in caught.value.why


def test_of_servers_of_the_protocol_alone_the_first_names_the_model() -> None:
    first, second = server("openai", alive=False), server("openai")
    second = TeacherServer(second.server, "other", TAG)
    first = TeacherServer(first.server, "first", "Qwen/Qwen3-32B")
    assert identify_teacher([first, second], {}).digest == digest_of_name("Qwen/Qwen3-32B")


@pytest.mark.parametrize("alive", [True, False], ids=["up", "down"])
def test_servers_that_differ_are_named(alive: bool) -> None:
    servers = [server("ollama", "d1", alive=alive), server("ollama", "d2")]
    known = {} if alive else {servers[0].place: "d1"}
    with pytest.raises(ModelMissing, match="do not hold the same teacher") as caught:
        identify_teacher(servers, known)
    for digest in ("d1", "d2"):
        assert f"{digest} is teacher:latest at ollama-{digest}" in caught.value.why


def test_what_a_server_says_now_counts_more_than_what_it_said() -> None:
    telling = server("ollama", "d2")
    assert identify_teacher([telling], {telling.place: "d1"}).digest == "d2"
    without = server("ollama", "")
    assert identify_teacher([telling, without], {without.place: "d1"}).digest == "d2"


def test_nobody_answers() -> None:
    servers = [server("ollama", alive=False), server("openai", alive=False)]
    with pytest.raises(EngineUnavailable, match="the engine is gone"):
        identify_teacher(servers, {servers[0].place: "d1"})


def test_what_servers_told_before_tells_the_teacher_too() -> None:
    first, second = server("ollama", "d1", alive=False), server("ollama", "d2", alive=False)
    silent = server("openai", alive=False)
    told = {first.place: "d1", second.place: "d2"}
    found = remembered_teacher([silent, first], told)
    assert found is not None
    assert found[:2] == (TAG, "d1")
    assert remembered_teacher([first, second], told) is None
    assert remembered_teacher([first], {}) is None
    by_name = remembered_teacher([silent], {})
    assert by_name is not None
    assert by_name.digest == digest_of_name(TAG)


def test_a_server_without_the_teacher_says_what_it_has() -> None:
    with pytest.raises(ModelMissing) as caught:
        identify_teacher([server("ollama", "")], {})
    assert "no model at all" in caught.value.why
    assert "ollama pull teacher:latest" in caught.value.todo
