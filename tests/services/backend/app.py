"""The backend's HTTP API."""

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from . import editing, llm
from .listing import Filters, grouped, matching
from .reprocess import Worker
from .settings import Settings
from .store import Store

_HEALTHY_BEFORE_CRASH = 2
_router = APIRouter()


class ItemOut(BaseModel):
    """An item as the API shows it; a stored value of another type makes that a 500."""

    id: int
    title: str | None
    content: str | None
    url: str | None
    published_at: str | None
    channel_id: int | None
    summary: str | None
    detailed_analysis: str | None
    priority: str | None
    assigned_aks: list[str]
    is_archived: bool
    is_manually_reviewed: bool
    metadata: dict[str, Any]
    updated_at: str | None


class PageOut(BaseModel):
    """One page of items."""

    items: list[ItemOut]
    total: int
    page: int
    page_size: int
    total_pages: int


class ModelIn(BaseModel):
    """The model name to store."""

    model: str


class _State:
    """What the routes share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.data / "backend.sqlite", settings.seed_file)
        self.worker = Worker(settings, self.store)
        starts = int(self.store.setting("starts") or 0) + 1
        self.store.set("starts", str(starts))
        self.crashes = starts <= settings.crash_first_starts
        self.healthy_answers = 0


def create_app(settings: Settings) -> FastAPI:
    """Return the service on its database, which is seeded at the first start."""
    state = _State(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(state.worker.wait, settings.stop_patience_s)

    app = FastAPI(lifespan=lifespan)
    app.state.shared = state
    app.include_router(_router)
    if settings.item_edits:
        fields = settings.item_edit_fields
        app.include_router(editing.routes(state.store, settings.item_edits, fields))
    return app


def _of(request: Request) -> _State:
    shared: _State = request.app.state.shared
    return shared


@_router.get("/health")
def health(request: Request) -> dict[str, str]:
    """Answer without a look at the database."""
    state = _of(request)
    state.healthy_answers += 1
    if state.crashes and state.healthy_answers >= _HEALTHY_BEFORE_CRASH:
        threading.Timer(0.2, os._exit, [3]).start()  # after this answer
    return {"status": "healthy"}


@_router.get("/api/admin/health")
def admin_health(request: Request) -> dict[str, Any]:
    """Tell what works; degraded, because this instance runs no scheduler."""
    state = _of(request)
    return {
        "status": "degraded",
        "instance_type": "llm_processor",
        "scheduler_running": False,
        "database_ok": True,
        "llm_available": llm.tags(state.settings) is not None,
        "llm_enabled": state.store.setting("llm_enabled") != "false",
        "items_count": state.store.count(),
    }


@_router.get("/api/items", response_model=PageOut)
def items(request: Request, asked: Annotated[Filters, Query()]) -> dict[str, Any]:
    """List items, newest first; the defaults hide irrelevant, duplicate and archived ones."""
    rows = matching(_of(request).store, asked)
    if asked.group_duplicates:
        rows = grouped(rows)
    start = (asked.page - 1) * asked.page_size
    return {
        "items": rows[start : start + asked.page_size],
        "total": len(rows),
        "page": asked.page,
        "page_size": asked.page_size,
        "total_pages": -(-len(rows) // asked.page_size),
    }


@_router.get("/api/items/{item_id}", response_model=ItemOut)
def item(request: Request, item_id: int) -> dict[str, Any]:
    """Return one item."""
    return _item(request, item_id)


@_router.post("/api/items/reprocess")
def reprocess_many(
    request: Request,
    asked: Annotated[Filters, Query()],
    force: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Start a bulk run over the newest items; without force only over unprocessed ones."""
    state = _of(request)
    rows = matching(state.store, asked.model_copy(update={"relevant_only": False}), archived=True)
    if not force:
        rows = [row for row in rows if "llm_analysis" not in row["metadata"]]
    chosen = [row["id"] for row in rows[:limit]]
    if not chosen:
        return {"status": "no items to process", "count": 0}
    state.worker.many(chosen)
    return {
        "status": "started",
        "count": len(chosen),
        "force": force,
        "message": f"Reprocessing {len(chosen)} items in background",
    }


@_router.post("/api/items/{item_id}/reprocess")
def reprocess_one(request: Request, item_id: int) -> dict[str, Any]:
    """Start the analysis of one item, even while the LLM is disabled."""
    _item(request, item_id)
    _of(request).worker.one(item_id)
    return {"status": "started", "item_id": item_id, "message": "Reprocessing started"}


@_router.get("/api/sources")
def sources(request: Request) -> list[dict[str, Any]]:
    """Return the sources, each with its one channel."""
    return [
        {
            "id": row["source_id"],
            "name": row["source"],
            "channels": [{"id": row["id"], "connector_type": row["connector_type"]}],
        }
        for row in _of(request).store.sources()
    ]


@_router.get("/api/llm/model")
def llm_model(request: Request) -> dict[str, str]:
    """Return the stored model, which no analysis uses."""
    state = _of(request)
    stored = state.store.setting("llm_model")
    if stored:
        return {"model": stored, "source": "database"}
    return {"model": state.settings.ollama_model, "source": "environment"}


@_router.put("/api/llm/model")
def put_llm_model(request: Request, asked: ModelIn) -> dict[str, str]:
    """Store a model name; it has to be an exact tag of Ollama's."""
    state = _of(request)
    if asked.model not in (llm.tags(state.settings) or []):
        raise HTTPException(400, f"Model {asked.model} not found")
    state.store.set("llm_model", asked.model)
    return {"model": asked.model, "source": "database"}


@_router.get("/api/llm/status")
def llm_status(request: Request) -> dict[str, Any]:
    """Return the environment's model: the one that is really asked."""
    state = _of(request)
    return {
        "enabled": state.store.setting("llm_enabled") != "false",
        "available": llm.tags(state.settings) is not None,
        "model": state.settings.ollama_model,
    }


@_router.post("/api/llm/disable")
def disable(request: Request) -> dict[str, str]:
    """Switch analyses off; reprocess calls go on saying "started"."""
    _of(request).store.set("llm_enabled", "false")
    return {"status": "disabled"}


@_router.post("/api/llm/enable")
def enable(request: Request, auto_reprocess: bool = True) -> dict[str, Any]:
    """Switch analyses on, and by default work off what was left over."""
    _of(request).store.set("llm_enabled", "true")
    if not auto_reprocess:
        return {"status": "enabled"}
    return {"status": "enabled", "reprocess": reprocess_many(request, Filters())}


def _item(request: Request, item_id: int) -> dict[str, Any]:
    found = _of(request).store.item(item_id)
    if found is None:
        raise HTTPException(404, "Item not found")
    return found
