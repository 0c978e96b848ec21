"""Which version before is served, where the one that is live again may be broken itself.

A model can have been forced since the one before it is broken. So the one before, which is live
again by then, is asked the task's canary; it is passed over where it fails at that, and an older
one does not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from contracts import stages
from contracts.errors import EngineUnavailable, ModelMissing
from contracts.params import EvaluateMetrics
from driver.again import task_of
from driver.host_stages.canaries import whole_answer
from driver.store import Store
from serving.engine import AnswerCutOff, Engine, Model, ModelFailed
from tasks import InvalidAnswer, Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from driver.verification import Record

_LIMIT_S = 120.0
"""For all questions together: a model is loaded in it, and gives some answers. What the service
answers meanwhile is the version before's, and the items of the verification wait."""
_ATTEMPTS = 2
"""At a version before it is passed over: a good one errs once, or its runner ends."""
_PAUSE_S = 5.0
"""Before the second of them, where the first found no runner that answers: it may be restarting."""
SILENT = "it gives no answer to the canary"


def instead(
    root: Path,
    engine: Engine,
    record: Record,
    models: Mapping[str, Model],
    older: Sequence[str],
    say: Callable[[str], None],
) -> tuple[str, dict[str, str], bool]:
    """Return which of these versions is to be served, why those in front of it are not, and
    whether it has given a valid answer to the canary.

    The first of them is live. It stays so, and nothing is passed over, unless it fails at the
    canary (or has, as the champion of its last evaluation) and a later one gives a valid answer.
    Where one cannot be asked, since the engine is busy, away or slow, nobody can tell: then too.
    `say` is told of a version that stays although it has failed, or was not asked.
    """
    first, failed = older[0], dict[str, str]()
    task = task_of(root, record)
    if task is None:
        return first, {}, False
    deadline = time.monotonic() + _LIMIT_S
    try:
        for tag in older:
            fault = _silence(root, models[tag].digest)
            if not fault and tag == first:
                fault = _fault(engine, record, task, record.alias, deadline)
            elif not fault:
                fault = _fault(engine, record, task, tag, deadline)
                with suppress(EngineUnavailable):  # no matter to what was answered
                    # Its runner would show this name for what the alias is asked.
                    engine.unload(tag)
            if not fault:
                return tag, failed, True
            failed[tag] = fault
    except EngineUnavailable as error:
        why = f"{failed[first]}; but {tag}" if failed else "it"
        say(f"{first} stays live: {why} could not be asked the canary: {_why(error)}")
        return first, {}, False
    say(f"{first} stays live, since no older version is better: {failed[first]}")
    return first, {}, False


def silent(engine: Engine, record: Record, older: Sequence[str]) -> frozenset[str]:
    """Return the alias, which is the new model, and the versions before it that give no answer to
    the canary, up to the first that gives one, of whatever worth; none where none does.

    Where more than the alias is silent, all are asked once more, since the engine may only have
    come back meanwhile.
    """
    if _answers(engine, record, record.alias):
        return frozenset()
    good = next((tag for tag in older if _answers(engine, record, tag)), None)
    if good is None:
        return frozenset()
    found = [record.alias, *older[: older.index(good)]]
    if len(found) > 1:
        found = [tag for tag in found if not _answers(engine, record, tag)]
    return frozenset(found)


def _answers(engine: Engine, record: Record, tag: str) -> bool:
    task = load_task(record.task)
    try:
        whole_answer(engine, tag, task, task.canary, timeout_s=record.timeout_s)
    except InvalidAnswer:  # cut off, that is
        pass
    except EngineUnavailable:
        return False
    if tag != record.alias:
        engine.unload(tag)  # its runner would show this name for what the alias is asked
    return True


def _silence(root: Path, digest: str) -> str:
    """Return what the last evaluation against this model says of its silence, "" for none."""
    for _, metrics in Store(root).measured(stages.EVALUATE.name, EvaluateMetrics):
        if metrics.models.get("champion") == digest:
            silent = metrics.silent == digest
            return "it gave too few answers when it was evaluated last" if silent else ""
    return ""


def _fault(engine: Engine, record: Record, task: Task, tag: str, deadline: float) -> str:
    """Return how a model fails at the canary, "" where it gives a valid answer.

    Raises `EngineUnavailable` where that cannot be told.
    """
    fault, pause_s = "", 0.0
    for _ in range(_ATTEMPTS):
        time.sleep(min(pause_s, _left(deadline)))
        try:
            said = engine.chat(
                tag,
                task.messages(task.canary),
                schema=task.schema() if record.constrained else None,
                options={**task.modelfile().parameters},
                timeout_s=_left(deadline),
            )
            if not said.finished:
                raise InvalidAnswer(f"cut off after {said.answer_tokens} tokens")
            task.parse(said.text)
        except InvalidAnswer as error:
            fault, pause_s = f"its answer to the canary is not valid: {error}", 0.0
        except (AnswerCutOff, ModelFailed, ModelMissing) as error:
            fault, pause_s = f"{SILENT}: {_why(error)}", _PAUSE_S
        else:
            return ""
    return fault


def _left(deadline: float) -> float:
    if (left := deadline - time.monotonic()) > 0:
        return left
    raise EngineUnavailable("no time was left for it", why=f"{_LIMIT_S:g} s are for all versions")


def _why(error: EngineUnavailable | ModelMissing) -> str:
    return f"{error.what} ({error.why})" if error.why else error.what
