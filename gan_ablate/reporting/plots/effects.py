"""Figures of effects: of all grids, of one outcome, as seeds come in, along training, and interactions."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gan_ablate.analysis.estimates import Estimate, mean_estimate
from gan_ablate.reporting.plots.style import (
    DECISION_STYLES,
    FID,
    WIDTH_INCHES,
    axis_words,
    draw_decision,
    lay_out_panels,
    log_axis,
    name_rows,
    open_figure,
    percent_axis,
)
from gan_ablate.reporting.sentences import adjusted_text, effect_name, is_timed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from gan_ablate.analysis.allocation import InterimAnalysis
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.trajectories import Trajectory
    from gan_ablate.design.claims import Factor
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.reporting.plots.style import FigurePath


MAX_TITLE = 60
"""The most characters of a grid's title that a figure shows."""

INTERACTIONS_CAPTION = "Interactions"
INTERACTIONS_NOTE = (
    "Look for lines that are not parallel. Bars are 95 % intervals of the means. A title has the interaction with its "
    "adjusted interval."
)
FOREST_NOTE = (
    "Look for thin bars that miss zero, or that lie within the grey band, the margin. Thin bars are adjusted "
    "intervals: decisions rest on them. Thick bars are 95 % intervals."
)
TRAJECTORIES_NOTE = (
    "Look for a line that crosses zero: there the answer changes with the length of training. Blue bands are intervals "
    "adjusted for all effects at that step. The grey band is the margin. A dashed line is the step from which the "
    "answer holds."
)
LOOKS_NOTE = (
    "Look for the number of seeds at which a blue band misses zero, or lies within the grey one, the margin. Blue "
    "bands are adjusted intervals that hold at every look. A line ends where the effect got no further seed."
)

FOREST_KEY = (
    "thick: 95 % · thin: adjusted for all of these · blue: better · red: worse · green: does not matter · "
    "hollow: inconclusive · band: the margin"
)

_DECISION_WORDS = {
    "lower": "better",
    "higher": "worse",
    "negligible": "does not matter",
    "inconclusive": "inconclusive",
}

_ROW_INCHES = 0.23

_FRONT_REACH = np.log(4.0)
"""The axis of the front page ends at four times FID and at a quarter of it; longer bars are cut."""

_SEEDS_REACH = np.log(6.0)
"""Axes of panels end at six times the value and at a sixth of it: first intervals reach anywhere."""


class FrontRow(NamedTuple):
    """A row of the figure on the front page.

    Attributes:
        name: of the effect and its baseline.
        effect: on FID.
        time: the same on the time of a step, where that is known.
        decides_nothing: whether it is drawn as inconclusive, whatever its decision.
    """

    name: str
    effect: Effect
    time: Effect | None
    decides_nothing: bool = False


