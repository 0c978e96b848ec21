"""`driver task render`: the same bytes each time, from tasks/ alone, and nobody's file is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from contracts import files
from contracts.errors import FileUnusable, TaskInvalid
from driver import __main__ as cli
from driver.task import publish
from driver.task.render import RENDERERS, api_schemas, parser, render
from driver.task.shape import TaskUnrenderable
from driver.task.source import MADE_BY, Source
from tasks import Column, Storage, load_task
from tasks.faults import require_sound

TASK = load_task("liga_relevance")
_GOLDEN = files.ROOT / "tests/golden/liga_relevance_schema.json"


@pytest.fixture(scope="module")
def source() -> Source:
    return Source.of("liga_relevance")


# --- what is rendered -------------------------------------------------------------------------
def test_words_for_people_do_not_change_the_served_schema() -> None:
    assert json.loads(_GOLDEN.read_text(encoding="utf-8")) == TASK.schema()


def test_each_file_says_what_it_was_made_from(source: Source) -> None:
    for name, text in render(source).items():
        line = next(line for line in text.splitlines() if MADE_BY in line)
        assert f"liga_relevance, version 1, digest {TASK.digest()[:16]}" in line
        opening = {".md": "<!-- ", ".vue": "<!-- ", ".ts": "// ", ".json": '  "$comment": "'}
        assert line.startswith(opening.get(Path(name).suffix, "# "))
        assert text.endswith("\n")


def test_the_schema_is_the_served_one_with_words_for_people(source: Source) -> None:
    found = json.loads(render(source)["schema.json"])
    for name, served in TASK.schema()["properties"].items():
        assert served.items() <= found["properties"][name].items()
        assert found["properties"][name].keys() - served.keys() == {"title", "description"}
    words = {"$comment", "$schema", "title", "description"}
    assert found.keys() - TASK.schema().keys() == words
    assert found["required"] == TASK.schema()["required"]


def test_the_modelfile_is_what_the_engine_is_told(source: Source) -> None:
    _, _, told = render(source)["Modelfile"].partition("\n")
    assert told == TASK.modelfile().text("./model.gguf")


def test_the_guide_says_every_rule_value_and_word_of_the_prompt(source: Source) -> None:
    guide = render(source)["guide.md"]
    for rule in TASK.rules:
        assert f"| `{rule.id}` | {rule.severity} | {rule.message} |" in guide
    for shape in source.choices.values():
        for choice in shape.choices:
            assert f"| `{choice.value}` | {choice.meaning} |" in guide
    assert "### Für wen" in guide
    for line in TASK.label_prompt.splitlines():
        assert line in guide
    assert all(field.meaning and field.title for field in source.fields)


def test_the_reference_says_where_each_field_is_kept(source: Source) -> None:
    reference = render(source)["fields.md"]
    assert 'column `items.priority`, String(20); "none" stands for null' in reference
    assert "`metadata.llm_analysis.tags`, JSON" in reference
    for field in source.fields:
        assert f"## `{field.name}`: {field.title}" in reference


def test_the_revision_follows_from_the_columns_alone(source: Source) -> None:
    def revision(task: Any, after: str = "") -> str:
        text = render(Source(task, after))["migration.py"]
        return next(line for line in text.splitlines() if line.startswith("revision"))

    asked_otherwise = replace(TASK, system_prompt="Antworte.", version="2")
    assert revision(asked_otherwise) == revision(TASK) == revision(TASK, "abc")
    wider = replace(TASK, storage=Storage("items", {"priority": Column(length=21)}))
    assert revision(wider) != revision(TASK)
    assert 'down_revision: str | None = "abc"' in render(Source(TASK, "abc"))["migration.py"]
    assert "down_revision: str | None = None" in render(source)["migration.py"]


def test_no_field_of_the_news_task_is_named_by_the_renderers() -> None:
    names = {*TASK.output.model_fields, "LigaRelevance", "Arbeitskreis", "Priority", "llm_analysis"}
    names -= {"relevant", "reasoning", "tags", "summary"}  # plain English
    for path in (files.ROOT / "driver/task").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [name for name in names if name in text], path


# --- what cannot be rendered ------------------------------------------------------------------
class Many(BaseModel):
    either: int | bool


class Moment(BaseModel):
    at: Literal[1, 2]


class Here(BaseModel):
    model_config = ConfigDict(extra="forbid")

    note: str = Field(max_length=9, title="Note", description="What is to be noted.")
    due: date = Field(title="Due", description="The day.")


class Taken(BaseModel):
    metadata: bool


class Large(BaseModel):
    note: str = Field(max_length=2_000_000)


def test_large_limits_are_written_out() -> None:
    source = Source(
        replace(TASK, output=Large, storage=Storage("t", {"note": Column(edited=True)}))
    )
    assert source.fields[0].shape.limits() == "text, up to 2000000 characters"
    assert "max_length=2000000" in api_schemas.render(source)


def test_a_type_without_a_word_for_it_is_named() -> None:
    for model, said in ((Many, "Many.either"), (Moment, "Moment.at")):
        with pytest.raises(TaskUnrenderable, match=said):
            _ = Source(replace(TASK, output=model)).fields


def test_a_parser_that_could_not_stand_alone_is_refused() -> None:
    with pytest.raises(TaskUnrenderable, match=r"it imports (contracts|driver|pytest)"):
        parser.render(Source(replace(TASK, output=Here)))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"notes": Column()}, "no such field"),
        ({"note": Column(length=8)}, "holds 8 characters, and the field may have 9"),
        ({"due": Column(length=10)}, "a length is for texts"),
        ({"note": Column(length=9, null="nothing at all")}, "may have 14"),
    ],
)
def test_a_column_that_does_not_fit_is_named(columns: dict[str, Column], said: str) -> None:
    task = replace(TASK, output=Here, storage=Storage("items", columns))
    with pytest.raises(TaskInvalid, match=said):
        require_sound(task)
    with pytest.raises(TaskUnrenderable, match="for itself"):
        _ = Source(
            replace(TASK, output=Taken, storage=Storage("t", {"metadata": Column()}))
        ).storage
    fitting = replace(task, storage=Storage("items", {"note": Column(length=9)}))
    assert Source(fitting).analysed == ("due",)


# --- where it goes ----------------------------------------------------------------------------
def test_the_same_bytes_each_time_and_nothing_else_is_touched(
    source: Source, tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    left = folder / ".guide.md.abc.unfinished"  # as a kill leaves it
    others = folder / ".mine.txt.abc.unfinished"
    for path in (left, others):
        path.touch()
    first = publish.publish(source, folder)
    assert [path.name for path, _ in first] == list(RENDERERS)
    assert all(changed for _, changed in first)
    written = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path, _ in first}
    assert not any(changed for _, changed in publish.publish(Source(TASK), folder))
    assert written == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in written}
    there = {path.name for path in folder.iterdir()}
    assert there == {*RENDERERS, "mine.txt", others.name}


def test_another_definition_takes_the_place_of_the_one_before(
    source: Source, tmp_path: Path
) -> None:
    publish.publish(source, tmp_path)
    changed = publish.publish(Source(replace(TASK, version="2")), tmp_path)
    assert all(each for _, each in changed)
    assert "version 2" in (tmp_path / "types.ts").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["text", "json", "binary", "empty", "folder", "link", "dangling"])
def test_a_file_that_was_not_rendered_is_never_overwritten(
    source: Source, tmp_path: Path, kind: str
) -> None:
    folder, path = tmp_path / "out", tmp_path / "out" / "schema.json"
    folder.mkdir()
    rendered = tmp_path / "elsewhere.json"
    rendered.write_text(render(source)["schema.json"], encoding="utf-8")
    if kind == "folder":
        path.mkdir()
    elif kind in {"link", "dangling"}:
        path.symlink_to(rendered if kind == "link" else tmp_path / "nowhere")
    else:
        late = f"{{\n\n\n{MADE_BY}"
        content = {"text": b"mine", "json": late.encode(), "binary": b"\xff\xfe", "empty": b""}
        path.write_bytes(content[kind])
    before = _held(path)
    with pytest.raises(FileUnusable, match=r"schema\.json was not rendered"):
        publish.publish(source, folder)
    assert _held(path) == before
    assert list(folder.iterdir()) == [path], "nothing beside it is written"


def _held(path: Path) -> Path | bytes | None:
    if path.is_symlink():
        return path.readlink()
    return path.read_bytes() if path.is_file() else None


def test_a_rendering_that_fails_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TaskUnrenderable):
        publish.publish(Source(replace(TASK, output=Here)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_each_file_whole(source: Source, tmp_path: Path) -> None:
    publish.publish(source, tmp_path)
    before = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    later = Source(replace(TASK, version="2"))
    program = (
        "import resource, signal, sys, pathlib\n"
        "from dataclasses import replace\n"
        "from driver.task import publish\n"
        "from driver.task.source import Source\n"
        "from tasks import load_task\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (7000, 7000))\n"
        "task = replace(load_task('liga_relevance'), version='2')\n"
        "publish.publish(Source(task), pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False
    )
    assert "File too large" in done.stderr
    after = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] in {before[name], text} for name, text in render(later).items())
    publish.publish(later, tmp_path)
    assert "version 2" in (tmp_path / "parser.py").read_text(encoding="utf-8")


# --- the command ------------------------------------------------------------------------------
def test_the_command_writes_into_the_workspace_or_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["-c", str(files.ROOT / "examples/liga-sample/demo.yaml"), "-w", str(tmp_path)]
    assert cli.main(["task", "render", *settings]) == 0
    folder = tmp_path / "rendered" / "liga_relevance"
    assert f"{folder}/guide.md\n" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == sorted(RENDERERS)
    assert cli.main(["task", "render", *settings]) == 0
    assert f"{folder}/guide.md (as it was)\n" in capsys.readouterr().out
    out = tmp_path / "out"
    assert cli.main(["task", "render", *settings, "--out", str(out), "--after", "1a2b"]) == 0
    assert 'down_revision: str | None = "1a2b"' in (out / "migration.py").read_text("utf-8")
    (out / "guide.md").write_text("mine", encoding="utf-8")
    assert cli.main(["task", "render", *settings, "--out", str(out)]) == FileUnusable.exit_code
    assert cli.main(["task", "render", *settings, "--set", "task=none"]) == 10
    assert "known: liga_relevance" in capsys.readouterr().err


def test_a_new_field_is_in_every_file_and_gone_without_a_trace(tmp_path: Path) -> None:
    """A date or null, added in a copy of tasks/ and nowhere else, and taken out again."""
    shutil.copytree(files.ROOT / "tasks", tmp_path / "tasks")
    output = tmp_path / "tasks/liga_relevance/output.py"
    wiring = tmp_path / "tasks/liga_relevance/__init__.py"
    prompt = tmp_path / "tasks/liga_relevance/prompts/system.md"
    plain = {path: path.read_text(encoding="utf-8") for path in (output, wiring, prompt)}
    before = _rendered_from(tmp_path)
    text = plain[output].replace("from enum import", "from datetime import date\nfrom enum import")
    where = "    reasoning: Reasoning = Field("
    field = '    deadline: date | None = Field(title="Frist", description="Bis wann.")\n'
    output.write_text(text.replace(where, field + where), encoding="utf-8")
    column = '            "assigned_aks": Column('
    wired = plain[wiring].replace(column, f'            "deadline": Column(),\n{column}')
    wiring.write_text(wired, encoding="utf-8")
    asked = plain[prompt].replace("- reasoning:", "- deadline: Datum oder null\n- reasoning:")
    prompt.write_text(asked, encoding="utf-8")
    carried = _rendered_from(tmp_path)
    assert [name for name, text in carried.items() if "deadline" not in text] == []
    assert {name for name in carried if carried[name] == before[name]} == set()
    for path, text in plain.items():
        path.write_text(text, encoding="utf-8")
    assert _rendered_from(tmp_path) == before


def _rendered_from(root: Path) -> dict[str, str]:
    """Render what the copy of tasks/ below `root` defines, by the command, in a process."""
    out = root / "out"
    settings = files.ROOT / "examples/liga-sample/demo.yaml"
    subprocess.run(
        [sys.executable, "-P", "-m", "driver", "task", "render", "-c", settings, "--out", out],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{files.ROOT}"},
    )
    return {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}
