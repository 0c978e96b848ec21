"""fetch: the base model, exactly the version asked for, as a folder in the store."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from contracts import files
from contracts.base_model import Stored, check_base, check_unquantised
from contracts.entrypoint import StageContext
from contracts.errors import BaseModelMissing
from contracts.params import (
    FetchMetrics,
    FetchParams,
)
from contracts.safetensors_header import read_header
from contracts.stages import (
    BASE,
)

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.jinja", "LICENSE*"]
"""What training, merging and converting read of a model repository."""
_INDEX = "model.safetensors.index.json"


def source_digest(params: FetchParams) -> str:
    """Return a digest of a local folder's names, sizes and times: cheap enough for every plan.

    "" for the hub, where the commit says it all. The contents are digested when the stage runs.
    """
    if not params.path or not Path(params.path).is_dir():
        return ""
    listing = [
        (path.relative_to(params.path).as_posix(), stat.st_size, stat.st_mtime_ns)
        for path in sorted(Path(params.path).rglob("*"))
        if path.is_file() and (stat := path.stat())
    ]
    return files.digest_text(files.canonical_json(listing))


def check(params: FetchParams) -> None:
    """Raise `BaseModelMissing` when the local folder is no complete model; changes nothing.

    `SentinelTripped` for one that nothing can be trained on.
    """
    if not params.path:
        return
    folder = Path(params.path)
    if not folder.is_dir():
        raise BaseModelMissing(f"there is no base model at {folder}")
    weights = _weights(folder)
    needed = ["config.json", "tokenizer.json", *weights]
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise BaseModelMissing(
            f"the base model at {folder} is incomplete", why=f"missing: {', '.join(missing)}"
        )
    _check_json(folder / "config.json", "model_type")
    _check_json(folder / "tokenizer.json", "model")
    tensors: dict[str, Stored] = {}
    for name, indexed in weights.items():
        path = folder / name
        found = {
            entry.name: Stored(entry.dtype, entry.shape, path, entry.begin, entry.end)
            for entry in read_header(path)
        }
        tensors |= found
        if indexed and (odd := set(found) ^ indexed):
            raise BaseModelMissing(
                f"{path} does not hold the tensors that {_INDEX} has in it",
                why=", ".join(sorted(odd)[:5]),
                todo="Fetch index and weights anew, from one version of the model.",
            )
    check_base(json.loads((folder / "config.json").read_text(encoding="utf-8")), tensors)


def work(context: StageContext[FetchParams]) -> FetchMetrics:
    """Take the model from the local folder or the hub, and check that it is whole."""
    params = context.params
    target = context.output(BASE)
    if params.path:
        check(params)
        _take(Path(params.path), target)
    else:
        _download(params, target)
    check(FetchParams(path=str(target)))
    _complete_index(target)
    count = sum(1 for path in target.rglob("*") if path.is_file())
    name = Path(params.path).name if params.path else f"{params.model}@{params.revision[:8]}"
    return FetchMetrics(model=name, files=count, bytes=files.size_of(target))


def _weights(folder: Path) -> dict[str, set[str]]:
    """Return the weight files, and the tensors that the model's own index has in each; {} if none.

    Tools take tensors by the index or by what a file holds, and would differ where these do.
    """
    index = folder / _INDEX
    if not index.is_file():
        return {"model.safetensors": set()}
    weights = _check_json(index, "weight_map")
    if not isinstance(weights, dict) or not all(isinstance(f, str) for f in weights.values()):
        raise BaseModelMissing(f"{index} is damaged", why="weight_map does not map to file names")
    found: dict[str, set[str]] = {file: set() for file in sorted(set(weights.values()))}
    for tensor, file in weights.items():
        found[file].add(tensor)
    return found


def _complete_index(folder: Path) -> None:
    """Give the store's index its `metadata`, without which transformers ends in a KeyError.

    A file of its own takes the index's place, which may be a link to the one that was taken.
    """
    path = folder / _INDEX
    if not path.is_file():
        return
    index = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(index.get("metadata"), dict):
        return
    size = sum(entry.bytes for name in _weights(folder) for entry in read_header(folder / name))
    files.write_json(path, {**index, "metadata": {"total_size": size}})


def _check_json(path: Path, key: str) -> Any:
    """Return what a JSON object has under `key`; `BaseModelMissing` for anything else."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise BaseModelMissing(
            f"{path} is damaged", why=f"{type(error).__name__}: {error}"
        ) from error


def _take(source: Path, target: Path) -> None:
    """Hard-link a folder's files, as a copy of 28 GB is waste; copy across file systems."""
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(source.rglob("*")):
        if not path.is_file():
            continue
        copy = target / path.relative_to(source)
        files.make_folder(copy.parent)
        original = path.resolve()  # the hub's cache is full of symbolic links
        # A private file is copied, since the store's are made readable and links share their mode.
        readable = original.stat().st_mode & 0o444 == 0o444
        try:
            if readable:
                os.link(original, copy)
        except OSError:
            readable = False
        if not readable:
            shutil.copyfile(original, copy)


def _download(params: FetchParams, target: Path) -> None:
    """Download one commit; the hub's client resumes a partial folder and checks every digest."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    def download(patterns: list[str]) -> None:
        huggingface_hub.snapshot_download(
            params.model, revision=params.revision, local_dir=target, allow_patterns=patterns
        )

    try:
        download(["config.json"])
        if (target / "config.json").is_file():  # gigabytes before it is said that they are no use
            told = json.loads((target / "config.json").read_text(encoding="utf-8"))
            check_unquantised(told if isinstance(told, dict) else {}, {})
        download(_PATTERNS)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BaseModelMissing(
            f"cannot fetch {params.model} at {params.revision[:8]} from the hub",
            why=str(error).splitlines()[0] if str(error) else repr(error),
            todo="Check the network, HF_ENDPOINT and HF_TOKEN, or set fetch.path to a local copy.",
        ) from error
    shutil.rmtree(target / ".cache", ignore_errors=True)  # the client's bookkeeping
