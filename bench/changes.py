"""Time a training step here and in another checkout, in turns: ``python -m bench.changes --other CHECKOUT``."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from tabulate import tabulate

from bench import command
from bench.machine import Peak, measure_peak
from bench.sections import CHANGES, replace_section
from bench.speed import count_gflop, ratio_text
from bench.subjects import SUBJECTS, choose_subjects
from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError
from gan_ablate.execution.environment import describe_environment

NUM_TURNS = 5
TURN_SEC = 3.0
HERE = Path(__file__).parents[1]
SERVER = Path(__file__).with_name("step_server.py")

Case = tuple[str, str]
"""A subject's name and a precision."""


def main(
    *,
    other: Annotated[Path, typer.Option(help="Another checkout, timed in turns with this one.")],
    subject: Annotated[list[str] | None, typer.Option(help="This one only; may be repeated.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32 or bf16; may be repeated.")] = None,
    turns: Annotated[int, typer.Option(help="Turns of each side; medians are taken over them.")] = NUM_TURNS,
    turn_sec: Annotated[float, typer.Option(help="Seconds of a turn.")] = TURN_SEC,
    out: Annotated[Path, typer.Option(help="Where speed.md is, whose section is replaced.")] = Path("results"),
) -> None:
    """Time a step of models on one thread, before and after a change."""
    check_checkout(other)
    precisions = precision or ["fp32", "bf16"]
    for name in precisions:
        if name not in ("fp32", "bf16"):
            raise UserError(f"--precision {name}: valid: fp32, bf16")
    peaks = {name: measure_peak(1, name) for name in precisions}
    page, times = out / "speed.md", dict[Case, list[list[float]]]()
    before = page.read_text("utf-8") if page.exists() else "# Speed\n"
    for case in [(name, of_name) for of_name in precisions for name in choose_subjects(subject)]:
        times[case] = take_turns(case, (other.resolve(), HERE), turns, turn_sec)
        section = describe_changes(times, peaks, turns)
        print(section, flush=True)
        write_atomically(page, replace_section(before, CHANGES, section))


def check_checkout(folder: Path) -> None:
    """Refuse a folder without the package.

    Raises:
        UserError: naming it.
    """
    if not (folder / "gan_ablate").is_dir():
        raise UserError(f"--other {folder}: valid: a checkout of this project")


def take_turns(case: Case, checkouts: Sequence[Path], num_turns: int, turn_sec: float) -> list[list[float]]:
    """Return the median seconds of a step in each turn of each checkout; who begins changes with each turn."""
    times: list[list[float]] = [[] for _ in checkouts]
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(case, checkout)) for checkout in checkouts]
        for turn in range(num_turns):
            order = range(len(servers)) if turn % 2 == 0 else reversed(range(len(servers)))
            for side in order:
                times[side].append(ask(servers[side], f"{turn_sec}\n"))
    return times


@contextmanager
def serve(case: Case, checkout: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that takes a checkout's steps, wait until it is warm, and end it afterwards."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    # -P: this folder's modules must not hide those of the checkout.
    process = subprocess.Popen(
        [sys.executable, "-P", str(SERVER), *case],
        cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "warm\n":
            raise RuntimeError(f"{' '.join(case)}, {checkout}: its process ended")
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], line: str) -> float:
    """Send a server a line, and return the number that it answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    return float(process.stdout.readline())


def describe_changes(times: Mapping[Case, Sequence[Sequence[float]]], peaks: Mapping[str, Peak], num_turns: int) -> str:
    """Write the section: a row a model and precision."""
    rows = []
    for (name, precision), (before, now) in times.items():
        seconds = statistics.median(now)
        peak, gflop = peaks[precision], count_gflop(SUBJECTS[name])
        bound = peak.matmul if SUBJECTS[name].config().generator.kind == "mlp" else peak.convolution
        rows.append(
            {
                "model": name,
                "precision": precision,
                "before, ms": 1e3 * statistics.median(before),
                "now, ms": 1e3 * seconds,
                "now / before": ratio_text(now, before),
                "GFLOP/s": gflop / seconds,
                "of the peak": f"{gflop / seconds / bound:.0%}",
            }
        )
    found = ", ".join(f"{name} {peak.matmul:.0f} and {peak.convolution:.0f}" for name, peak in peaks.items())
    cpu = describe_environment(torch.device("cpu"))["cpu"]
    return f"""{CHANGES}

One thread, medians of {num_turns} turns that alternate. Brackets are the range over the turns.
{cpu}, {len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the end.
Peak of matrix products and of convolutions, GFLOP/s: {found}.
`python -m bench.changes --other CHECKOUT` times both again.

{tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g")}
"""


if __name__ == "__main__":
    command.run(main)
