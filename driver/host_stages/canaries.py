"""A few real items of the backend, analysed by the new model before all others are.

They show what no question to the engine alone can: which model the backend asks, that it can read
the answers, and that it keeps every field of them.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Self

from contracts import files
from contracts.entrypoint import StageContext
from contracts.errors import EngineUnavailable, RetrainError, VerifyUnanswered
from contracts.params import VerifyParams
from contracts.stages import GGUF, ITEMS, LABELS
from driver.adapters.backend import Backend, ItemUnavailable, ModelNotAsked
from driver.adapters.items import analysed, storage_of
from driver.host_stages import answers, reanalysis
from driver.host_stages.reanalysis import Outcome, Row
from driver.host_stages.record import Record
from driver.host_stages.telling import say
from serving.engine import Answer, AnswerCutOff, Engine
from tasks import InvalidAnswer, Storage, Task, load_task
from tasks.definition import Item

_ATTEMPTS = 2
"""At one item without a valid answer: no good model is taken back for a hiccup of the engine."""
_LOOK_S = 0.2


@dataclass(frozen=True)
class Canary:
    """What the new model's answer to one item was worth."""

    id: str
    failure: str = ""
    """Why no valid answer is stored, "" where one is."""
    broken: tuple[str, ...] = ()
    """The label rules of severity error that the answer breaks."""
    unanswered: bool = False
    """Whether no answer of the model was seen, which need not be its fault."""
    lost: bool = False
    """Whether the engine gives a valid answer where the backend has stored none: not its fault."""
    positive: bool = False
    """Whether it is an answer with long texts, that can break label rules."""
    answer: str = ""
    """Digest of what the item holds by it (`answer_digest`); "" where nothing is known to be."""


class Unasked(StrEnum):
    """Why an item of the snapshot shows nothing of the model."""

    REVIEWED = "reviewed"
    ANOTHER = "another article by its title"
    MISSING = "not found"
    HIDDEN = "not shown (status 500)"
    LOST = "not found, or reviewed, once asked about"


def ask(
    context: StageContext[VerifyParams], engine: Engine, backend: Backend, alias: str, kept: Path
) -> list[Canary]:
    """Have `context.params.items` items analysed anew, and judge what the backend then holds.

    `kept` gets the fields of each item from before, in front of its first analysis; what it holds
    already stays, as it is from before a kill. It ends early where more items than allowed have got
    no answer: none of the rest would get one. Raises `ModelNotAsked` where another model than
    `alias` has answered, `BackendUnavailable` where the backend does not answer at all, and
    `VerifyUnanswered` where it shows not one item. None is asked where all are reviewed, or the
    snapshot is of another backend.
    """
    task, wanted = load_task(context.job.task), context.params.items
    storage = storage_of(task)
    expected = engine.models()[alias].digest
    before = {row["id"]: row for row in kept_items(kept, say)}
    seen: list[Canary] = []
    unasked = Counter[Unasked]()
    shown = engine.name != "ollama"  # llama.cpp serves in this process, where no backend asks it
    rows = candidates(task, context.input(ITEMS), context.input(LABELS))
    for row, item in _usable(backend, storage, rows, unasked, wanted):
        named: Row = {name: row[name] for name in ("id", "title") if name in row}
        before.setdefault(row["id"], named | {"fields": item})
        files.write_jsonl(kept, before.values())
        record = _keep(context, backend, row, item)
        if not shown:
            engine.unload(alias)  # a runner shows the name and digest that it was first asked by
        with Witness(engine) as witness:
            found = _analysed(backend, task, row, context.params.timeout_s)
        if found is None:
            unasked[Unasked.LOST] += 1
            continue
        record.leave(row["id"], found.answer)
        shown = shown or expected in witness.tags
        # Without an answer and a model at work, the engine may have failed to load it.
        if not shown and (witness.tags or not found.failure):
            raise _another_model(engine, witness, alias, expected, backend)
        if found.failure:
            found = _asked_directly(context, engine, task, row, alias, found)
        seen.append(found)
        context.progress(1 + len(seen), 1 + wanted, "answers")
        silent = sum(each.unanswered for each in seen)
        if len(seen) == wanted or silent > context.params.max_error_share * wanted:
            return seen
    say(f"only {len(seen)} items of the snapshot can be asked through the backend")
    if not seen:
        _require_reason(backend, alias, unasked)
    return seen


