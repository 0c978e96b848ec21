"""How messages become the text a model reads: one rendering for training and for serving."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Messages = Sequence[Mapping[str, str]]


class UnrenderableMessages(ValueError):
    """The messages cannot be written in this chat format without changing their meaning."""


@dataclass(frozen=True)
class ChatFormat:
    """A model family's chat markup, as far as single-answer tasks need it.

    `render_prompt` and `ollama_template` must give the same bytes: the first is what the model
    is trained on, the second is what Ollama shows it.
    """

    name: str
    turn_start: str
    turn_end: str
    answer_prefix: str
    """What follows the opening of the assistant's turn; for Qwen3 the empty think block."""
    ollama_template: str
    """Go template for Ollama."""
    ollama_parser: str
    """`parser` of Ollama's create call."""
    stop: tuple[str, ...]
    control_tokens: tuple[str, ...]
    """Texts that a tokenizer turns into markup wherever they stand, also inside an article."""

    def normalise(self, text: str) -> str:
        """Bring to Unicode NFC: Hugging Face's tokenizer normalises so, llama.cpp's does not."""
        return unicodedata.normalize("NFC", text)

    def render_prompt(self, messages: Messages) -> str:
        """Return the text up to the first token of the answer.

        `messages` are dicts of `role` (system, only first; user; assistant) and `content`; the
        last one is the user's. Raises `UnrenderableMessages` for anything else.
        """
        self._check(messages)
        turns = "".join(
            f"{self.turn_start}{message['role']}\n"
            f"{self.normalise(message['content'])}{self.turn_end}\n"
            for message in messages
        )
        return f"{turns}{self.turn_start}assistant\n{self.answer_prefix}"

    def render_training(self, messages: Messages) -> tuple[str, str]:
        """Return (prompt, completion) of messages that end with the assistant's answer.

        The completion is what the loss is computed on: the answer and the end-of-turn token.
        """
        if not messages or messages[-1]["role"] != "assistant":
            raise UnrenderableMessages("training messages must end with the assistant's answer")
        answer = self.normalise(messages[-1]["content"])
        return self.render_prompt(messages[:-1]), f"{answer}{self.turn_end}"

    def _check(self, messages: Messages) -> None:
        if not messages or messages[-1]["role"] != "user":
            raise UnrenderableMessages("a prompt must end with the user's message")
        for position, message in enumerate(messages):
            role = message["role"]
            if role not in ("system", "user", "assistant"):
                raise UnrenderableMessages(f"role {role!r} is not supported")
            if role == "system" and position > 0:
                raise UnrenderableMessages("only the first message may be the system's")
            # The original template cuts thoughts out of earlier answers; ours does not.
            if role == "assistant" and "</think>" in message["content"]:
                raise UnrenderableMessages("an earlier answer holds a think block")


# Equal to the model's own template with enable_thinking=False and add_generation_prompt; a unit
# test compares the two. Ollama ignores the Go template when the GGUF carries one of its own,
# unless the parser is "passthrough"; then `think: true` is refused instead of changing the prompt.
QWEN3 = ChatFormat(
    name="qwen3",
    turn_start="<|im_start|>",
    turn_end="<|im_end|>",
    answer_prefix="<think>\n\n</think>\n\n",
    ollama_template=(
        "{{- range .Messages }}<|im_start|>{{ .Role }}\n"
        "{{ .Content }}<|im_end|>\n"
        "{{ end }}<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n"
    ),
    ollama_parser="passthrough",
    stop=("<|im_end|>",),
    control_tokens=("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"),
)
