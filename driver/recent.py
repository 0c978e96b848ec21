"""The settings of the last run, for those who have nothing but the workspace."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts import files
from driver.store import SETTINGS_FILE, Run


def settings(workspace: Path) -> dict[str, Any]:
    """Return the settings of the last run; empty where there is none, or they cannot be read."""
    try:
        run = Run.last(workspace, having=SETTINGS_FILE)
        found = json.loads(files.read_bytes(run.folder / SETTINGS_FILE)) if run else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def engine_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment by which `serving.connect` finds the engine of these settings."""
    return {**os.environ, "RETRAIN_ENGINE": str(settings.get("engine", ""))}
