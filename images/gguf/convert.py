"""Stage CONVERT: llama.cpp's own converter, watched, and its result looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from contracts.converter import find_converter
from contracts.entrypoint import StageContext
from contracts.errors import OutOfMemory, SentinelTripped, StageFailed
from contracts.params import (
    GgufMetrics,
    GgufParams,
)
from contracts.stages import (
    GGUF,
    MERGED,
)
from images.gguf.header import Q8_0, GgufInvalid, Header, read_header

_PRE_TOKENIZER = {"qwen3": "qwen2"}
"""By architecture, the name under which llama.cpp knows the tokenizer's word splitting."""
_PERCENT = re.compile(r"Writing:\s*(\d+)%")
_LAST_LINES = 20
_KILLED = -9


def work(context: StageContext[GgufParams]) -> GgufMetrics:
    """Convert the merged model and check what came out."""
    merged, out = context.input(MERGED), context.output(GGUF)
    converter = find_converter()
    out.unlink(missing_ok=True)  # of an attempt that was killed
    command = [
        *(sys.executable, str(converter), str(merged)),
        *("--outtype", context.params.outtype),
        *("--outfile", str(out)),
        *("--model-name", context.job.task),  # else it is guessed from the folder's name
    ]
    _convert(command, converter.parent, context)
    header = _checked_header(out, merged)
    return GgufMetrics(
        bytes=out.stat().st_size,
        tensors=len(header.tensors),
        architecture=str(header.values["general.architecture"]),
    )


def _convert(command: list[str], folder: Path, context: StageContext[GgufParams]) -> None:
    # Our own folder lies beside the converter in the image: without PYTHONPATH it cannot take
    # one of our modules for one of its own.
    ours = ("PYTHONPATH", "PYTHONSAFEPATH", "NO_LOCAL_GGUF")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None  # noqa: S101  # PIPE was asked for
        try:
            for line in _lines(process.stdout):
                if percent := _PERCENT.match(line):
                    context.progress(int(percent[1]), 100, "%")
                else:
                    last.append(line)
                    print(line, file=sys.stderr)  # noqa: T201  # text for people
        except BaseException:
            process.kill()
            raise
    if process.returncode == _KILLED:
        raise OutOfMemory("llama.cpp's converter was killed, most likely for memory")
    if process.returncode:
        raise StageFailed(
            f"llama.cpp's converter failed with exit code {process.returncode}",
            why="\n".join(last),
        )


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield lines as they come; a progress bar ends its lines with a carriage return."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
        yield from (line.decode("utf-8", "replace") for line in whole if line.strip())
    if rest.strip():
        yield rest.decode("utf-8", "replace")


def _checked_header(path: Path, merged: Path) -> Header:
    """Read the file back; raise `SentinelTripped` where it is not the merged model."""
    try:
        header = read_header(path)
    except (GgufInvalid, OSError) as error:
        raise SentinelTripped(
            "sentinel gguf: the file cannot be read back", why=str(error)
        ) from error
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    architecture = config["model_type"]
    _same("architecture", header.values.get("general.architecture"), architecture)
    if pre := _PRE_TOKENIZER.get(architecture):
        _same("pre-tokenizer", header.values.get("tokenizer.ggml.pre"), pre)
    eos = config.get("eos_token_id")
    known = eos if isinstance(eos, list) else [eos]
    found = header.values.get("tokenizer.ggml.eos_token_id")
    _same("end-of-turn token", found, found if found in known else known)
    layers = header.values.get(f"{architecture}.block_count")
    _same("number of layers", layers, config["num_hidden_layers"])
    if not any(tensor.type == Q8_0 for tensor in header.tensors):
        raise SentinelTripped("sentinel gguf: no tensor is quantised to q8_0")
    return header


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise SentinelTripped(f"sentinel gguf: the {what} is {found!r} instead of {expected!r}")
