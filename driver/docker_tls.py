"""How a Docker engine at `tcp://` is spoken to: the paths of certificates, never what they hold."""

from __future__ import annotations

import os
from pathlib import Path

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


def in_effect(host: str) -> DockerTls | None:
    """Return what the environment says for an engine, to be noted; None for one without TLS."""
    folder, verify = os.environ.get("DOCKER_CERT_PATH"), os.environ.get("DOCKER_TLS_VERIFY")
    if not host.startswith("tcp://") or not (folder or verify):
        return None
    # Where no folder is named, the engine's clients look there.
    return DockerTls(cert_path=Path(folder or "~/.docker"), verify=bool(verify))


def environment_for(host: str, tls: DockerTls | None = None) -> dict[str, str]:
    """Return the environment in which an engine's clients reach it: this one, but for the engine.

    "" is the engine of DOCKER_HOST. Certificates are for `tcp://` alone: those given, or those of
    the environment.
    """
    environment = dict(os.environ)
    if host:
        environment["DOCKER_HOST"] = host
    if host and not host.startswith("tcp://"):
        environment |= _NONE
    elif host and tls:
        # By DOCKER_TLS the command line knows that it is to speak TLS without a check, too.
        environment |= {
            "DOCKER_TLS": "1",
            "DOCKER_TLS_VERIFY": "1" if tls.verify else "",
            "DOCKER_CERT_PATH": str(tls.cert_path),
        }
    return environment
