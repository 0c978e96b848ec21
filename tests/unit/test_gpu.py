"""What NVML says about the GPUs, and who their processes are.

The answers are those of `recorded/`, by a double. With a GPU at hand the real library is asked too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from contracts.errors import GpuUnavailable
from driver.adapters import gpu, processes
from driver.runners import torch_cuda
from tests import record_nvml
from tests.unit.nvml_double import RecordedNvml, recording

ID = "0123456789abcdef" * 4
INNER = "fedcba9876543210" * 4


def _has_gpu() -> bool:
    try:
        pynvml.nvmlInit()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return False
    return True


# --- the library ---------------------------------------------------------------------------------
def test_a_host_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real nvidia-ml-py; on a host that has the library, its loader is made to miss it."""
    if _has_gpu():

        def missing(_name: str) -> None:
            raise OSError

        monkeypatch.setattr(pynvml, "nvmlLib", None)
        monkeypatch.setattr(pynvml, "CDLL", missing)
    with pytest.raises(GpuUnavailable) as caught:
        gpu.survey()
    assert str(caught.value).splitlines() == [
        "this host has no working NVIDIA driver",
        "why: NVML Shared Library Not Found",
        "do:  Install the driver (`nvidia-smi` must work), or set train.device=cpu.",
    ]
    assert caught.value.exit_code == 14


@pytest.mark.skipif(not _has_gpu(), reason="no NVIDIA GPU at hand: the real library is not asked")
def test_the_real_library_answers_and_can_be_recorded(nvml: Callable[[Any], RecordedNvml]) -> None:
    host = gpu.survey()
    assert host.cuda >= (11, 0)
    for each in host.gpus:
        assert each.uuid.startswith(("GPU-", "MIG-"))
        assert 0 < each.free_mib <= each.total_mib
    answers = record_nvml.record("the host of this test")
    nvml(answers)
    again = gpu.survey()
    assert [(g.index, g.uuid, g.total_mib) for g in again.gpus] == [
        (g.index, g.uuid, g.total_mib) for g in host.gpus
    ]


@pytest.mark.parametrize("name", ["rtx3090", "h100"])
def test_the_recorder_takes_what_the_adapter_asks(
    name: str, nvml: Callable[[Any], RecordedNvml]
) -> None:
    answers = recording(name)
    nvml(answers)
    assert record_nvml.record(answers["origin"]) == answers


def test_two_cards_and_who_computes_and_draws(nvml: Callable[[Any], RecordedNvml]) -> None:
    double = nvml("rtx3090")
    host = gpu.survey()
    assert (host.driver, host.cuda) == ("570.133.20", (12, 8))
    first, second = host.gpus
    assert (first.index, first.total_mib, first.free_mib) == ("0", 24576, 14336)
    assert [(each.pid, each.mib) for each in first.processes] == [
        (4711, 9216),
        (1876, 412),
        (2350, 180),  # in both lists, counted once
    ]
    assert (second.index, second.processes, second.unlisted) == ("1", (), "")
    assert double.open == 0


def test_a_divided_card_is_its_instances(nvml: Callable[[Any], RecordedNvml]) -> None:
    """Only root may read the whole, so nobody is asked for it."""
    nvml("h100")
    one, other, whole = gpu.survey().gpus
    assert [one.index, other.index, whole.index] == ["0:0", "0:1", "1"]
    assert one.name.endswith("MIG 3g.40gb")
    assert (one.processes[0].pid, one.free_mib) == (901, 9728)
    assert (other.uuid[:4], other.free_mib) == ("MIG-", 40404)


def test_what_may_not_be_seen_is_said(nvml: Callable[[Any], RecordedNvml]) -> None:
    nvml("h100")
    whole = gpu.survey().gpus[2]
    assert whole.unlisted == "Insufficient Permissions"
    assert whole.processes == (gpu.Process(pid=55, mib=None),)


