"""What a model was made of, by digest: the chain from what is served back to the rows.

The page tells what was recorded when the run ended; `driver verify-lineage` recomputes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from contracts import files, stages
from contracts.errors import TaskInvalid
from contracts.stage import OutputRef, Stage
from driver import lineage
from driver.lineage import Made
from driver.report.finished import Finished
from driver.report.page import Cell, folded, table
from driver.store import Store
from tasks import UnknownTask, load_task

_ENDS = (stages.DEPLOY, stages.EVALUATE, stages.CONVERT, stages.TRAIN, stages.SPLIT, stages.LABEL)
"""Where the chain begins: at the last of these that the run has."""


def section(found: Finished) -> str:
    """Return the chain of the run, as far as the run has come."""
    end = next((stage for stage in _ENDS if stage.name in found.results), None)
    if end is None:
        return ""
    store = Store(found.workspace)
    made = lineage.chain(store, end.name, found.noted(end).fingerprint)
    rows = [*_served(found), *(row for each in made for row in _artifacts(each))]
    head = ("what", "made by", "in run", "bytes", "sha256")
    return (
        f"<p>From what is served back to the rows. To see whether it still holds, every digest "
        f"recomputed: <code>python -m driver verify-lineage {escape(found.run.id)}</code></p>"
        f"{table(head, rows)}{folded('Code and images', _code(made))}{_definition(made)}"
        f"{_packages(found)}"
    )


def _served(found: Finished) -> Iterator[tuple[str | Cell, ...]]:
    deployed = found.metrics(stages.DEPLOY)
    if deployed:
        tag, alias = str(deployed["tag"]), str(deployed["alias"])
        yield f"{alias} = {tag}", "deploy", found.run.id, "", _digest(deployed["digest"])
    evaluated = found.metrics(stages.EVALUATE)
    for role, digest in (evaluated.get("models", {}) if evaluated else {}).items():
        yield f"{role}, as it was asked", "evaluate", "", "", _digest(digest)


def _artifacts(made: Made) -> Iterator[tuple[str | float | Cell, ...]]:
    run = made.job.run if made.job else ""
    by = f"{made.stage} {made.fingerprint[:8]}"
    for output in (made.result.outputs if made.result else {}).values():
        yield _name(made, output), by, run, output.bytes, _digest(output.digest)


def _name(made: Made, output: OutputRef) -> str:
    """Return the file's name; of a base model from the hub, its commit as well."""
    name = Path(output.path).name
    params = made.job.params if made.job else {}
    if made.stage != stages.FETCH.name or params.get("path"):
        return name
    return f"{name}: {params.get('model')}, commit {params.get('revision')}"


def _digest(digest: str) -> Cell:
    """Return a digest, short to the eye and whole to a mouse and to a search in the page."""
    return Cell(f'<code class="digest" title="{escape(digest)}">{escape(digest[:16])}</code>')


def _code(made: Sequence[Made]) -> str:
    rows = [
        (
            each.stage,
            _digest(each.job.code_digest),
            _digest(each.image.removeprefix("sha256:")) if each.image else "",
            _image(each),
            _params(each),
        )
        for each in made
        if each.job
    ]
    return table(("stage", "code", "image", "image made from", "settings"), rows)


def _image(made: Made) -> str:
    stage: Stage = stages.BY_NAME[made.stage]
    if made.job is None or stage.image is None:
        return ""
    try:
        arguments = json.loads(made.job.environment or "{}")
    except ValueError:
        return made.job.environment
    if not arguments:
        return "no image: a process"
    return "; ".join(f"{name}={value}" for name, value in sorted(arguments.items()))


def _params(made: Made) -> Cell:
    """Return the settings that differ from the defaults."""
    if made.job is None:
        return Cell("")
    fields = stages.BY_NAME[made.stage].params.model_fields
    own = {
        name: value
        for name, value in made.job.params.items()
        if name in fields and value != fields[name].get_default(call_default_factory=True)
    }
    told = "; ".join(f"{name}={value}" for name, value in own.items() if value not in ([], {}))
    return Cell(f"<code>{escape(told)}</code>")


def _definition(made: Sequence[Made]) -> str:
    """Return the digests of the task: of its whole definition, and of each of its prompts."""
    digests = {each.job.task_digest: each.job.task for each in made if each.job}
    digests.pop("", None)
    rows: list[tuple[str, str | Cell]] = []
    for digest, name in digests.items():
        try:
            task = load_task(name)
        except (UnknownTask, TaskInvalid):
            rows.append((f"task {name}", _digest(digest)))
            continue
        whole = digest == task.digest()
        rows.append((f"task {name}{'' if whole else ': what labels rest on'}", _digest(digest)))
        if whole:
            prompts = {"served": task.system_prompt, "teacher's": task.label_prompt}
            for which, text in prompts.items():
                rows.append((f"prompt, {which}", _digest(files.digest_text(text))))
    return f"<h3>Task and prompts</h3>{table(('definition', 'sha256'), rows)}" if rows else ""


def _packages(found: Finished) -> str:
    log = found.read(stages.TRAIN, stages.TRAINING_LOG) or {}
    rows = [(name, str(version)) for name, version in log.get("packages", {}).items()]
    return folded("Packages of the training", table(("package", "version"), rows)) if rows else ""
