"""The test backend on this machine, on a free loopback port: in a thread, or as a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import requests
import uvicorn

from tests.services.backend.app import create_app
from tests.services.backend.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


class RunningBackend:
    """One database in `folder`, and a service on it in a thread, which starts in no time."""

    def __init__(self, folder: Path, rows: Iterable[dict[str, Any]], **environment: str) -> None:
        seed = folder / "seed.jsonl"
        seed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        with socket.socket() as probe:  # the same port after a restart, as a container has it
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "DATA_DIR": str(folder / "data"),
            "SEED_FILE": str(seed),
            "PORT": str(port),
            "STOP_PATIENCE_S": "0.2",
            **environment,
        }
        self._server: uvicorn.Server | None = None

    def start(self) -> None:
        """Start the service and wait until its port answers."""
        settings = Settings.from_environment(self.environment)
        config = uvicorn.Config(create_app(settings), port=settings.port, log_level="error")
        self._server = uvicorn.Server(config)
        threading.Thread(target=self._server.run, daemon=True).start()
        while not self._server.started:
            time.sleep(0.01)

    def kill(self) -> None:
        """Stop it, if it still runs."""
        if self._server is not None:
            self._server.should_exit = True

    def get(self, path: str) -> Any:
        """Return the body of an answer; raises for an error status."""
        answer = requests.get(self.url + path, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str) -> Any:
        """Post without a body and return the answer's."""
        answer = requests.post(self.url + path, timeout=30)
        answer.raise_for_status()
        return answer.json()


class BackendProcess(RunningBackend):
    """The same as a process of its own, which can be stopped, killed and started again."""

    root = ROOT
    """The checkout whose code it runs."""

    def __init__(self, folder: Path, rows: Iterable[dict[str, Any]], **environment: str) -> None:
        super().__init__(folder, rows, **environment)
        self._log = folder / "backend.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True, **environment: str) -> None:
        """Start the service with further variables; by default wait until its port answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.services.backend"],
                cwd=self.root,
                env={**os.environ, **self.environment, **environment},
                stderr=log,
            )
        while wait:
            if self._process.poll() is not None:
                raise RuntimeError(f"the backend did not start: {self._log.read_text()}")
            try:
                requests.get(f"{self.url}/api/llm/model", timeout=5)
                return
            except requests.ConnectionError:
                time.sleep(0.05)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        process = self._started()
        process.terminate()
        return process.wait(30)

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def exit_code(self, timeout_s: float = 30) -> int:
        """Wait until it ends by itself."""
        return self._started().wait(timeout_s)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process
