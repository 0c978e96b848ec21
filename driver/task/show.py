"""`driver task show`: the task at a glance, and what of it has changed since the last run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from driver.report.display import LastingConsole
from driver.settings import Settings
from driver.store import Run, Store
from driver.task import noted, trial
from driver.task.shape import Field
from driver.task.source import Source
from driver.task.tokens import ruler


@dataclass(frozen=True)
class Prompt:
    """A prompt's length."""

    name: str
    characters: int
    tokens: int


@dataclass(frozen=True)
class Digest:
    """A part of the definition, now and at the last run."""

    name: str
    now: str
    then: str
    """"" where the last run has not noted it."""

    @property
    def changed(self) -> bool | None:
        """Whether it is another than at the last run; None where that is not known."""
        return self.now != self.then if self.then else None


@dataclass(frozen=True)
class Glance:
    """All that is shown."""

    source: Source
    prompts: tuple[Prompt, ...]
    counted: str
    """How the tokens were counted."""
    digests: tuple[Digest, ...]
    last_run: str
    """"" where there is none."""


def show(settings: Settings, *, as_json: bool) -> int:
    """Print tables on a terminal, plain lines elsewhere, or one JSON object; change nothing."""
    found = _glance(settings)
    console = LastingConsole(highlight=False, soft_wrap=True)
    if as_json:
        _say(console, json.dumps(_as_object(found), ensure_ascii=False, indent=2))
        return 0
    task = found.source.task
    console.print(f"[bold]{escape(task.name)}[/bold], version {escape(task.version)}")
    console.print(escape(found.source.about))
    for title, heads, rows in _tables(found):
        if console.is_terminal:
            console.print(_table(title, heads, rows), soft_wrap=False)
        else:
            _say(console, _lines(title, heads, rows))
    if doubt := trial.doubts(task):
        console.say(f"warning: {doubt}")
    return 0


def _say(console: LastingConsole, text: str) -> None:
    """Write a text as it is: rich would turn its tabs into blanks."""
    try:
        console.file.write(f"{text}\n")
    except OSError:
        console.on_broken_pipe()


def _glance(settings: Settings) -> Glance:
    source, workspace = Source.of(settings.task), settings.workspace
    measure = ruler(workspace, settings.fetch)
    prompts = tuple(
        Prompt(name, len(text), measure.count(source.task.chat.normalise(text)))
        for name, text in noted.texts(source.task).items()
    )
    last = Run.last(workspace)
    then = noted.digests_of(last, Store(workspace), source.task.name) if last else {}
    digests = tuple(
        Digest(name, now, then.get(name, "")) for name, now in noted.digests(source.task).items()
    )
    return Glance(source, prompts, measure.by, digests, last.id if last else "")


_Shown = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def _tables(found: Glance) -> Iterable[_Shown]:
    source = found.source
    yield (
        "fields",
        ("field", "values", "kept in", "meaning"),
        [(f.name, f.shape.limits(), _kept(source, f), f.meaning) for f in source.fields],
    )
    for name, shape in source.choices.items():
        yield name, ("value", "meaning"), [(each.value, each.meaning) for each in shape.choices]
    if whole := [(each,) for each in source.as_a_whole]:
        yield "as a whole", ("before any rule is looked at",), whole
    yield (
        f"prompts (tokens {found.counted})",
        ("prompt", "characters", "tokens"),
        [(each.name, str(each.characters), str(each.tokens)) for each in found.prompts],
    )
    rules = [(rule.id, rule.severity, rule.message) for rule in source.task.rules]
    yield "label rules", ("id", "severity", "what is wrong"), rules
    since = f"since run {found.last_run}" if found.last_run else "there is no run yet"
    yield (
        f"digests ({since})",
        ("of", "now", "at the last run"),
        [(each.name, each.now[:16], _then(each, found.last_run)) for each in found.digests],
    )


def _kept(source: Source, field: Field) -> str:
    if source.task.storage is None:
        return "-"
    if field.name in source.storage.columns:
        length = source.storage.columns[field.name].length
        return f"column, {length} characters" if length is not None else "column"
    return ".".join(source.storage.analysis)


def _then(digest: Digest, last_run: str) -> str:
    if digest.changed is None:
        return "not noted" if last_run else "-"
    return f"{digest.then[:16]}, changed since" if digest.changed else "the same"


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for at, head in enumerate(heads):
        table.add_column(head, no_wrap=at == 0 and len(heads) > 1)
    for row in rows:
        table.add_row(*(escape(each) for each in row))
    return table


def _lines(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = ["\t".join(" ".join(each.split()) for each in row) for row in (heads, *rows)]
    return "\n".join([f"\n# {title}", *cells])


def _as_object(found: Glance) -> dict[str, Any]:
    source = found.source
    return {
        "task": source.task.name,
        "version": source.task.version,
        "about": source.about,
        "fields": [
            {
                "name": field.name,
                "title": field.title,
                "type": field.shape.kind.value,
                "nullable": field.shape.nullable,
                "values": field.shape.limits(),
                "kept_in": _kept(source, field),
                "meaning": field.meaning,
            }
            for field in source.fields
        ],
        "values": {
            name: {choice.value: choice.meaning for choice in shape.choices}
            for name, shape in source.choices.items()
        },
        "as_a_whole": list(source.as_a_whole),
        "prompts": {
            each.name: {"characters": each.characters, "tokens": each.tokens}
            for each in found.prompts
        },
        "tokens_counted": found.counted,
        "rules": [
            {"id": rule.id, "severity": rule.severity, "message": rule.message}
            for rule in source.task.rules
        ],
        "last_run": found.last_run or None,
        "digests": {
            each.name: {"now": each.now, "last_run": each.then or None, "changed": each.changed}
            for each in found.digests
        },
    }
