"""`driver task check` as a command: its table, and the patch that `git apply` takes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tree_sitter import Node

from contracts import files
from driver import __main__ as cli
from driver.task.check import patch, schemas, script, syntax, type_nodes
from driver.task.check.checkout import Checkout
from driver.task.check.finding import Edit
from driver.task.check.python_code import Code
from driver.task.check.tied import Tied
from driver.task.source import Source
from tasks import Column
from tests.unit.checkout import (
    ASKS,
    ENUMS,
    MISSING,
    MODELS,
    RENAMED,
    SCHEMAS,
    SHORTER,
    SOURCE,
    TYPES,
    change,
    findings,
    unclear,
)
from tests.unit.edited_task import with_deadline

_DEMO = str(files.ROOT / "examples/liga-sample/demo.yaml")


def _run_check(checkout: Path | str, workspace: Path, *more: str) -> int:
    where = ["-c", _DEMO, "-w", str(workspace), "--repository", str(checkout)]
    return cli.main(["task", "check", *where, *more])


@pytest.mark.parametrize(
    ("named", "code", "said"),
    [("", 2, "it is empty"), ("https://example.org/a/b.git", 10, "Clone it first")],
)
def test_a_checkout_is_a_folder(
    named: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = _run_check(named, tmp_path)
    except SystemExit as error:
        found = int(str(error.code))
    assert (found, said in capsys.readouterr().err) == (code, True)


@pytest.mark.parametrize("windows", [False, True])
def test_git_apply_takes_the_patch_and_the_check_passes(
    checkout: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], *, windows: bool
) -> None:
    for edit in (RENAMED, SHORTER, MISSING):
        change(checkout, *edit)
    change(checkout, SCHEMAS, "    assigned_aks: list[Arbeitskreis] = []\n", "")
    change(checkout, TYPES, " | 'AK5'", "")
    types = checkout / TYPES
    types.write_bytes(types.read_bytes().rstrip(b"\n"))  # its last line ends nowhere
    if windows:
        for path in (ENUMS, MODELS):
            (checkout / path).write_bytes((checkout / path).read_bytes().replace(b"\n", b"\r\n"))
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    workspace = tmp_path / "workspace"

    assert _run_check(checkout, workspace, "--patch") == 44
    diff = capfdbinary.readouterr().out
    assert {path: path.read_bytes() for path in before} == before, "the check has written"
    assert not workspace.exists()

    subprocess.run(["git", "apply", "-"], input=diff, cwd=checkout, check=True)
    assert [finding.line() for finding in findings(checkout)] == []
    assert _run_check(checkout, workspace) == 0
    imported = [sys.executable, "-B", "-c", "import app.models, app.schemas"]
    subprocess.run(imported, cwd=checkout / "backend", check=True)
    if windows:
        assert b'\r\n    MEDIUM = "medium"\r\n' in (checkout / ENUMS).read_bytes()


_MECHANICAL = {
    "app/größe x.py": """\
import sqlalchemy as sa
from typing import Literal
from pydantic import BaseModel, Field

Urgency = Literal['high', 'low']

class Item(Base):
    __tablename__ = "items"
    summary = sa.Column(sa.String(
        100,
    ))
    detailed_analysis = sa.Column(sa.Text)
    priority = sa.Column(sa.Enum("high", "low", name="priority"))
    assigned_aks = sa.Column(sa.JSON)
    meta = sa.Column("metadata", sa.JSON)

class ItemResponse(BaseModel):
    summary: str | None
    detailed_analysis: str | None
    priority: Urgency | None = None
    metadata: dict

session.add(Item(**json.loads(httpx.post("/api/generate").text)))
""",
    "web/types.ts": """\
