"""What a task is: everything that labelling, training, serving and checking must agree on."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import resources
from importlib.resources.abc import Traversable
from string import Template
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from tasks.chat import ChatFormat
from tasks.item import Item
from tasks.parsing import InvalidAnswer, parse_answer
from tasks.schema import UnservableSchema, servable_schema
from tasks.storage import Storage

__all__ = [
    "InvalidAnswer",
    "Item",
    "LabelRule",
    "Modelfile",
    "OnlyFor",
    "Serving",
    "Task",
    "UnservableSchema",
    "Violation",
]

_SOURCE_SUFFIXES = (".py", ".md", ".json")


@dataclass(frozen=True)
class Violation:
    """A label rule that an answer breaks. An error bars the label from training."""

    rule: str
    severity: Literal["error", "warning"]
    message: str


class LabelRule(Protocol):
    """What people and the teacher are told of a label rule, whatever finds it broken."""

    @property
    def id(self) -> str:
        """As `Violation.rule` names it."""

    @property
    def severity(self) -> Literal["error", "warning"]:
        """Whether a broken rule bars a label from training."""

    @property
    def message(self) -> str:
        """What is wrong, and what to do."""


@dataclass(frozen=True)
class Serving:
    """Sampling and memory settings of the served model, sent with every request and at create."""

    temperature: float
    num_ctx: int
    """Tokens of prompt and answer together; must hold the longest item, which Ollama would
    otherwise cut silently."""
    num_predict: int
    """Tokens of the longest answer; bounds an answer that does not end."""
    repeat_penalty: float
    """1.0 is off. Always sent, because Ollama's own default changed."""
    top_p: float = 1.0
    seed: int = 0


class Modelfile(BaseModel):
    """How Ollama serves the model. `model_dump()` gives the fields of its create call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: str
    system: str
    parser: str
    parameters: dict[str, int | float | list[str]]

    def text(self, from_: str) -> str:
        """Return the same as a Modelfile; `from_` is a model name or the path of a GGUF."""
        lines = [
            f"FROM {from_}",
            f"TEMPLATE {_quoted(self.template)}",
            f"SYSTEM {_quoted(self.system)}",
            f"PARSER {self.parser}",
        ]
        for name, value in self.parameters.items():
            for each in value if isinstance(value, list) else [value]:
                shown = f'"{each}"' if isinstance(each, str) else each
                lines.append(f"PARAMETER {name} {shown}")
        return "\n".join(lines) + "\n"


_BACKFILL = """\
The task has changed: an answer has more fields now, which this one lacks:
$fields

