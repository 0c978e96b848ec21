"""Label the items: reviewed labels first, the teacher's for the rest, doubtful ones apart."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel

from contracts import files
from contracts.derived_labels import gold_sample
from contracts.entrypoint import StageContext
from contracts.errors import EngineUnavailable, LabelsMissing, ModelMissing
from contracts.label_cache import CACHE_FILE, LabelCache, imports_of
from contracts.label_definition import LabelDefinition
from contracts.params import LabelMetrics, LabelParams
from contracts.stages import ITEMS, LABEL_REPORT, LABELS, QUARANTINE, REVIEWED
from images.labeler.asking import server_for
from images.labeler.earlier import Earlier, as_derived, following, judge_for, of_reviews
from images.labeler.label_report import previous_labels, report
from images.labeler.labelling import Decision, Labelling
from images.labeler.pool import Pool
from images.labeler.rows import Unusable, read_items, read_reviews
from images.labeler.server import Server
from images.labeler.teacher import (
    Judgement,
    Question,
    Teacher,
    as_rows,
    judge,
    judge_output,
    remembered,
    unaskable,
    verdict_of,
)
from serving.attempts import Attempt
from serving.engine import Answer
from serving.teachers import (
    TeacherIdentity,
    TeacherServer,
    connect_teachers,
    identify_teacher,
    remembered_teacher,
)
from tasks import load_task
from tasks.definition import Item, Task

_TELL_EVERY_S = 1.0
"""While labels are judged that are there already, thousands a minute."""


def work(context: StageContext[LabelParams]) -> LabelMetrics:
    """Write labels.jsonl, quarantine.jsonl and the report.

    The teacher is contacted only if an item has no review, and needed only if one has no kept
    answer either. Raises `ModelMissing` for an unknown teacher, `EngineUnavailable` when no server
    answers any more (answers so far are cached), `LabelsMissing` when too few items got a valid
    label.
    """
    task = load_task(context.job.task)
    items = read_items(context.input(ITEMS), task)
    imports = imports_of(context.root)  # first: what comes in meanwhile is for the next start
    with LabelCache(context.root / CACHE_FILE) as cache:
        cache.note_definition(LabelDefinition.of(task))
        earlier = cache.noted_definitions(task.name)
    reviewed, unusable, incomplete = read_reviews(
        context.input(REVIEWED), task, items, earlier if context.params.backfill else ()
    )
    state = Labelling(task, items, reviewed, incomplete)
    _take_reviewed(context, state)
    _set_apart(state, unusable)
    _tell(context, state)
    if len(state.decisions) < len(items):
        servers = connect_teachers(os.environ, context.root, context.params.teacher)
        try:
            _ask_teacher(context, state, servers)
        finally:
            for each in servers:
                each.server.close()
    _write(context, state)
    _require_enough(state, context.params.min_labelled)
    origins = [decision.origin for decision in state.decisions.values() if decision.output]
    return LabelMetrics(
        reviewed=origins.count("reviewed"),
        imported=origins.count("imported"),
        cached=state.cached,
        asked=state.asked,
        backfilled=state.backfilled,
        derived=sum(bool(each.derived and each.output) for each in state.decisions.values()),
        quarantined=len(items) - len(origins),
        imports=imports,
    )


def _take_reviewed(context: StageContext[LabelParams], state: Labelling) -> None:
    """Accept reviewed labels that keep the rules; quarantine the others.

    A person often corrects one field of an answer that a model wrote, placeholders included:
    such a text must not be learned. The teacher is not asked either, since a person has decided.
    """
    told = time.monotonic()
    for key, output in state.reviewed.items():
        told = _tell_now_and_then(context, state, told)
        judgement = judge_output(state.task, state.items[key], output)
        attempt = Attempt.given(state.task.answer_text(output), "reviewed")
        state.decide(key, Decision("reviewed", (attempt,), (judgement,)))


def _set_apart(state: Labelling, unusable: dict[str, Unusable]) -> None:
    """Quarantine items whose review is no whole label; only who reviewed them can complete it."""
    for key, review in unusable.items():
        judgement = Judgement(None, [f"format: {review.why}"], [])
        attempt = Attempt.given(review.text, "reviewed")
        state.decide(key, Decision("reviewed", (attempt,), (judgement,)))


# --- the teacher ---------------------------------------------------------------------------------
def _ask_teacher(
    context: StageContext[LabelParams], state: Labelling, servers: Sequence[TeacherServer]
) -> None:
    """Ask for every item without a review, and for a few with one, to see how far they agree."""
    params = context.params
    done = state.decisions.keys() | state.incomplete.keys()
    wanted = [item for key, item in state.items.items() if key not in done]
    wanted += _some_reviewed(state, params.gold_sample) if wanted else []
    with LabelCache(context.root / CACHE_FILE) as cache:
        (tag, digest, told), away = _identify(servers, cache.teachers())
        cache.put_teachers(told)
        shown = [*wanted, *(state.items[key] for key in state.incomplete)]
        teacher = Teacher(tag, digest, state.task, params, shown)
        cache.put_definition(teacher.prefix, teacher.asker.mark, teacher.definition)
        open_ = list(_unanswered(context, state, teacher, cache, wanted))
        open_ += _uncompleted(context, state, teacher, cache)
        if open_ and away:
            raise away
        state.begin_asking()
        _tell(context, state)
        members = _pool(servers, digest, teacher, params.concurrency)
        pool = Pool(
            members,
            params.patience_s,
            answered=_answered(state, teacher),
            is_good=lambda question, answer: _is_good(state, question, answer),
        )
        settled = []
        for question, answer in pool.answers(open_):
            if isinstance(answer, EngineUnavailable):
                state.settle(question, failure=answer.what)
            else:
                heard = _hear(state, cache, question, answer)
                again = following(state.task, heard, params.max_attempts)
                if heard.accepted is None:
                    pool.refuse(again)
                if again is None:
                    state.settle(heard)
                    settled.append(heard)
                    cache.put_derived(filter(None, [as_derived(heard)]))
            _tell(context, state)
        _remember(cache, state.task, settled)


def _identify(
    servers: Sequence[TeacherServer], known: Mapping[str, str]
) -> tuple[TeacherIdentity, EngineUnavailable | None]:
    """Return which model labels, and why nobody can be asked: its kept answers may be enough."""
    try:
        return identify_teacher(servers, known), None
    except EngineUnavailable as error:
        if (found := remembered_teacher(servers, known)) is None:
            raise
        return found, error


def _some_reviewed(state: Labelling, count: int) -> list[Item]:
    """Return reviewed items, chosen by a hash of their ids: the same ones in every run."""
    return [state.items[key] for key in gold_sample(state.reviewed, count)]


def _unanswered(
    context: StageContext[LabelParams],
    state: Labelling,
    teacher: Teacher,
    cache: LabelCache,
    items: Sequence[Item],
) -> Iterator[Question]:
    """Settle what is answered already; yield the rest, items with the very same text together."""
    same: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        same[teacher.key(item)].append(item)
    attempts, rules = cache.attempts(list(same)), state.task.label_digest()
    lacking = {key: group for key, group in same.items() if key not in attempts}
    earlier = Earlier(state.task, teacher, cache, lacking) if context.params.backfill else None
    verdicts = cache.verdicts([*attempts, *(earlier.derived if earlier else ())], rules)
    imported = cache.imported([state.task.item_digest(group[0]) for group in same.values()])
    judged = []
    told = time.monotonic()
    for number, (key, group) in enumerate(same.items()):
        told = _tell_now_and_then(context, state, told, known=f"{number} of {len(same)} looked at")
        question = earlier.known(key) if earlier else None
        if question is None:
            before = Attempt.read(attempts.get(key, ()))
            question = Question(key, tuple(group), before)
        judgements = remembered(state.task, question.attempts, verdicts.get(key, []))
        if judgements is None:
            judgements = tuple(judge(state.task, group[0], each) for each in question.attempts)
            judged.append(replace(question, judgements=judgements))
        question = replace(question, judgements=judgements)
        if earlier and question.accepted is None and key in lacking:
            question = earlier.completed(key, context.params.max_attempts)
            judged += [question] if question.attempts else []
        if question.accepted is not None:
            state.settle(question, cached=True)
            continue
        found = imported.get(state.task.item_digest(group[0]))
        if found and _take_imported(state, question, found.answer, found.source):
            continue  # it mends the quarantine too
        if question.settled(context.params.max_attempts):
            state.settle(question, cached=True)
        elif why := unaskable(state.task, question.item):
            state.settle(question, cached=True, failure=why)
        else:
            yield question
    _remember(cache, state.task, judged)


def _uncompleted(
    context: StageContext[LabelParams], state: Labelling, teacher: Teacher, cache: LabelCache
) -> Iterator[Question]:
    """Settle the reviewed labels of before an edit that are completed already; yield the rest."""
    for question in of_reviews(state.task, teacher, cache, state.incomplete, state.items):
        if question.settled(context.params.max_attempts):
            state.settle(question, cached=True)
        elif why := unaskable(state.task, question.item):
            state.settle(question, cached=True, failure=why)
        else:
            yield question


def _answered(state: Labelling, teacher: Teacher) -> Question | None:
    """Return a question that can be answered well, to tell bad items from the teacher's fault.

    It is one that the teacher has answered well, or else the shortest with a label from elsewhere.
    """
    labelled = {
        key: each.origin for key, each in state.decisions.items() if each.output is not None
    }
    own = (state.items[key] for key, origin in labelled.items() if origin == "teacher")
    item = next(own, None)
    if item is None:
        others = [state.items[key] for key in labelled]
        askable = [each for each in others if not unaskable(state.task, each)]
        item = min(askable, key=lambda each: len(state.task.user_message(each)), default=None)
    return Question(teacher.key(item), (item,)) if item else None


def _is_good(state: Labelling, question: Question, answer: Answer) -> bool:
    """Return whether an answer shows that its server works.

    An item that the teacher has not labelled may be too hard for it: there a whole answer does.
    """
    judgement = judge_for(state.task, question, Attempt.of(0, answer, time.time()))
    if state.decisions[question.item.id].origin == "teacher":
        return judgement.output is not None
    return not {"format", "cut-off"} & set(judgement.faults)


def _remember(cache: LabelCache, task: Task, judged: Iterable[Question]) -> None:
    """Keep what today's rules say, so that they are not asked again; a kill loses no answer.

    A row that was completed is kept as well, whole: a later edit can start from it.
    """
    judged = list(judged)
    cache.put_derived(row for row in map(as_derived, judged) if row)
    rows = ((q.key, [verdict_of(judgement) for judgement in q.judgements]) for q in judged)
    cache.put_verdicts(task.label_digest(), rows)


def _take_imported(state: Labelling, question: Question, answer: str, source: str) -> bool:
    """Take an answer from elsewhere for the items without a review, if it keeps today's rules.

    Reviewed ones of the sample with the same text are then not asked for either: the teacher's
    answer would be one to all of them, and take the label's place at the next start.
    """
    wanted = [item for item in question.items if item.id not in state.reviewed]
    if not wanted:
        return False
    attempt = Attempt.given(answer, f"imported from {source}")
    judgement = judge(state.task, question.item, attempt)
    if judgement.output is None:
        return False
    for item in wanted:
        state.decide(item.id, Decision("imported", (attempt,), (judgement,)))
    return True


def _pool(
    servers: Sequence[TeacherServer], digest: str, teacher: Teacher, ceiling: int
) -> list[Server[Question]]:
    return [
        server_for(
            each.server,
            each.tag,
            teacher.request,
            name=each.address,
            ceiling=ceiling,
            ready=lambda each=each: _require_same(each, digest),  # type: ignore[misc]
        )
        for each in servers
    ]


def _require_same(each: TeacherServer, digest: str) -> None:
    """Raise `ModelMissing` for a server whose teacher is another model under the same name."""
    found = each.model()
    if each.tells_digest and found.digest != digest:
        raise ModelMissing(
            f"{each.tag} at {each.address} is not the teacher of the other servers",
            why=f"its digest is {found.digest[:12]}, not {digest[:12]}",
            todo=f"`ollama pull {each.tag}` on both, or take one out of the setting `teachers`.",
        )


def _hear(state: Labelling, cache: LabelCache, question: Question, answer: Answer) -> Question:
    """Keep an answer before anything is made of it."""
    attempt = Attempt.of(len(question.attempts), answer, time.time())
    attempts = (*question.attempts, attempt)
    cache.put(question.key, [asdict(each) for each in attempts])
    judgement = judge_for(state.task, question, attempt)
    state.hear(attempt, judgement)
    return replace(question, attempts=attempts, judgements=(*question.judgements, judgement))


def _tell(context: StageContext[LabelParams], state: Labelling) -> None:
    context.progress(len(state.decisions), len(state.items), "items", **state.figures())


def _tell_now_and_then(
    context: StageContext[LabelParams], state: Labelling, told: float, **more: str
) -> float:
    """Say how far it is, if that was `told` long enough ago; return when it was told last."""
    now = time.monotonic()
    if now - told < _TELL_EVERY_S:
        return told
    figures = {**state.figures(), **more}
    context.progress(len(state.decisions), len(state.items), "items", **figures)
    return now


# --- what is written -----------------------------------------------------------------------------
def _write(context: StageContext[LabelParams], state: Labelling) -> None:
    """Write the outputs, in the items' order."""
    decisions = [(key, state.decisions[key]) for key in state.items]
    files.write_jsonl(
        context.output(LABELS),
        (_row(key, each, each.output) for key, each in decisions if each.output is not None),
    )
    files.write_jsonl(
        context.output(QUARANTINE),
        (
            {
                "id": key,
                "origin": each.origin,
                "attempts": as_rows(each.attempts, each.judgements),
                "failure": each.failure,
            }
            for key, each in decisions
            if each.output is None
        ),
    )
    previous = previous_labels(context.folder, state.task, state.items)
    files.write_json(context.output(LABEL_REPORT), report(state, previous))


def _row(key: str, decision: Decision, output: BaseModel) -> dict[str, Any]:
    """Return a label as it is written; one of earlier answers says of which."""
    row = {"id": key, "label": json.loads(output.model_dump_json()), "origin": decision.origin}
    return {**row, "derived": decision.derived} if decision.derived else row


def _require_enough(state: Labelling, least: float) -> None:
    share, barred = state.labelled / len(state.items), state.barred_reviews
    if share < least:
        raise LabelsMissing(
            f"{state.labelled} of {len(state.items)} items have a valid label",
            why=f"{share:.1%}, and label.min_labelled asks for {least:.1%}"
            + (f"; {barred} reviewed ones are in quarantine" if barred else ""),
        )
