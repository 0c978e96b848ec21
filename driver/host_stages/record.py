"""What a reprocess keeps on the disk: the items as they were, and what became of each.

One folder for each model whose answers the items get, `workspace/reprocess/RUN`, named by the run
that began it:

- `before.jsonl`: what a new analysis can change, of every item, from before the first was asked
  about. A second reprocess with the same model adds what is new, and leaves the rest as it was.
- `about.json`: which model and backend it is about; written when before.jsonl is whole.
- `outcomes.jsonl`: a line before each request, and one for what became of it; at last that it is
  finished, and behind that why all of it is due again, if it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts import files
from contracts.errors import FileUnusable, InputMissing, ItemsInvalid, without_userinfo
from driver.adapters.addresses import is_same_address
from driver.host_stages import outcomes
from driver.host_stages.reanalysis import Outcome, Row, is_as_left
from tasks import Storage

_FLAG = "is_manually_reviewed"
_ABOUT, _BEFORE = "about.json", "before.jsonl"
_LOST = (
    "Put back a copy of it. Or move {} away: what the items hold by now then counts as what they "
    "had before."
)


class Left(BaseModel):
    """What a verification has left an item with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    answer: str
    """Its digest."""
    at: float
    """When, in seconds since the epoch."""


class About(BaseModel):
    """What a record is about: about.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer driver may have noted more

    runs: tuple[str, ...] = Field(min_length=1)
    """The runs that have worked on it; the first one gave the folder its name."""
    model: str
    """Digest of the deployed GGUF."""
    backend: str
    """The backend's URL, without a password."""
    items: int
    """How many items are to be reprocessed."""
    kept: int = 0
    """How many items' states before.jsonl holds, at least; 0 where an older driver did not note."""
    canaries: tuple[str, ...] = ()
    """The items that a verification has asked about, which outcomes.jsonl does not say."""
    left: Mapping[str, Left] = {}
    """What that has left them with, by item; of one that was killed, or by an older driver, not."""
    finished: bool = False
    """Whether all was done when that was last noted: an outcomes.jsonl that does not say so by now
    has lost it. False of an older driver, and once a repetition begins."""
    restored_at: str = ""
    """When it was begun to give the items back what they had; nobody goes on with such a record."""


