"""The figure of the front page: every effect of every grid, what it is called, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from gan_ablate.reporting.plots.style import ANSWER_STYLES, draw_answer, open_figure, percent_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.reporting.plots.style import FigurePath

_ANSWER_WORDS = {"lower": "better", "higher": "worse", "negligible": "does not matter", "open": "open"}

_ROW_INCHES = 0.23
MAX_TITLE = 60
"""Characters of a grid's title that are shown."""

_FARTHEST = np.log(4.0)
"""An axis up to four times FID, or a quarter of it, shows what matters; longer bars are cut."""


def plot_front(groups: Sequence[tuple[str, Sequence[tuple[str, Effect, Effect | None]]]], path: FigurePath) -> None:
    """Draw every effect on FID with its adjusted interval, and on the time of a step beside it.

    Args:
        groups: title of a grid → names, effects on FID and the same on the time of a step where that is known.
        path: the PNG to write.
    """
    rows: list[tuple[str, Effect | None, Effect | None]] = []
    for title, effects in groups:
        rows.append((title if len(title) <= MAX_TITLE else f"{title[:MAX_TITLE]}…", None, None))
        rows += effects
    with open_figure(path, _ROW_INCHES * len(rows) + 1.2) as figure:
        quality, cost = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1.2))
        for axes in (quality, cost):
            axes.axvline(0, color="0.3", lw=1)
            axes.grid(visible=False, axis="y")
        for row, (_, effect, time) in enumerate(rows):
            if effect is not None:
                if effect.margin is not None:  # each grid has its own
                    quality.fill_betweenx([row - 0.5, row + 0.5], -effect.margin, effect.margin, color="0.9", zorder=0)
                draw_answer(quality, effect, row, _FARTHEST)
            if time is not None and np.isfinite(time.estimate.value):
                draw_answer(cost, time, row, np.log(2.0), size=4)
        quality.set_yticks(range(len(rows)), [f"{title}" for title, _, _ in rows], fontsize=8)
        for label, (_, effect, _) in zip(quality.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if effect is None else "normal")
        quality.set_ylim(len(rows) - 0.5, -0.5)
        for axes, words in (
            (quality, "change of FID, log scale: left is better"),
            (cost, "step time: left is faster"),
        ):
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, -0.05), max(high, 0.05))
            percent_axis(axes, "x", 9 if axes is quality else 3)
            axes.set_xlabel(words)
        handles = [
            Line2D([], [], ls="", ms=6, label=_ANSWER_WORDS[answer], **style) for answer, style in ANSWER_STYLES.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
