"""How a Docker engine at `tcp://` is spoken to: the paths of certificates, never what they hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from contracts.stage import Params

_NONE = {"DOCKER_TLS": "", "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}


class DockerTls(Params):
    """The certificates for an engine at tcp://."""

    cert_path: Path
    """The folder that holds ca.pem, cert.pem and key.pem, as DOCKER_CERT_PATH."""
    verify: bool = True
    """Whether the engine has to show a certificate of that ca.pem, as DOCKER_TLS_VERIFY."""

    @field_validator("cert_path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()  # `driver recover` is called from anywhere


Tls = DockerTls | Literal[False]
"""Certificates, or False for an engine at tcp:// that is spoken to without TLS. Where None stands
beside it, that is not known, and the environment of whoever asks counts."""


def in_effect(host: str) -> Tls | None:
    """Return what the environment says for an engine, to be noted; None for one not at tcp://."""
    folder, verify = os.environ.get("DOCKER_CERT_PATH"), os.environ.get("DOCKER_TLS_VERIFY")
    if not host.startswith("tcp://"):
        return None
    if not (folder or verify):
        return False
    # Where no folder is named, the engine's clients look there.
    return DockerTls(cert_path=Path(folder or "~/.docker"), verify=bool(verify))


def ways(host: str, tls: Tls | None) -> tuple[Tls | None, ...]:
    """Return how an engine may be spoken to: as noted, then as the environment says of the same.

    Certificates are renewed and moved, so that what was noted may no longer do.
    """
    now = in_effect(host)
    other = tls is not None and now != tls and os.environ.get("DOCKER_HOST") == host
    return (tls, now) if other else (tls,)


def environment_for(host: str, tls: Tls | None = None) -> dict[str, str]:
    """Return the environment in which an engine's clients reach it: this one, but for the engine.

    "" is the engine of DOCKER_HOST. Certificates are for `tcp://` alone: those given, none for
    False, or those of the environment.
    """
    environment = dict(os.environ)
    if host:
        environment["DOCKER_HOST"] = host
    if host and (tls is False or not host.startswith("tcp://")):
        environment |= _NONE
    elif host and tls:
        # By DOCKER_TLS the command line knows that it is to speak TLS without a check, too.
        environment |= {
            "DOCKER_TLS": "1",
            "DOCKER_TLS_VERIFY": "1" if tls.verify else "",
            "DOCKER_CERT_PATH": str(tls.cert_path),
        }
    return environment
