"""Bad input ends at once: one message (what, why, what to do), its exit code, nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from contracts import errors, files
from driver import locks

SAMPLE = files.ROOT / "examples/liga-sample"
NO_NVML = """
class NVMLError(Exception):
    pass

def nvmlInit():
    raise NVMLError("NVML Shared Library Not Found")
"""
"""A double of nvidia-ml-py on a host without a driver, with the message recorded from one."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a folder that looks like a base model: enough for what is checked before a run."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}', encoding="utf-8")
    (folder / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save({"weight": np.zeros(4, np.float32)}))
    return folder


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Return three items of the sample, none of them labelled."""
    path = tmp_path / "items.jsonl"
    files.write_jsonl(path, list(files.read_jsonl(SAMPLE / "items.jsonl"))[:3])
    return path


def run(
    tmp_path: Path, items: Path, base: Path, *overrides: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Call `python -m driver run` as a user does, on a machine without Ollama and GPU."""
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        json.dumps(
            {
                "runner": "process",
                "snapshot": {"items": [str(items)]},
                "fetch": {"path": str(base)},
                "train": {"device": "cpu", "load_in": "fp32"},
            }
        ),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "driver", "run", "-c", str(settings), "-w"]
    command += [str(tmp_path / "workspace"), *(f"--set={each}" for each in overrides)]
    kept = locks.FOLDER_VARIABLE
    inherited = {k: v for k, v in os.environ.items() if k == kept or not k.startswith("RETRAIN")}
    env = {**inherited, "OLLAMA_HOST": "127.0.0.1:9", **environ}
    return subprocess.run(
        command, cwd=files.ROOT, env=env, capture_output=True, text=True, check=False, timeout=60
    )


def refused(
    tmp_path: Path,
    done: subprocess.CompletedProcess[str],
    error: type[errors.RetrainError],
    *words: str,
) -> None:
    """Assert the one clear message, the exit code, and that nothing was begun."""
    assert done.returncode == error.exit_code, done.stderr
    assert done.stderr.startswith("error "), done.stderr
    assert "Traceback" not in done.stderr
    assert "do: " in done.stderr
    for word in words:
        assert word in done.stderr
    workspace = tmp_path / "workspace"
    left = [p.name for p in workspace.iterdir()] if workspace.exists() else []
    assert set(left) <= {"lock"}, "a refused run must leave nothing behind"


def test_an_unknown_key(tmp_path: Path, items: Path, base: Path) -> None:
    done = run(tmp_path, items, base, "train.learning_rat=1")
    refused(tmp_path, done, errors.SettingsInvalid, "train.learning_rat", "learning_rate?")


def test_a_wrong_type(tmp_path: Path, items: Path, base: Path) -> None:
    done = run(tmp_path, items, base, "train.rank=many")
    refused(tmp_path, done, errors.SettingsInvalid, "train.rank", "integer", "many")


def test_an_unknown_task(tmp_path: Path, items: Path, base: Path) -> None:
    done = run(tmp_path, items, base, "task=weather")
    refused(tmp_path, done, errors.SettingsInvalid, "weather", "liga_relevance")


@pytest.mark.parametrize(
    "override",
    [
        "workspace=2024-13-45",
        "train.rank=" + "[" * 3000,
        "train.seed=" + "9" * 5000,
        "train.seed=-1",
        "deploy.name=..",
        "label.teacher=",
        "evaluate.min_scores={mood: 0.5}",
    ],
)
def test_a_value_that_cannot_be(tmp_path: Path, items: Path, base: Path, override: str) -> None:
    done = run(tmp_path, items, base, override)
    refused(tmp_path, done, errors.SettingsInvalid, override.partition("=")[0].partition(".")[0])


@pytest.mark.parametrize("address", ["http://[::1", ":::", "[", "host:port"])
def test_an_address_that_is_none(tmp_path: Path, items: Path, base: Path, address: str) -> None:
    done = run(tmp_path, items, base, OLLAMA_HOST=address)
    refused(tmp_path, done, errors.SettingsInvalid, f"OLLAMA_HOST={address}")


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "{broken",
        "[1]",
        '{"id": "x"}',
        "[" * 100_000,
        '{"id": ' + "9" * 5000 + "}",
        '{"id": "x", "title": "\\ud800", "content": "c"}',
    ],
)
def test_a_line_that_is_no_item(tmp_path: Path, items: Path, base: Path, line: str) -> None:
    whole = items.read_text(encoding="utf-8").splitlines()
    items.write_text("\n".join([whole[0], line, *whole[1:]]) + "\n", encoding="utf-8")
    refused(tmp_path, run(tmp_path, items, base), errors.ItemsInvalid, str(items), "line 2")


