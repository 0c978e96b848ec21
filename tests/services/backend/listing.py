"""Which items a call is about."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from .store import Store

Row = dict[str, Any]


class Filters(BaseModel):
    """The query of /api/items; the bulk reprocess knows the last five of them."""

    page: Annotated[int, Field(ge=1)] = 1
    page_size: Annotated[int, Field(ge=1, le=100)] = 20
    relevant_only: bool = True
    group_duplicates: bool = True
    is_archived: bool = False
    source_id: int | None = None
    channel_id: int | None = None
    connector_type: str | None = None
    priority: str | None = None
    exclude_low: bool = False


def matching(store: Store, asked: Filters, *, archived: bool | None = None) -> list[Row]:
    """Return the items that match, newest first; `archived=True` takes both kinds."""
    conditions, values = ["1"], []
    if archived is None:
        conditions.append("is_archived = ?")
        values.append(int(asked.is_archived))
    for name in ("source_id", "channel_id", "connector_type", "priority"):
        if (value := getattr(asked, name)) is not None:
            conditions.append(f"{name} = ?")
            values.append(value)
    if asked.exclude_low:
        conditions.append("priority NOT IN ('low', 'none')")
    if asked.relevant_only:
        # A default priority is one too: items that nobody has analysed yet pass.
        conditions.append("priority <> 'none'")
    return store.items(" AND ".join(conditions), *values)


def grouped(rows: list[Row]) -> list[Row]:
    """Return the newest item of each title."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault((row["title"] or "").casefold().strip(), row)
    return list(first.values())
