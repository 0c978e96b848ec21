"""`python -m images.trainer JOB.json`."""

import sys

from contracts.entrypoint import main
from contracts.stages import TRAIN
from images.trainer.train import work

if __name__ == "__main__":
    sys.exit(main(sys.argv, {TRAIN: work}))
