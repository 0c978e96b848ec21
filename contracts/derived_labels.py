"""Answers of earlier definitions that can stand under today's, and what they lack.

What was asked stays as it was asked. A row that is made of it is kept beside, with what it was made
from (`LabelCache.derived`), and is itself an answer that a later definition can start from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.files import canonical_json, digest_text
from contracts.label_cache import Derived, LabelCache, is_attempt
from contracts.label_definition import Edit, LabelDefinition, compare, to_ask
from contracts.params import LabelParams

FORMAT = "attempts 2"
"""Changes with the fields of an attempt that a cached answer cannot be read without."""


@dataclass(frozen=True)
class Asker:
    """Who is asked, and how, whatever the question is."""

    tag: str
    digest: str
    sampling: Mapping[str, Any]

    @classmethod
    def of(cls, tag: str, digest: str, params: LabelParams) -> Asker:
        """Return how a teacher is asked under the label stage's params."""
        sampling = {
            "num_predict": params.num_predict,
            "temperature": params.temperature,
            "repeat_penalty": 1.0,
        }
        return cls(tag, digest, sampling)

    @property
    def mark(self) -> str:
        """What answers of the same teacher, asked in the same way, have in common."""
        return digest_text(canonical_json([FORMAT, self.tag, self.digest, dict(self.sampling)]))

    def prefix(self, prompts: Sequence[str], schema: Mapping[str, Any]) -> str:
        """Return what the keys of all answers under a definition begin with, before hashing."""
        asked = [FORMAT, self.tag, self.digest, dict(self.sampling), list(prompts), dict(schema)]
        return digest_text(canonical_json(asked))

    def backfill_key(self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any]) -> str:
        """Return the key of the answers to a question for some fields only: all of the request."""
        asked = ["backfill", self.mark, [dict(each) for each in messages], dict(schema)]
        return digest_text(canonical_json(asked))


def gold_sample(reviewed: Iterable[str], count: int) -> list[str]:
    """Return the ids of reviewed items that the teacher is asked about too: by a hash, so the same
    ones every time."""
    return sorted(reviewed, key=lambda key: hashlib.sha256(key.encode()).digest())[:count]


REVIEW = "review"
"""Where an answer is from that a person has given; it is never asked about as a whole."""
IMPORT = "import"
"""Where one is from that came out of another tool."""
_WHOLE = "answer"
"""What `Task.parse` calls the answer as a whole, where it says what is wrong."""


def row_key(prefix: str, item_digest: str) -> str:
    """Return the key of an item's answers: all that its first request depends on."""
    return digest_text(prefix + item_digest)


@dataclass(frozen=True)
class Base:
    """A valid answer of an earlier definition, and what it lacks."""

    source: str
    """Its key in the cache, or `REVIEW`, or `IMPORT`."""
    attempt: int
    """Which of the answers there it is; -1 for a row that was derived itself."""
    values: Mapping[str, Any]
    """Its fields that are still there, and those that the rest decides, as JSON."""
    asked: tuple[str, ...]
    """The fields that only the teacher can tell."""
    given: tuple[str, ...] = ()
    """Those that the rest decides (`OnlyFor.otherwise`)."""
    words: Mapping[str, str] = field(default_factory=dict)
    """By field that was, or is to be, asked for alone: a digest of what the question says of it."""

    @classmethod
    def of(
        cls,
        definition: LabelDefinition,
        source: str,
        attempt: int,
        values: Mapping[str, Any],
        words: Mapping[str, str],
    ) -> Base:
        """Return what an answer lacks today, also what was asked for alone in other `words`."""
        then = {name: said for name, said in words.items() if name in definition.fields}
        fresh = {name for name, said in then.items() if said == _words(definition, name)}
        kept = {
            name: values[name]
            for name in definition.fields
            if name in values and (name not in then or name in fresh)
        }
        asked, given = to_ask(definition, kept)
        now = {name: _words(definition, name) for name in (*fresh, *asked)}
        return cls(source, attempt, {**kept, **given}, asked, tuple(given), now)

    @property
    def decided(self) -> str:
        """Return a digest of what the rest decides; "" where it decides nothing."""
        found = {name: self.values[name] for name in self.given}
        return digest_text(canonical_json(found)) if found else ""

    def origin(self, backfill: str = "") -> dict[str, Any]:
        """Return what a row made of it says of itself; `backfill` is the key of the rest."""
        found: dict[str, Any] = {"from": self.source, "attempt": self.attempt}
        found |= {"given": self.decided} if self.given else {}
        found |= {"words": dict(sorted(self.words.items()))} if self.words else {}
        return {**found, "fields": list(self.asked), "backfill": backfill} if backfill else found

    def merged(self, order: Iterable[str], more: Mapping[str, Any]) -> str:
        """Return the whole answer as JSON, with its fields in order."""
        values = {**self.values, **more}
        return json.dumps({n: values[n] for n in order if n in values}, ensure_ascii=False)

    def can_stand(self, order: Iterable[str], parse: Callable[[str], object]) -> bool:
        """Return whether nothing is wrong with its own fields, as far as its form tells.

        What is wrong with the answer as a whole may come of what it lacks, and is seen again once
        it is complete. `parse` raises a ValueError that begins with the field that is wrong, or
        with `answer`, and so on behind each semicolon, as `Task.parse` does.
        """
        order = tuple(order)
        try:
            parse(self.merged(order, dict.fromkeys(self.asked)))
        except ValueError as error:
            heads = {each.partition(":")[0].split(".")[0] for each in str(error).split("; ")}
            named = heads & {*order, _WHOLE}  # a validator's words may have semicolons, too
            lacking = {*self.asked, *({_WHOLE} - {*order})} if self.asked else set[str]()
            return bool(named) and named <= lacking
        return True


