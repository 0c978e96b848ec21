"""The split: no duplicates across it, every stratum in it, and stable when items are added."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ItemsInvalid, LabelsMissing
from contracts.stages import (
    SPLIT,
)
from driver.report.split import section
from images.labeler import split
from images.labeler.groups import Groups
from tasks import load_task
from tests.unit.labeler_stage import StageRun, label, read_jsonl, write_jsonl

TASK = load_task("liga_relevance")
SIDES = ("train", "validation", "test")
WORDS = [f"wort{i}" for i in range(3000)]


def text(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))  # noqa: S311


def rows(count: int) -> list[dict[str, Any]]:
    """Return distinct items; a third each is irrelevant, high and low."""
    return [
        {"id": f"i{n}", "title": "T", "content": text(n), "priority": (None, "high", "low")[n % 3]}
        for n in range(count)
    ]


def run(
    folder: Path, given: list[dict[str, Any]], origins: dict[str, str] | None = None, **params: Any
) -> dict[str, Any]:
    """Run the stage's work on rows and return its files, parsed."""
    stage = StageRun(SPLIT, folder)
    write_jsonl(
        folder / "items.jsonl",
        [{k: r[k] for k in ("id", "title", "content", "published_at") if k in r} for r in given],
    )
    labels = [
        {
            "id": row["id"],
            "label": label(row["priority"], **_aks(row)),
            "origin": (origins or {}).get(row["id"], "teacher"),
        }
        for row in given
    ]
    write_jsonl(folder / "labels.jsonl", labels)
    metrics = stage.run(split.work, **params)
    sides = {name: read_jsonl(stage.out / f"{name}.jsonl") for name in SIDES}
    report = json.loads((stage.out / "leakage_report.json").read_text())
    return {**sides, "metrics": metrics, "report": report}


def _aks(row: dict[str, Any]) -> dict[str, Any]:
    return {"assigned_aks": row["aks"]} if row["priority"] and "aks" in row else {}


def ids(found: dict[str, Any], name: str) -> set[str]:
    return {row["id"] for row in found[name]}


def test_every_row_once_and_every_stratum_everywhere(tmp_path: Path) -> None:
    found = run(tmp_path, rows(90))
    sides = [ids(found, name) for name in SIDES]
    assert sum(map(len, sides)) == 90 == len(set.union(*sides))
    for name in SIDES:
        assert {row["stratum"] for row in found[name]} == {"irrelevant", "high", "low"}
    assert found["metrics"].test == 12  # 15 % of 30 rounds to 4, in each of three strata
    first = found["test"][0]
    assert [m["role"] for m in first["messages"]] == ["system", "user", "assistant"]
    assert (
        json.loads(TASK.parse(first["messages"][-1]["content"]).model_dump_json()) == first["label"]
    )


def test_the_same_input_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, rows(40))
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "leakage_report.json"):
        first, second = (tmp_path / side / "work" / "out" / name for side in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
    other = run(tmp_path / "c", rows(40), seed=18)
    assert ids(other, "test") != ids(run(tmp_path / "d", rows(40)), "test")


def test_added_items_do_not_bring_test_rows_into_training(tmp_path: Path) -> None:
    before = run(tmp_path, rows(300))
    after = run(tmp_path, rows(450))
    assert ids(before, "test") < ids(after, "test")
    assert after["metrics"].frozen == len(before["test"])
    seen = ids(before, "train") | ids(before, "validation")
    assert not seen & ids(after, "test"), "the model in service was trained on them"
    assert len(after["test"]) == pytest.approx(0.15 * 450, abs=2)


def test_no_duplicate_is_on_two_sides_and_the_reviewed_one_is_kept(tmp_path: Path) -> None:
    given = rows(60)
    twin = {**given[3], "id": "twin", "content": given[3]["content"].upper() + "!"}
    near = {**given[4], "id": "near", "content": " ".join(given[4]["content"].split()[:-4])}
    found = run(tmp_path, [*given, twin, near], origins={"twin": "reviewed"})
    everywhere = set.union(*(ids(found, name) for name in SIDES))
    assert "twin" in everywhere
    assert "i3" not in everywhere
    assert "i4" in everywhere
    assert "near" not in everywhere
    assert found["metrics"].duplicates == 2
    whys = {r["id"]: r["why"] for g in found["report"]["groups"] for r in g["left_out"]}
    assert whys["i3"] == "the same words as twin"
    assert whys["near"].startswith("similarity 0.9")
    assert found["report"]["max_similarity_across_splits"] is None


def test_remaining_similarity_is_measured(tmp_path: Path) -> None:
    given = rows(60)
    shared = text(999, 40)
    for row in given[:30]:
        row["content"] = shared + " " + text(5000 + int(row["id"][1:]), 30)
    found = run(tmp_path, given)
    assert 0.3 < found["report"]["max_similarity_across_splits"] < 0.7
    assert len({side["split"] for side in found["report"]["most_similar"]}) == 2


def test_a_stratum_of_two_is_trained_on_and_three_are_spread(tmp_path: Path) -> None:
    given = rows(30)
    for row in given:
        row["priority"] = None
    given[0]["priority"] = given[1]["priority"] = "high"
    given[2]["priority"] = given[3]["priority"] = given[4]["priority"] = "low"
    found = run(tmp_path, given, validation=0.4, test=0.4)
    assert {"i0", "i1"} <= ids(found, "train")
    for name in SIDES:
        assert sum(row["stratum"] == "low" for row in found[name]) == 1


def test_too_few_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabelsMissing, match="2 distinct labelled items leave nothing for"):
        run(tmp_path, rows(2))


