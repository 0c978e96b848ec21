"""`driver logs`: whole lines, named by stage, and with -f as long as a driver is at work."""

from __future__ import annotations

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


def shown(workspace: Path, stage: str = "", run_id: str = "") -> list[str]:
    lines: list[str] = []
    logs.show(workspace, stage, run_id, follow=False, say=lines.append)
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
    logs.show(tmp_path, "", "", follow=True, say=say)
    driver.join()
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
        else:
            return not later
        return True

    monkeypatch.setattr(locks, "is_held", is_held)
    logs.show(tmp_path, "train", "", follow=True, say=lines.append)
    assert lines == ["drei", "vier", "grüße"]


def test_the_command(run: Run, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "driver", "logs", "label", "-w", str(tmp_path)],
        cwd=files.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "eins\nzwei\n")
