"""New analyses in the background: one item in its own commit, or many in one transaction."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

from . import llm
from .settings import Settings
from .store import Store, now, write

_LOG = logging.getLogger("backend")


class Worker:
    """Runs analyses in threads that a stop waits for, but not for ever."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._threads: list[threading.Thread] = []

    def one(self, item_id: int) -> None:
        """Reprocess one item; its commit shows at once."""
        self._start(self._run, [item_id])

    def many(self, item_ids: list[int]) -> None:
        """Reprocess items in one transaction: until it ends nothing shows, a stop loses all."""
        self._start(self._run, item_ids)

    def wait(self, timeout_s: float) -> None:
        """Wait for what is under way; threads that are left die with the process."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self, work: Callable[[list[int]], None], item_ids: list[int]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=work, args=(item_ids,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, item_ids: list[int]) -> None:
        processed = errors = 0
        try:
            with self._store.transaction() as connection:
                for item_id in item_ids:
                    if self._store.setting("llm_enabled") == "false":
                        errors += 1
                        continue
                    self._reprocess(connection, item_id)
                    processed += 1
        except sqlite3.Error:
            _LOG.exception("Reprocessing rolled back")
            return
        _LOG.info("Reprocessing complete: %d processed, %d errors", processed, errors)

    def _reprocess(self, connection: sqlite3.Connection, item_id: int) -> None:
        """Analyse and store; a reviewed item is overwritten like any other."""
        item = self._store.item(item_id)
        if item is None:
            return
        try:
            analysis = llm.analysis_in(llm.ask(self._settings, item))
        except (OSError, ValueError, KeyError) as error:
            _LOG.warning("LLM error for item %d: %s", item_id, error)
            write(connection, item_id, {"priority": "none"})  # and counts as processed
            return
        write(connection, item_id, self._columns(item, analysis))

    def _columns(self, item: dict[str, Any], analysis: dict[str, Any]) -> dict[str, Any]:
        told = {**analysis, "model": self._settings.ollama_model, "processed_at": now()}
        columns: dict[str, Any] = {
            "priority": analysis.get("priority") or "none",
            "assigned_aks": analysis.get("assigned_aks", []),  # as it comes, even a text
            "metadata": {**item["metadata"], "llm_analysis": told},
        }
        for name in ("summary", "detailed_analysis"):
            if analysis.get(name):  # the old text stays where the answer has none
                columns[name] = analysis[name]
        return columns