def plot_front(groups: Sequence[tuple[str, Sequence[FrontRow]]], path: FigurePath) -> None:
    """Draw every effect on FID with its adjusted interval, and on the time of a step beside it, where any is known.

    Args:
        groups: title of a grid → its rows.
        path: the PNG to write.
    """
    rows: list[tuple[str, FrontRow | None]] = []
    for title, of_grid in groups:
        rows.append((title if len(title) <= MAX_TITLE else f"{title[:MAX_TITLE]}…", None))
        rows += [(row.name, row) for row in of_grid]
    is_costed = any(row is not None and row.time is not None and is_timed(row.time) for _, row in rows)
    panels = [("change of FID, log scale: left is better", 9, 3.0), ("time: left is faster", 3, 1.2)]
    panels = panels if is_costed else panels[:1]
    with open_figure(path, _ROW_INCHES * len(rows) + 1.2) as figure:
        widths = [width for *_, width in panels]
        (drawn,) = figure.subplots(1, len(panels), sharey=True, width_ratios=widths, squeeze=False)
        quality, cost = drawn[0], drawn[-1]
        for axes in drawn:
            axes.axvline(0, color="0.3", lw=1)
            axes.grid(visible=False, axis="y")
        for place, (_, row) in enumerate(rows):
            if row is None:
                continue
            margin = row.effect.margin
            if margin is not None:  # each grid has its own
                quality.fill_betweenx([place - 0.5, place + 0.5], -margin, margin, color="0.9", zorder=0)
            draw_decision(quality, row.effect, place, _FRONT_REACH, decides_nothing=row.decides_nothing)
            if row.time is not None and is_timed(row.time):
                draw_decision(cost, row.time, place, np.log(2.0), size=4)
        quality.set_yticks(range(len(rows)), [title for title, _ in rows], fontsize=8)
        for label, (_, row) in zip(quality.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row is None else "normal")
        quality.set_ylim(len(rows) - 0.5, -0.5)
        for axes, (words, num_ticks, _) in zip(drawn, panels, strict=True):
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, -0.05), max(high, 0.05))
            percent_axis(axes, "x", num_ticks)
            axes.set_xlabel(words)
        handles = [
            Line2D([], [], ls="", ms=6, label=_DECISION_WORDS[decision], **style)
            for decision, style in DECISION_STYLES.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9)


def plot_looks(looks: Sequence[InterimAnalysis], path: FigurePath) -> None:
    """Draw the adjusted interval of every effect on FID at every look until its seeds stop, a panel each.

    Args:
        looks: in order, at least one.
        path: the PNG to write.
    """
    seeds = [look.num_seeds for look in looks]
    questions = zip(*(look.effects for look in looks), strict=True)
    trajectories = [effects for effects in questions if effects[0].outcome.name == "fid"]
    settled = [
        next((num for num, effect in zip(seeds, effects, strict=True) if effect.decision != "inconclusive"), None)
        for effects in trajectories
    ]
    shown = [_until_stopped(effects) for effects in trajectories]
    _plot_panels(seeds, shown, settled, "seeds", "settled at {:,} seeds", path)


def _until_stopped(effects: Sequence[Effect]) -> Sequence[Effect]:
    """Leave out the looks after a decision at which the effect got no further seed."""
    last = len(effects) - 1
    while (
        last > 0
        and effects[last - 1].decision != "inconclusive"
        and effects[last - 1].estimate.num_seeds == effects[last].estimate.num_seeds
    ):
        last -= 1
    return effects[: last + 1]


def plot_trajectories(trajectories: Sequence[Trajectory], path: FigurePath) -> None:
    """Draw the adjusted interval of every effect on FID along training, a panel each.

    Args:
        trajectories: at least one, all at the same steps.
        path: the PNG to write.
    """
    holds = [trajectory.holds_from for trajectory in trajectories]
    effects = [trajectory.effects for trajectory in trajectories]
    _plot_panels(trajectories[0].steps, effects, holds, "generator steps", "the same from step {:,}", path)


def _plot_panels(
    places: Sequence[int],
    trajectories: Sequence[Sequence[Effect]],
    marked: Sequence[int | None],
    what: str,
    mark_words: str,
    path: FigurePath,
) -> None:
    num_columns = 2 if len(trajectories) <= 4 else 3
    num_rows = -(-len(trajectories) // min(num_columns, len(trajectories)))
    with open_figure(path, (2.7 if num_columns == 2 else 2.0) * num_rows + 0.4) as figure:
        panels = lay_out_panels(figure, len(trajectories), num_columns, share_y=False)
        for axes, effects, mark in zip(panels, trajectories, marked, strict=True):
            _draw_trajectory(axes, places[: len(effects)], effects)
            edge = max(0.5, 0.03 * (places[-1] - places[0]))  # the first and the last marker are whole
            axes.set_xlim(places[0] - edge, places[-1] + edge)
            words = f"{effects[0].name}\n{effects[-1].decision}"
            if mark is not None:
                axes.axvline(mark, color="0.3", ls="--", lw=1)
                words += f", {mark_words.format(mark)}"
            axes.set_title(words, fontsize=9 if num_columns == 2 else 7.5)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6 if num_columns == 2 else 4, integer=True, min_n_ticks=1))
        figure.supxlabel(what, fontsize=10)
        figure.supylabel("change of FID", fontsize=10)


