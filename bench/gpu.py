"""Times every subject on a GPU and writes results/gpu.md: ``nox -s bench_gpu``.

The plain loop, the package's step kernel by kernel and as one graph, and runs packed into one program.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate

from bench.plain import load_batches, train_plainly, write_mnist
from bench.subjects import SUBJECTS, Subject
from gan_ablate.environment import describe_environment
from gan_ablate.graphs import NUM_EAGER_STEPS, GraphedStep
from gan_ablate.precision import reproducible_float32
from gan_ablate.step import AdversarialStep, StepTerms
from gan_ablate.store import write_atomically
from gan_ablate.train import MEASURE_EVERY, Trainer

NUM_TURNS = 5
TURN_SEC = 3.0
WARM_UP_STEPS = NUM_EAGER_STEPS + 2
PACK_SIZES = (1, 4, 16, 64)
STANDARD_STEPS = 1500

Step = Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, write."""
    parser = argparse.ArgumentParser(prog="nox -s bench_gpu --", description=__doc__)
    parser.add_argument("--turns", type=int, default=NUM_TURNS, help="of each side; medians are taken over them")
    parser.add_argument("--turn-sec", type=float, default=TURN_SEC, help="what a turn lasts")
    parser.add_argument("--subject", choices=[*SUBJECTS], action="append", help="this one only; may be repeated")
    parser.add_argument("--pack", type=int, action="append", help="pack so many runs; may be repeated")
    parser.add_argument("--device", default="cuda", help="cpu tries the program out, without graphs; it needs --out")
    parser.add_argument("--out", type=Path, help="where gpu.md and gpu.json go, by default results")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and options.out is None:
        parser.error("--device cpu: its numbers do not belong into results; name another folder with --out")
    if options.device != "cpu":
        if not torch.cuda.is_available():
            parser.error(f"--device {options.device}: there is no GPU here; valid: cpu")
        torch.cuda.set_device(torch.device(options.device).index or 0)
    out = options.out or Path("results")
    environment = {key: str(value) for key, value in dict(describe_environment(torch.device(options.device))).items()}
    rows, packs = [], []
    for name in options.subject or SUBJECTS:
        rows += time_sides(SUBJECTS[name], options.device, options.turns, options.turn_sec)
        packs.append(time_packs(SUBJECTS[name], options.device, options.pack or PACK_SIZES, options.turn_sec))
        print(tabulate(rows[-2:], headers="keys", floatfmt=".3g"), tabulate(packs[-1:], headers="keys"), flush=True)
        content = {"sides": rows, "packs": packs, "environment": environment}
        write_atomically(out / "gpu.json", json.dumps(content, indent=1) + "\n")
        write_atomically(out / "gpu.md", _page(rows, packs, environment, options.turns))


def time_sides(subject: Subject, device: str, num_turns: int, turn_sec: float) -> list[dict[str, object]]:
    """Let the plain loop and the package's step take turns: a row for each of our precisions."""
    with _plain_step(subject, device) as plain:
        sides: dict[str, Step] = {"plain": plain}
        for precision in ("fp32", "bf16"):
            for way in ("kernel by kernel", "graph") if device != "cpu" else ("kernel by kernel",):
                trainer = subject.trainer(device, precision=precision)
                sides[f"{way}, {precision}"] = _as_in_a_run(trainer, _stepper(trainer, is_graph=way == "graph"))
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for side, step in sides.items():
            with _precision_of(side):
                _repeat(step, WARM_UP_STEPS)
        for turn in range(num_turns):
            for side in random.Random(turn).sample(list(sides), len(sides)):
                with _precision_of(side):
                    rates[side].append(_rate(sides[side], turn_sec, device))
    rows = []
    for precision in ("fp32", "bf16"):
        row: dict[str, object] = {"model": subject.name, "precision": precision, "plain, it/s": median(rates["plain"])}
        for way in ("kernel by kernel", "graph"):
            ours = rates.get(f"{way}, {precision}")
            if ours is not None:
                ratios = [a / b for a, b in zip(ours, rates["plain"], strict=True)]
                row[f"{way}, it/s"] = median(ours)
                row[f"{way} / plain"] = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append(row)
    return rows


def time_packs(subject: Subject, device: str, sizes: Sequence[int], turn_sec: float) -> dict[str, object]:
    """Time runs packed into one program: runs of ``STANDARD_STEPS`` steps an hour, for each number of runs."""
    row: dict[str, object] = {"model": subject.name}
    for num_runs in sizes:
        column = f"{num_runs} packed, runs/h"
        step: Step | None = None  # the pack before lets go of its memory
        try:
            step = _stepper(subject.pack(num_runs, device), is_graph=device != "cpu")
            with reproducible_float32():
                _repeat(step, WARM_UP_STEPS)
                row[column] = _rate(step, turn_sec, device) * num_runs * 3600 / STANDARD_STEPS
        except torch.OutOfMemoryError:
            row[column] = "out of memory"
    return row


@contextmanager
def _plain_step(subject: Subject, device: str) -> Iterator[Step]:
    config = subject.config()
    with tempfile.TemporaryDirectory() as root:
        write_mnist(Path(root))
        batches = load_batches(Path(root), config.image_size, config.batch_size)
        loop = train_plainly(subject.build_plain(), batches, config, io.StringIO(), device=device)
        yield lambda: next(loop)


def _precision_of(side: str) -> AbstractContextManager[None]:
    """The plain loop has PyTorch's defaults, TF32 among them, as the scripts do; a run of ours has not."""
    return nullcontext() if side == "plain" else reproducible_float32()


def _stepper(trainer: AdversarialStep, *, is_graph: bool) -> Callable[[], StepTerms]:
    return GraphedStep(trainer).step if is_graph else trainer.step


def _as_in_a_run(trainer: Trainer, take_step: Callable[[], StepTerms]) -> Step:
    """Take a row of the history now and then."""
    count = itertools.count(1)

    def step() -> None:
        terms, number = take_step(), next(count)
        if number % MEASURE_EVERY == 0:
            trainer.measure(number, terms)

    return step


def _repeat(step: Step, num: int) -> None:
    for _ in range(num):
        step()


def _rate(step: Step, seconds: float, device: str) -> float:
    """Return steps per second."""

    def now() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    started, num_steps = now(), 0
    while num_steps == 0 or time.perf_counter() < started + seconds:
        # The host runs ahead of the device; here by no more than a run does between two rows of its history.
        _repeat(step, MEASURE_EVERY)
        num_steps += MEASURE_EVERY
        now()
    return num_steps / (now() - started)


def _page(
    rows: Sequence[dict[str, object]], packs: Sequence[dict[str, object]], environment: dict[str, str], num_turns: int
) -> str:
    return f"""# Speed on a GPU

Training iterations a second on {environment.get("gpu") or environment["cpu"]}, PyTorch {torch.__version__}: one run,
against the loop that tutorials print, its networks moved to the device. All sides in turns, medians of {num_turns}.

{tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g")}

*Kernel by kernel* launches each operation of a step, *graph* launches the step as one CUDA graph, as a run on a GPU
does. Brackets are the range over the turns. The plain loop has PyTorch's defaults, TF32 among them; our float32 has
none.

## Runs packed into one program

{tabulate(packs, headers="keys", tablefmt="github", floatfmt=".3g")}

Runs of {STANDARD_STEPS:,} steps an hour, all of a pack together, in float32, training alone. A replay also sets every
run's random streams forward, one small launch each.
"""


if __name__ == "__main__":
    main()
