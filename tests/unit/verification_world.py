"""A deployment that is to be verified: a double of Ollama, the test backend, and a workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import serving.ollama
from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import VerifyFailed, VerifyUnanswered
from contracts.params import VerifyMetrics, VerifyParams
from contracts.stage import InputRef, Result
from contracts.stages import DEPLOY, ITEMS, LABELS, VERIFY
from driver import passed_over, promotion, served, verification
from driver.host_stages import canaries, verify
from driver.report.display import Display
from driver.session import Session
from driver.settings import Settings
from driver.store import Store
from serving.ollama import Ollama
from tests.jobs import job_of
from tests.services.ollama_double import OllamaDouble, good_answer
from tests.services.running_backend import RunningBackend

Row = dict[str, Any]
ALIAS = "liga-relevance:latest"
OLD, NEW = "liga-relevance:20260101-120000", "liga-relevance:20260102-120000"
OLD_DIGEST, NEW_DIGEST = "old" * 20, "new" * 20
GGUF = "digest of the new GGUF"
CONTENT = (
    "Das Land kürzt die Mittel der Beratung zum Jahresende. Die Beratung spart Folgekosten. "
    "Die Stellen sind überlastet. Die Kürzung trifft die Verbände."
)
"""Bears out all that `good_answer` says."""
BEFORE: Row = {**json.loads(good_answer("low")), "summary": "Alt.", "reasoning": "Alt."}
IRRELEVANT = good_answer(
    None,
    relevant=False,
    relevance_score=0.1,
    summary=None,
    detailed_analysis=None,
    argumentationskette=[],
    assigned_aks=[],
)


def news(number: int, **changed: Any) -> Row:
    """Return an article with an analysis by an earlier model."""
    return {"id": number, "title": f"Titel {number}", "content": CONTENT, **BEFORE, **changed}


ROWS = [news(1), news(2), news(3), news(4), news(5, is_manually_reviewed=True)]
RELEVANT = {"1", "2", "5"}
"""By their labels."""


@dataclass
class World:
    """The stage in a workspace where `NEW` is live, and `OLD` was before."""

    root: Path
    ollama: OllamaDouble
    backend: RunningBackend | None = None
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ollama.models[:] = [ALIAS, OLD, NEW]
        self.ollama.digests |= {ALIAS: NEW_DIGEST, OLD: OLD_DIGEST, NEW: NEW_DIGEST}
        self.engine = Ollama(self.ollama.url)
        self.root.mkdir(exist_ok=True)
        (self.root / "model.gguf").write_bytes(b"g")
        self.deployed(previous=OLD)
        rows = [{**row, "id": str(row["id"])} for row in ROWS]
        files.write_jsonl(self.root / ITEMS.filename, rows)
        labels = {key: good_answer() if key in RELEVANT else IRRELEVANT for key in "1234"}
        files.write_jsonl(
            self.root / LABELS.filename,
            ({"id": key, "label": json.loads(label)} for key, label in labels.items()),
        )

    def deployed(self, previous: str) -> None:
        """Leave a deployment of NEW behind, as a run does."""
        metrics = {"tag": NEW, "alias": ALIAS, "digest": NEW_DIGEST, "previous": previous}
        result = Result(
            stage="deploy",
            fingerprint="d",
            outputs={},
            metrics=metrics,
            seconds=1,
            finished_at="2026-01-02T13:00:00+00:00",
        )
        gguf = InputRef(path="model.gguf", digest=GGUF, bytes=1)
        job = job_of(DEPLOY, inputs={"gguf": gguf}, fingerprint="d")
        place = Store(self.root).prepare(job).parent
        files.write_json(place / "result.json", result.model_dump(mode="json"))

    def came_after(self, digest: str, before: str) -> None:
        """Note what was served before a model, as its deployment does."""
        served.replaces(self.root, promotion.environment(self.engine), ALIAS, digest, before)

    @property
    def url(self) -> str:
        """Where the backend answers."""
        return self.backend.url if self.backend else ""

    def inputs(self) -> dict[str, InputRef]:
        """Return what the stage takes."""
        files_of = {
            artifact.name: InputRef(
                path=artifact.filename,
                digest=files.digest_path(self.root / artifact.filename),
                bytes=files.size_of(self.root / artifact.filename),
            )
            for artifact in (ITEMS, LABELS)
        }
        return {**files_of, "gguf": InputRef(path="model.gguf", digest=GGUF, bytes=1)}

    def verify(self, **params: Any) -> VerifyMetrics:
        """Run the stage's work."""
        folder = Store(self.root).place("verify", "v")
        (folder / "work").mkdir(parents=True, exist_ok=True)
        parsed = VerifyParams(**{"timeout_s": 10, **params})
        job = job_of(VERIFY, inputs=self.inputs(), fingerprint="v")
        context = StageContext(VERIFY, job, parsed, self.root, folder, lambda _: None)
        return verify.work(context, self.engine, "liga-relevance", self.url)

    def failed(self) -> tuple[str, ...]:
        """Let the verification fail at one item, and return the items asked."""
        with pytest.raises(VerifyFailed):
            self.verify(items=1)
        return tuple(self.kept())

    def settle(self, *, unfinished: bool = True) -> None:
        """Do what the next start does."""
        verification.settle(self.root, self.said.append, unfinished=unfinished)

    def take_back(self, *, bad: bool = True) -> None:
        """Do what a run does after a verification that failed."""
        verification.take_back(self.root, self.engine, self.said.append, bad=bad)

    def silent(self) -> None:
        """Do what a run does where nobody has answered."""
        error = VerifyUnanswered("nobody has answered")
        verification.failed(self.root, self.engine, error, self.said.append)

    def record(self) -> verification.Record:
        """Return the verification that is under way."""
        record = verification.read(self.root)
        assert record is not None
        return record

    def live(self) -> str:
        """Return the digest that the alias shows."""
        return self.engine.models()[ALIAS].digest

    def kept(self) -> dict[str, Row]:
        """Return the fields from before, by item."""
        path = self.root / "store" / "verify" / "v" / "work" / "canaries.jsonl"
        return {row["id"]: row["fields"] for row in files.read_jsonl(path)}

    def asked(self) -> list[tuple[str, str]]:
        """Return the number of each article that was asked about, and the digest asked."""
        return [
            (request["messages"][1]["content"].splitlines()[0].rpartition(" ")[2], digest)
            for request in self.ollama.asked
            if "Titel: Titel" in request["messages"][1]["content"]
            for digest in [request["digest"][:3]]
        ]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it."""


def kill(*_: object) -> None:
    """Be the last thing that happens."""
    raise Killed


def bad_by_model(ollama: OllamaDouble) -> Callable[[str], str]:
    """Return answers that nobody can read where the new model is asked about an item."""

    def script(message: str) -> str:
        bad = ollama.asked[-1]["digest"] == NEW_DIGEST and "Titel: Titel" in message
        return "kein JSON" if bad else by_label(message)

    return script


def by_label(message: str) -> str:
    """Answer as a good model does: what is labelled irrelevant is."""
    number = message.splitlines()[0].removeprefix("Titel: Titel ")
    return IRRELEVANT if number in {"3", "4"} else good_answer()


def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the verification look often: the backend and the engine here are quick."""
    monkeypatch.setattr(canaries, "_LOOK_S", 0.02)
    monkeypatch.setattr(passed_over, "_PAUSE_S", 0.02)
    monkeypatch.setattr(serving.ollama, "_POLL_S", 0.02)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test of the module that imports this wait for the verification's pauses."""
    short_pauses(monkeypatch)


