"""llama.cpp's programs: the converter, llama-imatrix and llama-quantize.

What they are told depends on the job alone: a path in an argument can end up in the file.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from contracts import files
from contracts.converter import find_program
from contracts.entrypoint import StageContext
from contracts.errors import OutOfMemory, RetrainError, StageFailed, error_for
from contracts.orphans import die_with
from contracts.params import GgufParams
from contracts.params.model import IMATRIX_CHUNK, too_little_text
from images.gguf.source import Source
from tasks import load_task

Tell = Callable[[float], None]
"""Hears how much of one program's work is done, from 0 to 1."""

_WRITING = re.compile(r"Writing:\s*(?P<percent>\d+)%")
_TENSOR = re.compile(r"\[\s*(?P<done>\d+)/\s*(?P<total>\d+)\]")
_ERROR = '{"code": '
_LAST_LINES = 20
_KILLED = -9
_TOO_SHORT = "tokenizes to only"
"""Of llama-imatrix's line about a text with fewer tokens than it needs."""


class Parts:
    """Tells of programs that run one after another, in percent of them all."""

    def __init__(self, context: StageContext[GgufParams], count: int) -> None:
        self._context, self._count, self._finished = context, count, 0

    def tell(self, share: float) -> None:
        """Hear of the program at work; see `Tell`."""
        percent = 100 * (self._finished + share) / self._count
        self._context.progress(round(percent, 1), 100, "%")

    def finish_one(self) -> None:
        """Go on to the next program."""
        self._finished += 1


def convert(source: Source, outtype: str, name: str, out: Path, tell: Tell) -> None:
    """Convert a model; `name` is what the file calls it.

    In one pass it raises what images/gguf/merging.py does as well.
    """
    command = [
        *(*source.program, "--outtype", outtype, "--outfile", str(out)),
        *("--model-name", name),  # else it is guessed from the folder's name
    ]
    run_converter(command, source.home, tell)


def run_converter(command: Sequence[str], home: Path, tell: Tell) -> None:
    """Run one of llama.cpp's converters, or our own that drives it, in the folder `home`."""
    # Our own folder lies beside the converter in the image: without PYTHONPATH it cannot take one
    # of our modules for one of its own.
    ours = ("PYTHONPATH", "PYTHONSAFEPATH", "NO_LOCAL_GGUF")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}

    named: list[RetrainError] = []

    def heard(line: str) -> bool:
        if found := _WRITING.match(line):
            tell(int(found["percent"]) / 100)
        elif line.startswith(_ERROR):
            told = json.loads(line)
            kind = error_for(told["code"])
            named.append(kind(told["what"], why=told["why"], todo=told["todo"]))
        return found is not None or bool(named)

    try:
        _run("llama.cpp's converter", command, home, heard, environment)
    except StageFailed:
        if named:  # by images/gguf/merging.py
            raise named[0] from None
        raise


def measure(model: Path, rows: Path, task: str, chunks: int, out: Path, tell: Tell) -> None:
    """Measure how much each column of the weights matters for the training rows.

    The text is what training showed the model. Rows come in the order of their digests, so that a
    few chunks have something of every kind; the file is the same for the same rows. Raises
    `SettingsInvalid` for too little text: what llama-imatrix counts is more exact than what the
    driver has estimated.
    """
    program, chat = find_program("llama-imatrix"), load_task(task).chat
    texts = ["".join(chat.render_training(row["messages"])) for row in files.read_jsonl(rows)]
    text = out.with_name("imatrix.txt")
    files.write_text(text, "\n".join(sorted(texts, key=files.digest_text)) + "\n")
    command = [
        *(program, "-m", str(model), "-f", text.name, "-o", str(out)),
        *("--parse-special", "--no-ppl", "-c", str(IMATRIX_CHUNK), "--chunks", str(chunks)),
        *("-ngl", "0", "-t", str(_threads())),
    ]

    short: list[str] = []

    def heard(line: str) -> bool:
        done = re.findall(r"\[(\d+)\]", line)
        if done:
            tell(min(1.0, int(done[-1]) / chunks))
        elif _TOO_SHORT in line:
            short.append(line.rpartition("compute_imatrix: ")[2])
        return bool(done)

    try:
        _run("llama-imatrix", command, text.parent, heard, os.environ)
    except StageFailed as error:
        if short:
            raise too_little_text(short[0]) from error
        raise
    finally:
        text.unlink()


def quantize(model: Path, outtype: str, imatrix: Path | None, out: Path, tell: Tell) -> None:
    """Make a k-quant of a model in full precision."""
    weighed = ["--imatrix", imatrix.name] if imatrix else []
    command = [
        *(find_program("llama-quantize"), *weighed, str(model), str(out)),
        *(outtype.upper(), str(_threads())),
    ]

    def heard(line: str) -> bool:
        found = _TENSOR.match(line)
        if found:
            tell(int(found["done"]) / int(found["total"]))
        return found is not None

    _run("llama-quantize", command, imatrix.parent if imatrix else out.parent, heard, os.environ)


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _run(
    name: str,
    command: Sequence[str],
    folder: Path,
    heard: Callable[[str], bool],
    environ: Mapping[str, str],
) -> None:
    """Run a program in `folder`; `heard` takes a line, and says whether it was about progress.

    Raises `StageFailed` with the last lines, and `OutOfMemory` for a program that was killed.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509  # two system calls
    ) as process:
        assert process.stdout is not None  # noqa: S101  # PIPE was asked for
        try:
            for line in _lines(process.stdout):
                if not heard(line):
                    last.append(line)
                    print(line, file=sys.stderr)  # noqa: T201  # text for people
        except BaseException:
            process.kill()
            raise
    if process.returncode == _KILLED:
        raise OutOfMemory(f"{name} was killed, most likely for memory")
    if process.returncode:
        raise StageFailed(f"{name} failed with exit code {process.returncode}", why="\n".join(last))


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield lines as they come; a progress bar ends its lines with a carriage return."""
    rest = b""
    while chunk := os.read(stream.fileno(), 65536):
        *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
        yield from (line.decode("utf-8", "replace") for line in whole if line.strip())
    if rest.strip():
        yield rest.decode("utf-8", "replace")
