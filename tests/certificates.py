"""Certificates for a Docker engine at tcp://, as short-lived as a test."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path


def make_certificates(folder: Path) -> None:
    """Fill a folder as DOCKER_CERT_PATH is, by openssl; one certificate is all of them."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    shutil.copy(folder / "cert.pem", folder / "ca.pem")


def asks_for_one(folder: Path) -> ssl.SSLContext:
    """Return what a server speaks TLS by that lets in only who shows the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context
