"""Where a served model comes from: the chain of results behind it, down to the rows, and whether
that chain still holds.

A job names its inputs by path and digest, and the path names the execution that has made them
(`store/STAGE/FINGERPRINT/out/…`), so the chain needs no book-keeping of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from contracts import files, stages
from contracts.entrypoint import JOB_FILE, RESULT_FILE
from contracts.errors import ItemsInvalid, LineageBroken
from contracts.params import DeployMetrics, EvaluateMetrics
from contracts.stage import InputRef, Job, OutputRef, Result
from driver import noted_figures
from driver.plan import Request, fingerprint
from driver.store import Run, Store
from serving.engine import Engine, Model, full_tag
from tasks import UnknownTask, load_task

_ORDER = list(reversed(stages.BY_NAME))
"""Stages, what is served first."""
_MOST_SAID = 200
T = TypeVar("T")


class State(StrEnum):
    """What became of a link."""

    OK = "ok"
    BROKEN = "broken"
    GONE = "gone"
    """Not there any more: nothing says that it was wrong, and nothing can be recomputed."""


@dataclass(frozen=True)
class Link:
    """One link of the chain: what it is, whether it holds, its digest, and what was found."""

    name: str
    state: State
    digest: str
    text: str


@dataclass(frozen=True)
class Made:
    """An execution in the chain; `job` or `result` is None where its file is gone or damaged."""

    stage: str
    fingerprint: str
    job: Job | None
    result: Result | None
    damaged: tuple[str, ...] = ()
    """Which of the two files is there, and is not what it was."""
    image: str = ""
    """The id of the image that it was made in; "" for a process, or where that was not noted."""

    def lost(self, file: str) -> tuple[State, str]:
        """Return what became of a file that could not be read, and how that is told."""
        if file in self.damaged:
            return State.BROKEN, f"its {file} is damaged"
        return State.GONE, f"its {file} is not there any more"


# --- the chain, as the files tell it -------------------------------------------------------------
def chain(store: Store, stage: str, mark: str) -> list[Made]:
    """Return an execution and all that it was made from, what is served first."""
    found: dict[tuple[str, str], Made] = {}
    waiting = [(stage, mark)]
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found[place] = made = _made(store, *place)
        taken = made.job.inputs.values() if made.job else ()
        waiting += [maker for each in taken if (maker := _maker(each))]
    return sorted(found.values(), key=lambda made: (_ORDER.index(made.stage), made.fingerprint))


def _made(store: Store, stage: str, mark: str) -> Made:
    damaged: list[str] = []

    def read(file: str, reader: Callable[[str, str], T]) -> T | None:
        try:
            return reader(stage, mark)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # told by the checks
            damaged.append(file)
            return None

    job = read(JOB_FILE, store.job)
    result = read(RESULT_FILE, partial(_result, store))
    return Made(stage, mark, job, result, tuple(damaged), store.image(stage, mark, result))


def _result(store: Store, stage: str, mark: str) -> Result:
    """Return a result as it is written; raises OSError or ValueError for a damaged one."""
    text = files.read_bytes(store.place(stage, mark) / RESULT_FILE)
    result = Result.model_validate_json(text)
    stages.BY_NAME[stage].metrics.model_validate(result.metrics)
    return result


def _maker(reference: InputRef) -> tuple[str, str] | None:
    """Return stage and fingerprint of what has made an artifact; None for no path of the store."""
    parts = Path(reference.path).parts
    known = len(parts) > 3 and parts[0] == "store" and parts[1] in stages.BY_NAME
    return (parts[1], parts[2]) if known else None


# --- what is served ------------------------------------------------------------------------------
def live(workspace: Path, engine: Engine, name: str) -> tuple[str, str]:
    """Return stage and fingerprint of the deployment that is live.

    Raises `LineageBroken` where no deployment of this workspace gave what the engine serves.
    """
    alias, store = full_tag(name), Store(workspace)
    model = engine.models().get(alias)
    for job, metrics in store.measured(stages.DEPLOY.name, DeployMetrics):
        if model and metrics.digest == model.digest:
            return job.stage, job.fingerprint
    why = f"its digest is {model.digest[:12]}" if model else f"{engine.name} has no {alias}"
    if damaged := store.damaged(stages.DEPLOY.name):
        why += f"; {JOB_FILE} or {RESULT_FILE} is damaged in {', '.join(map(str, damaged))}"
    raise LineageBroken(
        f"{alias} comes from no deployment of {workspace}",
        why=why,
        todo="Name a run: `python -m driver verify-lineage RUN`; or another workspace.",
    )


def as_noted(run: Run, stage: str) -> dict[str, Any]:
    """Return what a run has noted of a stage's result, {} where an older driver did not.

    The store holds the last result of that fingerprint, which may be a later run's.
    """
    noted = run.read_state().stages.get(stage)
    try:
        stages.BY_NAME[stage].metrics.model_validate(noted.metrics if noted else {})
    except ValidationError:
        return {}
    return noted.metrics if noted else {}


def end_of(run: Run) -> tuple[str, str]:
    """Return stage and fingerprint from which the chain of a run is followed: its deployment, or
    the evaluation of a candidate that was not deployed.

    Raises `LineageBroken` for a run that has come to neither.
    """
    noted = run.read_state().stages
    for stage in (stages.DEPLOY.name, stages.EVALUATE.name):
        if stage in noted and noted[stage].state in ("done", "reused"):
            return stage, noted[stage].fingerprint
    errors = (each.error.splitlines()[0] for each in noted.values() if each.error)
    raise LineageBroken(
        f"run {run.id} has evaluated nothing",
        why=next(errors, "it did not come so far"),
        todo="Without a run, what is live is followed back.",
    )


# --- whether it holds ----------------------------------------------------------------------------
def check(
    workspace: Path,
    engine: Engine,
    start: tuple[str, str],
    noted: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Link]:
    """Yield each link from what is served back to the rows, as soon as it is checked.

    `noted` is what the run itself has noted of the result at its end, if it is one run's chain
    (`as_noted`). Everything on the disk is read: for a model of 14B some 60 GB.
    """
    made = chain(Store(workspace), *start)
    first = made[0]
    if noted and (result := first.result):
        own = result.model_copy(update={"metrics": {**noted}})
        first = replace(first, result=own)
    if first.stage == stages.DEPLOY.name:
        yield from _served(first, engine.models())
        yield from _evaluated(workspace, [first, *made[1:]])
    else:
        yield from _candidate(workspace, first)
    seen: set[str] = set()
    for each in made:
        yield _job(workspace, each)
        if each.job and each.job.task_digest and each.job.task_digest not in seen:
            seen.add(each.job.task_digest)
            yield _task(each.job)
        for name, output in (each.result.outputs if each.result else {}).items():
            yield _artifact(workspace, made, each, name, output)
    yield from _rows(workspace, made)


def require_whole(links: Sequence[Link]) -> None:
    """Raise `LineageBroken` unless every link holds."""
    counts = {state: sum(link.state is state for link in links) for state in State}
    failed = [link for link in links if link.state is not State.OK]
    if failed:
        raise LineageBroken(
            f"{len(failed)} of {len(links)} links do not hold: {counts[State.BROKEN]} broken, "
            f"{counts[State.GONE]} not there any more",
            why="; ".join(f"{link.name}: {link.text}" for link in failed[:3]),
        )


def _served(deploy: Made, models: Mapping[str, Model]) -> Iterator[Link]:
    if deploy.result is None:
        state, text = deploy.lost(RESULT_FILE)
        yield Link("served", state, "", f"of the deployment, {text}")
        return
    metrics = DeployMetrics.model_validate(deploy.result.metrics)
    version, alias = models.get(metrics.tag), models.get(metrics.alias)
    if version is None:
        state, text = State.GONE, f"{metrics.tag} is not in the serving engine any more"
    elif version.digest != metrics.digest:
        state, text = State.BROKEN, f"{metrics.tag} is {version.digest[:12]} in the serving engine"
    else:
        is_live = alias is not None and alias.digest == metrics.digest
        state = State.OK
        text = f"{metrics.tag}, {'live' if is_live else 'not live: another version is'}"
    yield Link("served", state, metrics.digest, text)


def _evaluated(workspace: Path, made: list[Made]) -> Iterator[Link]:
    """Yield whether the model that is served is the one that the verdict is about."""
    deploy = made[0]
    if deploy.result is None or deploy.job is None:
        return
    metrics = DeployMetrics.model_validate(deploy.result.metrics)
    taken = deploy.job.inputs.get(stages.VERDICT.name)
    path = workspace / taken.path if taken else None
    verdict = _json(path) if path else None
    if verdict is None:
        there = path is not None and path.exists()
        state = State.BROKEN if there else State.GONE
        text = "it cannot be read" if there else "the verdict is not there any more"
        yield Link("verdict", state, "", text)
        return
    asked = str(verdict.get("candidate", ""))
    if asked != metrics.digest:
        yield Link("verdict", State.BROKEN, asked, "another model was evaluated than is served")
    elif not verdict.get("promote") and not metrics.forced:
        yield Link("verdict", State.BROKEN, asked, "the gate refused it, and nobody forced it")
    elif verdict.get("promote") and metrics.forced:
        text = f"the gate let it pass, and the deployment says that it was forced: {metrics.forced}"
        yield Link("verdict", State.BROKEN, asked, text)
    else:
        said = f"forced: {metrics.forced}" if metrics.forced else "the gate let it pass"
        yield Link("verdict", State.OK, asked, f"the very model was evaluated; {said}")


def _candidate(workspace: Path, evaluate: Made) -> Iterator[Link]:
    """Yield that nothing is served, and whether the verdict is about the run's candidate."""
    yield Link("served", State.OK, "", "not deployed: what follows is of the candidate")
    if evaluate.result is None:
        return  # told with the job
    metrics = EvaluateMetrics.model_validate(evaluate.result.metrics)
    path = workspace / evaluate.result.outputs[stages.VERDICT.name].path
    verdict = _json(path)
    if verdict is None:
        state = State.BROKEN if path.exists() else State.GONE
        yield Link("verdict", state, "", "the verdict cannot be read")
        return
    digest = metrics.models.get("candidate", "")
    if verdict.get("candidate") != digest:
        yield Link("verdict", State.BROKEN, digest, "another model was evaluated than the run's")
        return
    said = "let it pass" if metrics.promote else "refused it"
    yield Link("verdict", State.OK, digest, f"the very model was evaluated; the gate {said}")


