"""llama.cpp as a serving engine of its own: real inference where no Ollama runs.

Models lie in a store that works like Ollama's (serving/llamacpp_store.py). The first request to a
model starts a server process (serving/llamacpp_server.py), which stays until `unload`, `close`, or
a request to another model or context size: one model at a time, in this process's care. What
another process has loaded is not seen here.

The prompt is rendered in Python by the chat format whose Go template the model was created with,
and sent to `/completion` as text. So the model reads the bytes it was trained on, and those that
Ollama shows it (tests/docker compares the two); llama.cpp's own template engine has no part in it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import EngineUnavailable, InputMissing, SettingsInvalid
from contracts.files import ROOT
from contracts.gguf_header import file_type, read_header
from serving.engine import (
    DRAWS,
    LIKELIEST,
    Answer,
    Messages,
    Model,
    ModelFailed,
    NextToken,
    Options,
    Progress,
    TokenChance,
    full_tag,
    require_options,
)
from serving.http import NO_PROXIES, may_pass, waited_s
from serving.llamacpp_store import Manifest, ModelStore
from tasks.chat import QWEN3, ChatFormat
from tasks.definition import Modelfile

_FORMATS = (QWEN3,)
_START_TIMEOUT_S = 900
"""Loading 30 GB from a slow disk."""

# Ollama's options in llama.cpp's words.
_WORDS = {
    "num_predict": "n_predict",
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "seed", "stop")},
    **{name: name for name in ("repeat_penalty", "repeat_last_n")},
}
# Ollama's defaults. llama.cpp would take others, from the GGUF's own metadata.
_DEFAULTS: dict[str, Any] = {"top_k": 40, "min_p": 0.0, "repeat_last_n": 64}

# Between its tokens the grammar allows any amount of white space, and a weak model can spend its
# whole answer there. These are the spaces of json.dumps, in which the training answers are.
_SPACES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class _Running:
    """A server process, and what it serves."""

    process: subprocess.Popen[bytes]
    address: str
    gguf: str
    num_ctx: int
    model: Model
    """Under the name it was last asked by."""


class LlamaCpp:
    """The engine; see the module. `parallel` is how many requests it answers at once."""

    name = "llamacpp"

    def __init__(self, home: Path, parallel: int = 1) -> None:
        self._store = ModelStore(home)
        self._parallel = parallel
        self._running: _Running | None = None
        self._lock = threading.Lock()

    def version(self) -> str:
        """Return the version of the wheel; raises `EngineUnavailable` without one."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise EngineUnavailable(
                "llama.cpp is not there: the package xllamacpp is not installed",
                todo="`pip install '.[local]'`, or use Ollama (RETRAIN_ENGINE=ollama).",
                passing=False,
            )
        from importlib.metadata import version

        return version("xllamacpp")

    def models(self) -> dict[str, Model]:
        """Return every model of the store."""
        return self._store.models()

    def loaded(self) -> list[Model]:
        """Return the model that this object's server process holds, if there is one."""
        with self._lock:
            running = self._alive()
            return [running.model] if running else []

    def create(
        self,
        tag: str,
        gguf: Path,
        modelfile: Modelfile,
        progress: Progress | None = None,
        *,
        base: str = "",
    ) -> Model:
        """Add a GGUF file to the store; the same content under the same tag changes nothing.

        Raises `SettingsInvalid` for an adapter on a `base`: this engine serves whole models.
        """
        if base:
            raise SettingsInvalid("engine=llamacpp serves no adapter", todo="Use engine=ollama.")
        _chat_format(tag, modelfile)
        if not gguf.is_file():
            raise InputMissing(f"the GGUF file {gguf} is missing")
        return self._store.add(tag, gguf, modelfile, progress)

    def quantization(self, tag: str) -> str:
        """Return the type of a model's weights in small letters (`q8_0`), "" if it is not told."""
        header = read_header(self._store.blob(self._store.manifest(tag)))
        return file_type(header)

    def num_ctx(self, tag: str) -> int | None:
        """Return the context that a model gives a request which names none; None: the engine's."""
        found = self._store.manifest(tag).modelfile.parameters.get("num_ctx")
        return found if isinstance(found, int) else None

    def copy(self, source: str, destination: str) -> None:
        """Let `destination` name the same model as `source`."""
        self._store.copy(source, destination)

    def delete(self, tag: str) -> None:
        """Remove a name; raises `ModelMissing` if it is not there."""
        self._store.remove(tag)

    def unload(self, tag: str, timeout_s: float = 60) -> None:
        """Stop the server process if it serves the model that `tag` is, or was, the name of."""
        with self._lock:
            if not (running := self._alive()):
                return
            shown = running.model
            wanted = self.models().get(full_tag(tag))
            if shown.tag == full_tag(tag) or (wanted and wanted.digest == shown.digest):
                self._stop(timeout_s)

    def close(self) -> None:
        """Stop the server process."""
        with self._lock:
            self._stop(10)

    def render(self, tag: str, messages: Messages, *, think: bool | None = False) -> str:
        """Return the prompt that the model reads; this engine knows no thinking.

        As with Ollama, the model's own system text is used where the messages bring none.
        """
        if think:
            raise EngineUnavailable(f"{tag} does not support thinking", passing=False)
        return _render(tag, self._store.manifest(tag).modelfile, messages)

    def tokenize(self, tag: str, prompt: str, options: Options) -> list[int]:
        """Return the ids that the model reads."""
        manifest = self._store.manifest(tag)
        settings: dict[str, Any] = {**manifest.modelfile.parameters, **options}
        address = self._serve(full_tag(tag), manifest, int(settings["num_ctx"]))
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return [int(each) for each in self._post(f"{address}/tokenize", asked, 60)["tokens"]]

    def chat(
        self,
        tag: str,
        messages: Messages,
        *,
        schema: dict[str, Any] | None = None,
        options: Options,
        timeout_s: float,
    ) -> Answer:
        """Ask a model, loading it first if need be (which does not count as `timeout_s`)."""
        require_options(options)
        manifest = self._store.manifest(tag)
        prompt = _render(tag, manifest.modelfile, messages)
        settings = {**_DEFAULTS, **manifest.modelfile.parameters, **options}
        address = self._serve(full_tag(tag), manifest, int(settings.pop("num_ctx")))
        if unknown := settings.keys() - _WORDS.keys():
            raise ValueError(f"llama.cpp knows no option {', '.join(sorted(unknown))}")
        request = {_WORDS[name]: value for name, value in settings.items()}
        request |= {"prompt": prompt, "cache_prompt": True}
        if schema is not None:
            request["json_schema"] = {**schema, "x-guidance": _SPACES}
        started = time.monotonic()
        answer = self._post(f"{address}/completion", request, timeout_s)
        return _answer(answer, time.monotonic() - started)

    def next_token(self, tag: str, text: str, *, options: Options, timeout_s: float) -> NextToken:
        """Return what comes next behind a text, loading the model first if need be."""
        require_options(options)
        manifest = self._store.manifest(tag)
        address = self._serve(full_tag(tag), manifest, int(options["num_ctx"]))  # type: ignore[arg-type]
        url, found = f"{address}/completion", NextToken(0, ())
        for draw in DRAWS:
            request = {"prompt": text, "cache_prompt": True, "n_predict": 1, "n_probs": LIKELIEST}
            found = _next_token(self._post(url, {**request, **draw}, timeout_s))
            if found.chances:
                break
        return found

    def _post(self, url: str, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        import requests

        try:
            response = requests.post(url, json=request, timeout=timeout_s, proxies=NO_PROXIES)
            found: dict[str, Any] = response.json()
        except requests.Timeout as error:
            raise EngineUnavailable(
                f"llama.cpp did not answer within {timeout_s:g} s", todo="Raise the time limit."
            ) from error
        except (requests.RequestException, ValueError) as error:
            raise EngineUnavailable(
                "llama.cpp's server broke off",
                why=str(error),
                todo="Run again; memory that ran out is the usual cause.",
            ) from error
        if not response.ok:
            raise EngineUnavailable(
                f"llama.cpp refused the request ({response.status_code})",
                why=json.dumps(found.get("error", found))[:500],
                todo="An input that is too long needs a larger num_ctx.",
                passing=may_pass(response.status_code),
            )
        return found

    def _serve(self, tag: str, manifest: Manifest, num_ctx: int) -> str:
        """Return the address of a server of this model, started unless it runs already."""
        model = Model(tag, manifest.digest(), manifest.bytes)
        with self._lock:
            running = self._alive()
            if running and (running.gguf, running.num_ctx) == (manifest.gguf, num_ctx):
                process, address = running.process, running.address
            else:
                self._stop(10)
                process, address = self._start(tag, manifest, num_ctx)
            self._running = _Running(process, address, manifest.gguf, num_ctx, model)
            return address

    def _start(
        self, tag: str, manifest: Manifest, num_ctx: int
    ) -> tuple[subprocess.Popen[bytes], str]:
        self.version()
        blob = self._store.whole_blob(tag, manifest)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "serving.llamacpp_server"),
                *(str(blob.resolve()), str(num_ctx), str(self._parallel)),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None  # noqa: S101  # asked for above
        ready, _, _ = select.select([process.stdout], [], [], _START_TIMEOUT_S)
        line = process.stdout.readline() if ready else b""
        process.stdout.close()
        if not line:
            process.kill()
            code = process.wait()
            kind = ModelFailed if ready else EngineUnavailable
            raise kind(
                f"llama.cpp could not load {tag}",
                why=f"its process ended with {code}; its messages are above",
                todo="A smaller num_ctx needs less memory; a damaged GGUF must be made anew.",
            )
        return process, str(json.loads(line)["address"])

    def _alive(self) -> _Running | None:
        """Return what runs; forget a process that ended by itself."""
        if self._running and self._running.process.poll() is not None:
            self._running = None
        return self._running

    def _stop(self, timeout_s: float) -> None:
        if (running := self._running) is None:
            return
        self._running = None
        assert running.process.stdin is not None  # noqa: S101  # a pipe, see _start
        running.process.stdin.close()
        try:
            running.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()