export interface Analysis { relevant: boolean; tags: string[] }
export interface Item {
  summary: string | null;
  detailed_analysis: string | null;
  priority: 'high' | 'low' | null;
}
""",
}


def test_every_mechanical_difference_of_other_styles_is_taken(tmp_path: Path) -> None:
    """Also in a folder of a larger repository, and in a file with another name than git's own."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    checkout = tmp_path / "code"
    for name, text in _MECHANICAL.items():
        (checkout / name).parent.mkdir(parents=True)
        (checkout / name).write_text(text, encoding="utf-8")
    before = findings(checkout)
    mechanical = [each for each in before if each.edit]
    diff, _ = patch.of(checkout, [each.edit for each in mechanical if each.edit])
    subprocess.run(["git", "-C", str(checkout), "apply", "-"], input=diff, check=True)
    python, types = ((checkout / name).read_text(encoding="utf-8") for name in _MECHANICAL)
    for said in (
        "Literal['high', 'low', 'medium']",
        "        2500,\n",
        'sa.Enum("high", "low", "medium", name="priority")',
        "    assigned_aks: list[str] | None = None\n",
    ):
        assert said in python
    assert "'high' | 'low' | 'medium' | null" in types
    assert '  assigned_aks: ("AK1"' in types
    assert {each.differs for each in findings(checkout)} == {
        each.differs for each in before if not each.edit
    }


_WITH_DATE = Source(
    replace(
        with_deadline(),
        storage=replace(SOURCE.storage, columns={**SOURCE.storage.columns, "deadline": Column()}),
    )
)
_ITEM = (
    "class ItemResponse(BaseModel):\n    model_config = {'from_attributes': True}\n"
    "    summary: str\n    detailed_analysis: str\n    assigned_aks: list\n    priority: str\n"
    "    metadata: dict = {}\n"
)


@pytest.mark.parametrize(
    "head",
    [
        "from pydantic import (\n    BaseModel,\n)  # models\n",
        "from datetime import date, datetime\nfrom pydantic import BaseModel\n",
    ],
)
def test_a_date_that_a_patch_adds_takes_what_a_date_column_gives(tmp_path: Path, head: str) -> None:
    (tmp_path / "schemas.py").write_text(head + _ITEM)
    [found] = schemas.compare(_WITH_DATE, Code.read(Checkout.read(tmp_path)), Tied()).findings
    patched = tmp_path / "patched.py"
    patched.write_bytes(patch.applied((head + _ITEM).encode(), found.edits))
    made = runpy.run_path(str(patched))["ItemResponse"]
    kept = {"summary": "", "detailed_analysis": "", "assigned_aks": [], "priority": "none"}
    row = SimpleNamespace(**kept, deadline=date(2026, 3, 31))
    assert made.model_validate(row).deadline == row.deadline


@pytest.mark.parametrize(
    "head", ["", "from pydantic import BaseModel\nfrom whenever import date\n"]
)
def test_a_date_that_cannot_be_imported_is_left_to_people(tmp_path: Path, head: str) -> None:
    (tmp_path / "schemas.py").write_text(head + _ITEM)
    [found] = schemas.compare(_WITH_DATE, Code.read(Checkout.read(tmp_path)), Tied()).findings
    assert (found.differs, found.edits) == ("ItemResponse has no field deadline", ())


@pytest.mark.parametrize(("source", "kind"), [(_WITH_DATE, "date"), (with_deadline(), "str")])
def test_what_is_to_be_added_is_what_can_be_stored_there(
    tmp_path: Path, source: Any, kind: str
) -> None:
    source = source if isinstance(source, Source) else Source(source)
    fields = "".join(f"    {field.name}: object\n" for field in SOURCE.fields)
    (tmp_path / "llm.py").write_text(
        f"from pydantic import BaseModel\nclass Answer(BaseModel):\n{fields}"
        f"{ASKS}Answer.model_validate_json(text)\n"
    )
    code = Code.read(Checkout.read(tmp_path))
    [found] = schemas.compare(source, code, Tied.of(source, code)).findings
    assert found.todo == f"Add deadline: {kind} | None = None."
    assert found.edits[0].text.strip() == f"deadline: {kind} | None = None"


def test_edits_of_one_place_keep_their_order_and_do_not_overlap() -> None:
    edits = [
        Edit("a", 3, 3, "1"),
        Edit("a", 3, 3, "2"),
        Edit("a", 0, 2, "X"),
        Edit("a", 1, 3, "lost"),
    ]
    assert patch.applied(b"abc", edits) == b"Xc12"