def _job(workspace: Path, made: Made) -> Link:
    """Say whether job and result are what the fingerprint was made from, and gave."""
    name = f"{made.stage} {made.fingerprint}"
    if made.job is None:
        state, text = made.lost(JOB_FILE)
        return Link(name, state, "", text)
    stage = stages.BY_NAME[made.stage]
    identity = {k: v for k, v in made.job.params.items() if k not in stage.params.not_identity}
    request = Request(
        stage,
        made.job.params,
        identity,
        made.job.code_digest,
        made.job.task,
        made.job.task_digest,
        made.job.environment,
    )
    mark = fingerprint(request, made.job.inputs)
    if mark != made.fingerprint:
        return Link(name, State.BROKEN, mark, "its job.json says other than its fingerprint")
    if made.result is None:
        state, text = made.lost(RESULT_FILE)
        return Link(name, state, mark, text)
    if wrong := noted_figures.contradiction(workspace, made.job, made.result):
        return Link(name, State.BROKEN, mark, wrong)
    return Link(name, State.OK, mark, f"made in run {made.job.run}")


def _task(job: Job) -> Link:
    """Say whether the task's definition, prompts included, is the one that a job was done by."""
    name = f"task {job.task}"
    try:
        task = load_task(job.task)
        known = {task.digest(): "the whole definition", task.label_digest(): "what labels rest on"}
    except UnknownTask:
        return Link(name, State.GONE, job.task_digest, "this checkout has no such task any more")
    if (part := known.get(job.task_digest)) is None:
        text = "this checkout has another definition by now"
        return Link(name, State.GONE, job.task_digest, text)
    return Link(name, State.OK, job.task_digest, part)


