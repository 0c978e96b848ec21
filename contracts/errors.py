"""One class per failure: an exit code, what broke, why, and what to do.

A stage exits with the code of its error, so the driver can name the same failure on its
side of the container boundary. Codes are part of the interface (docs/reference/exit-codes.md):
never reuse one.
"""

from __future__ import annotations

import re
from typing import ClassVar

# A scheme of any length would be looked for from each of its letters to its end.
_USERINFO = re.compile(
    r"\b(?!ssh://[^/\s:@]*@)([a-z][a-z0-9+.-]{0,31}://)[^/\s\"'?#]*@", re.IGNORECASE
)


def without_userinfo(text: str) -> str:
    """Return a text whose URLs are without user and password (RFC 3986, 3.2.1), to be shown.

    A user alone may be a token; only that of ssh:// is a name, and stays.
    """
    return _USERINFO.sub(r"\1", text)


class RetrainError(Exception):
    """Base of every failure that a user is told about; none of it shows a URL's password.

    `what` states the failure, `why` the cause as far as it is known, `todo` the next step.
    `todo` falls back to the class's `hint`.
    """

    exit_code: ClassVar[int] = 1
    hint: ClassVar[str] = ""
    passing: bool = False
    """Whether the same may well succeed a little later: such a stage is started again."""

    def __init__(
        self, what: str, *, why: str = "", todo: str = "", passing: bool | None = None
    ) -> None:
        """Let `passing` differ from the class's: an engine that is too old stays so."""
        self.what = without_userinfo(what)
        self.why = without_userinfo(why)
        self.todo = without_userinfo(todo or self.hint)
        super().__init__(self.what)
        if passing is not None:
            self.passing = passing

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"why: {self.why}")
        if self.todo:
            parts.append(f"do:  {self.todo}")
        return "\n".join(parts)


class SettingsInvalid(RetrainError):
    """The settings have an unknown key, a wrong type, or do not fit together."""

    exit_code = 10
    hint = "Correct the settings; `python -m driver settings` prints every key with its default."


class ItemsInvalid(RetrainError):
    """A row of the items or of the reviewed labels cannot be used."""

    exit_code = 11
    hint = "Correct or remove the row named above."


class BaseModelMissing(RetrainError):
    """The base model is not where the settings say, or is incomplete."""

    exit_code = 12
    hint = "Set fetch.path to a folder with config.json, tokenizer.json and *.safetensors."


class DockerUnavailable(RetrainError):
    """No Docker engine answers, or it cannot do what is asked."""

    passing = True
    exit_code = 13
    hint = "Start the engine (`systemctl start docker`), or run without containers: runner=process."


class GpuUnavailable(RetrainError):
    """A stage asks for a GPU that is not there, is taken, or has too old a driver."""

    exit_code = 14
    hint = "See `python -m driver doctor`; without a GPU set train.device=cpu."


class EngineUnavailable(RetrainError):
    """The serving engine (Ollama or llama.cpp) does not answer, or answers with an error."""

    passing = True
    exit_code = 15
    hint = "Start Ollama (`systemctl start ollama`), or point OLLAMA_HOST to it."


class ModelMissing(RetrainError):
    """The serving engine does not have a model that a stage needs."""

    exit_code = 16
    hint = "Pull the model first (`ollama pull NAME`), or name another one in the settings."


class DiskFull(RetrainError):
    """Too little free space for what a run will write."""

    exit_code = 17
    hint = "Free space, or move the workspace to a larger disk (workspace=PATH)."


class WorkspaceBusy(RetrainError):
    """Another driver works in this workspace or on this host, or what one that died has started."""

    exit_code = 18
    hint = "Wait for it, or stop it; the lock ends with its process."


class BackendUnavailable(RetrainError):
    """The application's backend does not answer, or did not come back healthy."""

    passing = True
    exit_code = 19
    hint = "Look at the backend's container (`docker logs NAME`), then `python -m driver recover`."


class StageFailed(RetrainError):
    """A stage ended with an error that has no class of its own."""

    exit_code = 20
    hint = "Read the stage's log, named above."


class InputMissing(RetrainError):
    """An input artifact is missing, or is not what the job says."""

    exit_code = 21
    hint = "Run the driver again: it makes a missing artifact anew."


class OutputMissing(RetrainError):
    """A stage ended without one of the artifacts it declares."""

    exit_code = 22


class OutOfMemory(RetrainError):
    """A stage was killed for memory, or the GPU ran out of it, or is too small by estimate."""

    exit_code = 23
    hint = "Raise the container's memory limit, or make the stage need less of it."


class ImageStale(RetrainError):
    """A stage image is missing, or was built from other code than the driver's."""

    exit_code = 24
    hint = "Build the images: `docker compose -f compose.retrain.yml build`."


class RowTooLong(RetrainError):
    """Training rows exceed the token limit; a row is never cut."""

    exit_code = 25
    hint = "Raise train.max_length, or set train.too_long=drop to leave these rows out."


