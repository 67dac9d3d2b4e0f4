"""Draws rows of the study's front figure with five call-outs: ``python -m bench.callouts``.

It writes ``results/how-to-read.png``, which the front README shows. The rows come from the study's own records, through
the function that draws the front figure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import command
from gan_ablate.analysis.results import GridResults
from gan_ablate.execution.store import Store
from gan_ablate.reporting.front_page import draw_front
from gan_ablate.reporting.plots import effects
from gan_ablate.reporting.plots.style import FigurePath, open_figure

GRIDS = ("beta1", "bn_label_smooth", "init")

NOTES = (
    "A bold line is a grid. Below it, a line is a level, and in brackets the baseline it is compared with.",
    "The mark is the estimate. Left of 0 %, FID falls: better. Its colour and shape are the decision.",
    "Bars are 95 % intervals; the thin one is adjusted for all effects of the grid. It excludes 0 %: better or worse.",
    "The grey band is the margin. A thin bar inside it: does not matter. One across 0 % that leaves it: inconclusive.",
    "The right panel has the time of a training step. Left of 0 %, the level is faster.",
)

NOTES_INCHES = 1.35


def main(
    *,
    out: Annotated[Path, typer.Option(help="The results folder whose records are shown.")] = Path("results/study"),
    to: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("results/how-to-read.png"),
) -> None:
    """Draw how a front figure is read."""
    results = {name: GridResults.load(Store(out), name) for name in GRIDS}
    titles = {name: of_grid.plan.grid.title for name, of_grid in results.items()}
    with mock.patch.object(effects, "open_figure", open_annotated):
        draw_front(results, titles, FigurePath(to))


@contextmanager
def open_annotated(path: FigurePath, height_inches: float) -> Iterator[Figure]:
    """Open a figure as the front figure is opened; number five things in it before it is saved."""
    with open_figure(path, height_inches + NOTES_INCHES) as figure:
        yield figure
        quality, cost = figure.axes
        rows = {label.get_text(): row for row, label in enumerate(quality.get_yticklabels())}
        grid, beta1 = rows["Batch norm and label smoothing"], rows["beta1 0.0 (vs 0.5)"]
        batch_norm = rows["batch norm off (vs on)"]
        low, high = quality.get_xlim()
        number(quality, 1, low + 0.1 * (high - low), grid, low, grid)
        number(quality, 2, np.log(2.18), batch_norm - 1.2, np.log(2.18), batch_norm - 0.3)
        number(quality, 3, np.log(2.3), batch_norm + 1.2, np.log(2.6), batch_norm + 0.1)
        number(quality, 4, np.log(1.25), beta1, np.log(1.1), beta1)
        number(cost, 5, cost.get_xlim()[1] * 0.6, batch_norm - 1.1, cost.get_xlim()[1] * 0.14, batch_norm - 0.2)
        words = "\n".join(f"{i}   {note}" for i, note in enumerate(NOTES, 1))
        figure.supxlabel(words, x=0.02, ha="left", fontsize=9, linespacing=1.5)


def number(axes: Axes, label: int, x: float, y: float, at_x: float, at_y: float) -> None:
    """Write a number in a circle, with a line to what it is about; all in the axes' own units."""
    axes.annotate(
        str(label),
        (at_x, at_y),
        (x, y),
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        color="white",
        bbox={"boxstyle": "circle,pad=0.25", "fc": "black", "ec": "none"},
        arrowprops={"arrowstyle": "-", "color": "black", "lw": 0.8},
        zorder=10,
    )


if __name__ == "__main__":
    command.run(main)
