"""A fault of a task's definition is told as one, by every command, before anything is started."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tasks
from contracts import files
from contracts.errors import TaskInvalid
from driver import __main__ as cli
from images.labeler.measures import measure_names
from tasks import faults
from tests.rendered.kinds_task import KINDS_TASK

NAME = "support_messages"
Edit = Callable[[str, str, str], None]


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Return what replaces a text in a file of a task's copy, the only one that is known."""
    package = tmp_path / "tasks" / NAME
    left_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(files.ROOT / "tasks" / NAME, package, ignore=left_out)
    monkeypatch.setattr(tasks, "__path__", [str(package.parent)])
    kept = {name: sys.modules.pop(name) for name in [*sys.modules] if f"tasks.{NAME}" in name}
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def replaced(file: str, old: str, new: str) -> None:
        raw = (package / file).read_bytes()
        assert old.encode() in raw
        whole = new.encode("latin-1") if not old else raw.replace(old.encode(), new.encode())
        (package / file).write_bytes(whole)

    yield replaced
    for name in [*sys.modules]:
        if f"tasks.{NAME}" in name:
            del sys.modules[name]
    sys.modules.update(kept)


_WIRING, _OUTPUT, _LABEL = "__init__.py", "output.py", "prompts/label.md"
_LAST = "    rules=RULES,\n"


def _more(argument: str) -> str:
    said = argument.replace("tasks.", "__import__('tasks').")
    return f"{_LAST}    {said},\n"


_FAULTS = [
    (_OUTPUT, "max_length=400", "max_lenght=400", "at: Summary = Annotated["),
    (_OUTPUT, "class SupportAnswer(", "class SupportAnswer((", "output.py, line"),
    (_OUTPUT, "", "", "output.py"),
    (_OUTPUT, ", max_length=400", "", "SupportAnswer.summary: a text needs a maximal"),
    (
        _OUTPUT,
        "    summary: Summary",
        "    summary: Annotated[Summary, Field(max_lenght=3)]",
        "max_len",
    ),
    ("rules.py", "answer.summary", "answer.sumary", "rules.py, line 125: case.answer.sumary"),
    (_WIRING, "answer.reply_needed", "answer.reply", "answer.reply, and the answer has no"),
    (_OUTPUT, "reply_needed: bool", "reply_needed: dict[str, str]", "a free mapping"),
    (_OUTPUT, 'LOW = "low"', 'LOW = "normal"', "Urgency.LOW has the value"),
    (
        _OUTPUT,
        "    reply_needed: bool",
        "    summary: str\n    reply_needed: bool",
        "summary is def",
    ),
    (_LABEL, "", "Gr\xfc\xdfe", "prompts/label.md"),
    (_LABEL, "$fields", "$feldr", "the slot $feldr"),
    (_LABEL, "$fields", "5 $ $fields", "prompts/label.md"),
    (_LABEL, "", "", "prompts/label.md"),
    ("prompts/system.md", "", " ", "prompts/system.md"),
    ("prompts/correction.md", "$reasons", "$reason", "the one slot there is $reasons"),
    ("canary.json", "", "", "canary.json"),
    ("canary.json", '"id"', '"ident"', "canary.json"),
    (_WIRING, _LAST, _more("color='red'"), "'color', at: TASK = Task("),
    (_WIRING, "prompts/correction.md", "prompts/none.md", "prompts/none.md cannot be used"),
    (_WIRING, _LAST, _more("only_for={'product': None}"), "OnlyFor(where="),
    (_WIRING, _LAST, _more("only_for={'deadline': tasks.OnlyFor({'product': None})}"), "deadline"),
    (_WIRING, _LAST, _more("only_for={'product': tasks.OnlyFor({'catgory': 'x'})}"), "catgory"),
    (_WIRING, _LAST, _more("only_for={'category': tasks.OnlyFor({})}"), "category cannot be null"),
    (_WIRING, _LAST, _more("storage=tasks.Storage('t', {'sumary': tasks.Column()})"), "sumary"),
    (_WIRING, _LAST, _more("storage=tasks.Storage('t', {'summary': tasks.Column(9)})"), "have 400"),
    (_WIRING, "category.macro_f1", "categry.macro_f1", "categry.macro_f1, which is no measure"),
]


@pytest.mark.parametrize(("file", "old", "new", "said"), _FAULTS)
def test_a_fault_is_named_with_its_file_and_what_to_do(
    file: str, old: str, new: str, said: str, edit: Edit
) -> None:
    edit(file, old, new)
    with pytest.raises(TaskInvalid) as refused:
        tasks.load_task(NAME)
    assert said in str(refused.value)
    assert f"tasks/{NAME}/" in str(refused.value)
    assert refused.value.todo


@pytest.mark.parametrize(
    "words",
    [
        "run",
        "plan",
        "stage snapshot",
        "models",
        "doctor",
        "label --preview 2",
        "task show",
        "task render",
        "task diff",
        "task check",
    ],
)
def test_every_command_tells_it_as_one(
    words: str, edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("canary.json", "", "")
    demo = str(files.ROOT / "examples/support-sample/demo.yaml")
    code = cli.main([*words.split(), "-c", demo, "-w", str(tmp_path / "w")])
    told = " ".join(capsys.readouterr().err.split())
    assert (code, "canary.json" in told) == (TaskInvalid.exit_code, True), told


@pytest.mark.parametrize("name", [*tasks.known_tasks(), ""])
def test_the_measures_are_those_of_the_evaluation(name: str) -> None:
    task = tasks.load_task(name) if name else KINDS_TASK
    assert sorted(faults.measure_names(task)) == sorted(measure_names(task))
