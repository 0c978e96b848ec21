"""Being another user of the host than the one that runs the tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def another_user() -> Iterator[None]:
    """Be nobody, as far as root can; who is not root is closed out by a file's mode alone."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def close(path: Path, mode: int) -> None:
    """Give a file a mode of 0600 or 0644, as `another_user` sees it."""
    path.chmod(mode if os.geteuid() == 0 else {0o644: 0o444, 0o600: 0o000}[mode])


@contextmanager
def public_folder() -> Iterator[Path]:
    """Make a folder as /tmp is: pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)
