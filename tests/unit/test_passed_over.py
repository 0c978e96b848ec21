"""A version before that is broken itself: an older one is served that answers, through any kill."""

from __future__ import annotations

import itertools
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from contracts import files
from contracts.params import DeployMetrics
from contracts.stage import OutputRef, Result
from contracts.stages import EVALUATE
from driver import again, passed_over, promotion, served, taken_back, verification, versions
from driver.adapters.backend import Backend
from driver.store import Store
from serving.ollama import Ollama
from tests.jobs import job_of
from tests.unit.verification_world import (
    ALIAS,
    NEW,
    NEW_DIGEST,
    OLD,
    OLD_DIGEST,
    Killed,
    World,
    by_label,
    kill,
    known_engine,
    world,
)

__all__ = ["known_engine", "world"]

OLDEST = "liga-relevance:20251231-120000"
OLDEST_DIGEST = f"digest of {OLDEST}"


@pytest.fixture
def three(world: World) -> World:
    """Return a world whose verification has failed, with two versions before."""
    world.ollama.models.append(OLDEST)
    accept(world, OLDEST_DIGEST)
    world.came_after(OLD_DIGEST, OLDEST_DIGEST)
    world.came_after(NEW_DIGEST, OLD_DIGEST)
    world.failed()
    return world


def accept(world: World, digest: str, why: str = served.VERIFIED) -> None:
    served.accept(world.root, promotion.environment(world.engine), ALIAS, digest, why)


def answer(world: World, said: dict[str, str | int]) -> None:
    """Let these models say this, and every other answer well."""
    world.ollama.script = lambda message: said.get(
        world.ollama.asked[-1]["digest"], by_label(message)
    )


@pytest.mark.parametrize("said", ["kein JSON", 500], ids=["unusable", "cannot be loaded"])
def test_a_version_before_that_is_broken_gives_way_to_one_that_answers(
    three: World, monkeypatch: pytest.MonkeyPatch, said: str | int
) -> None:
    """The service is back on the one before first, and only then anybody is asked."""
    answer(three, {OLD_DIGEST: said})
    seen: list[str] = []
    real = passed_over.instead

    def noted(*given: Any) -> Any:
        seen.append(three.live())
        return real(*given)

    monkeypatch.setattr(passed_over, "instead", noted)
    three.take_back()
    assert (seen, three.live()) == ([OLD_DIGEST], OLDEST_DIGEST)
    assert three.asked()[-1][1] == "dig", "the items have its answers"
    assert three.ollama.loaded[OLDEST_DIGEST] == ALIAS
    assert OLD_DIGEST not in taken_back.rejected(three.root)
    (told,) = (line for line in three.said if "PASSED OVER" in line)
    assert told.startswith(f"{ALIAS} is {OLDEST} now")
    assert f"{OLD}, since it" in told


@pytest.mark.parametrize("said", [503, 504, "late", "once"])
def test_no_version_is_passed_over_for_what_can_be_the_engine_or_chance(
    three: World, monkeypatch: pytest.MonkeyPatch, said: int | str
) -> None:
    old = Counter[str]()

    def script(message: str) -> str | int:
        digest = three.ollama.asked[-1]["digest"]
        old[digest] += 1
        if digest != OLD_DIGEST or (said == "once" and old[digest] > 1):
            return by_label(message)
        if said == "late" and old[digest] == 1:
            time.sleep(0.4)
        return {"late": by_label(message), "once": "kein JSON"}.get(str(said), 503)

    monkeypatch.setattr(passed_over, "_LIMIT_S", 0.2 if said == "late" else 60)
    three.ollama.script = script
    three.take_back()
    assert three.live() == OLD_DIGEST
    assert any(f"{OLD} stays live" in line for line in three.said) == (said != "once")


def test_where_no_older_version_answers_the_one_before_stays(three: World) -> None:
    answer(three, {OLD_DIGEST: 500, OLDEST_DIGEST: 500})
    three.take_back()
    assert three.live() == OLD_DIGEST
    assert any("since no older version is better" in line for line in three.said)


def test_a_version_that_stays_without_a_valid_answer_is_not_said_to_answer(three: World) -> None:
    answer(three, {NEW_DIGEST: 500, OLD_DIGEST: 500, OLDEST_DIGEST: "kein JSON"})
    three.silent()
    assert three.live() == OLDEST_DIGEST
    (told,) = (line for line in three.said if "PASSED OVER" in line)
    assert told.endswith(f"PASSED OVER: {OLD}, since it gives no answer to the canary")
    assert "which answers" not in told


