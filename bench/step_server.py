"""Take steps of one model as often as asked: the process of one side in ``bench.changes``.

It runs with the modules of the checkout that is timed, so it asks of them no more than every checkout has.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

WARM_UP_STEPS = 3
MIN_STEPS = 2


def main() -> None:
    """Read seconds from the standard input, and answer each with the median seconds of a step."""
    from bench.subjects import SUBJECTS
    from gan_ablate.training.runtime import keep_memory

    keep_memory()
    torch.set_num_threads(1)
    name, precision = sys.argv[1:]
    trainer = SUBJECTS[name].trainer(precision=precision)
    for _ in range(WARM_UP_STEPS):
        trainer.step()
    print("warm", flush=True)
    for line in sys.stdin:
        times: list[float] = []
        while sum(times) < float(line) or len(times) < MIN_STEPS:
            started = time.perf_counter()
            trainer.step()
            times.append(time.perf_counter() - started)
        print(statistics.median(times), flush=True)


if __name__ == "__main__":
    main()
