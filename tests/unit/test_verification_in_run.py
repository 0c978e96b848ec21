"""A run whose model fails its verification, or gets none."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts import stages
from contracts.errors import (
    BackendUnavailable,
    EngineUnavailable,
    NotVerified,
    RulesNotKept,
    VerifyFailed,
    VerifyUnanswered,
)
from contracts.params import VerifyParams
from driver import (
    preflight,
    promotion,
    served,
    taken_back,
    verification,
)
from driver.host_stages import canaries, verify
from driver.plan import Action, Request, Step
from driver.session import Session
from driver.store import Run
from serving.engine import Answer
from tests.services.ollama_double import good_answer
from tests.services.running_backend import RunningBackend
from tests.unit.verification_world import (
    ALIAS,
    NEW,
    NEW_DIGEST,
    OLD_DIGEST,
    ROWS,
    Killed,
    World,
    by_label,
    kill,
    known_engine,
    session_of,
    world,
)

__all__ = ["known_engine", "world"]

Start = Callable[..., RunningBackend]


def _step(world: World, session: Session) -> Step:
    asked: Request = session.request(stages.VERIFY)
    return Step(asked, Action.RUN, "asked for", "v", world.inputs())


def test_a_run_takes_a_bad_model_back_and_says_so_loudly(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    session = session_of(world)
    session._take_down(Run.create(world.root))
    with pytest.raises(VerifyFailed) as caught:
        session.execute(_step(world, session))
    assert caught.value.exit_code == 27
    assert world.live() == OLD_DIGEST
    assert "! ROLLED BACK: liga-relevance:latest is" in capsys.readouterr().out


def test_what_a_kill_has_left_is_verified_next_or_not_live_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(world)
    world.ollama.script = by_label
    with monkeypatch.context() as patched:
        patched.setattr(canaries, "judge", kill)
        with pytest.raises(Killed):
            world.verify(items=1)
    session.prepare(_step(world, session))
    assert world.live() == NEW_DIGEST
    metrics = {"model": ALIAS, "digest": NEW_DIGEST, "fields": 9, "answer": {}}
    session._take_down(Run.create(world.root))
    result = session.execute(_step(world, session))
    assert session.still_true(stages.VERIFY, result) == ""
    assert result.metrics.items() >= {k: v for k, v in metrics.items() if k != "answer"}.items()
    with monkeypatch.context() as patched:
        patched.setattr(canaries, "judge", kill)
        with pytest.raises(Killed):
            world.verify(items=1)
    assert session.still_true(stages.VERIFY, result) == "its last start was interrupted"
    session.prepare(Step(session.request(stages.REPROCESS), Action.RUN, "", "r", world.inputs()))
    assert world.live() == NEW_DIGEST, "it has passed one before"
    assert verification.read(world.root) is None


def test_what_a_kill_has_left_without_a_verdict_is_not_live_while_another_stage_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(world)
    with monkeypatch.context() as patched:
        patched.setattr(canaries, "judge", kill)
        world.ollama.script = by_label
        with pytest.raises(Killed):
            world.verify(items=1)
    with pytest.raises(NotVerified):  # nobody has verified the older one here either
        session.prepare(
            Step(session.request(stages.REPROCESS), Action.RUN, "", "r", world.inputs())
        )
    assert world.live() == OLD_DIGEST


def test_before_a_run_it_counts_whom_the_backend_will_ask(
    world: World, start_backend: Start
) -> None:
    """With reprocess switched off the verification asks it all the same."""
    world.backend = start_backend(ROWS, OLLAMA_MODEL="qwen3:14b")
    session = session_of(world)
    changed = {"reprocess": session.settings.reprocess.model_copy(update={"enabled": False})}
    session.settings = session.settings.model_copy(update=changed)
    assert preflight._asks_backend(session, [stages.VERIFY])
    assert not preflight._asks_backend(session, [stages.REPROCESS])
    with pytest.raises(BackendUnavailable, match="asks qwen3:14b"):
        preflight.check_reprocess(session, [stages.VERIFY])


def test_another_backend_is_another_verification(world: World, start_backend: Start) -> None:
    """Not its address: that may hold a password, and a job is shown."""
    session = session_of(world)
    first = session.request(stages.VERIFY).environment
    world.backend = start_backend(ROWS)
    second = session_of(world).request(stages.VERIFY).environment
    assert first.startswith(f"{ALIAS} by ")
    assert first != second
    assert world.url not in second


def test_silence_takes_nothing_back_and_the_next_run_verifies(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 40 and no verdict; the model is not marked, and another start asks it again."""
    session = session_of(world)
    changed = {"retry": session.settings.retry.model_copy(update={"times": 0})}
    session.settings = session.settings.model_copy(update=changed)
    session._take_down(Run.create(world.root))
    world.ollama.script = lambda message: 500 if "Titel: Titel" in message else by_label(message)
    with pytest.raises(VerifyUnanswered) as caught:
        session.execute(_step(world, session))
    assert caught.value.exit_code == 40
    assert (world.live(), taken_back.rejected(world.root)) == (NEW_DIGEST, [])
    assert "NOT ROLLED BACK: nothing has shown" in capsys.readouterr().out
    assert verification.read(world.root) is not None
    world.ollama.script = by_label
    session.execute(_step(world, session))
    assert verification.read(world.root) is None
    assert served.is_accepted(world.root, ALIAS, NEW_DIGEST)


