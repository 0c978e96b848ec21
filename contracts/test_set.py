"""The frozen test set: which items are tested in every run, whatever else comes and goes.

One JSON file below the workspace for each task and name. The split stage only ever adds to it and
publishes it by rename; the driver looks whether a finished split still agrees with it.

An item is known by its text first, and by its id where its text is new: ids change when items come
from another source, or are imported again, and a text is what a model has learned.

So that a reprint is known too when its first print is gone, what texts are compared by (their
shingles, as the split stage packs them) lies beside the JSON file: 8 bytes for each word. That file
is named after its content and is there before the JSON file names it, so a kill leaves both as they
were, or as they are to be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from contracts import files
from contracts.errors import FileUnusable

FOLDER = "test_sets"
"""Below the workspace. No cache: what is lost here cannot be had again."""
_FORMAT = 1
_SHINGLES = ".shingles"
Known = Literal["tested", "seen", ""]


@dataclass(frozen=True)
class TestSet:
    """Ids and texts of items; what is gone for now stays, so that it comes back as what it was.

    Texts are digests of the caller's choice, without blanks; "" where an item has none.
    """

    __test__ = False  # pytest takes every Test* for a class of tests

    tested: frozenset[str] = frozenset()
    """In the test split for good."""
    seen: frozenset[str] = frozenset()
    """Offered to training once, in whatever split: a model may know them, so they are never
    chosen for the test set later."""
    tested_texts: frozenset[tuple[str, str]] = frozenset()
    """(id, text) of items in the test split: several texts of an id where it was corrected, and
    none where it was not there since texts are kept."""
    seen_texts: frozenset[str] = frozenset()
    """Texts offered to training once; none of them is tested under any id."""
    shingles: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """What texts are compared by; not of those that were not there since it is kept."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a file holds, an empty set where there is none.

        Raises `FileUnusable` for a damaged file: a new set in its place would test on what earlier
        models were trained on.
        """
        try:
            held = json.loads(files.read_bytes(path))
            if held["format"] != _FORMAT:
                raise ValueError(f"its format is {held['format']!r}, not {_FORMAT}")
            return cls(
                _texts(held["tested"]),
                _texts(held["seen"]),
                _pairs(held.get("tested_texts", {})),  # files of earlier versions have ids only
                _texts(held.get("seen_texts", [])),
                _read_shingles(path, held["shingles"]) if "shingles" in held else {},
            )
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileUnusable(
                f"the frozen test set {path} cannot be read",
                why=f"{type(error).__name__}: {error}",
                todo="Restore the file, or start another set: split.test_set=NAME.",
            ) from error

    def write(self, path: Path) -> None:
        """Publish the set atomically; nothing is written where the file holds the same."""
        if self == self.read(path):
            return
        texts: dict[str, list[str]] = {}
        for key, text in sorted(self.tested_texts):
            texts.setdefault(key, []).append(text)
        held = {
            "format": _FORMAT,
            "tested": sorted(self.tested),
            "seen": sorted(self.seen),
            "tested_texts": {key: " ".join(those) for key, those in texts.items()},
            "seen_texts": sorted(self.seen_texts),
        }
        if self.shingles:
            held["shingles"] = _write_shingles(path, self.shingles)
        files.write_json(path, held)
        kept = _shingles_path(path, str(held.get("shingles", "")))
        for other in path.parent.glob(f"{path.stem}.*{_SHINGLES}"):
            if other != kept:
                other.unlink(missing_ok=True)

    def knows(self, key: str, text: str) -> Known:
        """Return what an item is: what its text is known as, else what its id is known as."""
        if text in self.seen_texts:
            return "seen"
        if text in self.texts_tested or key in self.tested:
            return "tested"
        return "seen" if key in self.seen else ""

    def with_more(
        self,
        tested: Mapping[str, str],
        seen: Mapping[str, str],
        stands_for: Iterable[tuple[str, str]] = (),
    ) -> TestSet:
        """Return the set with more items, texts by ids. What was tested once is never seen.

        `stands_for` are pairs of an id and a tested text: its item is a reprint of that one.
        """
        whole = self.tested | tested.keys()
        pairs = self.tested_texts | {(key, text) for key, text in tested.items() if text}
        pairs |= set(stands_for)
        texts = self.seen_texts | {text for text in seen.values() if text}
        return replace(
            self,
            tested=whole,
            seen=(self.seen | seen.keys()) - whole,
            tested_texts=pairs,
            seen_texts=texts - {text for _, text in pairs},
        )

    def with_shingles(self, shingles: Mapping[str, bytes]) -> TestSet:
        """Return the set with what texts are compared by, of those that it knows."""
        known = self.texts_tested | self.seen_texts
        more = {text: packed for text, packed in shingles.items() if text in known}
        return replace(self, shingles={**self.shingles, **more})

    @cached_property
    def texts_tested(self) -> frozenset[str]:
        """Texts in the test split, under whatever id."""
        return frozenset(text for _, text in self.tested_texts)


def path_of(workspace: Path, task: str, name: str) -> Path:
    """Return where the test set of that name lies."""
    return workspace / FOLDER / task / f"{name}.json"


def digest_of(workspace: Path, task: str, name: str) -> str:
    """Return the digest of a test set's file; "" where there is none, or no set is kept."""
    path = path_of(workspace, task, name)
    return files.digest_path(path) if name and path.exists() else ""


def _texts(values: Any) -> frozenset[str]:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise TypeError("ids are a list of texts")
    return frozenset(values)


def _pairs(values: Any) -> frozenset[tuple[str, str]]:
    return frozenset((key, text) for key, texts in values.items() for text in texts.split())


# --- what texts are compared by ------------------------------------------------------------------
def _shingles_path(path: Path, digest: str) -> Path:
    return path.with_name(f"{path.stem}.{digest[:16]}{_SHINGLES}")


def _write_shingles(path: Path, shingles: Mapping[str, bytes]) -> str:
    """Publish the shingles beside the JSON file; return the digest of what was written.

    The file is a line of JSON, the texts' digests with how many bytes each has, then these bytes.
    """
    order = sorted(shingles)
    head = files.canonical_json([[text, len(shingles[text])] for text in order])
    content = b"".join((head.encode(), b"\n", *(shingles[text] for text in order)))
    digest = hashlib.sha256(content).hexdigest()
    files.write_bytes(_shingles_path(path, digest), content)
    return digest


def _read_shingles(path: Path, digest: Any) -> dict[str, bytes]:
    """Return what a file of shingles holds; raises `ValueError` where it is lost or another one."""
    beside = _shingles_path(path, str(digest))
    try:
        content = files.read_bytes(beside)
    except FileNotFoundError:
        raise ValueError(f"{beside.name}, which belongs to it, is not there") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{beside.name}, which belongs to it, is damaged")
    head, _, rest = content.partition(b"\n")
    found: dict[str, bytes] = {}
    at = 0
    for text, size in json.loads(head):
        found[text] = rest[at : at + size]
        at += size
    return found
