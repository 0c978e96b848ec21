"""Too little training text for an importance matrix is told before the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import files, stages
from contracts.errors import SettingsInvalid
from contracts.params import GgufParams
from contracts.stage import InputRef, Stage
from driver import forecast, preflight
from tasks import load_task
from tests.unit.model_stages import TASK, chat_row


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what looks at a stage whose training rows repeat a word so often."""
    monkeypatch.setattr(forecast, "announce", lambda _session: None)  # is another question

    def look(stage: Stage, words: int, *, imatrix: bool = True) -> None:
        files.write_jsonl(tmp_path / "train.jsonl", [chat_row("r", "wie " * words, "Ja.")])
        split = InputRef(path="train.jsonl", digest="", bytes=0)
        gguf = GgufParams(outtype=("q4_k_m",), imatrix=imatrix)
        session: Any = SimpleNamespace(
            workspace=tmp_path, settings=SimpleNamespace(gguf=gguf), task=load_task(TASK)
        )
        step: Any = SimpleNamespace(stage=stage, inputs={stages.TRAIN_SPLIT.name: split})
        preflight.check_stage(session, step)

    return look


@pytest.mark.parametrize("stage", [stages.TRAIN, stages.convert_stage(one_pass=True, imatrix=True)])
def test_few_rows_are_refused_where_a_matrix_is_asked_for(
    ask: Callable[..., None], stage: Stage
) -> None:
    with pytest.raises(SettingsInvalid, match=r"gguf\.imatrix") as refused:
        ask(stage, 400)
    assert "1,024" in refused.value.why
    assert "gguf.imatrix=false" in refused.value.todo
    ask(stage, 400, imatrix=False)
    ask(stage, 1200)
