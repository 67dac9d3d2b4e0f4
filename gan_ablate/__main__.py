"""The program ``gan-ablate``, also ``python -m gan_ablate``: its command line, which starts and ends fast."""

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress

from gan_ablate.cli.app import main
from gan_ablate.execution.executors.worker import kill_server

NEW_OBJECTS = 10_000
"""So many new objects make Python look for garbage. With its own 700 it looks a thousand times while PyTorch and
torchmetrics are imported, which takes a sixth of that time."""


def start() -> None:
    """Run the command line, then exit without taking apart what was imported, which takes a second with PyTorch.

    What waits for the end of a program still runs: threads, exit functions, the last output.
    """
    gc.set_threshold(NEW_OBJECTS)
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    others = set(threading.enumerate()) - {threading.current_thread()}
    if isinstance(code, int) and all(thread.daemon for thread in others):
        kill_server()  # which holds the output open and would take a second to end by itself
        atexit._run_exitfuncs()  # noqa: SLF001 (nothing public runs them and comes back)
        with suppress(OSError):  # the reader is gone: Python says so
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)
    sys.exit(code)  # type: ignore[arg-type]


if __name__ == "__main__":
    start()
