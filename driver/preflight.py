"""Everything that can be known to fail before anything is changed.

One function a question; each raises the error class that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contracts import files, pace, stages
from contracts.converter import LORA_CONVERTER, find_converter, find_program
from contracts.errors import (
    CandidateRefused,
    EngineUnavailable,
    GpuUnavailable,
    ModelMissing,
    RetrainError,
    SettingsInvalid,
    WorkspaceBusy,
)
from contracts.label_cache import known_teachers
from contracts.params.model import IMATRIX_LEAST_TOKENS, too_little_text
from contracts.stage import GpuMode, InputRef, Stage
from driver import served, taken_back
from driver.adapters import addresses
from driver.adapters.backend import ModelNotAsked
from driver.adapters.items import storage_of
from driver.disk import check_disk, check_engine_disk
from driver.host_stages import deploy, fetch, reprocess, snapshot
from serving import ollama_address
from serving.engine import full_tag

if TYPE_CHECKING:
    from driver.plan import Step
    from driver.session import Session
    from driver.settings import Settings
    from serving.teachers import TeacherServer

NO_BASELINE = (
    "evaluate.baseline names no base model: nothing will show that the new model is better than "
    "the one it was trained from. Set it to that one's name in the serving engine, as in "
    "evaluate.baseline: qwen3:14b-q8_0"
)
_MEASURED = (stages.TRAIN.name, stages.CONVERT.name)
"""Stages that take the training rows; an importance matrix is made of them in the second."""
_SERVING = (stages.EVALUATE, stages.DEPLOY, stages.VERIFY)


def check(session: Session, running: Sequence[Stage]) -> None:
    """Raise the first thing that would stop these stages; cheap questions first."""
    from driver import forecast

    _check_given(session, running)
    if stages.EVALUATE in running and not session.settings.evaluate.baseline:
        session.display.warn(NO_BASELINE)
    check_disk(session, running)
    check_engine_disk(session, running)
    check_alone(session)
    if any(stage.image for stage in running):
        session.runner.check(running)
    if stages.TRAIN in running and session.settings.train.device == "cuda":
        check_gpu(session)
    if stages.TRAIN in running:
        forecast.announce(session)
    if any(stage in running for stage in _SERVING):
        check_bases(session, running, session.engine.models())
    if stages.LABEL in running and not session.settings.snapshot.reviewed:
        check_teacher(session)  # with reviews, only the snapshot tells whether it is asked
    if session.settings.backend and any(stage.gpu is not GpuMode.NONE for stage in running):
        check_backend(session)
    check_asked(session, running)


def check_asked(session: Session, running: Sequence[Stage]) -> None:
    """Raise `BackendUnavailable` where the backend is to answer with the deployed model, and will
    not."""
    if session.backend_url and not session.window.is_open and _asks_backend(session, running):
        check_reprocess(session, running)


def _asks_backend(session: Session, running: Sequence[Stage]) -> bool:
    """Return whether the backend is to answer with the deployed model."""
    verifies = stages.VERIFY in running and session.settings.verify.items > 0
    return verifies or (stages.REPROCESS in running and session.settings.reprocess.enabled)


def _reads_backend(session: Session, running: Sequence[Stage]) -> bool:
    """Return whether the items are the backend's."""
    return stages.SNAPSHOT in running and session.settings.snapshot.source == "backend"


def _check_given(session: Session, running: Sequence[Stage]) -> None:
    """Raise what is wrong with the files and settings that the user gave."""
    _check_storage(session, running)
    if stages.SNAPSHOT in running and session.settings.snapshot.source == "files":
        snapshot.check(session.settings.snapshot, session.settings.task, session.workspace)
    if stages.FETCH in running:
        fetch.check(session.settings.fetch)
    if stages.EVALUATE in running:
        check_scores(session)
    if session.settings.runner == "process" and stages.CONVERT.name in {s.name for s in running}:
        find_tools(session.settings)


def _check_storage(session: Session, running: Sequence[Stage]) -> None:
    """Raise `SettingsInvalid` where a backend keeps answers that the task gives no place in it."""
    if _reads_backend(session, running) or (
        _asks_backend(session, running) and session.backend_url
    ):
        storage_of(session.task)


def find_tools(settings: Settings) -> list[str]:
    """Return where llama.cpp's tools are that the gguf stage takes; raise `StageFailed`."""
    if settings.deploy.form == "adapter":
        return [str(find_converter(LORA_CONVERTER))]
    return [str(find_converter()), *(find_program(each) for each in settings.gguf.programs())]


def check_stage(session: Session, step: Step) -> None:
    """Raise what keeps one stage from running, now that its inputs are there."""
    from driver import forecast

    if session.settings.gguf.imatrix and step.stage.name in _MEASURED:
        check_imatrix(session, step)
    if step.stage is stages.TRAIN:
        forecast.announce(session)
    if step.stage is stages.DEPLOY and step.inputs is not None:
        check_candidate(session, step.inputs)
    if step.stage is stages.EVALUATE and step.inputs is not None and _deploys(session):
        check_not_taken_back(session, step.inputs[stages.GGUF.name].digest)
    if step.stage is stages.REPROCESS and _asks_backend(session, [step.stage]):
        served.check(session.workspace, session.engine, session.settings)
    if step.stage is stages.LABEL and asks_teacher(session, step):
        check_teacher(session)