class Record:
    """The record in one folder; nothing is read or written before it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def every(cls, workspace: Path) -> list[Record]:
        """Return the records of a workspace, the newest first."""
        found = (workspace / "reprocess").glob(f"*/{_ABOUT}")
        return [cls(path.parent) for path in sorted(found, reverse=True)]

    @classmethod
    def by_last_run(cls, workspace: Path) -> list[Record]:
        """Return the records, first the one that a run has worked on last, if only to verify.

        One that an earlier run has made may have been gone on with behind a later one.
        """
        return sorted(cls.every(workspace), key=cls._last_run, reverse=True)

    def _last_run(self) -> str:
        """Return the run that has worked on it last; of a damaged one that which has made it."""
        try:
            return max(self.about().runs)
        except FileUnusable:
            return self.folder.name

    @classmethod
    def find(cls, workspace: Path, run: str = "") -> Record:
        """Return the record that a run has worked on, without a name the newest that is begun.

        Raises `InputMissing` where there is none.
        """
        known = cls.every(workspace)
        for record in known:
            if run in record.about().runs if run else record.begun:
                return record
        raise InputMissing(
            f"no reprocess {'of run ' + run if run else 'yet'} is recorded in {workspace}",
            why=f"recorded are: {', '.join(r.folder.name for r in known) or 'none'}",
            todo="Check the workspace (-w) and the run's name.",
        )

    @classmethod
    def of_model(cls, workspace: Path, run: str, model: str, backend: str) -> Record:
        """Return the newest record if it is about this model, else a new one for this run.

        Only the newest that is begun: between an older one and now the items had another model's
        answers. One that is not is what a verification has kept.
        """
        for record in cls.every(workspace):
            about = record.about()
            known = about.model == model and is_same_address(about.backend, backend)
            if known and not about.restored_at:
                return record
            if record.begun:
                break
        folder, number = workspace / "reprocess" / run, 1
        while (folder / _ABOUT).exists():
            number += 1
            folder = folder.with_name(f"{run}-{number}")
        return cls(folder)

    @classmethod
    def leaving(
        cls, workspace: Path, model: str, backend: str, items: Mapping[str, Row], storage: Storage
    ) -> tuple[Record, int] | None:
        """Return the newest record at another address that has left some of the items, or of their
        states, as they are, and how many: their backend may be that one. None where there is none.
        """
        for record in cls.every(workspace):
            with suppress(FileUnusable):  # it is in nobody's way
                about = record.about()
                if about.model != model or is_same_address(about.backend, backend):
                    continue
                given = record.answers()
                left = sum(is_as_left(item, storage, given.get(i)) for i, item in items.items())
                if left:
                    return record, left
        return None

    def move(self, backend: str) -> None:
        """Note that its backend has another address now."""
        self._note(self.about().model_copy(update={"backend": without_userinfo(backend)}))

    @property
    def begun(self) -> bool:
        """Whether a reprocess has begun on it; a verification only keeps what its items held."""
        return (self.folder / outcomes.FILE).exists()

    def about(self) -> About:
        """Return what it is about; raises `FileUnusable` for a damaged note."""
        path = self.folder / _ABOUT
        try:
            return About.model_validate_json(files.read_bytes(path))
        except (ValidationError, IsADirectoryError, files.NoFile) as error:
            wrong = error.errors(include_url=False) if isinstance(error, ValidationError) else ()
            why = str(wrong[0]["msg"]) if wrong else "it is a folder, a pipe, a socket or a device"
            raise FileUnusable(
                f"{path} is damaged",
                why=why,
                todo=f"Move {self.folder} away: the items' former answers are in {_BEFORE} there.",
            ) from error

    def before(self) -> dict[str, Row]:
        """Return the items' states from before, by id; empty for a record that is new.

        Raises `FileUnusable` for a line that is no state, and where states are missing: what the
        items hold now would take their place.
        """
        path = self.folder / _BEFORE
        if not (self.folder / _ABOUT).exists():
            return {}
        found, kept = _states(path), self.about().kept
        if len(found) < kept:
            raise FileUnusable(
                f"{path} is damaged",
                why=f"it holds the former answers of {len(found)} items, and held those of {kept}",
                todo=_LOST.format(self.folder),
            )
        return found

    def begin(
        self,
        run: str,
        model: str,
        backend: str,
        now: Mapping[str, Row],
        items: int,
        canaries: Iterable[str] = (),
    ) -> None:
        """Publish the items' states `now`, by id, where none was kept before.

        `items` is how many there are to reprocess, with those that have no state to keep;
        `canaries` are those that a verification is about to ask about, which says nothing about
        how many there are in a reprocess that has begun.

        A state that is kept stays, unless a person has reviewed the item since: that is worth more
        than the answer of an older model.
        """
        begun = (self.folder / _ABOUT).exists()
        known = self.before()
        kept = {**now, **{i: s for i, s in known.items() if not _reviewed_since(s, now.get(i))}}
        if kept != known or not begun:
            files.write_jsonl(self.folder / _BEFORE, kept.values())
        old = self.about() if begun else None
        asked = tuple(canaries)
        about = About(
            runs=tuple(dict.fromkeys([*(old.runs if old else ()), run])),
            model=model,
            backend=without_userinfo(backend),
            items=old.items if old and asked and self.begun else items,
            kept=len(kept),
            canaries=tuple(dict.fromkeys([*(old.canaries if old else ()), *asked])),
            left={i: each for i, each in old.left.items() if i not in asked} if old else {},
            finished=old.finished if old and asked else False,
        )
        self._note(about)

    def add(self, now: Mapping[str, Row]) -> None:
        """Publish the states of further items, by id; what is kept already stays."""
        kept = {**now, **self.before()}
        files.write_jsonl(self.folder / _BEFORE, kept.values())
        self._note(self.about().model_copy(update={"kept": len(kept)}))

    def leave(self, item_id: str, answer: str) -> None:
        """Note the digest of what a verification has left an item with, "" where it is unknown."""
        if not answer:
            return
        about = self.about()
        left = {**about.left, item_id: Left(answer=answer, at=round(time.time(), 3))}
        self._note(about.model_copy(update={"left": left}))

    def finished(self) -> None:
        """Note that outcomes.jsonl says that all is done."""
        self._note(self.about().model_copy(update={"finished": True}))

    def restored(self) -> None:
        """Note that the items are given back what they had before."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._note(self.about().model_copy(update={"restored_at": at}))

    def _note(self, about: About) -> None:
        files.write_json(self.folder / _ABOUT, about.model_dump(mode="json"), files.PRIVATE)

    def lines(self) -> list[Row]:
        """Return the whole lines of outcomes.jsonl; changes nothing.

        Raises `FileUnusable` for a line that is none, and where what came to its end does not say
        so any more: that is no interrupted one, whose last line a kill may have cut.
        """
        path = self.folder / outcomes.FILE
        lines = list(outcomes.whole_lines(path))
        if any("finished" in line for line in lines):
            return lines
        if (self.folder / _ABOUT).exists() and self.about().finished:
            raise FileUnusable(
                f"{path} is damaged",
                why=f"that all was done stood at its end; whole are {len(lines)} lines of it",
                todo=_LOST.format(self.folder),
            )
        return lines

    def finish(self) -> Row | None:
        """Return the line that says that every item has its outcome; None where one may not."""
        lines = self.lines()
        return lines[-1] if lines and "finished" in lines[-1] else None

    def due(self) -> str:
        """Return why a finished one has to be done again, as far as that was noted; else ""."""
        lines = self.lines()
        return str(lines[-1]["due"]) if lines and "due" in lines[-1] else ""

    def note_due(self, why: str) -> None:
        """Note why a finished one has to be done again: nobody may see it any more by then."""
        if self.finish():
            list(outcomes.whole_lines(self.folder / outcomes.FILE, mend=True))
            outcomes.append(
                self.folder / outcomes.FILE, [{"due": why, "at": round(time.time(), 3)}]
            )

    def answers(self) -> dict[str, str]:
        """Return the digest of what each item was given, "" where it may have been given something.

        An item that was not asked about, or turned out to be left out, is not in it. Of what only a
        verification has kept, all was asked about, also where an older driver did not note it. What
        was done to an item last counts.
        """
        about = self.about()
        found = dict.fromkeys(about.canaries if self.begun else self.before(), "")
        when: dict[str, float] = {}
        for line in [*outcomes.whole_lines(self.folder / outcomes.PREVIOUS), *self.lines()]:
            if "id" in line:
                when[line["id"]] = line.get("at", line.get("until", 0))
            if "until" in line or line.get("answer"):
                found[line["id"]] = line.get("answer", "")
            elif line.get("outcome") in {Outcome.LEFT_OUT, Outcome.NOT_THERE}:
                found.pop(line["id"], None)
        since = {i: each.answer for i, each in about.left.items() if each.at >= when.get(i, 0)}
        return found | since


def _reviewed_since(state: Row, now: Row | None) -> bool:
    return bool(now and now[_FLAG] and not state[_FLAG])


def _states(path: Path) -> dict[str, Row]:
    """Return the states of a before.jsonl by id; raises `FileUnusable` naming the first that is
    none."""
    found: dict[str, Row] = {}
    todo = _LOST.format(path.parent)
    try:
        for number, row in enumerate(files.read_jsonl(path), 1):
            if not isinstance(row.get("id"), str) or not isinstance(row.get(_FLAG), bool):
                raise FileUnusable(
                    f"{path}, line {number} is damaged",
                    why=f"it has no id, or no {_FLAG}",
                    todo=todo,
                )
            found[row["id"]] = row
    except ItemsInvalid as error:
        raise FileUnusable(error.what, why=error.why, todo=todo) from error
    return found
