"""What may be served: accepted models, versions before, and what damaged records leave open."""

from __future__ import annotations

import shutil

import pytest

from contracts import files
from contracts.errors import (
    BackendUnavailable,
    EngineUnavailable,
    FileUnusable,
    NotVerified,
    VerifyUnanswered,
)
from contracts.params import DeployMetrics
from driver import again, damaged, records, recover, served, taken_back, verification, versions
from driver.host_stages import canaries
from driver.store import Run
from serving.ollama import Ollama
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


# --- accepted before -----------------------------------------------------------------------------
def _accepted(world: World) -> None:
    """Let the live model pass one verification."""
    bad, world.ollama.script = world.ollama.script, by_label
    world.verify(items=1)
    world.ollama.script = bad


def test_an_interruption_takes_no_model_back_that_has_passed_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _accepted(world)
    world.ollama.script = by_label
    with monkeypatch.context() as patched:
        patched.setattr(canaries, "judge", kill)
        with pytest.raises(Killed):
            world.verify()
    said: list[str] = []
    recover.recover(world.root, said.append)
    assert world.live() == NEW_DIGEST
    assert any(f"{NEW} has not come to the end of this verification" in line for line in said)
    assert verification.read(world.root) is None


def test_nor_does_what_is_no_fault_of_it(world: World) -> None:
    """The backend asks another model by now, say."""
    _accepted(world)
    world.failed()
    world.take_back(bad=False)
    assert world.live() == NEW_DIGEST
    assert verification.read(world.root) is None


def test_a_wrong_answer_takes_it_back_all_the_same(world: World) -> None:
    _accepted(world)
    world.failed()
    world.take_back()
    assert world.live() == OLD_DIGEST
    world.settle()
    assert world.live() == OLD_DIGEST


def test_a_person_overrules_a_taking_back_that_waits(world: World) -> None:
    """The items could not be asked again yet, so the next start would go on with it."""
    world.failed()
    assert world.backend is not None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(again, "answer", _away)
        world.take_back()
    assert (world.live(), _pending(world)) == (OLD_DIGEST, True)
    versions.roll_back(world.root, world.engine, "liga-relevance", NEW.partition(":")[2])
    world.settle()
    assert world.live() == NEW_DIGEST
    assert not _pending(world)
    assert NEW_DIGEST not in taken_back.rejected(world.root)


def _away(*_: object) -> None:
    raise BackendUnavailable("the backend is away")


def _pending(world: World) -> bool:
    return verification.read(world.root) is not None


# --- damaged records -----------------------------------------------------------------------------
@pytest.mark.parametrize("file", [records.VERIFICATION, records.PROMOTION])
def test_what_nobody_has_verified_does_not_stay_live_behind_a_damaged_record(
    world: World, file: str
) -> None:
    """It is kept aside, and named until a person has dealt with it."""
    world.came_after(NEW_DIGEST, OLD_DIGEST)
    (world.root / file).write_text('{"alias": "liga')
    for _ in range(2):
        with pytest.raises(FileUnusable, match=rf"{file}\.damaged-1"):
            recover.recover(world.root, world.said.append)
    assert world.live() == OLD_DIGEST
    assert (world.root / f"{file}.damaged-1").read_text() == '{"alias": "liga'
    assert not (world.root / file).exists()
    assert sum("ROLLED BACK" in said for said in world.said) == 1
    (world.root / f"{file}.damaged-1").unlink()
    recover.recover(world.root, world.said.append)


@pytest.mark.parametrize("file", [records.VERIFICATION, records.PROMOTION])
def test_nor_where_the_list_of_served_names_is_damaged_too(world: World, file: str) -> None:
    """As after a power cut: the deployments in the store still name what is served."""
    for damaged_one in (file, records.SERVED):
        (world.root / damaged_one).write_text("\0" * 40)
    damaged.settle(world.root, world.said.append)
    assert world.live() == OLD_DIGEST
    assert sum("ROLLED BACK" in said for said in world.said) == 1


