"""A MODEL of a power cut: of a folder's files, which states a disk may be found in afterwards.

What fsync(2) promises, and nothing else: a file has the content of its last fsync, or more of what
was written since, or zeros in its place; a name in a folder is the one of the folder's last fsync,
or any that it had since, each name for itself. Real file systems keep more order than that;
tests/faults/test_power_loss.py has a real one.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

Check = Callable[[Path], None]
"""Takes a folder as it may be found after the power cut; raises for one that must not be."""

_CHANGES = ("fsync", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "open")
_RANDOM_STATES = 6
"""At each moment, besides the oldest and the newest."""


class Disk:
    """What is on the disk of one folder for sure, and what may be.

    An inode is known by an open descriptor, so that its number is not given to another file.
    """

    def __init__(self, root: Path) -> None:
        self._open: dict[int, int] = {}
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._since: dict[int, dict[str, list[int | None]]] = defaultdict(dict)
        """Of each folder since its last fsync: what each name stood for, one after the other."""
        self._root = self._know(root)
        for path in (root, *root.rglob("*")):  # what is there before is there for good
            self.flushed(self._open[self._know(path)])

    def close(self) -> None:
        """Let go of every file."""
        for descriptor in self._open.values():
            os.close(descriptor)

    def flushed(self, descriptor: int) -> None:
        """Note an fsync."""
        found = os.fstat(descriptor)
        number = found.st_ino
        if stat.S_ISDIR(found.st_mode):
            self._names[number] = self._listed(number) if number in self._open else {}
            self._since[number].clear()
        elif number in self._open:
            self._content[number] = self._written(number)

    def look(self) -> None:
        """Note what every known folder holds now."""
        pending = list(self._open)
        while pending:
            number = pending.pop()
            if not self._is_folder(number):
                continue
            known = set(self._open)
            now, since = self._listed(number), self._since[number]
            before = self._names.get(number, {})
            for name in now.keys() | before.keys() | since.keys():
                was = since.setdefault(name, [before.get(name)])
                if was[-1] != now.get(name):
                    was.append(now.get(name))
            pending += self._open.keys() - known

    def write(self, place: Path, choose: Callable[[list[Any]], Any]) -> None:
        """Write one of the possible states to `place`; `choose` picks from the oldest first."""
        self._write_folder(self._root, place, choose)

    def _write_folder(self, number: int, place: Path, choose: Callable[[list[Any]], Any]) -> None:
        place.mkdir()
        known = self._names.get(number, {})
        for name in sorted(known.keys() | self._since[number].keys()):
            stood_for = self._since[number].get(name, [known.get(name)])
            child = choose(stood_for)
            if child is None:
                continue
            if self._is_folder(child):
                self._write_folder(child, place / name, choose)
            else:
                (place / name).write_bytes(choose(self._contents(child)))

    def _contents(self, number: int) -> list[bytes]:
        sure, now = self._content.get(number, b""), self._written(number)
        return [sure] if sure == now else [sure, now[: len(now) // 2], bytes(len(now)), now]

    def _written(self, number: int) -> bytes:
        descriptor = self._open[number]
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)

    def _listed(self, number: int) -> dict[str, int]:
        folder = Path(f"/proc/self/fd/{self._open[number]}")
        return {path.name: self._know(path) for path in folder.iterdir()}

    def _is_folder(self, number: int) -> bool:
        return stat.S_ISDIR(os.fstat(self._open[number]).st_mode)

    def _know(self, path: Path) -> int:
        descriptor = _OPEN(path, os.O_RDONLY)
        number = os.fstat(descriptor).st_ino
        if number in self._open:
            os.close(descriptor)
        self._open.setdefault(number, descriptor)
        return number


_OPEN = os.open


@contextmanager
def cut_everywhere(root: Path, scratch: Path, seed: int, check: Check) -> Iterator[None]:
    """Cut the power before each call that changes `root`, and at the end; check what may be found.

    The states are written to folders below `scratch`; the seed chooses them.
    """
    chance = random.Random(seed)  # noqa: S311  # repeatable, no secret
    disk, states = Disk(root), 0

    def find() -> None:
        nonlocal states
        disk.look()
        choices: list[Callable[[list[Any]], Any]] = [lambda of: of[0], lambda of: of[-1]]
        choices += [chance.choice] * _RANDOM_STATES
        for choose in choices:
            states += 1
            disk.write(place := scratch / f"state-{states}", choose)
            check(place)
            shutil.rmtree(place)

    def changing(name: str) -> Callable[..., Any]:
        really = getattr(os, name)

        def change(*arguments: Any, **named: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT:
                return really(*arguments, **named)
            with patched(active=False):
                find()
            if name != "fsync":
                return really(*arguments, **named)
            # In the model alone: a real one takes its time, and proves nothing here.
            return disk.flushed(arguments[0])

        return change

    real = {name: getattr(os, name) for name in _CHANGES}
    watched = {name: changing(name) for name in _CHANGES}

    @contextmanager
    def patched(*, active: bool) -> Iterator[None]:
        with mock.patch.multiple(os, **(watched if active else real)):
            yield

    try:
        with patched(active=True):
            yield
        find()
    finally:
        disk.close()
