"""A fault of a task's definition is told as one, by every command, before anything is started."""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tasks
from contracts import files
from contracts.errors import TaskInvalid
from driver import __main__ as cli
from driver.task.load import load_named
from images.labeler.measures import measure_names
from tasks import answer_faults, faults
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


_KINDS_ONCE = """\
    kinds: list[Category] = Field(min_length=8, max_length=9, title="K", description="k")

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError("twice")
        return self

    reply_needed: bool"""
_CHANGED = """\
without reply_needed")
        return self

    @__import__('pydantic').field_validator("summary")
    @classmethod
    def _plain(cls, value: str) -> str:
        return value.strip()"""
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
    ("canary.json", '"id"', '"ident"', f"defines no task: tasks/{NAME}/canary.json"),
    (
        "canary.json",
        '"id"',
        '"ident"',
        "Message does not take it: id: Field required",
    ),
    (
        _WIRING,
        'json.loads(texts.read(__name__, "canary.json"))',
        'json.loads(\n        "{" +\n texts.read(__name__, "canary.json"))',
        f"defines no task: tasks/{NAME}/canary.json, line 1",
    ),
    ("canary.json", '{\n  "id"', "{\n  id", f"tasks/{NAME}/canary.json, line 2"),
    (_WIRING, _LAST, _more("color='red'"), "'color', at: TASK = Task("),
    (_WIRING, "prompts/correction.md", "prompts/none.md", "prompts/none.md cannot be used"),
    (_WIRING, _LAST, _more("only_for={'product': None}"), "OnlyFor(where="),
    (_WIRING, _LAST, _more("only_for={'deadline': tasks.OnlyFor({'product': None})}"), "deadline"),
    (_WIRING, _LAST, _more("only_for={'product': tasks.OnlyFor({'catgory': 'x'})}"), "catgory"),
    (_WIRING, _LAST, _more("only_for={'category': tasks.OnlyFor({})}"), "category cannot be null"),
    (_WIRING, _LAST, _more("storage=tasks.Storage('t', {'sumary': tasks.Column()})"), "sumary"),
    (_WIRING, _LAST, _more("storage=tasks.Storage('t', {'summary': tasks.Column(9)})"), "have 400"),
    (_WIRING, "category.macro_f1", "categry.macro_f1", "categry.macro_f1, which is no measure"),
    (_WIRING, 'name="support_messages"', 'name="support"', "folder"),
    (_WIRING, "TASK = Task(", "raise SystemExit\nTASK = Task(", "SystemExit"),
    # --- parts of another kind
    (_WIRING, 'version="1"', "version=1", "version is 1"),
    (_WIRING, "rules=RULES", "rules='x'", "rules is 'x'"),
    (_WIRING, "check=check", "check=None", "check is None"),
    (_WIRING, '("subject", "body")', '"subject"', "text_fields is 'subject'"),
    (_WIRING, "temperature=0.1", "temperature=-1", "temperature is -1"),
    (_WIRING, "temperature=0.1", "temperature='0.1'", "Let temperature be a number"),
    (
        _WIRING,
        _LAST,
        _more("storage=tasks.Storage('t', analysis='answer')"),
        "is 'answer'",
    ),
    (_WIRING, _LAST, _more("storage=tasks.Storage('t', analysis=())"), "analysis is ()"),
    (_WIRING, _LAST, _more("storage=tasks.Storage('')"), "table is ''"),
    # --- what does not fit together
    (_WIRING, "num_predict=512", "num_predict=4096", "no room for its prompt"),
    (_WIRING, '"body"', '"bdy"', "text_fields names bdy"),
    (_WIRING, "Urgency.NORMAL, ", "", "ordinal['urgency'] has None, low, urgent, and the field"),
    (_WIRING, '{"urgency": (', '{"urgncy": (', "ordinal names urgncy"),
    (_WIRING, '{"urgency": (', '{"summary": (', "no field of few values"),
    (_WIRING, _LAST, _more("calibrated={'summary': 'reply_needed'}"), "is no probability"),
    (_WIRING, _LAST, _more("calibrated={'summary': 'reply'}"), "calibrated names reply"),
    (
        _WIRING,
        _LAST,
        _more("storage=tasks.Storage('t', {'urgency': tasks.Column(null='low')})"),
        "null='low' is a value",
    ),
    (_WIRING, _LAST, _more("storage=tasks.Storage('t', textless={'category': None})"), "textless"),
    (_LABEL, "$fields", "$fields <|im_end|>", "holds '<|im_end|>'"),
    ("prompts/system.md", "$categories", "$categories \0", "holds '\\x00'"),
    ("prompts/system.md", "$categories", '$categories """', "the system_prompt holds"),
    ("canary.json", '"body": "', '"body": "<|im_start|>', "canary.json: what a model is shown"),
    # --- answers that no model could give, or that are not what was given
    (_OUTPUT, "min_length=1,", "min_length=401,", "min_length=401 and max_length=400"),
    (_OUTPUT, "min_length=1,", "min_length=1, strip_whitespace=True,", "has strip_whitespace"),
    (_OUTPUT, 'extra="forbid"', 'extra="forbid", str_to_lower=True', "has str_to_lower"),
    (
        _OUTPUT,
        "category: Category = Field(",
        "category: Category = Field(alias='cat', ",
        "an alias",
    ),
    (
        _OUTPUT,
        "    reply_needed: bool",
        _KINDS_ONCE,
        "kinds has at least 8 entries",
    ),
    # --- answers that are not as they were written, or lack what `Task.parse` promises
    (_OUTPUT, 'extra="forbid"', 'extra="allow"', 'no extra="forbid" in its configuration'),
    (_OUTPUT, 'extra="forbid", ', "", 'ConfigDict(extra="forbid", frozen=True'),
    (_OUTPUT, "reply_needed: bool = Field(", "reply_needed: bool = Field(False, ", "has a default"),
    (_OUTPUT, 'None = Field(\n        title="P', 'None = Field(None, title="P', "default=None too"),
    (_OUTPUT, 'title="Reply needed", ', "", "SupportAnswer.reply_needed has no title"),
    (_OUTPUT, 'without reply_needed")\n        return self', _CHANGED, "becomes 'A Text'"),
    (
        _OUTPUT,
        "reply_needed: bool = Field(",
        'code: str = Field(min_length=5, max_length=9, pattern="^[A-Z]{2}$", ',
        "no text of 5 to 9 characters matches",
    ),
    (
        _OUTPUT,
        "reply_needed: bool = Field(",
        'code: str = Field(max_length=3, pattern="^[A-Z]{5}$", ',
        "no text of 0 to 3 characters matches",
    ),
    (
        _OUTPUT,
        "reply_needed: bool = Field(",
        'code: str = Field(max_length=3, pattern="[A-Z]{3}", ',
        "does not keep pattern='[A-Z]{3}': begin it with ^",
    ),
    (
        _OUTPUT,
        "reply_needed: bool = Field(",
        'code: str = Field(max_length=3, pattern=r"^\\d{3}$", ',
        "on: begin it with ^, end it with $, write [0-9]",
    ),
    (
        _OUTPUT,
        "reply_needed: bool = Field(",
        'code: str = Field(max_length=3, pattern=r"^a\\/b$", ',
        r"from '\\/b$' on: begin it with",
    ),
    (
        _OUTPUT,
        "reply_needed: bool = Field(",
        'code: str = Field(max_length=3, pattern="^[ -~]{3}$", ',
        "[ -~] in pattern='^[ -~]{3}$' takes in a quote",
    ),
    (
        _OUTPUT,
        "reply_needed: bool = Field(",
        'code: str = Field(max_length=3, pattern="^a+$", ',
        "as [a-z]{0,3} for [a-z]*",
    ),
    # --- types
    (_OUTPUT, "reply_needed: bool", "reply_needed: bool | int", "several types (boolean, integer)"),
    (_OUTPUT, "reply_needed: bool", "reply_needed: __import__('typing').Any", "of any type"),
    (
        _OUTPUT,
        "reply_needed: bool",
        "reply_needed: __import__('decimal').Decimal",
        "so is a Decimal: write float or int",
    ),
    (_OUTPUT, "reply_needed: bool", "reply_needed: 'SupportAnswer | None'", "holds itself"),
    (_OUTPUT, "reply_needed: bool = Field(", "n: int = Field(gt=0, ", "gt: write ge"),
    # --- what cannot be rendered
    (_OUTPUT, "from enum", "import yaml\nfrom enum", "it imports yaml"),
    (_OUTPUT, "from enum", "from tasks.support_messages import message\nfrom enum", "it imports"),
    (
        _OUTPUT,
        "class SupportAnswer(BaseModel):",
        "class InvalidAnswer(BaseModel):\n    pass\n\n\nclass SupportAnswer(BaseModel):",
        "a InvalidAnswer of its own",
    ),
    # --- more that does not fit together
    (_WIRING, "check\n", "chekc as check\n", "__init__.py, line"),
    (_WIRING, "TASK = Task(", "TSK = Task(", "Write TASK = Task(…) there."),
    ("prompts/correction.md", "$reasons", "them", "the correction_prompt has no $reasons"),
    ("prompts/system.md", "", "word and word again. " * 3000, "by any tokenizer"),
    (_WIRING, "num_predict=512", "num_predict=8", "the shortest answer has"),
    (_WIRING, "num_predict=512", "num_predict=20", "the shortest answer has"),
    (
        _WIRING,
        _LAST,
        _more("storage=tasks.Storage('t', {'reply_needed': tasks.Column(null='none')})"),
        "Take null out",
    ),
    # --- functions
    (_WIRING, 'frozenset({"defect"})', 'frozenset({"defct"})', "Name some of: access, billing"),
    (_WIRING, "answer.category.value,", "answer.urgency.value,", "in stratum: tasks/"),
    (_WIRING, "answer.category.value,", "answer.category.valeu,", "'valeu'"),
    (_WIRING, "answer.category.value,", "1,", "stratum gives 1"),
    (_WIRING, "answer.reply_needed,", "None,", "positive gives None"),
    (_WIRING, "return frozenset(found)", "return found", "Let facets return a frozenset"),
    (_WIRING, "moment(message.received_at)", "message.received_at", "time_of gives"),
    ("rules.py", "def check(", "def check(_: object) -> None: ...\ndef _check(", "fails in check"),
    ("message.py", "message.sender", "message.sendr", "fails in user_message: tasks/"),
    (_OUTPUT, "self.summary.strip()", "self.sumary.strip()", "in a validator: tasks/"),
    (_OUTPUT, 'without reply_needed")\n        return self', '")', "end with `return self`"),
]


