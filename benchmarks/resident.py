"""The memory of a process."""

from __future__ import annotations

from pathlib import Path


def peak_kib(pid: int | str = "self") -> int:
    """Return the most that a process has had resident so far; 0 for one that has ended.

    Not ru_maxrss: a new process begins with its parent's.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    peak = next((line for line in lines if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(peak.split()[1])
