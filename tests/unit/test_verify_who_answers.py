"""The verify stage: that it is the deployed model that answers, and nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BackendUnavailable, ModelMissing, VerifyFailed
from driver.host_stages import reanalysis
from tests.services.ollama_double import OllamaDouble
from tests.services.running_backend import RunningBackend
from tests.unit.verification_world import (
    ALIAS,
    NEW,
    NEW_DIGEST,
    ROWS,
    World,
    by_label,
    good_world,
    quick_looks,
)

__all__ = ["good_world", "quick_looks"]

Start = Callable[..., RunningBackend]


def test_the_canary_is_asked_directly_too(world: World) -> None:
    world.ollama.script = lambda _: "kein JSON"
    with pytest.raises(VerifyFailed, match="answered the canary with something that is not valid"):
        world.verify()
    assert world.asked() == []


@pytest.fixture
def elsewhere() -> Iterator[OllamaDouble]:
    """Return another Ollama, with a model of the same name."""
    double = OllamaDouble(ALIAS)
    double.script = by_label
    yield double
    double.close()


def test_an_answer_of_another_model_is_seen_by_its_digest(
    tmp_path: Path, ollama: OllamaDouble, elsewhere: OllamaDouble, start_backend: Start
) -> None:
    """The backend asks the right name, of another server: no name shows that."""
    ollama.script = by_label
    world = World(tmp_path / "w", ollama, start_backend(ROWS, OLLAMA_URL=elsewhere.url))
    with pytest.raises(BackendUnavailable, match=rf"not made by {ALIAS}") as caught:
        world.verify()
    assert "OLLAMA_URL" in caught.value.todo
    assert len(elsewhere.asked) == 1, "no further item gets its answer"
    assert "nothing" in caught.value.why


def test_tags_that_share_a_runner_do_not_hide_which_one_answers(world: World) -> None:
    """The version was asked before: /api/ps would go on showing its name, with the same digest."""
    world.ollama.loaded = {NEW_DIGEST: NEW}
    assert world.verify().digest == NEW_DIGEST
    assert world.ollama.loaded == {NEW_DIGEST: ALIAS}


def test_a_runner_that_goes_at_once_is_seen_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OLLAMA_KEEP_ALIVE=0: nothing is loaded once the answer is there."""
    real = reanalysis.reprocess

    def gone(*given: Any) -> reanalysis.Seen:
        found = real(*given)
        world.ollama.loaded.clear()
        return found

    monkeypatch.setattr(reanalysis, "reprocess", gone)
    assert world.verify().failed == 0


def test_the_backend_must_ask_the_alias(
    tmp_path: Path, ollama: OllamaDouble, start_backend: Start
) -> None:
    world = World(tmp_path / "w", ollama, start_backend(ROWS, OLLAMA_MODEL="qwen3:14b"))
    with pytest.raises(BackendUnavailable, match="asks qwen3:14b") as caught:
        world.verify()
    assert "OLLAMA_MODEL=liga-relevance" in caught.value.todo
    assert ollama.asked == []


def test_without_a_backend_the_engine_alone_is_asked(tmp_path: Path, ollama: OllamaDouble) -> None:
    world = World(tmp_path / "w", ollama)
    metrics = world.verify()
    assert metrics.items == ()
    assert metrics.summary() == f"{ALIAS} answered the canary, 9 fields valid"
    ollama.models.remove(ALIAS)
    with pytest.raises(ModelMissing):
        world.verify()
