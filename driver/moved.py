"""Where a workspace was when its last run was at work: its stage containers bear that path."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from contracts import files
from driver.store import STATE_FILE, Run
from driver.window_record import RECORD_FILE


def former_paths(workspace: Path) -> list[str]:
    """Return the paths that the last run and an open window have noted, but for the one of now.

    Without one at which there is a folder all the same, unless it is this very one under another
    name: a workspace that was copied, not moved, may have a driver at work.
    """
    now, noted = workspace.resolve(), [workspace / RECORD_FILE]
    with suppress(OSError):
        if run := Run.last(workspace, having=STATE_FILE):
            noted.append(run.folder / STATE_FILE)
    found = dict.fromkeys(filter(None, map(_noted_path, noted)))
    return [path for path in found if path != str(now) and _is_no_other(Path(path), now)]


def _noted_path(file: Path) -> str:
    with suppress(OSError, ValueError, AttributeError):  # none, or a damaged one
        return str(json.loads(files.read_bytes(file)).get("workspace") or "")
    return ""


def _is_no_other(path: Path, workspace: Path) -> bool:
    try:
        return path.samefile(workspace)
    except FileNotFoundError:
        return workspace.is_dir()
    except OSError:  # another user's
        return False
