"""`driver task new NAME`: a task of one's own, small and whole, with a sample to train on.

It is put together from driver/task/template/, with rules as the shipped tasks have them. Both
folders are written beside their places and renamed, the sample first: a task that is there is
whole, and after a kill the same call ends what it began.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from contracts import files
from contracts.errors import SettingsInvalid
from driver.task import given
from driver.task.given import Given, camel
from driver.task.render import python
from driver.task.render.python import literal

_TEMPLATES = Path(__file__).parent / "template"
_TEXTS = files.ROOT / "examples" / "support-sample" / "items.jsonl"
"""Whose texts the new sample takes."""
_TEXTS_AS = {"title": "subject", "text": "body"}
_ROWS = 120
_LONGEST = {"text": 600, "list": 60}
_MOST_ENTRIES = 8
_CHARACTERS_PER_TOKEN = 2.5  # of an answer at its longest; English has more


def begin(name: str, fields: Sequence[str], language: str) -> int:
    """Write the task and its sample, and say what comes next; the command's exit code."""
    task = given.task_name(name)
    if found := importlib.util.find_spec(f"tasks.{task}"):
        folders = found.submodule_search_locations  # None for a module
        raise _taken(task, Path(folders[0] if folders else str(found.origin)))
    parts = _Parts(task, given.fields(fields), given.language(language))
    sample = files.ROOT / "examples" / f"{task}-sample"
    package = files.ROOT / "tasks" / task
    _publish(parts.sample(), sample, task)
    _publish(parts.package(), package, task)
    for folder, what in ((package, "the task"), (sample, "its sample")):
        print(f"{folder.relative_to(files.ROOT)}: {what}")
    print(f"Now: make demo TASK={task}. What to write next: docs/how-to/own-task.md")
    return 0


