"""The label stage against the sequential way, at one simulated server with P slots.

The server takes 1 s to the first token and 33 ms for each token (a 32 B model on one consumer
card), in every slot, whatever the others do; requests beyond P wait, as at Ollama. Time runs
15 times as fast, so the stage's own work weighs 15 times what it weighs in earnest; figures are in
the server's time. Both ways are timed at the server, from the first request to the last answer.

`of_ideal` is the share of the slots' time in which they worked. The last cases are rows whose
answers are all cached: the whole process, against one that must ask the rules again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.comparison import compared
from contracts import files
from contracts.files import digest_text
from contracts.label_cache import CACHE_FILE, LabelCache
from contracts.params import LabelParams
from images.labeler.teacher import Teacher
from serving import full_tag
from serving.attempts import Attempt
from serving.ollama import Ollama
from tasks import load_task
from tests.services import label_job
from tests.services.simulated_teacher import DIGEST, MODEL, Asked, Load, Pace, SimulatedTeacher

SCALE = 15
PACE = Pace(first_token_s=1.0 / SCALE, token_s=0.033 / SCALE)
SAMPLE = files.ROOT / "examples/liga-sample"
TASK = load_task("liga_relevance")
PARAMS = LabelParams(teacher=MODEL)
GOALS_S = {1_000: 2, 100_000: 30}
"""Of a run over cached rows."""


# --- items, answers, server ----------------------------------------------------------------------
def items(count: int) -> list[dict[str, Any]]:
    """Return articles of the sample, each with a number of its own in its title."""
    found = sample()
    rows = ((n, found[n % len(found)][0]) for n in range(count))
    return [{**row, "id": f"i{n}", "title": f"{row['title']} #{n}#"} for n, row in rows]


def answers() -> list[str]:
    """Return the labels of the sample's articles, as a teacher writes them."""
    return [json.dumps(label, ensure_ascii=False) for _, label in sample()]


def sample() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return articles and labels, mixed so that any few of them are as long as all."""
    labels = {row["id"]: row["label"] for row in files.read_jsonl(SAMPLE / "labels.jsonl")}
    rows = sorted(files.read_jsonl(SAMPLE / "items.jsonl"), key=lambda row: digest_text(row["id"]))
    return [(row, labels[row["id"]]) for row in rows]


def serve(slots: int, pipe: Connection) -> None:
    """Be the server, in a process of its own; send the load whenever the pipe says something."""
    known = answers()

    def script(asked: Asked) -> str:
        numbers = [int(number) for number in re.findall(r"#(\d+)#", asked.item)]
        texts = [known[number % len(known)] for number in numbers]
        return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"

    with SimulatedTeacher(script, slots=slots, pace=PACE) as teacher:
        pipe.send(teacher.word("ollama"))
        while pipe.recv():
            pipe.send(teacher.load)
            teacher.reset()


class Server:
    """The server, as seen from here."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.address = str(pipe.recv())

    def load(self) -> Load:
        """Return what it had to do since the last call."""
        self._pipe.send(True)
        found: Load = self._pipe.recv()
        return found


@contextmanager
def server(slots: int) -> Iterator[Server]:
    """Run a server."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(slots, there), daemon=True)
    process.start()
    there.close()  # else its death would leave us waiting
    try:
        yield Server(here)
        here.send(False)
        process.join(5)
    finally:
        process.kill()
        process.join()


# --- the two ways --------------------------------------------------------------------------------
def label_stage(address: str, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Label by the stage, as the driver runs it."""
    _run(label_job.prepare(folder, rows, PARAMS), address)
    labelled = len(list(files.read_jsonl(label_job.output(folder, "labels"))))
    if labelled != len(rows):
        raise SystemExit(f"{labelled} of {len(rows)} items are labelled")


