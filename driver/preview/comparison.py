"""A few rows under the task as it was and as it is.

Rows are asked about whose answers the workspace does not keep, once: what is asked here is kept as
the label stage keeps it, and the label stage asks the same. No label changes by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from contracts.derived_labels import Asker
from contracts.errors import EngineUnavailable
from contracts.label_cache import CACHE_FILE, LabelCache
from contracts.label_definition import Edit, LabelDefinition, compare
from driver import preflight
from driver.preview.chosen import Chosen, choose
from driver.preview.sides import Question, Side, Told
from serving.attempts import Attempt, context_for
from serving.engine import Answer, AnswerCutOff, ChatServer
from serving.teachers import (
    TeacherIdentity,
    TeacherServer,
    identify_teacher,
    remembered_teacher,
)

if TYPE_CHECKING:
    from driver.session import Session

_AT_ONCE = 4
"""Requests at once: Ollama's usual number of slots or more, and few enough for any other server."""
Say = Callable[[str, int, int], None]
"""Told under which definition, and (done, total) of its requests."""


@dataclass(frozen=True)
class Compared:
    """A row with its two answers."""

    row: Chosen
    old: Told
    new: Told

    def differs(self, field: str) -> bool:
        """Return whether the two answers say something else in a field."""
        pair = [each.fields or {} for each in (self.old, self.new)]
        return pair[0].get(field) != pair[1].get(field) or (field in pair[0]) != (field in pair[1])


@dataclass(frozen=True)
class Preview:
    """All that was compared."""

    since: str
    edit: Edit
    fields: tuple[str, ...]
    """Of both definitions, today's order first."""
    rows: tuple[Compared, ...]
    asked: int
    """Requests that this took; all other answers were there."""


def preview(session: Session, count: int, since: tuple[str, LabelDefinition], say: Say) -> Preview:
    """Return rows under the definition of before, given with its name, and under today's.

    Raises `InputMissing` before there is a snapshot, `EngineUnavailable` and `ModelMissing` where
    the teacher is needed and not there; answers so far are kept.
    """
    name, before = since
    now, chosen = LabelDefinition.of(session.task), choose(session, count)
    with (
        LabelCache(session.workspace / CACHE_FILE) as cache,
        preflight.connected_teachers(session) as servers,
    ):
        rows, asked = _compared(session, cache, servers, chosen, (before, now), say)
    fields = tuple(dict.fromkeys([*now.fields, *before.fields]))
    return Preview(name, compare(before, now), fields, rows, asked)


def _compared(
    session: Session,
    cache: LabelCache,
    servers: Sequence[TeacherServer],
    chosen: Sequence[Chosen],
    definitions: tuple[LabelDefinition, LabelDefinition],
    say: Say,
) -> tuple[tuple[Compared, ...], int]:
    """Return the rows with both answers, and how many requests that took."""
    task, params = session.task, session.settings.label
    teacher, away = _identify(cache, servers)
    asker = Asker.of(teacher.tag, teacher.digest, params)
    items = [each.item for each in chosen]
    old, new = (Side(task, asker, each) for each in definitions)
    prompt = max((each.label_prompt for each in definitions), key=len)
    num_ctx = params.num_ctx or context_for(
        prompt, map(task.user_message, items), params.num_predict
    )
    options = {
        **asker.sampling,
        "temperature": params.temperature,
        "num_ctx": num_ctx,
        "seed": 0,
    }
    first = servers[0].server, servers[0].tag
    asked = 0
    for side, called in ((old, "as it was"), (new, "as it is now")):
        if side is new and params.backfill:
            new.complete(cache, items)
        wanted = list(side.wanted(cache, items))
        if wanted and away:
            raise away
        for done, (question, attempt) in enumerate(
            _ask(first, wanted, options, params.timeout_s), 1
        ):
            if attempt:
                cache.put(question.key, [asdict(attempt)])
            say(called, done, len(wanted))
        asked += len(wanted)
    rows = [
        Compared(each, old.told(cache, each.item), new.told(cache, each.item)) for each in chosen
    ]
    return tuple(rows), asked


def _identify(
    cache: LabelCache, servers: Sequence[TeacherServer]
) -> tuple[TeacherIdentity, EngineUnavailable | None]:
    """Return which model labels, and why nobody can be asked: its kept answers may be enough."""
    known = cache.teachers()
    try:
        found = identify_teacher(servers, known)
    except EngineUnavailable as error:
        if (remembered := remembered_teacher(servers, known)) is None:
            raise
        return remembered, error
    cache.put_teachers(found.told)
    return found, None


def _ask(
    server: tuple[ChatServer, str],
    questions: Sequence[Question],
    options: Mapping[str, Any],
    timeout_s: float,
) -> Iterator[tuple[Question, Attempt | None]]:
    """Yield each question with its answer as it comes; raise the first failure after what came.

    None is the answer that was cut off twice: once may be a runner that has ended, and twice it is
    a model that repeats itself.
    """

    def chat(question: Question) -> tuple[Answer, float]:
        ask = partial(
            server[0].chat,
            server[1],
            question.messages,
            schema=question.schema,
            options=dict(options),
            timeout_s=timeout_s,
        )
        with suppress(AnswerCutOff):
            return ask(), time.time()
        return ask(), time.time()

    failed: BaseException | None = None
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        flying = {threads.submit(chat, each): each for each in questions}
        for future in as_completed(flying):
            if future.cancelled():
                continue
            error = future.exception()
            if isinstance(error, AnswerCutOff):
                yield flying[future], None
                continue
            if error:
                failed = failed or error
                for each in flying:
                    each.cancel()
                continue
            answer, ended_at = future.result()
            yield flying[future], Attempt.of(0, answer, ended_at)
    if failed:
        raise failed