@pytest.mark.parametrize(
    ("change", "said", "todo"),
    [
        ({"devices": []}, "sees no GPU", ""),
        ({"driver_version": {"error": 18}}, "does not answer", "Reboot"),
        ({"devices": [{"error": 15}]}, "does not answer", "Xid"),
    ],
)
def test_a_driver_in_trouble(
    change: dict[str, Any], said: str, todo: str, nvml: Callable[[Any], RecordedNvml]
) -> None:
    double = nvml(recording("rtx3090") | change)
    with pytest.raises(GpuUnavailable, match=said) as caught:
        gpu.survey()
    assert todo in caught.value.todo
    assert double.open == 0


# --- which of them -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("card", "names", "count", "chosen"),
    [
        ("rtx3090", (), 1, ["0"]),
        ("rtx3090", (), None, ["0", "1"]),
        ("rtx3090", ("1",), None, ["1"]),
        ("rtx3090", ("GPU-5f0a3c1e-8d2b-4c77-9a41-0b6de2c1f002", "1", "0"), None, ["1", "0"]),
        ("h100", (), 1, ["0:0", "0:1"]),
        ("h100", ("0:1",), None, ["0:1"]),
        ("h100", ("MIG-7c9e6679-7425-40de-944b-e07fc1f90001",), None, ["0:0"]),
    ],
)
def test_choosing(
    card: str,
    names: tuple[str, ...],
    count: int | None,
    chosen: list[str],
    nvml: Callable[[Any], RecordedNvml],
) -> None:
    nvml(card)
    assert [each.index for each in gpu.choose(gpu.survey(), names, count)] == chosen


def test_a_card_that_is_not_there(nvml: Callable[[Any], RecordedNvml]) -> None:
    nvml("rtx3090")
    with pytest.raises(GpuUnavailable, match="no GPU 2") as caught:
        gpu.choose(gpu.survey(), (), 3)
    assert "1 (GPU-5f0a3c1e-8d2b-4c77-9a41-0b6de2c1f002)" in caught.value.why
    assert "gpu.devices" in caught.value.todo


