"""`driver reprocess`: the answers of whatever model is live, by the newest snapshot."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from contracts import files
from contracts.entrypoint import execute
from contracts.errors import InputMissing, NotVerified, SettingsInvalid
from contracts.params import DeployMetrics, SnapshotParams
from contracts.stages import REPROCESS, SNAPSHOT
from driver import __main__ as cli
from driver import locks, promotion, served, taken_back, verification
from driver.adapters.backend import Backend
from driver.adapters.items import storage_of
from driver.host_stages import reanalysis, snapshot
from driver.host_stages.record import Record
from driver.store import Store
from serving import connect
from serving.engine import Engine
from tasks import load_task
from tests.jobs import job_of
from tests.services.ollama_double import OllamaDouble
from tests.services.running_backend import RunningBackend
from tests.unit.reprocess_stage import OLD, news, titles
from tests.unit.test_versions import RUNS, released

STORAGE = storage_of(load_task("liga_relevance"))
Start = Callable[..., RunningBackend]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Return the engine of the workspace; no other run of this host is in the way."""
    monkeypatch.setenv(locks.FOLDER_VARIABLE, str(tmp_path))
    made = connect({"RETRAIN_ENGINE": "llamacpp"}, tmp_path)
    yield made
    made.close()


def _snapshot(root: Path, url: str) -> None:
    job = job_of(SNAPSHOT, SnapshotParams(source="backend"), run=RUNS[0], fingerprint="s")
    folder = Store(root).prepare(job).parent
    execute(SNAPSHOT, job, root, folder, partial(snapshot.work, backend_url=url), lambda _: None)


def _settings(root: Path, url: str) -> Path:
    settings = root / "retrain.yaml"
    asked = {
        "snapshot": {"source": "backend"},
        "fetch": {"path": "base"},
        "engine": "llamacpp",
        "runner": "process",
        "deploy": {"name": "news"},
        "backend": {"url": url, "container": "news"},
    }
    files.write_json(settings, asked)  # YAML too
    return settings


def _reprocess(root: Path, url: str, *command: str) -> int:
    settings = _settings(root, url)
    command = command or ("reprocess",)
    return cli.main([*command, "-c", str(settings), "-w", str(root)])


def _verified(root: Path, engine: Engine, run: str) -> DeployMetrics:
    """Deploy a model, and note that it has passed its verification."""
    made = released(root, engine, run)
    environment = promotion.environment(engine)
    served.accept(root, environment, made.alias, made.digest, served.VERIFIED)
    return made


def _reprocessed(root: Path, engine: Engine, url: str) -> None:
    """Have the items of a backend analysed by a verified model."""
    _snapshot(root, url)
    _verified(root, engine, RUNS[0])
    assert _reprocess(root, url) == 0


def _roll_back(root: Path, *version: str) -> int:
    return cli.main(["rollback", *version, "-c", str(root / "retrain.yaml"), "-w", str(root)])