def _words(definition: LabelDefinition, name: str) -> str:
    return digest_text(definition.fields[name].meaning)


@dataclass(frozen=True)
class Ancestor:
    """A definition that answers were given under before, and what has changed since."""

    prefix: str
    definition: LabelDefinition
    edit: Edit


def ancestors(
    cache: LabelCache, asker: Asker, prefix: str, definition: LabelDefinition
) -> list[Ancestor]:
    """Return the definitions whose answers can stand under today's: those that lack least first,
    of these the latest."""
    found = []
    for other, then in reversed(cache.definitions(asker.mark).items()):
        edit = compare(then, definition)
        stands = not edit.relabels or (edit.reworded and not edit.changed)
        if other != prefix and then.task == definition.task and stands:
            found.append(Ancestor(other, then, edit))
    return sorted(found, key=lambda each: len(each.edit.added))


def bases(
    cache: LabelCache,
    found: Sequence[Ancestor],
    definition: LabelDefinition,
    item_digests: Sequence[str],
) -> dict[str, Base]:
    """Return for each item that has one the answer to start from, by the item's digest."""
    by_item: dict[str, Base] = {}
    for each in found:
        keys = {row_key(each.prefix, item): item for item in item_digests if item not in by_item}
        for key, number, text, words in _valid(cache, list(keys)):
            if not words.keys() >= {*each.edit.reworded}:
                continue  # they were asked for with the rest, in other words
            if each.edit.correction and number > 0:
                continue  # it was asked for in words that nobody would use now
            values = _fields(text, each.definition)
            if values is None:
                continue
            by_item[keys[key]] = Base.of(definition, key, number, values, words)
    noted = cache.noted_definitions(definition.task)
    for item, row in cache.imported([each for each in item_digests if each not in by_item]).items():
        base = of_label(_object(row.answer), definition, noted, IMPORT)
        if base is not None:
            by_item[item] = base
    return by_item


def _valid(
    cache: LabelCache, keys: Sequence[str]
) -> Iterator[tuple[str, int, str, dict[str, str]]]:
    """Yield key, number, text and `Base.words` of the answer that is valid under each key, if one
    is.

    By what the rules said last. Without their word it is the last one: after it nothing more was
    asked. The whole row is judged again in any case.
    """
    verdicts, own = cache.last_verdicts(keys), cache.attempts(keys)
    for key, attempts in own.items():
        if not attempts or not all(map(is_attempt, attempts)):
            continue
        number = _accepted(attempts, verdicts.get(key))
        if number is not None and attempts[number]["finished"]:
            yield key, number, attempts[number]["text"], {}
    for key, row in cache.derived([key for key in keys if key not in own]).items():
        yield key, -1, row.text, json.loads(row.origin).get("words", {})


def _accepted(
    attempts: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]] | None
) -> int | None:
    if verdicts is None or len(verdicts) != len(attempts):
        return len(attempts) - 1
    try:
        return next((n for n, each in enumerate(verdicts) if not each["reasons"]), None)
    except (KeyError, TypeError):
        return len(attempts) - 1


def _fields(text: str, definition: LabelDefinition) -> dict[str, Any] | None:
    """Return an answer's fields; None for a text that is none of this definition."""
    found = _object(text)
    return found if found and found.keys() == definition.fields.keys() else None


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_outdated(row: Derived, base: Base | None, backfill: str) -> bool:
    """Return whether a row that was made before would be made in another way now.

    That is seen where it was made of the same answer, `base`; `backfill` is the key of the question
    that completes it now, "" where nothing has to be asked.
    """
    origin = json.loads(row.origin)
    if base is None or (base.source, base.attempt) != (origin.get("from"), origin.get("attempt")):
        return False
    return bool(origin != base.origin(backfill))


def of_label(
    label: object, definition: LabelDefinition, earlier: Iterable[LabelDefinition], source: str
) -> Base | None:
    """Return a label that has the fields of an earlier definition, and what it lacks.

    None for any other: a label that lacks what it never could is a mistake of whoever wrote it.
    What prompts say is no matter here.
    """
    if not isinstance(label, dict) or label.keys() == definition.fields.keys():
        return None
    if all(each.fields.keys() != label.keys() for each in earlier):
        return None
    return Base.of(definition, source, -1, label, {})
