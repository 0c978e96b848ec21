"""What the API takes and gives."""

from typing import Any

from pydantic import BaseModel, Field

from .enums import Arbeitskreis, Priority


class ItemFilter(BaseModel):
    """The query of the list."""

    priority: Priority | None = None
    assigned_aks: list[Arbeitskreis] | None = None


class ItemUpdate(BaseModel):
    """What people change."""

    summary: str | None = None
    detailed_analysis: str | None = None
    priority: Priority | None = None
    assigned_aks: list[Arbeitskreis] | None = None


class ItemResponse(BaseModel):
    """An item."""

    id: int
    title: str
    summary: str | None = None
    detailed_analysis: str | None = None
    priority: Priority = Field(default=Priority.NONE)
    assigned_aks: list[Arbeitskreis] = []
    metadata: dict[str, Any] = {}
