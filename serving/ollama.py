"""Ollama over its HTTP API: the one place that knows what its calls take, and how they fail.

Errors are told apart by status, never by text. Of a stream only `success` or `done: true` is
success: it can fail after its 200, by an error line or by just ending.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from contracts.errors import EngineUnavailable, InputMissing, ModelMissing
from serving import ollama_answers
from serving.engine import (
    DRAWS,
    LIKELIEST,
    Answer,
    Messages,
    Model,
    NextToken,
    Options,
    Progress,
    Resident,
    full_tag,
    require_options,
)
from serving.http import ALIVE_S, ITS_LOG, SHORT_S, Connection, expected_shape
from tasks.definition import Modelfile

_Row = TypeVar("_Row")
_MINIMUM = (0, 17, 1)
"""CVE-2026-7482, a read beyond the GGUF's end through create, is fixed there."""
_CREATE_TIMEOUT_S = 3600
"""Between two lines of create's stream: it rewrites the whole GGUF in one of them."""
_START = (
    "Start Ollama (`systemctl start ollama`), or point OLLAMA_HOST to it. From a container, one "
    "that listens on the loopback only is out of reach."
)
_LOAD_TIMEOUT_S = 300
_KEEP_ALIVE = "30m"
_CHUNK = 1 << 22
_POLL_S = 0.25


