"""What is written down about the served model, read from its files; a damaged one is kept aside.

A damaged record must not keep a good model from coming back, and must not be forgotten either. So
whoever has to act at once moves it to `NAME.damaged-1` beside it and goes by the rest, and no run
begins until a person has looked at that file and removed it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from contracts import files
from contracts.errors import FileUnusable
from contracts.stage import Frozen

R = TypeVar("R", bound=Frozen)
PROMOTION, VERIFICATION = "promotion.json", "verification.json"
REJECTED, SERVED = "rejected.json", "served.json"
"""Below the workspace; each has a module of its own."""
_ALL = (PROMOTION, VERIFICATION, REJECTED, SERVED)


def read(path: Path, kind: type[R]) -> R | None:
    """Return a record, None where there is none; raises `FileUnusable` if it is damaged."""
    try:
        return kind.model_validate_json(files.read_bytes(path))
    except FileNotFoundError:
        return None
    except (ValidationError, IsADirectoryError, files.NoFile) as error:
        wrong = error.error_count() if isinstance(error, ValidationError) else 0
        why = f"{wrong} errors" if wrong else "it is a folder, a pipe, a socket or a device"
        raise FileUnusable(
            f"{path} is damaged",
            why=why,
            todo="`python -m driver recover` sees to it that no bad model stays live, and keeps it "
            "aside; `driver models` shows which one is live.",
        ) from error


def is_damaged(path: Path, kind: type[Frozen]) -> bool:
    """Return whether there is a record that cannot be read."""
    try:
        read(path, kind)
    except FileUnusable:
        return True
    return False


def set_aside(path: Path, kind: type[Frozen], say: Callable[[str], None]) -> None:
    """Keep a record aside if it is damaged, and remove it from its place; `say` is told."""
    if not is_damaged(path, kind):
        return
    aside = keep(path)
    remove(path)
    say(f"{path} is damaged; it is kept as {aside.name}")


def keep(path: Path) -> Path:
    """Return the copy of a damaged record that `require_whole` finds; made if there is none."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        if _is_copy(aside, path):
            return aside
        number += 1
    if path.is_dir():
        copying = aside.with_name(f"{aside.name}.copying")
        shutil.rmtree(copying, ignore_errors=True)  # of a kill: part of what is copied now
        shutil.copytree(path, copying, symlinks=True, ignore=_holding_nothing)
        copying.rename(aside)
    else:
        files.write_bytes(aside, _content(path))
    return aside


def _holding_nothing(folder: str, names: list[str]) -> list[str]:
    """Return what is neither file, folder nor link: a pipe or a socket, which cannot be copied."""
    each = {name: Path(folder, name) for name in names}
    return [n for n, p in each.items() if not (p.is_file() or p.is_dir() or p.is_symlink())]


def _is_copy(aside: Path, path: Path) -> bool:
    if aside.is_dir() or path.is_dir():
        same = aside.is_dir() == path.is_dir()
        return same and files.digest_path(aside) == files.digest_path(path)
    return _content(aside) == _content(path)


def _content(path: Path) -> bytes:
    """Return what is kept of a record that is no folder: of a pipe, nothing."""
    return path.read_bytes() if path.is_file() else b""


def remove(path: Path) -> None:
    """Remove a damaged record, which may be a folder: Docker makes one where a file to mount is
    missing.
    """
    if path.is_dir():
        shutil.rmtree(path)
    files.remove(path)


def require_whole(workspace: Path) -> None:
    """Raise `FileUnusable` while a damaged record is there that no person has dealt with."""
    found = [str(path) for name in _ALL for path in sorted(workspace.glob(f"{name}.damaged-*"))]
    if found:
        raise FileUnusable(
            f"a record of the served model was damaged: {', '.join(found)}",
            why="which models are good is not certain before somebody has looked",
            todo="See by `driver models` what is live and what was taken back, put right what is "
            "not (`driver rollback VERSION`), then remove the file.",
        )