def test_an_empty_version_rolls_nothing_back(
    tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script's variable that is not set names no version."""
    files.write_json(tmp_path / "retrain.yaml", {"engine": "llamacpp", "deploy": {"name": "news"}})
    for run in RUNS[:2]:
        newest = _verified(tmp_path, engine, run)
    assert _roll_back(tmp_path, "") == 10
    assert "the VERSION to go back to is empty" in capsys.readouterr().err
    assert engine.models()["news:latest"].digest == newest.digest


def test_a_rollback_says_whether_what_was_live_may_be_so_again(
    tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    _settings(tmp_path, "http://127.0.0.1:9")
    for run in RUNS[:2]:
        _verified(tmp_path, engine, run)
    assert _roll_back(tmp_path, RUNS[0]) == 0
    said = capsys.readouterr().out
    assert f"news:{RUNS[1]} was taken back: no run lets" in said
    assert "num_ctx" not in said
    assert _roll_back(tmp_path, RUNS[1]) == 0
    assert f"news:{RUNS[0]} was not taken back: a run may" in capsys.readouterr().out
    assert _roll_back(tmp_path) == 0
    assert f"news:{RUNS[1]} was taken back: no run lets" in capsys.readouterr().out


def test_a_rollback_needs_no_task(
    tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wrong model is live, and somebody is in the middle of an edit of the task."""
    settings = _settings(tmp_path, "http://127.0.0.1:9")
    files.write_json(settings, {**json.loads(settings.read_text()), "task": "in_pieces"})
    first, _ = (_verified(tmp_path, engine, run) for run in RUNS[:2])
    command = ["-c", str(settings), "-w", str(tmp_path)]
    assert cli.main(["plan", *command]) == 10
    assert "in_pieces" in capsys.readouterr().err
    assert _roll_back(tmp_path) == 0
    assert cli.main(["models", *command]) == 0
    assert engine.models()["news:latest"].digest == first.digest


def test_the_live_model_answers_also_after_a_rollback(
    tmp_path: Path,
    start_backend: Start,
    ollama: OllamaDouble,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once by the new model, not a second time; and by the older one when it is live again."""
    service = start_backend([news(1, **OLD), news(2, **OLD)], OLLAMA_MODEL="news:latest")
    _snapshot(tmp_path, service.url)
    for run in RUNS[:2]:
        _verified(tmp_path, engine, run)
        assert _reprocess(tmp_path, service.url) == 0
    assert sorted(titles(ollama)) == ["Titel 1"] * 2 + ["Titel 2"] * 2
    assert _reprocess(tmp_path, service.url) == 0
    assert len(ollama.asked) == 4
    capsys.readouterr()
    assert _roll_back(tmp_path) == 0
    assert f"`driver reprocess` has news:{RUNS[0]} analyse them" in capsys.readouterr().out
    assert _reprocess(tmp_path, service.url) == 0
    assert len(ollama.asked) == 6
    assert _roll_back(tmp_path, RUNS[0]) == 0
    assert "driver reprocess" not in capsys.readouterr().out, "they have its answers"
    newest, second, first = Record.every(tmp_path)
    assert newest.about().model == first.about().model != second.about().model
    assert first.before()["1"]["summary"] == "Alt."
    assert newest.before()["1"]["summary"] != "Alt."
    assert len(list(Store(tmp_path).executions(REPROCESS.name))) == 2


def test_a_backend_that_has_moved_is_known_or_told(
    tmp_path: Path,
    start_backend: Start,
    ollama: OllamaDouble,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else its items are asked about again, and the first answers count as those from before."""
    service = start_backend([news(1, **OLD)], OLLAMA_MODEL="news:latest")
    _reprocessed(tmp_path, engine, service.url)
    assert _reprocess(tmp_path, service.url.replace("127.0.0.1", "localhost")) == 0
    moved = service.url.replace("127.0.0.1", "127.1")
    assert _reprocess(tmp_path, moved, "reprocess", "--backend-moved") == 0
    (record,) = Record.every(tmp_path)
    assert record.about().backend == moved
    assert len(ollama.asked) == 1
    assert _reprocess(tmp_path, service.url) == 0
    said = capsys.readouterr().err
    assert f"1 items hold what this model has left them with at {moved}" in said
    assert str(record.folder) in said
    assert len(ollama.asked) == 2
    assert _reprocess(tmp_path, service.url, "reprocess", "--restore") == 0
    assert f"--restore {record.folder.name} --backend-moved" in capsys.readouterr().out


def test_a_move_is_held_against_the_items(
    tmp_path: Path,
    start_backend: Start,
    ollama: OllamaDouble,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every record at the old address moves, also what only a verification has kept; or none."""
    rows = [news(number, **OLD) for number in (1, 2, 3)]
    service = start_backend(rows, OLLAMA_MODEL="news:latest")
    other = start_backend([{**row, "summary": "Anders."} for row in rows])
    for run, model in zip(RUNS[:2], "mn", strict=True):  # as two verifications leave them
        state = reanalysis.state_of(service.get("/api/items/1"), STORAGE)
        kept = {"1": state | {"id": "1", "title": "Titel 1"}}
        record = Record.of_model(tmp_path, run, model, service.url)
        record.begin(run, model, service.url, kept, 1, canaries=["1"])
        answer = reanalysis.reprocess(Backend(service.url), STORAGE, {"id": "1"}, 10).answer
        record.leave("1", answer)
    moved = ("reprocess", "--backend-moved")
    assert _reprocess(tmp_path, other.url, *moved) == SettingsInvalid.exit_code
    assert f"{other.url} is not the one that was at {service.url}" in capsys.readouterr().err
    assert _reprocess(tmp_path, other.url, *moved, "--status") == SettingsInvalid.exit_code
    assert {each.about().backend for each in Record.every(tmp_path)} == {service.url}
    now = service.url.replace("127.0.0.1", "127.1")
    for said in (f"noted: the backend is now at {now} (was {service.url})", "already"):
        assert _reprocess(tmp_path, now, *moved) == InputMissing.exit_code, "none is deployed"
        assert said in capsys.readouterr().out
    assert [each.about().backend for each in Record.every(tmp_path)] == [now, now]
    settings = _settings(tmp_path, now)
    none = {"backend": None, "snapshot": {"items": ["items.jsonl"]}}
    files.write_json(settings, json.loads(settings.read_text()) | none)
    for command in (moved, (*moved, "--restore")):
        code = cli.main([*command, "-c", str(settings), "-w", str(tmp_path)])
        assert code == SettingsInvalid.exit_code
        assert "--backend-moved without a backend" in capsys.readouterr().err


def test_another_database_at_the_same_address_is_told(
    tmp_path: Path,
    start_backend: Start,
    ollama: OllamaDouble,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An older state of it, here; a single item that somebody has edited is none."""
    service = start_backend([news(n, **OLD) for n in (1, 2, 3)], OLLAMA_MODEL="news:latest")
    _reprocessed(tmp_path, engine, service.url)
    (record,) = Record.every(tmp_path)
    for last in (1, 2):
        with closing(sqlite3.connect(next(tmp_path.rglob("backend.sqlite")))) as database, database:
            database.execute("UPDATE items SET summary = 'Alt.' WHERE id <= ?", [last])
        assert _reprocess(tmp_path, service.url) == 0
        said = capsys.readouterr().out
        assert ("Nothing has changed" in said) == (last == 1)
    assert "2 of 3 items no longer hold the answers of this reprocess" in said
    assert f"move {record.folder} out of {record.folder.parent}" in said
    assert len(ollama.asked) == 3
    record.folder.rename(tmp_path / "away")
    assert _reprocess(tmp_path, service.url) == 0
    assert service.get("/api/items/1")["summary"] != "Alt."
    (record,) = Record.every(tmp_path)
    assert record.before()["1"]["summary"] == "Alt."


def test_without_a_deployment_there_is_nothing_to_do_it_with(
    tmp_path: Path, start_backend: Start, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    service = start_backend([news(1)])
    assert _reprocess(tmp_path, service.url) == InputMissing.exit_code
    assert "no model that this workspace has deployed is live" in capsys.readouterr().err


def test_nobody_gets_the_answers_of_a_model_without_a_verdict(
    tmp_path: Path,
    start_backend: Start,
    ollama: OllamaDouble,
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first deployment has no version before, and stays live when it is taken back."""
    service = start_backend([news(1, **OLD)], OLLAMA_MODEL="news:latest")
    _snapshot(tmp_path, service.url)
    made = released(tmp_path, engine, RUNS[0])
    assert _reprocess(tmp_path, service.url) == NotVerified.exit_code
    assert "nobody has verified it" in capsys.readouterr().err
    taken_back.reject(tmp_path, made.digest)
    for command in ("reprocess",), ("stage", "reprocess"):
        assert _reprocess(tmp_path, service.url, *command) == NotVerified.exit_code
        assert "it was taken back" in capsys.readouterr().err
    assert ollama.asked == []
    assert _reprocess(tmp_path, service.url, "reprocess", "--unverified") == 0
    assert titles(ollama) == ["Titel 1"]


@pytest.mark.parametrize("command", [("reprocess",), ("stage", "reprocess")])
def test_what_was_taken_back_before_it_is_not_what_is_recorded(
    tmp_path: Path,
    start_backend: Start,
    engine: Engine,
    command: tuple[str, ...],
) -> None:
    """A kill has left the second model live without a verdict: the first answers, and is named."""
    service = start_backend([news(1, **OLD)], OLLAMA_MODEL="news:latest")
    _snapshot(tmp_path, service.url)
    first = _verified(tmp_path, engine, RUNS[0])
    second = released(tmp_path, engine, RUNS[1])
    record = verification.Record(
        alias=second.alias, version=second.tag, digest=second.digest, previous=first.tag,
        backend="", canaries="", timeout_s=1, engine=promotion.environment(engine), begun=False,
    )  # fmt: skip
    files.write_json(tmp_path / verification.RECORD, record.model_dump())
    assert _reprocess(tmp_path, service.url, *command) == 0
    assert engine.models()["news:latest"].digest == first.digest
    (newest,) = Record.every(tmp_path)
    assert newest.about().model == files.digest_path(tmp_path / f"{RUNS[0]}.gguf")
