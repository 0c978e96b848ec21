"""The five drifts that issue 8 plants, each through the commands as a user gives them.

Outside are the test backend, a checkout of a small one, and a DOUBLE of Ollama.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import TaskDrifted
from driver import __main__ as cli
from driver import preflight
from driver.store import Run
from tests.services.ollama_double import OllamaDouble
from tests.services.running_backend import RunningBackend
from tests.unit.checkout import (
    ENUMS,
    MISSING,
    MODELS,
    PROCESSOR,
    RENAMED,
    SHORTER,
    TYPES,
    change,
    deployed,
)

_DEMO = files.ROOT / "examples/liga-sample/demo.yaml"
_MESSAGE = (PROCESSOR, "Quelle: ", "Medium: ")

# By drift: what is changed, and the row that names it: its consequence, place, difference, effect.
_PLANTED = {
    "a renamed enum": (
        RENAMED,
        ("breaks", ENUMS, "enum Priority does not know medium", "the item's page is an error"),
    ),
    "a shorter column": (
        SHORTER,
        ("breaks", MODELS, "priority holds 4 characters", "loses its whole batch"),
    ),
    "a missing field in TypeScript": (
        MISSING,
        ("differs", TYPES, "LlmAnalysis has no field reasoning", "tsc refuses it"),
    ),
    "another system prompt in the Modelfile of the deployed tag": (
        None,
        ("differs", "liga-demo:latest: SYSTEM", "'Gruppen", "another one than it was trained on"),
    ),
    "another message format in the backend": (
        _MESSAGE,
        ("differs", PROCESSOR, "Medium: ", "in another form than in training"),
    ),
}
_BREAKING = [name for name, (_, row) in _PLANTED.items() if row[0] == "breaks"]


@dataclass(frozen=True)
class Outside:
    """All that a task is held against, which agrees with it but for what is planted."""

    checkout: Path
    ollama: OllamaDouble
    settings: list[str]
    """Arguments of every command."""

    def plant(self, name: str) -> None:
        """Change one thing of it."""
        edit, _ = _PLANTED[name]
        if edit:
            change(self.checkout, *edit)
        else:
            system = self.ollama.shown["system"].replace("Arbeitskreisen", "Gruppen")
            self.ollama.shown |= {"system": system}


@pytest.fixture
def outside(
    tmp_path: Path,
    checkout: Path,
    ollama: OllamaDouble,
    start_backend: Callable[..., RunningBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> Outside:
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)
    ollama.models.append("liga-demo:latest")
    ollama.shown = deployed()
    named = {
        "engine": "ollama",
        "backend.url": start_backend([]).url,
        "backend.container": "news",
        "backend.repository": str(checkout),
    }
    settings = ["-c", str(_DEMO), "-w", str(tmp_path / "workspace")]
    settings += [word for key, value in named.items() for word in ("--set", f"{key}={value}")]
    return Outside(checkout, ollama, settings)


def test_without_a_drift_every_place_is_compared_and_agrees(
    outside: Outside, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["task", "check", *outside.settings]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not compared" not in said
    assert "Differences: 0." in said
    for place in ("OpenAPI", "Modelfile", "table", "schemas", "processor", "prompt", "TypeScript"):
        assert f"{place} (" in said


@pytest.mark.parametrize("name", _PLANTED)
def test_a_planted_drift_is_named_by_check(
    outside: Outside, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outside.plant(name)
    code = cli.main(["task", "check", *outside.settings])
    assert code == (TaskDrifted.exit_code if name in _BREAKING else 0)
    _, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines() if "\t" in line]
    [(means, place, differs, leads_to, todo)] = rows
    wanted, where, difference, effect = _PLANTED[name][1]
    assert means == wanted
    assert place == where or place.rpartition(":")[0] == where  # a line in a file
    assert difference in differs
    assert effect in leads_to
    assert todo


@pytest.mark.parametrize("name", _PLANTED)
def test_a_run_is_refused_by_what_breaks_and_goes_on_if_told_to(
    outside: Outside, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "check", lambda *_: None)  # it asks for the container
    outside.plant(name)
    base = Path(outside.settings[3]) / "no-model"
    run = ["run", *outside.settings, "--set", f"fetch.path={base}"]
    if name in _BREAKING:
        assert cli.main(run) == TaskDrifted.exit_code
        assert Run.last(Path(outside.settings[3])) is None
        run.append("--accept-drift")
    capsys.readouterr()
    assert cli.main(run) not in (0, TaskDrifted.exit_code), (
        "it went on, to a base that is not there"
    )

    ended = Run.last(Path(outside.settings[3]))
    assert ended is not None
    report = html.unescape((ended.folder / "report.html").read_text(encoding="utf-8"))
    assert cli.main(["status", *outside.settings]) == 0
    status = " ".join(capsys.readouterr().out.split())
    difference = _PLANTED[name][1][2]
    for shown in (report, status):
        assert (difference in shown) == (name in _BREAKING)
        assert ("accepted (--accept-drift)" in shown.lower()) == (name in _BREAKING)
