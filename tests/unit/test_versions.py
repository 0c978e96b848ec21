"""Versions of the served model: listed, kept, taken back, and a switch that was interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.entrypoint import execute
from contracts.errors import EngineUnavailable, FileUnusable, ModelMissing
from contracts.params import DeployMetrics, DeployParams, EvaluateMetrics
from contracts.stage import InputRef, OutputRef, Result
from contracts.stages import DEPLOY, EVALUATE
from driver import promotion, records, taken_back, versions
from driver.host_stages import deploy
from driver.report import models
from driver.store import Store
from serving import connect
from serving.engine import Engine, Model
from tasks import load_task
from tests.jobs import job_of

TASK = load_task("liga_relevance")
SCORES = {"relevant.f1": 0.9, "relevance_score.ece": 0.1}
RUNS = [f"2026010{day}-120000" for day in range(1, 8)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect({"RETRAIN_ENGINE": "llamacpp"}, tmp_path)
    yield made
    made.close()


def released(
    root: Path, engine: Engine, run: str, *, keep: int = 3, content: str = "", force: str = ""
) -> DeployMetrics:
    """Evaluate and deploy a file that stands for a GGUF, as a run does, results included."""
    gguf = root / f"{run}.gguf"
    gguf.write_text(content or run, encoding="utf-8")
    made = engine.create(f"news:{run}", gguf, TASK.modelfile())
    verdict = root / "verdict.json"
    verdict.write_text(json.dumps({"promote": not force, "candidate": made.digest, "findings": []}))
    _evaluated(root, run, made.digest)
    job = job_of(
        DEPLOY,
        DeployParams(name="news", keep=keep, force=force),
        {
            name: InputRef(
                path=path.name, digest=files.digest_path(path), bytes=path.stat().st_size
            )
            for name, path in (("gguf", gguf), ("verdict", verdict))
        },
        run=run,
        fingerprint=f"f{run}",
    )
    folder = Store(root).prepare(job).parent
    work = partial(deploy.work, engine=engine)
    result = execute(DEPLOY, job, root, folder, work, lambda _: None)
    return DeployMetrics.model_validate(result.metrics)


def _evaluated(root: Path, run: str, digest: str) -> None:
    folder = Store(root).place("evaluate", f"e{run}")
    metrics = EvaluateMetrics(
        rows=9, valid=9, promote=True, scores=SCORES, models={"candidate": digest}
    )
    outputs = {a.name: OutputRef(path="x", digest="", bytes=0) for a in EVALUATE.outputs}
    result = Result(
        stage="evaluate",
        fingerprint=f"e{run}",
        outputs=outputs,
        metrics=metrics.model_dump(),
        seconds=1,
        finished_at="",
    )
    job = job_of(EVALUATE, run=run, fingerprint=f"e{run}", task="")
    files.write_json(folder / "job.json", job.model_dump())
    files.write_json(folder / "result.json", result.model_dump())


def live(engine: Engine) -> str:
    return engine.models()["news:latest"].digest


def test_versions_are_listed_with_scores_the_newest_first(
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for run in RUNS[:2]:
        released(tmp_path, engine, run)
    by_hand = tmp_path / "hand.gguf"
    by_hand.write_text("made by hand")
    engine.create("news:mine", by_hand, TASK.modelfile())
    found = versions.versions(tmp_path, engine, "news")
    assert [each.tag for each in found] == [f"news:{RUNS[1]}", f"news:{RUNS[0]}", "news:mine"]
    assert [each.live for each in found] == [True, False, False]
    assert found[0].scores == {"relevant.f1": 0.9}
    assert found[0].errors == {"relevance_score.ece": 0.1}
    assert found[2].scores == found[2].errors == {}
    monkeypatch.setenv("COLUMNS", "40")
    models.show(found, "news", live(engine))
    newest, second, mine = found
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        [newest.tag, newest.digest[:12], "0.00", "GB", "live"],
        ["scores:", "relevant.f1", "0.90"],
        ["errors", "(less", "is", "better):", "relevance_score.ece", "0.10"],
        [second.tag, second.digest[:12], "0.00", "GB"],
        ["scores:", "relevant.f1", "0.90"],
        ["errors", "(less", "is", "better):", "relevance_score.ece", "0.10"],
        [mine.tag, mine.digest[:12], "0.00", "GB"],
        ["scores:", "not", "known", "here"],
    ], "whole at any width, so that it can be copied"


def test_only_the_version_that_was_forced_is_listed_so(tmp_path: Path, engine: Engine) -> None:
    """The same model may have been promoted before, or be kept under a name made by hand."""
    first = released(tmp_path, engine, RUNS[0])
    released(tmp_path, engine, RUNS[1], content=RUNS[0], force="trial day")
    engine.copy(first.tag, "news:mine")
    found = {each.tag: each.forced for each in versions.versions(tmp_path, engine, "news")}
    assert found.pop(f"news:{RUNS[1]}").startswith("trial day (")
    assert found == {first.tag: "", "news:mine": ""}


def test_back_to_the_version_before_which_the_next_run_respects(
    tmp_path: Path, engine: Engine
) -> None:
    first = released(tmp_path, engine, RUNS[0])
    second = released(tmp_path, engine, RUNS[1])
    target, before = versions.roll_back(tmp_path, engine, "news")
    assert (target.tag, before) == (first.tag, second.tag)
    assert live(engine) == first.digest
    gguf = files.digest_path(tmp_path / f"{RUNS[1]}.gguf")
    assert set(taken_back.rejected(tmp_path)) == {gguf, second.tag, second.digest}
    assert not (tmp_path / promotion.RECORD).exists()
    # Asked for by name, it may be live again; that says nothing against the older one.
    assert versions.roll_back(tmp_path, engine, "news", RUNS[1])[0].tag == second.tag
    assert live(engine) == second.digest
    assert taken_back.rejected(tmp_path) == []
    assert versions.roll_back(tmp_path, engine, "news")[0].tag == first.tag
    assert second.tag in taken_back.rejected(tmp_path)


def test_going_back_skips_what_was_taken_back(tmp_path: Path, engine: Engine) -> None:
    made = [released(tmp_path, engine, run) for run in RUNS[:3]]
    taken_back.reject(tmp_path, made[1].tag)
    assert versions.roll_back(tmp_path, engine, "news")[0].tag == made[0].tag


def test_a_model_that_was_taken_back_is_so_under_all_its_names(
    tmp_path: Path, engine: Engine
) -> None:
    """A deployment that was killed leaves a twin, and the next one makes another."""
    first = released(tmp_path, engine, RUNS[0])
    second = released(tmp_path, engine, RUNS[1])
    twin = released(tmp_path, engine, RUNS[2], content=RUNS[1])
    assert twin.digest == second.digest
    assert versions.roll_back(tmp_path, engine, "news")[0].tag == first.tag
    listed = {each.tag: each.rejected for each in versions.versions(tmp_path, engine, "news")}
    assert listed == {first.tag: False, second.tag: True, twin.tag: True}
    # Deployed once more, what is live has no way back to them either.
    assert released(tmp_path, engine, RUNS[3], content=RUNS[0]).previous == ""
    # Asked for by one of its names, it is good under all.
    versions.roll_back(tmp_path, engine, "news", RUNS[2])
    assert not {second.tag, twin.tag, second.digest} & {*taken_back.rejected(tmp_path)}


def test_what_an_older_driver_has_taken_back_by_name_is_so_by_digest(
    tmp_path: Path, engine: Engine
) -> None:
    first = released(tmp_path, engine, RUNS[0])
    second = released(tmp_path, engine, RUNS[1])
    engine.copy(second.tag, "news:20260102-130000")
    released(tmp_path, engine, RUNS[2])
    taken_back.reject(tmp_path, second.tag)
    assert versions.roll_back(tmp_path, engine, "news")[0].tag == first.tag


def test_going_back_skips_what_nobody_was_served(tmp_path: Path, engine: Engine) -> None:
    """A deployment that was killed before the switch leaves a version; so does a person."""
    first = released(tmp_path, engine, RUNS[0])
    for tag in (f"news:{RUNS[1]}", "news:mine"):
        (tmp_path / "other.gguf").write_text(tag)
        engine.create(tag, tmp_path / "other.gguf", TASK.modelfile())
    released(tmp_path, engine, RUNS[2])
    assert versions.roll_back(tmp_path, engine, "news")[0].tag == first.tag


def test_a_way_back_goes_to_nothing_newer(tmp_path: Path, engine: Engine) -> None:
    """The first version, asked for by name, has none before it."""
    for run in RUNS[:3]:
        released(tmp_path, engine, run)
    versions.roll_back(tmp_path, engine, "news", RUNS[0])
    with pytest.raises(ModelMissing, match="no version of news to go back to"):
        versions.roll_back(tmp_path, engine, "news")


@pytest.mark.parametrize("file", [records.PROMOTION, records.REJECTED, records.SERVED])
def test_a_damaged_record_keeps_nobody_from_going_back(
    tmp_path: Path, engine: Engine, file: str
) -> None:
    first = released(tmp_path, engine, RUNS[0])
    released(tmp_path, engine, RUNS[1])
    (tmp_path / file).write_text("{")
    said: list[str] = []
    versions.roll_back(tmp_path, engine, "news", RUNS[0], said.append)
    assert live(engine) == first.digest
    assert f"kept as {file}.damaged-1" in said[0]


def test_there_may_be_no_way_back(tmp_path: Path, engine: Engine) -> None:
    released(tmp_path, engine, RUNS[0])
    with pytest.raises(ModelMissing, match="no version of news to go back to"):
        versions.roll_back(tmp_path, engine, "news")
    with pytest.raises(ModelMissing, match=rf"no version news:0815(.|\n)*{RUNS[0]}"):
        versions.roll_back(tmp_path, engine, "news", "0815")
    assert taken_back.rejected(tmp_path) == []


def test_old_versions_go_but_never_the_live_one_or_one_made_by_hand(
    tmp_path: Path, engine: Engine
) -> None:
    by_hand = tmp_path / "hand.gguf"
    by_hand.write_text("made by hand")
    engine.create("news:mine", by_hand, TASK.modelfile())
    for run in RUNS:
        released(tmp_path, engine, run, keep=2)
    left = sorted(tag for tag in engine.models() if tag.startswith("news:2"))
    # The live one, the one before it, and two more.
    assert left == [f"news:{run}" for run in RUNS[-4:]]
    assert "news:mine" in engine.models()


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the program runs after it."""


