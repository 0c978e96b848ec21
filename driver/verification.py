"""The verification under way, written down, so that a model that failed it does not stay live.

From before the switch to the verdict `verification.json` says what is to be verified and what was
live before. A model that fails is taken back: the alias names the version before again, and the
items that were asked get that model's answers again. A kill in the middle of that is finished by
the next start; one before the verdict leaves a model that nobody has verified, so the next run
asks, and whatever else comes next (`recover`, a stage that has to run) takes it back first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from contracts import files
from contracts.errors import (
    FileUnusable,
    ModelMissing,
    NotVerified,
    RetrainError,
    RulesNotKept,
    VerifyFailed,
    VerifyUnanswered,
)
from contracts.params import DeployMetrics
from contracts.stage import Frozen
from driver import again, passed_over, promotion, records, served, taken_back, versions
from driver.adapters.addresses import is_same_address
from serving import connect
from serving.engine import Engine, Model

RECORD = records.VERIFICATION
"""Below the workspace, from before the switch to the verdict."""
_SHOWN = 12  # digits of a digest
_CUT_OFF = "has not come to the end of this verification"
Say = Callable[[str], None]


class Record(Frozen):
    """What is being verified, and what is needed to take it back with nothing but this."""

    alias: str
    version: str
    digest: str
    previous: str
    """What the alias named before; "" for nothing, or where this workspace did not deploy it."""
    task: str = ""
    """Whose answers the items hold; "" of an older driver."""
    constrained: bool = False
    """Whether the canary is asked with the task's schema."""
    backend: str
    """Where the application answers; "" where it is not asked."""
    canaries: str
    """File of the items that were asked, as they were before; relative to the workspace."""
    timeout_s: float
    """How long one item may take."""
    engine: dict[str, str]
    """The environment that names the serving engine."""
    begun: bool = True
    """Whether questions may have been asked; before, there is no backend and no file of items."""
    undo: bool = False
    """Whether it is being taken back, which the next start finishes."""
    asked: int | None = None
    """How often a person had asked for a version when the taking back first let one be live; what
    is live after a later time is theirs."""
    passed_over: dict[str, str] = {}
    """Versions before that are not gone back to, and why; from before the switch to another."""

    def again(self, **changed: object) -> Record:
        """Return the record of one that goes on: what it has kept of the items stays."""
        fresh: dict[str, object] = {"undo": False, "asked": None, "passed_over": {}}
        return self.model_copy(update={**fresh, **changed})


def expect(
    root: Path, engine: Engine, task: str, deployed: DeployMetrics, *, constrained: bool = False
) -> None:
    """Write down, before it goes live, that a model is to be verified.

    Where a verification of the same model was cut off, what it has kept of the items stays. One
    that is live already, under another version, and waits for no verdict is none to take back.
    Raises `NotVerified` where another one is live still that waits for its verdict: this one would
    be taken back to it.
    """
    known, live = read(root), engine.models().get(deployed.alias)
    if known and live and known.alias == deployed.alias and deployed.digest != known.digest:
        _require_moved(known, live.digest)
    if known is None and live and live.digest == deployed.digest:
        return
    if known and known.begun and known.digest == deployed.digest:
        _written(root, known.again(version=deployed.tag, previous=deployed.previous))
        return
    _written(
        root,
        Record(
            alias=deployed.alias,
            version=deployed.tag,
            digest=deployed.digest,
            previous=deployed.previous,
            task=task,
            constrained=constrained,
            backend="",
            canaries="",
            timeout_s=0,
            engine=promotion.environment(engine),
            begun=False,
        ),
    )


def _require_moved(known: Record, live: str) -> None:
    if live == known.digest:
        raise NotVerified(
            f"{known.version} is live, and nobody has verified it, so nothing takes its place",
            why="it could not be taken back: see above",
            todo="`driver recover` takes it back; `driver rollback VERSION` lets one be live.",
        )


def begin(
    root: Path,
    engine: Engine,
    alias: str,
    task: str,
    backend: str,
    canaries: Path,
    timeout_s: float,
    *,
    constrained: bool = False,
) -> Record:
    """Write down that what `alias` names is being verified, and return the record.

    Where a verification of the same model was cut off it goes on: the items' fields from before its
    first question are kept. Raises `ModelMissing` where the alias names nothing.
    """
    live = engine.models().get(alias)
    if live is None:
        raise ModelMissing(f"{engine.name} has no model {alias}", todo="Run `driver run`.")
    known = read(root)
    same = known and known.digest == live.digest and is_same_address(known.backend, backend)
    if known and known.begun and same:
        return _written(root, known.again(task=task, constrained=constrained, backend=backend))
    if canaries.exists():
        canaries.replace(canaries.with_name("canaries.previous.jsonl"))
    deployed = served.deployed(root, live.digest)
    return _written(
        root,
        Record(
            alias=alias,
            version=deployed.tag if deployed else alias,
            digest=live.digest,
            previous=deployed.previous if deployed else "",
            task=task,
            constrained=constrained,
            backend=backend,
            canaries=canaries.relative_to(root).as_posix(),
            timeout_s=timeout_s,
            engine=promotion.environment(engine),
        ),
    )


