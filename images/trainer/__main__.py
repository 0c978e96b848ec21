"""`python -m images.trainer JOB.json`."""

import os
import sys

# Before torch is imported. Between its many small operations, OpenMP's threads wait by spinning,
# for so long by default that a step takes several times as long on two cores that another process
# uses too; and sleeping at once (OMP_WAIT_POLICY=PASSIVE) costs 40 % where nobody does.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
os.environ["HF_HUB_OFFLINE"] = "1"  # all it needs are its inputs

from contracts.entrypoint import main
from contracts.stages import (
    TRAIN,
)
from images.trainer.ranks import work

if __name__ == "__main__":
    sys.exit(main(sys.argv, {TRAIN: work}))
