"""Time what comes before the work: to the first training step, the first score, a plan; ``python -m bench.startup``."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tabulate import tabulate

from bench import command
from bench.changes import check_checkout
from bench.sections import START_UP, replace_section
from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError
from gan_ablate.execution.environment import describe_environment

NUM_TURNS = 5
NUM_IMAGES = 1_280
POLL_SEC, MAX_SEC = 0.02, 600.0
HERE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Start:
    """A command and what ends its start.

    Attributes:
        name: of its row.
        arguments: of ``gan-ablate``; ``FOLDER`` stands for a new folder.
        until: files that end it, or nothing where the command's own end does.
    """

    name: str
    arguments: str
    until: str = ""


STARTS = (
    # With 0 seconds between checkpoints, the first file is there after the first step.
    Start(
        "run, to the first training step",
        "run --grid bn_label_smooth --budget smoke --checkpoint-every 0 --out FOLDER",
        "checkpoints/*/*.checkpoint",
    ),
    Start("score 1,280 images, to the end", "score noise.npy --to FOLDER/scores.csv"),
    Start("plan, to the end", "plan --grid bn_label_smooth --budget smoke --out FOLDER"),
    Start("judge, to the end", "judge runs.csv --factor lr --out FOLDER"),
)


def main(
    *,
    other: Annotated[Path | None, typer.Option(help="Another checkout, timed in turns with this one.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="run, score, plan or judge alone; may be repeated.")] = None,
    turns: Annotated[int, typer.Option(help="Turns of each command; medians are taken over them.")] = NUM_TURNS,
    out: Annotated[Path, typer.Option(help="Where speed.md is, whose section is replaced.")] = Path("results"),
) -> None:
    """Time how long commands take until they do what they were asked for."""
    if other is not None:
        check_checkout(other)
    starts = [start for start in STARTS if not only or start.arguments.split()[0] in only]
    if not starts:
        raise UserError(f"--only {' '.join(only or ())}: valid: run, score, plan, judge")
    sides = {**({} if other is None else {"other": other.resolve()}), "this": HERE}
    page, times = out / "speed.md", dict[tuple[str, str], list[float]]()
    before = page.read_text("utf-8") if page.exists() else "# Speed\n"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        time_start(STARTS[1], HERE, folder)  # which leaves the real images' features in the user's cache
        for turn in range(1, turns + 1):
            for start in starts:
                for side, checkout in sides.items():
                    times.setdefault((start.name, side), []).append(time_start(start, checkout, folder))
                    print(f"{start.name}, {side}: {times[start.name, side][-1]:.2f} s", flush=True)
            write_atomically(page, replace_section(before, START_UP, describe_starts(times, turn)))


def write_inputs(folder: Path) -> None:
    """Write the images and the table that are scored and judged."""
    random = np.random.default_rng(0)
    np.save(folder / "noise.npy", random.integers(0, 256, size=(NUM_IMAGES, 28, 28), dtype=np.uint8))
    rows = [f"{lr},{seed},{random.lognormal()}" for lr in (0.1, 0.2) for seed in range(5)]
    (folder / "runs.csv").write_text("\n".join(["lr,seed,fid", *rows]) + "\n", "utf-8")


def time_start(start: Start, checkout: Path, folder: Path) -> float:
    """Return the seconds that a command takes to its end, or until what it is timed to is there; then it is stopped."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        arguments = start.arguments.replace("FOLDER", fresh).split()
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "gan_ablate", *arguments],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            wait(process, lambda: bool(start.until) and any(Path(fresh).glob(start.until)))
            took = time.perf_counter() - began
        finally:
            process.terminate()
            _, told = process.communicate()
        if process.returncode and not start.until:
            raise RuntimeError(f"{start.name}: {told}")
        return took


def wait(process: subprocess.Popen[str], is_over: Callable[[], bool]) -> None:
    """Wait until a process ends or ``is_over``.

    Raises:
        TimeoutError: if neither comes.
    """
    limit = time.perf_counter() + MAX_SEC
    while process.poll() is None and not is_over():
        if time.perf_counter() > limit:
            raise TimeoutError
        time.sleep(POLL_SEC)


def describe_starts(times: Mapping[tuple[str, str], Sequence[float]], num_turns: int) -> str:
    """Write the section: a row a command, with the ratio where two checkouts were timed."""
    rows = []
    for name in dict.fromkeys(name for name, _ in times):
        ours, theirs = times[name, "this"], times.get((name, "other"))
        row: dict[str, object] = {"command": name}
        if theirs is not None:
            row["before, s"] = statistics.median(theirs)
        row["now, s"] = statistics.median(ours)
        if theirs is not None:
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            row["now / before"] = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(row)
    cpu = describe_environment(torch.device("cpu"))["cpu"]
    return f"""{START_UP}

Seconds from the command, in new folders, medians of {num_turns} turns. Brackets are the range over the turns.
{cpu}, {len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the end.
`python -m bench.startup --other CHECKOUT` times both again.
The features of real images are in the user's cache, where an earlier command left them.

{tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g")}
"""


if __name__ == "__main__":
    command.run(main)
