"""The serving engines: Ollama, and llama.cpp from its Python wheel, behind one interface.

Shared by the driver (deploy, verify, the GPU window) and the labeler's stages (label, evaluate);
docs/adr/0001-serving-is-a-room-of-its-own.md says why it is not below driver/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from contracts.errors import EngineUnavailable, ModelMissing, SettingsInvalid
from serving.engine import Answer, ChatServer, Engine, Model, full_tag

__all__ = [
    "Answer",
    "Engine",
    "Model",
    "TeacherServer",
    "connect",
    "connect_teachers",
    "full_tag",
    "ollama_address",
    "teacher_model",
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


@dataclass(frozen=True)
class TeacherServer:
    """A server that labels, and what the teacher is called there."""

    server: ChatServer
    address: str
    tag: str

    def model(self) -> Model:
        """Return the teacher as this server has it; raises `ModelMissing`."""
        models = self.server.models()
        if self.tag not in models:
            known = ", ".join(sorted(models)) or "no model at all"
            raise ModelMissing(
                f"{self.address} has no teacher model {self.tag}",
                why=f"it has {known}",
                todo=f"ollama pull {self.tag}, or set label.teacher.",
            )
        return models[self.tag]


def connect_teachers(environ: Mapping[str, str], workspace: Path, name: str) -> list[TeacherServer]:
    """Return the servers that label with the teacher `name`; nothing is contacted yet.

    RETRAIN_TEACHERS names them, one a word: an address of an Ollama as OLLAMA_HOST has it, or
    `openai+URL[#MODEL]` for a server of the OpenAI protocol (its key: OPENAI_API_KEY). Without
    it, the serving engine labels.
    """
    found = []
    for word in (environ.get("RETRAIN_TEACHERS") or "").split():
        if word.startswith("openai+"):
            from serving.openai import OpenAiServer

            address, _, model = word.removeprefix("openai+").partition("#")
            address = address.rstrip("/")
            server = OpenAiServer(address, environ.get("OPENAI_API_KEY", ""))
            found.append(TeacherServer(server, address, model or name))
        else:
            from serving.ollama import Ollama

            address = ollama_address(word)
            found.append(TeacherServer(Ollama(address), address, full_tag(name)))
    if found:
        return found
    engine = connect(environ, workspace)
    return [TeacherServer(engine, f"the serving engine ({engine.name})", full_tag(name))]


def teacher_model(servers: Sequence[TeacherServer]) -> Model:
    """Return the teacher as the first server that answers has it.

    Servers that tell a digest come before the others, so that it does not hang on which of them
    are up. Raises `ModelMissing` where that server has no such model, `EngineUnavailable` where
    none answers.
    """
    failure: EngineUnavailable | None = None
    for each in sorted(servers, key=lambda each: each.server.name == "openai"):
        try:
            return each.model()
        except EngineUnavailable as error:
            failure = failure or error
    raise failure or EngineUnavailable("no server is named that could label")


def ollama_address(host: str) -> str:
    """Return the base URL that a value of OLLAMA_HOST means, by Ollama's own rules.

    A host, host:port, or URL; https without a port is 443, http with a scheme 80, else 11434.
    The server's `0.0.0.0` is where it listens: a client reaches it on the loopback.
    """
    text = host.strip().strip("\"'")
    scheme, given, rest = text.partition("://")
    scheme, rest = (scheme, rest) if given else ("http", text)
    default = {"https": 443, "http": 80}.get(scheme, _DEFAULT_PORT) if given else _DEFAULT_PORT
    try:
        parts = urlsplit(f"//{rest}" if not rest.count(":") > 1 or "[" in rest else f"//[{rest}]")
        port = parts.port or default
    except ValueError as error:
        raise SettingsInvalid(
            f"OLLAMA_HOST={host} is no address", why=str(error), todo="Write host:port, or a URL."
        ) from error
    name = parts.hostname or "127.0.0.1"
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104
    name = f"[{name}]" if ":" in name else name
    return f"{scheme}://{name}:{port}{parts.path.rstrip('/')}"


def _slots(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise SettingsInvalid(f"LLAMACPP_PARALLEL={text} is not a number of slots")
    return int(text)
