"""`driver task check` on a checkout: each place where the task is written again."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from pydantic import Field

from contracts import files
from contracts.errors import SettingsInvalid
from driver.task.check import checkout as checkout_module
from driver.task.check import openapi, outside, patch
from driver.task.check.checkout import Checkout
from driver.task.check.finding import Compared, Severity
from driver.task.source import Source
from tasks import Column
from tasks.liga_relevance.output import LigaRelevance
from tests.services.running_backend import RunningBackend
from tests.unit.checkout import (
    ASKS,
    ENUMS,
    MISSING,
    MODELS,
    PROCESSOR,
    PROMPT,
    RENAMED,
    SCHEMAS,
    SHORTER,
    SOURCE,
    TYPES,
    VIEW,
    change,
    compared,
    findings,
    unclear,
)

_DEMO = str(files.ROOT / "examples/liga-sample/demo.yaml")


def test_a_backend_that_agrees_has_nothing_to_change(checkout: Path) -> None:
    held = compared(checkout)
    assert [f.line() for each in held for f in each.findings] == []
    assert [reason for each in held for reason in each.unclear] == []
    looked = {each.place: each.checked for each in held}
    assert looked["table"] == len(SOURCE.columns)
    assert looked["processor"] == looked["Vue"] == len(SOURCE.fields)
    assert looked["prompt"] == 2
    assert min(looked["schemas"], looked["TypeScript"]) >= len(SOURCE.columns)


_DRIFTS = {
    "a renamed enum": (
        RENAMED,
        (
            ENUMS,
            "class Priority",
            Severity.BREAKS,
            "does not know medium, of priority; it has normal,",
            "page is an error",
        ),
    ),
    "a value less in a union": (
        (TYPES, " | 'AK5'", ""),
        (
            TYPES,
            "type Arbeitskreis",
            Severity.DIFFERS,
            "does not know AK5, of assigned_aks",
            "no case for AK5",
        ),
    ),
    "a shorter column": (
        SHORTER,
        (
            MODELS,
            "priority",
            Severity.BREAKS,
            "holds 4 characters, and an answer may have 6",
            "batch",
        ),
    ),
    "a text column with a limit": (
        (
            MODELS,
            "summary: Mapped[str | None] = mapped_column(Text)",
            "summary = Column(String(9))",
        ),
        (
            MODELS,
            "summary",
            Severity.BREAKS,
            "holds 9 characters, .* may have 2500",
            "whole batch",
        ),
    ),
    "a list in a column of numbers": (
        (MODELS, "mapped_column(JSON, default=list)", "mapped_column(Integer)"),
        (
            MODELS,
            "assigned_aks",
            Severity.DIFFERS,
            "is Integer, and an answer has list",
            "refuses it",
        ),
    ),
    "an enum of another name": (
        (MODELS, "String(20)", "PgEnum('none', 'low', 'high', name='urgency')"),
        (MODELS, "priority", Severity.BREAKS, "Enum does not know medium", "page is an error"),
    ),
    "no column": (
        (MODELS, "    assigned_aks: Mapped[list] = mapped_column(JSON, default=list)\n", ""),
        (
            MODELS,
            "class Item",
            Severity.BREAKS,
            "Item has no column assigned_aks",
            "cannot be stored",
        ),
    ),
    "a field that the schema lacks": (
        (SCHEMAS, "    assigned_aks: list[Arbeitskreis] = []\n", ""),
        (
            SCHEMAS,
            "class ItemResponse",
            Severity.DIFFERS,
            "ItemResponse has no field assigned_aks",
            "the API",
        ),
    ),
    "a missing field in TypeScript": (
        MISSING,
        (
            TYPES,
            "interface LlmAnalysis",
            Severity.DIFFERS,
            "LlmAnalysis has no field reasoning",
            "tsc refuses it",
        ),
    ),
    "a field that is not read": (
        (PROCESSOR, '            "tags": data.get("tags", []),\n', ""),
        (PROCESSOR, "summary", Severity.BREAKS, "tags of an answer is not read", "never stored"),
    ),
    "a field that no page shows": (
        (VIEW, "{{ analysis.relevance_score }}", "?"),
        (VIEW, "<template>", Severity.DIFFERS, "no page shows relevance_score", "nobody sees"),
    ),
    "a page that asks for a value of before": (
        (VIEW, "=== 'high'", "=== 'critical'"),
        (VIEW, "const urgent", Severity.DIFFERS, "compared with 'critical'", "never taken"),
    ),
    "another message format": (
        (PROCESSOR, "Quelle: ", "Medium: "),
        (
            PROCESSOR,
            'role": "user',
            Severity.DIFFERS,
            r"Medium: .*, and the task's is .*Quelle: ",
            "form",
        ),
    ),
    "a text cut elsewhere": (
        (PROCESSOR, "CONTENT_LIMIT = 6000", "CONTENT_LIMIT = 2048"),
        (
            PROCESSOR,
            'role": "user',
            Severity.DIFFERS,
            "cut at 2048 characters, .* 6000",
            "another form",
        ),
    ),
    "another system prompt": (
        (PROMPT, "NICHT RELEVANT sind Sport", "UNWICHTIG sind Sport"),
        (
            PROCESSOR,
            'role": "system',
            Severity.DIFFERS,
            "'UNWICHTIG .* for 'NICHT REL",
            "than it was trained",
        ),
    ),
}


@pytest.mark.parametrize("name", _DRIFTS)
def test_a_drift_is_named_with_what_it_leads_to(checkout: Path, name: str) -> None:
    edit, (path, line, severity, differs, leads_to) = _DRIFTS[name]
    change(checkout, *edit)
    [found] = findings(checkout)
    file, _, number = found.place.rpartition(":")
    assert file == path
    assert line in (checkout / path).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    assert found.severity is severity
    assert re.search(differs, found.differs)
    assert leads_to in found.leads_to


class _WithDeadline(LigaRelevance):
    """The answer with one field more."""

    deadline: date | None = Field(title="Frist", description="Bis wann etwas zu tun ist.")


@pytest.mark.parametrize("own_column", [False, True])
def test_a_new_field_is_missed_in_every_place(
    checkout: Path, start_backend: Callable[..., RunningBackend], *, own_column: bool
) -> None:
    storage = SOURCE.storage
    if own_column:
        storage = replace(storage, columns={**storage.columns, "deadline": Column()})
    source = Source(replace(SOURCE.task, output=_WithDeadline, storage=storage))
    described = openapi.compare(source, start_backend([]).get(openapi.PATH)).findings
    compared = [*outside.in_checkout(source, checkout), Compared(openapi.PLACE, described)]
    found = {
        (each.place, finding.place.partition(":")[0], finding.severity.value)
        for each in outside.without_doubles(compared)
        for finding in each.findings
        if "deadline" in finding.differs
    }
    everywhere = {
        ("processor", PROCESSOR, "breaks"),
        ("TypeScript", TYPES, "differs"),
        ("Vue", VIEW, "differs"),
    }
    of_a_column = {
        ("table", MODELS, "breaks"),
        ("schemas", SCHEMAS, "differs"),
        ("OpenAPI", "GET /api/items/{id}", "breaks"),
    }
    assert found == everywhere | (of_a_column if own_column else set())


def test_what_a_base_lacks_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "schemas.py").write_text(
        "class ItemBase(BaseModel):\n"
        "    summary: str\n    detailed_analysis: str\n    priority: str\n"
        "class ItemResponse(ItemBase):\n    id: int\n    metadata: dict\n"
        "class ItemFilter(ItemBase):\n    priority: Literal['high', 'low']\n"
    )
    (tmp_path / "types.tsx").write_text(
        "interface Item {\n  summary: string;\n  priority: string;\n"
        "  detailed_analysis: string;\n}\n"
        "interface Detail extends Item { url: string }\n"
    )
    (tmp_path / "page.tsx").write_text("export const Page = (p: Item) => <b>{p.summary}</b>;\n")
    (tmp_path / "escapes.py").write_text("PATTERN = '\\d'\n")
    with warnings.catch_warnings(action="error"):
        found = findings(tmp_path)
    assert [(each.place, each.differs) for each in found] == [
        ("schemas.py:1", "ItemBase has no field assigned_aks"),
        ("types.tsx:1", "Item has no field assigned_aks"),
    ]
    assert "page.tsx" not in "\n".join(unclear(tmp_path))
    assert [each.edit.text for each in found if each.edit] == [
        "\n    assigned_aks: list[str] | None = None",
        '\n  assigned_aks: ("AK1" | "AK2" | "AK3" | "AK4" | "AK5" | "QAG")[];',
    ]


def test_classes_that_go_round_in_a_circle_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(
        "class A(B):\n    __tablename__ = 'items'\n    priority = Column(String(3))\n"
        "class B(A, BaseModel):\n    summary: str\n    assigned_aks: list[str]\n"
    )
    assert "priority holds 3 characters" in "\n".join(each.line() for each in findings(tmp_path))


def test_types_of_other_styles(tmp_path: Path) -> None:
    """An old column of a type with a module's name, an enum of TypeScript."""
    names = [field.name for field in SOURCE.fields]
    (tmp_path / "models.py").write_text(
        "import sqlalchemy as sa\n"
        "LENGTH = 5\n"
        "class Item(Base):\n"
        "    __tablename__ = 'items'\n"
        "    priority = sa.Column(sa.String(length=LENGTH))\n"
        "    summary = sa.Column(sa.String(100))\n"
        "    detailed_analysis = sa.Column(sa.Text)\n"
        "    assigned_aks = sa.Column(sa.JSON)\n"
        "    meta = sa.Column('metadata', sa.JSON)\n"
        f"{ASKS}for name in {names}:\n    setattr(item, name, json.loads(reply)[name])\n"
    )
    (tmp_path / "types.ts").write_text(
        "export enum Priority { High = 'high', Low = 'low' }\n"
        "const AKS = ['AK1', 'AK2', 'AK3', 'AK4', 'AK5'] as const\n"
        "export type Arbeitskreis = (typeof AKS)[number]\n"
    )
    found = findings(tmp_path)
    assert [finding.place for finding in found] == [
        "models.py:6",  # in the order of the answer
        "models.py:5",
        "types.ts:1",
        "types.ts:2",
    ]
    diff, _ = patch.of(tmp_path, [f.edit for f in found if f.edit])
    subprocess.run(["git", "apply", "-"], input=diff, cwd=tmp_path, check=True)
    assert findings(tmp_path) == []
    models, types = ((tmp_path / name).read_text() for name in ("models.py", "types.ts"))
    for said in ("sa.String(length=20)", "sa.String(2500)"):
        assert said in models
    assert "Low = 'low', MEDIUM = 'medium' }" in types
    assert "'AK5', 'QAG'] as const" in types


