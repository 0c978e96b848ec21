"""Ask the candidate, the champion and the base model the test split, and decide who goes live.

All are asked the task's messages in the form in which the backend asks: a chat without a JSON
schema, in the serving engine that will serve. The candidate is what will be deployed: the GGUF
with the task's template and parameters. A refusal is a result, not a failure of this stage.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from statistics import median
from typing import Any

from contracts import files
from contracts.answer_cache import ANSWERS_FILE, AnswerCache
from contracts.entrypoint import StageContext
from contracts.errors import EngineUnavailable, SettingsInvalid
from contracts.params import EvaluateMetrics, EvaluateParams
from contracts.stages import ANSWERS, SCORES, TEST_SPLIT, VERDICT
from images.labeler import parity, unanswered
from images.labeler.constant import leads_over_constants, one_sided
from images.labeler.contestants import (
    Contestant,
    Question,
    Reply,
    ask,
    contestants,
    read_questions,
    require_well,
)
from images.labeler.drift import check_candidate
from images.labeler.fields import kinds
from images.labeler.gate import Finding, against, judge
from images.labeler.measures import Measure, is_of_nothing, measure_names, measures
from images.labeler.resampling import Difference, intervals
from images.labeler.tables import confusion, reliability
from serving import Engine, connect, engine_named, full_tag
from tasks import load_task
from tasks.definition import Task

Measured = Mapping[str, Measure]


def work(context: StageContext[EvaluateParams]) -> EvaluateMetrics:
    """Write answers.jsonl, scores.json and verdict.json.

    Raises `SettingsInvalid` for an unknown measure, before anything is created, `SentinelTripped`
    for a candidate that would read other prompts than it was trained on, or is another model,
    `EngineUnavailable` where the engine leaves too many rows without an answer.
    """
    task, params = load_task(context.job.task), context.params
    matters = _require_known(params, task)
    questions = read_questions(context.input(TEST_SPLIT), task)[: params.limit]
    with (
        closing(connect(os.environ, context.root)) as engine,
        AnswerCache(context.root / ANSWERS_FILE) as cache,
        contestants(context, engine, task) as who,
    ):
        base = _base(engine, params.base)
        parity.check(context, engine, who[0].tag, task, questions)
        drift = check_candidate(context, engine, who[0].tag, task)
        replies, silent = _ask_all(context, engine, who, task, questions, cache)

    gone = unanswered.left_out(replies, params.max_unanswered)
    own, shared = unanswered.own(replies, who[0]), unanswered.without(replies, gone)
    measured: dict[str, Measured] = {
        each.role: measures(task, [reply.judged() for reply in said])
        for each, said in shared.items()
    }
    digests: dict[str, str] = {each.role: each.digest for each in who}
    compared = _compare(measured, digests, matters, len(questions) - len(gone))
    judged = [reply.judged() for reply in own]
    by_itself = measures(task, judged)
    above = leads_over_constants(task, judged, by_itself, matters)
    one_side = one_sided(task, judged, above)
    findings = [
        *judge(by_itself, compared, params, above, silent=silent, one_sided=one_side),
        *unanswered.findings(own, gone),
    ]
    _write_answers(context, questions, replies)
    _write_scores(context, task, shared, measured, compared, matters)
    verdict = _write_verdict(context, digests["candidate"], findings, len(own), gone)
    return EvaluateMetrics(
        rows=len(own),
        valid=sum(reply.output is not None for reply in own),
        promote=verdict["promote"],
        scores=_values(by_itself, matters),
        reasons=tuple(verdict["reasons"]),
        silent=digests["champion"] if silent else "",
        models=digests | base,
        engine=engine_named(os.environ),
        drift=drift.divergence if drift else None,
        agreement=drift.agreement if drift else None,
    )


def _ask_all(
    context: StageContext[EvaluateParams],
    engine: Engine,
    who: Sequence[Contestant],
    task: Task,
    questions: Sequence[Question],
    cache: AnswerCache,
) -> tuple[dict[Contestant, list[Reply]], str]:
    """Return every model's replies, and why the champion is not among them, "" where it is.

    Raises `EngineUnavailable` where a champion leaves too much without an answer, and the candidate
    gets none either when it is asked once more: then it is the engine.
    """
    replies: dict[Contestant, list[Reply]] = {}
    silent = ""
    for each in who:
        said = replies[each] = ask(context, engine, each, task, questions, cache)
        if each.role != "champion" or not unanswered.is_silent(said, context.params.max_unanswered):
            continue
        try:
            require_well(context, engine, who[0], task, replies[who[0]])
        except EngineUnavailable as error:
            raise unanswered.engine_failed(replies) from error
        silent = unanswered.broken_champion(each, replies.pop(each))
    return replies, silent


def _compare(
    measured: Mapping[str, Measured],
    digests: Mapping[str, str],
    matters: Sequence[str],
    rows: int,
) -> dict[str, list[Difference]]:
    """Return how the candidate stands to each other model, by its role; to itself under another
    name it does not stand at all.
    """
    return {
        role: against(measured["candidate"], other, matters, rows)
        for role, other in measured.items()
        if role != "candidate" and digests[role] != digests["candidate"]
    }


def _write_verdict(
    context: StageContext[EvaluateParams],
    candidate: str,
    findings: Sequence[Finding],
    rows: int,
    gone: Sequence[Question],
) -> dict[str, Any]:
    """Write verdict.json and return it; `gone` are the rows that no comparison is made on."""
    verdict = {
        "promote": all(each.passed for each in findings),
        "candidate": candidate,
        "reasons": _reasons(findings),
        "rows": rows,
        "left_out": [question.id for question in gone],
        "findings": [asdict(each) for each in findings],
    }
    files.write_json(context.output(VERDICT), verdict)
    return verdict


def _values(measured: Measured, matters: Sequence[str]) -> dict[str, float]:
    """Return the values of all measures but `valid`, those that matter first."""
    names = dict.fromkeys((*matters, *measured))
    told = [name for name in names if not is_of_nothing(name, measured[name])]
    return {name: round(measured[name].observed, 4) for name in told if name != "valid"}


def _base(engine: Engine, name: str) -> dict[str, str]:
    """Return the digest of the model that the candidate is an adapter on, {} for none."""
    return {"base": engine.models()[full_tag(name)].digest} if name else {}


def _require_known(params: EvaluateParams, task: Task) -> tuple[str, ...]:
    """Return the measures to compare models by; raises `SettingsInvalid` for unknown ones, or none.

    With none, no candidate could be found worse than what is live.
    """
    known, matters = measure_names(task), params.measures or task.matters
    for setting, names in (("min_scores", params.min_scores), ("measures", matters)):
        if unknown := sorted(set(names) - set(known)):
            raise SettingsInvalid(
                f"evaluate.{setting} names {', '.join(unknown)}, no measure of {task.name}",
                why=f"the measures are {', '.join(known)}",
            )
    if not matters:
        raise SettingsInvalid(
            "no measure is named to compare models by",
            why=f"evaluate.measures is empty, and {task.name} has none that matter",
            todo=f"Name some in evaluate.measures, of {', '.join(known)}.",
        )
    return matters


def _reasons(findings: Sequence[Finding]) -> list[str]:
    """Return what was found, what refuses the model first."""
    return [each.text for each in sorted(findings, key=lambda each: each.passed)]


def _write_answers(
    context: StageContext[EvaluateParams],
    questions: Sequence[Question],
    replies: Mapping[Contestant, Sequence[Reply]],
) -> None:
    """Write one row for each question, with what every model said."""

    def told(reply: Reply) -> dict[str, Any]:
        return {
            "answer": reply.text,
            "valid": reply.output is not None,
            "reason": reply.reason,
            "broken_rules": list(reply.broken),
            "answer_tokens": reply.answer_tokens,
            "seconds": round(reply.seconds, 3),
        }

    rows = (
        {
            "id": question.id,
            "stratum": question.stratum,
            "expected": json.loads(question.expected.model_dump_json()),
            "answers": {each.role: told(said[number]) for each, said in replies.items()},
        }
        for number, question in enumerate(questions)
    )
    files.write_jsonl(context.output(ANSWERS), rows)


def _write_scores(
    context: StageContext[EvaluateParams],
    task: Task,
    replies: Mapping[Contestant, Sequence[Reply]],
    measured: Mapping[str, Measured],
    compared: Mapping[str, Sequence[Difference]],
    matters: Sequence[str],
) -> None:
    models = {
        who.role: {
            "tag": who.tag,
            "digest": who.digest,
            "measures": {
                name: {key: round(value, 4) for key, value in asdict(found).items()}
                | ({"of_nothing": True} if is_of_nothing(name, measured[who.role][name]) else {})
                for name, found in intervals(measured[who.role], len(said)).items()
            },
            "by_stratum": _by_stratum(task, said),
            "confusion": confusion(task, judged),
            "reliability": reliability(task, judged),
            "broken_rules": dict(Counter(rule for reply in said for rule in reply.broken)),
            "answer_tokens": median(reply.answer_tokens for reply in said),
            "seconds": round(median(reply.seconds for reply in said), 3),
        }
        for who, said in replies.items()
        for judged in [[reply.judged() for reply in said]]
    }
    told = {
        role: [
            {key: value if key == "name" else round(value, 5) for key, value in asdict(d).items()}
            for d in found
        ]
        for role, found in compared.items()
    }
    rows = len(next(iter(replies.values())))
    fields = {name: kind.value for name, kind in kinds(task.output).items()}
    files.write_json(
        context.output(SCORES),
        {
            "rows": rows,
            "fields": fields,
            "matters": list(matters),
            "models": models,
            "compared": told,
        },
    )


def _by_stratum(task: Task, said: Sequence[Reply]) -> dict[str, dict[str, float]]:
    found = {}
    for stratum in sorted({reply.question.stratum for reply in said}):
        own = [reply.judged() for reply in said if reply.question.stratum == stratum]
        found[stratum] = {
            name: round(measure.observed, 4)
            for name, measure in measures(task, own).items()
            if not is_of_nothing(name, measure)
        }
    return found
