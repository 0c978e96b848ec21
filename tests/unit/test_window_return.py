"""The return of the service where something has happened to its container meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BackendUnavailable, WindowOpen
from driver import window_return
from driver.service import ContainerService
from driver.settings import BackendSettings, ComposeSettings
from driver.window import Window
from driver.window_record import RECORD_FILE
from serving.engine import Resident
from tests.unit.window_world import Crash, Outside

BACKEND = BackendSettings(url="http://127.0.0.1:9", container="news")


def window(folder: Path, outside: Outside, backend: BackendSettings | None = BACKEND) -> Window:
    return Window(folder, backend, "http://ollama", outside)


def test_another_programs_answers_do_not_count_for_a_dead_container(tmp_path: Path) -> None:
    outside = Outside(usurped=True)
    opened = window(tmp_path, outside)
    opened.open()
    with pytest.raises(BackendUnavailable, match="news has ended, although its address answers"):
        opened.close()
    assert opened.is_open


def test_a_backend_that_was_only_switched_off_and_has_ended_is_started(tmp_path: Path) -> None:
    outside = Outside()
    window(tmp_path, outside).open(stop=False)
    outside.running = False
    later = Window(tmp_path, None, world=outside)
    later.close()
    assert outside.calls == ["llm False", "start c1", "llm True", "load news:latest"]
    assert (outside.running, outside.llm, later.is_open) == (True, True, False)
    assert later.away_s > 0


def test_a_backend_that_was_only_switched_off_was_not_away(tmp_path: Path) -> None:
    outside = Outside()
    opened = window(tmp_path, outside)
    opened.open(stop=False)
    opened.close()
    assert (outside.container, outside.llm, opened.away_s) == ("c1", True, 0)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_return, "_ASK_PAUSE_S", 0)


class Fatal(Outside):
    """The driver dies once, while something is on its way to its end."""

    died = False

    def step(self) -> None:
        if not self.died and (self.dying or self.other_dying):
            self.died = True
            raise Crash
        super().step()


class Interrupted(Outside):
    """A signal comes as soon as none is held back, when the log or a load is waited for."""

    shields = 0

    @contextmanager
    def shield(self) -> Iterator[None]:
        self.shields += 1
        yield
        self.shields -= 1

    def _signal(self) -> None:
        if not self.shields:
            raise KeyboardInterrupt

    def reprocessing(self) -> bool | None:
        self._signal()
        return super().reprocessing()

    def load(self, resident: Resident, timeout_s: float) -> None:
        self._signal()
        super().load(resident, timeout_s)


def compose(model: str) -> BackendSettings:
    made = ComposeSettings(
        folder=Path("/srv/news"), service="backend", environment={"OLLAMA_MODEL": model}
    )
    return BACKEND.model_copy(update={"compose": made})


def test_after_a_recovery_compose_still_makes_the_service_anew(tmp_path: Path) -> None:
    """The driver died between deploy and restore, and `recover` starts the very container."""
    outside = Outside()
    window(tmp_path, outside, compose("new")).open()
    Window(tmp_path, None, world=outside).close()
    assert (outside.container, outside.running) == ("c1", True)
    later = window(tmp_path, outside, compose("new"))
    later.close(renew=True)
    assert (outside.container, outside.running, later.is_open) == ("c1+", True, False)
    assert later.away_s > 0


def test_a_service_that_nothing_has_changed_is_not_away(tmp_path: Path) -> None:
    outside = Outside(changed=False)
    closed = window(tmp_path, outside, compose("new"))
    closed.close(renew=True)
    assert outside.calls == ["renew c1", "load news:latest"]
    assert (outside.container, closed.away_s, closed.warnings) == ("c1", 0, [])


def test_a_container_of_its_own_and_a_service_that_does_not_run_are_left_alone(
    tmp_path: Path,
) -> None:
    outside = Outside()
    window(tmp_path, outside).close(renew=True)
    outside.running = False
    window(tmp_path, outside, compose("new")).close(renew=True)
    assert (outside.calls, outside.running) == ([], False)


def test_a_kill_while_compose_is_at_work_is_recovered(tmp_path: Path) -> None:
    outside = Outside()
    closed = window(tmp_path, outside, compose("new"))
    outside.healthy = False
    with pytest.raises(BackendUnavailable):
        closed.close(renew=True)
    outside.running, outside.healthy = False, True
    Window(tmp_path, None, world=outside).close()
    assert (outside.running, outside.container) == (True, "c1+")


def test_the_settings_of_now_count_for_what_another_run_has_stopped(tmp_path: Path) -> None:
    outside = Outside(healthy=False)
    window(tmp_path, outside, compose("old")).open()
    later = window(tmp_path, outside, compose("new"))
    with pytest.raises(BackendUnavailable):
        later.close(renew=True)
    assert later.record().settings.compose == compose("new").compose


def test_a_bulk_reprocess_that_a_renewal_ends_is_said(tmp_path: Path) -> None:
    closed = window(tmp_path, Outside(busy=9), compose("new"))
    closed.close(renew=True)
    assert "was made anew in the middle of a bulk reprocess" in closed.warnings[0]


@pytest.mark.parametrize("backend", [BACKEND, compose("old")])
def test_a_stop_that_was_begun_is_awaited_before_the_start(
    tmp_path: Path, backend: BackendSettings
) -> None:
    """A start does nothing to what still runs; it answers three times more, and is gone."""
    outside = Fatal()
    with pytest.raises(Crash):
        window(tmp_path, outside, backend).open()
    assert (outside.running, outside.dying) == (True, True)
    Window(tmp_path, None, world=outside).close()
    outside.settle()
    assert (outside.running, outside.starts) == (True, 1)
    assert not (tmp_path / RECORD_FILE).exists()


def test_a_stop_that_was_begun_ends_before_the_next_run_goes_on(tmp_path: Path) -> None:
    outside = Fatal()
    opened = window(tmp_path, outside)
    with pytest.raises(Crash):
        opened.open()
    window(tmp_path, outside).open()
    assert outside.calls[-1] == "stop again"
    assert outside.running is False


def test_what_was_started_since_the_stop_is_not_stopped_again(tmp_path: Path) -> None:
    """By its engine at a boot, by a person, or by a recovery that was killed."""
    outside = Outside()
    window(tmp_path, outside).open()
    outside.come_up()
    Window(tmp_path, None, world=outside).close()
    assert [call for call in outside.calls if call.startswith("stop")] == ["stop 120"]
    assert outside.running


def test_a_wait_for_a_reprocess_that_is_cut_short_has_stopped_nothing(tmp_path: Path) -> None:
    patient = BACKEND.model_copy(update={"wait_for_reprocess_s": 60})
    outside = Interrupted(busy=9)
    opened = window(tmp_path, outside, patient)
    with pytest.raises(KeyboardInterrupt):
        opened.open()
    with outside.shield():
        opened.close()
    assert outside.calls == ["start c1", "load news:latest"]
    assert (outside.starts, opened.away_s) == (0, 0)


def test_another_container_that_is_still_stopping_comes_back(tmp_path: Path) -> None:
    outside = Fatal(other="running")

    def stop_other(folder: Path) -> None:
        state = outside.containers("unix://gpu").state("x1")
        window(folder, outside, None).stop_other(state, "unix://gpu", 30)

    with pytest.raises(Crash):
        stop_other(tmp_path)
    assert outside.other == "running"
    Window(tmp_path, None, world=outside).close()
    outside.settle()
    assert outside.other == "running"


def test_a_renewal_that_was_killed_while_it_stops_is_finished(tmp_path: Path) -> None:
    outside = Fatal()

    def renew() -> None:
        window(tmp_path, outside, compose("new")).close(renew=True)

    with pytest.raises(Crash):
        renew()
    assert (outside.running, outside.dying) == (True, True)
    Window(tmp_path, None, world=outside).close()
    outside.settle()
    assert outside.running


@pytest.mark.parametrize("mute", [1, 4])
def test_a_switch_that_is_not_told_at_once_is_asked_for_again(tmp_path: Path, mute: int) -> None:
    outside = Outside(mute=mute)
    opened = window(tmp_path, outside)
    opened.open(stop=False)
    assert (opened.record().llm_enabled, outside.llm) == (True, False)
    opened.close()
    assert outside.llm is True


def test_a_switch_that_is_never_told_is_not_touched(tmp_path: Path) -> None:
    outside = Outside(mute=99)
    opened = window(tmp_path, outside)
    with pytest.raises(BackendUnavailable, match="does not say whether its LLM"):
        opened.open(stop=False)
    assert (outside.calls, opened.is_open) == ([], False)
    opened.open()
    assert "does not say whether its LLM is switched on" in opened.warnings[0]
    opened.close()
    assert outside.running


def test_an_engine_of_another_container_that_is_away_keeps_no_backend_down(
    tmp_path: Path,
) -> None:
    outside = Outside(other="running")
    opened = window(tmp_path, outside)
    opened.open()
    opened.stop_other(outside.containers("unix://gpu").state("x1"), "unix://gpu", 30)
    outside.other_away = True
    with pytest.raises(WindowOpen, match=r"notebook.* does not start again") as caught:
        opened.close()
    assert "no Docker engine answers" in caught.value.why
    assert (outside.running, outside.other) == (True, "exited")
    record = opened.record()
    assert (record.backend, [other.name for other in record.others]) == (None, ["notebook"])
    outside.other_away = False
    Window(tmp_path, None, world=outside).close()
    assert (outside.other, opened.is_open) == ("running", False)


def test_the_others_come_back_beside_a_backend_that_does_not(tmp_path: Path) -> None:
    outside = Outside(other="running")
    opened = window(tmp_path, outside)
    opened.open()
    opened.stop_other(outside.containers("unix://gpu").state("x1"), "unix://gpu", 30)
    outside.healthy = False
    with pytest.raises(BackendUnavailable):
        opened.close()
    assert outside.other == "running"
    assert opened.record().backend is not None


@pytest.mark.parametrize(("restarts", "comes_back"), [(1, True), (3, True), (4, False)])
def test_a_crash_at_its_start_is_no_restart_again_and_again(
    tmp_path: Path, restarts: int, *, comes_back: bool
) -> None:
    """The backend does that on a fresh database, and is well when its engine has restarted it."""
    outside = Outside()
    opened = window(tmp_path, outside)
    opened.open()
    outside.restarts_while_asked = restarts
    if comes_back:
        opened.close()
    else:
        with pytest.raises(BackendUnavailable, match="restarts again and again"):
            opened.close()
    assert opened.is_open is not comes_back


def test_loading_models_again_may_be_interrupted_and_the_service_is_back(tmp_path: Path) -> None:
    """An Ollama that hangs in it is asked behind the shield, and for a limited time."""
    outside = Interrupted()
    opened = Window(tmp_path, BACKEND, "http://ollama", outside, shield=outside.shield)
    with outside.shield():
        opened.open()
    with pytest.raises(KeyboardInterrupt):
        opened.close()
    assert (outside.running, opened.is_open) == (True, False)
    assert opened.warnings == ["a signal ended the loading of Ollama's models again"]


def test_a_signal_while_a_renewal_waits_for_a_reprocess_ends_the_wait(tmp_path: Path) -> None:
    patient = compose("new").model_copy(update={"wait_for_reprocess_s": 60})
    outside = Interrupted(busy=9)
    opened = Window(tmp_path, patient, "", outside, shield=outside.shield)
    with pytest.raises(KeyboardInterrupt):
        opened.close(renew=True)
    assert (outside.calls, outside.running, opened.is_open) == ([], True, False)


class Engine:
    """A DOUBLE of a Docker engine: names and ids of its containers, and which it has started."""

    def __init__(self, containers: dict[str, str]) -> None:
        self.containers = containers
        self.started: list[str] = []

    def exists(self, name: str) -> bool:
        return name in {*self.containers, *self.containers.values()}

    def start(self, name: str) -> None:
        self.started.append(self.containers.get(name, name))


@pytest.mark.parametrize(
    ("containers", "started"),
    [
        ({"news": "c1"}, "c1"),
        ({"news": "c2"}, "c2"),
        ({"news": "c2", "news-before": "c1"}, "c2"),
        ({"news-before": "c1"}, "c1"),
    ],
)
def test_what_has_the_name_by_now_is_the_service(containers: dict[str, str], started: str) -> None:
    engine: Any = Engine(containers)
    ContainerService("news", engine).start("c1")
    assert engine.started == [started]
