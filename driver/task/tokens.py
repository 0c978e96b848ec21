"""How long a text is for the base model: counted by its own tokenizer, or estimated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contracts import stages
from contracts.params import FetchParams
from driver.store import Store

CHARS_PER_TOKEN = 3.2
"""Of German prompts: Qwen3's vocabulary gives 3.1 to 3.3 for those of liga_relevance, 3.5 for
German articles, 4.1 for English prose."""
_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Ruler:
    """Measures texts in tokens."""

    count: Callable[[str], int]
    by: str
    """What it counts by, in words."""
    exact: bool


def ruler(workspace: Path, params: FetchParams) -> Ruler:
    """Return the base model's own tokenizer, or an estimate that says why it is one.

    Fetches nothing: the model is looked for where the settings name a folder, in the workspace,
    and in the hub's cache.
    """
    path = _find(workspace, params)
    if path is None:
        return _estimate("the base model's tokenizer is not on this host yet")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return _estimate("the package tokenizers is not installed")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001  # the library raises nothing narrower
        return _estimate(f"{path} cannot be read: {error}")

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return Ruler(count, f"by {path}", exact=True)


def _estimate(why: str) -> Ruler:
    by = f"estimated, {CHARS_PER_TOKEN:g} characters each: {why}"
    return Ruler(lambda text: round(len(text) / CHARS_PER_TOKEN), by, exact=False)


def _find(workspace: Path, params: FetchParams) -> Path | None:
    if params.path:
        path = Path(params.path) / _FILE
        return path if path.is_file() else None
    return _fetched(workspace, params) or _cached(params)


def _fetched(workspace: Path, params: FetchParams) -> Path | None:
    wanted = {"model": params.model, "revision": params.revision}
    for job, result in Store(workspace).executions(stages.FETCH.name):
        path = workspace / result.outputs[stages.BASE.name].path / _FILE
        if wanted.items() <= job.params.items() and not job.params.get("path") and path.is_file():
            return path
    return None


def _cached(params: FetchParams) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(params.model, _FILE, revision=params.revision)
    return Path(found) if isinstance(found, str) else None
