"""Which GPUs training gets, and what is said of them before anything is stopped.

The NVML double answers with `recorded/`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import files, stages
from contracts.errors import GpuUnavailable, SettingsInvalid
from driver import doctor, lease, preflight, settings
from driver.adapters import gpu
from driver.runners import compose
from driver.runners.docker import container_options
from driver.window import Window


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that makes a session, as far as the questions about GPUs go."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(*overrides: str, cuda: tuple[int, int] | None = (12, 8)) -> Any:
        file = tmp_path / "s.yaml"
        file.write_text("snapshot: {items: [a.jsonl]}\nfetch: {path: base}\n", encoding="utf-8")
        warned: list[str] = []
        return SimpleNamespace(
            settings=settings.load(file, overrides, {}),
            runner=SimpleNamespace(cuda=lambda _stage: cuda),
            display=SimpleNamespace(warn=warned.append),
            warned=warned,
            window=Window(tmp_path, None),
            compose_file=files.ROOT / "compose.retrain.yml",
        )

    return make


def test_a_good_host_passes(session: Callable[..., Any], nvml: Callable[[Any], Any]) -> None:
    nvml("rtx3090")
    asked = session()
    preflight.check_gpu(asked)
    assert asked.warned == []
    assert [each.index for each in lease.devices(asked, gpu.survey())] == ["0"]


@pytest.mark.parametrize(
    ("overrides", "cuda", "said"),
    [
        ([], (13, 0), "driver 570.133.20 is too old"),
        ([], None, "built without CUDA"),
        (["gpu.devices=[2]"], (12, 8), "no GPU 2"),
        (["gpu.needed_mib=40000"], (12, 8), "has 24576 MiB in all"),
        (["train.processes=2"], (12, 8), "training sees 1 GPUs"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_stopped(
    overrides: list[str],
    cuda: tuple[int, int] | None,
    said: str,
    session: Callable[..., Any],
    nvml: Callable[[Any], Any],
) -> None:
    nvml("rtx3090")
    with pytest.raises(GpuUnavailable, match=said) as caught:
        preflight.check_gpu(session(*overrides, cuda=cuda))
    assert caught.value.todo


def test_gpus_that_cannot_share_a_batch_are_named(
    session: Callable[..., Any], nvml: Callable[[Any], Any]
) -> None:
    nvml("rtx3090")
    preflight.check_gpu(session("gpu.devices=[0, 1]"))
    with pytest.raises(SettingsInvalid, match="2 processes cannot share a batch of 3 rows"):
        preflight.check_gpu(session("gpu.devices=[0, 1]", "train.batch_size=3"))


def test_one_gpu_divides_no_base(session: Callable[..., Any], nvml: Callable[[Any], Any]) -> None:
    nvml("rtx3090")
    divided = ("train.sharding=fsdp", "train.load_in=bf16")
    preflight.check_gpu(session("gpu.devices=[0, 1]", *divided))
    with pytest.raises(SettingsInvalid) as caught:
        session("gpu.devices=[0]", *divided)
    assert "gpu.devices names one" in caught.value.why
    with pytest.raises(SettingsInvalid, match=r"divides the base.*there is one"):
        preflight.check_gpu(session(*divided))  # the first one, as shipped


def test_an_older_minor_version_is_a_warning(
    session: Callable[..., Any], nvml: Callable[[Any], Any]
) -> None:
    nvml("h100")
    asked = session()
    preflight.check_gpu(asked)
    assert "CUDA 12.2" in asked.warned[0]


def test_the_gpu_of_a_remote_engine_is_not_looked_for_here(
    session: Callable[..., Any], nvml: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml({"devices": [], "driver_version": {"error": 9}, "cuda_driver_version": {"error": 9}})
    monkeypatch.setenv("DOCKER_HOST", "ssh://gpu-host")
    preflight.check_gpu(session())
    assert doctor._gpu(session()).ok is None
    with pytest.raises(GpuUnavailable):
        preflight.check_gpu(session("runner=process"))


def test_doctor_names_card_driver_and_who_holds_it(
    session: Callable[..., Any], nvml: Callable[[Any], Any]
) -> None:
    nvml("rtx3090")
    found = doctor._gpu(session("gpu.devices=[0, 1]"))
    assert found.text.startswith(
        "0: NVIDIA GeForce RTX 3090, 24576 MiB, 1: NVIDIA GeForce RTX 3090, 24576 MiB; held by pid"
    )
    assert "(9216 MiB)" in found.text
    assert doctor._driver(session()).text == "570.133.20, CUDA 12.8"


def test_a_missing_driver_is_one_finding(
    session: Callable[..., Any], nvml: Callable[[Any], Any]
) -> None:
    nvml({"devices": [], "driver_version": {"error": 9}, "cuda_driver_version": {"error": 9}})
    assert doctor._gpu(session()).ok is None
    found = doctor._ask("NVIDIA driver", doctor._driver, session())
    assert (found.ok, found.mend) == (
        False,
        "Load it (`sudo modprobe nvidia`); `nvidia-smi` must work.",
    )


# --- what training then sees ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overrides", "visible", "seen"),
    [
        (["runner=process"], "", "GPU-5f0a3c1e-8d2b-4c77-9a41-0b6de2c1f001"),
        (["runner=process"], "1", "GPU-5f0a3c1e-8d2b-4c77-9a41-0b6de2c1f002"),
        (["runner=process", "gpu.devices=1"], "0", "GPU-5f0a3c1e-8d2b-4c77-9a41-0b6de2c1f002"),
        (
            ["runner=process", "gpu.devices=[1, 0]"],
            "",
            "GPU-5f0a3c1e-8d2b-4c77-9a41-0b6de2c1f002,GPU-5f0a3c1e-8d2b-4c77-9a41-0b6de2c1f001",
        ),
        (["runner=docker"], "", None),
        (["runner=process", "train.device=cpu"], "", None),
    ],
)
def test_a_process_sees_what_was_leased(
    overrides: list[str],
    visible: str,
    seen: str | None,
    session: Callable[..., Any],
    nvml: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml("rtx3090")
    asked = session(*overrides)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    expected = {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}
    assert lease.environment(asked, stages.TRAIN) == expected
    assert lease.environment(asked, stages.MERGE) == {}


@pytest.mark.parametrize(
    ("reserved", "devices", "names", "count", "asked"),
    [
        ({"count": 1}, (), (), 1, (1, None)),
        ({"count": "all"}, (), (), None, (-1, None)),
        ({}, (), (), None, (-1, None)),
        ({"device_ids": ["1", "GPU-x"]}, (), ("1", "GPU-x"), None, (None, ["1", "GPU-x"])),
        ({"count": 1}, ("GPU-y",), (), 1, (None, ["GPU-y"])),
        ({"count": 1}, ("0", "GPU-y"), (), 1, (None, ["0", "GPU-y"])),
    ],
)
def test_a_container_gets_the_reserved_gpus_or_those_of_the_settings(
    reserved: dict[str, Any],
    devices: tuple[str, ...],
    names: tuple[str, ...],
    count: int | None,
    asked: tuple[int | None, list[str] | None],
) -> None:
    device = {"driver": "nvidia", "capabilities": ["gpu"], **reserved}
    trainer = compose.read(files.ROOT / "compose.retrain.yml", {})["trainer"].model_copy(
        update={"deploy": {"resources": {"reservations": {"devices": [device]}}}}
    )
    assert (trainer.gpu_names, trainer.gpu_count) == (names, count)
    (request,) = container_options(trainer, gpu=True, devices=devices)["device_requests"]
    assert (request["Count"] or None, request["DeviceIDs"] or None) == asked
    assert request["Capabilities"] == [["gpu"]]


# --- right before training -----------------------------------------------------------------------
@pytest.mark.parametrize(("docker_host", "asked_nvml"), [("", True), ("ssh://gpu-host", False)])
def test_making_way_unloads_first_and_looks_at_the_gpu_that_is_here(
    docker_host: str,
    asked_nvml: bool,
    session: Callable[..., Any],
    nvml: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first card is held, the second is idle: only the second is asked for."""
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    nvml("rtx3090")
    order: list[str] = []
    really_survey = gpu.survey

    def survey() -> gpu.Host:
        order.append("nvml")
        return really_survey()

    def loaded() -> list[Any]:
        order.append("ps")
        return []

    monkeypatch.setattr(gpu, "survey", survey)
    made = session("gpu.devices=[1]")
    made.engine = SimpleNamespace(name="ollama", loaded=loaded)
    made.runner.survives = lambda _stage, _fingerprint: False
    lease.make_way(made, SimpleNamespace(stage=stages.TRAIN, fingerprint="f"))  # type: ignore[arg-type]
    assert order == (["ps", "nvml"] if asked_nvml else ["ps"])


def test_a_stage_that_is_at_work_already_keeps_its_gpu(session: Callable[..., Any]) -> None:
    made = session()
    made.runner.survives = lambda _stage, fingerprint: fingerprint == "f"
    made.engine = None  # asked nothing: the stage's own memory is what is held
    lease.make_way(made, SimpleNamespace(stage=stages.TRAIN, fingerprint="f"))  # type: ignore[arg-type]
    assert not made.window.is_open
