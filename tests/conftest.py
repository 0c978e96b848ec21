"""What tests of several folders share."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.files import ROOT, digest_path

# The engine's fixtures are shared by tests/docker and tests/e2e.
pytest_plugins = ("tests.docker.engine",)


@pytest.fixture(scope="session")
def tiny_base(request: pytest.FixtureRequest) -> Path:
    """Return a tiny Qwen3 base model, read-only; it is kept between test runs."""
    from examples import tiny_qwen3

    source = digest_path(ROOT / "examples" / "tiny_qwen3.py")[:12]
    cache = request.config.cache
    assert cache is not None
    out = cache.mkdir("tiny-qwen3") / source
    tiny_qwen3.make(out, hidden=32, layers=2)
    return out
