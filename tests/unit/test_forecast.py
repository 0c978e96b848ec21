"""What is said of the training before it starts: by plan, run and doctor.

The NVML double answers with `recorded/`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import files, stages
from contracts.errors import OutOfMemory, SettingsInvalid
from contracts.params import FetchMetrics, SnapshotMetrics, SplitMetrics, TrainMetrics
from contracts.stage import InputRef, Metrics, OutputRef, Result, Stage
from driver import doctor, forecast, preflight, settings
from driver.store import Store
from tasks import load_task
from tests.jobs import job_of

FETCH = f"fetch: {{model: Qwen/Qwen3-14B, revision: {'a' * 40}}}"
ROWS = [
    {"id": f"r{i}", "messages": [{"role": "user", "content": "x" * (1550 + 62 * i)}]}
    for i in range(10)
]
"""Rows of 500 to 680 tokens by estimate; 590 on average."""
BASE = FetchMetrics(model="m", files=1, bytes=1)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that makes a session, as far as the forecast goes."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(*overrides: str) -> Any:
        file = tmp_path / "s.yaml"
        file.write_text(f"snapshot: {{items: [a.jsonl]}}\n{FETCH}\n", encoding="utf-8")
        loaded = settings.load(file, overrides, {})
        said: list[str] = []
        return SimpleNamespace(
            settings=loaded,
            workspace=tmp_path,
            store=Store(tmp_path),
            task=load_task(loaded.task),
            display=SimpleNamespace(note=said.append, warn=said.append),
            said=said,
            compose_file=files.ROOT / "compose.retrain.yml",
        )

    return make


def finish(
    root: Path,
    stage: Stage,
    metrics: Metrics,
    params: dict[str, Any] | None = None,
    inputs: dict[str, str] | None = None,
) -> None:
    """Leave a result of a stage whose outputs have the digest `base` and may not be there."""
    folder = root / "store" / stage.name / "f1"
    job = job_of(
        stage,
        params,
        {k: InputRef(path="p", digest=v, bytes=1) for k, v in (inputs or {}).items()},
        fingerprint="f1",
        task="",
    )
    outputs = {
        artifact.name: OutputRef(
            path=(folder / "out" / artifact.filename).relative_to(root).as_posix(),
            digest="base",
            bytes=1,
        )
        for artifact in stage.outputs
    }
    result = Result(
        stage=stage.name,
        fingerprint="f1",
        outputs=outputs,
        metrics=metrics.model_dump(mode="json"),
        seconds=1,
        finished_at="2026-01-01T00:00:00+00:00",
    )
    files.write_json(folder / "job.json", job.model_dump(mode="json"))
    files.write_json(folder / "result.json", result.model_dump(mode="json"))


def split_is_there(root: Path, rows: list[dict[str, Any]]) -> None:
    counts = SplitMetrics(
        train=len(rows), validation=1, test=1, duplicates=0, frozen=0, test_set_digest=""
    )
    finish(root, stages.SPLIT, counts)
    files.write_jsonl(root / "store" / "split" / "f1" / "out" / "train.jsonl", rows)


def training_was(root: Path, **changes: Any) -> None:
    """Leave a base and a finished training on it, at 500 tokens a second."""
    finish(root, stages.FETCH, BASE)
    params = {"backend": "auto", "device": "cuda", "load_in": "8bit"}
    metrics = TrainMetrics(
        backend="unsloth",
        steps=1,
        rows=1,
        dropped=0,
        train_loss=1,
        validation_loss=1,
        trained_tokens=1,
        peak_memory_mib=1,
        tokens_per_s=500,
    )
    params |= {"gradient_checkpointing": "auto"} | changes
    finish(root, stages.TRAIN, metrics, params, {"base": "base"})


# --- what is said --------------------------------------------------------------------------------
def test_before_there_are_rows_the_limit_is_taken(
    session: Callable[..., Any], nvml: Callable[[Any], Any]
) -> None:
    nvml("rtx3090")
    made = session()
    forecast.announce(made)
    assert made.said == ["train: about 21,600 of 24,576 MiB (2 rows of up to 2,048 tokens at once)"]


def test_rows_of_a_split_tell_length_and_time(
    session: Callable[..., Any], nvml: Callable[[Any], Any], tmp_path: Path
) -> None:
    nvml("rtx3090")
    split_is_there(tmp_path, ROWS)
    found = forecast.forecast(session())
    assert found is not None
    assert (found.training.rows, found.training.length) == (4, 680)
    # 8 steps of 4 rows of 590 tokens at 0.35 of 71 TFLOP/s, and loading 29.5 GB at 0.5 GB/s
    assert found.seconds == pytest.approx(18_880 / 300 + 59, rel=0.05)
    assert found.text().endswith("about 2 min by estimate")


def test_items_stand_in_before_there_is_a_split(
    session: Callable[..., Any], nvml: Callable[[Any], Any], tmp_path: Path
) -> None:
    nvml("rtx3090")
    items = list(files.read_jsonl(files.ROOT / "examples/liga-sample/items.jsonl"))
    finish(tmp_path, stages.SNAPSHOT, SnapshotMetrics(items=340, reviewed=0))
    files.write_jsonl(tmp_path / "store" / "snapshot" / "f1" / "out" / "items.jsonl", items)
    found = forecast._lengths(session())
    assert found is not None
    assert found.rows == 238
    # 975 tokens of prompt on average (counted), and 1,000 characters of answer
    assert found.mean == pytest.approx(975 + 1000 / 3.1, rel=0.05)


def test_a_rate_measured_here_is_taken_before_an_estimate(
    session: Callable[..., Any], nvml: Callable[[Any], Any], tmp_path: Path
) -> None:
    nvml("rtx3090")
    split_is_there(tmp_path, ROWS)
    training_was(tmp_path)
    found = forecast.forecast(session())
    assert found is not None
    assert found.seconds == pytest.approx(18_880 / 500 + 59, rel=0.02)
    assert found.text().endswith("as measured before")
    training_was(tmp_path, load_in="4bit")
    found = forecast.forecast(session())
    assert found is not None
    assert found.text().endswith("by estimate"), "of another kind of training nothing is learnt"


def test_another_base_is_taken_for_the_usual_one_until_it_is_there(
    session: Callable[..., Any], nvml: Callable[[Any], Any], tmp_path: Path
) -> None:
    nvml("rtx3090")
    made = session("fetch.model=Qwen/Qwen3-4B")
    found = forecast.forecast(made)
    assert found is not None
    assert found.text().endswith("Qwen/Qwen3-4B is taken for Qwen3-14B until it is fetched")
    params = {"model": "Qwen/Qwen3-4B", "revision": "a" * 40}
    finish(tmp_path, stages.FETCH, BASE, params)
    config = {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    }
    files.write_json(tmp_path / "store/fetch/f1/out/base/config.json", config)
    found = forecast.forecast(made)
    assert found is not None
    assert (found.training.rows, found.assumed) == (4, "")
    assert found.training.shape.layers == 36


def test_nothing_is_said_of_a_base_that_cannot_be_estimated(
    session: Callable[..., Any], tmp_path: Path
) -> None:
    made = session(f"fetch.path={tmp_path}")
    forecast.announce(made)
    assert made.said == []
    assert doctor._training(made).ok is None


# --- what does not fit ---------------------------------------------------------------------------
TOO_MUCH = ("train.load_in=bf16",)


def test_what_does_not_fit_is_refused_before_anything_is_stopped(
    session: Callable[..., Any], nvml: Callable[[Any], Any]
) -> None:
    nvml("rtx3090")
    with pytest.raises(OutOfMemory, match=r"does not fit GPU 0 \(NVIDIA GeForce RTX 3090\)") as e:
        preflight.check_stage(session(*TOO_MUCH), SimpleNamespace(stage=stages.TRAIN))  # type: ignore[arg-type]
    assert "train.load_in=8bit (saves" in e.value.todo
    finding = doctor._ask("Training", doctor._training, session(*TOO_MUCH))
    assert finding.ok is False
    assert "train.load_in=8bit (saves" in finding.mend


def test_two_gpus_share_the_rows_and_what_one_cannot_hold(
    session: Callable[..., Any], nvml: Callable[[Any], Any], tmp_path: Path
) -> None:
    nvml("rtx3090")
    split_is_there(tmp_path, ROWS)
    two = "gpu.devices=[0, 1]"
    one, both = (forecast.forecast(session(*some)) for some in ((), (two,)))
    assert one is not None
    assert both is not None
    assert both.training.shares == 1, "in 8 bits the base fits each card"
    assert both.training.rows == 2, "of the four of a step"
    assert one.seconds is not None
    assert both.seconds == pytest.approx((one.seconds - 59) / 2 + 59, rel=0.01)

    divided = forecast.forecast(session(*TOO_MUCH, two))
    assert divided is not None
    assert divided.training.shares == 2
    assert divided.memory.total < 24_576
    with pytest.raises(OutOfMemory, match="does not fit GPU 0"):
        forecast.forecast(session(*TOO_MUCH, two, "train.sharding=none"))


ON_A_CPU = ("train.device=cpu", "train.backend=transformers", "train.load_in=fp32")


def test_processes_on_a_cpu_share_its_memory(session: Callable[..., Any]) -> None:
    alone = forecast._device(session(*ON_A_CPU, "runner=process"))
    four = forecast._device(session(*ON_A_CPU, "runner=process", "train.processes=4"))
    assert alone is not None
    assert four is not None
    assert four.usable_mib == alone.usable_mib // 4
    assert four.place == "one of 4 processes' part of this machine's memory"


def test_a_container_on_a_cpu_has_its_limit(
    session: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_MEMORY", "1.5g")
    found = forecast._device(session(*ON_A_CPU))
    assert found is not None
    assert found.usable_mib == 1536
    with pytest.raises(OutOfMemory, match=r"does not fit the training container's memory"):
        forecast.forecast(session(*ON_A_CPU))
    monkeypatch.setenv("TRAINER_MEMORY", "900t")
    found = forecast._device(session(*ON_A_CPU))
    assert found is not None
    assert found.place == "this machine's memory", "the smaller of the two"
    monkeypatch.setenv("DOCKER_HOST", "ssh://gpu-host")
    monkeypatch.setenv("TRAINER_MEMORY", "0")
    assert forecast._device(session(*ON_A_CPU)) is None, "nothing is known of another machine"


def test_processes_that_cannot_be_are_said_with_the_plan(
    session: Callable[..., Any], nvml: Callable[[Any], Any]
) -> None:
    nvml("rtx3090")
    made = session("train.sharding=fsdp", "train.load_in=bf16")
    with pytest.raises(SettingsInvalid, match="there is one"):
        forecast.announce(made)


def test_a_micro_batch_of_the_settings_is_tried_all_the_same(
    session: Callable[..., Any], nvml: Callable[[Any], Any]
) -> None:
    nvml("rtx3090")
    made = session("train.micro_batch_size=4")
    forecast.announce(made)
    assert made.said[0].startswith("train: about 26,000 of 24,576 MiB (4 rows")
    assert "too small for train.micro_batch_size=4" in made.said[1]
    assert doctor._training(made).ok is False


def test_a_gpu_that_is_not_here_is_not_judged(
    session: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://gpu-host")
    made = session(*TOO_MUCH)
    forecast.announce(made)
    assert made.said == ["train: about 31,600 MiB (1 row of up to 2,048 tokens at once)"]
    assert doctor._training(made).ok is None
