"""SIGKILL backend, driver and Ollama at random moments of a reprocess: every item exactly once.

Driver and backend are processes as they are in service, the backend with its own database; Ollama
is a DOUBLE that answers by title. REPROCESS_KILLS and REPROCESS_SEED choose how many moments, and
which.

What can be promised: an item is asked about once, and once more for each kill of the backend or
of Ollama that found it under way and so lost its answer. A kill of the driver alone costs nothing,
because the backend works on. So the test notes what each kill found under way, and allows no more.
"""

from __future__ import annotations

import os
import random
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from contracts import files
from contracts.params import ReprocessMetrics, ReprocessParams
from contracts.stage import InputRef, Result
from contracts.stages import REPROCESS
from driver.host_stages.record import Record
from tests.faults.reprocess_driver import MODEL
from tests.faults.tally import Tally
from tests.jobs import job_of
from tests.services.ollama_process import summary_of
from tests.services.running_backend import ROOT, BackendProcess

ITEMS, REVIEWED_EACH = 2000, 20
KILLS = int(os.environ.get("REPROCESS_KILLS") or 9)
CONCURRENCY = 8
ANSWER_S = 0.03
LONGEST_AWAY_S = 1.5
ITEMS_BETWEEN = (10, 120)
"""Items asked about between two kills: each finds the work in full swing."""


class Ollama:
    """The double as a process on one port, with one log through all its lives."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "ollama.log"
        self.log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        asked = [str(self.port), str(self.log), MODEL, str(ANSWER_S)]
        command = [sys.executable, "-m", "tests.services.ollama_process", *asked]
        # A backend that is killed lets go of its requests, of which http.server complains.
        self._process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)

    def wait(self) -> None:
        while True:
            try:
                requests.get(f"{self.url}/api/version", timeout=5)
                return
            except requests.ConnectionError:
                time.sleep(0.05)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def asked(self) -> Counter[str]:
        """Return how often each title was asked about."""
        return Counter(self.log.read_text(encoding="utf-8").splitlines())


class Driver:
    """The stage as a process that goes on where it was killed."""

    def __init__(self, job: Path, backend_url: str) -> None:
        self._job = job
        self._url = backend_url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.faults.reprocess_driver", str(self._job), self._url]
        with (self._job.parent / "driver.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def exit_code(self, timeout_s: float) -> int | None:
        """Return how it has ended, None if it has not within the time."""
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


class World:
    """All three, and what each kill has found under way."""

    def __init__(self, folder: Path) -> None:
        self.rows = [_news(number) for number in range(1, ITEMS + 1)]
        self.ollama = Ollama(folder)
        self.database = folder / "data" / "backend.sqlite"
        environment = {"OLLAMA_URL": self.ollama.url, "OLLAMA_MODEL": MODEL}
        self.backend = BackendProcess(folder, self.rows, **environment)
        self.workspace = folder / "workspace"
        self.job = _prepare(self.workspace, self.rows)
        self.driver = Driver(self.job, self.backend.url)
        self.lost: Counter[str] = Counter()
        """By title: how many answers kills may have cost, being asked for and not stored."""

    def start(self) -> None:
        self.ollama.start()
        self.ollama.wait()
        self.backend.start()
        self.driver.start()

    def stop(self) -> None:
        for each in (self.driver, self.backend, self.ollama):
            each.kill()

    def at_work(self, items: int, then_s: float) -> bool:
        """Wait until so many more items have been asked about; False where the work has ended."""
        wanted = self.ollama.asked().total() + items
        while self.ollama.asked().total() < wanted:
            if (ended := self.driver.exit_code(0.02)) is not None:
                assert ended == 0, _log(self)
                return False
        time.sleep(then_s)
        return True

    def hit(self, what: str, away_s: float) -> None:
        """Kill one of them, and start it again after a while."""
        if what == "driver":
            self.driver.kill()
            self.driver.start()
            return
        killed = self.backend if what == "backend" else self.ollama
        killed.kill()
        time.sleep(0.2)  # what a backend had sent has arrived at Ollama, and is in its log
        stored = self.stored()
        asked = self.ollama.asked()
        self.lost.update(t for t, n in asked.items() if t not in stored and n > self.lost[t])
        time.sleep(away_s)
        killed.start()

    def stored(self) -> set[str]:
        """Return the titles of the items that have their new analysis."""
        return {row["title"] for row in self.items() if row["summary"] == summary_of(row["title"])}

    def items(self) -> list[dict[str, Any]]:
        connection = sqlite3.connect(self.database)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute("SELECT * FROM items ORDER BY id")]
        finally:
            connection.close()


def _news(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": f"Meldung {number}",
        "content": "Das Land kürzt die Mittel.",
        "source": f"Quelle {number % 7}",
        "summary": f"Alt {number}.",
        "detailed_analysis": f"Altes zu {number}.",
        "priority": "low",
        "assigned_aks": ["AK2"],
        "reasoning": "Alt.",
        "relevant": True,
        "is_manually_reviewed": number % REVIEWED_EACH == 0,
    }


def _prepare(workspace: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the items and the job; return the job's path."""
    items = workspace / "items.jsonl"
    files.write_jsonl(items, [{"id": str(r["id"]), "title": r["title"]} for r in rows])
    gguf = workspace / "model.gguf"
    gguf.write_bytes(b"model")
    inputs = {
        "items": InputRef(path=items.name, digest="", bytes=files.size_of(items)),
        "gguf": InputRef(path=gguf.name, digest="digest of the model", bytes=files.size_of(gguf)),
    }
    params = ReprocessParams(concurrency=CONCURRENCY, timeout_s=8, patience_s=60)
    job = job_of(
        REPROCESS,
        params,
        inputs,
        run="20260101-000000",
        code_digest=files.code_digest(*REPROCESS.code),
    )
    path = workspace / "store" / REPROCESS.name / "f" / "job.json"
    files.write_json(path, job.model_dump(mode="json"))
    return path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.slow
