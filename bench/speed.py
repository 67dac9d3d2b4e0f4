"""Time the training step of every subject against the plain loop, and write results/speed.md: ``nox -s bench``."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from bench import command
from bench.contest import Side, Turn, hold_contest
from bench.machine import Peak, measure_peak, threads
from bench.sections import CHANGES, LEFT_OUT, START_UP, read_section
from bench.subjects import SUBJECTS, Step, Subject, choose_subjects
from gan_ablate.atomic_io import write_atomically
from gan_ablate.execution.environment import describe_environment
from gan_ablate.training.loop import NUM_EAGER_STEPS
from gan_ablate.training.runtime import has_native_bf16
from gan_ablate.training.trainer import MEASURE_EVERY

NUM_TURNS = 5
TURN_SEC = 6.0
WARM_UP_STEPS = NUM_EAGER_STEPS + 2
PROFILED_STEPS = 5
NUM_OPERATORS = 6
OTHER_SECTIONS = (CHANGES, LEFT_OUT, START_UP)
"""Sections of the page that this does not measure, and keeps."""


def main(
    *,
    turns: Annotated[int, typer.Option(help="Turns of each side; medians are taken over them.")] = NUM_TURNS,
    turn_sec: Annotated[float, typer.Option(help="Seconds of a turn.")] = TURN_SEC,
    subject: Annotated[list[str] | None, typer.Option(help="This one only; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Where speed.md and speed.json go.")] = Path("results"),
) -> None:
    """Time every preset's training step against the loop that tutorials print."""
    names = choose_subjects(subject)
    precisions = ["fp32", "bf16"] if has_native_bf16() else ["fp32"]
    num_cores = len(os.sched_getaffinity(0))
    peaks = [measure_peak(threads, precision) for precision in precisions for threads in sorted({1, num_cores})]
    rows, contests, profiles = [], {}, []
    for name in names:
        for precision in precisions:
            contest = hold_contest(name, turns, turn_sec, precision)
            contests[f"{name}, {precision}"] = {
                side: [[asdict(turn) for turn in together] for together in turns] for side, turns in contest.items()
            }
            rows.append(tabulate_contest(SUBJECTS[name], precision, contest, peaks))
            print(tabulate(rows[-1:], headers="keys", floatfmt=".3g"), flush=True)
        profiles.append((name, profile_step(SUBJECTS[name], precisions[-1])))
    page = out / "speed.md"
    write_atomically(
        page,
        _page(rows, peaks, profiles, precisions, turns)
        + "".join(read_section(page, heading) for heading in OTHER_SECTIONS),
    )
    content = {
        "peaks": [asdict(peak) for peak in peaks],
        "contests": contests,
        "environment": describe_environment(torch.device("cpu")),
    }
    write_atomically(out / "speed.json", json.dumps(content, indent=1) + "\n")


def per_sec(turns: Sequence[Sequence[Turn]]) -> list[float]:
    """Return the iterations per second of all processes together, for each turn."""
    return [sum(turn.steps_per_sec for turn in together) for together in turns]


