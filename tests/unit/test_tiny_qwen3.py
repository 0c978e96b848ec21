"""The tiny base model: a real Qwen3 to every reader, and the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.files import digest_path
from examples import tiny_qwen3
from tasks.chat import QWEN3


def test_it_is_read_as_qwen3(tiny_base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert str(model.dtype) == "torch.bfloat16"
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.shape == (151_936, 32)

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    assert type(tokenizer).__name__ == "Qwen2Tokenizer"
    assert len(tokenizer) == 151_669
    assert [tokenizer.eos_token, tokenizer.pad_token] == ["<|im_end|>", "<|endoftext|>"]
    # ids as Qwen publishes them
    assert tokenizer.encode("Hello world<|im_end|><think>") == [9707, 1879, 151645, 151667]
    text = "Grüße aus Gießen, 1.234 €\n\n  – „so“ 🚀"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_its_template_is_the_one_of_the_task(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    messages = [{"role": "system", "content": "Sei kurz."}, {"role": "user", "content": "Wer?"}]
    rendered = AutoTokenizer.from_pretrained(tiny_base).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert rendered == QWEN3.render_prompt(messages)


@pytest.mark.slow
def test_the_same_arguments_give_the_same_bytes(tiny_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    assert tiny_qwen3.make(out, hidden=32, layers=2)
    assert digest_path(out) == digest_path(tiny_base)
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_what_is_there_is_kept_or_refused(tiny_base: Path, tmp_path: Path) -> None:
    assert not tiny_qwen3.make(tiny_base, hidden=32, layers=2)
    with pytest.raises(FileExistsError, match="was not made with"):
        tiny_qwen3.make(tiny_base, hidden=64, layers=2)
    with pytest.raises(FileExistsError):
        tiny_qwen3.make(tmp_path, hidden=32, layers=2)
    with pytest.raises(ValueError, match="multiple of 32"):
        tiny_qwen3.make(tmp_path / "new", hidden=33)
