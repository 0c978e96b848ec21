"""The verify stage: the engine asked directly, and real items through the running backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import VerifyFailed, VerifyUnanswered
from contracts.params import VerifyMetrics
from driver import verification
from driver.adapters.backend import Backend, ItemUnavailable
from driver.adapters.items import AnswerStorage, analysis_of, storage_of
from driver.host_stages import answers, canaries, reanalysis, verify
from driver.host_stages.record import Record
from tasks import load_task
from tests.services.ollama_double import OllamaDouble, good_answer
from tests.services.running_backend import RunningBackend
from tests.unit.verification_world import (
    ALIAS,
    BEFORE,
    CONTENT,
    GGUF,
    IRRELEVANT,
    NEW,
    NEW_DIGEST,
    OLD,
    ROWS,
    Row,
    World,
    by_label,
    good_world,
    quick_looks,
)

__all__ = ["good_world", "quick_looks"]

TASK = load_task("liga_relevance")
Start = Callable[..., RunningBackend]


def test_a_good_model_is_verified_by_items_of_both_kinds(world: World) -> None:
    """In the order of a digest; a reviewed item is left alone, and the rest wait for reprocess."""
    metrics = world.verify()
    assert (metrics.model, metrics.digest) == (ALIAS, NEW_DIGEST)
    assert (len(metrics.items), metrics.failed, metrics.broken) == (3, 0, 0)
    assert {"1", "2"} <= set(metrics.items), "both that are relevant"
    assert "5" not in metrics.items
    assert metrics.answer["relevant"] is True
    assert [number for number, _ in world.asked()] == list(metrics.items)
    assert {digest for _, digest in world.asked()} == {"new"}
    assert "through the backend 3 of 3 items valid" in metrics.summary()
    assert verification.read(world.root) is None
    assert verify.disagreement(metrics, world.engine) == ""


def test_what_the_items_held_before_is_kept(world: World) -> None:
    metrics = world.verify()
    kept = world.kept()
    assert tuple(kept) == metrics.items
    assert {fields["summary"] for fields in kept.values()} == {"Alt."}
    assert {analysis_of(fields, storage_of(TASK))["reasoning"] for fields in kept.values()} == {
        "Alt."
    }
    (record,) = Record.every(world.root)
    assert {i: state["summary"] for i, state in record.before().items()} == dict.fromkeys(
        metrics.items, "Alt."
    )
    assert not record.begun


def test_the_number_of_items_is_a_setting(world: World) -> None:
    assert len(world.verify(items=1).items) == 1
    assert world.verify(items=0).items == ()
    assert len(world.verify(items=9).items) == 4  # the fifth is reviewed


def test_where_no_item_can_be_asked_the_result_warns(
    tmp_path: Path, ollama: OllamaDouble, start_backend: Start
) -> None:
    """All are reviewed, so nothing shows which model the backend asks. 0 items asks for none."""
    ollama.script = by_label
    service = start_backend([{**row, "is_manually_reviewed": True} for row in ROWS])
    world = World(tmp_path / "workspace", ollama, service)
    metrics = world.verify()
    assert (metrics.items, metrics.wanted) == ((), 3)
    assert "WARNING: not one of the 3 items" in metrics.summary()
    assert "WARNING" not in world.verify(items=0).summary()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Das weiß ich nicht.", "could not be read"),
        (json.dumps({k: v for k, v in json.loads(good_answer()).items() if k != "tags"}), "tags"),
        (good_answer("sehr wichtig"), "the answer is not valid: priority"),
        (good_answer(relevance_score=7), "the answer is not valid: relevance_score"),
        # The page still shows the old summary, which is no field of this answer.
        (good_answer(summary=None), "relevant without summary"),
    ],
)
def test_an_item_without_a_valid_answer_fails_the_model(
    world: World, said: str, reason: str
) -> None:
    world.ollama.script = lambda message: said if "Titel 1" in message else by_label(message)
    with pytest.raises(VerifyFailed, match=r"1 of 3 items have no valid answer") as caught:
        world.verify()
    assert "item 1: " in caught.value.why
    assert reason in caught.value.why
    assert NEW.rpartition(":")[2] in caught.value.todo
    assert verification.read(world.root) is not None, "the caller is to take it back"
    assert world.verify(max_error_share=0.4).failed == 1


@pytest.mark.parametrize("silent", ["Titel 1", "Titel: Titel"], ids=["one item", "all items"])
def test_an_item_without_any_answer_is_no_verdict(world: World, silent: str) -> None:
    """The engine fails it, also when it is asked directly: so may it with a good model."""
    world.ollama.script = lambda message: 500 if silent in message else by_label(message)
    with pytest.raises(VerifyUnanswered, match="got no answer through the backend") as caught:
        world.verify()
    assert "item 1: the stored analysis is still the old one" in caught.value.why
    assert len(world.kept()) == 1, "no further item is touched"
    assert verification.read(world.root) is not None


def test_a_share_of_the_items_may_stay_without_an_answer(world: World) -> None:
    world.ollama.script = lambda message: 500 if "Titel 1" in message else by_label(message)
    assert world.verify(max_error_share=0.4).failed == 1


def test_a_bad_answer_is_a_verdict_beside_silence(world: World) -> None:
    answers: dict[str, str | int] = {"1": "kein JSON", "2": "kein JSON", "3": 500, "4": 500}
    world.ollama.script = lambda message: (
        answers[message.splitlines()[0][-1]] if "Titel: Titel" in message else by_label(message)
    )
    with pytest.raises(VerifyFailed, match="have no valid answer"):
        world.verify(max_error_share=0.4)


def test_a_model_that_does_not_come_to_an_end_is_not_taken_for_a_silent_engine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend waits in vain for either; asked directly, the engine says which it is."""
    monkeypatch.setattr(Backend, "reprocess_item", lambda *_: None)
    world.ollama.script = lambda message: (
        "Ja, ja, ja," if "Titel: Titel" in message else by_label(message)
    )
    with pytest.raises(VerifyFailed, match="3 of 3 items have no valid answer") as caught:
        world.verify(timeout_s=0.5)
    assert "asked directly" in caught.value.why


