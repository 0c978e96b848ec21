"""A model that fails its verification is taken back, whatever kills the driver meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import (
    CandidateRefused,
    FileUnusable,
)
from contracts.stage import InputRef
from contracts.stages import DEPLOY, EVALUATE
from driver import (
    again,
    preflight,
    promotion,
    recover,
    restoration,
    taken_back,
    verification,
)
from driver.adapters import backend_edits
from driver.adapters.backend import Backend
from driver.adapters.items import storage_of
from driver.host_stages import canaries, reanalysis
from driver.host_stages.record import Record
from driver.plan import Action, Step
from driver.store import Run
from serving.ollama import Ollama
from tasks import load_task
from tests.services.ollama_double import OllamaDouble
from tests.services.running_backend import BackendProcess, RunningBackend
from tests.unit.verification_world import (
    ALIAS,
    GGUF,
    NEW,
    NEW_DIGEST,
    OLD,
    OLD_DIGEST,
    ROWS,
    Killed,
    World,
    bad_by_model,
    by_label,
    kill,
    known_engine,
    session_of,
    world,
)

__all__ = ["known_engine", "world"]

Start = Callable[..., RunningBackend]


def test_the_version_before_is_live_again_and_answers_the_items(world: World) -> None:
    (asked,) = world.failed()
    world.take_back()
    assert world.live() == OLD_DIGEST
    assert world.ollama.loaded == {OLD_DIGEST: ALIAS}, "the new model's runner is gone"
    assert world.asked()[-1] == (asked, "old")
    assert world.backend is not None
    assert world.backend.get(f"/api/items/{asked}")["summary"] != "Alt."
    assert world.kept()[asked]["summary"] == "Alt."
    assert taken_back.rejected(world.root) == sorted([GGUF, NEW, NEW_DIGEST])
    assert verification.read(world.root) is None
    loud, back = world.said
    assert loud.startswith(f"ROLLED BACK: {ALIAS} is {OLD} again (digest {OLD_DIGEST[:12]}")
    assert f"healthy and asks {ALIAS}" in back
    assert "no way to write their old fields back" in back
    assert "canaries.jsonl" in back


@pytest.mark.usefixtures("known_engine")
def test_what_the_items_held_is_given_back_where_the_backend_lets_it(
    tmp_path: Path, ollama: OllamaDouble, start_backend: Start
) -> None:
    """The old model's new answer to the item is what the driver has left there."""
    ollama.script = bad_by_model(ollama)
    edits = {"ITEM_EDITS": "PATCH", "ITEM_EDIT_FIELDS": "summary metadata is_manually_reviewed"}
    world = World(tmp_path / "workspace", ollama, start_backend(ROWS, **edits))
    (asked,) = world.failed()
    world.take_back()
    (kept,) = Record.every(world.root)
    (run,) = kept.about().runs
    assert f"`driver reprocess --restore {run} --yes` writes back" in world.said[-1]
    backend, storage = Backend(world.url), storage_of(load_task("liga_relevance"))
    found = restoration.differences(backend, storage, kept)
    restoration.write_back(backend, storage, kept, found, backend_edits.find(backend))
    assert backend.item(asked)["summary"] == "Alt."


def test_what_gave_no_answer_may_be_tried_again(world: World) -> None:
    """The engine or the backend went away: the model is not to blame."""
    world.failed()
    world.take_back(bad=False)
    assert world.live() == OLD_DIGEST
    assert taken_back.rejected(world.root) == []


def test_what_was_taken_back_is_not_promoted_again(world: World) -> None:
    world.failed()
    world.take_back()
    files.write_json(world.root / "verdict.json", {"promote": True, "findings": []})
    given = {
        name: InputRef(path="verdict.json", digest=digest, bytes=1)
        for name, digest in (("verdict", "v"), ("gguf", GGUF))
    }
    with pytest.raises(CandidateRefused, match="was taken back") as caught:
        preflight.check_candidate(session_of(world), given)
    assert "verification failed" in caught.value.why


def test_what_was_taken_back_is_refused_before_it_is_evaluated_for_a_run(world: World) -> None:
    """Whatever is live: the backend is not stopped for it. An evaluation alone may be of it."""
    taken_back.reject(world.root, GGUF)
    gguf = InputRef(path="model.gguf", digest=GGUF, bytes=1)
    session = session_of(world)
    step = Step(session.request(EVALUATE), Action.RUN, "another is live", "f", {"gguf": gguf})
    session._take_down(Run.create(world.root))
    session.prepare(step)
    session._note(DEPLOY, state="planned")
    with pytest.raises(CandidateRefused, match="was taken back"):
        session.prepare(step)


