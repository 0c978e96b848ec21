"""What labelling would ask now: rows to label anew, rows to complete, and how long that takes.

Counted by the items of the last snapshot and the answers that the workspace keeps; nobody is asked,
and nothing is changed. Rows of the same text count once, as they are asked once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from contracts import files, pace, stages
from contracts.derived_labels import (
    REVIEW,
    Ancestor,
    Asker,
    Base,
    ancestors,
    bases,
    gold_sample,
    is_outdated,
    of_label,
    row_key,
)
from contracts.label_cache import CACHE_FILE, Derived, LabelCache, is_attempt
from contracts.label_definition import LabelDefinition
from driver import preflight
from driver.plan import Action, Step
from serving.teachers import remembered_teacher
from tasks.definition import InvalidAnswer, Item, Task

if TYPE_CHECKING:
    from pathlib import Path

    from driver.session import Session


@dataclass(frozen=True)
class Rows:
    """What becomes of the rows, each of another text."""

    kept: int = 0
    """Whose label stands, or is made of answers that are there."""
    completed: int = 0
    """Whose teacher is asked for added fields alone."""
    broken: int = 0
    """To label anew, since their answers break what is asked of an answer today."""
    outdated: int = 0
    """To label anew, since their answers were given to other questions."""
    new: int = 0
    """That were never labelled."""
    quarantined: int = 0
    """Of which no more is asked."""
    reviewed: int = 0
    """Whose label a person has given whole; above only as far as the teacher is asked too."""
    refused: int = 0
    """Whose label a person has given, and which is no answer of the task any more."""

    @property
    def labelled(self) -> int:
        """Rows that the teacher is asked about as a whole."""
        return self.broken + self.outdated + self.new


@dataclass(frozen=True)
class Cost:
    """What labelling would ask now."""

    rows: Rows
    asked_for: Mapping[str, int]
    """The added fields that are asked for, each with the rows that it is asked for in."""
    seconds: float | None
    """None where no pace was measured."""
    at_most: bool
    """Whether the pace of whole answers was taken for added fields, too."""
    is_first: bool = False
    """Whether no teacher was asked yet: it is counted by items and reviews alone."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The added fields that are asked for."""
        return tuple(self.asked_for)

    def text(self) -> str:
        """Return one line for people."""
        rows = self.rows
        whole = {
            "whose answers break what is asked today": rows.broken,
            "whose answers were to other questions": rows.outdated,
            "never labelled": rows.new,
        }
        why = ", ".join(f"{count} {name}" for name, count in whole.items() if count)
        parts = [f"{rows.reviewed} reviewed rows stay as they are"] if rows.reviewed else []
        if rows.refused:
            parts.append(
                f"{rows.refused} reviewed rows are no answers of the task any more, and a snapshot "
                "of files refuses them, by file and line"
            )
        if rows.kept:
            parts.append(f"{rows.kept} rows keep their labels")
        if rows.completed:
            parts.append(f"{rows.completed} {_rows(parts)} asked for {self._named()} alone")
        if rows.labelled:
            parts.append(f"{rows.labelled} {_rows(parts)} labelled ({why})")
        if rows.quarantined:
            parts.append(f"{rows.quarantined} stay in quarantine")
        first = ["no teacher was asked yet"] if self.is_first else []
        return f"label: {'; '.join([*first, *parts, self._time()])}"

    def _named(self) -> str:
        """Return the added fields, with their rows where not all are asked for in every row."""
        if all(count == self.rows.completed for count in self.asked_for.values()):
            return ", ".join(self.fields)
        return ", ".join(f"{name} ({count})" for name, count in self.asked_for.items())

    def _time(self) -> str:
        if not self.rows.completed and not self.rows.labelled:
            return "the teacher is asked nothing"
        if self.seconds is None:
            return "how long that takes was not measured yet"
        most = "at most" if self.at_most else "about"
        return f"{most} {pace.in_words(self.seconds)} by the pace of the last labelling"


def _rows(said: Sequence[str]) -> str:
    """Return the verb of a part, with its subject where it is the first one."""
    return "are" if said else "rows are"


def of(session: Session) -> Cost | None:
    """Return what labelling would ask now.

    None where there is nothing to count by, or it is not known whose answers count: `uncounted`.
    """
    if session.store.latest(stages.SNAPSHOT.name) is None:
        return None
    if not (session.workspace / CACHE_FILE).is_file():
        return None
    with (
        LabelCache(session.workspace / CACHE_FILE) as cache,
        preflight.connected_teachers(session) as servers,
    ):
        known = cache.teachers()
        teacher = remembered_teacher(servers, known)
        if teacher is None and known:
            return None
        # Nobody's answers are there to be found, under whatever name.
        tag, digest = (teacher.tag, teacher.digest) if teacher else (servers[0].tag, "")
        asker = Asker.of(tag, digest, session.settings.label)
        items, incomplete, reviewed, refused = _items(session, cache)
        count = _Count(session, cache, asker, items)
        rows = replace(count.rows(incomplete), reviewed=reviewed, refused=refused)
        priced = _priced(rows, dict(sorted(count.fields.items())), session.workspace)
        return replace(priced, is_first=teacher is None)


