"""`docker compose` on the declaration of the stage images."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "compose.retrain.yml"


def compose(
    *arguments: str, files: tuple[Path, ...] = (), env: Mapping[str, str] | None = None
) -> str:
    """Run `docker compose` on the stage images' file and return what it printed.

    `files` override parts of it, `env` is added to the environment. A failure raises an
    AssertionError that shows the command's standard error.
    """
    command = ["docker", "compose"]
    for file in (COMPOSE_FILE, *files):
        command += ["--file", str(file)]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.returncode}\n{done.stderr[-4000:]}"
    return done.stdout