def test_the_table_says_what_is_notcompared(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkout, *SHORTER)
    assert _run_check(checkout, tmp_path / "workspace") == 44
    said = capsys.readouterr()
    rows = [line.split("\t") for line in said.out.splitlines() if "\t" in line]
    assert rows[0] == ["means", "place", "what differs", "what it leads to", "what to change"]
    assert rows[1][:2] == ["breaks", f"{MODELS}:36"]
    assert "not compared, OpenAPI: the settings have no backend" in said.out
    assert "a difference would break production" in said.err


def test_a_member_whose_name_is_taken_is_left_to_people(checkout: Path) -> None:
    change(checkout, ENUMS, 'MEDIUM = "medium"', 'MEDIUM = "normal"')
    (checkout / "types.ts").write_text("enum Priority { HIGH = 'high', LOW = 'x', MEDIUM = 'y' }\n")
    found = [each for each in findings(checkout) if "does not know" in each.differs]
    assert [(each.place.partition(":")[0], each.edit) for each in found] == [
        (ENUMS, None),
        ("types.ts", None),
    ]


def test_a_patch_leaves_no_python_that_cannot_be_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("A = 1\n")
    assert patch.of(tmp_path, [Edit("a.py", 0, 0, "(")]) == (b"", frozenset({"a.py"}))