def broken(engine: Engine, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Let the next copy be the last thing that happens."""
    real = engine.copy

    def copy(source: str, destination: str) -> None:
        if after:
            real(source, destination)
        raise Killed

    monkeypatch.setattr(engine, "copy", copy)


_OF_A_ROLLBACK = [
    ("engine", "copy"),
    ("engine", "unload"),
    ("taken_back", "reinstate"),
    ("taken_back", "reject"),
    ("promotion", "_drop"),
]
"""Every call of it that changes something outside."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("place", _OF_A_ROLLBACK, ids=[name for _, name in _OF_A_ROLLBACK])
@pytest.mark.parametrize("again", [False, True], ids=["start", "rollback"])
def test_a_rollback_that_was_interrupted_is_finished(
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[str, str],
    *,
    after: bool,
    again: bool,
) -> None:
    """By the next start, and by the same command, which goes no version further back."""
    _, second, third = [released(tmp_path, engine, run) for run in RUNS[:3]]
    owners = {"engine": engine, "taken_back": taken_back, "promotion": promotion}
    owner, name = owners[place[0]], place[1]
    real = getattr(owner, name)

    def killed(*given: Any) -> None:
        if after:
            real(*given)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(Killed):
            versions.roll_back(tmp_path, engine, "news")
    if again and not (after and name == "_drop"):  # else it was over, and this is another one
        target, left = versions.roll_back(tmp_path, engine, "news")
        assert (target.tag, left) == (second.tag, third.tag)
    promotion.settle(tmp_path)
    assert live(engine) == second.digest
    gguf = files.digest_path(tmp_path / f"{RUNS[2]}.gguf")
    assert set(taken_back.rejected(tmp_path)) == {gguf, third.tag, third.digest}
    assert not (tmp_path / promotion.RECORD).exists()


def test_another_version_may_be_named_after_an_interruption(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, third = [released(tmp_path, engine, run) for run in RUNS[:3]]
    with monkeypatch.context() as patched:
        broken(engine, patched, after=True)
        with pytest.raises(Killed):
            versions.roll_back(tmp_path, engine, "news")
    said: list[str] = []
    target, _ = versions.roll_back(tmp_path, engine, "news", RUNS[0], said.append)
    assert target.tag == first.tag
    assert "is finished" in said[0]
    assert {third.tag, third.digest} <= {*taken_back.rejected(tmp_path)}


def _second(root: Path, engine: Engine) -> Model:
    """Create the version that a switch is to make live."""
    gguf = root / "second.gguf"
    gguf.write_text("second")
    return engine.create(f"news:{RUNS[1]}", gguf, TASK.modelfile())


@pytest.mark.parametrize("after", [False, True])
def test_a_switch_that_was_interrupted_is_finished_or_undone(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    first = released(tmp_path, engine, RUNS[0])
    made = _second(tmp_path, engine)
    with monkeypatch.context() as patched:
        broken(engine, patched, after=after)
        with pytest.raises(Killed):
            promotion.switch(tmp_path, engine, "news:latest", made.tag)
    said = promotion.settle(tmp_path)
    assert ("finished" if after else "again") in said
    assert live(engine) == (made.digest if after else first.digest)
    assert promotion.settle(tmp_path) == ""


def test_a_second_attempt_at_a_switch_knows_what_the_name_was_before_the_first(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has switched and then failed; the second is killed while it writes the name."""
    first = released(tmp_path, engine, RUNS[0])
    made = _second(tmp_path, engine)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "unload", _away)
        with pytest.raises(EngineUnavailable):
            promotion.switch(tmp_path, engine, "news:latest", made.tag)
        broken(engine, patched, after=False)
        with pytest.raises(Killed):
            promotion.switch(tmp_path, engine, "news:latest", made.tag)
    engine.delete("news:latest")
    assert f"news:latest is {first.tag} again" in promotion.settle(tmp_path)
    assert live(engine) == first.digest


def _away(_: str) -> None:
    raise EngineUnavailable("the engine is away for a moment")


def test_an_alias_that_the_interruption_has_lost_comes_back(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ollama writes a manifest in place: cut off, it names nothing."""
    first = released(tmp_path, engine, RUNS[0])
    made = _second(tmp_path, engine)
    with monkeypatch.context() as patched:
        broken(engine, patched, after=False)
        with pytest.raises(Killed):
            promotion.switch(tmp_path, engine, "news:latest", made.tag)
    engine.delete("news:latest")
    assert f"news:latest is {first.tag} again" in promotion.settle(tmp_path)
    assert live(engine) == first.digest


def test_what_cannot_be_settled_is_said_and_tried_again(tmp_path: Path) -> None:
    engine = {"RETRAIN_ENGINE": "ollama", "OLLAMA_HOST": "http://127.0.0.1:9"}
    record = {"alias": "a:latest", "version": "a:1", "previous": "", "engine": engine}
    files.write_json(tmp_path / promotion.RECORD, record)
    assert "cannot be settled now" in promotion.settle(tmp_path)
    assert (tmp_path / promotion.RECORD).exists()
    (tmp_path / promotion.RECORD).write_text("{")
    assert "is damaged" in promotion.settle(tmp_path)
    with pytest.raises(FileUnusable):
        promotion.read(tmp_path)


def test_an_alias_that_does_not_follow_is_an_error(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = released(tmp_path, engine, RUNS[0])
    made = _second(tmp_path, engine)
    monkeypatch.setattr(engine, "copy", lambda _source, _destination: None)
    with pytest.raises(EngineUnavailable, match="is not news:"):
        promotion.switch(tmp_path, engine, "news:latest", made.tag)
    assert live(engine) == first.digest