def _chat_format(tag: str, modelfile: Modelfile) -> ChatFormat:
    for chat in _FORMATS:
        if chat.ollama_template == modelfile.template:
            return chat
    known = ", ".join(chat.name for chat in _FORMATS)
    raise EngineUnavailable(
        f"llama.cpp cannot serve {tag}",
        why=f"its template is that of no chat format known here ({known})",
        todo="Add the format to tasks/chat.py, or use Ollama (RETRAIN_ENGINE=ollama).",
        passing=False,
    )


def _render(tag: str, modelfile: Modelfile, messages: Messages) -> str:
    asked = [dict(message) for message in messages]
    if modelfile.system and asked[0]["role"] != "system":
        asked.insert(0, {"role": "system", "content": modelfile.system})
    return _chat_format(tag, modelfile).render_prompt(asked)


def _answer(found: Mapping[str, Any], seconds: float) -> Answer:
    ended = found.get("stop_type")
    finished = ended in ("eos", "word")
    return Answer(
        text=str(found["content"]),
        finished=finished,
        reason="stop" if finished else "length",
        prompt_tokens=int(found["tokens_evaluated"]),
        answer_tokens=int(found["tokens_predicted"]),
        seconds=seconds,
        waited_s=waited_s(found, seconds),
    )


def _next_token(found: Mapping[str, Any]) -> NextToken:
    first = (found.get("completion_probabilities") or [{}])[0]
    chances = tuple(
        TokenChance(str(each["token"]), float(each["logprob"]), int(each["id"]))
        for each in first.get("top_logprobs") or []
    )
    return NextToken(int(found["tokens_evaluated"]), chances)
