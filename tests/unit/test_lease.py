"""The GPU lease: what is unloaded, waited for, named, and stopped where the settings allow it.

The NVML double answers with `recorded/`; time is a number that nobody waits for.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import DockerUnavailable, EngineUnavailable, GpuUnavailable
from driver import lease, preflight
from driver.adapters.containers import ContainerState
from driver.adapters.gpu import Gpu, Process
from driver.adapters.processes import HostProcess
from driver.holders import Holders
from driver.lease import Clock
from driver.settings import GpuSettings
from driver.window import Window
from serving.engine import Model
from tests.unit.window_world import Others, Outside

ID = "0123456789abcdef" * 4
IDLE = Gpu("0", "GPU-a", "RTX 3090", total_mib=24576, free_mib=24200, processes=())
NOTEBOOK = HostProcess(4711, "python -m ipykernel", ("outer" * 4, ID), "22")
TRAINING = HostProcess(812, "/usr/bin/python train.py --epochs 3", (), "33")


class FakeTime:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.clock = Clock(now=lambda: self.now_s, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


# --- unloading -----------------------------------------------------------------------------------
@dataclass
class Loaded:
    """A DOUBLE of the engine's list of loaded models."""

    tags: list[str]
    again: int = 0
    """How often somebody loads one again."""
    name: str = "ollama"
    asked: list[str] = field(default_factory=list)

    def loaded(self) -> list[Model]:
        return [Model(tag, "d", 1) for tag in self.tags]

    def unload(self, tag: str, timeout_s: float) -> None:
        assert timeout_s >= 1
        self.asked.append(tag)
        self.tags.remove(tag)
        if self.again:
            self.again -= 1
            self.tags.append(tag)


def test_every_model_is_unloaded(time: FakeTime) -> None:
    engine: Any = Loaded(["a:latest", "b:latest"], again=1)
    lease.unload_all(engine, 60, time.clock)
    assert engine.asked == ["a:latest", "b:latest", "a:latest"]
    assert engine.tags == []


def test_a_model_that_somebody_loads_again_and_again(time: FakeTime) -> None:
    engine: Any = Loaded(["a:latest"], again=1000)
    with pytest.raises(EngineUnavailable, match="a:latest loaded again and again") as caught:
        lease.unload_all(engine, 60, time.clock)
    assert "somebody else asks it" in caught.value.why
    assert time.now_s <= 1061


# --- waiting -------------------------------------------------------------------------------------
class Engine:
    """A DOUBLE of the GPU host's Docker engine, with one container."""

    host = "unix://gpu"

    def __init__(self, outside: Outside, **facts: Any) -> None:
        self._others = Others(outside)
        self._facts = facts

    def exists(self, name: str) -> bool:
        return name == ID

    def state(self, name: str) -> ContainerState:
        assert name == ID
        return self._others.state("notebook").model_copy(update=self._facts)


@dataclass
class GpuHost:
    """What the lease acts on: a GPU, and a container or a process that holds it."""

    folder: Path
    allowed: GpuSettings
    holders: tuple[HostProcess | None, ...] = (NOTEBOOK,)
    facts: dict[str, Any] = field(default_factory=dict)
    no_engine: bool = False
    ollama_until: float = 0
    """When the memory of the unloaded models comes back."""
    ended: list[int] = field(default_factory=list)
    forbidden: bool = False

    def __post_init__(self) -> None:
        self.outside = Outside(other="running", other_id="x1")
        self.window = Window(self.folder, None, "", self.outside)
        self.known = Holders(self.allowed, self.window, self._engine, self._find, self._end)

    def _engine(self) -> Any:
        if self.no_engine:
            raise DockerUnavailable("no Docker engine answers")
        return Engine(self.outside, **self.facts)

    def _find(self, pid: int) -> HostProcess | None:
        return next((each for each in self.holders if each and each.pid == pid), None)

    def _end(self, process: HostProcess, grace_s: float) -> bool:
        assert grace_s == self.allowed.stop_timeout_s
        if self.forbidden:
            raise PermissionError
        self.ended.append(process.pid)
        return True

    def look(self, now_s: float) -> list[Gpu]:
        if now_s < self.ollama_until:
            return [replace(IDLE, free_mib=900)]
        pids = [each.pid if each else 55 for each in self.holders]
        if self.outside.other != "running":
            pids = [pid for pid in pids if pid != 4711]
        pids = [pid for pid in pids if pid not in self.ended]
        processes = tuple(Process(pid, None if pid == 55 else 9216) for pid in pids)
        return [replace(IDLE, free_mib=5000, processes=processes)] if pids else [IDLE]

    def lease(self, time: FakeTime) -> None:
        lease.wait_free(lambda: self.look(time.now_s), self.known, self.allowed, time.clock)


def test_memory_that_comes_back_by_itself_is_waited_for(tmp_path: Path, time: FakeTime) -> None:
    host = GpuHost(tmp_path, GpuSettings(), holders=(), ollama_until=1001.5)
    host.lease(time)
    assert time.now_s == 1001.5


