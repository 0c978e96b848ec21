"""Start the service: `python -m backend` in its image, `python -m tests.services.backend` here."""

import logging
import signal
import sys
import time

import uvicorn

from .app import create_app
from .settings import Settings


def main() -> None:
    """Serve until a signal; exit 0 on SIGTERM, as gunicorn does even where work was lost."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    # uvicorn raises the signal again after its shutdown, and finds this handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = Settings.from_environment()
    time.sleep(settings.slow_start_s)
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning")


main()
