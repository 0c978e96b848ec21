"""The sample's rows as conversations, for what trains on them."""

from __future__ import annotations

from typing import Any

from contracts import files
from tasks import load_task

TASK = "liga_relevance"
SAMPLE = files.ROOT / "examples" / "liga-sample"


def conversations() -> list[dict[str, Any]]:
    """Return the sample's rows as the split stage writes them: id and messages."""
    task = load_task(TASK)
    labels = {row["id"]: row["label"] for row in files.read_jsonl(SAMPLE / "labels.jsonl")}
    items = [task.item.model_validate(each) for each in files.read_jsonl(SAMPLE / "items.jsonl")]
    answers = [task.output.model_validate(labels[item.id]) for item in items]
    return [
        {"id": item.id, "messages": task.training_messages(item, answer)}
        for item, answer in zip(items, answers, strict=True)
    ]