class CandidateRefused(RetrainError):
    """The gate refused the new model; what was live stays live."""

    exit_code = 26
    hint = "Read scores.json of the evaluate stage; evaluate.* holds the rules."


class VerifyFailed(RetrainError):
    """The deployed model did not answer as the task demands, asked directly or by the backend.

    It is taken back: what was live before is live again, where there is such a version.
    """

    exit_code = 27
    hint = "`driver models` shows what is live; train on more rows, or better ones, and run again."


class RulesNotKept(VerifyFailed):
    """Answers break label rules, on too few items to reject for good what the gate has let pass.

    It is taken back, and may be tried again; one that was accepted before stays.
    """

    exit_code = 43
    hint = "Raise verify.items, or verify.max_broken_share, and run again."


class LabelsMissing(RetrainError):
    """Labelling left too few usable rows."""

    exit_code = 28
    hint = "`python -m driver labels report` shows the reasons; quarantine.jsonl has each answer."


class SentinelTripped(RetrainError):
    """A check on the model itself failed: the result would be worthless."""

    exit_code = 29
    hint = "docs/reference/sentinels.md says what each sentinel sees, and what to do."


class WindowOpen(RetrainError):
    """A stage needs the service window and it could not be opened or closed."""

    exit_code = 30
    hint = "Run `python -m driver recover`."


class ReprocessFailed(RetrainError):
    """Too many items could not be reprocessed with the new model."""

    exit_code = 31


class FileUnusable(RetrainError):
    """A file or folder cannot be read or written, the lock file among them."""

    exit_code = 32
    hint = "Check the path and its permissions."


class StageKilled(RetrainError):
    """A stage was killed from outside: SIGKILL, a removed container, a restart of the engine."""

    passing = True
    exit_code = 33
    hint = "Run again: it goes on from its last checkpoint. `journalctl -k` names an OOM kill."


class StageTimedOut(RetrainError):
    """A stage took longer, or said nothing for longer, than the limits allow."""

    passing = True
    exit_code = 34
    hint = "Read the stage's log; limits.silence_s and limits.hours are the limits."


class Unforeseen(RetrainError):
    """The driver met an error that it does not know: a defect of its own."""

    exit_code = 35
    hint = "RETRAIN_TRACEBACK=1 shows where; please report it. `python -m driver run` goes on."


class RunUnreadable(RetrainError):
    """What a run has noted of itself cannot be read."""

    exit_code = 36
    hint = (
        "`python -m driver logs` still shows what its stages said; remove the run's folder, or run "
        "again: results are kept elsewhere."
    )


class OnePassNotCovered(RetrainError):
    """The one-pass conversion does not know something of this adapter or base model.

    With gguf.way=auto the driver merges and converts instead.
    """

    exit_code = 37
    hint = "Set gguf.way=two_step."


class RestoreFailed(RetrainError):
    """The items could not be given back all that they had before a reprocess."""

    exit_code = 38
    hint = "`python -m driver reprocess --restore --out FILE` writes down what is to be given back."


class LineageBroken(RetrainError):
    """What is served cannot be followed back to the rows that it was trained on.

    A link of the chain is another than it was, or is not there any more.
    """

    exit_code = 39
    hint = "docs/reference/report.md says what each link is, and what to do about it."


class VerifyUnanswered(RetrainError):
    """The deployed model could not be verified: the backend or its engine has not answered, or the
    backend loses what the engine answers.

    That says nothing about the model, which the next run verifies again.
    """

    passing = True
    exit_code = 40
    hint = (
        "Look at Ollama and at the backend (`docker logs NAME`), then run again: it verifies; or "
        "`python -m driver recover`, which lets the version before be live."
    )


class NotVerified(RetrainError):
    """The model that is live was taken back, or is not verified: no item gets its answers, and no
    other model takes its place."""

    exit_code = 41
    hint = (
        "`python -m driver stage verify` verifies it, `driver rollback VERSION` chooses another; "
        "`driver reprocess --unverified` takes it all the same."
    )


class TaskInvalid(RetrainError):
    """The task's definition cannot be read, or contradicts itself."""

    exit_code = 42
    hint = "docs/reference/task.md says what a definition may hold."


class TaskDrifted(RetrainError):
    """The backend could not store or show an answer as the task defines it."""

    exit_code = 44
    hint = (
        "`python -m driver task check` shows each difference, `--patch` what of them it can mend; "
        "`run --accept-drift` goes on."
    )


class Interrupted(RetrainError):
    """The run was stopped by a signal; the next run goes on from here."""

    exit_code = 130
    hint = "Run the same command again: finished stages are reused."


def _subclasses(cls: type[RetrainError]) -> list[type[RetrainError]]:
    return [sub for direct in cls.__subclasses__() for sub in (direct, *_subclasses(direct))]


def error_for(exit_code: int) -> type[RetrainError]:
    """Return the class that exits with this code; `StageFailed` for a code that is nobody's."""
    known = reversed(_subclasses(RetrainError))  # so that a class comes after its subclasses
    return {sub.exit_code: sub for sub in known}.get(exit_code, StageFailed)
