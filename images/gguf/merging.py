"""llama.cpp's converter on a base and an adapter: it sees the merged model, which is not there.

`python -m images.gguf.merging CONVERTER BASE DIGEST ADAPTER FOLDER ARGUMENT…` runs the converter on
FOLDER with these arguments. FOLDER gets what a merge would leave there, with the base's weights in
the place of its own. Every tensor passes the converter's `filter_tensors` with its name and the
function that loads it; a subclass made here puts another function in its place, which gives the
tensor of the merged model, as lazily as before. All else is the converter's own, so the bytes are
those that it would have written from the merged files.

An error with a name ends it with that error's exit code, and as JSON on the last line of stdout.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from contracts import files
from contracts.errors import OnePassNotCovered, RetrainError, SentinelTripped
from images.weights.arithmetic import check_finite, merge_tensor
from images.weights.checks import Pair, check_changed, check_pair
from images.weights.lora import NotCovered, Update
from images.weights.model_files import write_the_rest
from images.weights.shards import INDEX, SINGLE, index_of

MERGED_DTYPE = torch.bfloat16
"""What the merged model would be written in: merge.dtype, whose other value takes two steps."""

_AHEAD = 2  # tensors that may be merged before they are asked for

Item = tuple[str, Callable[[], Any]]
Merged = tuple[torch.Tensor, bool]


class Merging:
    """Makes the converter's model classes load the merged model's tensors.

    While the converter quantises and writes one, a thread reads and merges those that follow.
    """

    def __init__(self, updates: Mapping[str, Update], lazy: Any) -> None:
        self.merged: set[str] = set()
        """Tensors whose update has been computed."""
        self.changed: set[str] = set()
        """Those of them that differ from the base's."""
        self._updates = updates
        self._lazy = lazy
        self._waiting: dict[str, Any] = {}
        """The base's tensors with an update, in the order in which they will be written."""
        self._started: dict[str, Future[Merged]] = {}
        # The number of threads is each thread's own.
        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))

    def subclass(self, model_class: Any) -> type:
        """Return a subclass that hands each tensor of the base on as that of the merged model."""
        inherited = model_class.filter_tensors.__func__

        def filter_tensors(cls: type, item: Item) -> Item | None:
            name, load = item
            merged: Item = (name, lambda: self._tensor(name, load()))
            found: Item | None = inherited(cls, merged)
            return found

        members = {
            "filter_tensors": classmethod(filter_tensors),
            "model_arch": model_class.model_arch,  # has to be each class's own
        }
        return type(model_class.__name__, (model_class,), members)

    def _tensor(self, name: str, base: Any) -> Any:
        if name in self._updates:
            self._waiting[name] = base
        meta = self._lazy.meta_with_dtype_and_shape(MERGED_DTYPE, tuple(base.shape))
        return self._lazy(meta=meta, args=(base,), func=lambda old: self._merge(name, old))

    def _merge(self, name: str, old: torch.Tensor) -> torch.Tensor:
        new = self._merged(name, old)
        check_finite(name, new)
        return new

    def _merged(self, name: str, old: torch.Tensor) -> torch.Tensor:
        if name not in self._updates:
            return merge_tensor(old, None, MERGED_DTYPE)[0]
        self._waiting.pop(name, None)
        started = self._started.pop(name, None)
        self._start_more()
        update = self._updates[name]
        new, differs = started.result() if started else merge_tensor(old, update, MERGED_DTYPE)
        self.merged.add(name)
        if differs:
            self.changed.add(name)
        return new

    def _start_more(self) -> None:
        for name in list(self._waiting)[: _AHEAD - len(self._started)]:
            base = self._waiting.pop(name)
            self._started[name] = self._thread.submit(self._ahead, name, base)

    def _ahead(self, name: str, base: Any) -> Merged:
        return merge_tensor(self._lazy.to_eager(base), self._updates[name], MERGED_DTYPE)


def main(argv: list[str]) -> int:
    """Convert, and look at what was merged on the way; return the exit code."""
    converter, base, adapter, folder = (Path(argv[at]) for at in (1, 2, 4, 5))
    # PyTorch's threads wait for each other after every block: on two busy cores a matrix took ten
    # times as long with both of them.
    torch.set_num_threads(1)
    try:
        pair = check_pair(base, adapter, argv[3])
        updates = _covered_updates(pair)
        _prepare(folder, base, pair)
        merging = _convert(converter, [str(folder), *argv[6:]], updates)
        _check_merged(merging, updates, pair)
    except RetrainError as error:
        told = {"code": error.exit_code, "what": error.what, "why": error.why, "todo": error.todo}
        # For the stage that has started this, on a line of its own: the converter's progress bar
        # leaves one open.
        print("\n" + json.dumps(told), flush=True)  # noqa: T201
        return error.exit_code
    return 0


def _covered_updates(pair: Pair) -> dict[str, Update]:
    """Return what the adapter does to each tensor; raise `OnePassNotCovered`."""
    try:
        return pair.updates()
    except NotCovered as reason:
        raise OnePassNotCovered(
            "the one-pass conversion does not cover this adapter or base", why=str(reason)
        ) from reason


def _prepare(folder: Path, base: Path, pair: Pair) -> None:
    """Write a folder as a merge would, but for its weights, which are links to the base's.

    The converter guesses from the folder's name, and takes up files that a merge leaves behind.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_the_rest(base, folder, pair.config, MERGED_DTYPE)
    for name in pair.shards:
        (folder / name).symlink_to((base / name).resolve())
    if set(pair.shards) != {SINGLE}:
        files.write_json(folder / INDEX, index_of(pair.shards))


def _convert(converter: Path, arguments: list[str], updates: Mapping[str, Update]) -> Merging:
    sys.path.insert(0, str(converter.parent))
    theirs: Any = importlib.import_module(converter.stem)
    try:
        of_architecture, base = theirs.get_model_class, theirs.ModelBase
        lazy, _ = sys.modules[base.__module__].LazyTorchTensor, base.filter_tensors
    except AttributeError as error:
        raise OnePassNotCovered(
            "the one-pass conversion does not know this build of llama.cpp's converter",
            why=str(error),
        ) from error
    merging = Merging(updates, lazy)
    theirs.get_model_class = lambda *given, **named: merging.subclass(
        of_architecture(*given, **named)
    )
    sys.argv = [str(converter), *arguments]
    theirs.main()
    return merging


def _check_merged(merging: Merging, updates: Mapping[str, Update], pair: Pair) -> None:
    if lost := set(updates) - merging.merged:
        raise SentinelTripped(
            f"sentinel merged_tensors: {len(lost)} updates of the adapter are not in the GGUF",
            why=", ".join(sorted(lost)[:5]),
            todo="Set gguf.way=two_step, and report it.",
        )
    check_changed(merging.changed, pair)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
