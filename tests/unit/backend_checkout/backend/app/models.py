"""The tables: sources in SQLAlchemy's old style, items in the new one."""

from datetime import datetime

from sqlalchemy import JSON, Boolean, Column, DateTime, ForeignKey, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What all tables share."""


class Channel(Base):
    """Where items come from."""

    __tablename__ = "channels"

    id = Column(Integer, primary_key=True)
    name = Column(String(255), nullable=False)
    connector_type = Column(String(50))


class Item(Base):
    """A piece of news, with its analysis."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    channel_id: Mapped[int | None] = mapped_column(ForeignKey("channels.id"))
    title: Mapped[str] = mapped_column(String(500))
    content: Mapped[str | None] = mapped_column(Text)
    url: Mapped[str | None] = mapped_column(String(2000))
    published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    summary: Mapped[str | None] = mapped_column(Text)
    detailed_analysis: Mapped[str | None] = mapped_column(Text)
    priority: Mapped[str] = mapped_column(String(20), default="none")
    assigned_aks: Mapped[list] = mapped_column(JSON, default=list)
    is_manually_reviewed: Mapped[bool] = mapped_column(Boolean, default=False)
    # "metadata" is SQLAlchemy's own attribute
    metadata_: Mapped[dict] = mapped_column("metadata", JSON, default=dict)