def test_what_a_patch_leaves_out_is_told(
    checkout: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(checkout, SCHEMAS, "    assigned_aks: list[Arbeitskreis] = []\n", "")
    change(checkout, SCHEMAS, "Any] = {}", "Any] = {}; _kept = (\n        1)")
    assert _run_check(checkout, tmp_path / "workspace", "--patch") == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "by hand: " in said.err
    assert "ItemResponse has no field assigned_aks" in said.err


def test_a_constant_of_some_values_is_in_doubt_and_not_widened(tmp_path: Path) -> None:
    used = "NOTIFY_PRIORITIES, VALID_PRIORITIES, ALLOWED_PRIORITIES_FOR_PUSH, _KNOWN_PRIORITY"
    (tmp_path / "a.py").write_text(
        'NOTIFY_PRIORITIES = ("high",)\nVALID_PRIORITIES = {"high", "low"}\n'
        'ALL_PRIORITIES = [*NOTIFY_PRIORITIES, "low"]\nREPRIORITIZED = ["high"]\n'
        'VALID_QUEUE_PRIORITIES = ("high", "default", "low")\n'
        'ALLOWED_PRIORITIES_FOR_PUSH = {"high", "medium"}\n_KNOWN_PRIORITY = ["high"]\n'
        f"{ASKS}def read(text):\n    data = json.loads(text)\n"
        f"    return [data[key] for key in {[f.name for f in SOURCE.fields]}], {used}\n"
    )
    found = [(each.place, each.severity.value, bool(each.edit)) for each in findings(tmp_path)]
    assert sorted(found) == [
        ("a.py:1", "differs", False),
        ("a.py:2", "differs", False),
        ("a.py:5", "differs", False),
        ("a.py:6", "differs", False),
        ("a.py:7", "differs", False),
    ]


def test_an_enum_that_only_has_the_name_is_in_doubt(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('class Priority(Enum):\n    HIGH = "high"\n    LATE = "late"\n')
    [found] = findings(tmp_path)
    assert (found.severity.value, found.edit) == ("differs", None)


def test_a_carriage_return_alone_ends_a_line(tmp_path: Path) -> None:
    code = b"# old\rLENGTH = 1\n\nUrgency = Literal[\r    'high',\r\n    'low',\r]\r"
    code += _ITEM.replace("priority: str", "priority: Urgency").encode()
    (tmp_path / "a.py").write_bytes(code)
    [found] = findings(tmp_path)
    assert found.place == "a.py:4"
    assert found.edit is not None
    assert patch.applied(code, [found.edit]) == code.replace(b"'low'", b"'low', 'medium'")


def test_a_pipe_in_a_checkout_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.py")
    assert "a.py: not a regular file" in unclear(tmp_path)


def test_aliases_cost_no_more_than_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generated file has thousands: what is looked at grows as the file, not as its square."""
    looked, walk = list[str](), syntax.walk
    counts = list[int]()

    def counted(*where: Any) -> Iterator[Node]:
        for node in walk(*where):
            looked.append(node.type)
            yield node

    for module in (script, syntax, type_nodes):
        monkeypatch.setattr(module, "walk", counted)
    for count in (20, 40):
        lines = (
            f"const A{n} = ['x'] as const\ntype B{n} = (typeof A{n})[number]\ntype C{n} = string\n"
            for n in range(count)
        )
        (tmp_path / "types.ts").write_text("".join(lines))
        looked.clear()
        assert len(script.Scripts.read(Checkout.read(tmp_path)).values) == count
        counts.append(len(looked))
    assert counts[1] <= 2 * counts[0]


def test_keys_and_arguments_of_a_typescript_type_are_no_values(tmp_path: Path) -> None:
    (tmp_path / "types.ts").write_text(
        'type Priority = components["schemas"]["Priority"]\n'
        'type Kind = "a" | "b"\n'
        "const NAMES = { high: 'high' }\n"
        'type Arbeitskreis = (typeof NAMES)["high"]\n'
        "interface Item { summary: string; detailed_analysis: string; assigned_aks: string[]\n"
        '  priority: Other["priority"] | Pick<Kind, "high"> }\n'
    )
    assert findings(tmp_path) == []


@pytest.mark.parametrize("body", [' HIGH = "high"', "\n    HIGH = 'high'; LOW = 'low'"])
def test_only_a_class_with_lines_of_its_own_gains_one(tmp_path: Path, body: str) -> None:
    code = (
        f"class Priority(\n    Enum):{body}\n"
        "class ItemResponse(BaseModel):\n    summary: str\n    detailed_analysis: str\n"
        "    assigned_aks: list[str]\n    priority: Priority\n    metadata: dict\n"
    )
    (tmp_path / "a.py").write_text(code)
    [found] = findings(tmp_path)
    assert found.severity.value == "breaks"
    edits = [found.edit] if found.edit else []
    grown = code.replace("'low'\n", "'low'\n    MEDIUM = 'medium'\n")
    assert patch.applied(code.encode(), edits).decode() == grown


def test_a_type_has_the_fields_of_all_that_it_extends(tmp_path: Path) -> None:
    fields = "summary: string; detailed_analysis: string; priority: Priority"
    lines = ["interface A0 { assigned_aks: string[] }"]
    lines += [f"interface A{n} extends A{n - 1} {{ b{n}: number }}" for n in range(1, 20)]
    lines += [f"interface Item extends A19 {{ {fields} }}"]
    (tmp_path / "types.ts").write_text("\n".join(lines))
    assert findings(tmp_path) == []
    (tmp_path / "types.ts").write_text("\n".join(lines[1:]))
    assert findings(tmp_path) == []
    assert "Item may lack assigned_aks: A0 is not in the checkout" in unclear(tmp_path)
    lines[0] = "interface A0 { id: number }"
    (tmp_path / "types.ts").write_text("\n".join(lines))
    assert [each.differs for each in findings(tmp_path)] == ["Item has no field assigned_aks"]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ("", '"high" | "medium" | "low" | null'),
        ("import type { Priority } from './enums'\n", "Priority | null"),
        ("import { Priority as Old } from './enums'\n", '"high" | "medium" | "low" | null'),
    ],
)
def test_a_type_is_named_only_where_its_file_has_the_name(
    tmp_path: Path, head: str, kind: str
) -> None:
    (tmp_path / "enums.ts").write_text("export type Priority = 'high' | 'medium' | 'low'\n")
    members = "  summary: string\n  detailed_analysis: string\n  assigned_aks: string[]\n"
    (tmp_path / "item.ts").write_text(f"{head}export interface Item {{\n{members}}}\n")
    [found] = findings(tmp_path)
    assert [each.text for each in found.edits] == [f"\n  priority: {kind}"]
