"""News relevance for the Liga der Freien Wohlfahrtspflege Hessen: THE definition of the task."""

import json
from importlib import resources
from string import Template

from tasks.chat import QWEN3
from tasks.definition import Serving, Task
from tasks.liga_relevance.article import Article, text_of, user_message
from tasks.liga_relevance.output import Arbeitskreis, LigaRelevance, Priority, Urgency
from tasks.liga_relevance.rules import check

__all__ = ["TASK", "Arbeitskreis", "Article", "LigaRelevance", "Priority", "Urgency", "stratum"]

IRRELEVANT = "irrelevant"


def stratum(answer: LigaRelevance) -> str:
    """Return `irrelevant`, or the priority; `none` for a relevant answer without one."""
    if not answer.relevant:
        return IRRELEVANT
    return answer.priority.value if answer.priority else "none"


def _read(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _prompt(name: str) -> str:
    """Return a prompt, its lists filled in from the enums so that the two cannot drift apart."""
    return (
        Template(_read(f"prompts/{name}.md"))
        .substitute(
            arbeitskreise="\n".join(f"- {ak.value}: {ak.topic}" for ak in Arbeitskreis),
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
)
