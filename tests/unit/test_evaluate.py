"""Evaluation: asked as the backend asks, scored by the kind of field, decided by thresholds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from contracts.answer_cache import ANSWERS_FILE, AnswerCache
from contracts.errors import EngineUnavailable, InputMissing, SentinelTripped, SettingsInvalid
from contracts.params import EvaluateParams
from images.labeler import evaluate
from images.labeler.measures import measure_names
from serving.engine import Answer, AnswerCutOff
from tests.unit.evaluation import TAG, TASK, Evaluation, engine, right, rows, stage
from tests.unit.labeler_stage import label, read_jsonl, write_jsonl
from tests.unit.scripted_engine import ScriptedEngine, answer

__all__ = ["engine", "stage"]


def test_it_asks_as_the_backend_does_and_cleans_up(
    stage: Evaluation, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "gpu1")
    metrics = stage.evaluate(min_scores={"relevant": 1.0, "priority.macro_f1": 0.9})
    assert (metrics.rows, metrics.valid, metrics.promote) == (6, 6, True)
    errors = {"relevance_score.brier": 0.01, "relevance_score.ece": 0.1}  # 0.9 for what is sure
    assert metrics.scores == {name: errors.get(name, 1.0) for name in metrics.scores}
    rest = [name for name in measure_names(TASK) if name not in {"valid", *TASK.matters}]
    assert list(metrics.scores) == [*TASK.matters, *rest]
    assert metrics.models == {"candidate": "d2"}
    assert metrics.engine == "http://gpu1:11434"
    unload = f"unload {TAG}"
    assert engine.calls == [f"create {TAG}", unload, unload, f"delete {TAG}", "close"]
    in_order = sorted(engine.asked, key=lambda asked: asked["messages"][-1]["content"])
    for asked, row in zip(in_order, rows(6), strict=True):  # several are asked at once
        assert asked["tag"] == TAG
        assert asked["messages"] == row["messages"][:-1]
        assert asked["schema"] is None
        assert asked["options"] == TASK.modelfile().parameters
    verdict = stage.read("verdict")
    assert verdict["promote"] is True
    assert verdict["reasons"] == [
        "valid is 1, at least 0.99 as demanded",
        "rules is 1, at least 0.5 as demanded",
        "rules.positive is 1, at least 0.5 as demanded",
        "relevant is 1, at least 1 as demanded",
        "priority.macro_f1 is 1, at least 0.9 as demanded",
        "no other model is live, so nothing can get worse",
        "no base model is named to compare with",
        "relevant.f1 is 1; the same answer to every row reaches 0.667",
        "priority.kappa is 1; the same answer to every row reaches 0",
        "assigned_aks is 1; the same answer to every row reaches 0.667",
    ]
    first = read_jsonl(stage.out / "answers.jsonl")[0]
    assert (first["id"], first["expected"]) == ("i0", label(None))
    assert first["answers"]["candidate"]["valid"] is True


def test_models_may_be_compared_by_any_measure(stage: Evaluation, engine: ScriptedEngine) -> None:
    metrics = stage.evaluate(measures=("valid", "relevance_score.brier"))
    assert (metrics.valid, next(iter(metrics.scores))) == (6, "relevance_score.brier")
    assert metrics.summary().startswith("6/6 valid, relevance_score.brier (less is better) 0.01,")


def test_no_least_value_is_taken_for_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"relevance_score\.ece: an error, of which less is better"
    ):
        EvaluateParams(min_scores={"relevant": 0.9, "relevance_score.ece": 0.1})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"min_scores": {"relevant.f1": 5}}, r"relevant\.f1: 5: no measure is above 1"),
        ({"min_scores": {"relevant.f2": 0.5}}, r"relevant\.f2 is no measure: .*\.f1, \.macro_f1"),
        ({"measures": ("valid", "relevant.fl")}, r"relevant\.fl is no measure"),
        (
            {"measures": ("rules.positive", "relevant.positive")},
            r"relevant\.positive is no measure",
        ),
    ],
)
def test_what_no_model_can_reach_is_no_setting(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        EvaluateParams(**given)


def test_the_settings_know_every_measure_of_the_task() -> None:
    names = tuple(measure_names(TASK))
    assert EvaluateParams(measures=names).measures == names


def test_without_a_measure_to_compare_by_nothing_begins(
    stage: Evaluation, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_task", lambda _: replace(TASK, matters=()))
    with pytest.raises(SettingsInvalid, match="no measure is named"):
        stage.evaluate(baseline="teacher")
    assert engine.calls == []
    assert stage.evaluate(measures=("rules",)).rows == 6


def test_a_damaged_answer_is_asked_again(stage: Evaluation, engine: ScriptedEngine) -> None:
    stage.evaluate()
    with AnswerCache(stage.folder / ANSWERS_FILE) as cache:
        keys = [key for (key,) in cache._database.execute("SELECT key FROM answers")]
        cache.put(keys[0], {"text": "x"})
        cache.put(keys[1], {**(cache.get(keys[1]) or {}), "seconds": []})
        no_text = "UPDATE answers SET answer = CAST(x'ff' AS TEXT) WHERE key = ?"
        cache._write(no_text, [(keys[2],)])
    stage.evaluate()
    assert len(engine.asked) == 6 + 3


def test_an_adapter_is_asked_on_its_base(stage: Evaluation, engine: ScriptedEngine) -> None:
    metrics = stage.evaluate(base="teacher")
    assert engine.calls[0] == f"create {TAG} on teacher"
    assert metrics.models == {"candidate": "d2", "base": "d1"}


def test_a_refusal_is_a_result_that_names_what_was_missed(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    replies: list[str | Answer | Exception] = [
        json.dumps(label(None)),
        answer("{", finished=False),
        "kein JSON",
    ]
    engine.script = lambda _messages, number: replies[number % 3]
    metrics = stage.evaluate(min_valid=0.9, min_scores={"relevant": 0.3, "assigned_aks": 0.8})
    assert metrics.promote is False
    assert metrics.valid == 2
    assert stage.read("verdict")["reasons"][:5] == [
        "valid is 0.3333, under the 0.9 demanded",
        "rules is 0.3333, under the 0.5 demanded",
        "rules.positive is 0, under the 0.5 demanded",
        "relevant is 0.1667, under the 0.3 demanded",
        "assigned_aks is 0, under the 0.8 demanded",
    ]
    answers = [row["answers"]["candidate"] for row in read_jsonl(stage.out / "answers.jsonl")]
    assert "cut off after 20 tokens" in answers[1]["reason"]
    assert answers[2]["answer"] == "kein JSON"


def test_an_unknown_score_is_refused_before_anything_is_made(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    with pytest.raises(SettingsInvalid, match="relevantt") as caught:
        stage.evaluate(min_scores={"relevantt": 0.9})
    assert "relevant, relevant.precision" in str(caught.value)
    assert engine.calls == []


def test_the_candidate_goes_even_if_the_engine_fails(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    engine.script = lambda _messages, _number: EngineUnavailable("500")
    with pytest.raises(EngineUnavailable, match="500"):
        stage.evaluate(patience_s=0)
    assert engine.calls[-3:] == [f"unload {TAG}", f"delete {TAG}", "close"]
    assert TAG not in engine.tags


def test_one_time_out_is_one_invalid_answer(stage: Evaluation, engine: ScriptedEngine) -> None:
    engine.script = lambda messages, number: (
        EngineUnavailable("no answer within 300 s")
        if "Fall 3\n" in messages[1]["content"]
        else right(messages, number)
    )
    assert stage.evaluate().valid == 5


def test_a_model_that_repeats_itself_gives_invalid_answers_and_no_outage(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    """Ollama cuts it off, each time; a runner that has ended does so once."""
    engine.script = lambda _messages, _number: AnswerCutOff("ended before it was done")
    assert stage.evaluate(patience_s=0).valid == 0
    once: set[str] = set()

    def ends_once(messages: list[dict[str, str]], number: int) -> Any:
        if messages[1]["content"] in once:
            return right(messages, number)
        once.add(messages[1]["content"])
        return AnswerCutOff("ended before it was done")

    engine.script = ends_once
    assert stage.evaluate(patience_s=0).valid == 6


def test_a_limit_asks_the_first_rows(stage: Evaluation, engine: ScriptedEngine) -> None:
    assert stage.evaluate(limit=2).rows == 2
    assert len(engine.asked) == 2


def test_a_damaged_test_row_is_named(stage: Evaluation, engine: ScriptedEngine) -> None:
    write_jsonl(stage.folder / "test.jsonl", [*rows(1), {"id": "x"}])
    with pytest.raises(InputMissing, match="line 2 is no test row"):
        stage.evaluate()


def test_what_got_no_answer_is_asked_again_the_next_time(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    engine.script = lambda messages, number: (
        EngineUnavailable("no answer")
        if "Fall 3" in messages[1]["content"]
        else right(messages, number)
    )
    assert stage.evaluate().valid == 5
    engine.script, engine.asked = right, []
    assert stage.evaluate().valid == 6
    assert len(engine.asked) == 1


def test_broken_label_rules_are_told_and_measured(
    stage: Evaluation, engine: ScriptedEngine
) -> None:
    def invented(messages: list[dict[str, str]], number: int) -> str:
        told = json.loads(str(right(messages, number)))
        summary = "Das Land zahlt 4711 Euro."
        return json.dumps(told | ({"summary": summary} if told["relevant"] else {}))

    engine.script = invented
    metrics = stage.evaluate()
    assert (metrics.scores["rules"], metrics.scores["rules.positive"]) == (0.5, 0.0)
    assert stage.read("scores")["models"]["candidate"]["broken_rules"]["ungrounded-number"] == 3


def test_what_no_answer_is_of_has_no_value(stage: Evaluation, engine: ScriptedEngine) -> None:
    engine.script = lambda _messages, _number: json.dumps(label(None))
    metrics = stage.evaluate()
    assert metrics.promote is False
    assert "rules.positive" not in metrics.scores
    told = stage.read("scores")["models"]["candidate"]
    assert told["measures"]["rules.positive"]["of_nothing"] is True
    assert not any("rules.positive" in each for each in told["by_stratum"].values())
    findings = stage.read("verdict")["findings"]
    (texts,) = [each for each in findings if each["rule"] == "rules.positive"]
    assert (texts["passed"], texts["asked"]) == (True, False)


def test_a_candidate_with_less_context_than_the_task_is_refused(
    stage: Evaluation, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend's requests name none, and a prompt would be cut."""
    for own, shown in ((256, "256"), (None, "not set")):
        monkeypatch.setattr(engine, "num_ctx", lambda _tag, own=own: own)
        with pytest.raises(SentinelTripped, match=f"num_ctx is {shown}, the task's 8192") as caught:
            stage.evaluate()
        assert caught.value.why.startswith("row i0, the longest, has 1 ")