def test_what_was_left_by_name_for_a_bad_model_is_the_way_back_from_it(world: World) -> None:
    accept(world, OLD_DIGEST)
    world.came_after(NEW_DIGEST, OLD_DIGEST)
    versions.roll_back(world.root, world.engine, "liga-relevance")
    assert served.taken_back_by(world.root, ALIAS, NEW_DIGEST) == served.BY_ROLLBACK
    versions.roll_back(world.root, world.engine, "liga-relevance", NEW)
    world.failed()
    world.take_back()
    assert world.live() == OLD_DIGEST
    assert served.taken_back_by(world.root, ALIAS, NEW_DIGEST) == served.BY_VERIFICATION


def test_a_version_that_a_person_has_let_be_live_since_is_that_persons_to_answer_for(
    three: World,
) -> None:
    versions.roll_back(three.root, three.engine, "liga-relevance", OLD)
    answer(three, {OLD_DIGEST: 500})
    three.settle()
    assert three.live() == OLD_DIGEST
    assert verification.read(three.root) is None


def test_one_that_a_person_has_asked_for_long_ago_is_not(three: World) -> None:
    accept(three, OLD_DIGEST, served.ASKED_FOR)
    answer(three, {OLD_DIGEST: 500})
    three.take_back()
    assert three.live() == OLDEST_DIGEST


def test_a_champion_that_was_silent_when_evaluated_is_not_waited_for(three: World) -> None:
    output = OutputRef(path="o", digest="o", bytes=1)
    result = Result(
        stage="evaluate",
        fingerprint="e",
        outputs={each.name: output for each in EVALUATE.outputs},
        metrics={
            "rows": 1,
            "valid": 1,
            "promote": False,
            "scores": {},
            "silent": OLD_DIGEST,
            "models": {"champion": OLD_DIGEST},
        },
        seconds=1,
        finished_at="2026-01-02T13:00:00+00:00",
    )
    job = job_of(EVALUATE, fingerprint="e")
    place = Store(three.root).prepare(job).parent
    files.write_json(place / "result.json", result.model_dump(mode="json"))
    three.take_back()
    assert three.live() == OLDEST_DIGEST
    assert OLD_DIGEST not in {request["digest"] for request in three.ollama.asked}


def test_a_version_before_is_asked_too_where_a_kill_came_before_the_first_question(
    three: World,
) -> None:
    (three.root / verification.RECORD).unlink()
    three.ollama.digests[ALIAS] = OLD_DIGEST
    deployed = DeployMetrics(tag=NEW, alias=ALIAS, digest=NEW_DIGEST, previous=OLD)
    verification.expect(three.root, three.engine, "liga_relevance", deployed)
    three.ollama.digests[ALIAS] = NEW_DIGEST
    answer(three, {OLD_DIGEST: 500})
    three.settle()
    assert three.live() == OLDEST_DIGEST


def test_a_runner_that_restarts_loses_no_version(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passed_over, "_PAUSE_S", 0.6)
    began: list[float] = []

    def script(message: str) -> str | int:
        if three.ollama.asked[-1]["digest"] != OLD_DIGEST:
            return by_label(message)
        began.append(time.monotonic())
        return by_label(message) if began[-1] - began[0] > 0.3 else 500

    three.ollama.script = script
    three.take_back()
    assert three.live() == OLD_DIGEST


@pytest.mark.parametrize("said", [500, 503])
def test_where_the_new_one_and_the_one_before_are_silent_an_older_one_that_answers_is_served(
    three: World, said: int
) -> None:
    answer(three, {NEW_DIGEST: said, OLD_DIGEST: said})
    three.silent()
    assert three.live() == OLDEST_DIGEST
    assert three.ollama.loaded[OLDEST_DIGEST] == ALIAS
    assert any(f"PASSED OVER: {OLD}, since it gives no answer" in line for line in three.said)


def test_an_accepted_model_that_is_silent_stays_and_the_way_to_another_is_named(
    three: World,
) -> None:
    accept(three, NEW_DIGEST)
    answer(three, {NEW_DIGEST: 500})
    three.silent()
    assert three.live() == NEW_DIGEST
    assert three.said[-1].startswith(f"NOT ROLLED BACK: {NEW}")
    assert three.said[-1].endswith("`driver rollback VERSION` lets another be live.")