def _artifact(workspace: Path, made: list[Made], maker: Made, name: str, output: OutputRef) -> Link:
    """Say whether an artifact is what its maker gave, and what those after it took."""
    shown = f"{maker.stage}: {Path(output.path).name}"
    takers = [
        each.stage
        for each in made
        if each.job and (taken := each.job.inputs.get(name)) and taken.path == output.path
        if taken.digest != output.digest
    ]
    if takers:
        text = f"made anew since {', '.join(takers)} took it"
        return Link(shown, State.BROKEN, output.digest, text)
    path = workspace / output.path
    if not path.exists():
        return Link(shown, State.GONE, output.digest, f"{path} is not there any more")
    try:
        found = files.digest_path(path)
    except OSError as error:  # a pipe in its place, say
        return Link(shown, State.BROKEN, output.digest, f"{path} cannot be read: {error.strerror}")
    if found != output.digest:
        return Link(shown, State.BROKEN, output.digest, f"{path} is {found[:12]} now")
    return Link(shown, State.OK, output.digest, f"{output.bytes:,} bytes")


def _rows(workspace: Path, made: Sequence[Made]) -> Iterator[Link]:
    """Yield whether every row of the splits is an item of the snapshot, with its label.

    Usually one link. A stage whose inputs have not changed is reused although those before it were
    run anew, so training and evaluation may come from two splits, each of its own items.
    """
    splits = [each for each in made if each.stage == stages.SPLIT.name]
    for each in splits:
        yield _rows_of(workspace, each)
    if not splits:
        yield Link("rows", State.GONE, "", "the chain does not reach them any more")


