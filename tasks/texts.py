"""The texts that lie in a task's package beside its modules: prompts and the canary."""

from importlib import resources
from string import Template

from contracts.errors import TaskInvalid

_SLOTS = "The slots that __init__.py fills: {}. Write $$ for a dollar sign."


def read(package: str, path: str) -> str:
    """Return a file of a package as it stands; raises `TaskInvalid` where it cannot be read."""
    try:
        return (resources.files(package) / path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise _unusable(package, path, "it is not there", "Write that file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(package, path, str(error), "Save it as UTF-8, readable.") from error


def prompt(package: str, name: str, **words: str) -> str:
    """Return `prompts/NAME.md`, its slots filled in.

    Raises `TaskInvalid` for a slot without a word, and for a dollar sign that is none.

    Lists of fields and values come from the output model, so that the two cannot drift apart.
    """
    path = f"prompts/{name}.md"
    text = read(package, path)
    try:
        return Template(text).substitute(words).strip()
    except KeyError as error:
        why = f"nothing is given for the slot ${error.args[0]}"
        raise _unusable(package, path, why, _SLOTS.format(", ".join(words))) from error
    except ValueError as error:
        raise _unusable(package, path, str(error), _SLOTS.format(", ".join(words))) from error


def _unusable(package: str, path: str, why: str, todo: str) -> TaskInvalid:
    file = f"{package.replace('.', '/')}/{path}"
    return TaskInvalid(f"{file} cannot be used", why=why, todo=todo)
