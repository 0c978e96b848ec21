"""The tools that rendered files are checked with: node's and PostgreSQL's, as they are."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from contracts.files import ROOT
from driver.task.render import render
from driver.task.source import Source
from tests.rendered.kinds_task import KINDS_TASK

_NODE = ROOT / ".cache" / "node"


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

    It runs as a user of its own where the tests are root's, since it refuses to be root, listens
    on a socket in its folder only, and does not care for power cuts.
    """
    programs = _postgres_programs()
    user: dict[str, Any] = {}
    name = "tests"
    if os.geteuid() == 0:
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    # Open to that user, as pytest's own folder is not, and short: a socket's path has 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="retrain-pg-", dir="/tmp"))
    data = folder / "data"
    try:
        if user:
            shutil.chown(folder, "postgres", "postgres")
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            name,
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        subprocess.run(
            [*initdb, "--no-sync", "--locale=C"], check=True, capture_output=True, cwd="/", **user
        )
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        start: list[str | Path] = [
            programs / "pg_ctl",
            "-D",
            data,
            "-w",
            "-t",
            "120",
            "-o",
            options,
        ]
        subprocess.run(
            [*start, "-l", folder / "log", "start"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            cwd="/",
            **user,
        )
        try:
            yield f"postgresql+psycopg://{name}@/postgres?host={folder}"
        finally:
            stop: list[str | Path] = [
                programs / "pg_ctl",
                "-D",
                data,
                "-w",
                "-m",
                "immediate",
                "stop",
            ]
            subprocess.run(stop, check=True, capture_output=True, cwd="/", **user)
    finally:
        shutil.rmtree(folder)


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
