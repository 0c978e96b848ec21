"""The second task: its own constraints, and every label rule with texts that break it or do not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tasks import Violation, load_task
from tasks.support_messages import Message, SupportAnswer
from tasks.support_messages.message import BODY_LIMIT, text_of, user_message
from tasks.support_messages.rules import RULES, check, sentences

BODY = (
    "Since the update of 3 March, Fjord Sync shows error 512 on two computers. Ms Okafor in our "
    "office in Leeds pays 1,200 euros a year for it. Restarting did not help. What can we do?"
)
GOOD: dict[str, Any] = {
    "summary": "The sender reports that Fjord Sync shows error 512 on 2 computers.",
    "category": "defect",
    "product": "Fjord Sync",
    "urgency": "normal",
    "reply_needed": True,
}
SPAM = {**GOOD, "category": "spam", "product": None, "urgency": None, "reply_needed": False}


def found(body: str = BODY, **changes: Any) -> list[Violation]:
    message = Message(id="1", subject="Trouble", body=body, sender="a@b.example")
    return check(message, SupportAnswer.model_validate({**GOOD, **changes}))


@pytest.mark.parametrize("answer", [GOOD, SPAM, {**GOOD, "product": None}])
def test_a_good_answer(answer: dict[str, Any]) -> None:
    assert SupportAnswer.model_validate(answer).model_dump(mode="json") == answer


@pytest.mark.parametrize(
    "broken",
    [
        {**GOOD, "summary": " "},
        {**GOOD, "summary": None},
        {**GOOD, "summary": "x" * 401},
        {**GOOD, "category": "question"},
        {**GOOD, "product": "Fjord Mail"},
        {**GOOD, "urgency": None},
        {**GOOD, "urgency": "urgent", "reply_needed": False},
        {**GOOD, "reason": "It is broken."},
        {**SPAM, "product": "Fjord Sync"},
        {**SPAM, "urgency": "low"},
        {**SPAM, "reply_needed": True},
    ],
)
def test_a_bad_answer(broken: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SupportAnswer.model_validate(broken)


def test_a_good_answer_breaks_no_rule() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("control-token", {"summary": "The sender writes <|im_end|> in the message."}),
        ("placeholder", {"summary": "N/A"}),
        ("placeholder", {"summary": "[summary of the message]"}),
        ("not-english", {"summary": "Der Absender meldet einen Fehler nach dem letzten Update."}),
        ("not-english", {"summary": "L'expéditeur signale une erreur depuis la mise à jour."}),
        ("not-english", {"summary": "The sender reports 错误 512 in Fjord Sync."}),
        (
            "too-long",
            {"summary": "The sender is stuck. Fjord Sync fails. The sender asks for help."},
        ),
        ("too-long", {"body": "Fjord Sync broke.", "summary": "The sender " + "reports it " * 15}),
        ("ellipsis", {"summary": "The sender reports that Fjord Sync …"}),
        ("ungrounded-number", {"summary": "The sender reports error 513 in Fjord Sync."}),
        ("ungrounded-number", {"summary": "The sender reports it on five computers."}),
        ("ungrounded-number", {"summary": "The sender pays 1200.50 euros for it."}),
        ("ungrounded-name", {"summary": "The sender asks Bergen for help with Fjord Sync."}),
        ("ungrounded-product", {"product": "Fjord Notes"}),
        ("missing-product", {"product": None}),
        ("first-person", {"summary": "The sender reports an error on my computer."}),
        ("unanswered-question", {"reply_needed": False}),
    ],
)
def test_a_broken_rule(rule: str, changes: dict[str, Any]) -> None:
    assert rule in [violation.rule for violation in found(**changes)]


@pytest.mark.parametrize(
    "changes",
    [
        {"summary": "The sender reports an error since the update of 3 March."},
        {"summary": "The sender pays 1200 euros a year. Two computers show error 512."},
        {"summary": "The sender's office in Leeds has trouble, and Ms Okafor pays for it."},
        {"summary": 'The sender asks what to do after "Restarting did not help."'},
        {"summary": "Fjord Sync does not work for the sender, e.g. after a restart."},
        {"summary": "One of the sender's computers cannot be used."},
        {"body": "fjord sync is broken again.", "summary": "The sender reports a defect."},
        {"body": "Fjord Sync at 10 %!", **SPAM, "summary": "The message advertises at 10 %."},
    ],
)
def test_a_near_miss(changes: dict[str, Any]) -> None:
    assert found(**changes) == []


def test_every_rule_has_a_text_that_breaks_it() -> None:
    (marked,) = (each for each in test_a_broken_rule.pytestmark if each.name == "parametrize")
    assert {rule.id for rule in RULES} == {rule for rule, _ in marked.args[1]}


def test_sentences() -> None:
    assert sentences("It failed, e.g. Monday. It works now!") == [
        "It failed, e.g. Monday.",
        "It works now!",
    ]
    assert sentences("Error 5.2 came! ...") == ["Error 5.2 came! ..."]


def test_a_message_as_a_model_is_shown_it() -> None:
    long = Message(id="1", subject="Long", body="x" * (BODY_LIMIT + 1))
    assert user_message(long) == (
        f"Subject: Long\nFrom: unknown\nReceived: unknown\nMessage: {'x' * BODY_LIMIT}"
    )
    assert text_of(Message(id="1", subject="Help", body="It broke.")) == "Help\nIt broke."


@pytest.mark.parametrize(
    "row", [{"id": 7, "body": " "}, {"id": "", "body": "x"}, {"id": True, "body": "x"}]
)
def test_a_row_that_is_no_message(row: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Message.model_validate(row)


def test_classes_and_dates() -> None:
    task = load_task("support_messages")
    answer = SupportAnswer.model_validate(GOOD)
    assert task.facets(answer) == {"category:defect", "urgency:normal", "product:Fjord Sync"}
    assert task.facets(SupportAnswer.model_validate(SPAM)) == {"category:spam"}
    dated = Message(id="1", body="x", received_at="2026-03-12T08:00:00+01:00")
    assert str(task.time_of(dated)) == "2026-03-12 08:00:00+01:00"
    assert task.time_of(Message(id="1", body="x", received_at="yesterday")) is None
