"""What a run says where there is too little space for it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import DiskFull
from contracts.os_errors import from_os_error
from contracts.stage import Stage
from contracts.stages import CONVERT, DEPLOY, EVALUATE, FETCH, MERGE, REPROCESS, VERIFY
from driver import disk
from driver.notes import Notes
from driver.settings import load
from driver.store import Run

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
    file = tmp_path / "retrain.yaml"
    file.write_text(
        f"fetch: {{revision: {40 * 'a'}}}\nsnapshot: {{items: [a.jsonl]}}\n", encoding="utf-8"
    )
    session: Any = SimpleNamespace(settings=load(file, (), {}), workspace=tmp_path)
    with pytest.raises(DiskFull) as refused:
        disk.check_disk(session, running)
    assert refused.value.what.startswith(what.format(tmp_path))
    assert refused.value.why == why


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
