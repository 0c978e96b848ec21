"""Near-duplicates and the whole split stage at 1,000, 10,000 and 100,000 articles.

The stage's search (MinHash bands of datasketch, then exact Jaccard) stands beside comparing all
pairs (1,000 articles) and the prefix filter in plain Python that the stage had before (more); all
must find the same groups. Beside the planted copies that it finds stands what comparing titles
finds. Each measurement has a process of its own, for the peak memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import prefix_filter
from benchmarks.german_texts import Text, texts
from contracts import files
from contracts.entrypoint import execute
from contracts.params import SplitParams
from contracts.stages import SPLIT
from images.labeler.groups import near_duplicates
from images.labeler.shingles import ShingleSets, shingles
from tests.jobs import inputs_in, job_of

LABELS = files.ROOT / "examples" / "liga-sample" / "labels.jsonl"
THRESHOLD = 0.7
ALL_PAIRS_UP_TO = 1_000

Groups = list[list[int]]


def ours(given: list[Text]) -> Groups:
    """Return the groups as the stage finds them."""
    sets = ShingleSets(text.content for text in given)
    return near_duplicates(sets, THRESHOLD).members()


def prefix(given: list[Text]) -> Groups:
    """Return them by the prefix filter in plain Python."""
    sets = [prefix_filter.shingles(text.content) for text in given]
    return sorted(prefix_filter.groups(len(sets), prefix_filter.similar_pairs(sets, THRESHOLD)))


def all_pairs(given: list[Text]) -> Groups:
    """Return them by comparing every text with every other."""
    sets = [shingles(text.content) for text in given]
    pairs = (
        (i, j, similarity)
        for j, one in enumerate(sets)
        for i in range(j)
        if (similarity := len(one & sets[i]) / len(one | sets[i])) >= THRESHOLD
    )
    return sorted(prefix_filter.groups(len(sets), pairs))


def by_title(given: list[Text]) -> Groups:
    """Return articles of one title: what was looked at before there was a search."""
    same: dict[str, list[int]] = {}
    for number, text in enumerate(given):
        same.setdefault(text.title, []).append(number)
    return list(same.values())


def stage(given: list[Text]) -> Groups:
    """Run the whole stage with labels of the sample; there are no groups to compare."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = root / "store" / "split" / "f"
        folder.mkdir(parents=True)
        items = ({"id": f"i{n}", **_article(text, n)} for n, text in enumerate(given))
        files.write_jsonl(root / "items.jsonl", items)
        known = [row["label"] for row in files.read_jsonl(LABELS)]
        labels = (
            {"id": f"i{n}", "label": known[n % len(known)], "origin": "teacher"}
            for n in range(len(given))
        )
        files.write_jsonl(root / "labels.jsonl", labels)
        job = job_of(SPLIT, SplitParams(), inputs_in(root, SPLIT))
        from images.labeler import split

        execute(SPLIT, job, root, folder, split.work, lambda _: None)
    return []


def _article(text: Text, number: int) -> dict[str, str]:
    day = f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}"
    return {"title": text.title, "content": text.content, "published_at": day}


# --- measuring -----------------------------------------------------------------------------------
WAYS: dict[str, Callable[[list[Text]], Groups]] = {
    each.__name__: each for each in (ours, prefix, all_pairs, by_title, stage)
}


def measure(way: str, count: int) -> dict[str, Any]:
    """Return the seconds of one way, the peak memory it added in MiB, and what it found."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (way, count))


def _measured(way: str, count: int) -> dict[str, Any]:
    given = texts(count)
    before = _peak_mib()
    started = time.perf_counter()
    groups = WAYS[way](given)
    seconds = time.perf_counter() - started
    group_of = {text: number for number, group in enumerate(groups) for text in group}
    copies = [(n, text.copy_of) for n, text in enumerate(given) if text.copy_of is not None]
    joined = sum(group_of.get(a) == group_of.get(b) for a, b in copies)
    return {
        "s": round(seconds, 2),
        "mib": round(_peak_mib() - before),
        "peak_mib": round(_peak_mib()),
        "planted_found": round(joined / len(copies), 4),
        "groups": files.digest_text(files.canonical_json(groups)),
        "sizes": Counter(map(len, groups)),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compared(count: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the lines for one size, and the seconds by way for the growth."""
    beside = "all_pairs" if count <= ALL_PAIRS_UP_TO else "prefix"
    mine, other, title, whole = (measure(w, count) for w in ("ours", beside, "by_title", "stage"))
    if mine["groups"] != other["groups"]:
        raise SystemExit(f"{count} articles: ours and {beside} find other groups")
    print(
        f"{count:,} articles: search {mine['s']} s; whole stage {whole['s']} s, "
        f"peak {whole['peak_mib']} MiB; the same groups as {beside}",
        flush=True,
    )
    name = f"{count} articles, beside {beside}"
    lines = [
        _line(f"near-duplicates of {name}", mine["s"], other["s"], "s"),
        _line(f"memory for {name}", mine["mib"], other["mib"], "MiB"),
        _line(
            f"planted copies found, {count} articles, beside comparing titles",
            mine["planted_found"],
            title["planted_found"],
            "share",
        ),
    ]
    return lines, {"ours": mine["s"], beside: other["s"], "stage": whole["s"]}


def _line(name: str, own: float, other: float, unit: str) -> dict[str, Any]:
    ratio = own / max(other, 1e-4) if unit == "share" else other / max(own, 1e-4)
    return {"name": name, "ours": own, "other": other, "ratio": round(ratio, 2), "unit": unit}


def main() -> None:
    """Print the figures; ratio above 1: ours is better."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 50 s on two cores")
    sizes = (1_000, 10_000) if parser.parse_args().quick else (1_000, 10_000, 100_000)
    lines = []
    last: dict[str, float] = {}
    for count in sizes:
        found, seconds = compared(count)
        lines += found
        growth = {way: round(s / last[way], 1) for way, s in seconds.items() if way in last}
        if growth:
            shown = ", ".join(f"{way} {times}" for way, times in growth.items())
            print(f"ten times the articles, so many times the seconds: {shown}", flush=True)
        last = seconds
    for line in lines:
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
