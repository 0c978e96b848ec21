"""One at a time: in a workspace, and on a host whose GPU is wanted.

flock(2) ends with its process, so that a kill or a reboot leaves no stale lock behind. It ends with
the last process that has it, to be exact: a child that must not be outrun is given it too
(`descriptors`), and is waited for when its driver has died.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts import files
from contracts.errors import FileUnusable, WindowOpen, WorkspaceBusy
from driver import signature, users

_HOST_LOCK = "retrain-driver.lock"
FOLDER_VARIABLE = "RETRAIN_LOCK_FOLDER"
"""In the environment: another folder for the host's lock, for tests that must not meet a run."""
_HELD = Path("/proc/locks")
_SHARED_FOLDERS = (Path("/run/lock"), Path("/tmp"))  # noqa: S108  # named, and no link is followed
"""Where every user of a host may make lock files: the first that all may write to, for root too.
/run/lock (Filesystem Hierarchy Standard 3.0, 3.15) is root's alone on some distributions; what
TMPDIR says is another folder for each user."""
_EVERYBODY = 0o666
CHILD_S = 300.0
"""How long a child that was given the locks may take, what it gives the backend to stop on top."""
_POLL_S = 0.2
_LOOK_S = 0.05
_GPU_TAKEN = "another driver uses the GPU of this host"
_OURS: list[int] = []


def descriptors() -> tuple[int, ...]:
    """Return the locks that this process holds, for a child that has to end before the next driver.

    Given to it (`pass_fds`), they are held until it ends, even if this process is killed.
    """
    return tuple(_OURS)


@contextmanager
def workspace(folder: Path, *, recovers: bool = False) -> Iterator[None]:
    """Hold a workspace for this process; `WorkspaceBusy` names the holder.

    One that `recovers` takes also a lock file that it cannot write to, and goes without one that is
    not there and cannot be made: nobody holds it.
    """
    files.make_folder(folder)
    path = folder / "lock"
    try:
        descriptor = _open(path, only_to_lock=recovers)
    except (FileUnusable, OSError):
        if not recovers or not _is_missing(path):
            raise
        yield
        return
    with _locked(descriptor, path, f"another driver works in {folder}"):
        _sign(descriptor, folder.resolve())
        yield


def is_held(folder: Path) -> bool:
    """Return whether a driver is at work in a workspace, without getting in its way.

    From /proc/locks (proc_locks(5)): a try to take the lock could make a driver that starts now
    fail. That does not list who is on another host, or in a PID namespace that is not seen from
    here: of these, and after a reboot, only a try tells; `_take` does not give up for one.
    """
    return _is_locked(folder / "lock")


def _is_locked(path: Path) -> bool:
    return bool(_lockers(path)) or _is_locked_elsewhere(path)


