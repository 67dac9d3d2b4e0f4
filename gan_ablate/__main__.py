"""The program ``gan-ablate``, also ``python -m gan_ablate``: its command line, which starts and ends fast."""

import atexit
import gc
import io
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

    Threads end, exit functions run, and files that are still open get what was written to them, as usual.
    """
    gc.set_threshold(NEW_OBJECTS)
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    others = set(threading.enumerate()) - {threading.current_thread()}
    if isinstance(code, int) and all(thread.daemon for thread in others) and not is_watched():
        kill_server()  # which holds the output open and would take a second to end by itself
        atexit._run_exitfuncs()  # noqa: SLF001 (nothing public runs them and comes back)
        with suppress(OSError):  # the reader is gone: Python says so
            for item in gc.get_objects():
                if type(item) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom) and not item.closed:
                    item.flush()
            os._exit(code)
    sys.exit(code)  # type: ignore[arg-type]


def is_watched() -> bool:
    """Whether a profiler or the like watches this program; it writes what it saw when the program has ended."""
    watching = [sys.getprofile(), sys.gettrace()]
    if sys.version_info >= (3, 12):
        watching += [sys.monitoring.get_tool(tool) for tool in range(6)]
    return any(watching)


if __name__ == "__main__":
    start()