def test_a_backend_that_does_nothing_is_no_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it has started, and no analysis ever comes; the model answers well."""
    monkeypatch.setattr(Backend, "reprocess_item", lambda *_: None)
    with pytest.raises(VerifyUnanswered):
        world.verify(timeout_s=0.5)


@pytest.mark.parametrize("fails", ["reprocess_item", "item"])
def test_a_fault_of_the_backend_is_no_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Status 500, to the request or to reading back what came of it; the model answers well."""
    analysed: set[str] = set()
    judged = reanalysis.judge

    def come(storage: AnswerStorage, before: Row | None, after: Row) -> reanalysis.Seen:
        analysed.add(str(after["id"]))
        return judged(storage, before, after)

    ask = getattr(Backend, fails)

    def fail(backend: Backend, item_id: str) -> Any:
        if fails == "reprocess_item" or item_id in analysed:
            analysed.discard(item_id)
            raise ItemUnavailable(item_id, 500)
        return ask(backend, item_id)

    monkeypatch.setattr(reanalysis, "judge", come)
    monkeypatch.setattr(Backend, fails, fail)
    with pytest.raises(VerifyUnanswered, match="got no answer through the backend") as caught:
        world.verify()
    assert "500" in caught.value.why


@pytest.mark.parametrize("away", ["backend", "engine"])
def test_who_is_away_is_no_verdict(
    tmp_path: Path, ollama: OllamaDouble, start_backend: Start, away: str
) -> None:
    ollama.script = by_label
    service = start_backend(ROWS)
    world = World(tmp_path / "w", ollama, service)
    if away == "backend":
        service.kill()
    else:
        ollama.script = lambda _: 500
    with pytest.raises(VerifyUnanswered, match="could not be verified"):
        world.verify()


