"""Files that survive a kill and a power cut: atomic publish, digests, JSON lines.

Everything that is published goes through a temporary name in the same folder, an fsync and a
rename, so a reader sees either the old content or the whole new one (rename(2) is atomic within
one file system). After a power cut only that is sure which was flushed: a file's content by an
fsync of the file, its name by one of its folder (fsync(2)).
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from contracts.errors import ItemsInvalid

PRIVATE = 0o600
"""The mode of a file that may hold secrets: settings, or addresses with a password in them."""
UNFINISHED = ".unfinished"
"""How the name of a file ends that is not published yet."""
ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds contracts/: the checkout on a bare machine, /app in a container."""


class NoFile(OSError):
    """A pipe, a socket or a device lies where a file has to: its reader may wait for ever."""


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces. What digests are taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class KnownDigest:
    """The SHA-256 of a file as it was at one moment, told by its size and time of change."""

    digest: str
    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, digest: str) -> KnownDigest:
        """Bind a digest to the file as it is now."""
        found = path.stat()
        return cls(digest, found.st_size, found.st_mtime_ns)

    def holds(self, path: Path) -> bool:
        """Return whether the file is still the one that was digested."""
        return path.is_file() and self == self.of(path, self.digest)


def digest_path(path: Path, known: Mapping[Path, KnownDigest] | None = None) -> str:
    """Return the SHA-256 of a file, or of a folder's sorted relative names and file digests.

    A file whose digest is `known`, and that has not changed since, is not read.
    """
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        listing = [(p.relative_to(path).as_posix(), digest_path(p, known)) for p in files]
        return digest_text(canonical_json(listing))
    if known and path in known and known[path].holds(path):
        return known[path].digest
    with open_to_read(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Return the size in bytes of a file, or of all files below a folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def code_digest(*names: str, root: Path = ROOT) -> str:
    """Return a digest of the source files below the named files or folders of the checkout.

    The same names give the same digest in the checkout and in an image that copied them, which
    is how a stale image is found out.
    """
    listing: list[tuple[str, str]] = []
    for name in sorted(names):
        top = root / name
        files = sorted(p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]
        listing += [
            (p.relative_to(root).as_posix(), digest_path(p))
            for p in files
            if "__pycache__" not in p.parts and p.suffix != ".pyc"
        ]
    return digest_text(canonical_json(listing))


def fsync_path(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably: what lies in one is lost with its name.

    Root's belong to whom the folder above them belongs to.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    leave_to_owner(path)
    fsync_path(path.parent)


def leave_to_owner(path: Path) -> None:
    """Give what root has made to whom the folder belongs to in which it lies.

    Else one run under sudo would lock the workspace's owner out.
    """
    if os.geteuid() != 0 or path.lstat().st_uid != 0:
        return
    folder = path.parent.stat()
    with suppress(OSError):  # as in `write_bytes`
        # Not what a link names: in a folder of others it may have taken the path's place by now.
        os.lchown(path, folder.st_uid, folder.st_gid)


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Publish a text under `path` atomically and durably; by default everybody may read it."""
    write_bytes(path, text.encode(), mode)


def write_bytes(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Publish bytes under `path` atomically and durably; by default everybody may read them.

    It has its mode before it has its name. One that only its owner may read belongs to whom the
    folder belongs to: root's would keep the workspace's owner from recovering.
    """
    make_folder(path.parent)
    try:
        _publish(path, content, mode)
    except OSError as error:
        error.filename = str(path)  # write(2) and fsync(2) name none, mkstemp its own
        raise


def _publish(path: Path, content: bytes, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED
    )
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)  # mkstemp's 0600 would lock other users out
            if mode == PRIVATE and os.geteuid() == 0:
                folder = path.parent.stat()
                with suppress(OSError):  # a file system without owners, or NFS that takes root's
                    os.fchown(stream.fileno(), folder.st_uid, folder.st_gid)
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def remove(path: Path) -> None:
    """Remove a file durably, if it is there: it does not come back after a power cut."""
    path.unlink(missing_ok=True)
    fsync_path(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what kills have left below a folder that nobody else writes to: half-written files."""
    for path in folder.rglob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Publish a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n", mode)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Publish rows as JSON lines, atomically; return how many there were."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text(path, "".join(lines))
    return len(lines)


def open_to_read(path: Path) -> BufferedReader:
    """Open a file of the driver's own; raises `NoFile` for what is none, and waits for nobody."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder raises an error of its own
        why = "it is a pipe, a socket or a device, and no file: move it away"
        raise NoFile(errno.EINVAL, why, str(path))
    return path.open("rb")


def read_bytes(path: Path) -> bytes:
    """Return what a file of the driver's own holds; raises as `open_to_read` does."""
    with open_to_read(path) as stream:
        return stream.read()


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON lines file. Blank lines and a byte order mark in front are no rows.

    Raises `ItemsInvalid` naming file and line for a line that is no JSON object, not UTF-8, or
    gives a key twice: a skipped line would be a lost item, and a guess at it a wrong one.
    """
    with open_to_read(path) as stream:
        for _, row in _placed_rows(stream, path):
            yield row


def read_placed_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a file that somebody has named, each with its place in words.

    That may be a pipe (`<(…)`). Raises `ItemsInvalid` as `read_jsonl` does, and for a file that
    cannot be read.
    """
    try:
        with path.open("rb") as stream:
            yield from _placed_rows(stream, path)
    except OSError as error:
        raise ItemsInvalid(f"{path} cannot be read", why=str(error)) from error


def _placed_rows(stream: BufferedReader, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(stream, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if text.strip():
            where = f"{path}, line {number}"
            yield where, _row(text, where)


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode(), object_pairs_hook=_each_key_once)
        if b"\\ud" in line.lower():  # half of a pair stands for no character
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise ItemsInvalid(f"{where} is not UTF-8", why=str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ItemsInvalid(f"{where} is not JSON", why=str(error)) from error
    if not isinstance(row, dict):
        raise ItemsInvalid(f"{where} is not a JSON object", why=f"it holds a {type(row).__name__}")
    return row


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} comes twice")
    return found