def test_nor_a_name_that_only_the_last_run_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its deployment was killed before its result; nothing else is known to be good."""
    shutil.rmtree(world.root / "store" / "deploy")
    run = Run.create(world.root)
    files.write_json(run.folder / "settings.json", {"deploy": {"name": "liga-relevance"}})
    for damaged_one in (records.VERIFICATION, records.SERVED):
        (world.root / damaged_one).write_text("{")
    damaged.settle(world.root, world.said.append)
    assert world.said[-1].startswith("NOT ROLLED BACK: nothing says that what liga-relevance:lat")


def test_what_is_accepted_stays_live_behind_a_damaged_record(world: World) -> None:
    _accepted(world)
    world.came_after(NEW_DIGEST, OLD_DIGEST)
    (world.root / records.VERIFICATION).write_text("{")
    damaged.settle(world.root, world.said.append)
    assert world.live() == NEW_DIGEST


def test_a_damaged_record_waits_for_an_engine_that_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.came_after(NEW_DIGEST, OLD_DIGEST)
    (world.root / records.VERIFICATION).write_text("{")
    with monkeypatch.context() as patched:
        patched.setattr(Ollama, "models", _no_engine)
        damaged.settle(world.root, world.said.append)
    assert "cannot be made sure of now" in world.said[-1]
    with pytest.raises(EngineUnavailable, match="not certain"):
        damaged.require_secured(world.root)
    damaged.settle(world.root, world.said.append)
    damaged.require_secured(world.root)
    assert world.live() == OLD_DIGEST
    assert len(list(world.root.glob("*.damaged-*"))) == 1


def _no_engine(_: object) -> None:
    raise EngineUnavailable("Ollama is away")


def test_a_bad_model_does_not_stay_live_behind_a_damaged_list(world: World) -> None:
    """Every name that can still be read stays taken back; the rest is for a person to say."""
    older, twin = "liga-relevance:20251231-120000", "liga-relevance:20251230-120000"
    world.ollama.models += [older, twin]
    world.came_after(OLD_DIGEST, f"digest of {older}")
    world.came_after(f"digest of {older}", f"digest of {twin}")
    (world.root / records.REJECTED).write_text(f'["{OLD_DIGEST}", "digest of {older}", "cut')
    world.failed()
    world.take_back()
    assert world.live() == f"digest of {twin}"
    assert {OLD_DIGEST, NEW_DIGEST} <= {*taken_back.rejected(world.root)}
    assert "kept as rejected.json.damaged-1" in world.said[0]
    with pytest.raises(FileUnusable, match=r"rejected\.json\.damaged-1"):
        records.require_whole(world.root)


def test_a_service_that_stays_away_keeps_no_bad_model_live(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.failed()
    monkeypatch.setattr(recover, "_restore", _away)
    monkeypatch.setattr(again, "_HEALTHY_S", 0.1)
    with pytest.raises(BackendUnavailable):
        recover.recover(world.root, world.said.append)
    assert world.live() == OLD_DIGEST


# --- which version before ------------------------------------------------------------------------
def test_no_version_that_nobody_was_served_is_gone_back_to(world: World) -> None:
    """One of a deployment that was killed, and one that a person has made to try something."""
    world.ollama.models += ["liga-relevance:20260101-130000", "liga-relevance:try"]
    world.deployed(previous="")
    world.came_after(NEW_DIGEST, "")
    world.failed()
    world.take_back()
    assert world.live() == NEW_DIGEST
    assert world.said[0].startswith("NOT ROLLED BACK: there is no good version")


def test_what_waits_for_a_verdict_is_not_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next model would be taken back to it, and it would stay."""
    newer = "liga-relevance:20260103-120000"
    world.came_after(NEW_DIGEST, OLD_DIGEST)
    world.ollama.models.append(newer)
    world.ollama.script = lambda message: 500 if "Titel: Titel" in message else by_label(message)
    with pytest.raises(VerifyUnanswered):
        world.verify()
    with monkeypatch.context() as patched:
        patched.setattr(Ollama, "models", _no_engine)
        world.settle()
    digest = f"digest of {newer}"
    next_one = DeployMetrics(tag=newer, alias=ALIAS, digest=digest, previous=NEW)
    with pytest.raises(NotVerified, match=f"{NEW} is live, and nobody has verified it"):
        verification.expect(world.root, world.engine, "liga_relevance", next_one)
    world.settle()
    assert world.live() == OLD_DIGEST
    verification.expect(world.root, world.engine, "liga_relevance", next_one)


def test_a_model_without_a_verdict_is_not_proven_by_being_replaced(world: World) -> None:
    newer = "liga-relevance:20260103-120000"
    models = world.engine.models()
    world.came_after(NEW_DIGEST, OLD_DIGEST)
    world.came_after(f"digest of {newer}", NEW_DIGEST)
    assert served.proven(world.root, models, ALIAS) == {OLD_DIGEST}, "of an older driver"
    served.accept(world.root, {}, ALIAS, NEW_DIGEST, served.VERIFIED)
    assert served.proven(world.root, models, ALIAS) == {OLD_DIGEST, NEW_DIGEST}


def test_an_older_good_version_serves_where_the_one_before_was_taken_back(world: World) -> None:
    older = "liga-relevance:20251231-120000"
    world.ollama.models.append(older)
    world.came_after(OLD_DIGEST, f"digest of {older}")
    taken_back.reject(world.root, OLD)
    world.failed()
    world.take_back()
    assert world.live() == f"digest of {older}"


def test_a_twin_of_what_was_taken_back_is_no_way_back(world: World) -> None:
    twin, older = "liga-relevance:20260101-130000", "liga-relevance:20251231-120000"
    world.ollama.models += [older, twin]
    world.engine.copy(OLD, twin)
    world.came_after(OLD_DIGEST, f"digest of {older}")
    taken_back.reject(world.root, OLD)
    world.deployed(previous=twin)
    world.failed()
    world.take_back()
    assert world.live() == f"digest of {older}"