def test_what_cannot_be_understood_is_named_and_breaks_nothing(checkout: Path) -> None:
    (checkout / "old.py").write_text("print item.summary, item.priority\n")
    (checkout / "strange.ts").write_text("export interface { {{ priority: \n")
    (checkout / "strange.vue").write_text("<template><p>{{ item. }}</p><script lang=ts>{</script>")
    (checkout / "latin.py").write_bytes(b"# \xe4\n")
    (checkout / "link.py").symlink_to("/etc/passwd")
    change(checkout, PROCESSOR, '"content": prompt}', '"content": self.render(item)}')
    change(checkout, MODELS, "String(20)", "String(LENGTHS['priority'])")
    change(
        checkout, SCHEMAS, "    priority: Priority = Field", "    priority: outside.Urgency = Field"
    )
    assert [finding.line() for finding in findings(checkout)] == []
    said = "\n".join(unclear(checkout))
    for name in ("old.py: not Python", "strange.ts: not TypeScript", "latin.py: not UTF-8"):
        assert name in said
    assert "the length of priority is computed" in said
    assert "the user message is the result of render, which is not followed" in said
    assert "schemas.py:33: the values of Urgency, of priority" in said
    assert "link.py" not in said


def test_a_checkout_of_something_else_says_that_nothing_was_found(tmp_path: Path) -> None:
    assert findings(tmp_path) == []
    said = "\n".join(unclear(tmp_path))
    for place in ("__tablename__", "pydantic model", "read half", "role system", "interface"):
        assert place in said
    with pytest.raises(SettingsInvalid, match="no folder"):
        findings(tmp_path / "nowhere")