def ratio_text(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Write the ratio of ours to theirs: the median over the turns, and their range."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def rates_and_ratios(contest: Mapping[Side, Sequence[Sequence[Turn]]]) -> dict[str, object]:
    """Return the columns of a contest in a table: the median rate of each side, and their ratios."""
    rates = {side: per_sec(turns) for side, turns in contest.items()}
    return {
        **{f"{side}, it/s": median(of_side) for side, of_side in rates.items()},
        "ours per core / plain": f"**{ratio_text(rates['ours per core'], rates['plain'])}**",
        "ours / plain": ratio_text(rates["ours"], rates["plain"]),
        "the step alone": ratio_text(rates["ours per core"], rates["plain per core"]),
    }


def count_gflop(subject: Subject) -> float:
    """Count the operations of the layers in one step with PyTorch's counter, multiply and add as two, in GFLOP."""
    trainer = subject.trainer()
    with FlopCounterMode(display=False) as counter:
        trainer.step()
    return float(counter.get_total_flops()) / 1e9


def profile_step(subject: Subject, precision: str) -> list[tuple[str, float]]:
    """Return the operators that take most of a step on one thread, with their shares of its time."""
    trainer = subject.trainer(precision=precision)
    with threads(1):
        for _ in range(PROFILED_STEPS):
            trainer.step()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(PROFILED_STEPS):
                trainer.step()
    operators = profiler.key_averages()
    total = sum(operator.self_cpu_time_total for operator in operators)
    largest = sorted(operators, key=lambda operator: -operator.self_cpu_time_total)[:NUM_OPERATORS]
    return [(operator.key, operator.self_cpu_time_total / total) for operator in largest]


def repeat(step: Step, num: int) -> None:
    """Take ``num`` steps."""
    for _ in range(num):
        step()


def steps_per_sec(step: Step, seconds: float, device: str = "cpu") -> float:
    """Take steps for at least ``seconds``, and return their number per second."""

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    # The host runs ahead of a GPU, as in a run by the steps between two rows of its history.
    num_together = 1 if device == "cpu" else MEASURE_EVERY
    started, num_steps, ended = now(), 0, 0.0
    while num_steps == 0 or ended < started + seconds:
        repeat(step, num_together)
        num_steps += num_together
        ended = now()
    return num_steps / (ended - started)


def tabulate_contest(
    subject: Subject, precision: str, contest: Mapping[Side, Sequence[Sequence[Turn]]], peaks: Sequence[Peak]
) -> dict[str, object]:
    """Return the row of one subject in the table of contests."""
    plain, ours = (list(itertools.chain(*contest[side])) for side in ("plain", "ours per core"))
    gflop = count_gflop(subject)
    achieved = gflop * median(turn.steps_per_sec for turn in ours)
    (peak,) = (peak for peak in peaks if (peak.num_threads, peak.precision) == (1, precision))
    bound = peak.matmul if subject.config().generator.kind == "mlp" else peak.convolution
    faults, memory = (
        [statistic(getattr(turn, name) for turn in turns) for turns in (plain, ours)]
        for name, statistic in (("page_faults_per_step", median), ("peak_memory_bytes", max))
    )
    return {
        "model": subject.name,
        "precision": precision,
        **rates_and_ratios(contest),
        "GFLOP a step": gflop,
        "GFLOP/s a core": achieved,
        "of the peak": f"{achieved / bound:.0%}",
        "page faults a step": f"{faults[0]:.0f} → {faults[1]:.0f}",
        "peak memory, MB": f"{memory[0] / 1e6:.0f} → {memory[1] / 1e6:.0f}",
    }


def _page(
    rows: Sequence[dict[str, object]],
    peaks: Sequence[Peak],
    profiles: Sequence[tuple[str, list[tuple[str, float]]]],
    precisions: Sequence[str],
    num_turns: int,
) -> str:
    peak_rows = [
        {"threads": p.num_threads, "precision": p.precision, "matrix product": p.matmul, "convolution": p.convolution}
        for p in peaks
    ]
    profile_rows = [
        {"model": name, "share of a step by operator": ", ".join(f"{key} {share:.0%}" for key, share in operators)}
        for name, operators in profiles
    ]
    cpu = describe_environment(torch.device("cpu"))["cpu"]
    bf16 = "" if "bf16" in precisions else " It has no bfloat16 arithmetic of its own, so all is in float32."
    return f"""# Speed

How many training iterations a second this package gets out of a machine, against the loop that tutorials print: a
torchvision data set with per-image transforms in a DataLoader without workers, float32, PyTorch's default layout and
optimiser, a line of log an iteration.

Measured on {cpu}, {len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}, load
{os.getloadavg()[0]:.1f} at the end, all sides in turns, medians of {num_turns} turns.{bf16}

## Against the plain loop

{tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g")}

*Plain* and *ours* are one process with all cores, *per core* as many processes with one thread each, their rates added
up. **Ours per core / plain** is what a grid gains over the script; *the step alone* compares both per core. Brackets
are the range over the turns. *GFLOP a step* is what the layers compute, after upsampling has been folded into the
convolution that follows it; the *peak* is that of one thread, of matrix products for the MLP and of convolutions for
the others. *Page faults* and *memory* are plain → ours per core.

## What the machine can do at all, in GFLOP/s

{tabulate(peak_rows, headers="keys", tablefmt="github", floatfmt=".0f")}

## Where a step goes

By operator, {precisions[-1]}, on one thread. What is neither a convolution nor a matrix product is a pass over memory
each: norms, activations, the optimiser. A convolution below the peak has a shape that the library computes more slowly
than its best one.

{tabulate(profile_rows, headers="keys", tablefmt="github")}
"""


if __name__ == "__main__":
    command.run(main)
