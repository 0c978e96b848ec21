"""What a run says where there is too little space for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import files
from contracts.entrypoint import RESULT_FILE
from contracts.errors import DiskFull
from contracts.os_errors import from_os_error
from contracts.params import GgufMetrics
from contracts.stage import OutputRef, Result, Stage
from contracts.stages import CONVERT, DEPLOY, EVALUATE, FETCH, MERGE, REPROCESS, VERIFY
from driver import disk
from driver.notes import Notes
from driver.settings import load
from driver.store import Run, Store
from tests.jobs import job_of
from tests.unit.other_user import another_user, public_folder

SMALL = "answers, logs, the report and caches will lie there"
MODELS = "base model, merged model and GGUF will lie there at the same time"


@pytest.mark.parametrize(
    ("running", "free", "what", "why"),
    [
        ([REPROCESS], 0.0, "0 MB are free", SMALL),
        ([DEPLOY], 0.0997, "99 MB are free at {}, 100 MB are needed", SMALL),
        ([EVALUATE, DEPLOY, VERIFY], 0.09999, "99 MB are free at {}, 100 MB are needed", SMALL),
        ([CONVERT], 15.77, "15.7 GB are free at {}, 15.8 GB are needed", "GGUF will lie there"),
        ([FETCH, MERGE, CONVERT], 5.0, "5.0 GB are free", MODELS),
    ],
)
def test_the_reason_is_of_what_will_run_and_the_figures_differ(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    running: Sequence[Stage],
    free: float,
    what: str,
    why: str,
) -> None:
    monkeypatch.setattr(disk, "free_gb", lambda _: free)
    session = _session(tmp_path)
    with pytest.raises(DiskFull) as refused:
        disk.check_disk(session, running)
    assert refused.value.what.startswith(what.format(tmp_path))
    assert refused.value.why == why


@pytest.mark.parametrize(
    ("running", "free", "told"),
    [
        ([CONVERT, EVALUATE, DEPLOY, VERIFY], 47.0, "making one takes three times its size"),
        ([EVALUATE, DEPLOY, VERIFY], 31.0, "making one takes twice its size"),
        ([EVALUATE, DEPLOY, VERIFY], 32.0, ""),
        ([VERIFY], 0.0, ""),
    ],
)
def test_of_ollamas_disk_as_much_is_asked_as_is_still_to_be_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    running: Sequence[Stage],
    free: float,
    told: str,
) -> None:
    """A run that was killed has uploaded the GGUF; it goes on where it fits."""
    gguf = tmp_path / "model.gguf"
    gguf.write_text("GGUF")
    digest = files.digest_path(gguf)
    made = OutputRef(path="model.gguf", digest=digest, bytes=4)
    result = Result(
        stage=CONVERT.name,
        fingerprint="g",
        outputs={each.name: made for each in CONVERT.outputs},
        metrics=GgufMetrics(bytes=4, tensors=1, architecture="qwen3").model_dump(),
        seconds=1,
        finished_at="",
    )
    folder = Store(tmp_path).prepare(job_of(CONVERT, fingerprint="g")).parent
    files.write_json(folder / RESULT_FILE, result.model_dump())
    models = tmp_path / "models"
    files.write_text(models / "blobs" / f"sha256-{digest}", "GGUF")
    monkeypatch.setenv("OLLAMA_MODELS", str(models))
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    monkeypatch.setattr(disk, "free_gb", lambda _: free)
    session = _session(tmp_path)
    if not told:
        disk.check_engine_disk(session, running)
        return
    with pytest.raises(DiskFull) as refused:
        disk.check_engine_disk(session, running)
    assert told in refused.value.why


def test_a_folder_of_ollamas_that_is_closed_to_this_user_is_not_asked_about() -> None:
    """As a home of mode 0750 is to who is not in the group."""
    with public_folder() as root:
        home = root / "ollama"
        (home / "models").mkdir(parents=True)
        home.chmod(0o700 if os.geteuid() == 0 else 0o000)
        session = _session(root)
        with pytest.MonkeyPatch.context() as patched, another_user():
            patched.setenv("OLLAMA_MODELS", str(home / "models"))
            patched.delenv("OLLAMA_HOST", raising=False)
            patched.setattr(disk, "free_gb", lambda _: 0.0)
            disk.check_engine_disk(session, [EVALUATE])
        home.chmod(0o700)


def _session(root: Path) -> Any:
    file = root / "retrain.yaml"
    file.write_text(
        f"fetch: {{revision: {40 * 'a'}}}\nsnapshot: {{items: [a.jsonl]}}\n", encoding="utf-8"
    )
    return SimpleNamespace(settings=load(file, (), {}), workspace=root, store=Store(root))


def test_what_could_not_be_noted_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run.json")

    run, warnings = Run.create(tmp_path), list[str]()
    monkeypatch.setattr(Run, "write_state", full)
    assert Notes(run, "").end(tmp_path, [], warnings.append) is None
    told = "the report could not be written: the disk is full (run.json: No space left on device)"
    assert warnings == [told]


def test_a_full_disk_of_a_named_file_is_not_the_workspaces() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/stick/page.html")
    for named in ("/stick/page.html", "/stick"):
        assert "workspace" not in from_os_error(full, Path(named)).todo
    assert "workspace" in from_os_error(full, Path("/home/page.html")).todo
