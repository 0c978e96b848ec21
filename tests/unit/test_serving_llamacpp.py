"""The llama.cpp engine: its store, and real answers of a tiny Qwen3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import EngineUnavailable, InputMissing, ModelMissing, SettingsInvalid
from contracts.files import ROOT
from serving import connect, full_tag
from serving.llamacpp import LlamaCpp
from serving.llamacpp_store import ModelStore
from tasks import load_task
from tests.tiny_gguf import tiny_gguf

__all__ = ["tiny_gguf"]

TASK = load_task("liga_relevance")
MODELFILE = TASK.modelfile()
OPTIONS: dict[str, float | int | list[str]] = {
    "num_ctx": 1024,
    "num_predict": 8,
    "repeat_penalty": 1.0,
    "temperature": 0.0,
}
QUESTION = [{"role": "system", "content": "Antworte."}, {"role": "user", "content": "Hallo"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "b": {"type": "boolean"},
        "a": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 5}},
    },
    "required": ["b", "a"],
    "additionalProperties": False,
}


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """Return a file that the store takes for a GGUF; no server reads it."""
    path = tmp_path / "some.gguf"
    path.write_bytes(b"GGUF" + bytes(1000))
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LlamaCpp]:
    made = LlamaCpp(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    """Return an engine of two slots with the tiny model under `tiny:v1`."""
    made = LlamaCpp(tmp_path_factory.mktemp("served"), parallel=2)
    made.create("tiny:v1", tiny_gguf, MODELFILE)
    yield made
    made.close()


def test_a_created_model_is_listed_and_kept(engine: LlamaCpp, gguf: Path) -> None:
    heard: list[tuple[float, float]] = []
    made = engine.create("a/b", gguf, MODELFILE, lambda done, total: heard.append((done, total)))
    assert engine.models() == {"a/b:latest": made}
    assert made.size_bytes == 1004
    assert heard[-1] == (1004, 1004)
    blob = next((Path(gguf).parent / "home" / "blobs").iterdir())
    assert blob.samefile(gguf)  # a hard link: no second copy of 15 GB
    assert engine.create("a/b", gguf, MODELFILE) == made
    gguf.unlink()
    assert blob.stat().st_size == 1004


def test_a_copy_has_the_digest_of_its_source_and_outlives_it(
    engine: LlamaCpp, gguf: Path, tmp_path: Path
) -> None:
    made = engine.create("m:v1", gguf, MODELFILE)
    engine.copy("m:v1", "m")
    assert engine.models()["m:latest"].digest == made.digest
    engine.delete("m:v1")
    assert set(engine.models()) == {"m:latest"}
    assert len(list((tmp_path / "home" / "blobs").iterdir())) == 1
    engine.delete("m")
    assert list((tmp_path / "home" / "blobs").iterdir()) == []
    with pytest.raises(ModelMissing, match="m:latest"):
        engine.delete("m")


def test_other_content_is_another_digest(engine: LlamaCpp, gguf: Path) -> None:
    made = engine.create("m", gguf, MODELFILE)
    other = MODELFILE.model_copy(update={"system": "Anders."})
    assert engine.create("m", gguf, other).digest != made.digest


def test_a_store_on_another_file_system_copies(
    engine: LlamaCpp, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    engine.create("m", gguf, MODELFILE)
    blob = next((gguf.parent / "home" / "blobs").iterdir())
    assert not blob.samefile(gguf)
    assert blob.read_bytes() == gguf.read_bytes()


def test_two_writers_share_a_store(tmp_path: Path, gguf: Path) -> None:
    stores = [ModelStore(tmp_path / "home") for _ in range(4)]

    def churn(store: ModelStore) -> None:
        name = f"m{stores.index(store)}"
        for _ in range(30):
            store.add(name, gguf, MODELFILE, None)
            store.models()
            store.remove(name)
        store.add(name, gguf, MODELFILE, None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, stores))
    assert set(stores[0].models()) == {f"m{n}:latest" for n in range(4)}
    assert stores[0].blob(stores[0].manifest("m0")).stat().st_size == 1004


def test_what_cannot_be_served_is_refused(engine: LlamaCpp, gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="cannot serve m"):
        engine.create("m", gguf, MODELFILE.model_copy(update={"template": "{{ .Prompt }}"}))
    with pytest.raises(InputMissing):
        engine.create("m", tmp_path / "none.gguf", MODELFILE)
    with pytest.raises(ModelMissing, match=r"llama\.cpp has no model x:latest"):
        engine.chat("x", QUESTION, options=OPTIONS, timeout_s=1)
    with pytest.raises(ValueError, match="num_ctx"):
        engine.chat("x", QUESTION, options={}, timeout_s=1)
    for name in ("../x", "a/../b", "a:b:c", "", "a/b/c", ".x"):
        with pytest.raises(SettingsInvalid, match="is not the name of a model"):
            full_tag(name)


def test_a_damaged_gguf_is_named(engine: LlamaCpp, gguf: Path) -> None:
    engine.create("m", gguf, MODELFILE)
    with pytest.raises(EngineUnavailable, match="could not load m:latest"):
        engine.chat("m", QUESTION, options=OPTIONS, timeout_s=10)


def test_a_missing_wheel_is_named(engine: LlamaCpp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(EngineUnavailable, match="xllamacpp is not installed"):
        engine.version()


def test_importing_serving_loads_no_client() -> None:
    code = (
        "import serving, sys; from pathlib import Path;"
        "serving.connect({}, Path('.'));"
        "serving.connect({'RETRAIN_ENGINE': 'llamacpp'}, Path('.'));"
        "sys.exit(any(name in sys.modules for name in ('requests', 'xllamacpp')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_prompt_is_the_tasks_own(engine: LlamaCpp, gguf: Path) -> None:
    engine.create("m", gguf, MODELFILE)
    messages = TASK.messages(TASK.canary)
    assert engine.render("m", messages) == TASK.render_prompt(messages)
    # Without a system message the model's own is used, as with Ollama.
    assert engine.render("m", messages[1:]) == TASK.render_prompt(messages)
    decomposed = [{"role": "user", "content": unicodedata.normalize("NFD", "Größe")}]
    assert "Größe" in engine.render("m", decomposed)


@pytest.mark.slow
class TestRealAnswers:
    def test_an_answer_is_cut_at_num_predict(self, served: LlamaCpp) -> None:
        found = served.chat("tiny:v1", QUESTION, options=OPTIONS, timeout_s=120)
        assert (found.finished, found.reason, found.answer_tokens) == (False, "length", 8)
        assert found.prompt_tokens == 22
        assert served.loaded() == [served.models()["tiny:v1"]]

    def test_a_schema_is_kept_without_white_space(self, served: LlamaCpp) -> None:
        for seed in range(3):
            options = {**OPTIONS, "num_predict": 60, "temperature": 1.0, "seed": seed}
            found = served.chat("tiny:v1", QUESTION, schema=SCHEMA, options=options, timeout_s=120)
            assert found.finished
            value = json.loads(found.text)
            assert list(value) == ["b", "a"]
            assert found.text == json.dumps(value, ensure_ascii=False)

    def test_the_same_seed_gives_the_same_answer(self, served: LlamaCpp) -> None:
        options = {**OPTIONS, "temperature": 1.0, "seed": 5, "num_predict": 12}
        first, second = (
            served.chat("tiny:v1", QUESTION, options=options, timeout_s=120).text for _ in range(2)
        )
        assert first == second

    def test_an_input_over_num_ctx_is_refused_not_cut(self, served: LlamaCpp) -> None:
        long = [{"role": "user", "content": "Wort " * 3000}]
        with pytest.raises(EngineUnavailable, match="refused the request") as caught:
            served.chat("tiny:v1", long, options=OPTIONS, timeout_s=120)
        assert "exceed" in str(caught.value)

    def test_a_request_over_its_time_is_given_up(self, served: LlamaCpp) -> None:
        options = {**OPTIONS, "num_predict": 900}
        with pytest.raises(EngineUnavailable, match=r"within 0\.05 s"):
            served.chat("tiny:v1", QUESTION, options=options, timeout_s=0.05)
        assert served.chat("tiny:v1", QUESTION, options=OPTIONS, timeout_s=120).text

    def test_two_slots_answer_at_once(self, served: LlamaCpp) -> None:
        def ask(_: int) -> str:
            return served.chat("tiny:v1", QUESTION, options=OPTIONS, timeout_s=120).text

        with ThreadPoolExecutor(4) as pool:
            assert len(list(pool.map(ask, range(8)))) == 8

    def test_unload_ends_the_process_and_the_next_request_starts_one(
        self, served: LlamaCpp
    ) -> None:
        served.chat("tiny:v1", QUESTION, options=OPTIONS, timeout_s=120)
        served.copy("tiny:v1", "alias")
        served.unload("other")
        assert served.loaded()
        served.unload("alias")  # the same model under another name
        assert served.loaded() == []
        served.chat("alias", QUESTION, options=OPTIONS, timeout_s=120)
        assert served.loaded()[0].tag == "alias:latest"


_STARTER = """
import os, signal, sys
from pathlib import Path
from serving.llamacpp import LlamaCpp
engine = LlamaCpp(Path(sys.argv[1]))
options = {"num_ctx": 1024, "num_predict": 2, "repeat_penalty": 1.0}
engine.chat("tiny", [{"role": "user", "content": "a"}], options=options, timeout_s=100)
print(engine._running.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_server_dies_with_its_starter_and_leaves_stdout_alone(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    LlamaCpp(tmp_path).create("tiny", tiny_gguf, MODELFILE)
    done = subprocess.run(
        [sys.executable, "-c", _STARTER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=False,
    )
    pid = int(done.stdout)  # nothing but what was printed on purpose
    for _ in range(100):
        if (
            not Path(f"/proc/{pid}/cmdline").exists()
            or not Path(f"/proc/{pid}/cmdline").read_bytes()
        ):
            return
        time.sleep(0.1)
    pytest.fail("the server outlived its starter")


def test_connect_reads_the_environment(tmp_path: Path) -> None:
    engine = connect({"RETRAIN_ENGINE": "llamacpp"}, tmp_path)
    assert engine.name == "llamacpp"
    assert engine.models() == {}
    for environ in (
        {"RETRAIN_ENGINE": "vllm"},
        {"RETRAIN_ENGINE": "llamacpp", "LLAMACPP_PARALLEL": "x"},
    ):
        with pytest.raises(SettingsInvalid):
            connect(environ, tmp_path)
