"""Which servers label: how they are named, and whose model is the teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import EngineUnavailable, ModelMissing
from serving import TeacherServer, connect_teachers, teacher_model
from serving.engine import Model
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


def test_the_teacher_is_whose_digest_is_told_whichever_comes_first() -> None:
    servers = [server("openai", "of the name"), server("ollama", "d1")]
    assert teacher_model(servers).digest == "d1"
    assert teacher_model(servers[::-1]).digest == "d1"
    assert teacher_model(servers[:1]).digest == "of the name"


def test_a_server_that_is_down_leaves_it_to_the_next() -> None:
    servers = [server("ollama", "d1", alive=False), server("ollama", "d2")]
    assert teacher_model(servers).digest == "d2"


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="the engine is gone"):
        teacher_model([server("ollama", alive=False), server("openai", alive=False)])


def test_a_server_without_the_teacher_says_what_it_has() -> None:
    with pytest.raises(ModelMissing) as caught:
        teacher_model([server("ollama", "")])
    assert "no model at all" in caught.value.why
    assert "ollama pull teacher:latest" in caught.value.todo