def _is_locked_elsewhere(path: Path) -> bool:
    """Return whether somebody has locked a file whom this process cannot see."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if signature.is_of_here(_said(descriptor)):
                return False
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _lockers(path: Path) -> list[str]:
    """Return the ids of the processes that have locked a file, whoever has the lock by now."""
    try:
        file = _as_listed(path)
        held = [line.split() for line in _HELD.read_text(encoding="ascii").splitlines()]
    except (OSError, LookupError, ValueError):  # no lock file, or no /proc as it is on Linux
        return []
    return [line[4] for line in held if line[1] == "FLOCK" and file in line]


def _as_listed(path: Path) -> str:
    """Return a file as /proc/locks names it: device, in hexadecimal, and inode.

    The device is the file system's, by mountinfo (proc_pid_mountinfo(5)); stat(2) tells another
    one in a subvolume of Btrfs.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)  # whosever it is
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

    `WindowOpen` where the last run has died in another workspace and left the service stopped, or
    may have, since this user cannot look there: it has to come back first, but for one that
    `recovers` its own. `FileUnusable` for a lock file that cannot be opened: no run goes without.
    One that recovers then only looks whether it is held.
    """
    path = _shared_folder() / _HOST_LOCK
    try:
        descriptor = _open(path, only_to_lock=recovers)
    except (FileUnusable, OSError):
        if not recovers:
            raise
        if _is_locked(path):
            raise WorkspaceBusy(_GPU_TAKEN, why=f"the lock {path} is held") from None
        yield
        return
    with _locked(descriptor, path, _GPU_TAKEN):
        try:
            left = _open_window(_said(descriptor))
        except WindowOpen:
            if not recovers:
                raise
            yield  # what is written there stays
            return
        ours = left is None or left == folder.resolve()
        if ours:
            _sign(descriptor, folder.resolve())
        elif not recovers:
            raise WindowOpen(
                f"a run in another workspace has died and left the service stopped: {left}",
                why="what it has stopped would count as not running, and stay away",
                todo=f"`python -m driver recover -w {left}`, then run again. If what it stopped is "
                "to stay away, remove the window.json there.",
            )
        try:
            yield
        finally:
            if ours:
                _sign_off(descriptor)


def forget(folder: Path) -> None:
    """Take a dead run of this workspace off the host's lock, if its service window is closed.

    Until then other users, who cannot see that it is, are refused.
    """
    path = _shared_folder() / _HOST_LOCK
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if signature.workspace_in(_said(descriptor)) == folder.resolve():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if signature.workspace_in(_said(descriptor)) == folder.resolve():
                    _sign_off(descriptor)
        finally:
            os.close(descriptor)


def _shared_folder() -> Path:
    """Return where everybody looks for the host's lock; the last of them where none is for all."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    for folder in _SHARED_FOLDERS:
        with suppress(OSError):
            if folder.stat().st_mode & 0o003 == 0o003:
                return folder
    return _SHARED_FOLDERS[-1]


@contextmanager
def _locked(descriptor: int, path: Path, busy: str) -> Iterator[None]:
    """Hold an open lock file; `WorkspaceBusy` says what its holder has written there."""
    try:
        _take(descriptor, path, busy)
        _OURS.append(descriptor)
        try:
            yield
        finally:
            _OURS.remove(descriptor)
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, busy: str) -> None:
    """Lock it; where its holder has died, a child of it has it still, and is waited for."""
    deadline: float | None = None
    tried, patience_s = False, 0.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            signed = _said(descriptor)
            stranger = _stranger(path, signed)
            holder = stranger or signed or "an unknown process"
            if stranger or not signature.has_died(signed):
                if not tried:  # it may be one who only looks, as `is_held` does
                    tried = True
                    time.sleep(_LOOK_S)
                    continue
                raise WorkspaceBusy(busy, why=f"the lock {path} is held by {holder}") from error
            left = f"what a driver that died has started ({holder})"
            if deadline is None:
                patience_s = _patience_s(holder)
                deadline = time.monotonic() + patience_s
                print(f"waiting for {left}", file=sys.stderr)
            if time.monotonic() > deadline:
                raise WorkspaceBusy(
                    busy,
                    why=f"the lock {path} is held by {left}, for {patience_s:.0f} s by now",
                    todo=f"`fuser -v {path}` names it; end it, then call again.",
                ) from error
            time.sleep(_POLL_S)
        else:
            return


def _stranger(path: Path, signed: str) -> str:
    """Return who holds a lock without being who has signed it, nor a child of that; "" for none.

    A child that was given the lock is listed with the process that has taken it, dead or not.
    """
    lockers = _lockers(path)
    if not lockers or signature.number(signed) in lockers:
        return ""
    try:
        name = Path(f"/proc/{lockers[0]}/comm").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"pid {lockers[0]}"
    return f"pid {lockers[0]} ({name.strip()})"


def _patience_s(signed: str) -> float:
    """Return how long a child of a driver that died may take, by the window that it left open."""
    from driver.window_record import RECORD_FILE  # 0.3 s, as below

    stop_s = 0.0
    with suppress(OSError, ValueError, LookupError, TypeError):
        record = Path(signed.partition(signature.WORKSPACE)[2]) / RECORD_FILE
        stop_s = float(json.loads(files.read_bytes(record))["backend"]["stop_timeout_s"])
    return CHILD_S + stop_s


