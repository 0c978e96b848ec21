"""What an evaluation that was killed has left in the serving engine goes at the next start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import candidate, files
from contracts.entrypoint import RESULT_FILE
from contracts.stage import InputRef
from contracts.stages import EVALUATE
from driver import candidates, recover
from driver.store import Run, Store
from images.labeler import contestants
from serving import connect
from serving.engine import Engine
from tasks import load_task
from tests.jobs import job_of

TASK = load_task("liga_relevance")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect({"RETRAIN_ENGINE": "llamacpp"}, tmp_path)
    yield made
    made.close()


def _left(root: Path, engine: Engine, content: str, *, ours: bool = True) -> str:
    """Leave a candidate as an evaluation does that is killed; return its tag."""
    gguf = root / f"{content}.gguf"
    gguf.write_text(content)
    digest = files.digest_path(gguf)
    if ours:
        given = {"gguf": InputRef(path=gguf.name, digest=digest, bytes=gguf.stat().st_size)}
        Store(root).prepare(job_of(EVALUATE, inputs=given, fingerprint=f"e{content}"))
    return engine.create(f"retrain-candidate:{digest[:12]}", gguf, TASK.modelfile()).tag


def test_the_evaluation_calls_them_so() -> None:
    """By one function, since the driver does not import the stage images."""
    assert candidate.tag(InputRef(path="g", digest="ab" * 32, bytes=1)) == (
        "retrain-candidate:abababababab"
    )
    for caller in (candidates, contestants):
        assert caller.candidate is candidate


def test_what_is_left_goes_and_what_others_may_need_stays(tmp_path: Path, engine: Engine) -> None:
    tag = _left(tmp_path, engine, "ours")
    other = _left(tmp_path, engine, "other", ours=False)
    said: list[str] = []
    candidates.drop(tmp_path, engine, lambda: ["train"], said.append)
    assert set(engine.models()) == {other}
    assert said == [f"removed {tag} from llamacpp, left by an evaluation that was killed"]


def test_one_of_a_repeated_evaluation_goes_too(tmp_path: Path, engine: Engine) -> None:
    """Killed while it was repeated, it has the result of the time before."""
    tag = _left(tmp_path, engine, "ours")
    place = Store(tmp_path).place(EVALUATE.name, "eours")
    files.write_json(place / RESULT_FILE, {})
    candidates.drop(tmp_path, engine, list, lambda _: None)
    assert set(engine.models()) == {tag}, "another workspace may be evaluating the same file"
    os.utime(place / RESULT_FILE, (1, 1))
    candidates.drop(tmp_path, engine, list, lambda _: None)
    assert set(engine.models()) == set()


def test_an_evaluation_that_is_at_work_keeps_its_candidate(tmp_path: Path, engine: Engine) -> None:
    tag = _left(tmp_path, engine, "ours")
    candidates.drop(tmp_path, engine, lambda: ["evaluate"], lambda _: None)
    assert set(engine.models()) == {tag}


def test_recover_removes_them_from_the_engine_of_the_run(tmp_path: Path, engine: Engine) -> None:
    tag = _left(tmp_path, engine, "ours")
    run = Run.create(tmp_path)
    run.write_state({"run": run.id, "docker_host": ""})
    files.write_json(run.folder / "settings.json", {"engine": "llamacpp"})
    said: list[str] = []
    recover.recover(tmp_path, said.append)
    assert set(engine.models()) == set()
    assert any(tag in line for line in said)


def test_an_engine_that_is_away_keeps_no_run_from_going_on(tmp_path: Path, engine: Engine) -> None:
    _left(tmp_path, engine, "ours")
    away = connect({"OLLAMA_HOST": "http://127.0.0.1:9"}, tmp_path)
    candidates.drop(tmp_path, away, list, lambda _: None)
    away.close()
