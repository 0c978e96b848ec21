"""Which failure the operating system's error stands for, and the path that a write's may lack."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from contracts.errors import DiskFull, FileUnusable, RetrainError, StageFailed

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""A disk is full, or what a user may have of it."""
READ_ONLY = (
    "Make the file system writable: `findmnt -T PATH` shows its mount, `journalctl -k` whether the "
    "kernel has closed it after an error. Or move the workspace (workspace=PATH)."
)
_NO_SPACE = 2**20
"""Bytes free below which a write has failed for want of space; what it wrote is still there."""


def from_os_error(error: OSError, named: Path | None = None) -> RetrainError:
    """Return the failure that a file operation's error stands for.

    `named` is a file or folder that the user has told to write, which need not be the workspace's.
    """
    where, why = error.filename or "", error.strerror or str(error)
    if error.errno in _FULL:
        told = f"{where}: {why}" if where else why
        elsewhere = named is not None and where and Path(where).is_relative_to(named)
        todo = "Free space there, or name a path on another disk." if elsewhere else ""
        return DiskFull("the disk is full", why=told, todo=todo)
    if error.errno is None:  # the errors of requests, and so of the Docker SDK, are OSErrors too
        return StageFailed(f"{type(error).__name__}: {error}", todo="See the message above.")
    if error.errno == errno.EROFS:
        return FileUnusable(f"{where or 'a file'} cannot be written", why=why, todo=READ_ONLY)
    return FileUnusable(f"{where} cannot be used", why=why) if where else FileUnusable(why)


def in_a_line(error: OSError) -> str:
    """Return what and why of the failure that an error stands for."""
    failure = from_os_error(error)
    return f"{failure.what} ({failure.why})" if failure.why else failure.what


def name_disk(error: OSError, path: Path) -> None:
    """Let the error of a write tell the path: write(2) and fsync(2) name none.

    Only of a disk that takes nothing any more; another error may be of something else.
    """
    if error.errno in (*_FULL, errno.EROFS):
        error.filename = error.filename or str(path)


def from_full_disk(error: Exception, folder: Path) -> DiskFull | None:
    """Return the failure if an error is one of a disk that is full, else None.

    What is not written in Python has no OSError for it: safetensors and tokenizers name the
    kernel's error in their text, torch.save and llama.cpp's programs may name none, but have left
    `folder`'s disk without space. An OSError is `from_os_error`'s.
    """
    if isinstance(error, OSError | MemoryError | DiskFull):
        return None
    texts = {os.strerror(number) for number in _FULL}
    cause: BaseException | None = error
    while cause is not None:
        if any(text in str(cause) for text in texts):
            return DiskFull("the disk is full", why=_last_line(cause))
        cause = cause.__cause__ or cause.__context__
    has_a_name = isinstance(error, RetrainError) and not isinstance(error, StageFailed)
    if has_a_name or shutil.disk_usage(folder).free >= _NO_SPACE:
        return None
    return DiskFull("the disk is full", why=_last_line(error))


def _last_line(error: BaseException) -> str:
    text = error.what if isinstance(error, StageFailed) else str(error).strip()
    return text.splitlines()[-1] if text else type(error).__name__
