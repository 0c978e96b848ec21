"""What every rendered file is made from, and the line in it that says so."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from driver.task.load import load_named
from driver.task.shape import Field, Kind, Shape, TaskUnrenderable, fields_of, named
from tasks import Column, Storage, Task

MADE_BY = "Made by `driver task render` from tasks/"
"""How the line begins by which a file is known as a rendered one."""
_TAKEN = frozenset({"metadata", "registry"})
"""Attributes that a declarative model of SQLAlchemy's has already."""


@dataclass(frozen=True)
class Source:
    """A task, read once for all that is rendered from it."""

    task: Task
    after: str = ""
    """The Alembic revision that the migration comes after; "" for a first one."""

    @classmethod
    def of(cls, name: str, after: str = "") -> Source:
        """Read the task of that name.

        Raises `SettingsInvalid` where there is none, `TaskInvalid` where it cannot be read.
        """
        return cls(load_named(name), after)

    @cached_property
    def mark(self) -> str:
        """The line that says what a file was made from."""
        task = self.task
        return (
            f"{MADE_BY}{task.name}, version {task.version}, digest {task.digest()[:16]}: "
            "make changes there."
        )

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields of the answer, in its order."""
        return fields_of(self.task.output)

    @property
    def answer(self) -> str:
        """The name of the answer's class."""
        return self.task.output.__name__

    @property
    def about(self) -> str:
        """What the answer's class says of itself."""
        return (self.task.output.__doc__ or "").strip()

    @cached_property
    def choices(self) -> dict[str, Shape]:
        """The enums by the name of their class."""
        return named(self.fields, Kind.CHOICE)

    @cached_property
    def objects(self) -> dict[str, Shape]:
        """The objects inside of an answer by the name of their class, the inner ones first."""
        return dict(reversed(named(self.fields, Kind.OBJECT).items()))

    @cached_property
    def as_a_whole(self) -> tuple[str, ...]:
        """What an answer as a whole must keep: the docstrings of the model's validators."""
        decorators = self.task.output.__pydantic_decorators__
        found = {name: each.func for name, each in decorators.field_validators.items()}
        found |= {name: each.func for name, each in decorators.model_validators.items()}
        return tuple(" ".join((each.__doc__ or name).split()) for name, each in found.items())

    @cached_property
    def storage(self) -> Storage:
        """Where a backend keeps an answer; without a word of the task, in one JSON value.

        Raises `TaskUnrenderable` for a column that SQLAlchemy has no place for.
        """
        storage = self.task.storage or Storage(table="items")
        for name in _TAKEN & storage.columns.keys():
            raise TaskUnrenderable(
                f"tasks/{self.task.name}/__init__.py: storage, the column {name} does not fit",
                why="SQLAlchemy keeps this name for itself",
                todo="Take it out of columns, which leaves the field to the JSON value, or rename "
                "the field.",
            )
        return storage

    @cached_property
    def columns(self) -> tuple[tuple[Field, Column], ...]:
        """The fields with a column of their own, in the answer's order."""
        kept = self.storage.columns
        return tuple((each, kept[each.name]) for each in self.fields if each.name in kept)

    @cached_property
    def analysed(self) -> tuple[str, ...]:
        """The other fields, which go into the JSON value."""
        return self.storage.analysed(each.name for each in self.fields)
