"""Asking Ollama, and reading what it says: exactly as production does, its failures included."""

import json
import re
import urllib.request
from typing import Any

from .settings import Settings

FALLBACK_TEXT = "Automatische Analyse nicht verfügbar."
_CONTENT_LIMIT = 6000
_FIELDS = (
    "summary",
    "detailed_analysis",
    "argumentationskette",
    "relevant",
    "relevance_score",
    "priority",
    "assigned_aks",
    "tags",
    "reasoning",
)
# The environment's proxy is for the internet; Ollama is on this host or in this network.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def user_message(item: dict[str, Any]) -> str:
    """Return what the model is shown of an item."""
    return (
        f"Titel: {item['title'] or ''}\n"
        f"Inhalt: {(item['content'] or '')[:_CONTENT_LIMIT]}\n"
        f"Quelle: {item['source'] or 'Unbekannt'}\n"
        f"Datum: {item['published_at'] or 'Unbekannt'}"
    )


def ask(settings: Settings, item: dict[str, Any]) -> str:
    """Return the model's text; raises OSError or ValueError where Ollama gives none in time."""
    body = {
        "model": settings.ollama_model,
        "messages": [
            {"role": "system", "content": settings.system_prompt},
            {"role": "user", "content": user_message(item)},
        ],
        "stream": False,
        "think": False,
        "options": {"temperature": 0.1, "num_predict": settings.num_predict},
    }
    request = urllib.request.Request(  # noqa: S310  # the URL is the operator's own setting
        f"{settings.ollama_url}/api/chat",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with _OPENER.open(request, timeout=settings.llm_timeout_s) as answer:
        return str(json.load(answer)["message"]["content"])


def tags(settings: Settings) -> list[str] | None:
    """Return the names of Ollama's models; None where it does not answer."""
    try:
        with _OPENER.open(f"{settings.ollama_url}/api/tags", timeout=2) as answer:
            return [model["name"] for model in json.load(answer)["models"]]
    except (OSError, ValueError, KeyError):
        return None


def analysis_in(text: str) -> dict[str, Any]:
    """Return the analysis in a model's text; the fallback where there is none, never an error."""
    unfenced = re.sub(r"```(?:json)?", "", text)
    try:
        found = json.loads(_first_braces(unfenced))
    except ValueError:
        return {
            "detailed_analysis": FALLBACK_TEXT,
            "relevant": False,
            "priority": None,
            "assigned_aks": [],
            "reasoning": FALLBACK_TEXT,
        }
    if "assigned_aks" not in found and "assigned_ak" in found:
        found["assigned_aks"] = [found["assigned_ak"]] if found["assigned_ak"] else []
    return {name: found[name] for name in _FIELDS if name in found}


def _first_braces(text: str) -> str:
    """Return the first balanced {…}; raises ValueError where there is none."""
    depth, start = 0, text.index("{")
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start : position + 1]
    raise ValueError("braces never close")
