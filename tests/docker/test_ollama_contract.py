"""What we rely on of Ollama, asked of a real one: every call of serving/ollama.py.

Claims about how Ollama behaves (not our code) are here too, because the design rests on them: a
new version of Ollama that breaks one shows here first.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from contracts.errors import EngineUnavailable, ModelMissing
from driver.task.check import modelfile
from driver.task.source import Source
from serving.engine import Answer
from serving.llamacpp import LlamaCpp
from serving.ollama import Ollama
from tasks import load_task
from tasks.chat import QWEN3
from tasks.schema import UnservableSchema, _require_pattern
from tests.tiny_gguf import tiny_gguf

__all__ = ["tiny_gguf"]

pytestmark = pytest.mark.docker

TASK = load_task("liga_relevance")
SMALL = {**TASK.modelfile().parameters, "num_ctx": 2048, "num_predict": 16}
MODELFILE = TASK.modelfile().model_copy(update={"parameters": SMALL})
OPTIONS: dict[str, float | int | list[str]] = {
    "num_ctx": 2048,
    "num_predict": 16,
    "repeat_penalty": 1.0,
    "temperature": 0.0,
}
QUESTION = [{"role": "system", "content": "Antworte."}, {"role": "user", "content": "Hallo"}]
SCHEMA = {
    "type": "object",
    "properties": {"b": {"type": "boolean"}, "a": {"type": ["integer", "null"]}},
    "required": ["b", "a"],
    "additionalProperties": False,
}
THINKING = "<think>\n\n</think>\n\n"


class Raw:
    """Ollama's API without our client, for what the client never sends."""

    def __init__(self, address: str) -> None:
        self._address = address

    def post(self, path: str, **body: Any) -> requests.Response:
        return requests.post(self._address + path, json=body, timeout=120)

    def show(self, tag: str) -> dict[str, Any]:
        found: dict[str, Any] = self.post("/api/show", model=tag).json()
        return found

    def rendered(self, tag: str, **body: Any) -> str:
        options = {"num_ctx": 2048}
        fields = {"model": tag, "messages": QUESTION, "stream": False, "options": options, **body}
        answer = self.post("/api/chat", _debug_render_only=True, **fields)
        answer.raise_for_status()
        return str(answer.json()["_debug_info"]["rendered_template"])


@pytest.fixture(scope="module")
def raw(ollama_server: str) -> Raw:
    return Raw(ollama_server)


@pytest.fixture(scope="module")
def engine(ollama_server: str, tiny_gguf: Path) -> Iterator[Ollama]:
    """Return an engine with the tiny model under `contract:v1`; what tests made is removed."""
    made = Ollama(ollama_server)
    before = set(made.models())
    made.create("contract:v1", tiny_gguf, MODELFILE)
    yield made
    for tag in set(made.models()) - before:
        made.unload(tag)
        made.delete(tag)


def test_version_models_and_create_again(engine: Ollama, tiny_gguf: Path) -> None:
    assert engine.version()
    first = engine.models()["contract:v1"]
    heard: list[float] = []
    again = engine.create("contract:v1", tiny_gguf, MODELFILE, lambda done, _: heard.append(done))
    assert again == first  # deterministic, whatever create rewrites
    assert heard == []  # the server has the blob: nothing is uploaded
    other = MODELFILE.model_copy(update={"system": "Anders."})
    assert engine.create("contract:other", tiny_gguf, other).digest != first.digest


def test_what_is_served_can_be_read_back(engine: Ollama, tiny_gguf: Path) -> None:
    """`driver task check` rests on it: the words of create come back from show."""
    made = TASK.modelfile()
    engine.create("contract:shown", tiny_gguf, made)
    source = Source.of(TASK.name)
    assert modelfile.compare(source, "shown", engine.shown("contract:shown")).findings == ()
    other = made.model_copy(update={"system": "Anders."})
    engine.create("contract:shown-other", tiny_gguf, other)
    [found] = modelfile.compare(source, "other", engine.shown("contract:shown-other")).findings
    assert found.place == "other: SYSTEM"
    with pytest.raises(ModelMissing):
        engine.shown("contract:nowhere")