def passed(root: Path, engine: Engine, record: Record) -> None:
    """Say that the model is verified: it stays, and may go live again whatever was before."""
    served.accept(root, record.engine, record.alias, record.digest, served.VERIFIED)
    taken_back.reinstate(root, *versions.names(root, engine.models(), record.digest))
    _drop(root)


def failed(root: Path, engine: Engine, error: RetrainError, say: Say) -> None:
    """Do what follows from the failure of a verification; `say` is told what was done.

    A wrong answer takes the model back for good. No answer at all says nothing about it, and it
    waits for the next run; but where it is the only one to be silent, that takes it back until a
    later run, and so does a backend that loses answers (which does not pass), what else keeps it
    from being verified, or a few texts against a rule.
    """
    if isinstance(error, VerifyUnanswered) and not error.passing:
        take_back(root, engine, say, bad=False, reason="has answers that the backend loses")
    elif isinstance(error, VerifyUnanswered) and not _alone_in_silence(root, engine, say):
        _wait(root, say)
    elif isinstance(error, RulesNotKept):
        take_back(root, engine, say, bad=False, reason="breaks a label rule in a few texts")
    else:
        take_back(root, engine, say, bad=isinstance(error, VerifyFailed))


def take_back(root: Path, engine: Engine, say: Say, *, bad: bool, reason: str = _CUT_OFF) -> None:
    """Undo the deployment of a model that was not verified; `say` is told what was done.

    With `bad` it has given a wrong answer, and no later run lets it go live again; otherwise it may
    be tried again, and one that was accepted before stays, in spite of `reason`. Raises nothing,
    since the failure of the verification is the one to tell: the next start does the rest.
    """
    try:
        taken_back.rescue(root, say)
        record = read(root)
        if record is None:
            return
        if not bad and _stays(root, record, say, reason):
            return
        if bad:
            named = {record.version} - {record.alias}
            taken_back.reject(root, *versions.names(root, {}, record.digest), *named)
        record = _written(root, record.model_copy(update={"undo": True}))
        if bad:
            by = served.BY_VERIFICATION
            served.note_taken_back(root, record.alias, [record.digest], by)
        _undo(root, engine, record, say)
    except RetrainError as error:
        say(f"NOT ROLLED BACK to its end: {error}\nThe next start, or `driver recover`, goes on.")


def settle(root: Path, say: Say, *, unfinished: bool) -> None:
    """Finish what `take_back` has begun before a kill; with `unfinished` take back too what a kill
    has left without a verdict.

    A model that was accepted, by an earlier verification or by a person since, stays. Needs nothing
    but the workspace. Raises nothing: it must not keep the service away.
    """
    try:
        record = read(root)
        if record is None or not (record.undo or unfinished):
            return
        if _stays(root, record, say):
            return
        record = _written(root, record.model_copy(update={"undo": True}))
        engine = connect(record.engine, root)
        try:
            _undo(root, engine, record, say)
        finally:
            engine.close()
    except RetrainError as error:
        say(f"a verification was interrupted, and what it left cannot be undone now: {error}")


def _stays(root: Path, record: Record, say: Say, reason: str = _CUT_OFF) -> bool:
    """Return whether a model without a verdict stays live, since it was accepted before."""
    if not served.is_accepted(root, record.alias, record.digest):
        return False
    _drop(root)
    say(
        f"NOT ROLLED BACK: {record.version} {reason}, but it had passed a verification before, or "
        "`driver rollback` has asked for it: it stays as it is. `driver rollback VERSION` lets "
        "another be live."
    )
    return True


def _alone_in_silence(root: Path, engine: Engine, say: Say) -> bool:
    """Return whether the engine gives no answer of the new model, and one of a version before.

    Then the engine is there, and the users would be better off with that version. Those in between
    that are silent too are noted, to be passed over.
    """
    try:
        record = read(root)
        if record is None or not (record.begun and record.task):
            return False
        models = engine.models()
        live = models.get(record.alias)
        older = versions.way_back(root, models, record.alias, record.digest, record.previous)
        if live is None or live.digest != record.digest:
            return False
        silent = passed_over.silent(engine, record, older)
        if record.alias not in silent:
            return False
        if failed := {tag: passed_over.SILENT for tag in older if tag in silent}:
            _written(root, record.model_copy(update={"passed_over": failed}))
    except RetrainError:  # who is not there to be asked shows nothing
        return False
    good = next(tag for tag in older if tag not in silent)
    say(f"{record.version} gives no answer to the canary, and {good} gives one.")
    return True