@pytest.mark.parametrize(("file", "old", "new", "said"), _FAULTS)
def test_a_fault_is_named_with_its_file_and_what_to_do(
    file: str, old: str, new: str, said: str, edit: Edit
) -> None:
    edit(file, old, new)
    with pytest.raises(TaskInvalid) as refused:
        load_named(NAME)
    assert said in str(refused.value)
    assert f"tasks/{NAME}/" in str(refused.value)
    assert refused.value.todo


_SOUND = [
    (_OUTPUT, "min_length=1,", "pattern=r'^(?:[A-Z]|a ){0,9}[.]?$',"),
    # What ties fields together may refuse every made answer.
    (_OUTPUT, "self.summary.strip()", "self.summary.endswith('as nobody makes it')"),
    # Without a validator that refuses doubles, a list longer than its enum has answers.
    (
        _OUTPUT,
        "    reply_needed: bool",
        (
            "    each: list[Category] = Field(min_length=9, max_length=9, "
            "title='E', description='e')\n    reply_needed: bool"
        ),
    ),
    (_WIRING, "answer.category.value,", "answer.model_dump()['summary'] or 'defect',"),
    (_WIRING, "answer.category.value,", "'defect' if answer.summary == 'It broke' else 'other',"),
    (_WIRING, "answer.category.value,", "answer.urgency.value if answer.urgency else 'defect',"),
    (
        _WIRING,
        _LAST,
        _more("storage=tasks.Storage('t', {'urgency': tasks.Column(length=9, null='none')})"),
    ),
    (_OUTPUT, "ValueError", "__import__('tasks').InvalidAnswer"),
]