def _rows_of(workspace: Path, split: Made) -> Link:
    if split.job is None or split.result is None:
        state, text = split.lost(JOB_FILE if split.job is None else RESULT_FILE)
        return Link("rows", state, "", f"of the split, {text}")
    taken = {name: workspace / each.path for name, each in split.job.inputs.items()}
    given = {name: workspace / each.path for name, each in split.result.outputs.items()}
    strange: list[str] = []
    counts = []
    try:
        items = {str(row["id"]) for row in files.read_jsonl(taken[stages.ITEMS.name])}
        labelled = files.read_jsonl(taken[stages.LABELS.name])
        labels = {str(row["id"]): row["label"] for row in labelled}
        for side in (stages.TRAIN_SPLIT, stages.VALIDATION_SPLIT, stages.TEST_SPLIT):
            rows = list(files.read_jsonl(given[side.name]))
            counts.append(str(len(rows)))
            strange += [str(row["id"]) for row in rows if not _is_labelled(row, items, labels)]
    except OSError:
        return Link("rows", State.GONE, "", "the rows cannot be read any more")
    except (ItemsInvalid, LookupError, TypeError, ValueError) as error:
        return Link("rows", State.BROKEN, "", f"they are no rows any more: {error}"[:_MOST_SAID])
    if strange:
        text = f"{len(strange)} rows are not as labelled, or no items: {', '.join(strange[:3])}"
        return Link("rows", State.BROKEN, "", text)
    text = f"{' + '.join(counts)} rows, each an item of the snapshot with its label"
    return Link("rows", State.OK, "", text)


def _is_labelled(row: Mapping[str, Any], items: set[str], labels: Mapping[str, Any]) -> bool:
    answer = json.loads(row["messages"][-1]["content"])
    return row["id"] in items and bool(answer == labels.get(row["id"]))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(files.read_bytes(path))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
