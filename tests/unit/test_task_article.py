"""An article: our own rows and the backend's, and the message made of them."""

from typing import Any

import pytest
from pydantic import ValidationError

from tasks import load_task
from tasks.liga_relevance import Article
from tasks.liga_relevance.article import text_of, user_message

OURS: dict[str, Any] = {
    "id": "a-1",
    "title": "Titel",
    "content": "Inhalt",
    "source": "Quelle",
    "published_at": "2026-03-12",
    "url": "https://example.org",
}
BACKEND: dict[str, Any] = {
    "id": 4711,
    "title": "Titel",
    "content": "Inhalt",
    "url": None,
    "published_at": "2026-03-12T08:00:00",
    "summary": None,
    "detailed_analysis": None,
    "priority": "none",
    "assigned_aks": [],
    "is_manually_reviewed": False,
    "metadata": {"llm_analysis": {"relevant": True}, "source_name": "Hessenblick"},
}


def test_our_own_row() -> None:
    assert Article.model_validate(OURS).model_dump() == OURS


def test_the_backends_row() -> None:
    article = Article.model_validate(BACKEND)
    assert article.id == "4711"
    assert article.source == "Hessenblick"
    assert article.url == ""
    assert article.published_at == "2026-03-12T08:00:00"


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({"source": "Direkt"}, "Direkt"),
        ({"source": {"id": 3, "name": "Verschachtelt"}}, "Verschachtelt"),
        ({"source": {"id": 3}}, "Hessenblick"),
        ({"source": "  "}, "Hessenblick"),
        ({"source_name": "Daneben"}, "Daneben"),
        ({"metadata": {"source": {"title": "Tief"}}}, "Tief"),
        ({"metadata": None, "channel": {"source": {"name": "Kanal"}}}, "Kanal"),
        ({"metadata": {}}, ""),
        ({"metadata": "kein Objekt"}, ""),
    ],
)
def test_source_is_found_where_the_backend_puts_it(changes: dict[str, Any], source: str) -> None:
    assert Article.model_validate({**BACKEND, **changes}).source == source


@pytest.mark.parametrize(
    "changes",
    [
        {"title": None, "content": None},
        {"title": " ", "content": "\n"},
        {"id": None},
        {"id": " "},
        {"id": True},
        {"content": ["a"]},
    ],
)
def test_a_row_that_is_no_article_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Article.model_validate({**BACKEND, **changes})


def test_a_wrapped_row_is_an_error_and_not_an_empty_article() -> None:
    with pytest.raises(ValidationError, match="neither title nor content"):
        Article.model_validate({"id": 1, "item": BACKEND})


def test_message() -> None:
    message = user_message(Article.model_validate(OURS))
    assert message == "Titel: Titel\nInhalt: Inhalt\nQuelle: Quelle\nDatum: 2026-03-12"


def test_message_of_a_bare_article() -> None:
    message = user_message(Article(id="1", title="T"))
    assert message == "Titel: T\nInhalt: \nQuelle: Unbekannt\nDatum: Unbekannt"


def test_content_is_cut_at_6000_characters() -> None:
    article = Article(id="1", content="ä" * 5999 + "bc")
    assert "\nInhalt: " + "ä" * 5999 + "b\nQuelle: " in user_message(article)


def test_duplicates_are_looked_for_in_the_content() -> None:
    long = "Ein langer Bericht über die Schließung einer Kita. " * 3
    assert text_of(Article(id="1", title="A", content=long)) == long.strip()
    assert text_of(Article(id="1", title="A", content=" kurz ")) == "A\nkurz"
    assert text_of(Article(id="1", title="A")) == "A"


def test_canary_is_a_relevant_short_article_of_no_real_source() -> None:
    task = load_task("liga_relevance")
    assert isinstance(task.canary, Article)
    assert len(task.canary.content) < 400
    assert task.canary.url.startswith("https://example.org/")
    assert "irrelevant" not in task.canary_strata
