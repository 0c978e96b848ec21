"""Modelfile: how Ollama serves a model of the task, for `ollama create NAME -f Modelfile`."""

from __future__ import annotations

from contracts.stages import GGUF
from driver.task.shape import TaskUnrenderable
from driver.task.source import Source


def render(source: Source) -> str:
    """Return the Modelfile for a GGUF that lies beside it, named as the gguf stage names it.

    Raises `TaskUnrenderable` for a prompt that no Modelfile can hold.
    """
    try:
        text = source.task.modelfile().text(f"./{GGUF.filename}")
    except ValueError as error:
        raise TaskUnrenderable("the system prompt fits no Modelfile", why=str(error)) from error
    return f"# {source.mark}\n{text}"