def _wait(root: Path, say: Say) -> None:
    """Let a model that nobody could ask stay live until the next run."""
    try:
        record = read(root)
        if record is None or _stays(root, record, say):
            return
        say(
            f"NOT ROLLED BACK: nothing has shown that {record.version} is bad. The next run "
            "verifies it again, or takes it back before its first stage. No reprocess gives items "
            "its answers before that; those that were asked, and what the backend analyses by "
            "itself, get them. `driver recover` takes it back now."
        )
    except RetrainError as error:
        say(f"NOT ROLLED BACK: {error}")


def remind(root: Path, say: Say) -> None:
    """Say that a model has no verdict yet, if a run ends before it."""
    with suppress(FileUnusable):
        record = read(root)
        if record and not record.undo:
            say(
                f"{record.version} is not verified yet. If it is live, the next run verifies it or "
                "takes it back; `driver recover` takes it back now."
            )


def read(root: Path) -> Record | None:
    """Return the verification that is under way or was cut off; `FileUnusable` if damaged."""
    return records.read(root / RECORD, Record)


def _undo(root: Path, engine: Engine, record: Record, say: Say) -> None:
    """Let the alias name a good version again, and the asked items have its answers."""
    models = engine.models()
    live = models.get(record.alias)
    older = versions.way_back(root, models, record.alias, record.digest, record.previous)
    moves = live is None or live.digest == record.digest
    if live is None or moves:
        if not older:
            if live is not None:
                say(_no_way_back(root, record))
            _drop(root)
            return
        good = next((tag for tag in older if tag not in record.passed_over), older[0])
        record = _written(root, _asked_by_now(root, record))
        promotion.switch(root, engine, record.alias, good)  # which compares the digests
        live = models[good]
        never = record.digest in taken_back.digests(root, models)
        say(
            f"ROLLED BACK: {record.alias} is {good} again (digest {live.digest[:_SHOWN]}, as the "
            f"serving engine shows it). {record.version} was live, and was not verified; "
            f"{'no later run lets it go live again' if never else 'it may be tried again'}."
        )
    if older and (moves or not _asked_for(root, record, live)):
        live = _instead(root, engine, record, models, live, older, say)
    if record.backend:
        again.answer(root, engine, record, live, say)
    _drop(root)


def _asked_for(root: Path, record: Record, live: Model) -> bool:
    """Return whether a person may have let this be live meanwhile: theirs to answer for."""
    if record.asked is not None:
        return served.times_asked(root, record.alias) > record.asked
    return served.why_accepted(root, record.alias, live.digest) == served.ASKED_FOR


def _asked_by_now(root: Path, record: Record) -> Record:
    """Return the record with what tells a person's choice from ours, before we let one be live."""
    if record.asked is not None:
        return record
    return record.model_copy(update={"asked": served.times_asked(root, record.alias)})


def _instead(
    root: Path,
    engine: Engine,
    record: Record,
    models: Mapping[str, Model],
    live: Model,
    older: Sequence[str],
    say: Say,
) -> Model:
    """Go further back where the first of the `older` versions, but for those passed over already,
    is live and broken; return what is live then.
    """
    left = [t for t in older if t not in record.passed_over or models[t].digest == live.digest]
    answers = False
    if left and live.digest == models[left[0]].digest:
        good, failed, answers = passed_over.instead(root, engine, record, models, left, say)
        if failed:
            update = {"passed_over": record.passed_over | failed}
            record = _written(root, _asked_by_now(root, record).model_copy(update=update))
            promotion.switch(root, engine, record.alias, good)
            live = models[good]
    good = next((tag for tag in older if models[tag].digest == live.digest), "")
    over = [f"{tag}, since {why}" for tag, why in record.passed_over.items() if tag != good]
    if good and over:
        shown = f"(digest {live.digest[:_SHOWN]}){', which answers the canary' if answers else ''}"
        say(f"{record.alias} is {good} now {shown}. PASSED OVER: {'; '.join(over)}")
    return live


def _no_way_back(root: Path, record: Record) -> str:
    said = (
        f"NOT ROLLED BACK: there is no good version before {record.version}, so {record.alias} "
        "still names it although it was not verified."
    )
    if record.begun and (root / record.canaries).exists():
        said += f" The fields that asked items had before are in {root / record.canaries}."
    return said


def _written(root: Path, record: Record) -> Record:
    files.write_json(root / RECORD, record.model_dump(), files.PRIVATE)
    return record


def _drop(root: Path) -> None:
    """Remove the record durably: come back after a power cut, it would undo what is good."""
    files.remove(root / RECORD)