@pytest.mark.parametrize(("times", "ends"), [(1, True), (2, False)])
def test_a_model_that_the_engine_cuts_off_twice_repeats_itself(
    world: World, times: int, *, ends: bool
) -> None:
    """Which is a bad answer, and no absence of the engine: the model does not go live again."""
    world.ollama.cut_off = times
    if ends:
        assert world.verify().failed == 0
        return
    with pytest.raises(VerifyFailed, match="does not come to the end of its answer"):
        world.verify()
    assert world.asked() == [], "no item has been touched"


def test_one_hiccup_is_no_verdict(world: World) -> None:
    asked: list[str] = []

    def once(message: str) -> str | int:
        asked.append(message)
        return 500 if sum("Titel 1" in each for each in asked) == 1 else by_label(message)

    world.ollama.script = once
    assert world.verify().failed == 0


def test_label_rules_count_by_their_share(world: World) -> None:
    bad = good_answer(reasoning="Die Liga könnte sich äußern.")
    world.ollama.script = lambda message: bad if "Titel 1" in message else by_label(message)
    assert world.verify().broken == 1  # of three
    with pytest.raises(VerifyFailed, match=r"1 of 3 items break a label rule") as caught:
        world.verify(max_broken_share=0)
    assert "item 1 breaks liga-speculation" in caught.value.why
    world.ollama.script = lambda message: bad if "Titel: Titel" in message else by_label(message)
    with pytest.raises(VerifyFailed, match=r"3 of 3 items break a label rule"):
        world.verify()
    assert world.verify(max_broken_share=1).broken == 3


@pytest.mark.parametrize("same_ids", [0, 2])
def test_items_that_the_backend_does_not_have(
    world: World, capsys: pytest.CaptureFixture[str], same_ids: int
) -> None:
    """The snapshot came from files of another one."""
    rows = list(files.read_jsonl(world.root / "items.jsonl"))
    changed = [{**row, "title": "Ganz anderes"} for row in rows[:same_ids]]
    changed += [{**row, "id": f"liga-{row['id']}"} for row in rows[same_ids:]]
    files.write_jsonl(world.root / "items.jsonl", changed)
    assert world.verify().items == ()
    assert world.asked() == []
    assert "only 0 items of the snapshot can be asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "said", "first"),
    [
        ("GET", (404, None), 0),
        ("GET", (404, None), 1),
        ("GET", (500, None), 0),
        ("GET", (200, {}), 0),
        ("POST", (404, None), 0),
    ],
    ids=["no item", "no item once asked", "no item can be shown", "no item's fields", "no route"],
)
def test_a_backend_that_shows_no_item_is_no_verdict(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str, said: tuple[int, Any], first: int
) -> None:
    """Its list of items is whole. `first` is how many requests for an analysis come before."""
    asked: list[str] = []
    call = Backend.call

    def faulty(backend: Backend, *given: Any, **named: Any) -> tuple[int, Any]:
        verb, path = given[:2]
        if path.startswith("/api/items/") and verb == method and len(asked) >= first:
            return said
        if verb == "POST":
            asked.append(path)
        return call(backend, *given, **named)

    monkeypatch.setattr(Backend, "call", faulty)
    with pytest.raises(VerifyUnanswered, match="could not be verified"):
        world.verify(items=1, timeout_s=0.5)
    assert verification.read(world.root) is not None


def test_a_backend_without_any_item_is_no_verdict(
    tmp_path: Path, ollama: OllamaDouble, start_backend: Start
) -> None:
    ollama.script = by_label
    with pytest.raises(VerifyUnanswered, match="not one item") as caught:
        World(tmp_path / "workspace", ollama, start_backend([])).verify()
    assert caught.value.why == "5 not found; nor does it show another one"


