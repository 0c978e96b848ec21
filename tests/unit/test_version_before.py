"""Which version a rollback without a name goes to, after others with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from driver import promotion, served, taken_back, versions
from serving.engine import Engine
from tests.unit.test_versions import RUNS, TASK, Killed, engine, live, released

__all__ = ["engine"]


@pytest.mark.parametrize(
    "place", ["engine.copy", "engine.unload", "served._write", "promotion._drop"]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_way_forward_leads_back_to_what_was_left_also_after_a_kill(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, place: str, *, after: bool
) -> None:
    """Not to the version between them, which somebody has passed by."""
    first, _, third = [released(tmp_path, engine, run) for run in RUNS[:3]]
    versions.roll_back(tmp_path, engine, "news", RUNS[0])
    owners = {"engine": engine, "served": served, "promotion": promotion}
    owner, name = owners[place.partition(".")[0]], place.partition(".")[2]
    real = getattr(owner, name)

    def killed(*given: Any, **named: Any) -> None:
        if after:
            real(*given, **named)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(Killed):
            versions.roll_back(tmp_path, engine, "news", RUNS[2])
    if not (after and name == "_drop"):  # else it was over, and this is another one
        assert versions.roll_back(tmp_path, engine, "news")[0].tag == third.tag
    assert (live(engine), taken_back.rejected(tmp_path)) == (third.digest, [])
    assert versions.roll_back(tmp_path, engine, "news")[0].tag == first.tag
    assert third.tag in taken_back.rejected(tmp_path)


def test_from_a_version_made_by_hand_there_is_a_way_back(tmp_path: Path, engine: Engine) -> None:
    made = released(tmp_path, engine, RUNS[0])
    (tmp_path / "hand.gguf").write_text("made by hand")
    engine.create("news:mine", tmp_path / "hand.gguf", TASK.modelfile())
    versions.roll_back(tmp_path, engine, "news", "mine")
    assert versions.roll_back(tmp_path, engine, "news")[0].tag == made.tag


def test_a_model_is_as_old_as_its_newest_version(tmp_path: Path, engine: Engine) -> None:
    """By whatever name it is asked for: the way to it is one forward, and takes nothing back."""
    _, second, _ = [
        released(tmp_path, engine, run, content=content)
        for run, content in zip(RUNS, ("one", "two", "one"), strict=False)
    ]
    for tag in (RUNS[0], RUNS[2]):
        versions.roll_back(tmp_path, engine, "news", RUNS[1])
        versions.roll_back(tmp_path, engine, "news", tag)
        assert taken_back.rejected(tmp_path) == []
        assert versions.roll_back(tmp_path, engine, "news")[0].tag == second.tag


def test_a_version_of_a_smaller_context_is_doubted(tmp_path: Path, engine: Engine) -> None:
    """It may be from before the task's was raised. The way back to it stays open all the same."""
    made = released(tmp_path, engine, RUNS[0])
    own = TASK.serving.num_ctx
    assert versions.smaller_context(engine, made.tag, own) == ""
    told = versions.smaller_context(engine, made.tag, own + 1)
    assert f"The num_ctx of {made.tag} is {own}, the task's {own + 1}" in told
    assert versions.smaller_context(engine, "news:gone", own) == ""
