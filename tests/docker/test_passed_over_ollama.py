"""A version before that a real Ollama cannot load: an older one is served in its place."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from contracts.errors import VerifyFailed
from driver import passed_over, promotion, served, verification
from serving.engine import Model, ModelFailed
from serving.ollama import Ollama
from tasks import load_task
from tests.tiny_gguf import tiny_gguf

__all__ = ["tiny_gguf"]

pytestmark = pytest.mark.docker

TASK = load_task("liga_relevance")
ALIAS = "passed-over:latest"
OLDEST, OLD, NEW = (f"passed-over:2026010{day}-120000" for day in (1, 2, 3))
_LAYERS = b"qwen3.block_count" + struct.pack("<I", 4)
"""The key in a GGUF, and the type of its value: uint32."""


class Relevant(BaseModel):
    """What a random model can answer too, within a schema."""

    relevant: bool


@pytest.fixture
def engine(ollama_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ollama]:
    monkeypatch.setenv("OLLAMA_HOST", ollama_server)
    small = replace(TASK, output=Relevant)
    monkeypatch.setattr(passed_over, "task_of", lambda *_: small)
    made = Ollama(ollama_server)
    yield made
    for tag in (ALIAS, OLDEST, OLD, NEW):
        made.unload(tag)
        made.delete(tag)


def _made(engine: Ollama, gguf: Path, tag: str, num_predict: int) -> Model:
    modelfile = TASK.modelfile()
    parameters = {**modelfile.parameters, "num_predict": num_predict}
    return engine.create(tag, gguf, modelfile.model_copy(update={"parameters": parameters}))


def test_what_cannot_be_loaded_gives_way(engine: Ollama, tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    at = whole.index(_LAYERS) + len(_LAYERS)
    (layers,) = struct.unpack_from("<I", whole, at)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole[:at] + struct.pack("<I", layers + 1) + whole[at + 4 :])
    oldest, new = _made(engine, tiny_gguf, OLDEST, 500), _made(engine, tiny_gguf, NEW, 501)
    old = _made(engine, broken, OLD, 500)
    environment = promotion.environment(engine)
    for digest, before in ((old.digest, oldest.digest), (new.digest, old.digest)):
        served.replaces(tmp_path, environment, ALIAS, digest, before)
        served.accept(tmp_path, environment, ALIAS, before, served.VERIFIED)
    engine.copy(NEW, ALIAS)
    kept = tmp_path / "canaries.jsonl"
    verification.begin(tmp_path, engine, ALIAS, TASK.name, "", kept, 30, constrained=True)
    said: list[str] = []
    verification.failed(tmp_path, engine, VerifyFailed("it answers nonsense"), said.append)
    assert engine.models()[ALIAS].digest == oldest.digest
    first, then = said
    assert first.startswith(f"ROLLED BACK: {ALIAS} is {OLD} again")
    assert then.startswith(f"{ALIAS} is {OLDEST} now")
    assert f"PASSED OVER: {OLD}, since it gives no answer to the canary" in then
    with pytest.raises(ModelFailed):
        engine.chat(OLD, [], options=TASK.modelfile().parameters, timeout_s=30)
