"""`python -m contracts`: print the digest of each folder of source code that is here, as JSON.

In a stage image that is what was copied into it. The driver compares before it stops anything, so
that an image of another state of the checkout is not found out hours later.
"""

from __future__ import annotations

import json
import sys

from contracts.files import ROOT, code_digest


def folders() -> dict[str, str]:
    """Return the digests by folder, of the images' folders and of what they share."""
    shared = [name for name in ("contracts", "serving", "tasks") if (ROOT / name).is_dir()]
    own = [f"images/{path.parent.name}" for path in (ROOT / "images").glob("*/__main__.py")]
    return {name: code_digest(name) for name in sorted([*shared, *own])}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(folders()) + "\n")
