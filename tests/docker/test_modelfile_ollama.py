"""The rendered Modelfile in a real Ollama: its own client makes of it what the driver makes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

import pytest

from contracts.stages import GGUF
from driver.task.render import modelfile
from driver.task.source import Source
from serving.ollama import Ollama
from tests.docker.engine import docker
from tests.docker.stage_compose import ROOT
from tests.tiny_gguf import tiny_gguf

__all__ = ["tiny_gguf"]

pytestmark = pytest.mark.docker


def _image() -> str:
    """Return the image of the server, whose client is the one that fits it."""
    told = (ROOT / "tests/services/compose.yml").read_text(encoding="utf-8")
    default = told.split("${OLLAMA_IMAGE:-")[1].split("}")[0]
    return os.environ.get("OLLAMA_IMAGE", default)


def test_the_client_makes_the_same_model_of_it(
    ollama_server: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    source = Source.of("liga_relevance")
    (tmp_path / "Modelfile").write_text(modelfile.render(source), encoding="utf-8")
    shutil.copy(tiny_gguf, tmp_path / GGUF.filename)
    name = f"modelfile-{uuid4().hex[:8]}"
    engine = Ollama(ollama_server)
    engine.create(f"{name}:driver", tiny_gguf, source.task.modelfile())
    folder = f"type=bind,source={tmp_path},target=/rendered,readonly"
    created = ["create", f"{name}:client", "-f", "/rendered/Modelfile"]
    options = ["--rm", "--network", "host", "--mount", folder]
    try:
        docker("run", *options, "-e", f"OLLAMA_HOST={ollama_server}", _image(), *created)
        models = engine.models()
        assert models[f"{name}:client"].digest == models[f"{name}:driver"].digest
    finally:
        for tag in engine.models():
            if tag.startswith(f"{name}:"):
                engine.delete(tag)
