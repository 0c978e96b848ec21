"""The first task's sample: all that its README promises (test_every_task.py has the rest)."""

import collections
import json
import re
import statistics
from itertools import combinations
from pathlib import Path
from typing import Any

from tasks import load_task

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "liga-sample"
TASK = load_task("liga_relevance")


def rows(name: str) -> list[dict[str, Any]]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


ITEMS = rows("items")
LABELS = {row["id"]: row["label"] for row in rows("labels")}


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[n : n + 3]) for n in range(len(words) - 2)}


def test_every_item_has_one_label() -> None:
    ids = [item["id"] for item in ITEMS]
    assert len(ITEMS) >= 320
    assert len(set(ids)) == len(ids)
    assert list(LABELS) == ids
    assert set(ITEMS[0]) == {"id", "title", "content", "source", "published_at", "url"}


def test_classes() -> None:
    strata = collections.Counter(TASK.stratum(TASK.parse(json.dumps(x))) for x in LABELS.values())
    assert set(strata) == {"irrelevant", "high", "medium", "low"}
    assert 0.3 <= 1 - strata["irrelevant"] / len(LABELS) <= 0.4
    assert min(strata.values()) >= 15
    groups = {group for label in LABELS.values() for group in label["assigned_aks"]}
    assert groups == {"AK1", "AK2", "AK3", "AK4", "AK5", "QAG"}


def test_lengths_of_items() -> None:
    lengths = sorted(len(item["content"]) for item in ITEMS)
    assert 290 <= statistics.median(lengths) <= 360
    assert sum(length > 6000 for length in lengths) >= 4
    assert lengths[-1] < 7000


def test_answers_are_short() -> None:
    lengths = [len(TASK.answer_text(TASK.parse(json.dumps(x)))) for x in LABELS.values()]
    assert statistics.mean(lengths) <= 700
    assert statistics.median(lengths) <= 350
    assert sum(length > 1000 for length in lengths) <= 0.12 * len(lengths)


def test_copies_and_nothing_in_between() -> None:
    texts = [(shingles(item["content"]), item) for item in ITEMS]
    alike = collections.Counter[str]()
    for (first, one), (second, other) in combinations(texts, 2):
        share = len(first & second) / len(first | second)
        if share == 1:
            assert one["content"] == other["content"]
            assert one["title"] == other["title"]
            alike["exact"] += 1
        elif share > 0.6:
            assert one["title"] != other["title"]
            assert LABELS[one["id"]] == LABELS[other["id"]]
            alike["near"] += 1
        else:
            # Room for any detector's threshold between copies and siblings of one event.
            assert share < 0.45
    assert alike == {"exact": 12, "near": 12}


def test_different_relevant_items_have_different_texts() -> None:
    """An irrelevant item's label holds no text of its own but the topic's reason."""
    contents = collections.defaultdict(list)
    for item in (item for item in ITEMS if LABELS[item["id"]]["relevant"]):
        contents[LABELS[item["id"]]["reasoning"]].append(item["content"])
    for group in contents.values():
        for one, other in combinations(map(shingles, group), 2):
            assert len(one & other) / len(one | other) > 0.6


def test_canary_is_not_in_the_sample() -> None:
    canary = shingles(TASK.text_of(TASK.canary))
    for item in ITEMS:
        other = shingles(item["content"])
        assert len(canary & other) / len(canary | other) < 0.2


def test_readme_says_that_all_is_synthetic() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "Everything here is synthetic" in readme
    assert f"{len(ITEMS)} German items" in readme
    relevant = sum(label["relevant"] for label in LABELS.values())
    assert f"{relevant} items" in readme