class Ollama:
    """The engine; see the module. `address` is a base URL without a slash at its end."""

    name = "ollama"

    def __init__(self, address: str) -> None:
        self._address = address
        self._http = Connection("Ollama", address, todo=_START)
        self._checked = False

    def version(self) -> str:
        """Return the server's version; raises `EngineUnavailable` for one that is too old."""
        version = str(self._http.json("GET", "/api/version", ALIVE_S).get("version", ""))
        numbers = tuple(
            int(part) for part in re.findall(r"\d+", version.split("-", maxsplit=1)[0])[:3]
        )
        # Source builds say 0.0.0; who builds one answers for its age.
        if numbers != (0, 0, 0) and numbers < _MINIMUM:
            raise EngineUnavailable(
                f"Ollama {version or '?'} at {self._address} is too old",
                why="before 0.17.1 a GGUF file can read the server's memory (CVE-2026-7482)",
                todo="Update Ollama to 0.17.1 or later.",
                passing=False,
            )
        self._checked = True
        return version

    def models(self) -> dict[str, Model]:
        """Return every model the server has, by full tag."""
        return {model.tag: model for model in self._listed("/api/tags", ollama_answers.model)}

    def loaded(self) -> list[Model]:
        """Return what holds memory now.

        Tags of one model share a runner, and it goes on under the name it was first asked by.
        """
        return self._listed("/api/ps", ollama_answers.model)

    def resident(self) -> list[Resident]:
        """Return what is loaded, in a form that `load` brings back."""
        return self._listed("/api/ps", ollama_answers.resident)

    def _listed(self, path: str, read: Callable[[dict[str, Any]], _Row]) -> list[_Row]:
        with expected_shape("Ollama"):
            return [read(row) for row in self._http.json("GET", path, SHORT_S).get("models") or []]

    def load(self, resident: Resident, timeout_s: float = _LOAD_TIMEOUT_S) -> None:
        """Load a model as it was loaded before, for as long as was left of its time."""
        left_s = -1.0 if resident.until is None else resident.until - time.time()
        if resident.until is not None and left_s <= 0:
            return
        body: dict[str, Any] = {
            "model": resident.tag,
            "keep_alive": int(left_s),
            "stream": False,
            "options": {"num_ctx": resident.num_ctx} if resident.num_ctx else {},
        }
        self._http.json("POST", "/api/generate", timeout_s, body=body, model=resident.tag)

    def create(
        self,
        tag: str,
        gguf: Path,
        modelfile: Modelfile,
        progress: Progress | None = None,
        *,
        base: str = "",
    ) -> Model:
        """Upload a GGUF file and make a model of it; `progress` counts bytes uploaded.

        Repeating it is safe and gives the same digest: the upload is left out where the server
        has the file, and create itself is deterministic. It rewrites a whole model, so the server's
        disk peaks near three times its size. An adapter on `base` shares the base's weights.
        """
        self._require_version()
        if base:
            self._require_local(base)
        digest, size = _digest(gguf)
        self._upload(gguf, digest, size, progress)
        blob = {"model.gguf": f"sha256:{digest}"}
        content = {"from": full_tag(base), "adapters": blob} if base else {"files": blob}
        fields = {"model": full_tag(tag), **content, **modelfile.model_dump(mode="json")}
        self._stream("/api/create", fields)
        if (made := self.models().get(full_tag(tag))) is None:
            raise EngineUnavailable(f"Ollama says it made {full_tag(tag)}, but does not have it")
        return made

    def quantization(self, tag: str) -> str:
        """Return the type of a model's weights in small letters (`q8_0`), "" if it is not told."""
        return ollama_answers.quantization(self._show(tag))

    def num_ctx(self, tag: str) -> int | None:
        """Return the context that a model gives a request which names none; None: the engine's."""
        found = self.shown(tag).parameters.get("num_ctx")
        return int(float(found[-1])) if found else None  # a million is "1e+06"

    def shown(self, tag: str) -> ollama_answers.Shown:
        """Return how a model is served; raises `ModelMissing` for one that is not there."""
        return ollama_answers.shown(self._show(tag))

    def _show(self, tag: str) -> dict[str, Any]:
        body = {"model": full_tag(tag)}
        return self._http.json("POST", "/api/show", SHORT_S, body=body, model=full_tag(tag))

    def create_from(self, tag: str, source: str, modelfile: Modelfile) -> Model:
        """Make a model of one that the server has, with another Modelfile.

        Raises `ModelMissing` for a source that is not local: Ollama would try to pull it.
        """
        self._require_version()
        self._require_local(source)
        names = {"model": full_tag(tag), "from": full_tag(source)}
        self._stream("/api/create", {**names, **modelfile.model_dump(mode="json")})
        return self._require_local(tag)

    def copy(self, source: str, destination: str) -> None:
        """Let `destination` name the same model, and check that it does.

        Ollama writes the manifest without rename or fsync, so its 200 is not enough.
        """
        wanted = self._require_local(source)
        names = {"source": full_tag(source), "destination": full_tag(destination)}
        self._http.request("POST", "/api/copy", SHORT_S, body=names, model=full_tag(source)).close()
        found = self.models().get(full_tag(destination))
        if found is None or found.digest != wanted.digest:
            shown = found.digest[:12] if found else "nothing"
            raise EngineUnavailable(
                f"{full_tag(destination)} is not {full_tag(source)} after the copy",
                why=f"it shows {shown} instead of {wanted.digest[:12]}",
                todo="Look at the server's disk and log, then run again.",
            )

    def delete(self, tag: str) -> None:
        """Remove a name; raises `ModelMissing` if it is not there."""
        body = {"model": full_tag(tag)}
        self._http.request("DELETE", "/api/delete", SHORT_S, body=body, model=full_tag(tag)).close()

    def unload(self, tag: str, timeout_s: float = 60) -> None:
        """Unload what answers under this name, and what the name stood for before, and wait.

        A runner that was loaded before an alias moved still shows the alias, with the old digest;
        the server can only be told to unload it by a name that has that digest now.
        """
        deadline = time.monotonic() + timeout_s
        asked = False
        while runners := self._runners(full_tag(tag)):
            if not asked:
                self._ask_to_unload(runners)
                asked = True
            elif time.monotonic() > deadline:
                raise EngineUnavailable(
                    f"Ollama did not unload {', '.join(sorted({m.tag for m in runners}))} "
                    f"within {timeout_s:g} s",
                    why="a runner can hang while it is stopping (ollama issue 7779)",
                    todo="Restart Ollama (`systemctl restart ollama`), then run again.",
                )
            time.sleep(_POLL_S)

    def chat(
        self,
        tag: str,
        messages: Messages,
        *,
        schema: dict[str, Any] | None = None,
        options: Options,
        timeout_s: float,
    ) -> Answer:
        """Ask a model, without thinking, and return its whole answer.

        An input longer than `num_ctx` is refused (`EngineUnavailable`) instead of cut silently.
        """
        require_options(options)
        body: dict[str, Any] = {
            "model": full_tag(tag),
            "messages": [dict(message) for message in messages],
            "stream": False,
            "think": False,  # defaults to true for models that can
            "truncate": False,
            "shift": False,
            "keep_alive": _KEEP_ALIVE,
            "options": dict(options),
        }
        if schema is not None:
            body["format"] = schema
        started = time.monotonic()
        found = self._http.json("POST", "/api/chat", timeout_s, body=body, model=full_tag(tag))
        return ollama_answers.answer(found, time.monotonic() - started)

    def render(self, tag: str, messages: Messages, *, think: bool | None = False) -> str:
        """Return the prompt that the model reads, as Ollama's template engine makes it.

        Loads the model, with its own parameters.
        """
        body = {
            "model": full_tag(tag),
            "messages": [dict(message) for message in messages],
            "stream": False,
            "_debug_render_only": True,
            **({} if think is None else {"think": think}),
        }
        found = self._http.json("POST", "/api/chat", 600, body=body, model=full_tag(tag))
        try:
            return str(found["_debug_info"]["rendered_template"])
        except (KeyError, TypeError) as error:
            raise EngineUnavailable(
                "Ollama did not say how it renders a prompt", passing=False
            ) from error

    def tokenize(self, tag: str, prompt: str, options: Options) -> list[int]:
        """Return the ids that the model reads, from the `context` of a generate call.

        Ollama has no call for it. A template that is the prompt alone passes a rendered text
        through, and the `context` is then the ids of prompt and answer together (as seen on 0.33.1;
        with `raw` there is none). A letter keeps the two apart: an answer that begins with a line
        break would be one token with the break that the prompt ends with.
        """
        body = {
            "model": full_tag(tag),
            "prompt": f"{prompt}X",
            "template": "{{ .Prompt }}",
            "system": "",
            "stream": False,
            "think": False,
            "keep_alive": _KEEP_ALIVE,
            "options": {**options, "num_predict": 1},
        }
        found = self._http.json("POST", "/api/generate", 600, body=body, model=full_tag(tag))
        try:
            ids = [int(each) for each in found["context"]]
            return ids[: int(found["prompt_eval_count"]) - 1]
        except (KeyError, TypeError, ValueError) as error:
            raise EngineUnavailable(
                "Ollama did not say what tokens it reads",
                why="its answer holds no context",
                todo="Use Ollama 0.33, or a later one that still tells it.",
                passing=False,
            ) from error

    def next_token(self, tag: str, text: str, *, options: Options, timeout_s: float) -> NextToken:
        """Return what comes next behind a text; tokens come without their numbers.

        Nothing is told before Ollama 0.12.11.
        """
        require_options(options)
        body: dict[str, Any] = {
            "model": full_tag(tag),
            "prompt": text,
            "raw": True,
            "stream": False,
            "truncate": False,
            "shift": False,
            "keep_alive": _KEEP_ALIVE,
            "logprobs": True,
            "top_logprobs": LIKELIEST,
        }
        found = NextToken(0, ())
        for draw in DRAWS:
            body["options"] = {**options, **draw, "num_predict": 1, "repeat_penalty": 1.0}
            answer = self._http.json(
                "POST", "/api/generate", timeout_s, body=body, model=full_tag(tag)
            )
            found = ollama_answers.next_token(answer)
            if found.chances:
                break
        return found

    def close(self) -> None:
        """Nothing is held open between calls."""

    def _require_version(self) -> None:
        if not self._checked:
            self.version()

    def _require_local(self, tag: str) -> Model:
        if (found := self.models().get(full_tag(tag))) is None:
            raise ModelMissing(f"Ollama at {self._address} has no model {full_tag(tag)}")
        return found

    def _runners(self, tag: str) -> list[Model]:
        """Return what is loaded under a name, or under another name of the same model."""
        known = self.models().get(tag)
        return [
            runner
            for runner in self.loaded()
            if runner.tag == tag or (known and runner.digest == known.digest)
        ]

    def _ask_to_unload(self, runners: list[Model]) -> None:
        names = {model.digest: tag for tag, model in self.models().items()}
        for runner in runners:
            body = {"model": names.get(runner.digest, runner.tag), "keep_alive": 0, "stream": False}
            with contextlib.suppress(ModelMissing):  # deleted while loaded: only time helps
                self._http.json("POST", "/api/generate", SHORT_S, body=body, model=runner.tag)

    def _upload(self, gguf: Path, digest: str, size: int, progress: Progress | None) -> None:
        """Stream the file from disk, unless the server has it: an upload's body goes unread then.

        `requests` sends an open file in blocks, with its Content-Length.
        """
        path = f"/api/blobs/sha256:{digest}"
        head = self._http.request("HEAD", path, SHORT_S, accept=(404,))
        head.close()
        if head.status_code != 404:
            return
        with gguf.open("rb") as stream:
            body = _Reporting(stream, size, progress)
            self._http.request("POST", path, _CREATE_TIMEOUT_S, body=body).close()

    def _stream(self, path: str, body: dict[str, Any]) -> None:
        """Follow a stream of JSON lines to its `success`."""
        last: dict[str, Any] = {}
        with self._http.request("POST", path, _CREATE_TIMEOUT_S, body=body) as response:
            for last in self._http.lines(response):
                if "error" in last:
                    why = str(last["error"])
                    raise EngineUnavailable(f"Ollama failed at {path}", why=why, todo=ITS_LOG)
        if last.get("status") != "success":
            raise EngineUnavailable(
                f"Ollama's answer to {path} ended before it was done",
                why=f"its last line was {json.dumps(last)[:300]}",
            )


class _Reporting:
    """An open file that tells how far it is read; `len` gives requests the Content-Length."""

    def __init__(self, stream: Any, size: int, progress: Progress | None) -> None:
        self._stream = stream
        self._size = size
        self._progress = progress
        self._done = 0

    def __len__(self) -> int:
        return self._size

    def read(self, _size: int = -1) -> bytes:
        """Return the next block: larger than the 16 KiB that http.client asks for."""
        block: bytes = self._stream.read(_CHUNK)
        self._done += len(block)
        if self._progress:
            self._progress(self._done, self._size)
        return block


def _digest(gguf: Path) -> tuple[str, int]:
    try:
        with gguf.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest(), gguf.stat().st_size
    except FileNotFoundError as error:
        raise InputMissing(f"the GGUF file {gguf} is missing") from error
