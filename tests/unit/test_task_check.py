"""`driver task check`: each place outside where the task is written again, held against it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from pydantic import Field

from contracts import files
from contracts.errors import SettingsInvalid
from driver import __main__ as cli
from driver.task.check import modelfile, openapi, outside, patch, sent
from driver.task.check.finding import Compared, Edit, Finding, Severity
from driver.task.source import Source
from serving import ollama_answers
from tasks import Column
from tasks.liga_relevance.output import LigaRelevance
from tests.services.ollama_double import OllamaDouble
from tests.services.running_backend import RunningBackend
from tests.unit.checkout import (
    ENUMS,
    MODELS,
    PROCESSOR,
    PROMPT,
    SCHEMAS,
    TYPES,
    VIEW,
    change,
    lay_out,
)

SOURCE = Source.of("liga_relevance")
_DEMO = str(files.ROOT / "examples/liga-sample/demo.yaml")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a small backend's checkout that agrees with the news task."""
    return lay_out(tmp_path / "backend checkout")


def _compared(checkout: Path) -> list[Compared]:
    return outside.without_doubles(list(outside.in_checkout(SOURCE, checkout)))


def _findings(checkout: Path) -> list[Finding]:
    return [finding for each in _compared(checkout) for finding in each.findings]


def _unclear(checkout: Path) -> list[str]:
    return [reason for each in _compared(checkout) for reason in each.unclear]


def test_a_backend_that_agrees_has_nothing_to_change(checkout: Path) -> None:
    compared = _compared(checkout)
    assert [f.line() for each in compared for f in each.findings] == []
    assert [reason for each in compared for reason in each.unclear] == []
    looked = {each.place: each.checked for each in compared}
    assert looked["table"] == len(SOURCE.columns)
    assert looked["processor"] == looked["Vue"] == len(SOURCE.fields)
    assert looked["prompt"] == 2
    assert min(looked["schemas"], looked["TypeScript"]) >= len(SOURCE.columns)


