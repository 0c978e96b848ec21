"""Stories that are gone and come again, a little changed and under other ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import files
from contracts.errors import FileUnusable, LabelsMissing
from contracts.test_set import TestSet, path_of
from driver.report.split import section
from images.labeler.assignment import SIDES
from tests.unit.test_split import ids, rows, run, text

TASK = "liga_relevance"


def reprinted(row: dict[str, Any], print_: int = 1) -> dict[str, Any]:
    """Return a story under another id, with a word or two more."""
    return {**row, "id": f"{row['id']}-{print_}", "content": f"{row['content']} dpa {print_}"}


def of_story(found: dict[str, Any], *sides: str) -> set[str]:
    """Return the stories of which some print is in the splits."""
    return {key.partition("-")[0] for side in sides for key in ids(found, side)}


def test_a_reprint_of_a_tested_story_that_is_gone_is_tested_in_its_place(tmp_path: Path) -> None:
    given = rows(80)
    before = run(tmp_path, given)
    new = [each for row in given for each in (reprinted(row, 1), reprinted(row, 2))]
    found = run(tmp_path, new)
    tested = ids(before, "test")
    assert of_story(found, "test") == tested
    assert len(found["test"]) == len(tested), "one print of each story"
    assert found["metrics"].frozen == len(tested)
    told = found["report"]["test_set"]
    assert (told["reprints"], told["under_other_ids"], told["gone"]) == (len(tested),) * 2 + (0,)
    assert f"{len(tested)} of the rows are reprints" in section(found["report"])
    again = run(tmp_path, new)
    assert [again[side] for side in SIDES] == [found[side] for side in SIDES]
    assert again["report"]["test_set"]["frozen"] == len(tested)
    assert again["report"]["test_set"]["warning"] == ""


@pytest.mark.parametrize("by", ["class", "time"])
def test_a_reprint_of_a_story_that_was_trained_on_is_never_tested(tmp_path: Path, by: str) -> None:
    given = [{**row, "published_at": "2026-01-01"} for row in rows(80)]
    before = run(tmp_path, given, by=by)
    tested = ids(before, "test")
    kept = [row for row in given if row["id"] in tested]
    new = [{**reprinted(r), "published_at": "2026-09-01"} for r in given if r["id"] not in tested]
    more = [{**row, "published_at": "2026-05-01"} for row in rows(140)[80:]]
    found = run(tmp_path, [*kept, *new, *more], by=by)
    assert tested < ids(found, "test")
    assert not of_story(found, "test") & of_story(before, "train", "validation")


def test_what_is_like_both_is_in_no_split(tmp_path: Path) -> None:
    given = rows(80)
    first = run(tmp_path, given)
    one, other = min(ids(first, "test")), min(ids(first, "train"))
    shared = text(5555, 80).split()
    by_id = {row["id"]: row for row in given}
    by_id[one]["content"], by_id[other]["content"] = " ".join(shared[:66]), " ".join(shared[14:])
    run(tmp_path, given)
    bridge = {**by_id[one], "id": "bridge", "content": " ".join(shared)}
    rest = [row for row in given if row["id"] not in {one, other}]
    for _ in range(2):
        found = run(tmp_path, [*rest, bridge], train_on="all")
        assert all("bridge" not in ids(found, side) for side in SIDES)
        assert found["report"]["test_set"]["barred"] == 1
        (group,) = found["report"]["groups"]
        assert (group["split"], group["kept"]) == ("none", [])
        assert "1 items are left out of every split" in section(found["report"])
    # Once what was trained on is there too, it takes no story of the test set into training.
    found = run(tmp_path, [row for row in given if row["id"] != one] + [bridge])
    assert other in ids(found, "train") | ids(found, "validation")
    assert all("bridge" not in ids(found, side) for side in SIDES)


def test_an_id_that_names_another_story_now_says_less_than_its_text(tmp_path: Path) -> None:
    given = rows(80)
    before = run(tmp_path, given)
    others = [*given[1:], given[0]]
    new = [{**reprinted(row), "id": other["id"]} for row, other in zip(given, others, strict=True)]
    found = run(tmp_path, new)
    story = {other["id"]: row["id"] for row, other in zip(given, others, strict=True)}
    assert {story[key] for key in ids(found, "test")} == ids(before, "test")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 39), st.integers(0, 2)), min_size=35, unique=True),
        min_size=2,
        max_size=4,
    )
)
def test_whatever_is_reprinted_no_story_is_tested_and_trained_on(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[int, int]]]
) -> None:
    folder, stories = tmp_path_factory.mktemp("runs"), rows(40)
    tested: set[str] = set()
    learned: set[str] = set()
    for prints in runs:
        here = [reprinted(stories[story], number) for story, number in prints]
        try:
            found = run(folder, here)
        except LabelsMissing:
            continue
        tested |= of_story(found, "test")
        learned |= of_story(found, "train", "validation")
        assert not tested & learned
        again = run(folder, here)
        assert [again[side] for side in SIDES] == [found[side] for side in SIDES]


# --- the file beside the JSON file ---------------------------------------------------------------
def shingle_files(folder: Path) -> list[Path]:
    return sorted((folder / "test_sets" / TASK).glob("*.shingles"))


def test_it_is_small_and_an_old_one_is_removed(tmp_path: Path) -> None:
    run(tmp_path, rows(40))
    (first,) = shingle_files(tmp_path)
    assert first.stat().st_size < 40 * (8 * 60 + 30)
    run(tmp_path, rows(40), test_set="b")
    run(tmp_path, rows(60))
    names = [each.name.partition(".")[0] for each in shingle_files(tmp_path)]
    assert names == ["b", "default"]
    assert not first.exists()


@pytest.mark.parametrize("damage", ["lost", "cut", "changed"])
def test_a_damaged_one_is_refused(tmp_path: Path, damage: str) -> None:
    run(tmp_path, rows(40))
    (beside,) = shingle_files(tmp_path)
    held = beside.read_bytes()
    changed = {"cut": held[:-8], "changed": held[:-1] + bytes([held[-1] ^ 1])}
    if damage == "lost":
        beside.unlink()
    else:
        beside.write_bytes(changed[damage])
    with pytest.raises(FileUnusable, match=r"default\.json cannot be read") as caught:
        run(tmp_path, rows(40))
    assert beside.name in caught.value.why
    assert caught.value.exit_code == 32


def test_a_kill_before_the_json_file_leaves_the_set_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, rows(40))
    path = path_of(tmp_path, TASK, "default")
    before = TestSet.read(path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            before.with_more({"x": "t"}, {}).with_shingles({"t": b"12345678"}).write(path)
    assert len(shingle_files(tmp_path)) == 2
    assert TestSet.read(path) == before
    run(tmp_path, rows(60))
    assert len(shingle_files(tmp_path)) == 1


def test_a_set_of_an_earlier_version_gets_them_from_what_is_there(tmp_path: Path) -> None:
    given = rows(80)
    before = run(tmp_path, given)
    path = path_of(tmp_path, TASK, "default")
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({key: whole[key] for key in whole if key != "shingles"}))
    shingle_files(tmp_path)[0].unlink()
    assert ids(run(tmp_path, given), "test") == ids(before, "test")
    assert json.loads(path.read_text()) == whole
    assert of_story(run(tmp_path, list(map(reprinted, given))), "test") == ids(before, "test")