def check_imatrix(session: Session, step: Step) -> None:
    """Raise `SettingsInvalid` where the training rows are too few for an importance matrix.

    By an estimate from characters; so short a text would say nothing of the weights anyway.
    """
    split = (step.inputs or {}).get(stages.TRAIN_SPLIT.name)
    if split is None:
        return
    rows = files.read_jsonl(session.workspace / split.path)
    rendered = ("".join(session.task.chat.render_training(row["messages"])) for row in rows)
    tokens = sum(map(len, rendered)) / pace.CHARACTERS_PER_TOKEN
    if tokens < IMATRIX_LEAST_TOKENS:
        raise too_little_text(f"the training rows have about {tokens:,.0f} tokens")


def asks_teacher(session: Session, step: Step) -> bool:
    """Return whether the label stage has an item without a review."""
    if step.inputs is None:
        return True
    items, reviewed = (
        {row["id"] for row in files.read_jsonl(session.workspace / step.inputs[artifact.name].path)}
        for artifact in (stages.ITEMS, stages.REVIEWED)
    )
    return not items <= reviewed


def doubts(session: Session, running: Sequence[Stage]) -> Iterator[str]:
    """Yield what a run would be refused for, or warn of: where a backend keeps the task's answers,
    the base, and what is compared."""
    try:
        _check_storage(session, running)
    except RetrainError as error:
        yield str(error)
    if stages.FETCH in running:
        try:
            fetch.check(session.settings.fetch)
        except RetrainError as error:
            yield str(error)
    if stages.EVALUATE not in running:
        return
    if not session.settings.evaluate.baseline:
        yield NO_BASELINE
    try:
        check_scores(session)
        if session.settings.evaluate.baseline:
            check_bases(session, [stages.EVALUATE], session.engine.models())
    except EngineUnavailable:
        return  # what it has is not known; a run says so
    except RetrainError as error:
        yield str(error)


def check_scores(session: Session) -> None:
    """Raise `SettingsInvalid` for a measure of a field that the task does not have."""
    fields = {"valid", "rules", *session.task.output.model_fields}
    asked = session.settings.evaluate
    for setting, names in (("min_scores", asked.min_scores), ("measures", asked.measures)):
        if unknown := sorted(name for name in names if name.partition(".")[0] not in fields):
            raise SettingsInvalid(
                f"evaluate.{setting} names {', '.join(unknown)}, no measure of {session.task.name}",
                why=f"the names of its measures begin with {', '.join(sorted(fields))}",
                todo="docs/reference/gate.md has the measures of each kind of field.",
            )


def check_bases(session: Session, running: Sequence[Stage], models: Collection[str]) -> None:
    """Raise `ModelMissing` when the engine lacks a base model to compare with, or to serve on."""
    settings = session.settings
    compared = settings.evaluate.baseline if stages.EVALUATE in running else ""
    as_adapter = "deploy.base names it, and deploy.form=adapter is served on it"
    for name, why, otherwise in (
        (compared, "evaluate.baseline names it", 'set evaluate.baseline to ""'),
        (settings.deploy.served_on, as_adapter, "set deploy.form=merged"),
    ):
        if name and full_tag(name) not in models:
            raise ModelMissing(
                f"{settings.engine} has no base model {name}",
                why=why,
                todo=f"Pull it (`ollama pull {name}`), or {otherwise}.",
            )


def check_teacher(session: Session) -> None:
    """Raise `EngineUnavailable` or `ModelMissing` when nobody has the teacher, or not the same.

    Where it is only away, and the backend would not be stopped in vain, the stage finds out
    whether it is needed: the kept answers may be enough.
    """
    from serving.teachers import identify_teacher, remembered_teacher

    with connected_teachers(session) as servers:
        known = known_teachers(session.workspace)
        try:
            identify_teacher(servers, known)
        except EngineUnavailable:
            stops_the_backend = session.settings.backend and teacher_is_here(session)
            if stops_the_backend or remembered_teacher(servers, known) is None:
                raise


def teacher_is_here(session: Session) -> bool:
    """Return whether a labelling server is on this host, or where the backend's own engine is."""
    own = ollama_address(os.environ.get("OLLAMA_HOST", ""))
    for word in session.settings.teachers:
        url = word.removeprefix("openai+")
        address = url if url != word else ollama_address(word)
        if addresses.is_here(address) or addresses.is_same_host(address, own):
            return True
    return not session.settings.teachers


