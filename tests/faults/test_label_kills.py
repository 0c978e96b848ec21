"""SIGKILL the label stage at random moments: what was answered is never asked again.

LABEL_KILLS and LABEL_KILL_SEED choose how many moments, and which.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.params import LabelParams
from tests.faults.labelling import answer, case
from tests.faults.tally import Tally
from tests.services import label_job
from tests.services.simulated_teacher import Asked, Pace, SimulatedTeacher
from tests.unit.labeler_stage import read_jsonl

KILLS = int(os.environ.get("LABEL_KILLS") or 50)
SLOTS = 4
COUNT = 8 * KILLS
"""Items: about as many as are answered before the last kills, which then find it writing."""
LONGEST_S = 0.25
"""Of a stage's life from its first request to the kill."""
FIRST_REQUEST_S = 30.0
"""How long a busy machine may take to get there: a kill before it finds nothing to lose."""
FROM_START = 0.25
"""Share of the kills that are timed from the start: into imports, reading, or writing."""


def prepare(workspace: Path) -> Path:
    """Write the items and the job; return the job's path."""
    rows = [
        {"id": f"i{n}", "title": f"Kürzung {n}", "content": f"Das Land kürzt Mittel, Fall {n}."}
        for n in range(COUNT)
    ]
    params = LabelParams(teacher="teacher", concurrency=SLOTS, max_attempts=2, min_labelled=0.5)
    return label_job.prepare(workspace, rows, params)


@contextlib.contextmanager
def started(job: Path, teacher: SimulatedTeacher) -> Iterator[subprocess.Popen[bytes]]:
    """Start the stage; it does not outlive the block."""
    with (job.parent / "stage.log").open("ab") as log:
        process = label_job.start(job, teacher.word("ollama"), log)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finish(job: Path, teacher: SimulatedTeacher) -> None:
    """Let the stage run to its end."""
    with started(job, teacher) as process:
        assert process.wait(120) == 0, (job.parent / "stage.log").read_text()


def kill(job: Path, teacher: SimulatedTeacher, chance: random.Random) -> bool:
    """Start the stage and kill it at a random moment; return whether it was still at work."""
    before = teacher.load.requests
    with started(job, teacher) as process:
        if chance.random() < FROM_START:
            wait_s = chance.uniform(0, 3 * LONGEST_S)
        else:
            wait_s = chance.uniform(0, LONGEST_S)
            deadline = time.monotonic() + FIRST_REQUEST_S
            while teacher.load.requests == before and time.monotonic() < deadline:
                if process.poll() is not None:
                    return False  # it had nothing left to ask
                time.sleep(0.001)
        time.sleep(wait_s)
        return process.poll() is None


def script(asked: Asked) -> str:
    """Answer well; every seventh item only when it is asked again, every fiftieth never."""
    number = case(asked)
    corrected = len(asked.messages) > 2
    if number % 50 == 3 or (number % 7 == 0 and not corrected):
        return "{}"
    return answer(asked)


@pytest.mark.slow
def test_a_kill_at_any_moment_costs_what_is_in_flight(tmp_path: Path, tally: Tally) -> None:
    seed = int(os.environ.get("LABEL_KILL_SEED") or time.time_ns() % 1_000_000)
    tally.note(f"LABEL_KILL_SEED={seed} for {KILLS} kills of the label stage")
    chance = random.Random(seed)  # noqa: S311  # not for secrets
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    with SimulatedTeacher(script, slots=SLOTS, pace=Pace(first_token_s=0.02)) as teacher:
        finish(prepare(undisturbed), teacher)
        needed = teacher.load.by_item

        teacher.reset()
        job = prepare(disturbed)
        at_work = 0
        for number in range(1, KILLS + 1):
            at_work += kill(job, teacher, chance)
            assert teacher.load.requests <= needed.total() + number * SLOTS
        before = teacher.load.requests
        finish(job, teacher)
        again = teacher.load.requests - needed.total()
        tally.note(
            f"  {at_work} met it at work, {before} requests until the last; "
            f"{needed.total()} were needed, {again} made again"
        )

    assert teacher.load.by_item.keys() == needed.keys()
    assert 0 <= again <= at_work * SLOTS
    assert at_work >= KILLS // 3
    labels, quarantine = (
        [label_job.output(folder, name) for folder in (disturbed, undisturbed)]
        for name in ("labels", "quarantine")
    )
    assert labels[0].read_bytes() == labels[1].read_bytes()
    ids = [[row["id"] for row in read_jsonl(path)] for path in quarantine]
    assert ids[0] == ids[1]
    assert len(ids[0]) == sum(number % 50 == 3 for number in range(COUNT))
    tally.survived("kills of the label stage", at_work)
