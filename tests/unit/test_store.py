"""The store: what counts as finished, and that the lock ends with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import files
from contracts.entrypoint import IMAGE_ID, StageContext, execute, main
from contracts.errors import (
    BaseModelMissing,
    ImageStale,
    InputMissing,
    OutputMissing,
    StageFailed,
    error_for,
)
from contracts.label_cache import LabelCache
from contracts.params import (
    GgufMetrics,
    GgufParams,
)
from contracts.stage import Event, InputRef, Job, Result
from contracts.stages import (
    CONVERT,
    GGUF,
    GGUF_VARIANTS,
    MERGED,
)
from driver import locks
from driver.store import RUN_NAME, Run, Store
from tests.jobs import job_of

Work = Callable[[StageContext[GgufParams]], GgufMetrics]
METRICS = GgufMetrics(bytes=3, tensors=1, architecture="qwen3")


def job(workspace: Path) -> Job:
    merged = workspace / "merged.bin"
    merged.write_text("abc", encoding="utf-8")
    reference = InputRef(path="merged.bin", digest=files.digest_path(merged), bytes=3)
    return job_of(
        CONVERT,
        GgufParams(),
        {MERGED.name: reference},
        fingerprint="f" * 16,
        code_digest=files.code_digest(*CONVERT.code),
        task="t",
    )


def copies(context: StageContext[GgufParams]) -> GgufMetrics:
    context.output(GGUF).write_bytes(context.input(MERGED).read_bytes())
    context.output(GGUF_VARIANTS).mkdir(exist_ok=True)
    context.progress(1, 1, "files")
    return METRICS


def run(workspace: Path, work: Work = copies) -> tuple[Store, Result]:
    store = Store(workspace)
    path = store.prepare(job(workspace))
    result = execute(CONVERT, job(workspace), workspace, path.parent, work, lambda _event: None)
    return store, result


def test_a_finished_stage_is_found_with_its_outputs(tmp_path: Path) -> None:
    store, result = run(tmp_path)
    assert store.result("gguf", "f" * 16) == result
    output = result.outputs[GGUF.name]
    assert (tmp_path / output.path).read_text(encoding="utf-8") == "abc"
    assert output.bytes == 3
    assert output.digest == files.digest_path(tmp_path / "merged.bin")
    latest = store.latest("gguf")
    assert latest is not None
    assert latest[0].fingerprint == "f" * 16


@pytest.mark.parametrize(
    "damage",
    [
        "output gone",
        "output cut",
        "output other",
        "result cut",
        "result no text",
        "metrics gone",
        "outputs gone",
        "stage other",
        "job gone",
        "job cut",
        "job of another",
    ],
)
def test_a_damaged_result_does_not_count(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store, result = run(tmp_path)
    output = tmp_path / result.outputs[GGUF.name].path
    match damage:
        case "output gone":
            output.unlink()
        case "output cut":
            output.chmod(0o644)
            output.write_text("a", encoding="utf-8")
        case "output other":
            output.chmod(0o644)
            output.write_text("abx", encoding="utf-8")
        case "stage other":
            told = {**result.model_dump(mode="json"), "stage": "train"}
            files.write_json(store.place("gguf", "f" * 16) / "result.json", told)
        case "job gone":
            (store.place("gguf", "f" * 16) / "job.json").unlink()
        case "job cut":
            (store.place("gguf", "f" * 16) / "job.json").write_bytes(b'{"stage": "gguf"')
        case "job of another":
            other = job(tmp_path).model_copy(update={"fingerprint": "0" * 16})
            place = store.place("gguf", "f" * 16)
            files.write_json(place / "job.json", other.model_dump(mode="json"))
        case "metrics gone" | "outputs gone":
            told = {**result.model_dump(mode="json"), damage.removesuffix(" gone"): {}}
            files.write_json(store.place("gguf", "f" * 16) / "result.json", told)
        case _:
            text = b"{" if damage == "result cut" else b"\xff"
            (store.place("gguf", "f" * 16) / "result.json").write_bytes(text)
    assert store.result("gguf", "f" * 16) is None
    assert "damaged" in capsys.readouterr().err
    if damage.startswith("job"):
        assert store.latest("gguf") is None
    _, again = run(tmp_path)
    assert store.result("gguf", "f" * 16) == again


def test_a_large_output_is_read_only_when_it_was_written_to_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("driver.store._SMALL", 0)
    store, result = run(tmp_path)
    output = tmp_path / result.outputs[GGUF.name].path
    output.chmod(0o644)
    written = output.stat().st_mtime_ns
    output.write_bytes(b"abx")
    os.utime(output, ns=(written, written))
    assert store.result("gguf", "f" * 16) == result, "as old as it was: taken for what it was"
    later = written + 10_000_000_000
    os.utime(output, ns=(later, later))
    assert store.result("gguf", "f" * 16) is None
    assert "holds something else" in capsys.readouterr().err
    output.write_bytes(b"abc")
    os.utime(output, ns=(later, later))
    assert store.result("gguf", "f" * 16) == result


def test_no_result_without_every_output(tmp_path: Path) -> None:
    with pytest.raises(OutputMissing, match="ended without"):
        run(tmp_path, work=lambda _context: METRICS)
    assert Store(tmp_path).result("gguf", "f" * 16) is None


_KILLED_WHILE_IT_WRITES = """
import os, signal, sys
from pathlib import Path
from contracts import files
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files.write_json(Path(sys.argv[1]) / "index.json", {})
"""


def test_what_a_kill_left_unfinished_is_not_published_and_does_not_stay(tmp_path: Path) -> None:
    """It would be in the digest of an artifact that is a folder, for one."""
    store = Store(tmp_path)
    whole = execute(CONVERT, job(tmp_path), tmp_path, tmp_path / "store/gguf/x", copies, print)
    folder = store.prepare(job(tmp_path)).parent
    variants = folder / "work/out" / GGUF_VARIANTS.filename
    variants.mkdir(parents=True)
    for written_to in (variants, folder / "work"):  # a stage's own notes lie in the second
        command = [sys.executable, "-c", _KILLED_WHILE_IT_WRITES, str(written_to)]
        assert subprocess.run(command, cwd=files.ROOT, check=False).returncode == -signal.SIGKILL
        assert list(written_to.glob(f"*{files.UNFINISHED}"))
    result = execute(CONVERT, job(tmp_path), tmp_path, folder, copies, print)
    name = GGUF_VARIANTS.name
    assert result.outputs[name].digest == whole.outputs[name].digest
    assert not list(folder.rglob(f"*{files.UNFINISHED}"))


def test_an_input_of_another_size_is_refused(tmp_path: Path) -> None:
    broken = job(tmp_path)
    (tmp_path / "merged.bin").write_text("ab", encoding="utf-8")
    with pytest.raises(InputMissing, match="damaged"):
        execute(CONVERT, broken, tmp_path, tmp_path / "place", copies, lambda _event: None)


def test_a_failed_stage_keeps_its_partial_work(tmp_path: Path) -> None:
    def breaks(context: StageContext[GgufParams]) -> GgufMetrics:
        (context.work / "checkpoint").write_text("half", encoding="utf-8")
        raise StageFailed("broke")

    with pytest.raises(StageFailed):
        run(tmp_path, work=breaks)
    assert (Store(tmp_path).place("gguf", "f" * 16) / "work" / "checkpoint").exists()
    _, result = run(tmp_path)
    assert result.outputs[GGUF.name].bytes == 3


def test_the_entry_point_reports_errors_as_event_and_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = Store(tmp_path).prepare(job(tmp_path))
    assert main(["images.gguf", str(path)], {CONVERT: copies}) == 0

    def fails(_context: StageContext[GgufParams]) -> GgufMetrics:
        raise BaseModelMissing("no base", why="because", todo="get it")

    capfd.readouterr()
    assert main(["images.gguf", str(path)], {CONVERT: fails}) == BaseModelMissing.exit_code
    event = Event.model_validate_json(capfd.readouterr().out)
    assert event.error == {"what": "no base", "why": "because", "todo": "get it"}
    assert error_for(BaseModelMissing.exit_code) is BaseModelMissing


def test_an_image_of_other_code_refuses_the_job(tmp_path: Path) -> None:
    stale = job(tmp_path).model_copy(update={"code_digest": "0" * 64})
    path = Store(tmp_path).prepare(stale)
    assert main(["images.gguf", str(path)], {CONVERT: copies}) == ImageStale.exit_code


@pytest.mark.parametrize("before", [[], ["20991231-235959"], ["20991231-235959-12"]])
def test_runs_sort_in_their_order_although_the_clock_was_set_back(
    tmp_path: Path, before: list[str]
) -> None:
    """And never collide. The number is an older driver's; what is no run's folder is no run."""
    for name in [*before, "99991231-235959", "20991231-235959.old", "old"]:
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "20991231-235960").touch()
    runs = [Run.create(tmp_path).id for _ in range(3)]
    assert sorted({*before, *runs}) == before + runs
    assert all(RUN_NAME.fullmatch(run) for run in runs)
    last = Run.last(tmp_path)
    assert last is not None
    assert last.id == runs[-1]


def test_publishing_is_atomic_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    files.write_json(target, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(target, {"a": object()})
    assert files.read_jsonl(target) is not None
    assert target.read_text(encoding="utf-8") == '{\n  "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_stage_run_again_keeps_the_old_result_until_the_new_one_counts(tmp_path: Path) -> None:
    store, first = run(tmp_path)

    def breaks(_context: StageContext[GgufParams]) -> GgufMetrics:
        raise StageFailed("broke")

    with pytest.raises(StageFailed):
        run(tmp_path, work=breaks)
    assert store.result("gguf", "f" * 16) == first


def test_a_private_file_stays_private_and_belongs_to_whom_the_folder_does(tmp_path: Path) -> None:
    """Else `sudo python -m driver run` would leave a record that its owner cannot recover by."""
    owner = 4711 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, owner, -1)
    path = tmp_path / "window.json"
    for number in range(2):
        files.write_json(path, {"number": number}, files.PRIVATE)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_uid == owner


def test_what_root_makes_in_a_workspace_belongs_to_its_owner(tmp_path: Path) -> None:
    """Else one `sudo python -m driver run` would lock the owner out of the next."""
    owner = 4711 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, owner, -1)
    with locks.workspace(tmp_path / "new" / "workspace"):
        run = Run.create(tmp_path / "new" / "workspace")
    files.write_json(run.folder / "settings.json", {}, files.PRIVATE)
    with LabelCache(tmp_path / "cache" / "labels.sqlite"):
        pass
    made = [path for path in tmp_path.rglob("*") if path.name != "lock"]  # it is for everybody
    assert len(made) == 8
    assert {path.stat().st_uid for path in made} == {owner}


def test_a_file_system_without_owners_takes_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fchown(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", fchown)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    files.write_json(tmp_path / "window.json", {}, files.PRIVATE)
    assert (tmp_path / "window.json").stat().st_mode & 0o777 == files.PRIVATE


def test_the_image_is_that_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of a later start which was interrupted; older drivers noted no more than a start."""
    monkeypatch.setenv(IMAGE_ID, "sha256:first")
    store, result = run(tmp_path)
    noted = store.place("gguf", "f" * 16) / "image.txt"
    noted.write_text("sha256:later")
    assert store.image("gguf", "f" * 16, result) == "sha256:first"
    older = result.model_copy(update={"image": ""})
    assert store.image("gguf", "f" * 16, older) == ""
    os.utime(noted, (1, 1))
    assert store.image("gguf", "f" * 16, older) == "sha256:later"
