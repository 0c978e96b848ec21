"""The chat format renders what the model family's own template renders."""

import importlib.util
import re
from pathlib import Path

import jinja2
import pytest

from tasks import QWEN3
from tasks.chat import UnrenderableMessages

SYSTEM = {"role": "system", "content": "Du bist hilfreich."}
CASES = {
    "question": [{"role": "user", "content": "Hallo?"}],
    "system": [SYSTEM, {"role": "user", "content": "Titel: A\nInhalt: B\n\nC"}],
    "odd spaces": [SYSTEM, {"role": "user", "content": "  \n voran und danach \n\n"}],
    "markup": [SYSTEM, {"role": "user", "content": "{{ x }} {% if %} <b>&amp;</b> \"'\\n „“ 🙂"}],
    "empty": [{"role": "system", "content": ""}, {"role": "user", "content": ""}],
    "history": [
        SYSTEM,
        {"role": "user", "content": "Eins?"},
        {"role": "assistant", "content": "Zwei."},
        {"role": "user", "content": "Drei?"},
    ],
}


def original(messages: list[dict[str, str]], *, generation: bool) -> str:
    """Render with the template that ships in TRL, in the way that transformers does it."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None, "the extra `local` is not installed"
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "chat_templates" / "qwen3.jinja"
    # HTML escaping would change the prompt; transformers renders without it.
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    return environment.from_string(path.read_text(encoding="utf-8")).render(
        messages=messages, add_generation_prompt=generation, enable_thinking=False
    )


def go_template(messages: list[dict[str, str]]) -> str:
    """Render the Go template, as far as ours goes: one range, two fields, left trimming."""
    template = re.sub(r"\s*\{\{-", "{{", QWEN3.ollama_template)
    head, body, tail = re.split(r"\{\{ range \.Messages }}|\{\{ end }}", template)
    turns = (
        body.replace("{{ .Role }}", m["role"]).replace("{{ .Content }}", m["content"])
        for m in messages
    )
    return head + "".join(turns) + tail


@pytest.mark.parametrize("name", CASES)
def test_prompt_equals_the_original_template(name: str) -> None:
    assert QWEN3.render_prompt(CASES[name]) == original(CASES[name], generation=True)


@pytest.mark.parametrize("name", CASES)
def test_go_template_gives_the_same_prompt(name: str) -> None:
    assert go_template(CASES[name]) == QWEN3.render_prompt(CASES[name])


def test_training_text_equals_the_original_template() -> None:
    messages = [*CASES["system"], {"role": "assistant", "content": '{"a": 1}'}]
    prompt, completion = QWEN3.render_training(messages)
    assert f"{prompt}{completion}\n" == original(messages, generation=False)
    assert completion == '{"a": 1}<|im_end|>'
    assert prompt == QWEN3.render_prompt(messages[:-1])


def test_text_is_brought_to_nfc() -> None:
    decomposed = [{"role": "user", "content": "u\u0308ber"}]
    assert QWEN3.render_prompt(decomposed) == QWEN3.render_prompt(
        [{"role": "user", "content": "über"}]
    )
    answer = {"role": "assistant", "content": "o\u0308"}
    assert QWEN3.render_training([*decomposed, answer])[1] == "ö<|im_end|>"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [SYSTEM],
        [{"role": "user", "content": "a"}, SYSTEM, {"role": "user", "content": "b"}],
        [{"role": "tool", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "<think>x</think>b"},
            {"role": "user", "content": "c"},
        ],
    ],
)
def test_refuses_what_it_would_render_wrongly(messages: list[dict[str, str]]) -> None:
    with pytest.raises(UnrenderableMessages):
        QWEN3.render_prompt(messages)


def test_training_messages_must_end_with_the_answer() -> None:
    with pytest.raises(UnrenderableMessages):
        QWEN3.render_training(CASES["system"])
