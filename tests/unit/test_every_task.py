"""What holds of every task that is shipped, and of its sample: one definition, that all can use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from contracts.files import ROOT, read_jsonl
from contracts.pace import CHARACTERS_PER_TOKEN
from driver.settings import load
from driver.task.render import render
from driver.task.source import Source
from images.labeler.measures import measure_names
from tasks import InvalidAnswer, Task, known_tasks, load_task
from tasks.values import choices
from tests.rendered.loaded import taken
from tests.samples import sample_of
from tests.unit.test_task_definition import nodes

LEAST_OF_A_CLASS = 15


@dataclass(frozen=True)
class Shipped:
    """A task and its sample."""

    task: Task

    @cached_property
    def folder(self) -> Path:
        """Where the sample lies."""
        return sample_of(self.task.name)

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """The rows of items.jsonl."""
        return list(read_jsonl(self.folder / "items.jsonl"))

    @cached_property
    def labels(self) -> dict[str, dict[str, Any]]:
        """The labels by the id of their item, in the file's order."""
        return {row["id"]: row["label"] for row in read_jsonl(self.folder / "labels.jsonl")}

    @cached_property
    def answers(self) -> dict[str, BaseModel]:
        """The same, parsed."""
        return {i: self.task.parse(json.dumps(label)) for i, label in self.labels.items()}


@pytest.fixture(scope="module", params=known_tasks())
def shipped(request: pytest.FixtureRequest) -> Shipped:
    """Return each task in turn."""
    return Shipped(load_task(request.param))


def test_the_schema_bounds_every_value(shipped: Shipped) -> None:
    for node in nodes(shipped.task.schema()):
        if node.get("type") == "string":
            assert "maxLength" in node or "enum" in node
        if node.get("type") == "array":
            assert "maxItems" in node
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False


def test_the_prompts_name_every_field_and_choice(shipped: Shipped) -> None:
    task = shipped.task
    for name, field in task.output.model_fields.items():
        assert field.title
        assert field.description
        values = [each.value for each in choices(field.annotation) if isinstance(each, Enum)]
        for prompt in (task.system_prompt, task.label_prompt):
            assert all(word in prompt for word in (name, *values)), name
            assert not re.search(r"\$[a-z{]", prompt), "a place that nothing has filled"
    assert "$reasons" in task.correction_prompt
    assert "$fields" in task.backfill_prompt
    assert task.only_for.keys() <= task.output.model_fields.keys()


def test_the_canary_is_an_item_that_no_model_has_learned(shipped: Shipped) -> None:
    task, strata = shipped.task, {shipped.task.stratum(a) for a in shipped.answers.values()}
    assert task.item.model_validate(task.canary.model_dump(mode="json")) == task.canary
    assert task.canary_strata <= strata
    learned = {task.item_digest(task.item.model_validate(row)) for row in shipped.items}
    assert task.item_digest(task.canary) not in learned


def test_an_answer_has_one_text(shipped: Shipped) -> None:
    for label in list(shipped.labels.values())[:20]:
        shuffled = json.dumps(dict(reversed(label.items())), indent=2)
        text = shipped.task.answer_text(shipped.task.parse(shuffled))
        assert text == json.dumps(label, ensure_ascii=False)
        assert list(json.loads(text)) == list(shipped.task.output.model_fields)


def test_parse_refuses_what_is_no_whole_answer(shipped: Shipped) -> None:
    label = next(iter(shipped.labels.values()))
    text = json.dumps(label)
    broken = [f"```json\n{text}\n```", f"{text}.", text[:-1], json.dumps([label])]
    broken += [json.dumps({n: v for n, v in label.items() if n != name}) for name in label]
    broken.append(json.dumps({**label, "another_field": None}))
    for each in broken:
        with pytest.raises(InvalidAnswer):
            shipped.task.parse(each)


def test_the_longest_prompt_and_answer_fit_the_context(shipped: Shipped) -> None:
    task = shipped.task
    shown = [task.item.model_validate(row) for row in shipped.items]
    prompt = max(len(task.render_prompt(task.messages(item))) for item in shown)
    assert prompt / CHARACTERS_PER_TOKEN + task.serving.num_predict < task.serving.num_ctx


def test_what_the_gate_compares_is_measured(shipped: Shipped) -> None:
    assert set(shipped.task.matters) <= set(measure_names(shipped.task))
    assert shipped.task.matters
    assert set(shipped.task.ordinal) <= set(shipped.task.output.model_fields)


def test_every_rule_is_told_once(shipped: Shipped) -> None:
    ids = [rule.id for rule in shipped.task.rules]
    assert len(ids) == len(set(ids)) > 5
    assert all(rule.message for rule in shipped.task.rules)


def test_the_storage_holds_what_the_task_answers(shipped: Shipped) -> None:
    storage, fields = Source(shipped.task).storage, set(shipped.task.output.model_fields)
    assert set(storage.columns) | set(storage.answered) | set(storage.textless) <= fields


def test_what_is_rendered_reads_the_answers(shipped: Shipped, tmp_path: Path) -> None:
    texts = render(Source(shipped.task))
    (tmp_path / "parser.py").write_text(texts["parser.py"], encoding="utf-8")
    parser = taken(tmp_path, "parser")
    for label in list(shipped.labels.values())[:20]:
        assert parser.parse(json.dumps(label)).model_dump(mode="json") == label
    assert all(name in texts["types.ts"] for name in shipped.task.output.model_fields)


def test_every_item_of_the_sample_has_one_good_label(shipped: Shipped) -> None:
    task = shipped.task
    assert [row["id"] for row in shipped.items] == list(shipped.labels)
    assert len(shipped.labels) >= 100
    for row in shipped.items:
        found = task.check(task.item.model_validate(row), shipped.answers[row["id"]])
        assert found == [], row["id"]


def test_every_class_of_the_sample_can_be_split(shipped: Shipped) -> None:
    strata = Counter(map(shipped.task.stratum, shipped.answers.values()))
    assert min(strata.values()) >= LEAST_OF_A_CLASS
    dates = [shipped.task.time_of(shipped.task.item.model_validate(row)) for row in shipped.items]
    assert None not in dates or set(dates) == {None}


def test_the_generator_writes_the_same_bytes(shipped: Shipped, tmp_path: Path) -> None:
    for generator in shipped.folder.glob("generate*.py"):  # a task of one's own may have none
        subprocess.run(
            [sys.executable, str(generator), str(tmp_path)],
            check=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
        )
        for name in ("items.jsonl", "labels.jsonl"):
            assert (tmp_path / name).read_bytes() == (shipped.folder / name).read_bytes()


def test_the_demo_is_that_of_the_task(shipped: Shipped) -> None:
    settings = load(shipped.folder / "demo.yaml", (), {})
    assert settings.task == shipped.task.name
    assert settings.evaluate.min_rules == 0  # a tiny model learns the form, and writes no texts
    places = [ROOT / path for path in (*settings.snapshot.items, *settings.snapshot.reviewed)]
    assert [path.parent for path in places] == [shipped.folder] * 2
    readme = (shipped.folder / "README.md").read_text(encoding="utf-8")
    assert "Everything here is synthetic" in readme
    assert str(len(shipped.items)) in readme


def test_digests_are_the_same_in_every_process() -> None:
    code = (
        "import tasks\n"
        "for name in tasks.known_tasks():\n"
        "    task = tasks.load_task(name)\n"
        "    print(task.digest(), task.label_digest())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    ).stdout.splitlines()
    own = [load_task(name) for name in known_tasks()]
    assert other == [f"{task.digest()} {task.label_digest()}" for task in own]
    assert len(set(other)) == len(own)