def _said(descriptor: int) -> str:
    return os.pread(descriptor, 4096, 0).decode(errors="replace").strip()


def _sign(descriptor: int, folder: Path) -> None:
    with suppress(OSError):  # a full disk must not keep `recover` from its work
        text = signature.written(folder).encode()
        # Never empty, nor with an end of what was there before: a kill may come in between.
        os.pwrite(descriptor, text.ljust(os.fstat(descriptor).st_size), 0)
        os.ftruncate(descriptor, len(text))


def _sign_off(descriptor: int) -> None:
    """Note on a lock that its holder lets go of it, unless its service window is open still."""
    said = _said(descriptor)
    with suppress(WindowOpen, OSError):
        if not said.startswith(signature.ENDED) and _open_window(said) is None:
            os.pwrite(descriptor, (signature.ENDED + said).encode(), 0)


def _open_window(said: str) -> Path | None:
    """Return the workspace of a lock's last holder if its service window is open.

    The holder is dead, or has ended: a lock file keeps what was written there. `WindowOpen` where
    this user cannot look whether it is.
    """
    from driver.window_record import RECORD_FILE  # 0.3 s, which `status` has no use for

    folder = signature.workspace_in(said)
    if folder is None:
        return None
    try:
        (folder / RECORD_FILE).lstat()
    except PermissionError as error:
        raise _unseen(folder) from error
    except OSError:  # closed, or the whole workspace is gone
        return None
    return folder


def _unseen(folder: Path) -> WindowOpen:
    owner = users.owner_of(_nearest(folder))
    who = " or ".join(dict.fromkeys((owner, "root")))
    return WindowOpen(
        f"a run of {owner} in another workspace has died, and may have left the service stopped: "
        f"{folder}",
        why=f"{users.me()} cannot look there; what it has stopped would count as not running, and "
        "stay away",
        todo=f"Ask {who} to call `python -m driver recover -w {folder}`; then run again.",
    )


def _nearest(path: Path) -> Path:
    """Return a path, or the first folder above it that this user can see."""
    places = (path, *path.absolute().parents)
    return next(each for each in places if os.access(each, os.F_OK, effective_ids=True))


def _open(path: Path, *, only_to_lock: bool = False) -> int:
    """Open a lock file, which may be another user's; `FileUnusable` says whose, and what to do.

    Without O_CREAT where it exists: in a folder that all can write to, Linux refuses that for
    files of others (fs.protected_regular). `only_to_lock` takes one that cannot be written to.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            descriptor = os.open(path, flags | os.O_RDWR)
        except FileNotFoundError:
            descriptor = _make(path, flags)
        except OSError as error:
            closed = error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}
            if not only_to_lock or not closed:
                raise
            return os.open(path, flags | os.O_RDONLY)
    except PermissionError as error:
        raise _closed_to_us(path, error) from error
    if os.fstat(descriptor).st_mode & 0o777 != _EVERYBODY:  # of an older driver
        with suppress(OSError):
            os.fchmod(descriptor, _EVERYBODY)
    return descriptor


def _is_missing(path: Path) -> bool:
    """Return whether it is sure that there is no such file; this user may not see it."""
    try:
        path.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _make(path: Path, flags: int) -> int:
    """Make a lock file that everybody can open from the first moment."""
    umask = os.umask(0)
    try:
        return os.open(path, flags | os.O_RDWR | os.O_CREAT, _EVERYBODY)
    finally:
        os.umask(umask)


def _closed_to_us(path: Path, error: OSError) -> FileUnusable:
    """Say whose it is, or the folder that keeps us from it or from making it."""
    there = _nearest(path)
    owner, mode = users.owner_of(there), there.stat().st_mode & 0o7777
    todo = f"Call as {owner}, or name a workspace of your own (--workspace DIR)."
    if there == path:
        todo = f"`sudo chmod a+rw {path}`, or as {owner}; then call again."
    return FileUnusable(
        f"the lock file {path} cannot be opened",
        why=f"{error.strerror}: {there} is {owner}'s, mode {mode:04o}, and this is {users.me()}; "
        "without the lock two drivers could be at work at once",
        todo=todo,
    )