def uncounted(session: Session) -> str:
    """Return why there is nothing to count by, with what labelling would begin with, in one line.

    For where `of` returns None.
    """
    last = session.store.latest(stages.SNAPSHOT.name)
    if last is None:
        return "label: not counted: there is no snapshot of the items yet (`driver stage snapshot`)"
    if (session.workspace / CACHE_FILE).is_file():
        return (
            "label: not counted: it is not known which model answers at these servers "
            "(`driver label --preview 20` asks it)"
        )
    at = {name: session.workspace / each.path for name, each in last[1].outputs.items()}
    items, reviewed = (
        sum(1 for _ in files.read_jsonl(at[each.name])) for each in (stages.ITEMS, stages.REVIEWED)
    )
    return (
        f"label: nothing was labelled yet: of the {items} items of the last snapshot {reviewed} "
        "are reviewed, and the teacher is asked about the others as a whole"
    )


def announce(session: Session, plan: Sequence[Step]) -> None:
    """Say what the label stage would ask, where a plan runs it."""
    if not any(step.stage is stages.LABEL and step.action is Action.RUN for step in plan):
        return
    if (found := of(session)) is not None:
        session.display.note(found.text())


def _items(
    session: Session, cache: LabelCache
) -> tuple[list[Item], list[tuple[Item, Base]], int, int]:
    """Return the items that the teacher is asked about: without a review, and a few with one; those
    whose review it is asked to complete, with it; how many reviews are whole; and how many are no
    answer of the task any more."""
    last = session.store.latest(stages.SNAPSHOT.name)
    if last is None:
        return [], [], 0, 0
    at = {name: session.workspace / each.path for name, each in last[1].outputs.items()}
    reviews = {str(row["id"]): row for row in files.read_jsonl(at[stages.REVIEWED.name])}
    model, params = session.task.item, session.settings.label
    read = [model.model_validate(row) for row in files.read_jsonl(at[stages.ITEMS.name])]
    items = {item.id: item for item in read}
    now = LabelDefinition.of(session.task)
    earlier = cache.noted_definitions(now.task) if params.backfill else []
    bases_of = {
        key: base
        for key, row in reviews.items()
        if key in items
        and (base := of_label(row.get("label"), now, earlier, REVIEW)) is not None
        and base.can_stand(now.fields, session.task.parse)
    }
    lacking = [(items[key], base) for key, base in bases_of.items() if base.asked]
    wanted = [item for item in read if item.id not in reviews]
    usable = {key for key, row in reviews.items() if "unusable" not in row} & items.keys()
    taken = {key: reviews[key].get("label") for key in usable - {*bases_of}}
    refused = {
        key
        for key, given in taken.items()
        if _answer_in(session.task, json.dumps(given, ensure_ascii=False)) is None
    }
    whole = {*usable, *bases_of} - {item.id for item, _ in lacking} - refused
    gold = gold_sample(whole, params.gold_sample)
    asked = [*wanted, *(items[key] for key in gold)] if wanted else []
    return asked, lacking, len(whole), len(refused)


def _answer_in(task: Task, text: str) -> BaseModel | None:
    """Return the answer that a text is, None for one that is none."""
    try:
        return task.parse(text)
    except InvalidAnswer:
        return None