def test_every_item_exactly_once(world: World, tally: Tally) -> None:
    seed = int(os.environ.get("REPROCESS_SEED") or time.time_ns() % 10**6)
    chance = random.Random(seed)  # noqa: S311
    tally.note(f"REPROCESS_SEED={seed}")
    before = {row["id"]: row for row in world.items()}
    victims = [("backend", "driver", "ollama")[n % 3] for n in range(KILLS)]
    chance.shuffle(victims)
    hit: Counter[str] = Counter()
    for victim in victims:
        if not world.at_work(chance.randrange(*ITEMS_BETWEEN), chance.uniform(0, ANSWER_S)):
            break
        world.hit(victim, chance.uniform(0, LONGEST_AWAY_S))
        hit[victim] += 1
    assert world.driver.exit_code(300) == 0, _log(world)

    after = world.items()
    reviewed = {row["id"] for row in after if row["is_manually_reviewed"]}
    assert len(after) == ITEMS
    assert len(reviewed) == ITEMS // REVIEWED_EACH
    for row in after:
        if row["id"] in reviewed:
            assert row == before[row["id"]]
        else:
            assert row["summary"] == summary_of(row["title"])
            assert row["priority"] == "high"
    asked = world.ollama.asked()
    todo = {row["title"] for row in after if row["id"] not in reviewed}
    assert asked.keys() == todo
    assert {title: n for title, n in asked.items() if n > 1 + world.lost[title]} == {}

    result = Result.model_validate_json((world.job.parent / "result.json").read_bytes())
    assert ReprocessMetrics.model_validate(result.metrics) == ReprocessMetrics(
        processed=len(todo), failed=0, left_out=len(reviewed)
    )
    kept = Record.find(world.workspace).before()
    assert {int(i): state["summary"] for i, state in kept.items()} == {
        number: row["summary"] for number, row in before.items()
    }
    for victim, count in hit.items():
        tally.survived(f"kills of the {victim} in a reprocess", count)
    again = asked.total() - len(todo)
    tally.note(f"{again} of {len(todo)} items asked about again, {world.lost.total()} at most")


def _log(world: World) -> str:
    return (world.job.parent / "driver.log").read_text(encoding="utf-8")[-3000:]
