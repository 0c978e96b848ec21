"""A password in a URL is for whoever is asked there: no message, run or report shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import (
    BackendUnavailable,
    DockerUnavailable,
    EngineUnavailable,
    RetrainError,
    SettingsInvalid,
    without_userinfo,
)
from driver.adapters.backend import Backend
from driver.adapters.containers import connect
from driver.host_stages.record import Record
from driver.notes import Notes
from driver.store import Run
from serving import ollama_address
from serving.teachers import connect_teachers

NOBODY = "127.0.0.1:9"  # the port of discard, at which nothing answers
SECRET = "geheim"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://u:geheim@host:80/a answers", "at http://host:80/a answers"),
        ("HTTPS://token@hub/a and tcp://u:p@b@c:1", "HTTPS://hub/a and tcp://c:1"),
        ("ssh://gpu@host and ssh://gpu:geheim@host", "ssh://gpu@host and ssh://host"),
        ("https://news.example/@author?mail=a@b", "https://news.example/@author?mail=a@b"),
        ("mail to a@b, see http://host/", "mail to a@b, see http://host/"),
    ],
)
def test_what_is_shown_of_a_text(text: str, shown: str) -> None:
    assert without_userinfo(text) == shown


def ask_backend() -> None:
    Backend(f"http://u:{SECRET}@{NOBODY}").admin_health()


def wait_for_backend() -> None:
    Backend(f"http://u:{SECRET}@{NOBODY}").wait_healthy(timeout_s=0)


def ask_docker() -> None:
    connect(f"tcp://u:{SECRET}@{NOBODY}")


def ask_teacher() -> None:
    address = f"openai+http://u:{SECRET}@{NOBODY}/v1#m"
    (teacher,) = connect_teachers({"RETRAIN_TEACHERS": address}, Path("/nowhere"), "m")
    assert teacher.address == f"http://{NOBODY}/v1"
    teacher.model()


def test_ollama_is_asked_without_it_as_its_own_tools_do() -> None:
    assert ollama_address(f"http://u:{SECRET}@host:1/a@b") == "http://host:1/a@b"
    assert ollama_address(f"u:{SECRET}@host:1") == "http://host:1"


def name_ollama() -> None:
    ollama_address(f"u:{SECRET}@host:x")


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (ask_backend, BackendUnavailable),
        (wait_for_backend, BackendUnavailable),
        (ask_docker, DockerUnavailable),
        (ask_teacher, EngineUnavailable),
        (name_ollama, SettingsInvalid),
    ],
)
def test_no_error_shows_it(ask: Callable[[], None], kind: type[RetrainError]) -> None:
    with pytest.raises(kind) as caught:
        ask()
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.args)


def test_a_run_notes_its_failure_without_it(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    notes = Notes(run, "")
    notes.close([], ConnectionError(f"http://u:{SECRET}@{NOBODY}/health"))
    noted = run.folder / "run.json"
    assert SECRET not in noted.read_text(encoding="utf-8")
    assert noted.stat().st_mode & 0o777 == 0o644


def test_an_engine_s_password_is_noted_for_recover_alone(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    Notes(run, f"tcp://u:{SECRET}@{NOBODY}").stage("train", state="running")
    assert SECRET in (run.read_state().docker_host or "")
    assert (run.folder / "run.json").stat().st_mode & 0o777 == 0o600


def test_a_record_of_a_reprocess_is_found_again_without_it(tmp_path: Path) -> None:
    url = f"http://u:{SECRET}@{NOBODY}"
    record = Record.of_model(tmp_path, "r1", "m", url)
    record.begin("r1", "m", url, {}, 0)
    assert record.about().backend == f"http://{NOBODY}"
    assert Record.of_model(tmp_path, "r2", "m", url).folder == record.folder
