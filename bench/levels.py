"""Time a training step of every shipped level against its baseline's, and write results/levels.md.

``python -m bench.levels`` lets the variants of a grid take turns on one thread.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from tabulate import tabulate

from bench import command
from bench.machine import threads
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.environment import describe_environment
from gan_ablate.training.data import load_dataset
from gan_ablate.training.runtime import keep_memory
from gan_ablate.training.trainer import Trainer

GRIDS = (
    "architecture", "bn_label_smooth", "normalisation", "activation", "dropout", "output", "upsampling", "downsampling",
    "head", "stem", "penalties", "update_rule", "strong_d", "collapse", "remedies", "modern", "conditional",
    "optimiser", "schedule", "norm", "attention", "residual",
)  # fmt: skip
"""The grids of the study whose levels change a step, and others on single layers and losses."""

WARM_UP_STEPS = 4


def main(
    *,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="The grid whose levels are timed; may be repeated. By default, those of the study."),
    ] = None,
    turns: Annotated[int, typer.Option(help="Turns of each variant.")] = 7,
    steps: Annotated[int, typer.Option(help="Steps of a turn: as many as make whole cycles of D's and G's.")] = 8,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = Path("results/levels.md"),
) -> None:
    """Time the training step of every level."""
    keep_memory()
    machine = describe_environment(torch.device("cpu"))
    introduction = (
        f"`python -m bench.levels` wrote this page on one core of an {machine['cpu']} ({machine['instructions']}), "
        f"torch {machine['torch']}: medians of {turns} turns of {steps} steps, in shuffled order, "
        "float32, on the embedded digits. The ratio is to the first variant of its grid in the same turn; in brackets, "
        "the least and the most."
    )
    lines = ["# What a step of each level costs", "", introduction, ""]
    with threads(1):
        for name in grid or GRIDS:
            lines += [f"## {name}", "", *time_grid(name, turns, steps), ""]
    write_atomically(to, "\n".join(lines))


def time_grid(name: str, num_turns: int, num_steps: int) -> list[str]:
    """Let the variants of a grid take turns, and return a Markdown table of their times, line by line."""
    variants = plan(load_grid(name)).variants
    trainers = {variant.label: build_trainer(variant.trained) for variant in variants}
    times: dict[str, list[float]] = {variant.label: [] for variant in variants}
    for turn in range(num_turns):
        for label in random.Random(turn).sample(list(trainers), len(trainers)):
            started = time.perf_counter()
            for _ in range(num_steps):
                trainers[label].step()
            times[label].append((time.perf_counter() - started) / num_steps * 1e3)
    first = times[variants[0].label]
    rows = []
    for label, of_label in times.items():
        ratios = [mine / base for mine, base in zip(of_label, first, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([label, f"{statistics.median(of_label):.1f}", spread])
    return tabulate(rows, ["variant", "ms a step", "ratio"], tablefmt="github", disable_numparse=True).splitlines()


def build_trainer(config: RunConfig) -> Trainer:
    data = load_dataset(config.dataset, config.image_size, Path())
    trainer = Trainer(config, data.images, data.labels)
    for _ in range(WARM_UP_STEPS):
        trainer.step()
    assert torch.get_num_threads() == 1
    return trainer


if __name__ == "__main__":
    command.run(main)
