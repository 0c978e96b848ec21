"""A model that is live and has no version of a run: somebody has removed it, or made it by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from driver import promotion, served, taken_back, versions
from serving import connect
from serving.engine import Engine
from tests.unit.test_versions import RUNS, TASK, live, released


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect({"RETRAIN_ENGINE": "llamacpp"}, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("by_hand", [False, True], ids=["its tag removed", "made over the name"])
def test_what_is_live_without_a_version_is_taken_back_and_keeps_a_name(
    tmp_path: Path, engine: Engine, *, by_hand: bool
) -> None:
    """Its last name would be gone with the switch, and the model with it."""
    first, second = [released(tmp_path, engine, run) for run in RUNS[:2]]
    served.accept(tmp_path, {}, first.alias, first.digest, served.VERIFIED)
    if by_hand:
        (tmp_path / "hand.gguf").write_text("made by hand")
        engine.create("news:latest", tmp_path / "hand.gguf", TASK.modelfile())
    else:
        engine.delete(second.tag)
    bad = live(engine)
    target, left = versions.roll_back(tmp_path, engine, "news")
    assert target.tag == first.tag
    assert live(engine) == target.digest
    assert left == f"news:before-{bad[:12]}"
    assert engine.models()[left].digest == bad
    assert {bad, left} <= {*taken_back.rejected(tmp_path)}


def test_a_switch_deletes_no_model(tmp_path: Path, engine: Engine) -> None:
    """Whoever asks for it: a verification that takes a model back, say."""
    first, second = [released(tmp_path, engine, run) for run in RUNS[:2]]
    engine.delete(second.tag)
    promotion.switch(tmp_path, engine, "news:latest", first.tag)
    assert second.digest in {model.digest for model in engine.models().values()}


def test_a_version_made_by_hand_has_no_age(tmp_path: Path, engine: Engine) -> None:
    """A mend in an outage, say: it bars no good version, and there is a way back from it."""
    first, second = [released(tmp_path, engine, run) for run in RUNS[:2]]
    served.accept(tmp_path, {}, first.alias, second.digest, served.VERIFIED)
    (tmp_path / "hand.gguf").write_text("made by hand")
    mend = engine.create("news:mend", tmp_path / "hand.gguf", TASK.modelfile())
    assert versions.roll_back(tmp_path, engine, "news", "mend")[1] == second.tag
    assert taken_back.rejected(tmp_path) == []
    assert versions.roll_back(tmp_path, engine, "news")[0].tag == second.tag
    assert mend.digest in taken_back.rejected(tmp_path)
