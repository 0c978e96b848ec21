"""The service window: recorded before anything stops, closed only when healthy, whatever dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import BackendUnavailable, FileUnusable, WindowOpen
from driver import recover, users, window_return
from driver.adapters.containers import Stopped
from driver.settings import BackendSettings
from driver.window import Window
from driver.window_record import RECORD_FILE
from tests.unit.other_user import another_user, close, public_folder
from tests.unit.window_world import MODEL, Outside, stop_other

BACKEND = BackendSettings(url="http://127.0.0.1:9", container="news")


@pytest.fixture
def outside() -> Outside:
    return Outside()


def window(folder: Path, outside: Outside, backend: BackendSettings | None = BACKEND) -> Window:
    return Window(folder, backend, "http://ollama", outside)


def test_open_stops_once_and_close_brings_back(tmp_path: Path, outside: Outside) -> None:
    opened = window(tmp_path, outside)
    opened.open()
    opened.open()
    assert outside.calls == ["stop 120"]
    assert opened.is_open
    outside.models = ()
    opened.close()
    opened.close()
    assert outside.calls == ["stop 120", "start c1", "load news:latest"]
    assert not opened.is_open
    assert opened.away_s > 0


def test_a_record_of_another_user_says_whose_it_is(outside: Outside) -> None:
    with public_folder() as folder:
        window(folder, outside).open()
        close(folder / RECORD_FILE, 0o600)
        with another_user(), pytest.raises(FileUnusable, match="cannot read") as caught:
            window(folder, outside).close()
        assert caught.value.why.startswith(f"it is {users.me()}'s")
        assert "recover as" in caught.value.todo


@pytest.mark.parametrize("damage", ["NUL", "loop"])
def test_a_record_that_cannot_be_read_is_no_closed_window(tmp_path: Path, damage: str) -> None:
    path = tmp_path / RECORD_FILE
    if damage == "NUL":
        path.write_bytes(b"\0" * 200)
    else:
        path.symlink_to(path.name)
    with pytest.raises(FileUnusable, match="cannot read") as caught:
        recover.recover(tmp_path, lambda _: None)
    assert "\n" not in caught.value.why


def test_the_record_is_private_and_says_what_ran(tmp_path: Path, outside: Outside) -> None:
    opened = window(tmp_path, outside)
    opened.open()
    record = opened.record()
    assert (record.container_id, record.container_name) == ("c1", "news")
    assert (record.restart_policy, record.llm_enabled) == ("always", True)
    assert record.models == (MODEL,)
    assert (tmp_path / RECORD_FILE).stat().st_mode & 0o077 == 0


def test_another_process_needs_nothing_but_the_workspace(tmp_path: Path, outside: Outside) -> None:
    window(tmp_path, outside).open()
    later = Window(tmp_path, None, world=outside)
    assert later.is_open
    later.close()
    assert outside.running
    assert not (tmp_path / RECORD_FILE).exists()


def test_without_a_backend_nothing_is_touched(tmp_path: Path, outside: Outside) -> None:
    alone = window(tmp_path, outside, None)
    alone.open()
    alone.close()
    assert outside.calls == []
    assert alone.away_s == 0


def test_what_was_not_running_is_left_alone(tmp_path: Path, outside: Outside) -> None:
    outside.running = False
    stopped = window(tmp_path, outside)
    stopped.open()
    stopped.open()
    assert not stopped.is_open
    assert outside.calls == []
    assert stopped.warnings == ["news was not running, and is left as it is"]


def test_beside_the_service_only_the_switch_is_touched(tmp_path: Path, outside: Outside) -> None:
    beside = window(tmp_path, outside)
    beside.open(stop=False)
    assert (outside.running, outside.llm) == (True, False)
    beside.open()
    assert not outside.running
    beside.open(stop=False)  # a later labelling changes nothing about that
    beside.close()
    assert (outside.running, outside.llm) == (True, True)
    assert outside.calls == ["llm False", "stop 120", "start c1", "llm True", "load news:latest"]


def test_a_switch_that_somebody_had_off_stays_off(tmp_path: Path, outside: Outside) -> None:
    outside.llm, outside.forgets_switch = False, True
    opened = window(tmp_path, outside)
    opened.open()
    opened.close()
    assert outside.llm is False


def test_what_came_up_again_meanwhile_is_stopped_again(tmp_path: Path, outside: Outside) -> None:
    opened = window(tmp_path, outside)
    opened.open()
    outside.running, outside.container = True, "c2"  # restart: always, or a deployment
    opened.open()
    assert outside.calls == ["stop 120", "stop 120"]
    opened.close()
    assert outside.calls[2] == "start c2"


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Stopped(exit_code=137, seconds=120), "did not stop cleanly (exit 137 after 120 s)"),
        (Stopped(exit_code=0, seconds=61), "gave up on what it was doing (exit 0 after 61 s)"),
        (Stopped(exit_code=0, seconds=2), ""),
        (Stopped(exit_code=143, seconds=2), ""),
    ],
)
def test_how_it_ended_is_said(ended: Stopped, said: str, tmp_path: Path, outside: Outside) -> None:
    outside.ended = ended
    opened = window(tmp_path, outside)
    opened.open()
    assert [said in warning for warning in opened.warnings] == ([True] if said else [])


def test_a_bulk_reprocess_is_waited_for_if_asked(
    tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_return, "_POLL_S", 0.01)
    outside.busy = 3
    patient = BACKEND.model_copy(update={"wait_for_reprocess_s": 60})
    opened = window(tmp_path, outside, patient)
    opened.open()
    assert outside.busy == -1
    assert opened.warnings == []


def test_a_bulk_reprocess_that_is_lost_is_said(tmp_path: Path, outside: Outside) -> None:
    outside.busy = 9
    opened = window(tmp_path, outside)
    opened.open()
    assert "in the middle of a bulk reprocess" in opened.warnings[0]


def test_a_log_that_cannot_be_read_is_said(tmp_path: Path, outside: Outside) -> None:
    outside.silent = True
    opened = window(tmp_path, outside)
    opened.open()
    assert not outside.running
    assert "cannot be told, since its log does not say" in opened.warnings[0]


def test_a_backend_that_was_removed_meanwhile_is_said_and_kept_on_the_record(
    tmp_path: Path, outside: Outside
) -> None:
    window(tmp_path, outside).open()
    outside.removed = True
    with pytest.raises(BackendUnavailable, match=r"news was stopped .* does not start") as caught:
        Window(tmp_path, None, world=outside).close()
    assert "there is no container" in caught.value.why
    assert str(tmp_path / RECORD_FILE) in caught.value.todo
    outside.removed, outside.container = False, "c2"  # made again, by hand
    Window(tmp_path, None, world=outside).close()
    assert outside.running
    assert not (tmp_path / RECORD_FILE).exists()


def test_one_that_was_renamed_meanwhile_is_found_by_its_id(
    tmp_path: Path, outside: Outside
) -> None:
    window(tmp_path, outside).open()
    outside.renamed = True
    again = window(tmp_path, outside)
    again.open()  # before the next stage
    outside.running = True  # somebody has started it
    again.open()
    assert not outside.running
    again.close()
    assert (outside.running, again.is_open) == (True, False)


def test_one_that_is_paused_is_named_so_at_once(tmp_path: Path, outside: Outside) -> None:
    opened = window(tmp_path, outside)
    opened.open()
    outside.come_up()  # started by hand, and frozen
    outside.paused = True
    with pytest.raises(BackendUnavailable, match="news is paused") as caught:
        opened.close()
    assert "`docker unpause news`" in caught.value.todo
    assert opened.is_open
    outside.paused = False
    opened.close()
    assert not opened.is_open


def test_the_record_names_the_engine_whatever_is_in_effect_later(
    tmp_path: Path, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    opened = window(tmp_path, outside)
    opened.open()
    assert opened.record().settings.docker_host == "unix:///var/run/docker.sock"


def test_a_backend_that_does_not_come_back_keeps_the_record(
    tmp_path: Path, outside: Outside
) -> None:
    opened = window(tmp_path, outside)
    opened.open()
    outside.healthy = False
    with pytest.raises(BackendUnavailable):
        opened.close()
    assert opened.is_open


@pytest.mark.parametrize(("ends", "comes_back"), [(1, True), (2, True), (3, False)])
def test_a_backend_that_ends_while_it_is_waited_for_is_started_again(
    tmp_path: Path, outside: Outside, ends: int, *, comes_back: bool
) -> None:
    """Its engine may be shut down just then; one that ends again and again is not back."""
    opened = window(tmp_path, outside)
    opened.open()
    outside.ends = ends
    if comes_back:
        opened.close()
    else:
        with pytest.raises(BackendUnavailable):
            opened.close()
    assert outside.running is comes_back
    assert opened.is_open is not comes_back


def test_a_backend_that_restarts_while_it_answers_is_not_back(
    tmp_path: Path, outside: Outside
) -> None:
    opened = window(tmp_path, outside)
    opened.open()
    outside.restarts_while_asked = 9
    with pytest.raises(BackendUnavailable, match="restarts again and again"):
        opened.close()
    assert opened.is_open


@pytest.mark.parametrize("damage", [b"{", b"\xff", b"", b"null", b"{}"])
def test_a_damaged_record_says_what_to_do(tmp_path: Path, outside: Outside, damage: bytes) -> None:
    (tmp_path / RECORD_FILE).write_bytes(damage)
    with pytest.raises(FileUnusable, match=r"by hand"):
        window(tmp_path, outside).close()
    assert outside.calls == []


def test_another_container_comes_back_even_without_a_backend(
    tmp_path: Path, outside: Outside
) -> None:
    outside.other = "running"
    alone = window(tmp_path, outside, None)
    stop_other(alone, outside)
    stop_other(alone, outside)  # the next attempt at the stage
    assert outside.calls == ["stop other 30"]
    assert [(o.id, o.name, o.host) for o in alone.record().others] == [
        ("x1", "notebook", "unix://gpu")
    ]
    assert "notebook held the GPU and was stopped" in alone.warnings[0]
    Window(tmp_path, None, world=outside).close()
    assert outside.calls == ["stop other 30", "start other x1"]
    assert not alone.is_open


def test_another_container_is_remembered_beside_the_backend(
    tmp_path: Path, outside: Outside
) -> None:
    outside.other = "running"
    opened = window(tmp_path, outside)
    stop_other(opened, outside)  # before the backend: a run that died, and its stage goes on
    opened.open()
    opened.close()
    assert outside.calls == [
        "stop other 30",
        "stop 120",
        "start c1",
        "start other x1",
        "load news:latest",
    ]


def test_another_container_that_was_made_anew_is_started_by_its_name(
    tmp_path: Path, outside: Outside
) -> None:
    outside.other = "running"
    opened = window(tmp_path, outside)
    stop_other(opened, outside)
    outside.other_id = "x2"
    opened.close()
    assert outside.calls == ["stop other 30", "start other notebook"]


def test_another_container_that_was_removed_is_said(tmp_path: Path, outside: Outside) -> None:
    outside.other = "running"
    opened = window(tmp_path, outside)
    stop_other(opened, outside)
    outside.other = None
    opened.close()
    assert opened.warnings[-1] == "notebook, stopped for the GPU, has been removed since"
    assert not opened.is_open


def test_another_container_that_does_not_start_keeps_the_record_but_not_the_backend(
    tmp_path: Path, outside: Outside
) -> None:
    outside.other = "running"
    opened = window(tmp_path, outside)
    opened.open()
    stop_other(opened, outside)
    outside.other_broken = True
    with pytest.raises(WindowOpen, match=r"notebook.* does not start again") as caught:
        opened.close()
    assert "docker start notebook" in caught.value.todo
    assert outside.running
    assert opened.is_open
    outside.other_broken = False
    opened.close()
    assert (outside.other, opened.is_open) == ("running", False)
