"""The gguf stage is killed while one of llama.cpp's programs is at work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from contracts.files import ROOT

_STAGE = """
import sys
from pathlib import Path
from images.gguf.programs import run_converter
run_converter((sys.executable, "-c", sys.argv[1]), Path.cwd(), lambda share: None)
"""
_CONVERTER = """
import os, time
print(os.getpid(), flush=True)
for _ in range(600):
    time.sleep(0.05)
    open("model.gguf.partial", "a").write(".")
"""


def test_no_program_outlives_a_stage_that_was_killed(tmp_path: Path) -> None:
    """It would write where the next attempt writes."""
    with subprocess.Popen(
        [sys.executable, "-c", _STAGE, _CONVERTER],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,  # where the lines of a program go
        text=True,
    ) as stage:
        assert stage.stderr is not None
        program = int(stage.stderr.readline())
        stage.send_signal(signal.SIGKILL)
        stage.wait()
        for _ in range(100):
            if not Path(f"/proc/{program}").exists() or _is_zombie(program):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(f"{program} goes on after its stage")
    written = tmp_path / "model.gguf.partial"
    size = written.stat().st_size if written.exists() else 0
    time.sleep(0.2)
    assert (written.stat().st_size if written.exists() else 0) == size


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
