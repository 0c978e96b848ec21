"""One request to a model, and what its failure means for the rows after it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
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
) -> Generator[tuple[Row, Found], None, None]:
    """Yield (row, result) as they are ready; the caller's loop runs in its own thread only.

    When one fails, rows that were not begun are given up, those in flight are still yielded, and
    the failure is raised last: nothing that was paid for is lost. A caller whose loop may end
    early closes the generator (`contextlib.closing`), or the rest would still be asked.
    """
    failure: Exception | None = None
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        futures = {pool.submit(work, row): row for row in rows}
        try:
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                if (error := future.exception()) is None:
                    yield futures[future], future.result()
                elif failure is None:
                    failure = error if isinstance(error, Exception) else RuntimeError(str(error))
                    pool.shutdown(wait=False, cancel_futures=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
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
