"""Leaves so much of a GPU to others, as if it were a smaller card: `FREE_MIB` on the command line.

Says `ready` once it holds the rest, and ends with its stdin.
"""

from __future__ import annotations

import sys

_MIB = 1 << 20


def main() -> None:
    import torch

    torch.cuda.init()
    torch.zeros(1, device="cuda")  # its context is there from now on
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - int(sys.argv[1]) * _MIB), dtype=torch.uint8, device="cuda")
    print("ready", len(held), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