def _draw_trajectory(axes: Axes, places: Sequence[int], effects: Sequence[Effect]) -> None:
    margin = effects[0].margin
    if margin is not None:
        axes.axhspan(-margin, margin, color="0.92", zorder=0)
    axes.axhline(0, color="0.3", lw=1)
    bounds = [
        np.clip([getattr(effect.adjusted, end) for effect in effects], -_SEEDS_REACH, _SEEDS_REACH)
        for end in ("low", "high")
    ]
    if len(places) == 1:  # a band has no width
        axes.vlines(places, *bounds, color="C0", alpha=0.4, lw=2.4)
    axes.fill_between(places, *bounds, color="C0", alpha=0.25, lw=0)
    axes.plot(places, [effect.estimate.value for effect in effects], "o-", color="C0", ms=4)
    percent_axis(axes, "y")


def plot_effects(effects: Sequence[Effect], path: FigurePath) -> None:
    """Draw a forest plot of the effects on one outcome: thick bars are intervals, thin ones adjusted for the family.

    A band marks the margin; the colour of an effect is its decision.

    Args:
        effects: main effects and interactions.
        path: the PNG to write.
    """
    with open_figure(path, 0.42 * len(effects) + 1.3) as figure:
        axes = figure.add_subplot()
        draw_forest(axes, effects)
        axes.set_title(FOREST_KEY, fontsize=8, color="0.35", loc="right")


def draw_forest(axes: Axes, effects: Sequence[Effect | None], most_ticks: int = 9) -> None:
    """Draw a row for every effect on one outcome; a row of None stays empty."""
    axes.axvline(0, color="0.3", lw=1)
    known = [effect for effect in effects if effect is not None]
    margin = known[0].margin if known else None
    outcome = known[0].outcome if known else FID
    is_ratio = outcome.scale == "ratio"
    if margin is not None:
        axes.axvspan(-margin, margin, color="0.92", zorder=0)
    for row, effect in enumerate(effects):
        if effect is None:
            continue
        draw_decision(axes, effect, row, np.log(150.0) if is_ratio else np.inf, size=8)
    names = ["" if effect is None else effect_name(effect) for effect in effects]
    name_rows(axes, names)
    if is_ratio:
        low, high = axes.get_xlim()
        # The interval of two seeds may be far wider than any reader needs.
        axes.set_xlim(max(low, np.log(0.005)), min(high, np.log(150)))
        percent_axis(axes, "x", most_ticks)
    better = "right" if outcome.better == "higher" else "left"
    axes.set_xlabel(f"change of {axis_words(outcome)}: {better} is better")


