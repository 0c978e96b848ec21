"""A DOUBLE of the outside as the window touches it, which can crash the driver at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import BackendUnavailable, DockerUnavailable
from driver.adapters.containers import ContainerState, Stopped
from driver.docker_tls import Tls
from driver.outside import World
from driver.settings import BackendSettings
from driver.window import Window
from serving.engine import Resident

MODEL = Resident(tag="news:latest", num_ctx=8192, until=None)


class Crash(BaseException):
    """The driver dies here: nothing of it runs on, not even an `except Exception`."""


@dataclass
class Outside(World):
    """A backend in a container, its LLM switch, and the models of an engine.

    It is its own service, API and engine; `calls` are the changes that it saw. With `crash_in` n,
    the driver dies at the n-th step from now: before the change it makes, or right after it.
    """

    running: bool = True
    container: str = "c1"
    llm: bool = True
    forgets_switch: bool = False
    """Whether a start switches the LLM on."""
    models: tuple[Resident, ...] = (MODEL,)
    busy: int = 0
    """How often it says that it is in the middle of a bulk reprocess."""
    silent: bool = False
    """Whether its log cannot be read."""
    removes_itself: bool = False
    """Whether it was made with --rm."""
    paused: bool = False
    renamed: bool = False
    """Whether it has another name by now than the settings say."""
    removed: bool = False
    """Whether its container is gone, and none has its name."""
    ended: Stopped = field(default_factory=lambda: Stopped(exit_code=0, seconds=1))
    dying: bool = False
    """Whether a stop of it was begun and is still under way: its caller has died."""
    starts: int = 0
    """How often it was started: its StartedAt."""
    mute: int = 0
    """How often it does not say how its LLM is switched."""
    healthy: bool = True
    ends: int = 0
    """How often its container ends while its health is waited for."""
    restarts: int = 0
    restarts_while_asked: int = 0
    """At how many looks in a row its engine restarts it, after it has answered."""
    changed: bool = True
    """Whether its configuration is another than its container was made with."""
    usurped: bool = False
    """Whether it ends while another program answers at its address."""
    other: str | None = None
    """State of another container, which holds the GPU: running, exited, or None: removed."""
    other_id: str = "x1"
    other_broken: bool = False
    """Whether it cannot be started."""
    other_away: bool = False
    """Whether its engine does not answer."""
    other_dying: bool = False
    other_starts: int = 0
    crash_in: int | None = None
    calls: list[str] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)

    def step(self) -> None:
        """Die here, if it is time."""
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                raise Crash

    def change(self, call: str) -> Iterator[None]:
        """Do what is between two steps."""
        self.step()
        self.calls.append(call)
        yield
        self.step()

    # --- World ---
    def service(self, settings: BackendSettings) -> Any:
        assert settings.container == "news"
        return self

    def backend(self, settings: BackendSettings) -> Any:
        assert settings.container == "news"
        return self

    def containers(self, host: str, tls: Tls | None = None) -> Any:
        assert (host, tls) == ("unix://gpu", None)
        if self.other_away:
            raise DockerUnavailable("no Docker engine answers at unix://gpu")
        return Others(self)

    def ollama(self, address: str) -> Any:
        assert address == "http://ollama"
        return self

    # --- Service ---
    def state(self, container_id: str = "") -> ContainerState:
        self.step()
        known = {self.container} if self.renamed else {"", self.container}
        if container_id not in known or self.removed:
            raise BackendUnavailable(f"there is no container {container_id or 'news'}")
        return ContainerState(
            id=self.container,
            name="news",
            running=self.running,
            restarts=self.restarts,
            restart_policy="always",
            started_at=f"start {self.starts}",
            removes_itself=self.removes_itself,
            paused=self.running and self.paused,
        )

    def reprocessing(self) -> bool | None:
        if self.silent:
            return None
        self.busy -= 1
        return self.busy >= 0

    def stop(self, container_id: str, timeout_s: int) -> Stopped:
        assert container_id == self.container
        for _ in self.change("stop again" if self.dying else f"stop {timeout_s}"):
            self.die()
        return self.ended

    def die(self) -> None:
        """End by a stop, which goes on even if the driver dies in the middle of it."""
        self.dying = True
        self.step()
        self.settle()

    def come_up(self) -> None:
        """Be started by somebody else; a start does nothing while it still runs."""
        self.settle()
        self._start()

    def settle(self) -> None:
        """Let the time pass that the stops under way still need."""
        if self.dying:
            self.running = self.dying = False
        if self.other_dying:
            self.other, self.other_dying = "exited", False

    def start(self, container_id: str) -> str:
        for _ in self.change(f"start {container_id}"):
            self._start()
        return self.container

    def renew(self, container_id: str) -> str:
        for _ in self.change(f"renew {container_id}"):
            if self.changed:
                if self.running:
                    self.die()
                self.container += "+"
            self.changed = False
            self._start()
        return self.container

    def _start(self) -> None:
        if self.removed:
            raise BackendUnavailable("there is no container news")
        if not self.running:
            self.starts += 1
            self.llm = self.llm or self.forgets_switch
        self.running = True

    # --- Backend ---
    def wait_healthy(self, *, timeout_s: float, meanwhile: Callable[[], None]) -> None:
        assert timeout_s > 0
        self.step()
        while self.ends:
            self.ends -= 1
            self.running = False
            meanwhile()
        if self.usurped:
            self.running = False
        elif not self.healthy or not self.running:
            raise BackendUnavailable("not healthy")
        if self.restarts_while_asked:
            self.restarts_while_asked -= 1
            self.restarts += 1

    def admin_health(self) -> Any:
        self.step()
        self.mute -= 1
        if not self.running or self.mute >= 0:
            raise BackendUnavailable("away")
        return self

    @property
    def llm_enabled(self) -> bool:
        return self.llm

    def switch_llm(self, *, on: bool) -> None:
        if not self.running:
            raise BackendUnavailable("away")
        for _ in self.change(f"llm {on}"):
            self.llm = on

    # --- Ollama ---
    def resident(self) -> list[Resident]:
        self.step()
        return list(self.models)

    def load(self, resident: Resident, timeout_s: float) -> None:
        assert 0 < timeout_s < 60
        for _ in self.change(f"load {resident.tag}"):
            if resident not in self.models:
                self.models = (*self.models, resident)


@dataclass
class Others:
    """The GPU host's engine, with the one container that the window has nothing else to do with."""

    outside: Outside

    def state(self, name: str) -> ContainerState:
        if not self.exists(name):
            raise BackendUnavailable(f"there is no container {name}")
        return ContainerState(
            id=self.outside.other_id,
            name="notebook",
            running=self.outside.other == "running",
            restarts=0,
            restart_policy="no",
            started_at=f"start {self.outside.other_starts}",
            image="jupyter:1",
        )

    def exists(self, name: str) -> bool:
        self.outside.step()
        return self.outside.other is not None and name in {self.outside.other_id, "notebook"}

    def stop(self, name: str, timeout_s: int) -> Stopped:
        assert self.exists(name)
        for _ in self.outside.change(f"stop other {timeout_s}"):
            self.outside.other_dying = True
            self.outside.step()
            self.outside.settle()
        return self.outside.ended

    def start(self, name: str) -> None:
        assert self.exists(name)
        for _ in self.outside.change(f"start other {name}"):
            if self.outside.other_broken:
                raise BackendUnavailable("the container does not start", why="no such device")
            self.outside.other_starts += self.outside.other != "running"
            self.outside.other = "running"


def stop_other(opened: Window, outside: Outside) -> None:
    """Do what the GPU lease does with a container that holds the GPU and may be stopped."""
    engine = outside.containers("unix://gpu")
    if engine.exists("notebook"):
        opened.stop_other(engine.state("notebook"), "unix://gpu", 30)
