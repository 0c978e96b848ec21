"""One run: the settings in effect, the workspace, and the outside world, made when needed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import files, stages
from contracts.entrypoint import JOB_FILE, StageContext, execute
from contracts.errors import DockerUnavailable, OutputMissing, RetrainError
from contracts.os_errors import from_os_error, in_a_line
from contracts.params import RestoreMetrics, VerifyMetrics
from contracts.stage import Event, GpuMode, Job, Metrics, Result, Stage
from driver import agreement, lease, preflight, request, verification
from driver.host_stages import deploy, fetch, reprocess, snapshot, verify
from driver.notes import Notes, named_by
from driver.plan import Action, Request, Step
from driver.report.display import Display
from driver.retry import retried
from driver.runners.outcome import Limits, Runner
from driver.settings import Settings
from driver.signals import SIGNALS
from driver.store import SETTINGS_FILE, Run, Served, Store
from driver.task import noted
from driver.task.check import at_run
from driver.task.load import load_named
from driver.window import Window
from serving import connect, ollama_address
from serving.engine import Engine, full_tag
from tasks import Task

if TYPE_CHECKING:
    from driver.runners.leftovers import StageContainers


class Session:
    """What the loop of pipeline.py acts through."""

    def __init__(self, settings: Settings, display: Display) -> None:
        self.settings = settings
        self.display = display
        self.workspace = settings.workspace.resolve()
        self.store = Store(self.workspace)
        self.window = Window(
            self.workspace, settings.backend, self._ollama_address(), shield=SIGNALS.shield
        )
        self._run: Run | None = None
        self._notes: Notes | None = None
        self._gave_up = False
        self._started = time.monotonic()

    # --- what the plan asks ----------------------------------------------------------------------
    @cached_property
    def task(self) -> Task:
        """The task that the settings name, read once; `TaskInvalid` where it is none."""
        return load_named(self.settings.task)

    def request(self, stage: Stage) -> Request:
        """Return what the settings ask of a stage, with the digests that identify it."""
        return request.make(self, stage)

    @cached_property
    def label_digest(self) -> str:
        """Of what influences labels; computed once, so that a plan is of one state of the task."""
        return self.task.label_digest()

    @cached_property
    def task_digest(self) -> str:
        """Of the whole task; computed once, too."""
        return self.task.digest()

    def still_true(self, stage: Stage, result: Result) -> str:
        """Say why what a stage has left outside no longer agrees with its result; "" if it does."""
        return agreement.still_true(self, stage, result)

    # --- what the loop does ----------------------------------------------------------------------
    def nothing_to_do(self, plan: list[Step]) -> None:
        """Say that nothing has changed; no run is recorded."""
        self.display.nothing_to_do(plan, Run.last(self.workspace))

    def drop_leftovers(self, plan: list[Step]) -> None:
        """Remove what dead runs have left of stages that this plan does not go on with.

        The service that such a run has left stopped comes back now, unless one is gone on with.
        """
        wanted = [step.fingerprint for step in plan if step.action is Action.RUN]
        for name in self.containers.drop(keep=wanted) if self.containers else ():
            self.display.warn(f"removed a container of {name}, left behind by a run that died")
        if not self.window.is_open:
            return
        if at_work := self.containers.at_work() if self.containers else []:
            self.display.warn(
                f"a run that died has left the service stopped, and {', '.join(at_work)} at work; "
                "this run goes on with both"
            )
            return
        self.display.warn("nothing of the run that died is gone on with; bringing its service back")
        self.close_window()

    def bring_back(self) -> None:
        """Bring the service back; a stage that is at work all the same would hold its GPU."""
        if self.window.is_open and not self._gave_up:
            with SIGNALS.shield():  # a signal would ask for just this
                try:
                    if self.containers:
                        self.containers.drop()
                except DockerUnavailable as error:  # the service may live on another engine
                    self.window.warnings.append(f"a stage may be at work still: {error.what}")
                self.close_window()
        self.tell_warnings()

    def close_window(self) -> None:
        """Bring the service back, and do not wait for it a second time if it does not come."""
        try:
            self.window.close()
        except RetrainError:
            self._gave_up = True
            raise

    def begin(self, plan: list[Step]) -> None:
        """Check everything that can be checked, then record the run."""
        running = [step.stage for step in plan if step.action is Action.RUN]
        agreement.note_due(self)  # a refusal, too, has the backend made to ask the right model
        preflight.check(self, running)
        drift = at_run.check(self, running)
        self._take_down(Run.create(self.workspace))
        self.notes.accept(drift)
        said = self.settings.model_dump_json(indent=2)  # compose's variables, too
        files.write_text(self.run.folder / SETTINGS_FILE, said, files.PRIVATE)
        noted.note(self.task, self.run.folder)
        for step in plan:
            self._note(step.stage, action=step.action, reason=step.reason, state="planned")
        self.display.begin(plan, self.run)

    def prepare(self, step: Step) -> None:
        """Check what only the results so far can tell, before the service is touched.

        What a kill has left live without a verdict is verified next, or not live meanwhile.
        """
        if step.stage not in (stages.RESTORE, stages.VERIFY):
            verification.settle(self.workspace, self.display.warn, unfinished=True)
        preflight.check_stage(self, step)

    def reuse(self, step: Step) -> Result:
        """Record that a result is taken as it is."""
        if step.result is None:
            raise ValueError(f"{step.stage.name} has no result to reuse")
        stage = step.stage
        if stage.image:  # a dead run's container may have come to its end since the plan was made
            job = self.store.place(stage.name, step.fingerprint) / JOB_FILE
            self.runner.collect(stage, job, self.run.log(stage.name), self._listen)
        self._note(
            step.stage,
            state="reused",
            reason=step.reason,
            fingerprint=step.fingerprint,
            summary=self.summary(step.result),
            metrics=step.result.metrics,
        )
        self.display.reused(step)
        return step.result

    def execute(self, step: Step) -> Result:
        """Run one stage to its result."""
        stage = step.stage
        job = step.request.job(self.run.id, step.fingerprint, step.inputs or {})
        retry = self.settings.retry
        try:
            result = retried(
                partial(self._attempt, step, job),
                retry.stages.get(stage.name, 0 if stage is stages.RESTORE else retry.times),
                retry.pause_s,
                lambda error, pause: self.display.warn(f"{error}\nagain in {pause:g} s"),
            )
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            said = from_os_error(error) if isinstance(error, OSError) else error
            told = "stopped by a signal" if stopped else str(said) or type(error).__name__
            if stage is stages.VERIFY and isinstance(error, RetrainError):
                told = "\n".join([told, *self._not_verified(error)])
            self._note(stage, state="failed", error=told)
            self.display.failed(stage)
            raise
        facts = {"seconds": result.seconds, "summary": self.summary(result)}
        if stage is stages.VERIFY and (unseen := VerifyMetrics(**result.metrics).unseen()):
            self.display.warn(f"verified by the engine alone: {unseen}")
        self._note(stage, state="done", metrics=result.metrics, **facts)
        self.display.finished(step, result, self.summary(result))
        return result

    def end(self, results: dict[str, Result]) -> None:
        """Write the report and show the final table."""
        report = self._report()
        seconds = time.monotonic() - self._started
        self.display.end(self.notes.stages, results, self.run, report, seconds)

    def note_end(self, error: BaseException | None = None) -> None:
        """Note that the run of one stage has ended: of that there is no report."""
        try:
            self.notes.close(self.window.absences(), error)
        except OSError as failed:
            self.display.warn(f"the end of the run could not be noted: {in_a_line(failed)}")

    def fail(self, error: BaseException) -> None:
        """Write the report on what there is: a model that was refused is read about most."""
        report = self._report(error)
        if report:
            self.display.note(f"Report: {report}")
        verification.remind(self.workspace, self.display.warn)

    def _report(self, error: BaseException | None = None) -> Path | None:
        def served() -> Served:  # asked at need, and only then connected
            return named_by(self.engine, full_tag(self.settings.deploy.name))

        away, warn = self.window.absences(), self.display.warn
        return self.notes.end(self.workspace, away, warn, error, served)

    @staticmethod
    def summary(result: Result) -> str:
        """Return a result's one line for people."""
        return stages.BY_NAME[result.stage].metrics.model_validate(result.metrics).summary()

    # --- how a stage is run ----------------------------------------------------------------------
    def _attempt(self, step: Step, job: Job) -> Result:
        lease.make_way(self, step)
        self.tell_warnings()
        self._note(step.stage, state="running", reason=step.reason, fingerprint=step.fingerprint)
        self.display.started(step)
        return self._run_job(step.stage, job)

    def tell_warnings(self) -> None:
        """Show what the window has to say."""
        for warning in self.window.warnings:
            self.display.warn(warning)
        self.window.warnings.clear()

    def _run_job(self, stage: Stage, job: Job) -> Result:
        path = self.store.prepare(job)
        if stage.image is None:
            works = self._host_works()
            return execute(stage, job, self.workspace, path.parent, works[stage.name], self._listen)
        environ = self.addresses if stage.gpu is GpuMode.SERVING else lease.environment(self, stage)
        log = self.run.log(stage.name)
        self.runner.run(stage, path, log, self._listen, environ, self._limits(stage))
        result = self.store.result(stage.name, job.fingerprint)
        if result is None:
            raise OutputMissing(f"stage {stage.name} ended well but left no result")
        return result

    def _limits(self, stage: Stage) -> Limits:
        hours = self.settings.limits.hours.get(stage.name)
        return Limits(self.settings.limits.silence_s, None if hours is None else hours * 3600)

    def _host_works(self) -> dict[str, Callable[[StageContext[Any]], Metrics]]:
        name, url = self.settings.deploy.name, self.backend_url
        listed = self.settings.snapshot.source == "backend"
        verifies = stages.VERIFY.name in self.notes.stages
        told = partial(
            verification.expect,
            self.workspace,
            self.engine,
            self.task.name,
            constrained=self.settings.verify.constrained,
        )
        return {
            "snapshot": partial(snapshot.work, backend_url=url),
            "fetch": fetch.work,
            "deploy": partial(deploy.work, engine=self.engine, expect=told if verifies else None),
            "restore": self._restore,
            "reprocess": partial(reprocess.work, backend_url=url, alias=name, everything=listed),
            "verify": partial(verify.work, engine=self.engine, name=name, backend_url=url),
        }

    def _restore(self, _: StageContext[Any]) -> RestoreMetrics:
        self.window.close(renew=True)
        self.tell_warnings()
        if told := preflight.asks_another(self):  # compose has done what it can
            self.display.warn(told)
        return RestoreMetrics(away_s=round(self.window.away_s, 1))

    def _not_verified(self, error: RetrainError) -> list[str]:
        """Do what follows from a verification that failed; return what was done, in words."""
        said: list[str] = []
        verification.failed(self.workspace, self.engine, error, said.append)
        for line in said:
            self.display.warn(line)
        return said

    def _listen(self, event: Event) -> None:
        self.run.record(event)
        self.display.event(event)

    def _take_down(self, run: Run) -> None:
        """Let this be the run under way, with notes of its own."""
        self._run, self._notes = run, Notes(run, self.docker_host)

    def _note(self, stage: Stage, **facts: Any) -> None:
        self.notes.stage(stage.name, **facts)

    # --- the outside world -----------------------------------------------------------------------
    def _ollama_address(self) -> str:
        if self.settings.engine != "ollama":
            return ""
        return ollama_address(os.environ.get("OLLAMA_HOST", ""))

    @property
    def run(self) -> Run:
        """The run under way; only after `begin`."""
        if self._run is None:
            raise RuntimeError("the run has not begun")
        return self._run

    @property
    def notes(self) -> Notes:
        """What is noted of the run under way; only after `begin`."""
        if self._notes is None:
            raise RuntimeError("the run has not begun")
        return self._notes

    @property
    def backend_url(self) -> str:
        """Where the application answers; "" without one."""
        return self.settings.backend.url if self.settings.backend else ""

    @property
    def addresses(self) -> dict[str, str]:
        """What stages that speak to the serving engine find in their environment."""
        found: dict[str, str] = {"RETRAIN_ENGINE": self.settings.engine}
        if "OLLAMA_HOST" in os.environ:
            found["OLLAMA_HOST"] = os.environ["OLLAMA_HOST"]
        if self.settings.teachers:
            found["RETRAIN_TEACHERS"] = " ".join(self.settings.teachers)
        if "OPENAI_API_KEY" in os.environ:
            found["OPENAI_API_KEY"] = os.environ["OPENAI_API_KEY"]
        if self.settings.engine == "llamacpp":
            default = str(self.workspace / "serving")
            found["LLAMACPP_HOME"] = os.environ.get("LLAMACPP_HOME", default)
        return found

    @property
    def compose_file(self) -> Path:
        """The declaration of the stage images."""
        return files.ROOT / self.settings.docker.compose_file

    @cached_property
    def engine(self) -> Engine:
        """The serving engine; not asked anything yet."""
        return connect({**os.environ, **self.addresses}, self.workspace)

    @cached_property
    def containers(self) -> StageContainers | None:
        """The stage containers of this workspace; None where stages are processes."""
        if self.settings.runner == "process":
            return None
        from driver.runners.leftovers import StageContainers

        return StageContainers(self.workspace)

    @property
    def docker_host(self) -> str:
        """Return the engine of the stage containers; "" where stages are processes."""
        if self.settings.runner == "process":
            return ""
        from driver.adapters.containers import LOCAL

        return os.environ.get("DOCKER_HOST") or LOCAL

    @cached_property
    def runner(self) -> Runner:
        """The runner of the settings."""
        if self.settings.runner == "process":
            from driver.runners.process import ProcessRunner

            return ProcessRunner()
        from driver.runners.docker import DockerRunner

        return DockerRunner(
            self.workspace,
            self.compose_file,
            gpu=self.settings.train.device == "cuda",
            devices=self.settings.gpu.devices,
        )

    def close(self) -> None:
        """Let go of the engine, if it was used."""
        if "engine" in self.__dict__:
            self.engine.close()
