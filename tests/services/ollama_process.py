"""The DOUBLE of Ollama as a process of its own, which can be killed; answers by title, no model.

    python -m tests.services.ollama_process PORT LOG MODEL SECONDS

Before an answer, which takes SECONDS, it appends the title to LOG.
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

    def answer(message: str) -> str:
        title = message.splitlines()[0].removeprefix("Titel: ")
        os.write(descriptor, f"{title}\n".encode())
        time.sleep(float(seconds))
        return good_answer(summary=summary_of(title))

    double = OllamaDouble(model, port=int(port))
    double.script = answer
    threading.Event().wait()


if __name__ == "__main__":
    main()
