"""A tiny real Qwen3 as GGUF, for tests of what serves it: made once in a test session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from contracts.files import ROOT

CONVERTER = "convert_hf_to_gguf.py"


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """Return the path of a q8_0 GGUF of the tiny base model, its own chat template in it."""
    return converted(tiny_base, tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def converted(base: Path, gguf: Path) -> Path:
    """Convert a model by llama.cpp's converter and return `gguf`; skip where there is none."""
    tools = Path(os.environ.get("LLAMA_CPP_DIR", ROOT / ".cache" / "llama.cpp"))
    if not (tools / CONVERTER).is_file():
        pytest.skip(f"{tools} has no llama.cpp converter: `make test` fetches it")
    options = ("--outfile", str(gguf), "--outtype", "q8_0", "--model-name", "tiny")
    command = [sys.executable, str(tools / CONVERTER), str(base), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return gguf


def complete(gguf: Path, prompt: str) -> str:
    """Return four tokens that llama.cpp's server adds to the prompt."""
    command = [sys.executable, "-m", "serving.llamacpp_server", str(gguf), "256", "1"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        address = json.loads(server.stdout.readline())["address"]
        body = json.dumps({"prompt": prompt, "n_predict": 4, "temperature": 0}).encode()
        request = urllib.request.Request(  # noqa: S310  # our own server
            f"{address}/completion", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            content: str = json.load(answer)["content"]
        server.stdin.close()
    return content
