"""The users of this host, for messages: whose a file is, and who asks for it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def name_of(uid: int) -> str:
    """Return a user's name, or the number where nobody has given it one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def me() -> str:
    """Return whose rights this process has."""
    return name_of(os.geteuid())


def owner_of(path: Path) -> str:
    """Return whose a file or folder is."""
    return name_of(path.stat().st_uid)