def kept_items(path: Path, tell: Callable[[str], None]) -> list[Row]:
    """Return the items that were asked about (`id`, `title`), with the `fields` from before.

    None where there is no such file. Of a damaged one, every line that still names an item; `tell`
    is told how many do not.
    """
    if not path.is_file():
        return []
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    found = [row for line in lines if (row := _kept_item(line)) is not None]
    if lost := len(lines) - len(found):
        tell(f"{path} is damaged: {lost} of its {len(lines)} lines name no item, and are left out")
    return found


def _kept_item(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    named = row.get("id") if isinstance(row, dict) else None
    return row if isinstance(named, str) and named and named.isprintable() else None


def _require_reason(backend: Backend, alias: str, unasked: Counter[Unasked]) -> None:
    """Raise `VerifyUnanswered` where no item was asked for a reason that may be the backend's.

    It is not where what it shows is reviewed, or of another snapshot.
    """
    why = ", ".join(f"{number} {reason}" for reason, number in unasked.items())
    if unasked[Unasked.MISSING] == unasked.total():
        listed = backend.items()
        if listed and backend.shown(str(listed[0]["id"])) is not None:
            return
        why += "; nor does it show another one"
    elif not (unasked[Unasked.HIDDEN] or unasked[Unasked.LOST]):
        return
    raise VerifyUnanswered(
        f"{alias} could not be verified: {backend.url} shows not one item of the snapshot",
        why=why,
        todo="Look at its items (`docker logs NAME`), then run again. Where none is to be there "
        "yet, `--set verify.items=0` lets the engine's answer be enough.",
    )


def _keep(context: StageContext[VerifyParams], backend: Backend, row: Row, item: Row) -> Record:
    """Keep what an item held also where the reprocess looks for it (docs/how-to/reprocess.md)."""
    run, model = context.job.run, context.job.inputs[GGUF.name].digest
    named = {name: row[name] for name in ("id", "title") if name in row}
    record = Record.of_model(context.root, run, model, backend.url)
    state = reanalysis.state_of(item, storage_of(load_task(context.job.task)))
    record.begin(run, model, backend.url, {row["id"]: state | named}, 1, canaries=[row["id"]])
    return record


def candidates(task: Task, items: Path, labels: Path) -> Iterator[Row]:
    """Yield the items in the order in which they are tried: the same every time.

    Those whose label is of the kind that somebody must act on, and the others, by turns; then
    those without a label. Within each by a digest, so that it is not always the oldest.
    """
    kinds: dict[str, bool] = {}
    for row in files.read_jsonl(labels):
        label = task.output.model_validate_json(json.dumps(row["label"]))
        kinds[row["id"]] = task.positive(label)
    by_kind: dict[bool | None, list[Row]] = {True: [], False: [], None: []}
    for row in files.read_jsonl(items):
        by_kind[kinds.get(row["id"])].append(row)
    for rows in by_kind.values():
        rows.sort(key=lambda row: files.digest_text(row["id"]))
    turns = itertools.zip_longest(by_kind[True], by_kind[False])
    yield from (row for turn in turns for row in turn if row is not None)
    yield from by_kind[None]


def judge(task: Task, row: Row, before: Row, after: Row) -> Canary:
    """Return what the answer is worth that an item holds after its new analysis."""
    try:
        output = answers.stored(task, before, after)
    except InvalidAnswer as error:
        return Canary(row["id"], str(error))
    found = task.check(task.item.model_validate(row), output)
    broken = dict.fromkeys(each.rule for each in found if each.severity == "error")
    return Canary(row["id"], broken=tuple(broken), positive=task.positive(output))


def _usable(
    backend: Backend,
    storage: Storage,
    rows: Iterable[Row],
    unasked: Counter[Unasked],
    most_lost: int,
) -> Iterator[tuple[Row, Row]]:
    """Yield each row to be asked about, and what a new analysis changes of its item, in the item's
    own form; count in `unasked` why the others are not.

    Ends where `most_lost` items were lost: the backend does not find what it has shown before.
    """
    for row in rows:
        if unasked[Unasked.LOST] == most_lost:
            return
        try:
            item = backend.item(row["id"])
        except ItemUnavailable as error:
            unasked[Unasked.MISSING if error.unknown else Unasked.HIDDEN] += 1
            continue
        if reanalysis.another_article(row, item):
            unasked[Unasked.ANOTHER] += 1
        elif item.get("is_manually_reviewed") is True:
            unasked[Unasked.REVIEWED] += 1
        else:
            yield row, analysed(item, storage)


def _analysed(backend: Backend, task: Task, row: Row, timeout_s: float) -> Canary | None:
    """Have one item analysed and judge it; None where it is not there any more, or reviewed."""
    found = Canary(row["id"])
    for _ in range(_ATTEMPTS):
        try:
            before = backend.item(row["id"])
        except ItemUnavailable as error:
            if error.unknown:
                return None
            before = {}  # the attempt before has stored what cannot be shown
        seen = reanalysis.reprocess(backend, storage_of(task), row, timeout_s)
        if seen.outcome in {Outcome.LEFT_OUT, Outcome.NOT_THERE}:
            return None
        if seen.outcome is Outcome.FAILED:
            found = Canary(row["id"], seen.reason, unanswered=seen.unanswered)
        else:
            found = _read_back(backend, task, row, before)
        found = replace(found, answer=seen.answer)
        if not found.failure:
            break
        say(f"item {row['id']}: {found.failure}")
    return found


def _asked_directly(
    context: StageContext[VerifyParams],
    engine: Engine,
    task: Task,
    row: Row,
    alias: str,
    found: Canary,
) -> Canary:
    """Return what an item without a valid answer shows of the model, by asking the engine itself.

    A model that does not come to an end looks from outside like an engine that does not answer, and
    one that leaves a field out like a backend that loses it. Where it answers well, silence says
    nothing of it (`found`), and of what was stored without a valid answer that is `lost`. Where the
    engine is silent nobody knows. Asked as the backend asks: without a schema.
    """
    try:
        said = whole_answer(
            engine, alias, task, task.item.model_validate(row), timeout_s=context.params.timeout_s
        )
        if not said.finished:
            raise InvalidAnswer(f"cut off after {said.answer_tokens} tokens")
        task.parse(said.text)
    except EngineUnavailable as error:
        why = f"{found.failure}; asked directly: {error.what}"
        return found if found.unanswered else replace(found, failure=why, unanswered=True)
    except InvalidAnswer as error:
        why = f"{found.failure}; asked directly: {error}"
        return replace(found, failure=why, unanswered=False)
    return replace(found, lost=not found.unanswered)


def whole_answer(
    engine: Engine,
    alias: str,
    task: Task,
    item: Item,
    *,
    timeout_s: float,
    schema: dict[str, Any] | None = None,
) -> Answer:
    """Return the engine's answer about an item; raises `InvalidAnswer` if it is cut off twice.

    Once may be a runner that has ended; twice it is a model that repeats itself.
    """
    ask = partial(
        engine.chat,
        alias,
        task.messages(item),
        schema=schema,
        options={**task.modelfile().parameters},
        timeout_s=timeout_s,
    )
    with suppress(AnswerCutOff):
        return ask()
    try:
        return ask()
    except AnswerCutOff as error:
        raise InvalidAnswer(
            f"{engine.name} has cut it off twice, as it does where a model repeats itself"
        ) from error


def _read_back(backend: Backend, task: Task, row: Row, before: Row) -> Canary:
    try:
        return judge(task, row, before, backend.item(row["id"]))
    except ItemUnavailable as error:
        # It may be the backend's own trouble: what the model says, only asking it directly shows.
        told = f"the backend cannot show it: status {error.status}"
        return Canary(row["id"], told, unanswered=True)


def _another_model(
    engine: Engine, witness: Witness, alias: str, digest: str, backend: Backend
) -> ModelNotAsked:
    """Return the failure that another model, or one in another engine, has answered."""
    loaded = ", ".join(f"{tag} ({each[:12]})" for each, tag in witness.tags.items())
    return ModelNotAsked(
        f"the backend's analysis was not made by {alias} (digest {digest[:12]})",
        why=f"loaded in {engine.name} meanwhile: {loaded or 'nothing'}",
        todo=f"Set OLLAMA_URL in the environment of {backend.url} to the {engine.name} that the "
        f"driver asks (OLLAMA_HOST), and OLLAMA_MODEL to {alias}; under compose, recreate its "
        "container (`docker compose up -d`). Then run again.",
    )


class Witness:
    """Keeps which models hold memory while an item is analysed.

    Afterwards may be too late: under OLLAMA_KEEP_ALIVE=0 nothing stays loaded.
    """

    def __init__(self, engine: Engine) -> None:
        self.tags: dict[str, str] = {}
        """By digest, the name that a model was first asked by."""
        self._engine = engine
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(_LOOK_S)  # and one last look after the end
            try:
                self.tags |= {model.digest: model.tag for model in self._engine.loaded()}
            except RetrainError:  # one look that fails proves nothing
                continue
