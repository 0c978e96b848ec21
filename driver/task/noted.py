"""What a run notes of its task's definition, so that later ones can tell what has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from contracts import files, stages
from contracts.errors import InputMissing, RunUnreadable
from contracts.label_definition import LabelDefinition
from driver.store import Run, Store
from tasks import Task

FILE = "task.json"
PROMPTS = ("system", "label", "correction", "backfill")
"""The prompts of a task, as `Task` names them without "_prompt"."""


class Definition(BaseModel):
    """A task's definition as it was at one moment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: str
    digests: dict[str, str]
    """As `digests` gives them."""
    answer_schema: dict[str, Any]
    prompts: dict[str, str]
    """The whole texts."""
    labelling: LabelDefinition | None = None
    """What labels rest on; None in a note of an earlier version."""


def digests(task: Task) -> dict[str, str]:
    """Return the SHA-256 of the task and of each of its parts, by what they are called."""
    prompts = {f"{name} prompt": files.digest_text(text) for name, text in texts(task).items()}
    return {
        "task": task.digest(),
        "labels": task.label_digest(),
        "schema": files.digest_text(files.canonical_json(task.schema())),
        **prompts,
    }


def texts(task: Task) -> dict[str, str]:
    """Return the prompts by their names."""
    return {name: str(getattr(task, f"{name}_prompt")) for name in PROMPTS}


def note(task: Task, folder: Path) -> None:
    """Write down what the definition is, into the folder of a run."""
    found = Definition(
        name=task.name,
        version=task.version,
        digests=digests(task),
        answer_schema=task.schema(),
        prompts=texts(task),
        labelling=LabelDefinition.of(task),
    )
    files.write_json(folder / FILE, found.model_dump(mode="json"))


def digests_of(run: Run, store: Store, task: str) -> dict[str, str]:
    """Return the digests that a run worked under, as far as it has noted them; {} for another task.

    A run of before these notes has only those of its stages' jobs.
    Raises `RunUnreadable` for a damaged note.
    """
    found = read(run)
    if found is None:
        return _of_jobs(run, store, task)
    return found.digests if found.name == task else {}


def read(run: Run) -> Definition | None:
    """Return what a run has noted; None for one of before these notes.

    Raises `RunUnreadable` for a damaged note.
    """
    path = run.folder / FILE
    try:
        return Definition.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RunUnreadable(f"{path} is damaged", why=str(error.errors()[0]["msg"])) from error


def labelling_of(run: Run, task: str) -> LabelDefinition:
    """Return what labels rested on in a run; raises `InputMissing` where it has not noted it."""
    found = read(run)
    if found is None or found.labelling is None or found.name != task:
        raise InputMissing(
            f"run {run.id} has not noted what labels of {task} rest on",
            why="it is of an earlier version, or of another task",
            todo="Name another run, or a git revision: `python -m driver task diff HEAD~1`.",
        )
    return found.labelling


def _of_jobs(run: Run, store: Store, task: str) -> dict[str, str]:
    found = {}
    for name, state in run.read_state().stages.items():
        kind = stages.BY_NAME[name].task if name in stages.BY_NAME else "none"
        if kind == "none" or not state.fingerprint:
            continue
        try:
            job = store.job(name, state.fingerprint)
        except (OSError, ValueError):
            continue
        if job.task == task and job.task_digest:
            found["labels" if kind == "labels" else "task"] = job.task_digest
    return found
