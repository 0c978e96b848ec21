"""A way to write items, which production is not known to have: off unless ITEM_EDITS says so.

As pages for people do, an edit counts as a review, unless it says otherwise itself.
"""

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, create_model

from .store import Store, write

_TYPES: dict[str, Any] = {
    "title": str,
    "summary": str,
    "detailed_analysis": str,
    "priority": str,
    "assigned_aks": list[str],
    "is_manually_reviewed": bool,
    "metadata": dict[str, Any],
}


def routes(store: Store, method: str, names: tuple[str, ...]) -> APIRouter:
    """Return the route: PATCH writes what is sent, PUT empties what is not."""
    fields: dict[str, Any] = {name: (_TYPES[name] | None, None) for name in names}
    edit: type[BaseModel] = create_model("ItemEdit", **fields)
    router = APIRouter()

    def change(request: Request, item_id: int, asked: edit) -> dict[str, Any]:
        sent: dict[str, Any] = asked.model_dump(exclude_unset=method == "PATCH")
        if store.item(item_id) is None:
            raise HTTPException(404, "Item not found")
        if sent.get("is_manually_reviewed") is None:
            sent["is_manually_reviewed"] = True
        with store.transaction() as connection:
            write(connection, item_id, sent)
        return {"status": "saved"}

    change.__annotations__["asked"] = edit
    router.add_api_route("/api/items/{item_id}", change, methods=[method])
    return router
