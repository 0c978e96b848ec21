"""One at a time: in a workspace, and on a host whose GPU is wanted.

flock(2) ends with its process, so that a kill or a reboot leaves no stale lock behind.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from contracts.errors import WindowOpen, WorkspaceBusy

_HOST_LOCK = "retrain-driver.lock"
_WORKSPACE = ", workspace "
_HELD = Path("/proc/locks")
_SHARED_FOLDER = Path("/run/lock")
"""Where every user of a host may make lock files (Filesystem Hierarchy Standard 3.0, 3.15)."""


@contextmanager
def workspace(folder: Path) -> Iterator[None]:
    """Hold a workspace for this process; `WorkspaceBusy` names the holder."""
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / "lock", f"another driver works in {folder}", folder):
        yield


def is_held(folder: Path) -> bool:
    """Return whether a driver is at work in a workspace, without getting in its way.

    From /proc/locks (proc_locks(5)): a try to take the lock could make a driver that starts now
    fail.
    """
    try:
        file = _as_listed(folder / "lock")
        held = _HELD.read_text(encoding="ascii").splitlines()
    except (OSError, LookupError, ValueError):  # no lock file, or no /proc as it is on Linux
        return False
    return any(line.split()[1] == "FLOCK" and file in line.split() for line in held)


def _as_listed(path: Path) -> str:
    """Return a file as /proc/locks names it: device, in hexadecimal, and inode.

    The device is the file system's, by mountinfo (proc_pid_mountinfo(5)); stat(2) tells another
    one in a subvolume of Btrfs.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        inode = os.fstat(descriptor).st_ino
        about = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").split()
    finally:
        os.close(descriptor)
    mount = about[about.index("mnt_id:") + 1]
    mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    devices = {fields[0]: fields[2] for fields in map(bytes.split, mounts)}
    major, minor = map(int, devices[mount.encode()].split(b":"))
    return f"{major:02x}:{minor:02x}:{inode}"


@contextmanager
def host(folder: Path, *, recovers: bool = False) -> Iterator[None]:
    """Hold this host's GPU for a run in the workspace `folder`, whoever's other runs there are.

    `WindowOpen` where the last run has died in another workspace and left the service stopped: it
    has to come back first, but for one that `recovers` its own, whom also no lock file that cannot
    be made keeps from that.
    """
    shared = _SHARED_FOLDER if _SHARED_FOLDER.is_dir() else Path(tempfile.gettempdir())
    if recovers and not _can_open(shared / _HOST_LOCK):
        yield
        return
    with _locked(shared / _HOST_LOCK, "another driver uses the GPU of this host") as descriptor:
        left = _open_window(_said(descriptor))
        if left is None or left == folder.resolve():
            _sign(descriptor, folder.resolve())
        elif not recovers:
            raise WindowOpen(
                f"a run in another workspace has died and left the service stopped: {left}",
                why="what it has stopped would count as not running, and stay away",
                todo=f"`python -m driver recover -w {left}`, then run again. If what it stopped is "
                "to stay away, remove the window.json there.",
            )
        yield


@contextmanager
def _held(path: Path, busy: str, folder: Path) -> Iterator[None]:
    with _locked(path, busy) as descriptor:
        _sign(descriptor, folder)
        yield


@contextmanager
def _locked(path: Path, busy: str) -> Iterator[int]:
    """Yield a lock file that is locked; `WorkspaceBusy` says what its holder has written there."""
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _said(descriptor) or "an unknown process"
            raise WorkspaceBusy(busy, why=f"the lock {path} is held by {holder}") from error
        yield descriptor
    finally:
        os.close(descriptor)


def _said(descriptor: int) -> str:
    return os.pread(descriptor, 4096, 0).decode(errors="replace").strip()


def _sign(descriptor: int, folder: Path) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError):  # a full disk must not keep `recover` from its work
        os.ftruncate(descriptor, 0)
        text = f"pid {os.getpid()} since {now}{_WORKSPACE}{folder}"
        os.pwrite(descriptor, text.encode(), 0)


def _open_window(said: str) -> Path | None:
    """Return the workspace of a lock's last holder if its service window is open, as far as seen.

    The holder is dead, or has ended: a lock file keeps what was written there.
    """
    from driver.window_record import RECORD_FILE  # 0.3 s, which `status` has no use for

    folder = Path(said.partition(_WORKSPACE)[2])
    with suppress(OSError):  # another user's
        if folder.is_absolute() and (folder / RECORD_FILE).exists():
            return folder
    return None


def _can_open(path: Path) -> bool:
    try:
        os.close(_open(path))
    except OSError:
        return False
    return True


def _open(path: Path) -> int:
    """Open a lock file, which may be another user's.

    Without O_CREAT where it exists: in a folder that all can write to, Linux refuses that for
    files of others (fs.protected_regular).
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o666)
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, 0o666)  # the umask would lock others out
        return descriptor
