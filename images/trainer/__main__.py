"""`python -m images.trainer JOB.json`."""

import os
import sys

# Before torch is imported. Threads that wait by spinning tripled the CPU time of a small training
# on two cores that other processes used as well.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"  # all it needs are its inputs

from contracts.entrypoint import main
from contracts.stages import TRAIN
from images.trainer.train import work

if __name__ == "__main__":
    sys.exit(main(sys.argv, {TRAIN: work}))
