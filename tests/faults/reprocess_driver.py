"""The reprocess stage in a process of its own, which can be killed.

python -m tests.faults.reprocess_driver JOB.json BACKEND_URL
"""

from __future__ import annotations

import sys
from functools import partial

from contracts.entrypoint import main
from contracts.stages import REPROCESS
from driver.host_stages import reprocess

MODEL = "liga-relevance:latest"

if __name__ == "__main__":
    work = partial(reprocess.work, backend_url=sys.argv[2], alias=MODEL)
    sys.exit(main(sys.argv[:2], {REPROCESS: work}))
