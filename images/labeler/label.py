"""Label the items: reviewed labels first, the teacher's for the rest, doubtful ones apart."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import LabelsMissing, ModelMissing
from contracts.params import (
    LabelMetrics,
    LabelParams,
)
from contracts.stages import (
    ITEMS,
    LABEL_REPORT,
    LABELS,
    QUARANTINE,
    REVIEWED,
)
from images.labeler.asking import Patience, in_parallel
from images.labeler.cache import AnswerCache
from images.labeler.fields import describe
from images.labeler.rows import read_items, read_labels
from images.labeler.teacher import (
    Attempt,
    Conversation,
    Judgement,
    Teacher,
    accepted,
    as_rows,
    judge_output,
)
from serving import connect, full_tag
from serving.engine import Engine, Model
from tasks import load_task
from tasks.definition import Item, Task

_CACHE = "cache/labels.sqlite"


@dataclass
class Labelling:
    """What is known so far, by item id."""

    task: Task
    items: dict[str, Item]
    labels: dict[str, tuple[str, BaseModel]] = field(default_factory=dict)
    """Origin and label."""
    quarantine: dict[str, dict[str, Any]] = field(default_factory=dict)
    violations: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rule and severity: what accepted labels and refused attempts broke."""
    cached: int = 0
    asked: int = 0

    def done(self) -> int:
        """Return how many items are decided."""
        return len(self.labels) + len(self.quarantine)


def work(context: StageContext[LabelParams]) -> LabelMetrics:
    """Write labels.jsonl, quarantine.jsonl and the report.

    The engine is contacted only if an item has no reviewed label. Raises `ModelMissing` for an
    unknown teacher, `EngineUnavailable` when the engine goes away (answers so far are cached),
    `LabelsMissing` when too few items got a valid label.
    """
    task = load_task(context.job.task)
    state = Labelling(task, read_items(context.input(ITEMS), task))
    reviewed = read_labels(context.input(REVIEWED), task, state.items)
    _take_reviewed(state, reviewed)
    unlabelled = [item for key, item in state.items.items() if key not in reviewed]
    context.progress(state.done(), len(state.items), "items")
    if unlabelled:
        engine = connect(os.environ, context.root)
        try:
            _ask_teacher(context, state, engine, unlabelled)
        finally:
            engine.close()
    _write(context, state)
    _require_enough(state, context.params.min_labelled)
    return LabelMetrics(
        reviewed=sum(origin == "reviewed" for origin, _ in state.labels.values()),
        cached=state.cached,
        asked=state.asked,
        quarantined=len(state.quarantine),
    )


def _take_reviewed(state: Labelling, reviewed: dict[str, BaseModel]) -> None:
    """Accept reviewed labels that keep the rules; quarantine the others.

    A person often corrects one field of an answer that a model wrote, placeholders included:
    such a text must not be learned. The teacher is not asked either, since a person has decided.
    """
    for key, output in reviewed.items():
        judgement = judge_output(state.task, state.items[key], output)
        _count(state, judgement)
        if judgement.output is None:
            attempt = Attempt(0, state.task.answer_text(output), finished=True, reason="reviewed")
            _refuse(state, key, "reviewed", [attempt])
        else:
            state.labels[key] = ("reviewed", output)


def _ask_teacher(
    context: StageContext[LabelParams], state: Labelling, engine: Engine, items: list[Item]
) -> None:
    model = _teacher_model(engine, context.params.teacher)
    teacher = Teacher(engine, model, state.task, context.params)
    patience = Patience()
    with AnswerCache(context.root / _CACHE) as cache:
        open_: list[tuple[Item, list[Attempt]]] = []
        for item in items:
            before = [Attempt(**row) for row in cache.get(teacher.key(item)) or ()]
            if accepted(state.task, item, before) or len(before) >= context.params.max_attempts:
                _settle(state, item, Conversation(before))
                state.cached += 1
            else:
                open_.append((item, before))
        context.progress(state.done(), len(state.items), "items")
        asked = in_parallel(lambda row: teacher.label(*row), open_, context.params.concurrency)
        for (item, _), conversation in asked:
            cache.put(teacher.key(item), [asdict(attempt) for attempt in conversation.attempts])
            _settle(state, item, conversation)
            state.asked += 1
            refused = len(state.quarantine)
            context.progress(state.done(), len(state.items), "items", quarantined=refused)
            patience.judge(conversation.failure)


def _teacher_model(engine: Engine, name: str) -> Model:
    models = engine.models()
    if (tag := full_tag(name)) not in models:
        known = ", ".join(sorted(models)) or "no model at all"
        raise ModelMissing(f"{engine.name} has no teacher {tag}", why=f"it has {known}")
    return models[tag]


def _settle(state: Labelling, item: Item, conversation: Conversation) -> None:
    """Take the valid answer of a conversation, or quarantine the item with all of it."""
    found = accepted(state.task, item, conversation.attempts)
    if found is None:
        failure = str(conversation.failure.what) if conversation.failure else ""
        _refuse(state, item.id, "teacher", conversation.attempts, failure)
        return
    judgement = found[1]
    assert judgement.output is not None  # noqa: S101  # what `accepted` is about
    _count(state, judgement)
    state.labels[item.id] = ("teacher", judgement.output)


def _refuse(
    state: Labelling, key: str, origin: str, attempts: list[Attempt], failure: str = ""
) -> None:
    rows = as_rows(state.task, state.items[key], attempts)
    state.quarantine[key] = {"id": key, "origin": origin, "attempts": rows, "failure": failure}


def _count(state: Labelling, judgement: Judgement) -> None:
    state.violations.update({(v.rule, v.severity) for v in judgement.violations})


def _write(context: StageContext[LabelParams], state: Labelling) -> None:
    """Write the outputs, in the items' order."""
    files.write_jsonl(context.output(LABELS), _label_rows(state))
    refused = (state.quarantine[key] for key in state.items if key in state.quarantine)
    files.write_jsonl(context.output(QUARANTINE), refused)
    files.write_json(context.output(LABEL_REPORT), _report(state))


def _label_rows(state: Labelling) -> Iterator[dict[str, Any]]:
    for key in state.items:
        if key in state.labels:
            origin, output = state.labels[key]
            yield {"id": key, "label": json.loads(output.model_dump_json()), "origin": origin}


def _report(state: Labelling) -> dict[str, Any]:
    outputs = [output for _, output in state.labels.values()]
    reasons = Counter(
        broken.split(":")[0]
        for row in state.quarantine.values()
        for attempt in row["attempts"]
        for broken in attempt["broken"]
    )
    return {
        "items": len(state.items),
        "labelled": len(state.labels),
        "quarantined": len(state.quarantine),
        "origins": dict(sorted(Counter(origin for origin, _ in state.labels.values()).items())),
        "strata": dict(sorted(Counter(map(state.task.stratum, outputs)).items())),
        "fields": describe(state.task.output, outputs),
        "rules": [
            {"rule": rule, "severity": severity, "labels": count}
            for (rule, severity), count in sorted(state.violations.items())
        ],
        "quarantine_reasons": dict(reasons.most_common()),
    }


def _require_enough(state: Labelling, least: float) -> None:
    share = len(state.labels) / len(state.items)
    if share < least:
        raise LabelsMissing(
            f"{len(state.labels)} of {len(state.items)} items have a valid label",
            why=f"{share:.1%}, and label.min_labelled asks for {least:.1%}",
        )