@pytest.mark.parametrize("reason", ["nothing", "rejected", "gone"])
def test_without_a_good_version_before_nothing_is_taken_away(world: World, reason: str) -> None:
    if reason == "nothing":
        world.deployed(previous="")
    if reason == "rejected":
        taken_back.reject(world.root, OLD)
    else:
        world.ollama.models.remove(OLD)
    (asked,) = world.failed()
    world.take_back()
    assert world.live() == NEW_DIGEST
    (said,) = world.said
    assert said.startswith(f"NOT ROLLED BACK: there is no good version before {NEW}")
    assert "canaries.jsonl" in said
    assert GGUF in taken_back.rejected(world.root)
    assert asked == world.failed()[0], "it goes on failing"


def test_a_model_whose_deployment_was_killed_is_known_by_its_digest(world: World) -> None:
    """Without a result nobody knows its GGUF; the verdict names the model."""
    taken_back.reject(world.root, NEW_DIGEST)
    verdict = {"promote": True, "findings": [], "candidate": NEW_DIGEST}
    files.write_json(world.root / "verdict.json", verdict)
    given = {
        name: InputRef(path="verdict.json", digest=digest, bytes=1)
        for name, digest in (("verdict", "v"), ("gguf", GGUF))
    }
    with pytest.raises(CandidateRefused, match="was taken back"):
        preflight.check_candidate(session_of(world), given)


def test_a_model_that_passes_after_all_may_go_live_again(world: World) -> None:
    taken_back.reject(world.root, NEW, GGUF, "another")
    world.ollama.script = by_label
    world.verify(items=1)
    assert taken_back.rejected(world.root) == ["another"]


def _places() -> list[tuple[Any, str]]:
    """Return every call of the taking back that changes something outside."""
    return [
        (taken_back, "reject"),
        (verification, "_written"),
        (promotion, "switch"),
        (Ollama, "copy"),
        (Ollama, "unload"),
        (Backend, "reprocess_item"),
        (reanalysis, "reprocess"),
        (verification, "_drop"),
    ]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("place", range(len(_places())), ids=[n for _, n in _places()])
def test_the_next_start_finishes_what_a_kill_has_left(
    world: World, monkeypatch: pytest.MonkeyPatch, place: int, *, after: bool
) -> None:
    (asked,) = world.failed()
    owner, name = _places()[place]
    real = getattr(owner, name)

    def killed(*given: Any, **named: Any) -> Any:
        if after:
            real(*given, **named)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with suppress(Killed):
            world.take_back()
    # A run may be killed in that too; `recover` is for both.
    for said in filter(None, [promotion.settle(world.root)]):
        world.said.append(said)
    world.settle(unfinished=True)
    assert world.live() == OLD_DIGEST
    assert world.asked()[-1] == (asked, "old")
    assert verification.read(world.root) is None
    assert not (world.root / promotion.RECORD).exists()
    assert world.kept()[asked]["summary"] == "Alt."
    world.said.clear()
    world.settle(unfinished=True)
    assert world.said == []


def test_items_of_a_task_without_titles_get_the_answers_of_the_model_that_is_back(
    world: World,
) -> None:
    """Also those that an older driver has kept with a title of null."""
    (asked,) = world.failed()
    kept = world.root / "store" / "verify" / "v" / "work" / "canaries.jsonl"
    files.write_jsonl(kept, [{**row, "title": None} for row in files.read_jsonl(kept)])
    world.take_back()
    assert world.asked()[-1] == (asked, "old")
    assert "analysed 1 of the 1 items of the verification again" in world.said[-1]


@pytest.mark.parametrize(
    "damage",
    ['{"title": "x"}', '{"id": 1}', '{"id": null}', '{"id": ""}', "[1]", "[" * 9999, "\0", '{"id'],
)
def test_a_damaged_line_about_an_item_keeps_no_other_from_its_answer(
    world: World, damage: str
) -> None:
    """It is told once, and left out: also by a verification that goes on."""
    (asked,) = world.failed()
    kept = world.root / "store" / "verify" / "v" / "work" / "canaries.jsonl"
    whole = kept.read_text()
    kept.write_text(f"{damage}\n{whole}")
    assert world.failed() == (asked,)
    kept.write_text(whole + damage)
    world.take_back()
    assert world.asked()[-1] == (asked, "old")
    (told,) = (said for said in world.said if "is damaged: 1" in said)
    assert "of its 2 lines name no item" in told
    world.said.clear()
    world.settle()
    assert world.said == []