@contextmanager
def connected_teachers(session: Session) -> Iterator[list[TeacherServer]]:
    """Yield the servers that would label; nothing is contacted yet."""
    from serving.teachers import connect_teachers

    environ = {**os.environ, **session.addresses}
    servers = connect_teachers(environ, session.workspace, session.settings.label.teacher)
    try:
        yield servers
    finally:
        for each in servers:
            each.server.close()


def check_candidate(session: Session, inputs: dict[str, InputRef]) -> None:
    """Raise `CandidateRefused` for a model that must not go live, before anything is stopped."""
    verdict = session.workspace / inputs[stages.VERDICT.name].path
    deploy.require_promoted(verdict, session.settings.deploy.force)
    candidate = str(json.loads(verdict.read_text(encoding="utf-8")).get("candidate"))
    check_not_taken_back(session, inputs[stages.GGUF.name].digest, candidate)


def _deploys(session: Session) -> bool:
    """Return whether the run under way is to deploy: an evaluation alone may be of any model."""
    return stages.DEPLOY.name in session.notes.stages


def check_not_taken_back(session: Session, *digests: str) -> None:
    """Raise `CandidateRefused` for a model that was taken back, by its digest or its GGUF's."""
    if {*digests} & {*taken_back.rejected(session.workspace)}:
        raise CandidateRefused(
            "this model has been live, and was taken back",
            why="its verification failed, or `driver rollback` has put an older one in its place",
            todo="Change the data or the training; `driver plan` shows what that repeats.",
        )


def check_alone(session: Session) -> None:
    """Raise `WorkspaceBusy` when a stage of another workspace runs on the same engine."""
    if session.containers and (others := session.containers.elsewhere()):
        raise WorkspaceBusy(
            "another run's stage is at work on this Docker engine",
            why=f"its workspace is {', '.join(others)}",
            todo="Wait for it, or end it: `python -m driver recover -w WORKSPACE`.",
        )


def gpu_is_here(session: Session) -> bool:
    """Return whether training takes a GPU of this host, and not of a remote Docker engine's."""
    engine = os.environ.get("DOCKER_HOST") or "unix://"
    return session.settings.runner == "process" or engine.startswith("unix://")


def check_gpu(session: Session) -> None:
    """Raise `GpuUnavailable` for GPUs that are not there, too small, or of too old a driver.

    `SettingsInvalid` where training could not share its batch among them. Who holds them is not
    asked yet: training may be hours away. A remote host is not asked at all.
    """
    if not gpu_is_here(session):
        return
    from driver import lease
    from driver.adapters import gpu

    host = gpu.survey()
    devices = lease.devices(session, host)
    session.settings.train.processes_on(len(devices))
    for each in devices:
        needed = lease.needed_mib(each, session.settings.gpu)
        if needed > each.total_mib:
            raise GpuUnavailable(
                f"GPU {each.index} ({each.name}) has {each.total_mib} MiB in all",
                why=f"gpu.needed_mib asks for {needed}",
                todo="Lower gpu.needed_mib, or name a larger GPU in gpu.devices.",
            )
    if warning := gpu.check_driver(host, session.runner.cuda(stages.TRAIN)):
        session.display.warn(warning)


def check_backend(session: Session) -> None:
    """Raise `BackendUnavailable` for a backend that is not healthy, or has no such container.

    `WindowOpen` for one that could not come back after a stop.
    One that a dead run has stopped is asked nothing: it comes back when this run ends.
    """
    from driver.adapters.backend import Backend
    from driver.service import check_returns, check_unpaused, service_for

    backend = session.settings.backend
    if backend is None or session.window.is_open:
        return
    state = service_for(backend).state()
    if state.running:
        check_returns(state)
        check_unpaused(state)
        Backend(backend.url).wait_healthy(needed=1, timeout_s=10)


def check_reprocess(session: Session, running: Sequence[Stage]) -> None:
    """Raise `BackendUnavailable` for a backend that will not ask the deployed model.

    A compose service is made anew before, with what its file and the settings come to; whom it
    asks by then, the stage itself looks again.
    """
    renews = stages.RESTORE in running or stages.DEPLOY in running  # which opens the window
    will_ask = _asked_anew(session) if renews else ""
    reprocess.check(session.backend_url, session.settings.deploy.name, will_ask)


def compose_mends_it(session: Session) -> bool:
    """Return whether the backend asks the deployed model once compose has made it anew."""
    return reprocess.same_model(_asked_anew(session), session.settings.deploy.name)


def asks_another(session: Session) -> str:
    """Return that the backend asks another model, and what mends it; "" where nobody knows."""
    url, name = session.backend_url, session.settings.deploy.name
    try:
        if url and reprocess.another_asked(url, name):
            reprocess.check(url, name, _asked_anew(session))
    except RetrainError as error:
        return str(error) if isinstance(error, ModelNotAsked) else ""
    return ""


def _asked_anew(session: Session) -> str:
    """Return the model that compose lets the backend ask, "" without compose, or a model in it."""
    from driver.service import model_asked_anew

    backend = session.settings.backend
    return model_asked_anew(backend) if backend and backend.compose else ""
