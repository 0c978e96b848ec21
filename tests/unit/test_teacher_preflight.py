"""Before labelling: a teacher that is away stops a run only where it may be needed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import EngineUnavailable
from contracts.label_cache import CACHE_FILE, LabelCache
from driver import preflight
from driver.settings import BackendSettings

ADDRESS = "127.0.0.1:9"
"""Nobody listens there."""


def session(workspace: Path, backend: BackendSettings | None = None) -> Any:
    settings = SimpleNamespace(
        label=SimpleNamespace(teacher="qwen3:32b"), teachers=(ADDRESS,), backend=backend
    )
    addresses = {"RETRAIN_TEACHERS": ADDRESS}
    return SimpleNamespace(workspace=workspace, settings=settings, addresses=addresses)


def remember(workspace: Path) -> None:
    with LabelCache(workspace / CACHE_FILE) as cache:
        cache.put_teachers({f"qwen3:32b at http://{ADDRESS}": "d1"})


def test_one_that_never_told_who_it_is_stops_it(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        preflight.check_teacher(session(tmp_path))


def test_one_that_is_known_leaves_it_to_the_stage(tmp_path: Path) -> None:
    remember(tmp_path)
    preflight.check_teacher(session(tmp_path))


@pytest.mark.parametrize("here", [True, False])
def test_the_backend_is_not_stopped_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    remember(tmp_path)
    monkeypatch.setattr(preflight, "teacher_is_here", lambda _: here)
    of = session(tmp_path, BackendSettings())
    if here:
        with pytest.raises(EngineUnavailable):
            preflight.check_teacher(of)
    else:
        preflight.check_teacher(of)
