"""One request to a model, and what its failure means for the rows after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

from contracts.errors import EngineUnavailable
from serving.engine import Answer, Engine, Messages, Options

Row = TypeVar("Row")
Found = TypeVar("Found")

FAILURES_IN_A_ROW = 5
"""Rows without any answer, one after the other, from which the engine counts as broken."""


def ask(
    engine: Engine,
    tag: str,
    messages: Messages,
    *,
    schema: dict[str, Any] | None,
    options: Options,
    timeout_s: float,
) -> Answer | EngineUnavailable:
    """Return the answer, or why this request has none.

    A time-out or a refusal of one request is that row's failure and must not end the stage; an
    engine that is gone must: `version` then raises `EngineUnavailable`.
    """
    try:
        return engine.chat(tag, messages, schema=schema, options=options, timeout_s=timeout_s)
    except EngineUnavailable as error:
        engine.version()
        return error


def in_parallel(
    work: Callable[[Row], Found], rows: Iterable[Row], concurrency: int
) -> Iterator[tuple[Row, Found]]:
    """Yield (row, result) as they are ready; the caller's loop runs in its own thread only.

    A new row is begun only after the caller has dealt with the last one, so at most `concurrency`
    rows are lost when the process is killed. When one fails, no more are begun, those in flight
    are still yielded, and the failure is raised last.
    """
    waiting = iter(rows)
    failure: BaseException | None = None
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        flying = {pool.submit(work, row): row for row in islice(waiting, concurrency)}
        while flying:
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                row = flying.pop(future)
                if error := future.exception():
                    failure = failure or error
                else:
                    yield row, future.result()
                if not failure:
                    flying |= {pool.submit(work, row): row for row in islice(waiting, 1)}
    if failure:
        raise failure


class Patience:
    """Counts rows without any answer, and ends a stage that will not get one."""

    def __init__(self) -> None:
        self._failures = 0

    def judge(self, failure: EngineUnavailable | None) -> None:
        """Note how a row went; raises `EngineUnavailable` after too many failures in a row."""
        self._failures = self._failures + 1 if failure else 0
        if failure and self._failures >= FAILURES_IN_A_ROW:
            raise EngineUnavailable(
                f"the engine answers, but not to {self._failures} requests in a row",
                why=str(failure.what) + (f": {failure.why}" if failure.why else ""),
            )
