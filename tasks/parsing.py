"""From a text to an answer, or to the reason why it is none.

Imports the standard library and pydantic only: `driver task render` puts this source, as it is,
into the parser that a backend takes along.
"""

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Answer = TypeVar("Answer", bound=BaseModel)
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of a NUL character, which JSON allows and PostgreSQL takes in no text and no jsonb."""


class InvalidAnswer(ValueError):
    """A text that is not a valid answer of the task; the message says why."""


def parse_answer(model: type[Answer], text: str) -> Answer:
    """Return the answer in `text`, which must be one JSON object and nothing else.

    Never repairs and never fills in: a fence, a comment, a missing or unknown field, a value
    of another type, a repeated key and a text that could not be stored all raise `InvalidAnswer`.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidAnswer("not JSON: nested too deeply") from None
    except InvalidAnswer:
        raise
    except ValueError as error:  # also for a number of thousands of digits
        raise InvalidAnswer(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidAnswer(f"not a JSON object but {type(value).__name__}")
    if _NUL.search(text):
        raise InvalidAnswer("a text holds a NUL character, which PostgreSQL does not store")
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InvalidAnswer(_reasons(error)) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise InvalidAnswer("a key stands twice in one object")
    return value


def _refuse_constant(name: str) -> Any:
    raise InvalidAnswer(f"{name} is not JSON")


def _reasons(error: ValidationError) -> str:
    """Name each broken field; the offending input is left out, as it can be very long."""
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc']) or 'answer'}: {each['msg']}"
        for each in error.errors(include_url=False, include_input=False)
    )