class _Count:
    """Counts rows by what the cache knows of them."""

    def __init__(
        self, session: Session, cache: LabelCache, asker: Asker, items: Sequence[Item]
    ) -> None:
        self._task: Task = session.task
        self._params = session.settings.label
        self._rules = session.label_digest
        self._cache, self._asker = cache, asker
        self._items = {self._task.item_digest(item): item for item in items}
        self._now = LabelDefinition.of(self._task)
        self._schema = self._task.schema()
        prompts = [self._task.label_prompt, self._task.correction_prompt]
        self._prefix = asker.prefix(prompts, self._schema)
        self.fields = Counter[str]()
        """What is asked for alone, with in how many rows, as far as it was counted."""

    def rows(self, incomplete: Sequence[tuple[Item, Base]] = ()) -> Rows:
        """Return what becomes of each row, reviews that are to be completed included."""
        keys = {row_key(self._prefix, digest): digest for digest in self._items}
        own, derived = self._cache.attempts(list(keys)), self._cache.derived(list(keys))
        verdicts = self._cache.verdicts([*own, *derived], self._rules)
        imported = self._cache.imported(list(self._items))
        found = self._bases([digest for key, digest in keys.items() if key not in own])
        counts = dict.fromkeys(Rows.__dataclass_fields__, 0)
        for key, digest in keys.items():
            item = self._items[digest]
            texts = [each["text"] for each in own.get(key, ()) if is_attempt(each)]
            if key not in own and self._stands(item, derived.get(key), found.get(digest)):
                texts = [derived[key].text]
            said = verdicts.get(key) if texts else None
            if self._is_valid(item, texts, said) or (
                digest in imported and self._keeps(item, imported[digest].answer)
            ):
                kind = "kept"
            elif key in own:
                is_over = len(own[key]) >= self._params.max_attempts
                kind = "quarantined" if is_over else "broken"
            else:
                kind = self._of_earlier(item, found.get(digest))
                if kind == "outdated" and digest not in self._known:
                    kind = "new"
            counts[kind] += 1
        for item, base in incomplete:
            counts[self._of_earlier(item, base)] += 1
        return Rows(**counts)

    def _bases(self, digests: Sequence[str]) -> dict[str, Base]:
        if not self._params.backfill:
            return {}
        found: list[Ancestor] = ancestors(self._cache, self._asker, self._prefix, self._now)
        return bases(self._cache, found, self._now, digests)

    def _stands(self, item: Item, row: Derived | None, base: Base | None) -> bool:
        """Return whether a row that was made before would be made in the same way now."""
        if row is None:
            return False
        key = self._question(item, base) if base and base.asked else ""
        return not is_outdated(row, base, key)

    def _question(self, item: Item, base: Base) -> str:
        """Return the key of the question that completes an answer."""
        fields = {name: self._now.fields[name].meaning for name in base.asked}
        properties = {name: self._schema["properties"][name] for name in base.asked}
        only = {**self._schema, "properties": properties, "required": list(properties)}
        asked = self._task.backfill_messages(item, base.values, fields)
        return self._asker.backfill_key(asked, only)

    def _of_earlier(self, item: Item, base: Base | None) -> str:
        """Return what becomes of a row by the answer of before that it can start from."""
        if base is None:
            return "outdated"
        if not base.can_stand(self._now.fields, self._task.parse):
            return "broken"
        if not base.asked:
            text = base.merged(self._now.fields, {})
            return "kept" if self._keeps(item, text) else "broken"
        key = self._question(item, base)
        attempts = [each for each in self._cache.attempts([key]).get(key, ()) if is_attempt(each)]
        if any(self._completes(item, base, each) for each in attempts):
            return "kept"
        if len(attempts) >= self._params.max_attempts:
            return "quarantined"
        self.fields.update(base.asked)
        return "completed"

    def _completes(self, item: Item, base: Base, attempt: Mapping[str, Any]) -> bool:
        try:
            more = json.loads(attempt["text"])
        except (ValueError, RecursionError):
            return False
        known = isinstance(more, dict) and more.keys() == {*base.asked}
        return known and self._keeps(item, base.merged(self._now.fields, more))

    def _is_valid(
        self, item: Item, texts: Sequence[str], verdicts: Sequence[Mapping[str, Any]] | None
    ) -> bool:
        if verdicts is not None and len(verdicts) == len(texts):
            return any(not each.get("reasons", True) for each in verdicts)
        return any(self._keeps(item, text) for text in texts)

    def _keeps(self, item: Item, text: str) -> bool:
        """Return whether a text is a label by today's rules."""
        output = _answer_in(self._task, text)
        return output is not None and all(
            each.severity != "error" for each in self._task.check(item, output)
        )

    @cached_property
    def _known(self) -> set[str]:
        """The digests of items that were asked about under some definition."""
        found = set()
        for prefix in self._cache.definitions(self._asker.mark):
            keys = {row_key(prefix, digest): digest for digest in self._items}
            found |= {keys[key] for key in self._cache.attempts(list(keys))}
        return found


def _priced(rows: Rows, asked_for: Mapping[str, int], workspace: Path) -> Cost:
    """Return the rows with the time that they take, by the last reports that tell a pace."""
    whole = _pace(workspace, "cost", "items")
    some = _pace(workspace, "derived", "completed")
    at_most = bool(rows.completed and some is None)
    some = whole if some is None else some
    seconds = [
        None if each is None else count * each
        for count, each in ((rows.labelled, whole), (rows.completed, some))
        if count
    ]
    known = [each for each in seconds if each is not None]
    total = sum(known) if len(known) == len(seconds) else None
    return Cost(rows, asked_for, total, at_most)


def _pace(workspace: Path, part: str, counted: str) -> float | None:
    """Return seconds a row of the newest label report that tells them."""
    found = (workspace / "store" / stages.LABEL.name).glob(f"*/out/{stages.LABEL_REPORT.filename}")
    for path in sorted(found, key=lambda each: each.stat().st_mtime, reverse=True):
        try:
            told = json.loads(path.read_text(encoding="utf-8")).get(part, {})
            if told.get("elapsed_s") and told.get(counted):
                return float(told["elapsed_s"]) / int(told[counted])
        except (OSError, ValueError, TypeError, AttributeError):
            continue
    return None
