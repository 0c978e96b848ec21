"""`driver install-unit`: after a power cut in the window, systemd brings the service back."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from contracts import files
from contracts.errors import FileUnusable, InputMissing, StageFailed
from driver import records, users
from driver.window_record import RECORD_FILE

SYSTEM_UNITS = Path("/etc/systemd/system")
_UNIT = """\
# Written by `python -m driver install-unit`; `systemctl disable --now {name}` takes it away again.
[Unit]
Description=Bring back what a retraining run left stopped in {workspace}
Wants=network-online.target
After=network-online.target docker.service ollama.service
RequiresMountsFor={mounts}
ConditionPathExists={workspace}

[Service]
Type=oneshot
{as_now}WorkingDirectory={checkout}
ExecStart={command}
# The engine and the backend may take their time after a boot; nothing else tries again.
Restart=on-failure
RestartSec=30
# Of a damaged record, or a file that cannot be read: what can be brought back is, and a person has
# to look.
RestartPreventExitStatus={unusable}
TimeoutStartSec=15min

[Install]
WantedBy=multi-user.target
"""


def unit_name(workspace: Path) -> str:
    """Return the unit's name: one for each workspace."""
    digest = hashlib.sha256(str(workspace.resolve()).encode()).hexdigest()[:8]
    return f"retrain-recover-{digest}.service"


def render(workspace: Path) -> str:
    """Return the unit; this interpreter and checkout are what it will call.

    Raises `InputMissing` where there is no workspace yet: it is its owner's unit. `FileUnusable`
    where that owner could not read what is to be recovered.
    """
    workspace = workspace.resolve()
    if not workspace.is_dir():
        raise InputMissing(
            f"there is no workspace {workspace}",
            why="the unit calls recover for it, as its owner",
            todo="Name the one of the run: --workspace DIR; or make it first, as who runs the "
            "driver (`mkdir`).",
        )
    _check_readable(workspace)
    words = [sys.executable, "-m", "driver", "recover", "--workspace", str(workspace)]
    return _UNIT.format(
        name=unit_name(workspace),
        unusable=FileUnusable.exit_code,
        mounts=" ".join(_listed(path) for path in (workspace, files.ROOT)),
        workspace=_raw(workspace),
        as_now="".join(f"{line}\n" for line in _as_now(workspace)),
        checkout=_raw(files.ROOT),
        command=" ".join(map(_quoted, words)),
    )


def install(workspace: Path, folder: Path = SYSTEM_UNITS) -> tuple[Path, str]:
    """Write the unit and enable it; return its path and what is left to do by hand, "" if nothing.

    Writing it again changes nothing. Raises `StageFailed` when systemd refuses it, `FileUnusable`
    for who may not write there.
    """
    path, text = folder / unit_name(workspace), render(workspace)
    try:
        files.write_text(path, text)
    except PermissionError as error:
        words = [sys.executable, "-m", "driver", "install-unit", "-w", str(workspace.resolve())]
        raise FileUnusable(
            f"{path} cannot be written",
            why=f"{error.strerror}: this is {users.me()}",
            todo=f"`cd {shlex.quote(str(files.ROOT))} && sudo {shlex.join(words)}`; --print only "
            "shows it, --folder DIR writes it elsewhere.",
        ) from error
    by_hand = f"systemctl daemon-reload && systemctl enable {path.name}"
    if folder != SYSTEM_UNITS or not Path("/run/systemd/system").is_dir():
        return path, by_hand  # no systemd runs here (sd_booted(3))
    systemctl = shutil.which("systemctl") or "systemctl"
    for arguments in (["daemon-reload"], ["enable", path.name]):
        try:
            subprocess.run([systemctl, *arguments], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", "") or str(error)
            raise StageFailed(
                f"systemctl {arguments[0]} failed", why=why.strip(), todo=by_hand
            ) from error
    return path, ""


def _check_readable(workspace: Path) -> None:
    """Raise `FileUnusable` for a record that the workspace's owner may not read.

    A run under sudo by an older driver has left it, or somebody has copied it.
    """
    owner = workspace.stat().st_uid
    for name in (RECORD_FILE, records.PROMOTION, records.VERIFICATION):
        path = workspace / name
        if owner == 0 or not path.exists() or path.stat().st_uid == owner:
            continue
        raise FileUnusable(
            f"{path} is not the workspace owner's",
            why=f"it is {users.owner_of(path)}'s, and the unit calls recover as "
            f"{users.owner_of(workspace)}, who owns {workspace} and may not read it",
            todo=f"`sudo chown {owner} {path}`, then call again.",
        )


def _as_now(workspace: Path) -> Iterator[str]:
    """Yield the settings by which it runs as a run does: for whom, and with which engine.

    The backend's engine is on the record; of an ssh:// one, the user's own keys are needed.
    """
    yield f"User={workspace.stat().st_uid}"
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        if value := os.environ.get(name):
            yield f"Environment={_quoted(f'{name}={value}').replace('$$', '$')}"


def _listed(path: Path) -> str:
    """Return a path for a setting that takes several."""
    return _quoted(str(path)).replace("$$", "$")


def _raw(path: Path) -> str:
    """Return a path for a setting that takes one as it is; percent signs are specifiers."""
    return str(path).replace("%", "%%")


def _quoted(word: str) -> str:
    """Return a word of a command line (systemd.service(5), "Command lines")."""
    for special, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, escaped)
    return f'"{word}"'
