"""The evaluate stage on a few rows, before models that answer by script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.stages import EVALUATE
from images.labeler import evaluate
from serving.engine import Answer, Model
from tasks import load_task
from tests.unit.labeler_stage import StageRun, label, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine, one_word_tokenizer

TASK = load_task("liga_relevance")
DIGEST = "ab" * 32
TAG = "retrain-candidate:abababababab"


def rows(count: int) -> list[dict[str, Any]]:
    """Return test rows, every other one relevant."""
    found = []
    for n in range(count):
        item = TASK.item.model_validate({"id": f"i{n}", "title": f"Fall {n}"})
        output = TASK.parse(json.dumps(label("high" if n % 2 else None)))
        messages = TASK.training_messages(item, output)
        row = {"id": item.id, "messages": messages, "stratum": TASK.stratum(output)}
        found.append({**row, "item": item.model_dump()})
    return found


def row_of(messages: list[dict[str, str]]) -> int:
    """Return the number of the row that a question is from."""
    return int(messages[1]["content"].split("Fall ")[1].split("\n")[0])


def right(messages: list[dict[str, str]], _: int) -> str | Answer | Exception:
    """Answer with the label that the row expects."""
    return json.dumps(label("high" if row_of(messages) % 2 else None))


def wrong(messages: list[dict[str, str]], number: int) -> str:
    """Answer relevant what is not, and the other way round."""
    told = json.loads(str(right(messages, number)))
    return json.dumps(label(None if told["relevant"] else "high"))


def by_tag(**scripts: Any) -> Any:
    """Let each model answer by a script of its own; the rest answers rightly."""

    def script(messages: list[dict[str, str]], number: int, tag: str) -> Any:
        return scripts.get(tag.split(":", maxsplit=1)[0].replace("-", "_"), right)(messages, number)

    return script


def live(engine: ScriptedEngine, tag: str, digest: str) -> None:
    """Let the engine have a model of this name."""
    engine.tags[tag] = Model(tag, digest, 1)


class Evaluation(StageRun):
    """The stage with six test rows; files are named as the artifacts are."""

    def __init__(self, folder: Path) -> None:
        super().__init__(EVALUATE, folder)
        write_jsonl(folder / "test.jsonl", rows(6))
        one_word_tokenizer(folder / "base")

    def evaluate(self, **params: Any) -> Any:
        """Run it on these params; return its metrics."""
        return self.run(evaluate.work, {"gguf": DIGEST}, **params)

    def read(self, name: str) -> Any:
        """Return what it wrote."""
        return json.loads((self.out / f"{name}.json").read_text())


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    """Return what the stage asks, which answers rightly."""
    double = ScriptedEngine(right)
    monkeypatch.setattr(evaluate, "connect", lambda _environ, _workspace: double)
    return double


@pytest.fixture
def stage(tmp_path: Path) -> Evaluation:
    """Return the stage in a folder of its own."""
    return Evaluation(tmp_path)