def test_garbage_is_looked_for_again_after_a_comparison_that_fails(tmp_path: Path) -> None:
    with outside._no_collections():
        assert not gc.isenabled()
    with pytest.raises(SettingsInvalid), outside._no_collections():
        Checkout.read(tmp_path / "nowhere")
    assert gc.isenabled()


def test_code_that_cannot_be_followed_costs_its_own_place_only(checkout: Path) -> None:
    (checkout / "deep.py").write_text(
        f"class Deep(made{'()' * 1500}):\n    pass  # summary, priority\n"
    )
    change(checkout, TYPES, " | 'AK5'", "")
    assert [each.place for each in findings(checkout)] == [f"{TYPES}:2"]
    assert "deep.py: RecursionError: " in "\n".join(unclear(checkout))


@pytest.mark.parametrize("limit", ["_MOST_FILES", "_MOST_BYTES", "_MOST_FOLDERS"])
def test_a_folder_that_is_no_checkout_is_not_compared(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    change(checkout, *SHORTER)
    monkeypatch.setattr(checkout_module, limit, 3)
    assert findings(checkout) == []
    assert [f"{checkout} has more than" in each for each in unclear(checkout)] == [True]


def test_folders_may_be_nested_deeply_and_unreadable(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = checkout / "deep"
    deep.mkdir()
    for _ in range(1100):  # more than Python's frames
        deep /= "a"
        deep.mkdir()
    scandir = os.scandir

    def refused(folder: Path) -> Iterator[os.DirEntry[str]]:
        if len(folder.parts) == len(deep.parts):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    try:
        found = Checkout.read(checkout)
    finally:
        while deep != checkout:
            deep.rmdir()
            deep = deep.parent
    assert len(found.files) > 5
    assert [each[-20:] for each in found.unread] == ["a: Permission denied"]
