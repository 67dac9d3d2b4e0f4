"""Worker processes that score quickly, KID over a few subsets instead of a hundred, and report progress often."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.execution import forecast
from gan_ablate.execution.executors import local, worker

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from gan_ablate.execution.context import RunContext

KID_SUBSETS = 2

QUICK_START = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests.quick_worker import install
install()
"""
"""What a script begins with that is to be quick; see ``install``. Nothing here imports PyTorch, except in a worker."""


def install() -> None:
    """Let the workers of this process score quickly, and do not time this machine, which takes two workers seconds."""
    forecast.calibrate = lambda *_: forecast.Speed()  # before the command line takes it
    forecast.advise_precision = lambda *_, **__: []
    local.serve = serve  # type: ignore[attr-defined]


def serve(pipe: Connection, context: RunContext, core: int | None, gpu: str | None = None) -> None:
    """Serve runs as a worker does; a test that waits for progress waits for a tenth of a second."""
    from gan_ablate.execution import recorder
    from gan_ablate.scoring import metrics

    metrics.KID_SUBSETS = KID_SUBSETS
    recorder.PROGRESS_EVERY_SEC = 0.1
    os.fsync = lambda _: None  # type: ignore[assignment]
    worker.serve(pipe, context, core, gpu)