def test_who_holds_it_is_named_and_left_alone(tmp_path: Path, time: FakeTime) -> None:
    host = GpuHost(tmp_path, GpuSettings(free_timeout_s=30), holders=(NOTEBOOK, TRAINING, None))
    with pytest.raises(GpuUnavailable) as caught:
        host.lease(time)
    assert str(caught.value).splitlines() == [
        "GPU 0 (RTX 3090) has 5000 of 24576 MiB free, 22118 MiB are needed",
        (
            "why: held by pid 4711 (9216 MiB): python -m ipykernel, in container notebook "
            "(jupyter:1); held by pid 812 (9216 MiB): /usr/bin/python train.py --epochs 3; "
            "held by pid 55 (memory unknown): ended just now, or of another PID namespace"
        ),
        (
            "do:  Stop what holds it: `docker stop notebook` and `kill 812`, or allow that "
            "(gpu.may_stop, gpu.may_kill); then run again."
        ),
    ]
    assert (host.outside.calls, host.ended, host.window.is_open) == ([], [], False)
    assert 1030 <= time.now_s <= 1040


def test_a_container_that_may_be_stopped_comes_back(tmp_path: Path, time: FakeTime) -> None:
    host = GpuHost(tmp_path, GpuSettings(may_stop=("note*",)))
    host.lease(time)
    assert host.outside.calls == ["stop other 30"]
    assert host.window.record().others[0].host == "unix://gpu"
    Window(tmp_path, None, world=host.outside).close()
    assert host.outside.calls == ["stop other 30", "start other x1"]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"removes_itself": True}, "No run stops notebook: it was made with --rm"),
        ({"labels": {"retrain.workspace": "/srv/b"}}, "a stage of the run in /srv/b"),
        ({"name": "postgres"}, "docker stop postgres"),
    ],
)
def test_a_container_that_may_not_be_stopped(
    facts: dict[str, Any], said: str, tmp_path: Path, time: FakeTime
) -> None:
    host = GpuHost(tmp_path, GpuSettings(may_stop=("notebook",)), facts=facts)
    with pytest.raises(GpuUnavailable) as caught:
        host.lease(time)
    assert said in caught.value.todo
    assert host.outside.calls == []


def test_a_program_that_may_be_ended(tmp_path: Path, time: FakeTime) -> None:
    """The pattern is of the whole line, and never of what runs in a container."""
    allowed = GpuSettings(may_kill=("*python train.py*",))
    host = GpuHost(tmp_path, allowed, holders=(TRAINING,))
    host.lease(time)
    assert host.ended == [812]
    assert "it is not started again" in host.window.warnings[0]
    assert not host.window.is_open
    inside = GpuHost(tmp_path, allowed, holders=(replace(TRAINING, container_ids=(ID,)),))
    with pytest.raises(GpuUnavailable):
        inside.lease(time)
    assert inside.ended == []


def test_a_program_of_another_user(tmp_path: Path, time: FakeTime) -> None:
    allowed = GpuSettings(may_kill=("*",))
    host = GpuHost(tmp_path, allowed, holders=(TRAINING,), forbidden=True)
    with pytest.raises(
        GpuUnavailable, match=r"cannot be ended: /usr/bin/python train\.py"
    ) as caught:
        host.lease(time)
    assert "sudo kill 812" in caught.value.todo


def test_a_container_of_an_engine_that_is_not_there(tmp_path: Path, time: FakeTime) -> None:
    host = GpuHost(tmp_path, GpuSettings(may_stop=("*",)), no_engine=True)
    with pytest.raises(GpuUnavailable) as caught:
        host.lease(time)
    assert "in a container 0123456789ab of another engine" in caught.value.why
    assert "nvidia-smi" in caught.value.todo


def test_nobody_is_listed(tmp_path: Path, time: FakeTime) -> None:
    host = GpuHost(tmp_path, GpuSettings(), holders=(), ollama_until=5000)
    with pytest.raises(GpuUnavailable, match="900 of 24576 MiB free") as caught:
        host.lease(time)
    assert caught.value.why == "the driver lists no process that holds it"


def test_each_card_is_waited_for_and_a_process_on_both_counts_once(tmp_path: Path) -> None:
    host = GpuHost(tmp_path, GpuSettings(needed_mib=24000))
    first, second = (
        replace(IDLE, index=index, uuid=index, processes=(Process(4711, 4000), Process(pid, 10)))
        for index, pid in (("0", os.getpid()), ("1", 55))
    )
    assert [(each.pid, each.mib) for each in host.known.of([first, second])] == [
        (4711, 8000),
        (55, 10),
    ]
    assert lease.needed_mib(first, host.allowed) == 24000


# --- who labels where ----------------------------------------------------------------------------
def _own_address() -> str:
    """Return an address of this host that is no loopback's, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: TEST-NET-1 (RFC 5737)
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("teachers", "engine", "here"),
    [
        ((), "", True),
        (("127.0.0.1",), "", True),
        (("http://localhost:11434",), "", True),
        (("localhost",), "192.0.2.7", True),
        (("openai+http://127.0.0.1:8000/v1#qwen3",), "", True),
        (("openai+http://localhost:8000/v1",), "", True),
        (("openai+http://[::ffff:127.0.0.1]:8000/v1",), "", True),
        (("192.0.2.7", f"http://{_own_address()}:11434"), "", True),
        (("192.0.2.7:11434",), "http://192.0.2.7:11434", True),
        (("192.0.2.7",), "", False),
        (("openai+http://192.0.2.7/v1", "192.0.2.8"), "", False),
    ],
)
def test_a_teacher_on_this_host_is_told_by_its_address_not_its_spelling(
    teachers: tuple[str, ...],
    engine: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    here: bool,
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", engine)
    session: Any = SimpleNamespace(settings=SimpleNamespace(teachers=teachers))
    assert preflight.teacher_is_here(session) is here
