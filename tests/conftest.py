"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts.files import ROOT, digest_path
from tests.samples import sample_of
from tests.unit.other_user import public_folder

if TYPE_CHECKING:  # it imports much that few tests need
    from tests.unit.finished_run import FinishedRun

# The engine's fixtures are shared by tests/docker and tests/e2e.
pytest_plugins = ("tests.docker.engine",)


@pytest.fixture(scope="session", autouse=True)
def _lock_folder() -> Iterator[None]:
    """Keep the drivers of these tests from the lock of this host, and so from other tests."""
    from driver.locks import FOLDER_VARIABLE

    with public_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        yield


@pytest.fixture(scope="session")
def tiny_base(request: pytest.FixtureRequest) -> Path:
    """Return a tiny Qwen3 base model, read-only; it is kept between test runs."""
    return _tiny_base(request, hidden=32)


@pytest.fixture(scope="session")
def wide_base(request: pytest.FixtureRequest) -> Path:
    """Return one whose matrices are of whole blocks of nf4, as those of real models are."""
    return _tiny_base(request, hidden=64)


@pytest.fixture(scope="session")
def base_for(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Return a function that gives the tiny base model that knows the words of a task's sample."""
    return lambda task: _tiny_base(request, hidden=32, sample=sample_of(task))


def _tiny_base(request: pytest.FixtureRequest, hidden: int, sample: Path | None = None) -> Path:
    from examples import tiny_qwen3

    sample = sample or tiny_qwen3.SAMPLE
    source = digest_path(ROOT / "examples" / "tiny_qwen3.py")[:12]
    cache = request.config.cache
    assert cache is not None
    words = "" if sample == tiny_qwen3.SAMPLE else f"-{sample.name}"
    width = "" if hidden == 32 else f"-{hidden}"
    out = cache.mkdir("tiny-qwen3") / f"{source}{width}{words}"
    tiny_qwen3.make(out, hidden=hidden, layers=2, sample=sample)
    return out


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Return a run that has ended well; to be read only, since all tests share it."""
    from tests.unit.finished_run import make

    return make(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def refused_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Return a run whose candidate the gate has refused; to be read only."""
    from tests.unit.finished_run import make

    return make(tmp_path_factory.mktemp("refused"), refused=True)