@pytest.fixture(name="world")
def good_world(
    tmp_path: Path, ollama: OllamaDouble, start_backend: Callable[..., RunningBackend]
) -> World:
    """Return a deployment, whose model answers well, in front of a backend with five items."""
    ollama.script = by_label
    return World(tmp_path / "workspace", ollama, start_backend(ROWS))


@pytest.fixture
def known_engine(monkeypatch: pytest.MonkeyPatch, ollama: OllamaDouble) -> None:
    """Let the record of a verification name the double, for the next start."""
    short_pauses(monkeypatch)
    monkeypatch.setenv("OLLAMA_HOST", ollama.url)


@pytest.fixture
def world(
    known_engine: None,  # is set before anything is deployed
    tmp_path: Path,
    ollama: OllamaDouble,
    start_backend: Callable[..., RunningBackend],
) -> World:
    """Return a deployment of a model that answers items 1 to 4 with what nobody can read."""
    ollama.script = bad_by_model(ollama)
    return World(tmp_path / "workspace", ollama, start_backend(ROWS))


def session_of(world: World) -> Session:
    """Return a session of a run that verifies one item of that world."""
    settings = Settings.model_validate(
        {
            "workspace": str(world.root),
            "runner": "process",
            "snapshot": {"items": ["items.jsonl"]},
            "fetch": {"path": str(world.root)},
            "backend": {"url": world.url, "container": "news"},
            "verify": {"items": 1, "timeout_s": 10},
        }
    )
    return Session(settings, Display())