def test_an_empty_file(tmp_path: Path, items: Path, base: Path) -> None:
    items.write_text("", encoding="utf-8")
    refused(tmp_path, run(tmp_path, items, base), errors.ItemsInvalid)


def test_no_such_items(tmp_path: Path, items: Path, base: Path) -> None:
    missing = tmp_path / "elsewhere.jsonl"
    refused(tmp_path, run(tmp_path, missing, base), errors.ItemsInvalid, "elsewhere.jsonl")


def test_a_missing_base_model(tmp_path: Path, items: Path, base: Path) -> None:
    done = run(tmp_path, items, tmp_path / "nothing")
    refused(tmp_path, done, errors.BaseModelMissing, "nothing")


def test_an_incomplete_base_model(tmp_path: Path, items: Path, base: Path) -> None:
    (base / "tokenizer.json").unlink()
    refused(tmp_path, run(tmp_path, items, base), errors.BaseModelMissing, "tokenizer.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b""),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      "),
        ("model.safetensors", save({"weight": np.zeros(4, np.float32)})[:-1]),
        ("model.safetensors.index.json", b'{"weight_map": {"a": 5}}'),
        ("model.safetensors.index.json", b"\xff"),
    ],
)
def test_a_damaged_base_model(
    tmp_path: Path, items: Path, base: Path, name: str, content: bytes
) -> None:
    (base / name).write_bytes(content)
    refused(tmp_path, run(tmp_path, items, base), errors.BaseModelMissing, f"{name} is damaged")


def test_a_base_model_that_is_quantised(tmp_path: Path, items: Path, base: Path) -> None:
    (base / "model.safetensors").write_bytes(save({"weight": np.zeros((4, 4), np.int8)}))
    done = run(tmp_path, items, base)
    refused(tmp_path, done, errors.SentinelTripped, "unquantised_base", "fetch.path")


def test_no_docker_engine(tmp_path: Path, items: Path, base: Path) -> None:
    done = run(tmp_path, items, base, "runner=docker", DOCKER_HOST=f"unix://{tmp_path}/no.sock")
    refused(tmp_path, done, errors.DockerUnavailable, "systemctl start docker")


def test_no_gpu_where_one_is_asked_for(tmp_path: Path, items: Path, base: Path) -> None:
    doubles = tmp_path / "doubles"
    doubles.mkdir()
    (doubles / "pynvml.py").write_text(NO_NVML, encoding="utf-8")
    done = run(tmp_path, items, base, "train.device=cuda", PYTHONPATH=str(doubles))
    refused(tmp_path, done, errors.GpuUnavailable, "NVML", "train.device=cpu")


def test_no_ollama(tmp_path: Path, items: Path, base: Path) -> None:
    done = run(tmp_path, items, base)
    refused(tmp_path, done, errors.EngineUnavailable, "127.0.0.1:9")


def test_no_teacher(tmp_path: Path, items: Path, base: Path) -> None:
    """The llama.cpp engine has no model at all in a new workspace."""
    done = run(tmp_path, items, base, "engine=llamacpp", "label.teacher=qwen3:32b")
    refused(tmp_path, done, errors.ModelMissing, "qwen3:32b", "label.teacher")


def test_a_full_disk(tmp_path: Path, items: Path, base: Path) -> None:
    done = run(tmp_path, items, base, "min_free_gb=1000000")
    refused(tmp_path, done, errors.DiskFull, "1000000.0 GB are needed")


def test_a_second_run_at_the_same_time(tmp_path: Path, items: Path, base: Path) -> None:
    with locks.workspace(tmp_path / "workspace"):
        done = run(tmp_path, items, base)
    refused(tmp_path, done, errors.WorkspaceBusy, f"pid {os.getpid()}")


def test_an_unwritable_workspace(tmp_path: Path, items: Path, base: Path) -> None:
    (tmp_path / "workspace").write_text("a file, not a folder", encoding="utf-8")
    done = run(tmp_path, items, base)
    assert done.returncode == errors.FileUnusable.exit_code
    assert "Traceback" not in done.stderr


def test_every_failure_has_a_code_of_its_own() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.RetrainError)
        and kind is not errors.RetrainError
    ]
    codes = [kind.exit_code for kind in kinds]
    assert len(codes) == len(set(codes))
    table = (files.ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    for kind in kinds:
        assert f"| {kind.exit_code} | {kind.__name__} |" in table