class _Parts:
    """The texts of a new task."""

    def __init__(self, name: str, fields: tuple[Given, ...], language: str) -> None:
        self._fields = fields
        self._item, self._answer = f"{camel(name)}Item", f"{camel(name)}Answer"
        self._name = name
        self._values = {
            "name": name,
            "alias": name.replace("_", "-"),
            "title": name.replace("_", " ").capitalize(),
            "language": language.replace("$", "$$"),  # the prompts are templates in turn
            "Item": self._item,
            "Answer": self._answer,
        }

    def package(self) -> dict[str, str]:
        """Return the files of the task's package by path."""
        texts = [each.name for each in self._fields if each.kind in _LONGEST]
        listed = python.tuple_of(texts, "    ")
        canary = {"id": "canary", **_item(next(iter(_rows())))}
        return {
            "canary.json": json.dumps(canary, ensure_ascii=False, indent=2) + "\n",
            "item.py": self._filled("item.py"),
            "output.py": self._output(),
            "rules.py": _imports_sorted(self._filled("rules.py", texts=listed)),
            "prompts/system.md": self._filled("system.md"),
            "prompts/label.md": self._filled("label.md"),
            "prompts/correction.md": self._filled("correction.md"),
            "__init__.py": self._wiring(),
        }

    def sample(self) -> dict[str, str]:
        """Return the files of the sample by path."""
        rows = list(_rows())[1 : _ROWS + 1]  # the first one is the canary
        titles = sorted({row["subject"] for row in rows})
        texts = [each for each in self._fields if each.kind == "text"]
        items, labels = [], []
        for number, row in enumerate(rows, start=1):
            item = {"id": f"{self._name}-{number:03}", **_item(row)}
            turn = titles.index(row["subject"])
            label = {x.name: _value(x, row, turn, x in texts[1:]) for x in self._fields}
            items.append(item)
            labels.append({"id": item["id"], "label": label})
        return {
            "items.jsonl": _lines(items),
            "labels.jsonl": _lines(labels),
            "demo.yaml": self._filled("demo.yaml"),
            "README.md": self._filled("README.md", rows=str(len(rows))),
        }

    def _filled(self, template: str, **more: str) -> str:
        text = (_TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
        return Template(text).substitute({**self._values, **more})

    def _wiring(self) -> str:
        first = next((each for each in self._fields if each.kind == "choice"), None)
        flag = next((each for each in self._fields if each.kind == "flag"), None)
        if first:
            none = f' if answer.{first.name} else "none"' if first.nullable else ""
            stratum = f"answer.{first.name}.value{none}"
            strata = [*first.values, *(["none"] if first.nullable else [])]
        elif flag:
            stratum, strata = f'"yes" if answer.{flag.name} else "no"', ["yes", "no"]
        else:
            stratum, strata = '"all"', ["all"]
        positive = f"answer.{flag.name}" if flag else "True"
        if first and not flag:
            member = given.members(first.values)[first.values[0]]
            positive = f"answer.{first.name} is {first.class_name}.{member}"
        measured = {"choice": ".macro_f1", "flag": ".f1"}
        matters = [f"{x.name}{measured[x.kind]}" for x in self._fields if x.kind in measured]
        classes = [first.class_name] if first and not flag else []
        text = self._filled(
            "__init__.py",
            classes="".join(f", {each}" for each in classes),
            exported=", ".join(f'"{each}"' for each in sorted([self._item, self._answer])),
            stratum=stratum,
            positive=positive,
            strata=", ".join(map(literal, strata)),
            matters=python.tuple_of([*matters, "rules"], "    "),
            num_predict=str(self._longest_answer()),
        )
        if not first and not flag:
            text = text.replace("def stratum(answer:", "def stratum(_:")
            text = text.replace("positive=lambda answer:", "positive=lambda _:")
        return _imports_sorted(text)

    def _longest_answer(self) -> int:
        """Return the tokens that the longest answer may take."""
        most = {"text": _LONGEST["text"], "list": (_LONGEST["list"] + 4) * _MOST_ENTRIES}
        characters = sum(len(x.name) + 6 + most.get(x.kind, 50) for x in self._fields)
        return min(4096, max(256, int(characters / _CHARACTERS_PER_TOKEN)))

    def _output(self) -> str:
        kinds = {each.kind for each in self._fields}
        wanted = {"pydantic": ["BaseModel", "ConfigDict", "Field"]}
        wanted |= {"datetime": ["date"]} if "date" in kinds else {}
        wanted |= {"enum": ["StrEnum"]} if "choice" in kinds else {}
        if "list" in kinds:
            wanted["typing"] = ["Annotated"]
            wanted["pydantic"].append("StringConstraints")
        enums = [_enum(each) for each in self._fields if each.kind == "choice"]
        return self._filled(
            "output.py",
            imports=python.imports(wanted),
            enums="".join(f"{each}\n\n\n" for each in enums),
            fields="\n".join(map(_declared, self._fields)),
        )


def _enum(field: Given) -> str:
    named = given.members(field.values).items()
    members = "\n".join(f"    {name} = {literal(value)}" for value, name in named)
    return f'class {field.class_name}(StrEnum):\n    """{field.title}."""\n\n{members}'


def _declared(field: Given) -> str:
    """Return the line of a field; one without a meaning says what there is to write."""
    kind, bounds = {
        "text": ("str", f"min_length=1, max_length={_LONGEST['text']}"),
        "flag": ("bool", ""),
        "score": ("float", "ge=0, le=1"),
        "count": ("int", "ge=0, le=1_000_000"),
        "date": ("date", ""),
        "choice": (field.class_name, ""),
        "list": (
            f"list[Annotated[str, StringConstraints(min_length=1, max_length={_LONGEST['list']})]]",
            f"max_length={_MOST_ENTRIES}",
        ),
    }[field.kind]
    null = " | None" if field.nullable else ""
    said = bounds.split(", ") if bounds else []
    said += [f"title={literal(field.title)}", f"description={literal(_meaning(field))}"]
    inside = "".join(f"        {each},\n" for each in said)
    return f"    {field.name}: {kind}{null} = Field(\n{inside}    )"


def _meaning(field: Given) -> str:
    """Return what the teacher is told of a field, with its values and whether it may be null."""
    meaning = field.meaning or f"{field.title} of the item."
    if field.values:
        link = ": " if field.meaning else ". One of "
        meaning = f"{meaning.rstrip('.')}{link}{', '.join(field.values)}."
    if field.nullable and not re.search(r"\bnull\b", meaning):
        meaning = f"{meaning.rstrip('.')}; null if there is none."
    return meaning


def _value(field: Given, row: Mapping[str, Any], turn: int, is_further: bool) -> Any:
    """Return a label's value: of the right form, and the same for texts under the same title.

    A further text is one of its own: of a sentence that an answer has twice, a model as small as
    the demo's does not know which field comes next.
    """
    if field.nullable and turn % 4 == 0:
        return None
    text = f"{field.title}: {row['subject']}" if is_further else _first_sentence(row["body"])
    return {
        "text": text,
        "flag": turn % 2 == 0,
        "score": turn % 11 / 10,
        "count": turn,
        "date": row["received_at"][:10],
        "list": [row["subject"]],
        "choice": field.values[turn % len(field.values)] if field.values else None,
    }[field.kind]


def _rows() -> Iterator[dict[str, Any]]:
    """Yield messages of the support sample, each text once."""
    seen: set[str] = set()
    for row in files.read_jsonl(_TEXTS):
        if row["body"] not in seen and not row["subject"].startswith("Fwd: "):
            seen.add(row["body"])
            yield row


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[theirs] for name, theirs in _TEXTS_AS.items()}


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _imports_sorted(text: str) -> str:
    """Return a module with its imports from `tasks` in the order of their names."""
    lines = text.splitlines(keepends=True)
    places = [n for n, line in enumerate(lines) if line.startswith("from tasks.")]
    for place, line in zip(places, sorted(lines[n] for n in places), strict=True):
        lines[place] = line
    return "".join(lines)


# --- writing -------------------------------------------------------------------------------------
def _publish(texts: Mapping[str, str], folder: Path, task: str) -> None:
    """Write a folder whole or not at all; one that a killed call has left just so is kept."""
    if folder.exists() or folder.is_symlink():
        if _holds(folder, texts):
            return
        raise _taken(task, folder)
    for left in folder.parent.glob(f".{folder.name}.*{files.UNFINISHED}"):
        shutil.rmtree(left)
    building = Path(
        tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=files.UNFINISHED)
    )
    try:
        for path, text in texts.items():
            (building / path).parent.mkdir(exist_ok=True)
            files.write_text(building / path, text)
        building.chmod(0o755)
        files.fsync_path(building)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    files.fsync_path(folder.parent)


def _holds(folder: Path, texts: Mapping[str, str]) -> bool:
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return found.keys() == texts.keys() and all(
        found[path].read_bytes() == text.encode() for path, text in texts.items()
    )


def _taken(task: str, folder: Path) -> SettingsInvalid:
    return SettingsInvalid(
        f"the name {task} is taken",
        why=f"{folder} is there, and is not written over",
        todo="Take another name, or move that away.",
    )