# --- is the driver new enough --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("speaks", "built_for", "refused", "warned"),
    [
        ((12, 8), (12, 8), "", False),
        ((13, 0), (12, 8), "", False),
        ((12, 2), (12, 8), "", True),
        ((12, 8), (13, 0), "branch 580 or newer", False),
        ((11, 8), (12, 8), "branch 525 or newer", False),
        ((13, 0), (14, 1), "a driver for CUDA 14.1", False),
        ((12, 8), None, "train.device=cpu", False),
    ],
)
def test_the_driver_and_the_trainers_cuda(
    speaks: tuple[int, int], built_for: tuple[int, int] | None, refused: str, warned: bool
) -> None:
    host = gpu.Host(driver="570.133.20", cuda=speaks, gpus=())
    if refused:
        with pytest.raises(GpuUnavailable) as caught:
            gpu.check_driver(host, built_for)
        assert refused in caught.value.todo
    else:
        assert ("PTX" in gpu.check_driver(host, built_for)) is warned


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("cuda: Optional[str] = '12.8'", (12, 8)),
        ("cuda: Optional[str] = '13.0'", (13, 0)),
        ("cuda: Optional[str] = None", None),
    ],
)
def test_the_cuda_of_a_pytorch_is_read_without_importing_it(
    declared: str, found: tuple[int, int] | None, tmp_path: Path
) -> None:
    """In the form of torch/version.py, as torch 2.13.0 has it."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit(1)", encoding="utf-8")
    (package / "version.py").write_text(
        f"from typing import Optional\n__version__ = '2.11.0'\n{declared}\n", encoding="utf-8"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", torch_cuda.SCRIPT]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert torch_cuda.parse(done.stdout) == found


# --- who a process is ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("cgroup", "ids"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", (ID,)),  # v2, systemd
        (f"0::/docker/{ID}\n", (ID,)),  # v2, cgroupfs
        (f"12:devices:/docker/{ID}\n11:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/\n", (ID,)),  # v1
        (f"4:memory:/system.slice/docker-{ID}.scope\n0::/system.slice\n", (ID,)),  # v1, systemd
        (f"0::/kubepods.slice/kubepods-pod1a2b.slice/cri-containerd-{ID}.scope\n", (ID,)),
        (f"8:cpu:/kubepods/besteffort/pod0d7f7c1e-1111-2222-3333-444455556666/{ID}\n", (ID,)),
        (f"5:pids:/system.slice/containerd.service/kubepods.slice:cri-containerd:{ID}\n", (ID,)),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", (ID,)),
        (f"0::/docker/{ID}/docker/{INNER}\n", (ID, INNER)),  # an engine in a container
        (f"0::/../docker-{ID}.scope\n", (ID,)),  # seen from another cgroup namespace
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ()),
        (f"0::/x/{ID}0\n", ()),
        ("", ()),
    ],
)
def test_the_container_of_a_cgroup(cgroup: str, ids: tuple[str, ...]) -> None:
    assert processes.container_ids(cgroup) == ids


def proc_folder(tmp_path: Path, namespace: str = "pid:[4026531836]") -> Path:
    """Make a /proc of one process, 42, of this PID namespace."""
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").symlink_to(namespace)
    folder = tmp_path / "42"
    (folder / "fd").mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"python\0train.py\0")
    (folder / "comm").write_text("python\n", encoding="utf-8")
    (folder / "stat").write_text(f"42 (a ) b) S {' '.join(map(str, range(4, 30)))}", "utf-8")
    (folder / "cgroup").write_text(f"0::/docker/{ID}\n", encoding="utf-8")
    return tmp_path


def test_a_process_is_found(tmp_path: Path) -> None:
    proc = proc_folder(tmp_path)
    found = processes.find(42, proc)
    assert found == processes.HostProcess(42, "python train.py", (ID,), "22")
    assert processes.find(43, proc) is None


def test_a_kernel_thread_goes_by_its_name(tmp_path: Path) -> None:
    proc = proc_folder(tmp_path)
    (proc / "42/cmdline").write_bytes(b"")
    found = processes.find(42, proc)
    assert found is not None
    assert found.command == "[python]"


def test_in_a_container_only_a_process_that_has_the_gpu_open_is_the_one(tmp_path: Path) -> None:
    proc = proc_folder(tmp_path, "pid:[4026532511]")
    assert processes.find(42, proc) is None
    (proc / "42/fd/7").symlink_to("/dev/nvidia0")
    assert processes.find(42, proc) is not None


# --- and how it is ended -------------------------------------------------------------------------
IGNORES = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)"
)
ENDS = "import time; print(flush=True); time.sleep(99)"


@pytest.fixture
def hosts_proc(tmp_path: Path) -> Callable[[int], Path]:
    """Return a function that makes the real /proc of a process look like the host's."""

    def make(pid: int) -> Path:
        (tmp_path / "self/ns").mkdir(parents=True)
        (tmp_path / "self/ns/pid").symlink_to("pid:[4026531836]")
        (tmp_path / str(pid)).symlink_to(f"/proc/{pid}")
        return tmp_path

    return make


@pytest.mark.parametrize(("program", "signal"), [(ENDS, 15), (IGNORES, 9)])
def test_a_process_is_ended(program: str, signal: int, hosts_proc: Callable[[int], Path]) -> None:
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        proc = hosts_proc(child.pid)
        found = processes.find(child.pid, proc)
        assert found is not None
        assert processes.end(found, 1 if signal == 15 else 0.2, proc)
        assert child.wait() == -signal
    assert processes.end(found, 1, proc)  # gone already


def test_another_process_with_the_same_id_is_left_alone(
    hosts_proc: Callable[[int], Path],
) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDS], stdout=subprocess.PIPE) as child:
        proc = hosts_proc(child.pid)
        earlier = processes.HostProcess(child.pid, "python", (), started="1")
        assert processes.end(earlier, 0.1, proc)
        assert child.poll() is None
        child.kill()
