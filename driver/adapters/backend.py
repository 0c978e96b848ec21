"""The application's backend, seen from outside: the one place that knows its API.

It cannot be changed from here, so what it does is met as it is: 100 rows a page at most, archived
items only in a pass of their own, relevance and duplicate filters on by default, a health answer
that comes before the database is there, and analyses that fail without an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contracts.errors import BackendUnavailable
from serving.http import may_pass

PAGE_SIZE = 100
"""The most rows a page may have; 101 is answered with 422."""

MOST_AT_ONCE = 1000
"""The most items that one bulk reprocess takes; there is no offset for those behind them."""

_MOST_LISTINGS = 4  # the first, and three more after a change under way
_CONNECT_TIMEOUT_S = 5.0
_TODO = "Check backend.url and that the backend runs (`docker ps`, `docker logs NAME`)."
# Not as a whole URL: a message shows that without its user and password.
_LOG_IN = (
    "Set backend.url with what it asks for, between http:// and the host: USER:PASSWORD@HOST:PORT."
)
# Without these a listed item says too little for a snapshot, and is read one by one.
_LISTED = ("content", "is_manually_reviewed", "metadata")


class ModelNotAsked(BackendUnavailable):
    """The backend answers, but it does not ask the model that it should, or none at all."""

    passing = False  # it does so until somebody changes its settings


class ItemUnavailable(LookupError):
    """One item cannot be read or reprocessed, while the backend itself answers.

    `status` is 404 or 422 for an item that the backend does not have, and 500 for one with a
    stored value that it cannot show (a list kept as a text does that).
    """

    def __init__(self, item_id: str, status: int) -> None:
        super().__init__(f"item {item_id}: status {status}")
        self.status = status

    @property
    def unknown(self) -> bool:
        """Whether the backend has no such item."""
        return self.status != 500


class _ListingChanged(Exception):
    """Items came, went or moved while the pages were read."""


@dataclass(frozen=True)
class LlmStatus:
    """What the backend asks for its analyses."""

    model: str
    """The container's OLLAMA_MODEL: the only setting that counts."""


@dataclass(frozen=True)
class AdminHealth:
    """What of /api/admin/health can be relied on; its `status` is no part of it, because it is
    "degraded" whenever the scheduler is off."""

    database_ok: bool
    llm_enabled: bool
    llm_available: bool


