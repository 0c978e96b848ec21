"""The plan: what is reused, what runs, and the reason that is given."""

from __future__ import annotations

from dataclasses import replace

from contracts.stage import InputRef, Job, OutputRef, Result, Stage
from contracts.stages import (
    BY_NAME,
    DEPLOY,
    MERGE,
    SPLIT,
    TRAIN,
)
from driver.plan import Action, Request, fingerprint, make_plan

TRAIN_ONLY = replace(TRAIN, inputs=())
"""Training without inputs stands at the head of the pipelines below."""
CONVERT = replace(BY_NAME["gguf"])
MERGE_ONLY = replace(MERGE, inputs=(TRAIN.outputs[0],))


def request(stage: Stage, **changes: object) -> Request:
    params = stage.params.model_validate(changes)
    return Request(
        stage=stage,
        params=params.model_dump(mode="json"),
        identity=params.identity(),
        code_digest="code-1",
        task="t",
        task_digest="task-1",
    )


class Memory:
    """A store in memory: `finish` records an execution as the driver would."""

    def __init__(self) -> None:
        self.results: dict[tuple[str, str], Result] = {}
        self.last: dict[str, tuple[Job, Result]] = {}

    def finish(self, requests: list[Request], salt: str = "") -> None:
        made: dict[str, OutputRef] = {}
        for each in requests:
            inputs = {
                a.name: InputRef.model_validate(made[a.name].model_dump())
                for a in each.stage.inputs
            }
            mark = fingerprint(each, inputs)
            outputs = {
                a.name: OutputRef(path=a.filename, digest=f"{a.name}-{mark}{salt}", bytes=1)
                for a in each.stage.outputs
            }
            result = Result(
                stage=each.stage.name,
                fingerprint=mark,
                outputs=outputs,
                metrics={},
                seconds=1,
                finished_at="2026-01-01T00:00:00+00:00",
            )
            job = each.job("r", mark, inputs)
            self.results[each.stage.name, mark] = result
            self.last[each.stage.name] = (job, result)
            made |= outputs

    def plan(self, requests: list[Request], outside: str = "") -> dict[str, tuple[Action, str]]:
        steps = make_plan(
            requests,
            lambda stage, mark: self.results.get((stage, mark)),
            self.last.get,
            lambda _stage, _result: outside,
        )
        return {step.stage.name: (step.action, step.reason) for step in steps}


PIPELINE = [request(TRAIN_ONLY), request(MERGE_ONLY), request(CONVERT)]


def test_a_first_run_runs_everything_and_says_why() -> None:
    assert Memory().plan(PIPELINE) == {
        "train": (Action.RUN, "it has never finished"),
        "merge": (Action.RUN, "train will run"),
        "gguf": (Action.RUN, "merge and train will run"),
    }


def test_nothing_changed_is_reused() -> None:
    store = Memory()
    store.finish(PIPELINE)
    assert {action for action, _ in store.plan(PIPELINE).values()} == {Action.REUSE}


def test_a_changed_param_is_named_and_runs_what_follows() -> None:
    store = Memory()
    store.finish(PIPELINE)
    changed = [request(TRAIN_ONLY, learning_rate=1e-4), *PIPELINE[1:]]
    assert store.plan(changed) == {
        "train": (Action.RUN, "learning_rate: 0.0002 → 0.0001"),
        "merge": (Action.RUN, "train will run"),
        "gguf": (Action.RUN, "merge and train will run"),
    }


def test_what_comes_before_a_change_is_reused() -> None:
    store = Memory()
    store.finish(PIPELINE)
    changed = [PIPELINE[0], request(MERGE_ONLY, dtype="fp32"), PIPELINE[2]]
    plan = store.plan(changed)
    assert plan["train"][0] is Action.REUSE
    assert plan["merge"] == (Action.RUN, "dtype: bf16 → fp32")


def test_code_task_and_base_image_are_part_of_the_identity() -> None:
    store = Memory()
    store.finish(PIPELINE)
    head, *rest = PIPELINE
    for changed, reason in (
        (replace(head, code_digest="code-2"), "the code has changed"),
        (replace(head, task_digest="task-2"), "the task definition has changed"),
        (replace(head, environment="b"), "the image's base or build arguments have changed"),
    ):
        assert store.plan([changed, *rest])["train"] == (Action.RUN, reason)


def test_a_changed_input_is_named() -> None:
    store = Memory()
    store.finish(PIPELINE)
    store.finish(PIPELINE[:1], salt="-other-bytes")
    assert store.plan(PIPELINE)["merge"] == (Action.RUN, "lora_adapter has changed")


def test_a_lost_result_is_made_again() -> None:
    store = Memory()
    store.finish(PIPELINE)
    store.results = {key: value for key, value in store.results.items() if key[0] != "train"}
    assert store.plan(PIPELINE)["train"] == (Action.RUN, "its result is missing or damaged")


def test_settings_that_do_not_change_the_result_do_not_change_the_fingerprint() -> None:
    slow = request(replace(BY_NAME["evaluate"], inputs=()), timeout_s=1)
    fast = request(replace(BY_NAME["evaluate"], inputs=()), timeout_s=900, concurrency=8)
    assert fingerprint(slow, {}) == fingerprint(fast, {})
    assert fingerprint(request(SPLIT, seed=1), {}) != fingerprint(request(SPLIT, seed=2), {})


def test_an_effect_is_done_only_if_the_outside_agrees() -> None:
    store = Memory()
    deploy = [request(replace(DEPLOY, inputs=()))]
    store.finish(deploy)
    assert store.plan(deploy)["deploy"][0] is Action.REUSE
    gone = store.plan(deploy, outside="the alias is gone")
    assert gone["deploy"] == (Action.RUN, "the alias is gone")