Give these fields only, for the same item and in keeping with the answer above: one JSON object \
with just them, and nothing before or after it."""


@dataclass(frozen=True)
class OnlyFor:
    """For which answers a field has something to say."""

    where: Mapping[str, Any]
    """Other fields of the answer, with the values (as JSON) that they have to have."""
    otherwise: Any = None
    """What the field holds in all other answers, as JSON."""


def _no_facets(_: object) -> frozenset[str]:
    return frozenset()


def _timeless(_: object) -> datetime | None:
    return None


@dataclass(frozen=True)
class Task:
    """One task. The callables are only ever given instances of its own `item` and `output`."""

    name: str
    """Also the name of its package: `tasks.<name>`."""
    version: str
    item: type[Item]
    output: type[BaseModel]
    """Its fields say by `Field(title=…, description=…)` what they mean, its validators by their
    docstrings what the answer as a whole must keep, and its enums by a property `meaning` what
    each of their values does. The module that it stands in imports the standard library and
    pydantic only, since `driver task render` hands its source to the backend."""
    system_prompt: str
    """What the model is trained and served with."""
    label_prompt: str
    """The teacher's system message."""
    correction_prompt: str
    """What the teacher is told of an answer that cannot be used; `$reasons` stands for why."""
    user_message: Callable[[Any], str]
    check: Callable[[Any, Any], list[Violation]]
    """The label rules: everything wrong with an answer that the output model cannot know."""
    stratum: Callable[[Any], str]
    """The class of an answer, for the stratified split and for reports."""
    positive: Callable[[Any], bool]
    """Whether an answer is of the kind that somebody must act on; its share is watched."""
    text_of: Callable[[Any], str]
    """The text in which duplicates of an item are looked for."""
    canary: Item
    """An item that every deployed model must answer well."""
    canary_strata: frozenset[str]
    """The strata that are right answers to the canary."""
    chat: ChatFormat
    serving: Serving
    text_fields: tuple[str, ...]
    """The fields of an item that are its text. The others, such as its date and source, may be
    written in other ways where the same item stands in another file."""
    facets: Callable[[Any], frozenset[str]] = _no_facets
    """What an answer is in several respects, such as `ak:AK3`: every split holds its share of
    each. An answer without any counts by its stratum."""
    time_of: Callable[[Any], datetime | None] = _timeless
    """When an item became known, with its time zone; None where nobody knows."""
    ordinal: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Fields whose values are steps of a scale, with all of them in order."""
    calibrated: Mapping[str, str] = field(default_factory=dict)
    """Fields that state a probability, and the flag that it is the probability of."""
    matters: tuple[str, ...] = ()
    """The measures by which a new model is held against the one in service
    (images/labeler/measures.py has the names)."""
    rules: Sequence[LabelRule] = ()
    """What `check` looks at, for people."""
    storage: Storage | None = None
    """Where a backend keeps an answer; None where none does."""
    backfill_prompt: str = _BACKFILL
    """What the teacher is told of an answer that was given before fields were added; `$fields`
    stands for them, one a line."""
    only_for: Mapping[str, OnlyFor] = field(default_factory=dict)
    """Fields that have something to say in some answers only: in others nobody is asked for them
    when they are added."""

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the answer in the words that Ollama's `format` honours.

        Raises `UnservableSchema` where the output model says something it cannot honour.
        """
        return servable_schema(self.output)

    def parse(self, text: str) -> BaseModel:
        """Return the answer in `text`, which must be one JSON object and nothing else.

        Never repairs and never fills in: a fence, a comment, a missing or unknown field, a value
        of another type and a repeated key all raise `InvalidAnswer`.
        """
        return parse_answer(self.output, text)

    def answer_text(self, output: BaseModel) -> str:
        """Return the one JSON text of an answer, as trained: one line, the model's field order."""
        text = json.dumps(output.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
        return self.chat.normalise(text)

    def messages(self, item: Item) -> list[dict[str, str]]:
        """Return what the served model is asked."""
        return self._ask(self.system_prompt, item)

    def label_messages(self, item: Item) -> list[dict[str, str]]:
        """Return what the teacher is asked."""
        return self._ask(self.label_prompt, item)

    def correction_messages(
        self, item: Item, answer: str, reasons: Sequence[str]
    ) -> list[dict[str, str]]:
        """Return what the teacher is asked after an answer that cannot be used."""
        return self.corrected(self.label_messages(item), answer, reasons)

    def corrected(
        self, asked: Sequence[Mapping[str, str]], answer: str, reasons: Sequence[str]
    ) -> list[dict[str, str]]:
        """Return a question with the answer to it that cannot be used, and why."""
        listed = "\n".join(f"- {reason}" for reason in reasons)
        said = Template(self.correction_prompt).substitute(reasons=listed)
        return [
            *map(dict, asked),
            {"role": "assistant", "content": answer},
            {"role": "user", "content": self.chat.normalise(said)},
        ]

    def backfill_messages(
        self, item: Item, answer: Mapping[str, Any], fields: Mapping[str, str]
    ) -> list[dict[str, str]]:
        """Return what the teacher is asked of an answer that lacks `fields`, given with their
        meanings."""
        listed = "\n".join(f"- {name}: {meaning}" for name, meaning in fields.items())
        said = Template(self.backfill_prompt).substitute(fields=listed)
        text = self.chat.normalise(json.dumps(dict(answer), ensure_ascii=False))
        return [
            *self.label_messages(item),
            {"role": "assistant", "content": text},
            {"role": "user", "content": self.chat.normalise(said)},
        ]

    def training_messages(self, item: Item, output: BaseModel) -> list[dict[str, str]]:
        """Return `messages` and the answer that the model is to learn."""
        answer = {"role": "assistant", "content": self.answer_text(output)}
        return [*self.messages(item), answer]

    def render_prompt(self, messages: list[dict[str, str]]) -> str:
        """Return the prompt as the model reads it, up to the first token of its answer."""
        return self.chat.render_prompt(messages)

    def render_training(self, item: Item, output: BaseModel) -> tuple[str, str]:
        """Return (prompt, completion); the loss belongs on the completion only."""
        return self.chat.render_training(self.training_messages(item, output))

    def modelfile(self) -> Modelfile:
        """Return how Ollama must serve a model trained on this task."""
        return Modelfile(
            template=self.chat.ollama_template,
            system=self.system_prompt,
            parser=self.chat.ollama_parser,
            parameters={**asdict(self.serving), "stop": list(self.chat.stop)},
        )

    def digest(self) -> str:
        """Return the sha256 over all that defines the task, the sources of its package included."""
        return _sha256(
            {
                "values": [self.name, self.version, self.system_prompt, *self._label_prompts],
                "schema": self.schema(),
                "modelfile": self.modelfile().model_dump(),
                "chat": asdict(self.chat),
                "canary": self.canary.model_dump(mode="json"),
                "sources": self._sources(),
            }
        )

    def label_digest(self) -> str:
        """Return the sha256 over what influences labels only.

        That is the teacher's prompts, the schema and the modules of the task's package, except
        `__init__`, which only puts them together.
        """
        wiring = f"{self.name}/__init__.py"
        sources = {
            path: digest
            for path, digest in self._sources().items()
            if path.startswith(f"{self.name}/") and path.endswith(".py") and path != wiring
        }
        return _sha256(
            {
                "prompts": self._label_prompts,
                "schema": self.schema(),
                "sources": sources,
                "only_for": {name: asdict(each) for name, each in self.only_for.items()},
            }
        )

    def item_digest(self, item: Item) -> str:
        """Return the sha256 over what a model is shown of an item: equal for equal texts."""
        return hashlib.sha256(self.chat.normalise(self.user_message(item)).encode()).hexdigest()

    @property
    def _label_prompts(self) -> list[str]:
        return [self.label_prompt, self.correction_prompt, self.backfill_prompt]

    def _ask(self, system: str, item: Item) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": self.chat.normalise(system)},
            {"role": "user", "content": self.chat.normalise(self.user_message(item))},
        ]

    def _sources(self) -> dict[str, str]:
        """Return the digest of each source file, of the shared modules and of the package."""
        shared = [f for f in resources.files("tasks").iterdir() if f.name.endswith(".py")]
        own = walk(resources.files(f"tasks.{self.name}"), f"{self.name}/")
        files = dict([*((f.name, f) for f in shared), *own])
        return {
            path: hashlib.sha256(files[path].read_bytes()).hexdigest() for path in sorted(files)
        }


def walk(folder: Traversable, prefix: str) -> Iterable[tuple[str, Traversable]]:
    """Yield the source files below a folder, each with its path after `prefix`."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_SOURCE_SUFFIXES):
            yield f"{prefix}{entry.name}", entry


def _sha256(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _quoted(text: str) -> str:
    if '"""' in text:
        raise ValueError('a Modelfile cannot hold a text with """ in it')
    return f'"""{text}"""'
