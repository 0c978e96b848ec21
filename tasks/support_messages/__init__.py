"""Messages to the support of a small software house, in English: THE definition of the task.

A second task beside the first user's: nothing outside of this package knows its fields.
"""

import json

from tasks import texts
from tasks.chat import QWEN3
from tasks.definition import Serving, Task
from tasks.item import moment
from tasks.support_messages.message import Message, text_of, user_message
from tasks.support_messages.output import Category, Product, SupportAnswer, Urgency
from tasks.support_messages.rules import RULES, check

__all__ = ["TASK", "Category", "Message", "Product", "SupportAnswer", "Urgency"]


def facets(answer: SupportAnswer) -> frozenset[str]:
    """Return the category, the urgency and the product, as far as an answer has them."""
    found = {f"category:{answer.category.value}"}
    found |= {f"urgency:{answer.urgency.value}"} if answer.urgency else set()
    found |= {f"product:{answer.product.value}"} if answer.product else set()
    return frozenset(found)


def _prompt(name: str) -> str:
    """Return a prompt, its lists filled in from the enums so that the two cannot drift apart."""
    return texts.prompt(
        __name__,
        name,
        fields=", ".join(SupportAnswer.model_fields),
        categories="\n".join(f"- {each.value}: {each.meaning}" for each in Category),
        urgencies="\n".join(f"- {each.value}: {each.meaning}" for each in Urgency),
        products="\n".join(f"- {each.value}: {each.meaning}" for each in Product),
    )


TASK = Task(
    name="support_messages",
    version="1",
    item=Message,
    output=SupportAnswer,
    system_prompt=_prompt("system"),
    label_prompt=_prompt("label"),
    correction_prompt=texts.read(__name__, "prompts/correction.md").strip(),
    user_message=user_message,
    check=check,
    stratum=lambda answer: answer.category.value,
    positive=lambda answer: answer.reply_needed,
    text_of=text_of,
    canary=Message.model_validate(json.loads(texts.read(__name__, "canary.json"))),
    canary_strata=frozenset({"defect"}),
    chat=QWEN3,
    # About 400 tokens of system prompt, 1,200 of the longest message, 200 of the longest answer.
    serving=Serving(temperature=0.1, num_ctx=4096, num_predict=512, repeat_penalty=1.0),
    text_fields=("subject", "body"),
    facets=facets,
    time_of=lambda message: moment(message.received_at),
    ordinal={"urgency": (None, Urgency.LOW, Urgency.NORMAL, Urgency.URGENT)},
    matters=("category.macro_f1", "urgency.kappa", "reply_needed.f1", "rules"),
    rules=RULES,
)
