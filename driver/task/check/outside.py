"""Every place outside that is configured or can be reached, each held against the task."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import EngineUnavailable, ModelMissing, RetrainError
from driver.task.check import columns, enums, modelfile, openapi, processor, prompt, schemas
from driver.task.check.checkout import Checkout, SourceFile
from driver.task.check.finding import Compared, Finding, Severity
from driver.task.check.mention import mention
from driver.task.check.python_code import Code
from driver.task.check.tied import Tied
from driver.task.source import Source
from serving.engine import full_tag

if TYPE_CHECKING:
    from serving.engine import Engine

_FOREIGN = (RecursionError, ValueError, TypeError, AttributeError, LookupError)
"""What code that others wrote may raise where it is followed; a Unicode error is a ValueError."""

_NOT_TIED = "nothing in the checkout is surely of its answers, but an item as the API gives it"


def everywhere(
    source: Source, url: str, repository: Path | None, engine: Engine, name: str
) -> list[Compared]:
    """Compare the live backend at `url` ("" for none), the deployed model, and a checkout."""
    compared = [live(source, url), deployed(source, engine, name)]
    if repository is not None:
        with _no_collections():
            compared += in_checkout(source, repository)
    return without_doubles(compared)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep Python from looking for garbage: each time it goes through the trees of all modules,
    none of which can go yet, and that took more than half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def live(source: Source, url: str) -> Compared:
    """Compare what the backend says of itself; one that cannot be asked is named, not raised."""
    from driver.adapters.backend import Backend

    if source.task.storage is None:
        return Compared(openapi.PLACE, unclear=("the task has no storage: no backend keeps it",))
    if not url:
        return Compared(openapi.PLACE, unclear=("the settings have no backend",))
    try:
        status, described = Backend(url).call("GET", openapi.PATH)
    except RetrainError as error:
        return Compared(openapi.PLACE, unclear=(error.what,))
    if status != 200 or not isinstance(described, dict):
        return Compared(openapi.PLACE, unclear=(f"{url}{openapi.PATH} answers with {status}",))
    return _held(openapi.PLACE, openapi.compare, source, described)


def deployed(source: Source, engine: Engine, name: str) -> Compared:
    """Compare how the deployed model is served; what cannot be asked is named, not raised."""
    from serving.ollama import Ollama  # and requests with it: only where it is needed

    if not isinstance(engine, Ollama):
        return Compared(modelfile.PLACE, unclear=("only Ollama has Modelfiles",))
    tag = full_tag(name)
    try:
        shown = engine.shown(tag)
    except ModelMissing:
        return Compared(modelfile.PLACE, unclear=(f"{tag} is not deployed yet",))
    except EngineUnavailable as error:
        return Compared(modelfile.PLACE, unclear=(error.what,))
    return _held(modelfile.PLACE, modelfile.compare, source, tag, shown)


def in_checkout(source: Source, repository: Path) -> Iterator[Compared]:
    """Compare a checkout of the backend's code."""
    checkout = Checkout.read(repository)
    if checkout.too_large:
        yield Compared("checkout", unclear=(checkout.too_large,))
        return
    code = Code.read(checkout, mention(source))
    try:
        tied = Tied.of(source, code)
    except _FOREIGN as error:
        tied = Tied()
        yield _not_compared("code", error)
    if not tied.asking and code.imports.trees:
        yield Compared("code", unclear=(f"no module asks the model: {_NOT_TIED}",))
    if source.task.storage is None:
        yield Compared(columns.PLACE, unclear=("the task has no storage: no backend keeps it",))
    else:
        yield _held(columns.PLACE, columns.compare, source, code, tied)
    yield _held(schemas.PLACE, schemas.compare, source, code, tied)
    yield _held("enums", _named_alike, source, code)
    yield _held(processor.PLACE, processor.compare, source, code, tied)
    yield _held(prompt.PLACE, prompt.compare, source, code, tied)
    yield Compared("code", unclear=(*checkout.unread, *dict.fromkeys(code.unclear)))
    try:
        from driver.task.check import pages
        from driver.task.check.script import Scripts
    except ImportError as error:
        yield Compared(
            "TypeScript and Vue",
            unclear=(f"{error.name} is not installed: pip install tree-sitter-typescript",),
        )
        return
    try:
        scripts = Scripts.read(checkout)
    except _FOREIGN as error:
        yield _not_compared("TypeScript and Vue", error)
        return
    yield _held(pages.TYPES, pages.compare_types, source, scripts)
    yield _held(pages.PAGES, pages.compare_pages, source, scripts)


def _named_alike(source: Source, code: Code) -> Compared:
    return Compared("enums", tuple(enums.compare(enums.named_alike(code, source))))


def _held(place: str, compare: Callable[..., Compared], *given: object) -> Compared:
    """Return what a comparison finds; one that fails over others' code is named, not raised."""
    try:
        return compare(*given)
    except _FOREIGN as error:
        return _not_compared(place, error)


def _not_compared(place: str, error: Exception) -> Compared:
    file, why = _looked_at(error), f"{type(error).__name__}: {error}"
    return Compared(place, unclear=(f"{file.path}: {why}" if file else why,))


def _looked_at(error: Exception) -> SourceFile | None:
    """Return the file of the innermost call that an error came through which knows one."""
    for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
        for value in frame.f_locals.values():
            file = getattr(value, "file", value)
            if isinstance(file, SourceFile):
                return file
    return None


def breaking(compared: list[Compared]) -> list[Finding]:
    """Return the findings that would break production."""
    return [
        finding
        for each in compared
        for finding in each.findings
        if finding.severity is Severity.BREAKS
    ]


def without_doubles(compared: list[Compared]) -> list[Compared]:
    """Return the same, each difference named once, as what it is at worst: an enum may be found in
    several ways."""
    worst: dict[tuple[str, str], Finding] = {}
    for finding in (each for one in compared for each in one.findings):
        known = worst.setdefault(_key(finding), finding)
        if finding.severity < known.severity:
            worst[_key(finding)] = finding
    kept = {id(finding) for finding in worst.values()}
    return [
        replace(each, findings=tuple(f for f in each.findings if id(f) in kept))
        for each in compared
    ]


def _key(finding: Finding) -> tuple[str, str]:
    return finding.place, finding.differs.rpartition(" does not know ")[2]
