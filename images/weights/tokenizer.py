"""The tokenizer of a model's folder, held against the one that was trained with."""

from __future__ import annotations

import json
from pathlib import Path

from contracts import files
from contracts.errors import SentinelTripped
from contracts.reference import Trained

_TODO = "Train again on this base, or bring the tokenizer's files back to what they were."


def check_tokenizer(folder: Path, trained: Trained) -> None:
    """Raise `SentinelTripped` unless vocabulary, markup and template are those of the training."""
    path = folder / "tokenizer.json"
    if not trained.tokenizer:
        return
    if not path.is_file():
        raise SentinelTripped(
            f"sentinel tokenizer: {folder.name} has no tokenizer.json",
            why="it was trained with one",
            todo=_TODO,
        )
    added = json.loads(path.read_text(encoding="utf-8")).get("added_tokens") or []
    tokens = {each["content"]: each["id"] for each in added}
    for text, wanted in trained.control_tokens.items():
        if tokens.get(text) != wanted:
            raise SentinelTripped(
                f"sentinel tokenizer: {text} is token {tokens.get(text)}, was {wanted} in training",
                why="the model would read other markup than it has learnt",
                todo=_TODO,
            )
    if files.digest_path(path) != trained.tokenizer:
        raise SentinelTripped(
            "sentinel tokenizer: tokenizer.json is not the one of the training",
            why="the same text may become other tokens than the model has learnt",
            todo=_TODO,
        )
    if trained.chat_template and chat_template_digest(folder) != trained.chat_template:
        raise SentinelTripped(
            "sentinel tokenizer: the chat template is not the one of the training",
            why="the model would be asked in another form than it has learnt",
            todo=_TODO,
        )


def chat_template_digest(folder: Path) -> str:
    """Return the SHA-256 of the template that transformers would use, "" for none.

    A file of its own goes before the entry in tokenizer_config.json.
    """
    own, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if own.is_file():
        return files.digest_text(own.read_text(encoding="utf-8"))  # line ends as it reads them
    if not config.is_file():
        return ""
    return template_digest(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))


def template_digest(template: object) -> str:
    """Return the SHA-256 of a template; of several with names, of the one named default; else "".

    Several are a list of objects in tokenizer_config.json, and a dict once transformers has read
    them. The default is what is rendered with, and what llama.cpp's converter writes.
    """
    if isinstance(template, list):
        template = {each.get("name"): each.get("template") for each in template}
    if isinstance(template, dict):
        template = template.get("default")
    return files.digest_text(template) if isinstance(template, str) else ""
