"""`driver logs`: whole lines, named by stage, and with -f as long as a driver is at work."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from contracts import files
from contracts.errors import InputMissing
from driver import locks
from driver.report import logs
from driver.store import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(tmp_path)
    made.log("label").write_text("eins\nzwei\n", encoding="utf-8")
    made.log("train").write_text("drei\nvier", encoding="utf-8")
    return made


def state(run: Run, of_train: str, **facts: object) -> None:
    run.write_state({"run": run.id, "stages": {"train": {"state": of_train}}, **facts})


def shown(workspace: Path, stage: str = "", run_id: str = "") -> list[str]:
    lines: list[str] = []
    logs.show(workspace, stage, run_id, follow=False, say=lines.append, note=pytest.fail)
    return lines


def test_all_stages_in_their_order(run: Run, tmp_path: Path) -> None:
    assert shown(tmp_path) == ["label: eins", "label: zwei", "train: drei", "train: vier"]


def test_one_stage_without_its_name(run: Run, tmp_path: Path) -> None:
    assert shown(tmp_path, "train", run.id) == ["drei", "vier"]


@pytest.mark.parametrize(
    ("stage", "run_id", "says"),
    [
        ("merge", "", "no log of merge"),
        ("trian", "", "no log of trian"),
        ("", "nonsense", "no run nonsense"),
    ],
)
def test_what_is_not_there_is_named(
    run: Run, tmp_path: Path, stage: str, run_id: str, says: str
) -> None:
    with pytest.raises(InputMissing, match=says) as caught:
        shown(tmp_path, stage, run_id)
    assert run.id in caught.value.why or "label, train" in caught.value.why


def test_a_workspace_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="has no run"):
        shown(tmp_path)


def test_following_ends_with_the_driver(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_POLL_S", 0.01)
    state(run, "done")
    lines: list[str] = []
    seen = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        seen.set()

    def write() -> None:
        with locks.workspace(tmp_path), run.log("merge").open("w", encoding="utf-8") as log:
            held.set()
            assert seen.wait(10)
            log.write("hal")
            log.flush()
            time.sleep(0.05)
            log.write("b\nganz")

    held = threading.Event()
    driver = threading.Thread(target=write)
    driver.start()
    assert held.wait(10)
    notes: list[str] = []
    logs.show(tmp_path, "", "", follow=True, say=say, note=notes.append)
    driver.join()
    assert notes == [f"-- run {run.id} has ended"]
    assert lines[:3] == ["label: eins", "label: zwei", "train: drei"]
    assert [line for line in lines[3:] if line.startswith("merge")] == [
        "merge: halb",
        "merge: ganz",
    ]
    assert [line for line in lines[3:] if line.startswith("train")] == ["train: vier"]


def test_following_goes_on_to_the_run_that_begins_meanwhile_and_cuts_no_letter(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As told by `say`, so that every piece is read before the next is written."""
    monkeypatch.setattr(logs, "_POLL_S", 0)
    state(run, "done")
    lines: list[str] = []
    pieces = iter([b"gr\xc3", b"\xbc\xc3\x9f", b"e\n"])
    later: list[Run] = []

    def is_held(_: Path) -> bool:
        """Let the driver do its next step, between two rounds of reading."""
        if not later and lines:
            later.append(Run.create(tmp_path))
        elif later and (piece := next(pieces, None)):
            with later[0].log("train").open("ab") as log:
                log.write(piece)
        elif later:
            state(later[0], "done")
            return False
        return True

    monkeypatch.setattr(locks, "is_held", is_held)
    notes: list[str] = []
    logs.show(tmp_path, "train", "", follow=True, say=lines.append, note=notes.append)
    assert lines == ["drei", "vier", "grüße"]
    assert notes == [f"-- run {later[0].id} begins", f"-- run {later[0].id} has ended"]


def test_following_goes_on_over_a_driver_that_dies(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As told by `is_held`, so that every step is seen before the next is made."""
    monkeypatch.setattr(logs, "_POLL_S", 0)
    state(run, "running")
    later: list[Run] = []

    def killed() -> bool:
        return False

    def still_nobody() -> bool:
        return False

    def taken_up() -> bool:
        """Attach to the container: its log has all of it."""
        later.append(Run.create(tmp_path))
        state(later[0], "running")
        later[0].log("train").write_text("drei\nvier und fünf\n", encoding="utf-8")
        return True

    def failed() -> bool:
        failure = {"kind": "OutOfMemory", "exit_code": 23, "what": "out of memory"}
        state(later[0], "failed", ended_at=1.0, failure=failure)
        return False

    steps = iter([lambda: True, killed, still_nobody, taken_up, lambda: True, failed])
    monkeypatch.setattr(locks, "is_held", lambda _: next(steps)())
    lines, notes = list[str](), list[str]()
    logs.show(tmp_path, "train", "", follow=True, say=lines.append, note=notes.append)
    assert lines == ["drei", "vier", "drei", "vier und fünf"]
    assert notes == [
        f"-- the driver of run {run.id} has died; waiting for the next to take it up",
        f"-- run {later[0].id} takes it up: a stage that was at work is told from its beginning",
        f"-- run {later[0].id} has ended: out of memory",
    ]


def test_following_goes_on_over_one_that_is_killed_before_its_first_note(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_POLL_S", 0)
    state(run, "running")
    later: list[Run] = []

    def is_held(_: Path) -> bool:
        """Let one driver make its run's folder and die, and the next come to its end."""
        if len(later) < 2:
            later.append(Run.create(tmp_path))
            return False
        state(later[1], "done")
        return False

    monkeypatch.setattr(locks, "is_held", is_held)
    notes: list[str] = []
    logs.show(tmp_path, "", "", follow=True, say=lambda _: None, note=notes.append)
    assert [note.partition(":")[0] for note in notes] == [
        f"-- run {later[0].id} takes it up",
        f"-- run {later[1].id} takes it up",
        f"-- run {later[1].id} has ended",
    ]


def test_an_older_run_is_not_waited_for(run: Run, tmp_path: Path) -> None:
    state(run, "running")
    Run.create(tmp_path)
    lines: list[str] = []
    logs.show(tmp_path, "train", run.id, follow=True, say=lines.append, note=pytest.fail)
    assert lines == ["drei", "vier"]


def test_a_named_run_is_over_although_a_driver_is_at_work(run: Run, tmp_path: Path) -> None:
    state(run, "done", ended_at=1.0)
    notes: list[str] = []
    with locks.workspace(tmp_path):
        logs.show(tmp_path, "", run.id, follow=True, say=lambda _: None, note=notes.append)
    assert notes == [f"-- run {run.id} has ended"]


def test_ctrl_c_ends_it_without_words(run: Run, tmp_path: Path) -> None:
    state(run, "running")
    with subprocess.Popen(
        [sys.executable, "-m", "driver", "logs", "-f", "-w", str(tmp_path)],
        cwd=files.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "has died; waiting" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 130


def test_the_command(run: Run, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "driver", "logs", "label", "-w", str(tmp_path)],
        cwd=files.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "eins\nzwei\n")