def test_create_rewrites_the_file(engine: Ollama, raw: Raw, tiny_gguf: Path) -> None:
    from contracts.files import digest_path

    assert engine.models()["contract:v1"].size_bytes > 1_000_000
    assert digest_path(tiny_gguf) not in raw.show("contract:v1")["modelfile"]


def test_template_trap(engine: Ollama, raw: Raw, tiny_gguf: Path) -> None:
    """Without `parser: passthrough` our template is silently ignored."""
    trapped = {**MODELFILE.model_dump(mode="json"), "parser": ""}
    source = raw.show("contract:v1")["modelfile"].split("\nFROM ")[1].split("\n")[0]
    digest = source.rsplit("sha256-", 1)[1]
    files = {"model.gguf": f"sha256:{digest}"}
    answer = raw.post("/api/create", model="contract:trap", files=files, stream=False, **trapped)
    assert answer.json() == {"status": "success"}

    assert "thinking" in raw.show("contract:trap")["capabilities"]
    assert raw.rendered("contract:trap").endswith("<|im_start|>assistant\n")  # thinking is on
    assert raw.rendered("contract:trap", think=False).endswith(THINKING)

    assert raw.show("contract:v1")["capabilities"] == ["completion"]
    assert raw.rendered("contract:v1") == raw.rendered("contract:v1", think=False)
    assert raw.rendered("contract:v1").endswith(f"<|im_start|>assistant\n{THINKING}")


def test_think_on_a_passthrough_model_is_refused_and_false_is_fine(
    engine: Ollama, raw: Raw
) -> None:
    body = {"model": "contract:v1", "messages": QUESTION, "stream": False, "options": OPTIONS}
    assert raw.post("/api/chat", think=True, **body).status_code == 400
    assert raw.post("/api/chat", think=False, **body).status_code == 200


@pytest.mark.parametrize(
    "messages",
    [
        QUESTION,
        TASK.messages(TASK.canary),
        TASK.messages(TASK.canary)[1:],
        [{"role": "user", "content": ' {"a": 1}\n\n<b>&amp; „Ü“ {{ .Role }} \\n '}],
        [*QUESTION, {"role": "assistant", "content": "Ja."}, {"role": "user", "content": "Und?"}],
    ],
    ids=["short", "canary", "own system", "markup", "turns"],
)
def test_the_prompt_is_the_trainers_byte_for_byte(
    engine: Ollama, tiny_gguf: Path, tmp_path: Path, messages: list[dict[str, str]]
) -> None:
    other = LlamaCpp(tmp_path)
    other.create("contract:v1", tiny_gguf, MODELFILE)
    full = messages
    if messages[0]["role"] != "system":
        full = [{"role": "system", "content": TASK.system_prompt}, *messages]
    assert engine.render("contract:v1", messages) == TASK.render_prompt(full)
    assert other.render("contract:v1", messages) == TASK.render_prompt(full)


def test_chat_is_cut_at_num_predict_with_a_200(engine: Ollama) -> None:
    found = engine.chat("contract:v1", QUESTION, options=OPTIONS, timeout_s=120)
    assert (found.finished, found.reason, found.answer_tokens) == (False, "length", 16)
    assert found.prompt_tokens == 22
    assert found.text


def test_a_schema_keeps_the_order_of_its_keys(engine: Ollama) -> None:
    for seed in range(8):
        options = {**OPTIONS, "num_predict": 200, "temperature": 1.0, "seed": seed}
        found = engine.chat("contract:v1", QUESTION, schema=SCHEMA, options=options, timeout_s=120)
        if found.finished:  # else it spent its tokens on white space, which the grammar allows
            assert list(json.loads(found.text)) == ["b", "a"]
            return
    pytest.fail("no answer came to an end")


def _said_by(engine: Ollama, pattern: str) -> str | None:
    """Return what a model says where a pattern is asked for, None if it is no JSON or fails."""
    text = {"type": "string", "pattern": pattern, "maxLength": 2}
    schema = {"type": "object", "properties": {"a": text}, "required": ["a"]}
    try:
        options = {**OPTIONS, "num_predict": 64}
        found = engine.chat("contract:v1", QUESTION, schema=schema, options=options, timeout_s=120)
        said = re.match(r'\s*\{\s*"a"\s*:\s*("(?:[^"\\]|\\.)*")', found.text, re.DOTALL)
        return str(json.loads(said[1])) if said else None
    except (EngineUnavailable, json.JSONDecodeError):
        return None


