"""News relevance for the Liga der Freien Wohlfahrtspflege Hessen: THE definition of the task."""

import json
from datetime import UTC, datetime
from importlib import resources
from string import Template

from tasks.chat import QWEN3
from tasks.definition import Serving, Task
from tasks.liga_relevance.article import Article, text_of, user_message
from tasks.liga_relevance.output import Arbeitskreis, LigaRelevance, Priority, Urgency
from tasks.liga_relevance.rules import RULES, check
from tasks.storage import Column, Storage

__all__ = [
    "TASK",
    "Arbeitskreis",
    "Article",
    "LigaRelevance",
    "Priority",
    "Urgency",
    "facets",
    "stratum",
    "time_of",
]

IRRELEVANT = "irrelevant"


def stratum(answer: LigaRelevance) -> str:
    """Return `irrelevant`, or the priority; `none` for a relevant answer without one."""
    if not answer.relevant:
        return IRRELEVANT
    return answer.priority.value if answer.priority else "none"


def facets(answer: LigaRelevance) -> frozenset[str]:
    """Return whether an answer is relevant, its priority, and each Arbeitskreis."""
    if not answer.relevant:
        return frozenset({IRRELEVANT})
    priority = {f"priority:{answer.priority.value}"} if answer.priority else set()
    return frozenset({"relevant", *priority, *(f"ak:{ak.value}" for ak in answer.assigned_aks)})


def time_of(article: Article) -> datetime | None:
    """Return when an article was published (in UTC where it names no zone), None if it says none.

    Only ISO 8601 counts: a day read as a month would put an article into another split.
    """
    try:
        found = datetime.fromisoformat(article.published_at.strip())
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _read(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _prompt(name: str) -> str:
    """Return a prompt, its lists filled in from the enums so that the two cannot drift apart."""
    return (
        Template(_read(f"prompts/{name}.md"))
        .substitute(
            arbeitskreise="\n".join(f"- {ak.value}: {ak.meaning}" for ak in Arbeitskreis),
            dringlichkeit="\n".join(f'- {u.guide} → "{u.priority.value}"' for u in Urgency),
            felder=", ".join(LigaRelevance.model_fields),
        )
        .strip()
    )


TASK = Task(
    name="liga_relevance",
    version="1",
    item=Article,
    output=LigaRelevance,
    system_prompt=_prompt("system"),
    label_prompt=_prompt("label"),
    correction_prompt=_read("prompts/correction.md").strip(),
    backfill_prompt=_read("prompts/backfill.md").strip(),
    user_message=user_message,
    check=check,
    stratum=stratum,
    positive=lambda answer: answer.relevant,
    text_of=text_of,
    canary=Article.model_validate(json.loads(_read("canary.json"))),
    canary_strata=frozenset({"high", "medium"}),
    chat=QWEN3,
    # The temperature is the one that the backend sends. About 800 tokens of system prompt, 2,500
    # of the longest article and 4,096 of the longest answer fit into the context.
    serving=Serving(temperature=0.1, num_ctx=8192, num_predict=4096, repeat_penalty=1.0),
    text_fields=("title", "content"),
    facets=facets,
    time_of=time_of,
    ordinal={"priority": (None, Priority.LOW, Priority.MEDIUM, Priority.HIGH)},
    calibrated={"relevance_score": "relevant"},
    matters=("relevant.f1", "priority.kappa", "assigned_aks", "rules"),
    rules=RULES,
    # `length` is that of the backend's own column: one longer value loses its whole batch.
    storage=Storage(
        table="items",
        columns={
            "summary": Column(edited=True, left_over=True),
            "detailed_analysis": Column(edited=True, left_over=True),
            "priority": Column(length=20, null="none", edited=True),
            "assigned_aks": Column(edited=True),
        },
        answered=("relevant", "relevance_score", "reasoning"),
        textless={"relevant": False, "priority": None, "assigned_aks": []},
        fallback="Automatische Analyse nicht verfügbar.",
    ),
)
