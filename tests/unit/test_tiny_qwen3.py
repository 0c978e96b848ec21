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


def test_what_is_there_is_kept_replaced_or_refused(tiny_base: Path, tmp_path: Path) -> None:
    assert not tiny_qwen3.make(tiny_base, hidden=32, layers=2)

    other = tmp_path / "other"
    other.mkdir()
    (other / "tiny_qwen3.json").write_text('{"hidden": 96}')
    assert tiny_qwen3.make(other, hidden=32, layers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]

    with pytest.raises(FileExistsError, match="was not made here"):
        tiny_qwen3.make(tmp_path, hidden=32, layers=2)
    with pytest.raises(ValueError, match="multiple of 32"):
        tiny_qwen3.make(tmp_path / "new", hidden=33)


def test_the_first_layers_look_at_the_tokens_before(tiny_base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = "Das Land Hessen streicht der Schuldnerberatung zum Jahresende die Mittel."
    ids = AutoTokenizer.from_pretrained(tiny_base)(text, return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(tiny_base, attn_implementation="eager")
    with torch.no_grad():
        found = model(ids, output_attentions=True).attentions
    last = ids.shape[1] - 1
    for layer, offsets in enumerate(((1, 2, 3, 4), (1, 3, 5, 7))):
        looks_at = found[layer][0, :, -1].argmax(dim=-1)
        assert [last - int(at) for at in looks_at] == list(offsets)
