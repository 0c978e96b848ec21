"""A merge that is killed goes on behind its last finished shard, to the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.errors import DiskFull
from contracts.files import ROOT
from contracts.stage import Event
from contracts.stages import MERGE
from images.merger import merge, streamed
from images.weights.model_files import DTYPES
from images.weights.shards import model_shards
from tests.unit.lora_models import make_adapter, make_base
from tests.unit.model_stages import folder_of, job, run

KILLS = 5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a base of 40 MB in ten files, and an adapter."""
    root = tmp_path_factory.mktemp("models")
    size: dict[str, Any] = {"hidden_size": 384, "intermediate_size": 1600, "num_hidden_layers": 9}
    base = make_base(root / "base", shard="4MB", **size)
    assert len(model_shards(base)) > 8
    return base, make_adapter(root / "adapter", base)


def workspace(root: Path, models: tuple[Path, Path]) -> dict[str, Path]:
    (root / "in").mkdir(parents=True)
    inputs = {"base": root / "in" / "base", "lora_adapter": root / "in" / "lora_adapter"}
    for link, target in zip(inputs.values(), models, strict=True):
        link.symlink_to(target)
    return inputs


def content(root: Path) -> dict[str, str]:
    out = folder_of(root, MERGE) / "out" / "merged"
    return {path.name: files.digest_path(path) for path in out.iterdir()}


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    tmp_path: Path, models: tuple[Path, Path]
) -> None:
    run(tmp_path / "whole", MERGE, merge.work, workspace(tmp_path / "whole", models), {})
    root = tmp_path / "killed"
    inputs = workspace(root, models)
    folder = folder_of(root, MERGE)
    code = files.code_digest(*MERGE.code)
    told = job(root, MERGE, inputs, {}).model_copy(update={"code_digest": code})
    files.write_json(folder / "job.json", told.model_dump(mode="json"))

    seed = random.randrange(10**6)  # noqa: S311
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)  # noqa: S311
    noted = []
    for _ in range(KILLS):
        ended = _killed(folder, events=chance.randint(1, 3), seconds=chance.uniform(0.0, 0.1))
        noted.append(len(_noted(folder)))
        if ended:
            break
    sys.stdout.write(f"finished shards after each kill: {noted}\n")
    assert noted == sorted(noted)  # nothing that was finished is lost

    done = subprocess.run(
        [sys.executable, "-m", "images.merger", str(folder / "job.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert content(root) == content(tmp_path / "whole")
    result = json.loads((folder / "result.json").read_text())
    published = folder / "out" / "merged"
    assert result["outputs"]["merged"]["digest"] == files.digest_path(published)


def _killed(folder: Path, *, events: int, seconds: float) -> bool:
    """Kill the stage so long after so many of its events; return whether it had ended before.

    The first event comes when the merge begins, and one with each finished shard.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "images.merger", str(folder / "job.json")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    for _ in range(events):
        process.stdout.readline()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    return process.wait() == 0


def _noted(folder: Path) -> dict[str, Any]:
    path = folder / "work" / merge.PROGRESS
    if not path.exists():
        return {}
    shards: dict[str, Any] = json.loads(path.read_text())["files"]
    return shards


class Stopped(Exception):
    """Stands for a kill between two shards."""


def run_to(root: Path, inputs: dict[str, Path], count: int = 1000, **params: Any) -> list[str]:
    """Run the stage until it has written so many shards; return their names."""
    written: list[str] = []

    def counting(source: Path, *given: Any) -> streamed.Shard:
        if len(written) == count:
            raise Stopped
        written.append(source.name)
        return streamed.write_shard(source, *given)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Stopped):
        patch.setattr(merge, "write_shard", counting)
        run(root, MERGE, merge.work, inputs, params)
    return written


def test_finished_shards_are_not_written_again(tmp_path: Path, models: tuple[Path, Path]) -> None:
    inputs = workspace(tmp_path, models)
    before = run_to(tmp_path, inputs, 3)
    leftover = folder_of(tmp_path, MERGE) / "work" / "out" / "merged" / ".x.safetensors.partial"
    leftover.write_bytes(b"half")
    after = run_to(tmp_path, inputs)
    assert len(before) == 3
    assert sorted(before + after) == sorted(model_shards(models[0]))
    assert ".x.safetensors.partial" not in content(tmp_path)


def test_changes_in_shards_of_before_count(tmp_path: Path) -> None:
    """The only adapted matrix lies in a shard that was finished before the kill."""
    base = make_base(tmp_path / "base", shard="40KB")
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["layers.0.mlp.up_proj"])
    inputs = workspace(tmp_path / "ws", (base, adapter))
    shards = list(model_shards(base).items())
    of = [n for n, (_, found) in enumerate(shards) if any("0.mlp.up" in e.name for e in found)]
    assert len(run_to(tmp_path / "ws", inputs, of[0] + 1)) == of[0] + 1 < len(shards)
    result = run(tmp_path / "ws", MERGE, merge.work, inputs, {})
    assert result.metrics["merged_modules"] == 1


def test_progress_is_told_in_bytes(tmp_path: Path, models: tuple[Path, Path]) -> None:
    events: list[Event] = []
    run(tmp_path, MERGE, merge.work, workspace(tmp_path, models), {}, events.append)
    total = sum(entry.bytes for found in model_shards(models[0]).values() for entry in found)
    assert {(event.unit, event.total) for event in events} == {("bytes", total)}
    done = [event.done for event in events]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)


@pytest.mark.parametrize("what", ["dtype", "adapter", "base file", "shard"])
def test_shards_of_other_inputs_or_that_were_changed_are_made_anew(
    tmp_path: Path, models: tuple[Path, Path], what: str
) -> None:
    inputs = workspace(tmp_path, models)
    before = run_to(tmp_path, inputs, 3)
    stale = set(before) if what in {"dtype", "adapter"} else {before[1]}
    if what == "adapter":
        other = make_adapter(tmp_path / "other", models[0], lora_alpha=9)
        inputs["lora_adapter"].unlink()
        inputs["lora_adapter"].symlink_to(other)
    elif what == "base file":
        os.utime(models[0] / before[1])
    elif what == "shard":
        built = folder_of(tmp_path, MERGE) / "work" / "out" / "merged" / before[1]
        built.write_bytes(built.read_bytes()[::-1])
    after = run_to(tmp_path, inputs, dtype="fp32" if what == "dtype" else "bf16")
    assert stale == set(before) & set(after)


def test_the_digests_taken_while_writing_are_those_of_the_files(
    tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = hashlib.file_digest

    def noting(stream: Any, name: str) -> Any:
        read.append(stream.name)
        return digest(stream, name)

    inputs = workspace(tmp_path, models)
    told = job(tmp_path, MERGE, inputs, {})
    with monkeypatch.context() as patch:
        patch.setattr("tests.unit.model_stages.job", lambda *_: told)
        patch.setattr(hashlib, "file_digest", noting)
        result = run(tmp_path, MERGE, merge.work, inputs, {})
    assert read
    assert not [name for name in read if str(name).endswith(".safetensors")]
    published = folder_of(tmp_path, MERGE) / "out" / "merged"
    assert result.outputs["merged"].digest == files.digest_path(published)


def test_a_full_disk_comes_up_from_the_thread_that_writes(
    tmp_path: Path, models: tuple[Path, Path]
) -> None:
    from contracts.os_errors import from_os_error

    base, _ = models
    name = min(model_shards(base))
    full = tmp_path / f".{name}.partial"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        streamed.write_shard(
            base / name,
            model_shards(base)[name],
            tmp_path / name,
            DTYPES["bf16"],
            {},
            lambda _count: None,
        )
    assert isinstance(from_os_error(error.value), DiskFull)
    assert not (tmp_path / name).exists()
