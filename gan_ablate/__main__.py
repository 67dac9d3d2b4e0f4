"""The program ``gan-ablate``, also ``python -m gan_ablate``: its command line, which starts and ends fast."""

import atexit
import gc
import io
import os
import sys
import threading
from contextlib import suppress
from typing import IO, TextIO, cast

from gan_ablate.cli.app import main
from gan_ablate.execution.executors.worker import kill_server

NEW_OBJECTS = 10_000
"""So many new objects make Python look for garbage. With its own 700 it looks a thousand times while PyTorch and
torchmetrics are imported, which takes a sixth of that time."""


def start() -> None:
    """Run the command line, then exit without taking apart what was imported, which takes a second with PyTorch.

    Where something else may wait for the end, Python ends in its own way: other threads, files that are still open, or
    a profiler.
    """
    gc.set_threshold(NEW_OBJECTS)
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    if isinstance(code, int) and not (has_threads() or is_watched()):
        kill_server()  # which holds the output open and would take a second to end by itself
        atexit._run_exitfuncs()  # noqa: SLF001 (nothing public runs them and comes back)
        with suppress(OSError, ValueError):  # the reader is gone, or the stream is closed: Python knows what to do
            for stream in find_standard_streams():
                stream.flush()
            if not has_open_files():
                os._exit(code)
    sys.exit(code)  # type: ignore[arg-type]


def has_threads() -> bool:
    """Whether there are other threads that a program waits for."""
    return any(not thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread())


def is_watched() -> bool:
    """Whether a profiler or the like watches this program; it writes what it saw when the program has ended."""
    watching = [sys.getprofile(), sys.gettrace()]
    if sys.version_info >= (3, 12):
        watching += [sys.monitoring.get_tool(tool) for tool in range(6)]
    return any(watching)


def find_standard_streams() -> list[TextIO]:
    """List where a program's output goes; some have neither."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def has_open_files() -> bool:
    """Whether a file is open that may hold back what was written to it, other than the standard streams."""
    standard = find_standard_streams()
    mine = {id(stream) for stream in (*standard, *(getattr(stream, "buffer", None) for stream in standard))}
    return any(_holds_back(item) for item in gc.get_objects() if id(item) not in mine)


def _holds_back(item: object) -> bool:
    kind = type(item)  # to ask an object whether it is a file may wake it up
    if not issubclass(kind, (io.TextIOBase, io.BufferedIOBase)) or issubclass(kind, (io.StringIO, io.BytesIO)):
        return False
    file = cast("IO[str]", item)
    try:
        return not file.closed and file.writable()
    except ValueError:  # it has given its buffer away
        return False


if __name__ == "__main__":
    start()
