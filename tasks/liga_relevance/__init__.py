"""News relevance for the Liga der Freien Wohlfahrtspflege Hessen: THE definition of the task."""

import json

from tasks import texts
from tasks.chat import QWEN3
from tasks.definition import Serving, Task
from tasks.item import moment
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


def _prompt(name: str) -> str:
    """Return a prompt, its lists filled in from the enums so that the two cannot drift apart."""
    return texts.prompt(
        __name__,
        name,
        arbeitskreise="\n".join(f"- {ak.value}: {ak.meaning}" for ak in Arbeitskreis),
        dringlichkeit="\n".join(f'- {u.guide} → "{u.priority.value}"' for u in Urgency),
        felder=", ".join(LigaRelevance.model_fields),
    )


TASK = Task(
    name="liga_relevance",
    version="1",
    item=Article,
    output=LigaRelevance,
    system_prompt=_prompt("system"),
    label_prompt=_prompt("label"),
    correction_prompt=texts.read(__name__, "prompts/correction.md").strip(),
    backfill_prompt=texts.read(__name__, "prompts/backfill.md").strip(),
    user_message=user_message,
    check=check,
    stratum=stratum,
    positive=lambda answer: answer.relevant,
    text_of=text_of,
    canary=Article.model_validate(json.loads(texts.read(__name__, "canary.json"))),
    canary_strata=frozenset({"high", "medium"}),
    chat=QWEN3,
    # The temperature is the one that the backend sends. About 800 tokens of system prompt, 2,500
    # of the longest article and 4,096 of the longest answer fit into the context.
    serving=Serving(temperature=0.1, num_ctx=8192, num_predict=4096, repeat_penalty=1.0),
    text_fields=("title", "content"),
    facets=facets,
    time_of=lambda article: moment(article.published_at),
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