def plot_interactions(
    runs: pd.DataFrame,
    factors: Mapping[str, Factor],
    effects: Sequence[Effect],
    path: FigurePath,
    outcome: Outcome = FID,
) -> None:
    """Draw an outcome at every pair of levels of every two factors: parallel lines mean no interaction.

    Args:
        runs: columns of the factors, seed and the outcome's.
        factors: of a factorial design, at least two.
        effects: with the interactions; their estimates are the panels' titles.
        path: the PNG to write.
        outcome: on the y axis.
    """
    pairs = list(itertools.combinations(factors, 2))
    num_columns = min(2, len(pairs))
    num_rows = -(-len(pairs) // num_columns)
    names = {name: _break_levels(sort_levels(factor), WIDTH_INCHES / num_columns) for name, factor in factors.items()}
    most_lines = max(word.count("\n") for name in factors for word in names[name])
    with open_figure(path, (3.4 + 0.17 * most_lines) * num_rows) as figure:
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
        for axes in grid.flat[len(pairs) :]:
            axes.set_axis_off()
        for axes, (first, second) in zip(grid.flat, pairs, strict=False):
            levels, lines = sort_levels(factors[first]), sort_levels(factors[second])
            palette = sns.color_palette("colorblind", len(lines))
            for i, line in enumerate(lines):
                estimates = [_mean_at(runs, {first: level, second: line}, outcome) for level in levels]
                places = np.arange(len(levels)) + 0.04 * (i - (len(lines) - 1) / 2)
                values = [estimate.value for estimate in estimates]
                bars = np.array([(e.value - e.low, e.high - e.value) for e in estimates]).T
                style = {"marker": "osD^v"[i % 5], "ls": ("-", "--", ":", "-.")[i % 4]}
                label = f"{second.replace('_', ' ')} {line}"
                axes.errorbar(
                    places, values, yerr=np.nan_to_num(bars), color=palette[i], capsize=3, ms=7, label=label, **style
                )
            axes.set_xticks(range(len(levels)), names[first])
            axes.set_xlim(-0.4, len(levels) - 0.6)
            axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=-(-len(lines) // _LEGEND_ROWS))
            found = [e for e in effects if e.is_interaction and set(e.levels) == {first, second}]
            words = [adjusted_text(e) for e in found if e.estimate.num_seeds]
            pair = f"{first} × {second}".replace("_", " ")
            # A title has room for one interaction; the figure of all effects shows several.
            axes.set_title(f"{pair}: {words[0]}" if len(words) == 1 else pair, fontsize=9)
            axes.set_xlabel(first.replace("_", " "))
        most = max(len(factors[second].levels) for _, second in pairs)
        _make_room(grid[0, 0], 0.05 + 0.085 * min(most, _LEGEND_ROWS), is_log=outcome.scale == "ratio")
        for axes in grid[:, 0]:
            axes.set_ylabel(f"{axis_words(outcome)}, with 95 % interval", fontsize=9)


_LEGEND_ROWS = 5
"""Rows of a legend; more lines stand side by side."""


def _break_levels(levels: Sequence[str], inches: float) -> list[str]:
    """Break the names of levels that are wider than their places on an axis of so many inches."""
    return [textwrap.fill(level, max(4, int(10 * inches / len(levels))), break_on_hyphens=False) for level in levels]


def _make_room(axes: Axes, share: float, *, is_log: bool) -> None:
    """Leave a share of the panels' height, which all have, free at the top: a legend must not lie on an interval."""
    if is_log:
        axes.set_yscale("log")
    low, high = (np.log(axes.get_ylim()) if is_log else np.array(axes.get_ylim())).tolist()
    top = high + (high - low) * share / (1 - share)
    axes.set_ylim(top=np.exp(top) if is_log else top)
    if is_log:
        for panel in axes.figure.axes:
            log_axis(panel, "y")


def sort_levels(factor: Factor) -> list[str]:
    """Sort the levels of a factor: numbers by size, names in the grid's order after the baseline."""
    try:
        return sorted(factor.levels, key=float)
    except ValueError:
        return [factor.baseline, *(level for level in factor.levels if level != factor.baseline)]


def _mean_at(runs: pd.DataFrame, levels: Mapping[str, str], outcome: Outcome) -> Estimate:
    """Average an outcome at some levels over all other factors and over seeds: on the ratio scale, geometrically."""
    chosen = np.logical_and.reduce([runs[factor] == level for factor, level in levels.items()])
    values = runs.loc[chosen].dropna(subset=outcome.name).set_index("seed")[outcome.name]
    if outcome.scale == "difference":
        return mean_estimate(values.groupby("seed").mean().to_numpy(np.float64))
    return mean_estimate(np.log(values).groupby("seed").mean().to_numpy(np.float64)).as_ratio()