def test_a_label_without_its_item_is_named(tmp_path: Path) -> None:
    run(tmp_path, rows(10))
    items = tmp_path / "items.jsonl"
    items.write_text("".join(items.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ItemsInvalid, match=r"labels\.jsonl, line 1 \(id 'i0'\)"):
        StageRun(SPLIT, tmp_path).run(split.work)


def dated(count: int) -> list[dict[str, Any]]:
    """Return one item a day; ids are in the order of days, items are not."""
    given = rows(count)
    for n, row in enumerate(given):
        row["published_at"] = f"2026-{n // 28 + 1:02}-{n % 28 + 1:02}"
    random.Random(1).shuffle(given)  # noqa: S311
    return given


def test_by_time_the_newest_are_tested_and_what_has_no_date_is_trained_on(tmp_path: Path) -> None:
    undated = [{**row, "id": f"u{n}"} for n, row in enumerate(rows(110)[100:])]
    undated[0]["published_at"] = "3/4/2026"
    found = run(tmp_path, [*dated(100), *undated], by="time", test=0.1, validation=0.1)
    assert ids(found, "test") == {f"i{n}" for n in range(89, 100)}
    assert ids(found, "validation") == {f"i{n}" for n in range(78, 89)}
    assert {f"u{n}" for n in range(10)} < ids(found, "train")
    assert found["report"]["times"]["train"]["undated"] == 10
    assert found["report"]["times"]["train"]["to"] < found["report"]["times"]["test"]["from"]


def test_by_time_a_reprint_counts_from_its_first_print(tmp_path: Path) -> None:
    given = dated(60)
    first = next(row for row in given if row["id"] == "i5")
    reprint = {**first, "id": "reprint", "published_at": "2026-12-01T08:00:00Z"}
    found = run(tmp_path, [reprint, *given], by="time")
    assert "i5" in ids(found, "train")
    assert all("reprint" not in ids(found, side) for side in SIDES)


def test_by_time_without_dates_says_so(tmp_path: Path) -> None:
    with pytest.raises(LabelsMissing, match="nothing for validation and test") as caught:
        run(tmp_path, rows(20), by="time")
    assert caught.value.why == "what has no date is trained on, and 0 have one"


def test_training_may_keep_every_wording_of_a_group(tmp_path: Path) -> None:
    given = rows(60)
    for row in given[:]:
        near = {**row, "id": f"near-{row['id']}", "content": row["content"] + " Nachtrag"}
        given += [near, {**row, "id": f"same-{row['id']}"}]
    one, all_ = (run(tmp_path / name, given, train_on=name) for name in ("one", "all"))
    assert len(all_["train"]) == 2 * len(one["train"])
    assert ids(all_, "test") == ids(one, "test")
    assert len(all_["validation"]) == len(one["validation"])
    assert one["metrics"].duplicates == 120
    assert not any(row["id"].startswith("same") for row in all_["train"])


def test_each_arbeitskreis_is_in_every_split(tmp_path: Path) -> None:
    given = rows(240)
    for n, row in enumerate(given):
        row["aks"] = [f"AK{n % 5 + 1}", *(["QAG"] if n % 40 == 1 else [])]
    found = run(tmp_path, given)
    facets = found["report"]["facets"]
    for ak in ("ak:AK1", "ak:AK2", "ak:AK3", "ak:AK4", "ak:AK5"):
        assert [facets[side][ak] for side in ("validation", "test")] == pytest.approx([5, 5], abs=1)
    assert all(facets[side]["ak:QAG"] >= 1 for side in SIDES)


def test_a_pair_that_minhash_misses_is_joined_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split, "near_duplicates", lambda sets, _: Groups(len(sets)))
    given = rows(60)
    given += [{**row, "id": f"near-{row['id']}", "content": row["content"] + " x"} for row in given]
    found = run(tmp_path, given)
    assert found["report"]["pairs_across_splits"] == 0
    assert found["report"]["max_similarity_across_splits"] is None
    for row in given[:60]:
        places = {s for s in SIDES if {row["id"], f"near-{row['id']}"} & ids(found, s)}
        assert len(places) == 1


def test_the_page_shows_the_report(tmp_path: Path) -> None:
    given = rows(60)
    given.append({**given[0], "id": "<b>copy"})
    before = len(run(tmp_path, given)["test"])
    given.append({**given[1], "id": "new", "content": text(800)})
    page = section(run(tmp_path, given)["report"])
    assert "0 pairs of rows of different splits are similar by 0.7 or more" in page
    assert f"Frozen test set “default”: {before} rows as before" in page
    assert "<td>&lt;b&gt;copy<td>the same words as i0<td>irrelevant<td>i0 (irrelevant)" in page
    assert "<td>ak:AK1" in page
