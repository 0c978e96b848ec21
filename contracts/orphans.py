"""Children that end with the process that started them, even where that one was killed."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None).prctl


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, even by SIGKILL (prctl(2)).

    For `preexec_fn`: two system calls, resolved before the fork. An orphan would go on writing
    where the next attempt at the same stage writes.
    """
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died before it was asked
        os._exit(1)
