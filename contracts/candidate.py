"""What the evaluation calls a model that is not deployed yet, as the driver finds it again."""

from __future__ import annotations

from contracts.stage import InputRef

NAME = "retrain-candidate"


def tag(gguf: InputRef) -> str:
    """Return the name in the serving engine of the model that is made from a GGUF."""
    return f"{NAME}:{gguf.digest[:12]}"
