"""The reprocess stage as unit tests call it, on items that a test backend has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contracts import files
from contracts.entrypoint import StageContext
from contracts.params import ReprocessMetrics, ReprocessParams
from contracts.stage import Event, InputRef
from contracts.stages import REPROCESS
from driver.host_stages import reprocess
from driver.host_stages.record import Record
from tests.jobs import job_of
from tests.services.ollama_double import OllamaDouble, good_answer

Row = dict[str, Any]
OLD: Row = {**json.loads(good_answer("low")), "summary": "Alt.", "reasoning": "Alt."}


def news(number: int, **changed: Any) -> Row:
    return {"id": number, "title": f"Titel {number}", "content": "Inhalt", **changed}


class ReprocessStage:
    """The stage in a folder of its own, which survives from call to call."""

    def __init__(self, root: Path, rows: list[Row], backend_url: str) -> None:
        self.root = root
        self.backend_url = backend_url
        self.model = "digest of the model"
        files.write_jsonl(root / "items.jsonl", [{**row, "id": str(row["id"])} for row in rows])
        self.events: list[Event] = []

    def run(self, *, everything: bool = False, **params: Any) -> ReprocessMetrics:
        path = self.root / "items.jsonl"
        reference = InputRef(path=path.name, digest="", bytes=files.size_of(path))
        job = job_of(
            REPROCESS,
            inputs={"items": reference, "gguf": InputRef(path="", digest=self.model, bytes=0)},
        )
        known = {"timeout_s": 10, "concurrency": 1, "patience_s": 0}
        parsed = ReprocessParams(**{**known, **params})
        folder = self.root / "stage"
        return reprocess.work(
            StageContext(REPROCESS, job, parsed, self.root, folder, self.events.append),
            self.backend_url,
            "liga-relevance",
            everything=everything,
        )

    def killed_behind(self, lines: list[Row]) -> None:
        """Leave what a kill behind these lines of outcomes.jsonl would have."""
        files.write_jsonl(self.folder / "outcomes.jsonl", lines)
        about = self.folder / "about.json"
        files.write_json(about, json.loads(about.read_bytes()) | {"finished": False})

    @property
    def folder(self) -> Path:
        return Record.find(self.root).folder

    def outcomes(self) -> list[Row]:
        return [line for line in Record.find(self.root).lines() if "outcome" in line]


def titles(ollama: OllamaDouble) -> list[str]:
    """Return what was asked about, in order."""
    return [message.splitlines()[0].removeprefix("Titel: ") for message in ollama.user_messages()]