@pytest.mark.parametrize(
    "pattern",
    [
        "^[A-Z]{2}$",
        r"^[0-9]{1,2}\.a/:#@_ -$",
        r"^\^\$\[\]\(\)\|\{\}\*\+\?\-$",
        "^(?:a|bc?){2}$",
        r"^[\[\]\-.$^(){}|*+?]{2}$",
        "^[ä-ü]{2}€$",
        "^x{,2}(|y)ä$",
        r"^[ !#-\[\]-~]{1,6}$",
    ],
)
def test_a_pattern_that_may_stand_in_a_task_is_kept(engine: Ollama, pattern: str) -> None:
    _require_pattern(pattern, 0, 20, "a")
    said = _said_by(engine, pattern)
    assert said is not None
    assert re.fullmatch(pattern, said)


@pytest.mark.parametrize(
    "pattern",
    [
        "[0-9]{2}",
        r"^\d{2}$",
        r"^a\/b$",
        r"^\:$",
        r"^\#$",
        r"^\@$",
        r"^\_$",
        r"^\ $",
        r"^[\.\-]{2}$",
        "^(a|b$)$",
        "^a$b$",
        "^a^b$",
        "^[]a]{2}$",
        "^a{x}$",
        "^a{2}+$",
        "^ä{2}$",
        r"^ab\.{2}$",
        '^"a"$',
        r"^\\a$",
        r"^[\"]{2}$",
    ],
)
def test_a_pattern_that_ollama_does_not_keep_is_refused(engine: Ollama, pattern: str) -> None:
    """By what it is taken for: any text, another repetition, no JSON, or a request that fails."""
    said = _said_by(engine, pattern)
    assert said is None or not re.fullmatch(pattern, said)
    with pytest.raises(UnservableSchema, match="does not keep"):
        _require_pattern(pattern, 0, 20, "a")


def test_limits_beside_a_pattern_are_ignored(engine: Ollama) -> None:
    assert len(_said_by(engine, "^[A-Z]{5}$") or "") == 5
    with pytest.raises(UnservableSchema, match="no text of 0 to 2"):
        _require_pattern("^[A-Z]{5}$", 0, 2, "a")


def test_an_input_over_num_ctx_is_refused_not_cut(engine: Ollama, raw: Raw) -> None:
    long = [{"role": "user", "content": "Wort " * 5000}]
    with pytest.raises(EngineUnavailable, match="refused POST /api/chat"):
        engine.chat("contract:v1", long, options=OPTIONS, timeout_s=120)
    body = {"model": "contract:v1", "messages": long, "stream": False, "options": OPTIONS}
    cut = raw.post("/api/chat", **body).json()  # what the backend would get
    assert cut["prompt_eval_count"] < 2048


def test_copy_has_the_same_digest_and_shares_the_runner(engine: Ollama) -> None:
    engine.copy("contract:v1", "contract")
    models = engine.models()
    assert models["contract:latest"].digest == models["contract:v1"].digest
    engine.unload("contract:v1")
    engine.chat("contract:v1", QUESTION, options=OPTIONS, timeout_s=120)
    engine.chat("contract", QUESTION, options=OPTIONS, timeout_s=120)
    assert [model.tag for model in engine.loaded()] == ["contract:v1"]  # the first name stays
    engine.unload("contract")
    assert engine.loaded() == []
    engine.chat("contract", QUESTION, options=OPTIONS, timeout_s=120)
    assert [model.tag for model in engine.loaded()] == ["contract:latest"]
    engine.unload("contract")


def test_a_runner_from_before_the_alias_moved_can_be_unloaded(
    engine: Ollama, tiny_gguf: Path
) -> None:
    other = MODELFILE.model_copy(update={"system": "Zwei."})
    engine.create("contract:v2", tiny_gguf, other)
    engine.copy("contract:v1", "contract:moving")
    engine.chat("contract:moving", QUESTION, options=OPTIONS, timeout_s=120)
    engine.copy("contract:v2", "contract:moving")
    engine.unload("contract:moving", timeout_s=30)
    assert engine.loaded() == []


