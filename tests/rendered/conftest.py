"""The tools that rendered files are checked with: node's and PostgreSQL's, as they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from contracts.files import ROOT
from driver.task.render import render
from driver.task.source import Source
from tests.rendered.kinds_task import KINDS_TASK

_NODE = ROOT / ".cache" / "node"
_IS_ROOT = os.geteuid() == 0


def write(folder: Path, source: Source) -> Path:
    """Write the rendered files of a task into a folder, and return it."""
    for name, text in render(source).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the rendered files of the news task; to be read only."""
    return write(tmp_path_factory.mktemp("rendered"), Source.of("liga_relevance"))


@pytest.fixture(scope="session")
def rendered_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return one with those of a task whose answer has every kind of field."""
    return write(tmp_path_factory.mktemp("kinds"), Source(KINDS_TASK))


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Return a node_modules with the pinned compilers; skip without npm unless REQUIRE_TOOLS=1."""
    if not shutil.which("node") or not shutil.which("npm"):
        _lacks("node and npm")
    done = subprocess.run(
        ["make", "-s", "-C", str(ROOT), ".cache/node/.installed"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        _lacks(f"TypeScript and Vue: {done.stderr[-500:]}")
    return _NODE / "node_modules"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Yield the URL of a PostgreSQL that lives for these tests; skip without one likewise.

    It listens on a socket in its folder only, and does not care for power cuts.
    """
    programs = _postgres_programs()
    name = "tests"
    # Open to its user, as pytest's own folder is not, and short: a socket's path has 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="retrain-pg-", dir="/tmp"))
    server: list[str | Path] = [programs / "pg_ctl", "-D", folder / "data", "-w"]
    try:
        if _IS_ROOT:
            shutil.chown(folder, "postgres", "postgres")
        made = ["-U", name, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
        initdb: list[str | Path] = [programs / "initdb", "-D", folder / "data"]
        _as_postgres([*initdb, *made])
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        _as_postgres([*server, "-t", "120", "-o", options, "-l", folder / "log", "start"])
        try:
            yield f"postgresql+psycopg://{name}@/postgres?host={folder}"
        finally:
            _as_postgres([*server, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder)


def _as_postgres(command: Sequence[str | Path]) -> None:
    """Run a program of PostgreSQL, which refuses to be root, as a user of its own where we are."""
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []}
    subprocess.run(
        command,
        check=True,
        # No pipe: the server inherits it, and who reads it would wait for the server's end.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        cwd="/",
        **(user if _IS_ROOT else {}),
    )


def _postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs: Debian keeps them out of the PATH."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found := shutil.which("initdb"):
        folders.append(Path(found).resolve().parent)
    if not folders:
        _lacks("PostgreSQL")
    return folders[-1]


def _lacks(what: str) -> NoReturn:
    if os.environ.get("REQUIRE_TOOLS") == "1":
        pytest.fail(f"this machine lacks {what}")
    pytest.skip(f"this machine lacks {what} (.ci/install-tools installs it)")
