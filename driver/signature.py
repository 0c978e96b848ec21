"""What the holder of a lock writes into its file: who it is, where that counts, and its workspace.

A process id counts until the next boot, in its own PID namespace. A lock file may be seen from
another one (a container), or from another host (NFS).
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

WORKSPACE = ", workspace "
ENDED = "ended: "
"""Before what a holder has signed: it let go by itself, and nothing of it is stopped."""
_SIGNED = re.compile(rf"(?:{ENDED})?pid (\d+) since \S+(?: in (\S+))?{WORKSPACE}")
"""The holder's number, and where that counts; an older driver has not written where."""


def written(folder: Path) -> str:
    """Return what this process writes into a lock that it holds for a workspace."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    where = f" in {here}" if (here := _here()) else ""
    return f"pid {os.getpid()} since {now}{where}{WORKSPACE}{folder}"


def number(signed: str) -> str:
    """Return the holder's process id, "" where none is written."""
    found = _SIGNED.match(signed)
    return found[1] if found else ""


def _here() -> str:
    """Return where the number of this process counts: until when, and in which PID namespace.

    "" where that cannot be told: no Linux, or a /proc that is another namespace's.
    """
    try:
        if Path("/proc/self").readlink() != Path(str(os.getpid())):
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def is_of_here(signed: str) -> bool:
    """Return whether who has signed a lock is, or was, a process that is seen from here."""
    found = _SIGNED.match(signed)
    return found is not None and found[2] is not None and found[2] == _here()


def has_died(holder: str) -> bool:
    """Return whether the process that has signed a lock is known to be no more.

    Only of one that was started since the boot, in this PID namespace: elsewhere its number is
    another's, or nobody's.
    """
    if not is_of_here(holder):
        return False
    with suppress(PermissionError):  # another user's, which /proc may hide (hidepid)
        try:
            os.kill(int(number(holder)), 0)
        except ProcessLookupError:
            return True
    try:
        said = Path(f"/proc/{number(holder)}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return said.rpartition(")")[2].split()[0] in "ZX"  # killed, and not yet waited for


def workspace_in(said: str) -> Path | None:
    """Return the workspace of a lock's last holder if that has not let go of it by itself."""
    folder = Path(said.partition(WORKSPACE)[2])
    return folder if folder.is_absolute() and not said.startswith(ENDED) else None
