"""The serving engines: Ollama, and llama.cpp from its Python wheel, behind one interface.

Shared by the driver (deploy, verify, the GPU window) and the labeler's stages (label, evaluate);
docs/adr/0001-serving-is-a-room-of-its-own.md says why it is not below driver/.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from contracts.errors import SettingsInvalid
from serving.engine import Answer, Engine, Model, full_tag

__all__ = [
    "Answer",
    "Engine",
    "Model",
    "connect",
    "engine_named",
    "full_tag",
    "ollama_address",
]

_DEFAULT_PORT = 11434


def connect(environ: Mapping[str, str], workspace: Path) -> Engine:
    """Return the engine that the environment names; nothing is contacted or loaded yet.

    RETRAIN_ENGINE: `ollama` (default) or `llamacpp`. OLLAMA_HOST: as Ollama's own tools read it.
    LLAMACPP_HOME: where llama.cpp's models are kept (default: `serving` in the workspace);
    LLAMACPP_PARALLEL: its slots (default 1).
    """
    engine = environ.get("RETRAIN_ENGINE") or "ollama"
    if engine == "ollama":
        from serving.ollama import Ollama

        return Ollama(ollama_address(environ.get("OLLAMA_HOST", "")))
    if engine == "llamacpp":
        from serving.llamacpp import LlamaCpp

        home = Path(environ.get("LLAMACPP_HOME") or workspace / "serving")
        return LlamaCpp(home, parallel=_slots(environ.get("LLAMACPP_PARALLEL") or "1"))
    raise SettingsInvalid(f"RETRAIN_ENGINE={engine} is unknown", why="known: ollama, llamacpp")


def engine_named(environ: Mapping[str, str]) -> str:
    """Return which engine the environment names: an Ollama by its address, another by its name.

    Where llama.cpp keeps its models makes it no other engine.
    """
    engine = environ.get("RETRAIN_ENGINE") or "ollama"
    return ollama_address(environ.get("OLLAMA_HOST", "")) if engine == "ollama" else engine


def ollama_address(host: str) -> str:
    """Return the base URL that a value of OLLAMA_HOST means, by Ollama's own rules.

    A host, host:port, or URL; https without a port is 443, http with a scheme 80, else 11434.
    The server's `0.0.0.0` is where it listens: a client reaches it on the loopback.
    """
    text = host.strip().strip("\"'")
    scheme, given, rest = text.partition("://")
    scheme, rest = (scheme, rest) if given else ("http", text)
    authority, slash, path = rest.partition("/")
    rest = authority.rpartition("@")[2] + slash + path  # users and passwords it knows none
    default = {"https": 443, "http": 80}.get(scheme, _DEFAULT_PORT) if given else _DEFAULT_PORT
    try:
        parts = urlsplit(f"//{rest}" if not rest.count(":") > 1 or "[" in rest else f"//[{rest}]")
        port = parts.port or default
    except ValueError as error:
        raise SettingsInvalid(
            f"OLLAMA_HOST={host.rpartition('@')[2]} is no address",
            why=str(error),
            todo="Write host:port, or a URL.",
        ) from error
    name = parts.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104
    name = f"[{name}]" if ":" in name else name
    return f"{scheme}://{name}:{port}{parts.path.rstrip('/')}"


def _slots(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SettingsInvalid(f"LLAMACPP_PARALLEL={text} is not a number of slots")
    return int(text)
