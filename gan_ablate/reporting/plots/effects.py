"""Figures of effects: all of them on the front page, and each as seeds come in and along training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gan_ablate.reporting.plots.style import ANSWER_STYLES, draw_answer, lay_out_panels, open_figure, percent_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from gan_ablate.analysis.allocation import Look
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.trajectories import Course
    from gan_ablate.reporting.plots.style import FigurePath


_ANSWER_WORDS = {"lower": "better", "higher": "worse", "negligible": "does not matter", "open": "open"}

_ROW_INCHES = 0.23
MAX_TITLE = 60
"""Characters of a grid's title that are shown."""

_FRONT_REACH = np.log(4.0)
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
                draw_answer(quality, effect, row, _FRONT_REACH)
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


_SEEDS_REACH = np.log(6.0)
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
        np.clip([getattr(effect.adjusted, end) for effect in effects], -_SEEDS_REACH, _SEEDS_REACH)
        for end in ("low", "high")
    ]
    axes.fill_between(places, *bounds, color="C0", alpha=0.25, lw=0)
    axes.plot(places, [effect.estimate.value for effect in effects], "o-", color="C0", ms=4)
    axes.set_xlim(places[0] - 0.5, places[-1] + 0.5)
    percent_axis(axes, "y")


def _first(places: Sequence[int], effects: Sequence[Effect]) -> int | None:
    return next((place for place, effect in zip(places, effects, strict=True) if effect.answer != "open"), None)
