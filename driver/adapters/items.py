"""What an item of the backend holds: a text, the model's last analysis, the answer that counts.

Pure: an item is the JSON object that `driver/adapters/backend.py` reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

FALLBACK_TEXT = "Automatische Analyse nicht verfügbar."
"""What the backend stores where the model's answer could not be read."""

EDITED_FIELDS = ("summary", "detailed_analysis", "priority", "assigned_aks")
"""Fields of an answer that people can change in the backend's pages."""

LEFT_OVER = ("summary", "detailed_analysis")
"""Texts that stay in the item as they were where a new answer has none."""

ANALYSIS = "llm_analysis"
"""Where, in the item's metadata, the model's last analysis stands."""


def has_text(item: dict[str, Any]) -> bool:
    """Return whether there is anything in the item to analyse."""
    return any(str(item.get(name) or "").strip() for name in ("title", "content"))


def stored_answer(item: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Return the answer that an item holds, for as many of `fields` as it has.

    What people edit stands in the item itself and counts, empty or not; the rest stands in the
    analysis that the model gave. Nothing is made up for a missing field. "none" is the backend's
    word for no priority.
    """
    analysis = analysis_of(item)
    answer: dict[str, Any] = {}
    for name in fields:
        places = (item, analysis) if name in EDITED_FIELDS else (analysis, item)
        for place in places:
            if name in place:
                answer[name] = place[name]
                break
    if answer.get("priority") == "none":
        answer["priority"] = None
    return answer


def reviewed_answer(item: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Return the answer that a person has reviewed: the stored one, without what is left over.

    An answer "irrelevant" has no texts, and the backend then leaves those of an earlier answer
    standing. They are none of the review where everything else says irrelevant too: no priority
    and no Arbeitskreis. A priority beside it is somebody's word, and is not explained away.
    """
    answer = stored_answer(item, fields)
    decided = (answer.get("relevant"), answer.get("priority", ""), answer.get("assigned_aks"))
    # The text of a failed analysis is kept: that one has not said irrelevant.
    if decided == (False, None, []) and FALLBACK_TEXT not in answer.values():
        answer |= {name: None for name in LEFT_OVER if name in answer}
    return answer


def edited(item: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an item's answer that people can change, None for one it has not."""
    return {name: item.get(name) for name in EDITED_FIELDS}


def analysed(item: dict[str, Any]) -> dict[str, Any]:
    """Return what a new analysis changes of an item, in its own form: what reads an item reads
    this too."""
    return {**edited(item), "metadata": {ANALYSIS: analysis_of(item)}}


def analysis_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return the item's last analysis by the model; empty where there is none."""
    metadata = item.get("metadata")
    analysis = metadata.get(ANALYSIS) if isinstance(metadata, dict) else None
    return analysis if isinstance(analysis, dict) else {}