class Backend:
    """The backend at `url`; `timeout_s` limits each single request.

    Every call raises `BackendUnavailable` when the backend cannot be reached, or answers with an
    error or with something else than its API promises.
    """

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s

    # --- health ---------------------------------------------------------------------------------
    def healthy(self) -> bool:
        """Return whether it answers now and reaches its database; never raises."""
        return self._unhealthy_because() is None

    def wait_healthy(
        self,
        needed: int = 3,
        timeout_s: float = 120.0,
        *,
        pause_s: float = 1.0,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Return after `needed` good answers in a row; raise `BackendUnavailable` on time-out.

        `meanwhile` is called after each bad one.

        One answer proves nothing: on a fresh database the workers race each other to create the
        tables, and the container answered 200 before it exited.
        """
        deadline = time.monotonic() + timeout_s
        in_a_row, seen = 0, "nothing yet"
        while True:
            problem = self._unhealthy_because()
            in_a_row = 0 if problem else in_a_row + 1
            seen = _in_short(problem) if problem else f"{in_a_row} good answers in a row"
            if in_a_row >= needed:
                return
            if time.monotonic() + pause_s > deadline:
                raise BackendUnavailable(
                    f"the backend {self.url} did not become healthy within {timeout_s:.0f} s",
                    why=f"seen last: {seen}; {needed} good answers in a row are needed",
                    todo=_LOG_IN if problem and problem.todo == _LOG_IN else "",
                )
            if problem:
                meanwhile()
            time.sleep(pause_s)

    def admin_health(self) -> AdminHealth:
        """Return the state of the database and of the analyses."""
        answer = self._object("GET", "/api/admin/health")
        return AdminHealth(
            database_ok=answer.get("database_ok") is True,
            # Only a plain "false" counts as off, in case a version does not say.
            llm_enabled=answer.get("llm_enabled") is not False,
            llm_available=answer.get("llm_available") is not False,
        )

    def switch_llm(self, *, on: bool) -> None:
        """Switch the analyses on or off; what is new meanwhile is not analysed afterwards by this.

        While they are off, a reprocess says that it started, and then fails every item.
        """
        if on:
            self._object("POST", "/api/llm/enable", {"auto_reprocess": "false"})
        else:
            self._object("POST", "/api/llm/disable")

    def _unhealthy_because(self) -> BackendUnavailable | None:
        try:
            status = self._object("GET", "/health").get("status")
            if status != "healthy":
                return BackendUnavailable(f"/health says {status!r}")
            if not self.admin_health().database_ok:
                said = "/api/admin/health says that the database is not reached"
                return BackendUnavailable(said)
        except BackendUnavailable as error:
            return error
        return None

    # --- items ----------------------------------------------------------------------------------
    def items(self) -> list[dict[str, Any]]:
        """Return every item, the archived ones included, each once and ordered by id.

        All or nothing: a page that fails raises, and a listing that changes while it is read is
        read again, at most three times. An item that names only its channel gets the name of
        its source, since the model is shown it.
        """
        for _ in range(_MOST_LISTINGS):
            try:
                listed = self._list_all()
                complete = [self._complete(item) for item in listed]
            except (_ListingChanged, ItemUnavailable) as error:
                last = str(error)
                continue
            return self._with_sources(complete)
        raise BackendUnavailable(
            f"the items of {self.url} changed during each of {_MOST_LISTINGS} listings",
            why=last,
            todo="Wait until the backend has fetched its news, then run again.",
        )

    def item(self, item_id: str) -> dict[str, Any]:
        """Return one item; raises `ItemUnavailable` where there is none, or it cannot be shown."""
        found = self._item_object("GET", item_id)
        if "id" not in found:
            raise self._unexpected(f"/api/items/{item_id}", found)
        return found

    def shown(self, item_id: str) -> dict[str, Any] | None:
        """Return one item, None where there is none or it cannot be shown."""
        try:
            return self.item(item_id)
        except ItemUnavailable:
            return None

    def reprocess_item(self, item_id: str) -> None:
        """Ask for a new analysis of one item, which the backend makes in the background.

        Raises `ItemUnavailable` where there is no such item. Overwrites a manual review.
        """
        answer = self._item_object("POST", item_id, "/reprocess")
        if answer.get("status") != "started":
            raise self._unexpected(f"/api/items/{item_id}/reprocess", answer)

    def reprocess_channel(self, channel_id: int) -> int:
        """Ask for new analyses of a channel's newest items; return how many there will be.

        They are made in one transaction in the background, and show all at once at its end.
        Overwrites manual reviews.
        """
        query: dict[str, str | int] = {"force": "true", "limit": MOST_AT_ONCE}
        path = "/api/items/reprocess"
        answer = self._object("POST", path, {**query, "channel_id": channel_id})
        if not isinstance(answer.get("count"), int):
            raise self._unexpected(path, answer)
        return int(answer["count"])

    def _list_all(self) -> list[dict[str, Any]]:
        current, total = self._list_pass(archived=False)
        archived, _ = self._list_pass(archived=True)
        # An item taken out of the archive between the passes would stand in neither of them.
        if self._page(1, archived=False)[1] != total:
            raise _ListingChanged("items were archived or came in between the two passes")
        every = {**current, **archived}
        return [every[key] for key in sorted(every, key=lambda key: (len(key), key))]

    def _list_pass(self, *, archived: bool) -> tuple[dict[str, dict[str, Any]], int]:
        rows, expected = self._page(1, archived=archived)
        found = {str(row["id"]): row for row in rows}
        for page in range(2, -(-expected // PAGE_SIZE) + 1):
            rows, total = self._page(page, archived=archived)
            if total != expected:
                raise _ListingChanged(f"{expected} items on page 1, {total} on page {page}")
            found.update({str(row["id"]): row for row in rows})
        if len(found) != expected:
            raise _ListingChanged(f"{len(found)} items listed of {expected}")
        return found, expected

    def _page(self, page: int, *, archived: bool) -> tuple[list[dict[str, Any]], int]:
        query: dict[str, str | int] = {
            "page": page,
            "page_size": PAGE_SIZE,
            "relevant_only": "false",
            "group_duplicates": "false",
        }
        if archived:
            query["is_archived"] = "true"
        answer = self._object("GET", "/api/items", query)
        rows, total = answer.get("items"), answer.get("total")
        usable = isinstance(rows, list) and all(isinstance(r, dict) and "id" in r for r in rows)
        if not usable or not isinstance(total, int):
            raise self._unexpected("/api/items", answer)
        return rows or [], total

    def _complete(self, listed: dict[str, Any]) -> dict[str, Any]:
        if all(name in listed for name in _LISTED):
            return listed
        return {**listed, **self.item(str(listed["id"]))}

    def _with_sources(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        nameless = [i for i in items if not i.get("source") and i.get("channel_id") is not None]
        if not nameless:
            return items
        names = _names_by_channel(self.sources())
        for item in nameless:
            if name := names.get(str(item["channel_id"])):
                item["source"] = name
        return items

    def sources(self) -> list[dict[str, Any]]:
        """Return the sources, each with its channels."""
        answer = self._json("GET", "/api/sources")
        rows = answer.get("sources") if isinstance(answer, dict) else answer
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._unexpected("/api/sources", answer)
        return rows

    # --- the model ------------------------------------------------------------------------------
    def llm_model(self) -> str:
        """Return the stored model name. It is never used for an analysis: see `llm_status`."""
        return self._model_in("/api/llm/model")

    def llm_status(self) -> LlmStatus:
        """Return which model the analyses are really made with."""
        return LlmStatus(model=self._model_in("/api/llm/status"))

    def _model_in(self, path: str) -> str:
        answer = self._object("GET", path)
        model = answer.get("model")
        if not isinstance(model, str):
            raise self._unexpected(path, answer)
        return model

    # --- requests -------------------------------------------------------------------------------
    def _object(
        self, method: str, path: str, query: dict[str, str | int] | None = None
    ) -> dict[str, Any]:
        answer = self._json(method, path, query)
        if not isinstance(answer, dict):
            raise self._unexpected(path, answer)
        return answer

    def _json(self, method: str, path: str, query: dict[str, str | int] | None = None) -> Any:
        status, answer = self.call(method, path, query)
        if not 200 <= status < 300:
            raise self._refused(method, path, query, status, answer)
        return answer

    def _item_object(self, method: str, item_id: str, action: str = "") -> dict[str, Any]:
        from urllib.parse import quote

        path = f"/api/items/{quote(item_id, safe='')}{action}"
        status, answer = self.call(method, path)
        if status in {404, 422, 500}:
            raise ItemUnavailable(item_id, status)
        if not 200 <= status < 300:
            raise self._refused(method, path, None, status, answer)
        if not isinstance(answer, dict):
            raise self._unexpected(path, answer)
        return answer

    def call(
        self,
        method: str,
        path: str,
        query: dict[str, str | int] | None = None,
        body: dict[str, Any] | None = None,
    ) -> tuple[int, Any]:
        """Return status and body; the body is None where it is not JSON."""
        import requests  # takes a tenth of a second: only where it is needed

        try:
            with requests.Session() as session:
                # A proxy for the internet, set in the environment, does not know this host.
                session.trust_env = False
                answer = session.request(
                    method,
                    self.url + path,
                    params=query,
                    json=body,
                    timeout=(min(_CONNECT_TIMEOUT_S, self.timeout_s), self.timeout_s),
                )
        except requests.RequestException as error:
            raise BackendUnavailable(
                f"the backend does not answer: {method} {self.url}{path}",
                why=f"{type(error).__name__}: {error}",
                todo=_TODO,
            ) from error
        try:
            return answer.status_code, answer.json()
        except requests.JSONDecodeError:
            return answer.status_code, None

    def _refused(
        self, method: str, path: str, query: dict[str, str | int] | None, status: int, answer: Any
    ) -> BackendUnavailable:
        asked = "&".join(f"{name}={value}" for name, value in (query or {}).items())
        url = f"{self.url}{path}" + (f"?{asked}" if asked else "")
        todo = _TODO
        if status == 500 and path == "/api/items":
            todo = (
                "Read the backend's log: one row with a value of the wrong type makes its whole "
                "page fail. Correct that row; a part of the items is never exported."
            )
        if status in {401, 403}:  # no record keeps the password of an address
            todo = _LOG_IN
        return BackendUnavailable(
            f"the backend refuses {method} {url}",
            why=f"status {status}: {answer}",
            todo=todo,
            passing=may_pass(status),
        )

    def _unexpected(self, path: str, answer: Any) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self.url}{path} does not answer as the backend does",
            why=f"it answered {str(answer)[:200]}",
            todo="Check that backend.url names the backend and not another service.",
        )


def _in_short(error: BackendUnavailable) -> str:
    return f"{error.what} ({error.why})" if error.why else error.what


def _names_by_channel(sources: list[dict[str, Any]]) -> dict[str, str]:
    return {
        str(channel["id"]): str(source.get("name") or "")
        for source in sources
        for channel in source.get("channels") or []
        if isinstance(channel, dict) and "id" in channel
    }
