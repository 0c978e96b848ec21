"""Asks the model about an item, and stores what it says."""

import json
from pathlib import Path

import httpx

from .models import Item

CONTENT_LIMIT = 6000
SYSTEM_PROMPT = (Path(__file__).parent / "prompts" / "analysis.md").read_text(encoding="utf-8")


class Processor:
    """The analysis of one item at a time."""

    def __init__(self, base_url: str, model: str) -> None:
        self.base_url = base_url
        self.model = model

    async def ask(self, item: Item, source_name: str | None) -> str:
        content = (item.content or "")[:CONTENT_LIMIT]
        prompt = (
            f"Titel: {item.title}\n"
            f"Inhalt: {content}\n"
            f"Quelle: {source_name or 'Unbekannt'}\n"
            f"Datum: {item.published_at or 'Unbekannt'}"
        )
        messages = [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": prompt},
        ]
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"{self.base_url}/api/chat",
                json={"model": self.model, "messages": messages, "stream": False, "think": False},
            )
        return answer.json()["message"]["content"]

    def store(self, item: Item, text: str) -> None:
        data = json.loads(text[text.index("{") : text.rindex("}") + 1])
        if data.get("summary"):
            item.summary = data["summary"]
        if data.get("detailed_analysis"):
            item.detailed_analysis = data["detailed_analysis"]
        item.priority = data.get("priority") or "none"
        item.assigned_aks = data.get("assigned_aks", [])
        item.metadata_["llm_analysis"] = {
            "relevant": data.get("relevant", False),
            "relevance_score": data.get("relevance_score"),
            "argumentationskette": data.get("argumentationskette", []),
            "tags": data.get("tags", []),
            "reasoning": data.get("reasoning"),
        }
