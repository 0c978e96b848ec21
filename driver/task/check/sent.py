"""What the backend was seen to send: a request to /api/chat as somebody has recorded it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import FileUnusable
from driver.task.check.finding import Compared, Finding
from driver.task.check.prompt import FORM_LEADS_TO, Form, differing_system, form_of_task
from driver.task.source import Source

PLACE = "request"
_BEGINNING = 200  # characters of a message that are shown


def read(path: Path) -> dict[str, Any]:
    """Return the request in a file, as JSON; raises `FileUnusable` for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileUnusable(f"{path} is not JSON", why=str(error)) from error
    if not isinstance(found, dict) or not isinstance(found.get("messages"), list):
        raise FileUnusable(
            f"{path} is no request to /api/chat",
            why="it is no JSON object with a list of messages",
        )
    return found


def compare(source: Source, request: Mapping[str, Any], name: str) -> Compared:
    """Compare the messages of a request with those that a model is trained on."""
    said = {
        str(each.get("role")): str(each.get("content"))
        for each in request["messages"]
        if isinstance(each, dict)
    }
    findings = list[Finding]()
    if "system" in said:
        findings += differing_system(source, f"{name}: system", said["system"], ())
    if "user" in said:
        findings += _differing_user(source, f"{name}: user", said["user"])
    return Compared(PLACE, tuple(findings), (), len(said))


def _differing_user(source: Source, place: str, said: str) -> Iterator[Finding]:
    form = form_of_task(source)
    found = _pattern(form).fullmatch(said)
    if found is None:
        yield Finding(
            place,
            f"the message begins {said[:_BEGINNING]!r}, and the task's form is {form.shown()}",
            FORM_LEADS_TO,
            "Send exactly the task's form, or change Task.user_message and retrain.",
        )
        return
    for text, limit in zip(found.groups(), form.limits, strict=True):
        if limit is not None and len(text) > limit:
            yield Finding(
                place,
                f"a text of {len(text)} characters is sent, and the task cuts it at {limit}",
                FORM_LEADS_TO,
                f"Cut it at {limit} characters, or change Task.user_message and retrain.",
            )


def _pattern(form: Form) -> re.Pattern[str]:
    """Return what matches a message of a form, with a group for each gap."""
    return re.compile("(.*?)".join(re.escape(text) for text in form.texts), re.DOTALL)
