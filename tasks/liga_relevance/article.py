"""The input: one article, post or alert, as a file of ours or as the backend's API gives it."""

from typing import Any, Self

from pydantic import field_validator, model_validator

from tasks.definition import Item

CONTENT_LIMIT = 6000
"""Characters of the content that the backend sends; the rest is never seen by the model."""

UNKNOWN = "Unbekannt"

# Below this a text is too short to be compared alone: alerts often hold one stock phrase.
_COMPARABLE_CHARS = 80


class Article(Item):
    """An article with a title or a content, or both."""

    title: str = ""
    content: str = ""
    source: str = ""
    published_at: str = ""
    url: str = ""

    @model_validator(mode="before")
    @classmethod
    def _find_source(cls, row: Any) -> Any:
        """Take the source from wherever the backend names it, which may be nowhere."""
        if not isinstance(row, dict) or _name(row.get("source")):
            return row
        metadata = row.get("metadata")
        channel = row.get("channel")
        for place in (row, metadata, channel):
            if isinstance(place, dict):
                for key in ("source_name", "source"):
                    if name := _name(place.get(key)):
                        return {**row, "source": name}
        return {**row, "source": ""}

    @field_validator("id", mode="before")
    @classmethod
    def _id_as_text(cls, value: Any) -> Any:
        """Accept the numbers of the backend's rows; True is no number here."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("id")
    @classmethod
    def _id_given(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the id is empty")
        return value

    @field_validator("source", mode="before")
    @classmethod
    def _source_as_text(cls, value: Any) -> Any:
        return _name(value)

    @field_validator("title", "content", "published_at", "url", mode="before")
    @classmethod
    def _none_as_empty(cls, value: Any) -> Any:
        return "" if value is None else value

    @model_validator(mode="after")
    def _has_text(self) -> Self:
        if not self.title.strip() and not self.content.strip():
            raise ValueError("neither title nor content")
        return self


def user_message(article: Article) -> str:
    """Return the message exactly as the backend sends it at inference."""
    return (
        f"Titel: {article.title}\n"
        f"Inhalt: {article.content[:CONTENT_LIMIT]}\n"
        f"Quelle: {article.source or UNKNOWN}\n"
        f"Datum: {article.published_at or UNKNOWN}"
    )


def text_of(article: Article) -> str:
    """Return the text in which duplicates are looked for.

    It is the content, since the same report runs under other titles; the title is added only
    where the content says too little.
    """
    content = article.content.strip()
    return content if len(content) >= _COMPARABLE_CHARS else f"{article.title}\n{content}".strip()


def _name(source: Any) -> str:
    """Return the name of a source that is a text or an object; empty if it has none."""
    if isinstance(source, dict):
        source = source.get("name") or source.get("title")
    return source.strip() if isinstance(source, str) else ""
