"""What became of each item of a reprocess, line by line: outcomes.jsonl in its folder."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts import files
from contracts.errors import FileUnusable
from driver.host_stages.reanalysis import Outcome, Row, Seen

FILE, PREVIOUS = "outcomes.jsonl", "outcomes.previous.jsonl"
"""In the folder of a record; the second is that of the repetition before."""


@dataclass(frozen=True)
class Asked:
    """A request for a new analysis of which no outcome is known."""

    before: Row | None
    """The item's state when it was about to be asked about; None: it could not be shown."""
    until: float
    """Until when (seconds since the epoch) the analysis may still come."""


class Outcomes:
    """The file outcomes.jsonl, written from several threads.

    A killed reprocess goes on behind its last line: what is processed is left alone, what has an
    open request is looked at before it is asked about again, and the rest is done. A finished one
    leaves a last line that says so: with `again`, or noted to be due, such a one starts from the
    first item.
    """

    def __init__(self, folder: Path, *, again: bool = False) -> None:
        self._path = folder / FILE
        self._writing = threading.Lock()
        self.by_id: dict[str, Seen] = {}
        self.asked: dict[str, Asked] = {}
        """The open requests, by item."""
        lines = list(whole_lines(self._path, mend=True))
        if lines and ("due" in lines[-1] or (again and "finished" in lines[-1])):
            self._make_room()
            lines = []
        self._path.touch()
        files.fsync_path(folder)  # the name, which appending does not flush
        for line in lines:
            if "finished" in line or "due" in line:
                continue
            if "until" in line:
                self.asked[line["id"]] = Asked(line["before"], line["until"])
                continue
            self.asked.pop(line["id"], None)
            if line["outcome"] == Outcome.PROCESSED:  # all else may have changed, or be mended
                self.by_id[line["id"]] = Seen(Outcome.PROCESSED, line["reason"])

    def _make_room(self) -> None:
        """Keep the lines aside as those of the repetition before."""
        previous = self._path.with_name(PREVIOUS)
        try:
            self._path.replace(previous)
        except IsADirectoryError as error:
            error.filename = str(previous)  # rename(2) names the file, which is none
            raise

    def intend(self, before: Mapping[str, Row | None], wait_s: float) -> None:
        """Keep that these items are about to be asked about; told before the request is sent."""
        until = time.time() + wait_s
        self.asked |= {item_id: Asked(state, until) for item_id, state in before.items()}
        self._append({"id": i, "until": until, "before": state} for i, state in before.items())

    def add(self, item_id: str, seen: Seen) -> None:
        """Keep what became of an item."""
        self.by_id[item_id] = seen
        self.asked.pop(item_id, None)
        line = {"id": item_id, "outcome": seen.outcome.value, "reason": seen.reason}
        self._append([{**line, "answer": seen.answer, "at": round(time.time(), 3)}])

    def finish(self, run: str) -> None:
        """Say that every item has its outcome, by this run."""
        self._append([{"finished": True, "run": run, "at": round(time.time(), 3)}])

    def count(self) -> Counter[Outcome]:
        """Return how many items there are of each outcome."""
        return Counter(seen.outcome for seen in self.by_id.values())

    def _append(self, lines: Iterable[Row]) -> None:
        with self._writing:
            append(self._path, lines)


def append(path: Path, lines: Iterable[Row]) -> None:
    """Write lines behind the others, and flush them."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def whole_lines(path: Path, *, mend: bool = False) -> Iterator[Row]:
    """Yield the lines without one that a kill left half written; `mend` cuts that off the file.

    Raises `FileUnusable` for any other line that `Outcomes` has not written.
    """
    if not path.exists():
        return
    content = files.read_bytes(path)
    whole = content.rfind(b"\n") + 1
    if mend and whole < len(content):
        os.truncate(path, whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            yield _line(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise FileUnusable(
                f"{path}, line {number} is damaged",
                why=str(error),
                todo="Remove that line: its item is then looked at, and done if it is not.",
            ) from error


def _line(row: Any) -> Row:
    """Return a line of outcomes.jsonl as it was written; raises `ValueError` for another one."""
    if not isinstance(row, dict):
        raise ValueError(f"it is no JSON object but a {type(row).__name__}")  # noqa: TRY004
    if not isinstance(row.get("at", 0), int | float):
        raise ValueError("its time is no number")  # noqa: TRY004
    if "finished" in row or "due" in row:
        return row
    if not isinstance(row.get("id"), str):
        raise ValueError("it names no item")  # noqa: TRY004
    if "until" in row:
        if isinstance(row["until"], int | float) and isinstance(row.get("before", 0), dict | None):
            return row
        raise ValueError("it does not say what the item held, or until when to wait")
    if row.get("outcome") not in list(Outcome):
        raise ValueError(f"its outcome is {row.get('outcome')!r}, not one of {', '.join(Outcome)}")
    if not isinstance(row.get("reason"), str):
        raise ValueError("it gives no reason")  # noqa: TRY004
    return row
