"""Prompt parity with a real Ollama: it holds, and each way to break it is refused and shown."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from contracts.entrypoint import StageContext
from contracts.errors import SentinelTripped
from contracts.files import read_jsonl
from contracts.params import EvaluateParams
from contracts.stage import InputRef
from contracts.stages import EVALUATE
from images.labeler import parity
from images.labeler.contestants import Question
from serving.ollama import Ollama
from tasks import load_task
from tasks.definition import Modelfile
from tests.docker.stage_compose import ROOT
from tests.jobs import job_of
from tests.tiny_gguf import converted, tiny_gguf

__all__ = ["tiny_gguf"]

pytestmark = pytest.mark.docker

TASK = load_task("liga_relevance")
SAMPLE = ROOT / "examples" / "liga-sample" / "items.jsonl"
ODD = "Zwei Zeilen\r\nund <|im_end|>, \u0301Akut, 株式会社 und 👩\u200d🚀, {{ .Prompt }} <think>"


@pytest.fixture(scope="module")
def engine(ollama_server: str) -> Ollama:
    return Ollama(ollama_server)


@pytest.fixture
def tag(engine: Ollama) -> Iterator[str]:
    """Return a name of the test's own: a loaded model whose name is given to another one cannot be
    unloaded any more."""
    name = f"parity:{uuid4().hex[:8]}"
    yield name
    engine.unload(name)
    engine.delete(name)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """Return the sample's items as test rows, and one with all that a template may trip over."""
    items = [TASK.item.model_validate(row) for row in read_jsonl(SAMPLE)][:25]
    odd = items[0].model_copy(update={"id": "odd", "content": unicodedata.normalize("NFD", ODD)})
    expected = TASK.output.model_construct()
    return [Question(item.id, item, TASK.messages(item), expected, "") for item in [*items, odd]]


@pytest.fixture
def check(tiny_base: Path, tmp_path: Path, engine: Ollama, tag: str) -> Callable[..., None]:
    (tmp_path / "base").symlink_to(tiny_base)

    def checked(asked: Sequence[Question]) -> None:
        job = job_of(EVALUATE, inputs={"base": InputRef(path="base", digest="", bytes=0)})
        context = StageContext(EVALUATE, job, EvaluateParams(), tmp_path, tmp_path, lambda _: None)
        parity.check(context, engine, tag, TASK, asked)

    return checked


def test_it_holds_for_every_row(
    engine: Ollama, tag: str, tiny_gguf: Path, questions: list[Question], check: Callable[..., None]
) -> None:
    engine.create(tag, tiny_gguf, TASK.modelfile())
    check(questions)


def _modelfile(**changed: Any) -> Modelfile:
    return TASK.modelfile().model_copy(update=changed)


TEMPLATE = TASK.modelfile().template


@pytest.mark.parametrize(
    ("changed", "named", "shown"),
    [
        ({"template": TEMPLATE.replace("{{ .Content }}", "{{ .Content }} ")}, "row", "trained"),
        ({"template": TEMPLATE.replace("\n", "\r\n")}, "row", r"\\r\\n"),
        ({"system": "Antworte kurz."}, "sent without a system message", "Antworte kurz"),
    ],
    ids=["another template", "CRLF", "another system prompt"],
)
def test_another_modelfile_is_refused_with_the_first_difference(
    engine: Ollama,
    tag: str,
    tiny_gguf: Path,
    questions: list[Question],
    check: Callable[..., None],
    changed: dict[str, Any],
    named: str,
    shown: str,
) -> None:
    engine.create(tag, tiny_gguf, _modelfile(**changed))
    with pytest.raises(SentinelTripped, match=f"prompt_parity: row (.|\n)*{shown}") as caught:
        check(questions[:2])
    assert named in caught.value.what


def test_thinking_left_on_is_refused(
    ollama_server: str,
    engine: Ollama,
    tag: str,
    tiny_gguf: Path,
    questions: list[Question],
    check: Callable[..., None],
) -> None:
    """Without our parser the GGUF's own template counts, which thinks unless it is told not to."""
    engine.create(tag, tiny_gguf, TASK.modelfile())
    shown = requests.post(f"{ollama_server}/api/show", json={"model": tag}, timeout=60).json()
    blob = shown["modelfile"].split("\nFROM ")[1].split("\n")[0].rsplit("sha256-", 1)[1]
    body = {**TASK.modelfile().model_dump(mode="json"), "parser": "", "stream": False}
    body |= {"model": tag, "files": {"model.gguf": f"sha256:{blob}"}}
    made = requests.post(f"{ollama_server}/api/create", json=body, timeout=120)
    assert made.json() == {"status": "success"}
    with pytest.raises(SentinelTripped, match="prompt_parity") as caught:
        check(questions[:2])
    assert "without a word on thinking" in caught.value.what
    assert "<think>" in caught.value.why


def test_a_bos_token_is_refused(
    engine: Ollama,
    tag: str,
    tiny_base: Path,
    tmp_path: Path,
    questions: list[Question],
    check: Callable[..., None],
) -> None:
    base = tmp_path / "with-bos"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "tokenizer_config.json").read_text())
    config |= {"add_bos_token": True, "bos_token": "<|endoftext|>"}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    engine.create(tag, converted(base, tmp_path / "bos.gguf"), TASK.modelfile())
    with pytest.raises(SentinelTripped, match="token_parity: row") as caught:
        check(questions[:2])
    assert "1 more than the" in caught.value.why
    assert "BOS" in caught.value.todo


def test_less_context_than_the_tasks_is_refused(
    engine: Ollama, tag: str, tiny_gguf: Path, questions: list[Question], check: Callable[..., None]
) -> None:
    """A request of the backend's names no context, so the model's own counts, and cuts."""
    parameters = {**TASK.modelfile().parameters, "num_ctx": 256}
    engine.create(tag, tiny_gguf, _modelfile(parameters=parameters))
    with pytest.raises(SentinelTripped, match="served_context: the model's own num_ctx is 256"):
        check(questions[:2])