_RENAMED = (ENUMS, '    MEDIUM = "medium"\n', '    NORMAL = "normal"\n')
_SHORTER = (MODELS, "String(20)", "String(4)")
_MISSING = (TYPES, "  reasoning: string | null\n", "")
_DRIFTS = {
    "a renamed enum": (
        _RENAMED,
        (
            ENUMS,
            "class Priority",
            Severity.BREAKS,
            "does not know medium, of priority",
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
        _SHORTER,
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
        _MISSING,
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
    [found] = _findings(checkout)
    file, _, number = found.place.rpartition(":")
    assert file == path
    assert line in (checkout / path).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    assert found.severity is severity
    assert re.search(differs, found.differs)
    assert leads_to in found.leads_to


def test_a_deployed_model_with_another_system_prompt() -> None:
    wanted = SOURCE.task.modelfile()
    parameters = "\n".join(
        f"{name:<30} {f'{chr(34)}{each}{chr(34)}' if isinstance(each, str) else each}"
        for name, value in wanted.parameters.items()
        for each in (value if isinstance(value, list) else [value])
    )
    told = {"system": wanted.system, "template": wanted.template, "parameters": parameters}
    same = modelfile.compare(SOURCE, "liga:latest", ollama_answers.shown(told))
    assert same.findings == ()

    drifted = told | {
        "system": wanted.system.replace("Arbeitskreisen", "Gruppen"),
        "parameters": parameters.replace("8192", "2048"),
    }
    system, parameter = modelfile.compare(
        SOURCE, "liga:latest", ollama_answers.shown(drifted)
    ).findings
    assert system.place == "liga:latest: SYSTEM"
    assert system.severity is Severity.DIFFERS
    assert "'Gruppen" in system.differs
    assert "than it was trained on" in system.leads_to
    assert (
        "num_ctx: it is 2048, and the task's is 8192"
        in f"{parameter.place}: {parameter.differs}".replace("PARAMETER ", "")
    )


def test_the_test_backend_describes_all_that_is_stored(tmp_path: Path) -> None:
    backend = RunningBackend(tmp_path, [], ITEM_EDITS="PATCH", ITEM_EDIT_FIELDS="priority summary")
    backend.start()
    try:
        described = backend.get(openapi.PATH)
    finally:
        backend.kill()
    compared = openapi.compare(SOURCE, described)
    assert (compared.findings, compared.unclear) == ((), ())
    assert compared.checked > len(SOURCE.columns)

    shown = described["components"]["schemas"]["ItemOut"]["properties"]
    shown["priority"] = {"type": "string", "enum": ["high", "low", "none"]}
    shown["assigned_aks"] = {"type": "string"}
    shown["summary"] = {"anyOf": [{"type": "string", "maxLength": 500}, {"type": "null"}]}
    del shown["detailed_analysis"]
    found = openapi.compare(SOURCE, described).findings
    assert {finding.severity for finding in found} == {Severity.BREAKS}
    lines = "\n".join(finding.line() for finding in found)
    for said in (
        "shows has no detailed_analysis",
        "it has 500 characters at most",
        "not medium; an item with medium is answered with 500",
        "type string, and an answer's is array",
    ):
        assert said in lines
    assert len(found) == 4


def test_what_the_test_backend_sends(
    tmp_path: Path,
    start_backend: Callable[..., RunningBackend],
    ollama: OllamaDouble,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = {"title": "Titel: doppelt", "content": "Inhalt: x\n" * 2000, "source": "dpa"}
    start_backend([{"id": 1, **text}]).post("/api/items/1/reprocess")
    deadline = time.monotonic() + 30
    while not ollama.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    [request] = ollama.asked
    [system] = sent.compare(SOURCE, request, "seen").findings  # its prompt is its own
    assert system.place == "seen: system"

    prompt, message = request["messages"]
    prompt["content"] = SOURCE.task.system_prompt
    assert sent.compare(SOURCE, request, "seen").findings == ()
    message["content"] = message["content"].replace("Inhalt: ", "Inhalt: 12345", 1)
    [longer] = sent.compare(SOURCE, request, "seen").findings
    assert "a text of 6005 characters is sent, and the task cuts it at 6000" in longer.differs
    message["content"] = "Title: x\nText: y"
    [other] = sent.compare(SOURCE, request, "seen").findings
    assert "the message begins 'Title: x" in other.differs

    seen = tmp_path / "seen.json"
    seen.write_text(json.dumps(request))
    assert cli.main(["task", "check", "-c", _DEMO, "--sent", str(seen)]) == 0
    assert "seen.json: user" in capsys.readouterr().out
    seen.write_text("[]")
    assert cli.main(["task", "check", "-c", _DEMO, "--sent", str(seen)]) == 32


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


def test_types_of_other_styles(tmp_path: Path) -> None:
    """An old column of a type with a module's name, an enum of TypeScript, a constant array."""
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
        "VALID_PRIORITIES = ('high', 'low')\n"
    )
    (tmp_path / "types.ts").write_text(
        "export enum Priority { High = 'high', Low = 'low' }\n"
        "const AKS = ['AK1', 'AK2', 'AK3', 'AK4', 'AK5'] as const\n"
        "export type Arbeitskreis = (typeof AKS)[number]\n"
    )
    findings = _findings(tmp_path)
    assert [finding.place for finding in findings] == [
        "models.py:6",  # in the order of the answer
        "models.py:5",
        "models.py:10",
        "types.ts:1",
        "types.ts:2",
    ]
    diff = patch.of(tmp_path, [f.edit for f in findings if f.edit])
    subprocess.run(["git", "apply", "-"], input=diff, cwd=tmp_path, check=True)
    assert _findings(tmp_path) == []
    models, types = ((tmp_path / name).read_text() for name in ("models.py", "types.ts"))
    for said in ("sa.String(length=20)", "sa.String(2500)", "('high', 'low', 'medium')"):
        assert said in models
    assert "Low = 'low', MEDIUM = 'medium' }" in types
    assert "'AK5', 'QAG'] as const" in types


def _run_check(checkout: Path, workspace: Path, *more: str) -> int:
    where = ["-c", _DEMO, "-w", str(workspace), "--repository", str(checkout)]
    return cli.main(["task", "check", *where, *more])


@pytest.mark.parametrize("windows", [False, True])
def test_git_apply_takes_the_patch_and_the_check_passes(
    checkout: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], *, windows: bool
) -> None:
    for edit in (_RENAMED, _SHORTER, _MISSING):
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

    assert _run_check(checkout, workspace, "--patch") == 43
    diff = capfdbinary.readouterr().out
    assert {path: path.read_bytes() for path in before} == before, "the check has written"
    assert not workspace.exists()

    subprocess.run(["git", "apply", "-"], input=diff, cwd=checkout, check=True)
    assert [finding.line() for finding in _findings(checkout)] == []
    assert _run_check(checkout, workspace) == 0
    if windows:
        assert b'\r\n    MEDIUM = "medium"\r\n' in (checkout / ENUMS).read_bytes()


def test_what_cannot_be_understood_is_named_and_breaks_nothing(checkout: Path) -> None:
    (checkout / "old.py").write_text("print 'Python 2'\n")
    (checkout / "strange.ts").write_text("export interface { {{ priority: \n")
    (checkout / "strange.vue").write_text("<template><p>{{ item. }}</p><script lang=ts>{</script>")
    (checkout / "latin.py").write_bytes(b"# \xe4\n")
    (checkout / "link.py").symlink_to("/etc/passwd")
    change(checkout, PROCESSOR, '"content": prompt}', '"content": self.render(item)}')
    change(checkout, MODELS, "String(20)", "String(LENGTHS['priority'])")
    assert [finding.line() for finding in _findings(checkout)] == []
    said = "\n".join(_unclear(checkout))
    for name in ("old.py: not Python", "strange.ts: not TypeScript", "latin.py: not UTF-8"):
        assert name in said
    assert "the length of priority is computed" in said
    assert "the user message is the result of render, which is not followed" in said
    assert "link.py" not in said


def test_a_checkout_of_something_else_says_that_nothing_was_found(tmp_path: Path) -> None:
    assert _findings(tmp_path) == []
    said = "\n".join(_unclear(tmp_path))
    for place in ("__tablename__", "pydantic model", "reads half", "role system", "interface"):
        assert place in said
    with pytest.raises(SettingsInvalid, match="no folder"):
        _findings(tmp_path / "nowhere")


def test_edits_of_one_place_keep_their_order_and_do_not_overlap() -> None:
    edits = [
        Edit("a", 3, 3, "1"),
        Edit("a", 3, 3, "2"),
        Edit("a", 0, 2, "X"),
        Edit("a", 1, 3, "lost"),
    ]
    assert patch.applied(b"abc", edits) == b"Xc12"


def test_the_table_says_what_is_not_compared(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkout, *_SHORTER)
    assert _run_check(checkout, tmp_path / "workspace") == 43
    said = capsys.readouterr()
    rows = [line.split("\t") for line in said.out.splitlines() if "\t" in line]
    assert rows[0] == ["means", "place", "what differs", "what it leads to", "what to change"]
    assert rows[1][:2] == ["breaks", f"{MODELS}:36"]
    assert "not compared, OpenAPI: the settings have no backend" in said.out
    assert "a difference would break production" in said.err