@pytest.mark.parametrize(("file", "old", "new"), _SOUND)
def test_what_is_sound_is_taken(file: str, old: str, new: str, edit: Edit) -> None:
    edit(file, old, new)
    assert load_named(NAME).name == NAME


@pytest.mark.parametrize(
    "words",
    [
        "run",
        "plan",
        "stage snapshot",
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
    edit(_OUTPUT, "self.summary.strip()", "self.sumary.strip()")
    demo = str(files.ROOT / "examples/support-sample/demo.yaml")
    code = cli.main([*words.split(), "-c", demo, "-w", str(tmp_path / "w")])
    told = " ".join(capsys.readouterr().err.split())
    assert (code, "output.py, line" in told) == (TaskInvalid.exit_code, True), told


@pytest.mark.parametrize("words", ["plan", "task show"])
def test_a_model_that_takes_no_made_answer_is_told_in_its_own_words(
    words: str, edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = str(files.ROOT / "examples/support-sample/demo.yaml")
    command = [*words.split(), "-c", demo, "-w", str(tmp_path / "w")]
    cli.main(command)
    assert "takes none" not in capsys.readouterr().out
    edit(_OUTPUT, "not self.summary.strip()", "self.summary")
    for name in [name for name in sys.modules if f"tasks.{NAME}" in name]:
        del sys.modules[name]
    cli.main(command)
    told = " ".join(capsys.readouterr().out.split())
    assert "tasks/support_messages/output.py: SupportAnswer takes none of the answers" in told
    assert "the summary is blank" in told


@pytest.mark.parametrize("name", [*tasks.known_tasks(), ""])
def test_the_measures_are_those_of_the_evaluation(name: str) -> None:
    task = tasks.load_task(name) if name else KINDS_TASK
    assert sorted(faults.measure_names(task)) == sorted(measure_names(task))


def test_a_source_that_another_thread_parses_beside_is_parsed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CPython 3.11 raises a SystemError then."""
    once, parse = [SystemError("AST constructor recursion depth mismatch")], ast.parse

    def beside(source: str) -> ast.Module:
        if once:
            raise once.pop()
        return parse(source)

    monkeypatch.setattr(ast, "parse", beside)
    assert [*answer_faults._parsed("a = 1  # only here").body] != []
    assert not once
