"""A figure of answers as they come in: every question's interval, seed after seed, against the margin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from gan_ablate.reporting.plots.style import open_figure, percent_axis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gan_ablate.analysis.settling import Look

_FARTHEST = np.log(4.0)
"""First intervals reach anywhere; an axis up to four times the value, or a quarter of it, shows what matters."""


def plot_settling(looks: Sequence[Look], path: Path) -> None:
    """Draw the adjusted interval of every question on FID at every look, a panel each.

    Args:
        looks: in order, at least one.
        path: the PNG to write.
    """
    questions = [i for i, effect in enumerate(looks[0].effects) if effect.outcome.name == "fid"]
    num_columns = min(2, len(questions))
    num_rows = -(-len(questions) // num_columns)
    seeds = [look.num_seeds for look in looks]
    with open_figure(path, 2.6 * num_rows) as figure:
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True)
        for axes in grid.flat[len(questions) :]:
            axes.set_axis_off()
        for axes, question in zip(grid.flat, questions, strict=False):
            effects = [look.effects[question] for look in looks]
            margin = effects[0].margin
            if margin is not None:
                axes.axhspan(-margin, margin, color="0.92", zorder=0)
            axes.axhline(0, color="0.3", lw=1)
            low, high = (
                np.clip([getattr(effect.adjusted, bound) for effect in effects], -_FARTHEST, _FARTHEST)
                for bound in ("low", "high")
            )
            axes.fill_between(seeds, low, high, color="C0", alpha=0.25, lw=0)
            axes.plot(seeds, [effect.estimate.value for effect in effects], "o-", color="C0", ms=4)
            settled = [number for number, effect in zip(seeds, effects, strict=True) if effect.answer != "open"]
            title = f"{effects[0].name}: {effects[-1].answer}"
            if settled:
                axes.axvline(settled[0], color="0.3", ls="--", lw=1)
                title += f", settled at {settled[0]} seeds"
            axes.set_title(title, fontsize=9)
            axes.set_xlim(seeds[0] - 0.5, seeds[-1] + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            percent_axis(axes, "y")
        for axes in grid[-1]:
            axes.set_xlabel("seeds; shaded: the margin, and the interval that holds at every look")
        for axes in grid[:, 0]:
            axes.set_ylabel("change of FID")