def test_an_item_that_is_gone_is_not_called_analysed(world: World) -> None:
    world.failed()
    kept = world.root / "store" / "verify" / "v" / "work" / "canaries.jsonl"
    rows = list(files.read_jsonl(kept))
    files.write_jsonl(kept, [*rows, {"id": "99", "title": "Gone", "fields": {}}])
    world.take_back()
    assert "item 99 is not in the backend any more" in world.said
    assert "analysed 1 of the 2 items of the verification again" in world.said[-1]


@pytest.mark.parametrize("noted", [True, False])
def test_a_record_of_an_older_driver_names_no_task(world: World, *, noted: bool) -> None:
    """Then it is that of the last run; without one, it is said that nothing was done."""
    (asked,) = world.failed()
    record = verification.read(world.root)
    assert record is not None
    old = record.model_copy(update={"task": ""})
    files.write_json(world.root / verification.RECORD, old.model_dump())
    if noted:
        files.write_json(
            Run.create(world.root).folder / "settings.json", {"task": "liga_relevance"}
        )
    before = world.asked()
    world.take_back()
    assert world.live() == OLD_DIGEST
    assert world.asked()[len(before) :] == ([(asked, "old")] if noted else [])
    assert noted or "NOT analysed again" in world.said[-1]


def test_a_verification_goes_on_under_another_name_of_the_same_address(world: World) -> None:
    """What the items held before its first question stays kept, with the address of now."""
    world.failed()
    assert world.backend
    url = world.backend.url.replace("http://127.0.0.1", "HTTP://LOCALHOST")
    world.backend.url = url
    canaries_before = world.kept()
    assert world.failed() == tuple(canaries_before)
    assert world.kept() == canaries_before
    assert world.record().backend == url


def test_a_verification_that_goes_on_notes_the_task(world: World) -> None:
    world.failed()
    record = verification.read(world.root)
    assert record is not None
    old = record.model_copy(update={"task": ""})
    files.write_json(world.root / verification.RECORD, old.model_dump())
    world.failed()
    found = verification.read(world.root)
    assert found is not None
    assert found.task == "liga_relevance"


def test_recover_takes_back_what_has_no_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two questions; the items that were asked get the old model's answers."""
    world.ollama.script = by_label
    with monkeypatch.context() as patched:
        patched.setattr(canaries, "judge", kill)
        with pytest.raises(Killed):
            world.verify()
    said: list[str] = []
    recover.recover(world.root, said.append)
    assert world.live() == OLD_DIGEST
    assert any(line.startswith("ROLLED BACK") for line in said)
    assert [digest for _, digest in world.asked()] == ["new", "old"]
    assert taken_back.rejected(world.root) == [], "it may be tried again"


def test_a_name_that_somebody_has_moved_meanwhile_stays_where_it_is(world: World) -> None:
    world.failed()
    world.ollama.models.append("liga-relevance:mine")
    world.engine.copy("liga-relevance:mine", ALIAS)
    world.take_back()
    assert world.live() == "digest of liga-relevance:mine"
    assert verification.read(world.root) is None


@pytest.mark.usefixtures("known_engine")
def test_a_backend_that_is_away_keeps_nothing_from_going_back(
    tmp_path: Path, ollama: OllamaDouble, start_process: Callable[..., BackendProcess]
) -> None:
    """The name is back at once; the items follow at a later start."""
    ollama.script = bad_by_model(ollama)
    backend = start_process(ROWS)
    world = World(tmp_path / "workspace", ollama, backend)
    (asked,) = world.failed()
    backend.kill()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(again, "_HEALTHY_S", 0.1)
        world.take_back()
    assert world.live() == OLD_DIGEST
    assert "NOT ROLLED BACK to its end" in world.said[-1]
    backend.start()
    world.settle(unfinished=False)
    assert world.asked()[-1] == (asked, "old")
    assert verification.read(world.root) is None


def test_an_engine_that_is_away_is_told_and_tried_again(world: World) -> None:
    world.failed()
    away = Ollama("http://127.0.0.1:9")
    verification.take_back(world.root, away, world.said.append, bad=True)
    assert "NOT ROLLED BACK to its end: Ollama at" in world.said[0]
    world.settle(unfinished=False)
    assert world.live() == OLD_DIGEST


def test_a_damaged_record_is_named(world: World) -> None:
    (world.root / verification.RECORD).write_text("{")
    with pytest.raises(FileUnusable, match="damaged"):
        world.verify()
    world.take_back()
    world.settle()
    assert [verification.RECORD in said for said in world.said] == [True, True]
