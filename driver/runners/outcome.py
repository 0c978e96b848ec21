"""What both runners share: reading a stage's lines, and naming its failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from pydantic import ValidationError

from contracts.errors import OutOfMemory, RetrainError, StageKilled, error_for
from contracts.stage import Event, Stage

Emit = Callable[[Event], None]

_KILLED_BY = {137: "SIGKILL", -9: "SIGKILL", 143: "SIGTERM", -15: "SIGTERM"}
"""128 + the signal as Docker and shells report it, and its negative as Python's subprocess does.
An engine that is shut down sends SIGTERM to its containers first."""


@dataclass(frozen=True)
class Limits:
    """How long a stage may take, in seconds."""

    silence_s: float
    """Between two signs of life."""
    whole_s: float | None = None
    """In all; None for no limit."""


class Runner(Protocol):
    """Runs a stage on a job that lies in the workspace."""

    def check(self, stages: Sequence[Stage]) -> None:
        """Raise what would keep these stages from running, before anything is changed."""

    def cuda(self, stage: Stage) -> tuple[int, int] | None:
        """Return the CUDA that the stage's PyTorch is built for, e.g. (12, 8); None: for none."""

    def survives(self, stage: Stage, fingerprint: str) -> bool:
        """Return whether this very stage still runs, left behind by a driver that was killed."""

    def collect(self, stage: Stage, job: Path, log: Path, emit: Emit) -> None:
        """Put away what a killed driver has left of a job that has come to its result meanwhile,
        with what it has said to the end."""

    def run(
        self,
        stage: Stage,
        job: Path,
        log: Path,
        emit: Emit,
        environ: Mapping[str, str],
        limits: Limits,
    ) -> None:
        """Run to the end; raise the stage's own error, or `StageFailed`.

        `environ` holds what a job file must not: addresses. Raises `StageKilled`, `OutOfMemory`
        or `StageTimedOut` for a stage that could not end by itself.
        """


class Listener:
    """Reads a stage's stdout line by line; remembers the error it told."""

    def __init__(self, stage: Stage, emit: Emit, log: IO[str]) -> None:
        self._stage = stage
        self._emit = emit
        self._log = log
        self.told: dict[str, str] | None = None

    def line(self, text: str) -> None:
        """Take one line: an event, or (a library that prints) text for the log."""
        if not text.strip():
            return
        try:
            event = Event.model_validate_json(text)
        except ValidationError:
            self._log.write(text.rstrip("\n") + "\n")
            self._log.flush()
            return
        if event.error is not None:
            self.told = event.error
        self._emit(event)


def failure(
    stage: Stage,
    exit_code: int,
    told: Mapping[str, str] | None,
    log: Path,
    *,
    memory_limit: int | None = None,
) -> RetrainError:
    """Return the error that a stage's exit stands for, with the place of its log.

    `memory_limit` in bytes is given where the kernel killed the stage for reaching it.
    """
    where = f"The stage's log is {log}."
    if memory_limit is not None:
        return OutOfMemory(
            f"stage {stage.name} was killed for memory (exit {exit_code})",
            why=f"it reached its container's limit of {memory_limit / 2**30:.1f} GiB",
            todo=f"Raise {(stage.image or '').upper()}_MEMORY (compose.retrain.yml), or lower "
            f"{stage.name}'s batch or concurrency. {where}",
        )
    if signal := _KILLED_BY.get(exit_code):
        return StageKilled(
            f"stage {stage.name} was killed (exit {exit_code})",
            why=f"from outside, by {signal}",
            todo=f"{StageKilled.hint} {where}",
        )
    kind = error_for(exit_code)
    if told:
        return kind(
            f"stage {stage.name}: {told.get('what', '')}",
            why=told.get("why", ""),
            todo=f"{told.get('todo', '')} {where}".strip(),
            passing=False if told.get("passing") == "no" else None,
        )
    return kind(
        f"stage {stage.name} failed with exit code {exit_code}", why=_last_words(log), todo=where
    )


def _last_words(log: Path, lines: int = 3) -> str:
    """Return the end of a log: usually the exception itself."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())
