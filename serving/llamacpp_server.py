"""llama.cpp's HTTP server around one model: `python -m serving.llamacpp_server GGUF CTX SLOTS`.

A process of its own, for three reasons: what llama.cpp prints to file descriptor 1 must not mix
with a stage's events, its memory is surely free once the process is gone, and its crash is not
the driver's. It ends when its stdin does, so it cannot outlive whoever started it, SIGKILL
included.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main(gguf: str, n_ctx: int, slots: int) -> None:
    """Serve until stdin ends. Prints one JSON line, `{"address": URL}`, when ready.

    `n_ctx` is in tokens for one request; llama.cpp divides its own among the slots.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; we end with it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.n_ctx = n_ctx * slots
    params.n_parallel = slots
    params.cpuparams.n_threads = len(os.sched_getaffinity(0))
    params.port = 0
    params.ctx_shift = False
    params.verbosity = 1  # errors; a stage's log is for people
    server = xllamacpp.Server(params)
    answers.write(json.dumps({"address": server.listening_address}) + "\n")
    answers.close()
    sys.stdin.buffer.read()
    os._exit(0)  # llama.cpp's destructors would wait for requests in flight


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