def test_an_engine_that_comes_back_meanwhile_was_silent_itself(three: World) -> None:
    three.ollama.asked.clear()
    three.ollama.script = lambda message: by_label(message) if three.ollama.asked[2:] else 503
    three.silent()
    assert three.live() == NEW_DIGEST


@pytest.mark.parametrize("begun", [True, False])
def test_a_new_attempt_passes_over_nothing_that_an_earlier_one_has(
    three: World, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    answer(three, {OLD_DIGEST: "kein JSON"})
    with monkeypatch.context() as patched:
        patched.setattr(again, "answer", kill)
        with pytest.raises(Killed):
            three.take_back(bad=False)
    assert (three.live(), list(three.record().passed_over)) == (OLDEST_DIGEST, [OLD])
    deployed = DeployMetrics(tag=NEW, alias=ALIAS, digest=NEW_DIGEST, previous=OLD)
    verification.expect(three.root, three.engine, "liga_relevance", deployed)
    three.ollama.digests[ALIAS] = NEW_DIGEST
    answer(three, {NEW_DIGEST: "kein JSON"})
    if begun:
        three.failed()
    assert (three.record().passed_over, three.record().asked) == ({}, None)
    three.take_back()
    assert three.live() == OLD_DIGEST


Make = Callable[[World], None]


def _wrong(world: World) -> None:
    world.take_back()


def _silent(world: World) -> None:
    """Both say nothing, as the verification has found."""
    answer(world, {OLD_DIGEST: 500, NEW_DIGEST: 500})
    world.silent()


@pytest.mark.parametrize(
    ("undo", "asked_for", "person"),
    [(_wrong, True, False), (_wrong, True, True), (_silent, False, False)],
)
def test_a_kill_after_any_outside_write_is_made_good_at_the_next_start(
    three: World, monkeypatch: pytest.MonkeyPatch, undo: Make, *, asked_for: bool, person: bool
) -> None:
    """Also where a person had asked for the broken one long ago: it is we who let it be live.

    One who asks for it after the kill gets it, and answers for it.
    """
    if asked_for:
        accept(three, OLD_DIGEST, served.ASKED_FOR)
    answer(three, {OLD_DIGEST: "kein JSON", NEW_DIGEST: "kein JSON"})
    kept = three.root.with_name("kept")
    shutil.copytree(three.root, kept)
    digests, models = dict(three.ollama.digests), list(three.ollama.models)
    for left in itertools.count():
        shutil.rmtree(three.root)
        shutil.copytree(kept, three.root)
        three.ollama.digests, three.ollama.models[:] = dict(digests), models
        three.ollama.loaded.clear()
        three.said.clear()
        killed = _killed_after(three, monkeypatch, left, undo)
        for said in filter(None, [promotion.settle(three.root)]):
            three.said.append(said)
        if person:
            versions.roll_back(three.root, three.engine, "liga-relevance", OLD)
        three.settle()
        assert three.live() == (OLD_DIGEST if person else OLDEST_DIGEST), left
        assert verification.read(three.root) is None
        assert not (three.root / promotion.RECORD).exists()
        if not person:
            assert three.asked()[-1][1] == "dig", left
            assert any("PASSED OVER" in line for line in three.said), left
        three.said.clear()
        three.settle()
        assert three.said == []
        if not killed:
            break
    assert left > 10


def _killed_after(world: World, monkeypatch: pytest.MonkeyPatch, left: int, undo: Make) -> bool:
    """Take back, killed after `left` writes and one; return whether there were as many."""
    killed = False
    writes = itertools.count()

    def killing(real: Any) -> Any:
        def write(*given: Any, **named: Any) -> Any:
            nonlocal killed
            found = real(*given, **named)
            if next(writes) == left:
                killed = True
                raise Killed
            return found

        return write

    with monkeypatch.context() as patched:
        for owner, name in (
            *((files, "write_json"), (files, "remove")),
            *((Ollama, "copy"), (Ollama, "unload"), (Backend, "reprocess_item")),
        ):
            patched.setattr(owner, name, killing(getattr(owner, name)))
        with suppress(Killed):
            undo(world)
    return killed
