"""The texts that lie in a task's package beside its modules: prompts and the canary."""

from importlib import resources
from string import Template


def read(package: str, path: str) -> str:
    """Return a file of a package as it stands."""
    return (resources.files(package) / path).read_text(encoding="utf-8")


def prompt(package: str, name: str, **words: str) -> str:
    """Return `prompts/NAME.md`, its slots filled in; raises `KeyError` for one without a word.

    Lists of fields and values come from the output model, so that the two cannot drift apart.
    """
    return Template(read(package, f"prompts/{name}.md")).substitute(words).strip()