def test_the_next_start_goes_on_and_keeps_what_was_before(world: World) -> None:
    """Killed behind the first item: its old fields are not overwritten by the new answer."""

    class Killed(BaseException):
        """Stands for SIGKILL."""

    def kill(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(canaries, "judge", kill)
        with pytest.raises(Killed):
            world.verify()
    (first,) = world.kept()
    record = verification.read(world.root)
    assert record is not None
    assert (record.version, record.previous, record.undo) == (NEW, OLD, False)
    world.settle(unfinished=False)
    assert world.live() == NEW_DIGEST
    metrics = world.verify()
    assert metrics.items[0] == first
    assert {fields["summary"] for fields in world.kept().values()} == {"Alt."}
    assert verification.read(world.root) is None


def test_the_order_of_the_items_hangs_on_nothing_but_their_ids(world: World) -> None:
    items, labels = world.root / "items.jsonl", world.root / "labels.jsonl"
    order = [row["id"] for row in canaries.candidates(TASK, items, labels)]
    assert sorted(order) == ["1", "2", "3", "4", "5"]
    assert [each in {"1", "2"} for each in order] == [True, False, True, False, False]
    assert order[-1] == "5", "the one without a label"
    files.write_jsonl(items, reversed(list(files.read_jsonl(items))))
    assert [row["id"] for row in canaries.candidates(TASK, items, labels)] == order


OLD_TEXTS = {"summary": "Alt.", "detailed_analysis": "Alt.", "priority": "none"}


@pytest.mark.parametrize(
    ("analysis", "item", "summary"),
    [
        # The analysis has the item's fields too: they count, empty or not.
        (json.loads(IRRELEVANT), OLD_TEXTS, None),
        (json.loads(good_answer()), OLD_TEXTS, "Das Land kürzt die Mittel."),
        # It has not: the item's count, but for texts that an irrelevant answer left as they were.
        ({"relevant": False, "reasoning": "Sport."}, OLD_TEXTS, None),
        ({"relevant": True, "reasoning": "Pflege."}, OLD_TEXTS, "Alt."),
        ({"relevant": False, "reasoning": "Sport."}, {**OLD_TEXTS, "summary": "Neu."}, "Neu."),
    ],
)
def test_an_answer_is_what_the_new_analysis_has_stored(
    analysis: dict[str, Any], item: dict[str, Any], summary: str | None
) -> None:
    before = {**OLD_TEXTS, "metadata": {}}
    after = {**item, "assigned_aks": [], "metadata": {"llm_analysis": analysis}}
    answer = answers.answer_in(TASK, before, after)
    assert answer["summary"] == summary
    assert answer["priority"] in {None, "high"}


def test_a_field_that_the_item_did_not_get_is_missed() -> None:
    analysis = json.loads(good_answer())
    row = {"id": "1", "title": "Titel 1", "content": CONTENT}
    after = {**analysis, "assigned_aks": [], "metadata": {"llm_analysis": analysis}}
    assert "assigned_aks" in canaries.judge(TASK, row, BEFORE, after).failure
    after["assigned_aks"] = ["AK1"]
    assert canaries.judge(TASK, row, BEFORE, after) == canaries.Canary("1", positive=True)


def test_a_second_verification_leaves_the_number_of_items_as_it_was(world: World) -> None:
    run = "20260102-120000"
    states = {n: {"id": n, "title": "t", "is_manually_reviewed": False} for n in "1234"}
    record = Record.of_model(world.root, run, GGUF, world.url)
    record.begin(run, GGUF, world.url, states, 1600)
    (record.folder / "outcomes.jsonl").touch()
    world.verify(items=1)
    about = record.about()
    assert (about.items, len(about.canaries)) == (1600, 1)
    (asked,) = about.canaries
    held = reanalysis.answer_digest(Backend(world.url).item(asked), storage_of(TASK))
    assert about.left[asked].answer == held


def test_metrics_of_an_older_driver_are_still_read() -> None:
    old = {"model": ALIAS, "digest": "d", "fields": 9, "answer": {}}
    assert VerifyMetrics.model_validate(old).items == ()
