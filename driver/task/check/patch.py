"""The edits of a check as one unified diff, which `git apply` takes in the checkout."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterable
from pathlib import Path

from driver.task.check.finding import Edit

_NO_NEWLINE = b"\\ No newline at end of file\n"


def of(root: Path, edits: Iterable[Edit]) -> tuple[bytes, frozenset[str]]:
    """Return the diff of all edits, by file, and the files whose edits are left out of it.

    Those are of Python that could not be parsed with its edits. Each edit counts once. One that
    overlaps another is left out, too: the next check names it again.
    """
    by_path: dict[str, list[Edit]] = {}
    for edit in dict.fromkeys(edits):
        by_path.setdefault(edit.path, []).append(edit)
    made, left_out = list[bytes](), set[str]()
    for path in sorted(by_path):
        before = (root / path).read_bytes()
        patched = applied(before, by_path[path])
        if path.endswith(".py") and not _is_python(patched):
            left_out.add(path)
        else:
            made.append(_diff(path, before, patched))
    return b"".join(made), frozenset(left_out)


def applied(content: bytes, edits: Iterable[Edit]) -> bytes:
    """Return a file's content with the edits made; several insertions at one place keep order."""
    made, end = list[bytes](), 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if edit.start < end:
            continue
        made += [content[end : edit.start], edit.text.encode()]
        end = edit.end
    return b"".join([*made, content[end:]])


def _diff(path: str, before: bytes, patched: bytes) -> bytes:
    marker = "\t" if " " in path else ""  # as git ends a name with blanks in it
    lines = difflib.diff_bytes(
        difflib.unified_diff,
        _lines(before),
        _lines(patched),
        f"a/{path}{marker}".encode(),
        f"b/{path}{marker}".encode(),
        lineterm=b"\n",
    )
    return b"".join(line if line.endswith(b"\n") else line + b"\n" + _NO_NEWLINE for line in lines)


def _is_python(content: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in others' texts
            ast.parse(content)
    except (SyntaxError, ValueError):
        return False
    return True


def _lines(content: bytes) -> list[bytes]:
    """Return the lines with their ends: only a line feed ends one, as for git."""
    parts = content.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
