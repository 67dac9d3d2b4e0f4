"""Figures of effects as seeds come in, and along training, against the margin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from gan_ablate.reporting.plots.style import lay_out_panels, open_figure, percent_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from gan_ablate.analysis.allocation import Look
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.trajectories import Course
    from gan_ablate.reporting.plots.style import FigurePath

_FARTHEST = np.log(6.0)
"""First intervals reach anywhere; an axis up to six times the value, or a sixth of it, shows what matters."""


def plot_looks(looks: Sequence[Look], path: FigurePath) -> None:
    """Draw the adjusted interval of every question on FID at every look, a panel each.

    Args:
        looks: in order, at least one.
        path: the PNG to write.
    """
    seeds = [look.num_seeds for look in looks]
    questions = zip(*(look.effects for look in looks), strict=True)
    courses = [effects for effects in questions if effects[0].outcome.name == "fid"]
    settled = [_first(seeds, effects) for effects in courses]
    _draw(seeds, courses, settled, "seeds", "settled at {:,} seeds", path)


def plot_trajectories(courses: Sequence[Course], path: FigurePath) -> None:
    """Draw the adjusted interval of every effect on FID along training, a panel each.

    Args:
        courses: at least one, all at the same steps.
        path: the PNG to write.
    """
    holds = [course.holds_from for course in courses]
    effects = [course.effects for course in courses]
    _draw(courses[0].steps, effects, holds, "generator steps", "holds from step {:,}", path)


def _draw(
    places: Sequence[int],
    courses: Sequence[Sequence[Effect]],
    marked: Sequence[int | None],
    what: str,
    mark_words: str,
    path: FigurePath,
) -> None:
    num_columns = 2 if len(courses) <= 4 else 3
    num_rows = -(-len(courses) // min(num_columns, len(courses)))
    with open_figure(path, (2.7 if num_columns == 2 else 2.0) * num_rows + 0.4) as figure:
        panels = lay_out_panels(figure, len(courses), num_columns, share_y=False)
        for axes, effects, mark in zip(panels, courses, marked, strict=True):
            _draw_course(axes, places, effects)
            words = f"{effects[0].name}\n{effects[-1].answer}"
            if mark is not None:
                axes.axvline(mark, color="0.3", ls="--", lw=1)
                words += f", {mark_words.format(mark)}"
            axes.set_title(words, fontsize=9 if num_columns == 2 else 7.5)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        figure.supxlabel(what, fontsize=10)
        figure.supylabel("change of FID", fontsize=10)


def _draw_course(axes: Axes, places: Sequence[int], effects: Sequence[Effect]) -> None:
    margin = effects[0].margin
    if margin is not None:
        axes.axhspan(-margin, margin, color="0.92", zorder=0)
    axes.axhline(0, color="0.3", lw=1)
    bounds = [
        np.clip([getattr(effect.adjusted, end) for effect in effects], -_FARTHEST, _FARTHEST) for end in ("low", "high")
    ]
    axes.fill_between(places, *bounds, color="C0", alpha=0.25, lw=0)
    axes.plot(places, [effect.estimate.value for effect in effects], "o-", color="C0", ms=4)
    axes.set_xlim(places[0] - 0.5, places[-1] + 0.5)
    percent_axis(axes, "y")


def _first(places: Sequence[int], effects: Sequence[Effect]) -> int | None:
    return next((place for place, effect in zip(places, effects, strict=True) if effect.answer != "open"), None)
