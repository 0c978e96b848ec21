"""The DOUBLE of Ollama as a process of its own, which can be killed; answers by title, no model.

    python -m tests.services.ollama_process PORT LOG MODEL SECONDS

Before an answer, which takes SECONDS, it appends `asked TITLE` to LOG, and `answered TITLE` after
it: what was asked and not answered was under way when it was killed.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from tests.services.ollama_double import OllamaDouble, good_answer


def summary_of(title: str) -> str:
    """Return the summary that the article with this title gets."""
    return f"Neu: {title}"


def main() -> None:
    """Serve until killed."""
    port, log, model, seconds = sys.argv[1:]
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(word: str, message: str) -> str:
        title = message.splitlines()[0].removeprefix("Titel: ")
        os.write(descriptor, f"{word} {title}\n".encode())
        return title

    def answer(message: str) -> str:
        title = note("asked", message)
        time.sleep(float(seconds))
        return good_answer(summary=summary_of(title))

    double = OllamaDouble(model, port=int(port))
    double.script = answer
    double.answered = lambda message: note("answered", message)
    threading.Event().wait()


if __name__ == "__main__":
    main()
