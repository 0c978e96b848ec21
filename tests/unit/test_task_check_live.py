"""`driver task check` on what runs: the backend's description, the model, what is sent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import files
from driver import __main__ as cli
from driver.task.check import modelfile, openapi, sent
from driver.task.check.finding import Severity
from serving import ollama_answers
from tests.services.ollama_double import OllamaDouble
from tests.services.running_backend import RunningBackend
from tests.unit.checkout import SOURCE, deployed

_DEMO = str(files.ROOT / "examples/liga-sample/demo.yaml")


def test_a_deployed_model_with_another_system_prompt() -> None:
    told = deployed()
    same = modelfile.compare(SOURCE, "liga:latest", ollama_answers.shown(told))
    assert same.findings == ()
    quoted = ollama_answers.shown({"parameters": 'stop   "a\\n\\"b\\""\nstop  "c"\ntop_k 4'})
    assert quoted.parameters == {"stop": ['a\n"b"', "c"], "top_k": ["4"]}

    drifted = told | {
        "system": told["system"].replace("Arbeitskreisen", "Gruppen"),
        "parameters": told["parameters"].replace("8192", "2048"),
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
