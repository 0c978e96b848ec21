"""A task whose answer has every kind of field, most of them in columns of their own."""

from __future__ import annotations

from dataclasses import replace

from tasks import Column, Storage, load_task
from tests.rendered.kinds import Kinds

KINDS_TASK = replace(
    load_task("liga_relevance"),
    output=Kinds,
    storage=Storage(
        table="messages",
        columns={
            "deadline": Column(edited=True),
            "asked_on": Column(edited=True),
            "number": Column(),
            "exact": Column(length=5),
            "size": Column(),
            "short": Column(length=12, null="-", edited=True),
            "mood": Column(length=40, null="none"),
            "main": Column(),
            "parts": Column(edited=True),
        },
        analysis=("extra", "answer"),
    ),
)
