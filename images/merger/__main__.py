"""`python -m images.merger JOB.json`."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # all it needs are its inputs

from contracts.entrypoint import main
from contracts.stages import (
    MERGE,
)
from images.merger.merge import work

if __name__ == "__main__":
    sys.exit(main(sys.argv, {MERGE: work}))
