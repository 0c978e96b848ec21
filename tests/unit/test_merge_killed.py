"""A merge that is killed goes on behind its last finished shard, to the same bytes."""

from __future__ import annotations

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
from contracts.stages import MERGE
from images.merger import merge, streamed
from images.merger.shards import model_shards
from tests.unit.lora_models import make_adapter, make_base
from tests.unit.model_stages import folder_of, job, run

KILLS = 5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a base of 60 MB in many files, and an adapter."""
    root = tmp_path_factory.mktemp("models")
    size = {"hidden_size": 384, "intermediate_size": 1600, "num_hidden_layers": 12}
    base = make_base(root / "base", shard="4MB", **size)
    assert len(model_shards(base)) > 10
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
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311
    noted = []
    for _ in range(KILLS):
        ended = _killed_after(folder, chance.uniform(0.0, 0.25))
        noted.append(len(_noted(folder)))
        if ended:
            break
    print(f"finished shards after each kill: {noted}")
    assert noted == sorted(noted)  # nothing that was finished is lost
    assert not (folder / "result.json").exists() or ended

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


def _killed_after(folder: Path, seconds: float) -> bool:
    """Start the stage and kill it so long after it began to merge; return whether it had ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "images.merger", str(folder / "job.json")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first event: the inputs are read, the merge begins
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    return process.wait() == 0


def _noted(folder: Path) -> dict[str, Any]:
    path = folder / "work" / merge.PROGRESS
    if not path.exists():
        return {}
    shards: dict[str, Any] = json.loads(path.read_text())["shards"]
    return shards


class Stopped(Exception):
    """Stands for a kill between two shards."""


def _stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    """Let the merge write so many shards and stop; return the list that their names come to."""
    written: list[str] = []
    write = streamed.write_shard

    def counting(source: Path, *given: Any) -> streamed.Shard:
        if len(written) == count:
            raise Stopped
        written.append(source.name)
        return write(source, *given)

    monkeypatch.setattr(merge, "write_shard", counting)
    return written


def test_finished_shards_are_not_written_again(
    tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = workspace(tmp_path, models)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        before = _stop_after(patch, 3)
        run(tmp_path, MERGE, merge.work, inputs, {})
    leftover = folder_of(tmp_path, MERGE) / "work" / "out" / "merged" / ".x.safetensors.partial"
    leftover.write_bytes(b"half")
    events: list[Any] = []
    with monkeypatch.context() as patch:
        after = _stop_after(patch, 1000)
        run(tmp_path, MERGE, merge.work, inputs, {}, events.append)
    assert sorted(before + after) == sorted(model_shards(models[0]))
    assert ".x.safetensors.partial" not in content(tmp_path)
    assert {event.unit for event in events} == {"bytes"}
    assert events[-1].done == events[-1].total
    # Tensors that only the shards of before have changed count as changed.
    assert len(before) == 3


@pytest.mark.parametrize("what", ["dtype", "adapter", "base file", "shard"])
def test_shards_of_other_inputs_or_that_were_changed_are_made_anew(
    tmp_path: Path, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    inputs = workspace(tmp_path, models)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        before = _stop_after(patch, 3)
        run(tmp_path, MERGE, merge.work, inputs, {})
    stale, params = set(before), {}
    built = folder_of(tmp_path, MERGE) / "work" / "out" / "merged"
    if what == "dtype":
        params = {"dtype": "fp32"}
    elif what == "adapter":
        other = make_adapter(tmp_path / "other", models[0], lora_alpha=9)
        inputs["lora_adapter"].unlink()
        inputs["lora_adapter"].symlink_to(other)
    elif what == "base file":
        os.utime(models[0] / before[1])
        stale = {before[1]}
    else:
        whole = (built / before[1]).read_bytes()
        (built / before[1]).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        stale = {before[1]}
    with monkeypatch.context() as patch:
        after = _stop_after(patch, 1000)
        run(tmp_path, MERGE, merge.work, inputs, params)
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
    from contracts.errors import from_os_error

    base, _ = models
    name = min(model_shards(base))
    full = tmp_path / f".{name}.partial"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        streamed.write_shard(
            base / name,
            model_shards(base)[name],
            tmp_path / name,
            merge.DTYPES["bf16"],
            {},
            lambda _count: None,
        )
    assert isinstance(from_os_error(error.value), DiskFull)
    assert not (tmp_path / name).exists()