@pytest.mark.parametrize("all_silent", [False, True])
def test_a_model_that_alone_is_silent_does_not_stay_live(world: World, *, all_silent: bool) -> None:
    """It may be tried again, since it has said nothing wrong."""
    world.ollama.script = lambda message: (
        500 if all_silent or world.ollama.asked[-1]["digest"] == NEW_DIGEST else by_label(message)
    )
    with pytest.raises(VerifyUnanswered) as caught:
        world.verify()
    verification.failed(world.root, world.engine, caught.value, world.said.append)
    assert world.live() == (NEW_DIGEST if all_silent else OLD_DIGEST)
    assert (verification.read(world.root) is not None) == all_silent
    assert taken_back.rejected(world.root) == []


def test_a_field_that_the_backend_loses_rejects_nobody(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine, asked directly, gives a valid answer, and the version before fares no better."""
    session = session_of(world)
    session._take_down(Run.create(world.root))
    world.ollama.script = by_label
    with _losing_tags(world), pytest.raises(VerifyUnanswered) as caught:
        session.execute(_step(world, session))
    assert "asked directly, gives one" in caught.value.what
    assert "the analysis has no tags" in caught.value.why
    assert (world.live(), taken_back.rejected(world.root)) == (OLD_DIGEST, [])
    said = " ".join(capsys.readouterr().out.replace("!", "").split())
    assert "it may be tried again" in said
    assert f"has no valid answer of {ALIAS} yet: the analysis has no tags" in said
    assert "analysed 0 of the 1 items of the verification again" in said
    world.engine.copy(NEW, ALIAS)
    assert world.verify().failed == 0, "once the backend is mended"


def test_what_passed_before_and_fails_now_is_verified_again(world: World) -> None:
    """It stays live, being no worse than it was, but the result of before counts no more."""
    session = session_of(world)
    session._take_down(Run.create(world.root))
    world.ollama.script = by_label
    step = _step(world, session)
    session.execute(step)
    assert session.store.result(stages.VERIFY.name, "v")
    with _losing_tags(world), pytest.raises(VerifyUnanswered):
        session.execute(step)
    assert world.live() == NEW_DIGEST
    assert session.store.result(stages.VERIFY.name, "v") is None


def test_where_the_engine_fails_when_it_is_asked_directly_nobody_knows(world: World) -> None:
    world.ollama.script = by_label
    with _losing_tags(world), pytest.MonkeyPatch.context() as patched:
        patched.setattr(canaries, "whole_answer", _broken(canaries.whole_answer))
        with pytest.raises(VerifyUnanswered, match="got no answer") as caught:
            world.verify(items=1)
    assert "the analysis has no tags; asked directly: the engine broke" in caught.value.why
    assert taken_back.rejected(world.root) == []


def _broken(ask: Callable[..., Answer]) -> Callable[..., Answer]:
    """Let the engine fail from the second question on; the first is the canary."""
    asked: list[str] = []

    def broken(*arguments: Any, **named: Any) -> Answer:
        asked.append("")
        if len(asked) > 1:
            raise EngineUnavailable("the engine broke")
        return ask(*arguments, **named)

    return broken


@contextmanager
def _losing_tags(world: World) -> Iterator[None]:
    """Let the backend's database lose a field of every analysis, as a faulty migration would."""
    assert world.backend
    database = Path(world.backend.environment["DATA_DIR"]) / "backend.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "CREATE TRIGGER losing AFTER UPDATE ON items BEGIN UPDATE items SET metadata = "
            "json_remove(metadata, '$.llm_analysis.tags') WHERE id = NEW.id; END"
        )
        yield
        connection.execute("DROP TRIGGER losing")


def test_a_rule_broken_in_one_text_rejects_nobody_for_good(world: World) -> None:
    speculation = good_answer(reasoning="Die Liga könnte sich äußern.")
    world.ollama.script = lambda message: (
        speculation if world.ollama.asked[-1]["digest"] == NEW_DIGEST else by_label(message)
    )
    with pytest.raises(RulesNotKept, match="1 of 1 items break a label rule") as caught:
        world.verify(items=1)
    assert "verify.items" in caught.value.todo
    verification.failed(world.root, world.engine, caught.value, world.said.append)
    assert (world.live(), taken_back.rejected(world.root)) == (OLD_DIGEST, [])


def test_a_rule_broken_in_one_text_leaves_live_what_was_accepted(world: World) -> None:
    environment = promotion.environment(world.engine)
    served.accept(world.root, environment, ALIAS, NEW_DIGEST, served.VERIFIED)
    world.ollama.script = lambda _: good_answer(reasoning="Die Liga könnte sich äußern.")
    with pytest.raises(RulesNotKept) as caught:
        world.verify(items=1)
    verification.failed(world.root, world.engine, caught.value, world.said.append)
    assert world.live() == NEW_DIGEST
    assert verification.read(world.root) is None
    (said,) = world.said
    assert said.startswith(f"NOT ROLLED BACK: {NEW} breaks a label rule in a few texts, but it had")


def test_rules_broken_in_many_texts_reject_a_model_for_good(world: World) -> None:
    record = verification.begin(
        world.root, world.engine, ALIAS, "liga_relevance", "", world.root / "none", 1
    )
    seen = [canaries.Canary(str(n), broken=("speculation",), positive=True) for n in range(5)]
    with pytest.raises(VerifyFailed) as caught:
        verify._require_good(VerifyParams(items=5), seen, record)
    assert type(caught.value) is VerifyFailed


def test_answers_that_break_rules_are_taken_back_as_well(world: World) -> None:
    speculation = good_answer(reasoning="Die Liga könnte sich äußern.")
    world.ollama.script = lambda message: (
        speculation if world.ollama.asked[-1]["digest"] == NEW_DIGEST else by_label(message)
    )
    with pytest.raises(VerifyFailed, match="break a label rule"):
        world.verify(items=1)
    world.take_back()
    assert world.live() == OLD_DIGEST