def the_sequential_way(address: str, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Label as it was done before: ten items a request, one request at a time, files of fifty.

    Answers belong to items by their position, and nothing is validated: its least cost.
    """
    engine = Ollama(f"http://{address}")
    for batch in range(0, len(rows), 50):
        labelled = []
        for first in range(batch, min(batch + 50, len(rows)), 10):
            ten = rows[first : min(first + 10, batch + 50)]
            text = "\n\n".join(TASK.user_message(TASK.item.model_validate(row)) for row in ten)
            messages = [
                {"role": "system", "content": TASK.label_prompt},
                {"role": "user", "content": text},
            ]
            options = {"num_ctx": 32768, "num_predict": 30_000, "repeat_penalty": 1.0}
            answer = engine.chat(MODEL, messages, options=options, timeout_s=600)
            found = json.loads(answer.text)
            labelled += [
                {**row, "label": label}
                for row, label in zip(ten, found if len(ten) > 1 else [found], strict=True)
            ]
        files.write_jsonl(folder / f"batch_{batch // 50}_labeled.jsonl", labelled)


def _run(job: Path, address: str) -> float:
    """Run the stage to its end and return the seconds that its process took."""
    log = job.parent / "stage.log"
    with log.open("wb") as stream:
        started = time.perf_counter()
        process = label_job.start(job, address, stream)
        try:
            if process.wait():
                raise SystemExit(log.read_text())
        finally:
            process.kill()
    return time.perf_counter() - started


# --- cases ---------------------------------------------------------------------------------------
def at_slots(slots: int, count: int, count_before: int) -> dict[str, Any]:
    """Return items/min of both ways; the sequential one is as fast on fewer items."""
    rates, of_ideal = [], []
    with server(slots) as found, tempfile.TemporaryDirectory() as folder:
        for way, number in ((label_stage, count), (the_sequential_way, count_before)):
            place = Path(folder) / way.__name__
            place.mkdir()
            way(found.address, place, items(number))
            load = found.load()
            elapsed_s = load.last_at - load.first_at
            rates.append(60 * number / (elapsed_s * SCALE))
            of_ideal.append(load.busy_s / (slots * elapsed_s))
    own, other = rates
    return {
        **compared(f"labelling, slots: {slots}", own, other, "items/min", more=True, digits=1),
        "of_ideal": round(of_ideal[0], 3),
        "of_ideal_other": round(of_ideal[1], 3),
        "items": count,
    }


def cached(count: int) -> dict[str, Any]:
    """Return the seconds of a run that asks nothing, with the rules' verdicts known or not."""
    rows = items(count)
    with server(1) as found, tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        job = label_job.prepare(workspace, rows, PARAMS)
        fill(workspace, rows)
        other = _run(job, found.address)
        own = _run(job, found.address)
        if found.load().requests:
            raise SystemExit("a cached row was asked for")
    name = f"{count} cached rows, rules known or asked again"
    return {**compared(name, own, other, "s"), "goal_s": GOALS_S[count]}


def fill(workspace: Path, rows: list[dict[str, Any]]) -> None:
    """Put an answer for each row into the workspace's cache."""
    articles = [TASK.item.model_validate(row) for row in rows]
    teacher = Teacher(full_tag(MODEL), DIGEST, TASK, PARAMS, articles)
    known = answers()
    with LabelCache(workspace / CACHE_FILE) as cache:
        cache.put_exported(
            {
                "key": teacher.key(item),
                "attempts": [vars(Attempt(0, known[n % len(known)], True, "stop", 900, 110, 4.7))],
            }
            for n, item in enumerate(articles)
        )


def main() -> None:
    """Print one line for each case; a ratio above 1: ours is faster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 50 s on two cores")
    quick = parser.parse_args().quick
    for slots in (1, 4, 8):
        count, before = (42 * slots - 20, 10) if quick else (200 * slots, 50)
        print(json.dumps(at_slots(slots, count, before)), flush=True)
    for count in (1_000,) if quick else (1_000, 100_000):
        print(json.dumps(cached(count)), flush=True)


if __name__ == "__main__":
    main()
