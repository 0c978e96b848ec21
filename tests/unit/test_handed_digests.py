"""A stage hands over the digests of what it wrote; publishing believes them as long as it may."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts import files
from contracts.entrypoint import RESULT_FILE, StageContext
from contracts.params import MergeMetrics
from contracts.stage import Result
from contracts.stages import MERGE, MERGED
from tests.unit.model_stages import folder_of, run

WRONG = "0" * 64
DONE = MergeMetrics(merged_modules=1, bytes=1)


def published(root: Path, after: Any = None, digest: str = WRONG) -> Result:
    """Publish two files, of which the stage digested one; `after` changes it once more."""

    def work(context: StageContext[Any]) -> MergeMetrics:
        out = context.output(MERGED)
        out.mkdir(parents=True)
        (out / "a").write_text("a")
        (out / "b").write_text("b")
        context.digested(out / "a", digest)
        if after:
            after(out / "a")
        return DONE

    return run(root, replace(MERGE, inputs=()), work, {}, {})


def expected(a: str) -> str:
    return files.digest_text(files.canonical_json([("a", a), ("b", files.digest_text("b"))]))


def test_the_digest_of_the_stage_is_taken_and_the_other_file_is_read(tmp_path: Path) -> None:
    assert published(tmp_path).outputs["merged"].digest == expected(WRONG)


def test_a_right_digest_is_what_reading_gives(tmp_path: Path) -> None:
    digest = published(tmp_path, digest=files.digest_text("a")).outputs["merged"].digest
    assert digest == files.digest_path(folder_of(tmp_path, MERGE) / "out" / "merged")


@pytest.mark.parametrize(
    "change", [lambda path: path.write_text("aa"), lambda path: os.utime(path, ns=(1, 1))]
)
def test_a_file_that_was_changed_afterwards_is_read(tmp_path: Path, change: Any) -> None:
    digest = published(tmp_path, change).outputs["merged"].digest
    assert digest == files.digest_path(folder_of(tmp_path, MERGE) / "out" / "merged")


def test_a_kill_while_outputs_are_read_leaves_what_was_published_and_what_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path)
    folder = folder_of(tmp_path, MERGE)
    before = (folder / RESULT_FILE).read_bytes()

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "digest_path", killed)
    with pytest.raises(KeyboardInterrupt):
        published(tmp_path)
    assert (folder / RESULT_FILE).read_bytes() == before
    assert (folder / "out" / "merged" / "a").exists()
    assert (folder / "work" / "out" / "merged" / "a").exists()