def test_unload_waits_until_it_is_gone(engine: Ollama) -> None:
    engine.chat("contract:v1", QUESTION, options=OPTIONS, timeout_s=120)
    assert engine.loaded()
    started = time.monotonic()
    engine.unload("contract:v1", timeout_s=30)
    assert engine.loaded() == []
    assert time.monotonic() - started < 20
    engine.unload("contract:v1")  # nothing to do


def test_missing_models_are_named(engine: Ollama) -> None:
    with pytest.raises(ModelMissing):
        engine.chat("none", QUESTION, options=OPTIONS, timeout_s=30)
    with pytest.raises(ModelMissing):
        engine.delete("none")
    with pytest.raises(ModelMissing):
        engine.copy("none", "other")
    with pytest.raises(ModelMissing):
        engine.create_from("x", "none", MODELFILE)


def test_create_from_what_is_not_local_fails_after_a_200(raw: Raw) -> None:
    answer = raw.post("/api/create", model="contract:x", **{"from": "none.invalid/a/b:c"})
    assert answer.status_code == 200
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "error" in lines[-1]


def test_create_from_a_local_model(engine: Ollama) -> None:
    other = MODELFILE.model_copy(update={"system": "Drei."})
    made = engine.create_from("contract:from", "contract:v1", other)
    assert made.digest != engine.models()["contract:v1"].digest
    assert "Drei." in engine.render("contract:from", QUESTION[1:])


def test_delete_does_not_unload(engine: Ollama, tiny_gguf: Path) -> None:
    other = MODELFILE.model_copy(update={"system": "Vier."})
    engine.create("contract:gone", tiny_gguf, other)
    engine.chat("contract:gone", QUESTION, options=OPTIONS, timeout_s=120)
    engine.delete("contract:gone")
    assert "contract:gone" not in engine.models()
    assert engine.loaded()  # so a client unloads first
    # Without a name there is no way to unload it: the next user of the server would wait in vain.
    engine.create("contract:gone", tiny_gguf, other)
    engine.unload("contract:gone")
    assert not engine.loaded()
    engine.delete("contract:gone")


def test_probabilities_are_told_at_every_place(engine: Ollama) -> None:
    """And a text is taken as it is: no template, and markup is markup."""
    prompt = QWEN3.render_prompt(QUESTION)
    found = engine.next_token("contract:v1", prompt, options=OPTIONS, timeout_s=120)
    again = engine.next_token("contract:v1", prompt, options=OPTIONS, timeout_s=120)
    assert len(found.chances) == 20
    assert again.prompt_tokens == found.prompt_tokens  # what is cached is counted too
    logprobs = [chance.logprob for chance in found.chances]
    assert logprobs == sorted(logprobs, reverse=True)
    assert 0 < sum(math.exp(value) for value in logprobs) <= 1.001
    longer = engine.next_token("contract:v1", f"{prompt}{{<|im_end|>", options=OPTIONS, timeout_s=9)
    assert longer.prompt_tokens == found.prompt_tokens + 2  # markup is one token


def test_a_requests_waiting_is_in_its_times(engine: Ollama) -> None:
    """On it rests how many requests are sent at once; the server answers one at a time here."""
    options = {**OPTIONS, "num_predict": 200, "temperature": 2.0}  # repeats would end it

    def ask(_: int) -> Answer:
        return engine.chat("contract:v1", QUESTION, options=options, timeout_s=120)

    def waited(answer: Answer) -> float:
        return (answer.waited_s or 0) / (answer.seconds - (answer.waited_s or 0))

    ask(0)  # loads the model
    assert waited(ask(0)) < 0.5
    # Answers of one length: of three that meet, one waits for most of an answer at least. On a
    # busy machine they may miss each other.
    for _ in range(10):
        with ThreadPoolExecutor(3) as threads:
            if max(map(waited, threads.map(ask, range(3)))) > 0.8:
                return
    pytest.fail("no request has waited for another one")
