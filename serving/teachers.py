"""The servers that label, and which model their answers are the answers of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from contracts.errors import EngineUnavailable, ModelMissing, without_userinfo
from serving import connect, ollama_address
from serving.engine import ChatServer, Model, full_tag
from serving.openai import OpenAiServer, digest_of_name

_Failure: TypeAlias = EngineUnavailable | ModelMissing


@dataclass(frozen=True)
class TeacherServer:
    """A server that labels, and what the teacher is called there."""

    server: ChatServer
    address: str
    tag: str

    @property
    def place(self) -> str:
        """What its model's digest is remembered under."""
        return f"{self.tag} at {self.address}"

    @property
    def tells_digest(self) -> bool:
        """Whether the server says which model a name stands for; the OpenAI protocol does not."""
        return self.server.name != "openai"

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


class TeacherIdentity(NamedTuple):
    """Which model labels: what its answers are kept under."""

    tag: str
    digest: str
    told: dict[str, str]
    """What servers have told now: digests by `TeacherServer.place`, for a later call."""


def connect_teachers(environ: Mapping[str, str], workspace: Path, name: str) -> list[TeacherServer]:
    """Return the servers that label with the teacher `name`; nothing is contacted yet.

    RETRAIN_TEACHERS names them, one a word: an address of an Ollama as OLLAMA_HOST has it, or
    `openai+URL[#MODEL]` for a server of the OpenAI protocol (its key: OPENAI_API_KEY). Without
    it, the serving engine labels.
    """
    found = []
    for word in (environ.get("RETRAIN_TEACHERS") or "").split():
        if word.startswith("openai+"):
            address, _, model = word.removeprefix("openai+").partition("#")
            address = address.rstrip("/")
            server = OpenAiServer(address, environ.get("OPENAI_API_KEY", ""))
            found.append(TeacherServer(server, without_userinfo(address), model or name))
        else:
            from serving.ollama import Ollama

            address = ollama_address(word)
            found.append(TeacherServer(Ollama(address), address, full_tag(name)))
    if found:
        return found
    engine = connect(environ, workspace)
    return [TeacherServer(engine, f"the serving engine ({engine.name})", full_tag(name))]


def identify_teacher(servers: Sequence[TeacherServer], known: Mapping[str, str]) -> TeacherIdentity:
    """Return which model labels: the same for the same servers, whichever of them are up.

    Servers that tell a digest decide, and have to agree; one that is down counts with what it
    told last (`known`). Only where none of them is named, the model's name at the first server
    has to be enough. Raises `ModelMissing` where two servers differ, or none has the model;
    `EngineUnavailable` where none answers, or none whose digest decides ever has.
    """
    deciding = [each for each in servers if each.tells_digest]
    told, failed = _ask(deciding)
    if not told:  # then one of the others has to be there
        answered, failed_too = _ask([each for each in servers if not each.tells_digest])
        if not answered:
            raise _gravest({**failed, **failed_too})
    if not deciding:
        return TeacherIdentity(servers[0].tag, digest_of_name(servers[0].tag), {})
    down = [place for place, error in failed.items() if isinstance(error, EngineUnavailable)]
    digests = told | {place: known[place] for place in down if place in known}
    if not digests:
        raise _undecided(_gravest(failed))
    _require_one(digests)
    return TeacherIdentity(deciding[0].tag, next(iter(digests.values())), told)


def remembered_teacher(
    servers: Sequence[TeacherServer], known: Mapping[str, str]
) -> TeacherIdentity | None:
    """Return which model labels by what servers told before, nobody being asked; None where that
    does not decide it."""
    deciding = [each for each in servers if each.tells_digest]
    if not deciding:
        return TeacherIdentity(servers[0].tag, digest_of_name(servers[0].tag), {})
    digests = {known[each.place] for each in deciding if each.place in known}
    return TeacherIdentity(deciding[0].tag, digests.pop(), {}) if len(digests) == 1 else None


def _ask(servers: Iterable[TeacherServer]) -> tuple[dict[str, str], dict[str, _Failure]]:
    """Return the digests that servers tell, and why the others tell none, by place."""
    told, failed = dict[str, str](), dict[str, _Failure]()
    for each in servers:
        try:
            told[each.place] = each.model().digest
        except (EngineUnavailable, ModelMissing) as error:
            failed[each.place] = error
    return told, failed


def _gravest(failed: Mapping[str, _Failure]) -> _Failure:
    """Return the failure to tell: a missing model does not mend itself."""
    errors = sorted(failed.values(), key=lambda error: isinstance(error, EngineUnavailable))
    return errors[0] if errors else EngineUnavailable("no server is named that could label")


def _undecided(failure: _Failure) -> _Failure:
    if isinstance(failure, ModelMissing):
        return failure
    return EngineUnavailable(
        "no Ollama has told yet which model the teacher is",
        why=f"{failure.what}; answers are kept under its digest, which other servers do not tell",
        todo="Start one that `teachers` names, once; or take every Ollama out of it.",
    )


def _require_one(digests: Mapping[str, str]) -> None:
    if len(set(digests.values())) > 1:
        told = ", ".join(f"{digest[:12]} is {place}" for place, digest in digests.items())
        raise ModelMissing(
            "the servers do not hold the same teacher",
            why=f"their digests differ: {told}",
            todo="`ollama pull` it on each, or take one out of the setting `teachers`.",
        )
