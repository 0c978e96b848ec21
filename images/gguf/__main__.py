"""`python -m images.gguf JOB.json`."""

import sys

from contracts.entrypoint import main
from contracts.stages import (
    CONVERT,
)
from images.gguf.convert import work

if __name__ == "__main__":
    sys.exit(main(sys.argv, {CONVERT: work}))
