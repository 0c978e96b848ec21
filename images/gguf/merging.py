"""llama.cpp's converter on a base and an adapter: it sees the merged model, which is not there.

`python -m images.gguf.merging CONVERTER BASE ADAPTER REPORT ARGUMENT…` runs the converter with
these arguments. Every tensor passes its model classes' `filter_tensors` with its name and the
function that loads it; a subclass made here puts another function in its place, which gives the
tensor of the merged model, as lazily as before. All else is the converter's own, so the bytes are
those that it would have written from the merged files. What was merged is written to REPORT.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from contracts import files
from images.weights.arithmetic import merge_tensor
from images.weights.lora import Update, plan_updates
from images.weights.model_files import base_config
from images.weights.shards import model_shards

MERGED_DTYPE = torch.bfloat16
"""What the merged model would be written in: merge.dtype, whose other value takes two steps."""

Item = tuple[str, Callable[[], Any]]


class Merging:
    """Makes the converter's model classes load the merged model's tensors."""

    def __init__(self, updates: Mapping[str, Update], lazy: Any) -> None:
        self.merged: set[str] = set()
        """Tensors whose update has been computed."""
        self.changed: set[str] = set()
        """Those of them that differ from the base's."""
        self._updates = updates
        self._lazy = lazy

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
        meta = self._lazy.meta_with_dtype_and_shape(MERGED_DTYPE, tuple(base.shape))
        return self._lazy(meta=meta, args=(base,), func=lambda old: self._merge(name, old))

    def _merge(self, name: str, old: torch.Tensor) -> torch.Tensor:
        update = self._updates.get(name)
        new, differs = merge_tensor(old, update, MERGED_DTYPE)
        if update is not None:
            self.merged.add(name)
        if differs:
            self.changed.add(name)
        return new


def main(argv: list[str]) -> None:
    """Run the converter; see above."""
    converter, base, adapter, report = (Path(each) for each in argv[1:5])
    tensors = {entry.name: entry for found in model_shards(base).values() for entry in found}
    updates = plan_updates(adapter, tensors, base_config(base))

    sys.path.insert(0, str(converter.parent))
    theirs: Any = importlib.import_module(converter.stem)
    lazy = sys.modules[theirs.ModelBase.__module__].LazyTorchTensor
    merging = Merging(updates, lazy)
    of_architecture = theirs.get_model_class
    theirs.get_model_class = lambda *given, **named: merging.subclass(
        of_architecture(*given, **named)
    )
    sys.argv = [str(converter), *argv[5:]]
    theirs.main()
    files.write_json(
        report,
        {
            "planned": sorted(updates),
            "merged": sorted(merging.merged),
            "changed": sorted(merging.changed),
        },
    )


if __name__ == "__main__":
    main(sys.argv)
