"""Figures of final scores: every run, every effect, what quality costs, and a panel per block."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns

from gan_ablate.analysis.estimates import Estimate, mean_estimate, mean_on_scale
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.reporting.formats import change_text
from gan_ablate.reporting.plots.style import (
    Style,
    draw_answer,
    draw_interval,
    draw_legend,
    error_bar,
    lay_out_panels,
    log_axis,
    mark_floor,
    open_figure,
    percent_axis,
)
from gan_ablate.reporting.plots.training import draw_curves
from gan_ablate.reporting.sentences import effect_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.design.claims import Factor
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.reporting.plots.style import FigurePath


FOREST_KEY = (
    "thick: 95 % · thin: adjusted for all of these · blue: better · red: worse · green: does not matter · "
    "hollow: open · band: the margin"
)


FID = OUTCOMES["fid"]

INTERACTIONS_CAPTION = "Does it depend on the other factors? Lines in parallel do not interact"


def plot_quality(runs: pd.DataFrame, style: Style, floor: str, path: FigurePath, outcome: Outcome = FID) -> None:
    """Draw the outcome of every run, a row per variant, with the mean and its interval: on a log scale, the geometric.

    Runs without a score are counted at the row's end.

    Args:
        runs: a row per run with columns cell, status and the outcome's.
        style: whose labels are the rows.
        floor: what real images score, in words; empty where that is not known.
        path: the PNG to write.
        outcome: which.
    """
    with open_figure(path, 0.45 * len(style.colours) + 1.3) as figure:
        axes = figure.add_subplot()
        draw_quality(axes, runs, style, outcome)
        mark_floor(axes, floor)
        axes.set_xlabel(f"{_axis_words(outcome)} ({outcome.goodness}); rings are seeds, bars 95 % intervals")


def _axis_words(outcome: Outcome) -> str:
    return f"{outcome.title}, log scale" if outcome.scale == "ratio" else outcome.title


def draw_quality(axes: Axes, runs: pd.DataFrame, style: Style, outcome: Outcome = FID) -> None:
    """Draw the outcome of every run into a panel; see ``plot_quality``."""
    labels = list(style.colours)
    for row, label in enumerate(labels):
        of_cell = runs.loc[runs["cell"] == label]
        values = of_cell[outcome.name].to_numpy(np.float64)
        colour = style.colours[label]
        axes.plot(values, np.full(len(values), row), "o", ms=5, mfc="none", color=colour, alpha=0.7, zorder=2)
        draw_interval(axes, mean_on_scale(values, is_ratio=outcome.scale == "ratio"), row, colour, style.markers[label])
        ended = [(status, int((of_cell["status"] == status).sum())) for status in ("diverged", "failed")]
        words = ", ".join(f"{count} {status}" for status, count in ended if count)
        axes.text(0.995, row, words, transform=axes.get_yaxis_transform(), ha="right", va="center", color="C3")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    if outcome.scale == "ratio":
        log_axis(axes, "x")


def plot_effects(effects: Sequence[Effect], path: FigurePath) -> None:
    """Draw every effect on one outcome, a forest around zero: thick bars 95 %, thin ones adjusted for the family.

    A band marks the margin within which an effect does not matter; colours tell effects, negligible and open ones.

    Args:
        effects: main effects and interactions.
        path: the PNG to write.
    """
    with open_figure(path, 0.42 * len(effects) + 1.3) as figure:
        axes = figure.add_subplot()
        draw_forest(axes, effects)
        axes.set_title(FOREST_KEY, fontsize=8, color="0.35", loc="right")


def draw_forest(axes: Axes, effects: Sequence[Effect | None], most_ticks: int = 9) -> None:
    """Draw a row for every effect, an empty one where there is none to be told."""
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
        draw_answer(axes, effect, row, np.log(150.0) if is_ratio else np.inf, size=8)
    names = ["" if effect is None else effect_name(effect) for effect in effects]
    axes.set_yticks(range(len(effects)), names)
    axes.set_ylim(len(effects) - 0.5, -0.5)
    if is_ratio:
        low, high = axes.get_xlim()
        # Two seeds may leave anything possible; the axis need not show all of it.
        axes.set_xlim(max(low, np.log(0.005)), min(high, np.log(150)))
        percent_axis(axes, "x", most_ticks)
    axes.set_xlabel(f"change of {outcome.title}")
    left, right = ("worse", "better") if outcome.better == "higher" else ("better", "worse")
    for words, side in ((f"← {left} ", "right"), (f" {right} →", "left")):
        at_zero: Any = {"xycoords": axes.get_xaxis_transform(), "ha": side, "va": "bottom"}
        axes.annotate(words, (0, 0.01), **at_zero, fontsize=8, color="0.35")


def plot_interactions(
    runs: pd.DataFrame,
    factors: Mapping[str, Factor],
    effects: Sequence[Effect],
    path: FigurePath,
    outcome: Outcome = FID,
) -> None:
    """Draw an outcome at every pair of levels of every two factors: lines that are parallel do not interact.

    Args:
        runs: columns of the factors, seed and the outcome's.
        factors: of a factorial design, at least two.
        effects: with the interactions, whose estimates are the panels' titles.
        path: the PNG to write.
        outcome: which.
    """
    pairs = list(itertools.combinations(factors, 2))
    num_columns = min(2, len(pairs))
    num_rows = -(-len(pairs) // num_columns)
    with open_figure(path, 3.4 * num_rows) as figure:
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
        for axes in grid.flat[len(pairs) :]:
            axes.set_axis_off()
        for axes, (first, second) in zip(grid.flat, pairs, strict=False):
            levels, lines = levels_in_order(factors[first]), levels_in_order(factors[second])
            palette = sns.color_palette("colorblind", len(lines))
            for i, line in enumerate(lines):
                estimates = [_cell_mean(runs, {first: level, second: line}, outcome) for level in levels]
                places = np.arange(len(levels)) + 0.04 * (i - (len(lines) - 1) / 2)
                values = [estimate.value for estimate in estimates]
                bars = np.array([(e.value - e.low, e.high - e.value) for e in estimates]).T
                style = {"marker": "osD^v"[i % 5], "ls": ("-", "--", ":", "-.")[i % 4]}
                label = f"{second.replace('_', ' ')} {line}"
                axes.errorbar(
                    places, values, yerr=np.nan_to_num(bars), color=palette[i], capsize=3, ms=7, label=label, **style
                )
            axes.set_xticks(range(len(levels)), levels)
            axes.set_xlim(-0.4, len(levels) - 0.6)
            if outcome.scale == "ratio":
                log_axis(axes, "y")
            axes.legend(frameon=False, fontsize=8)
            found = [e for e in effects if e.is_interaction and set(e.levels) == {first, second}]
            words = [change_text(e, e.estimate) for e in found if e.estimate.num_seeds]
            pair = f"{first} × {second}".replace("_", " ")
            # A title holds one interaction; of more levels, the effects' own figure has them all.
            axes.set_title(f"{pair}: {words[0]}" if len(words) == 1 else pair, fontsize=9)
            axes.set_xlabel(first.replace("_", " "))
        for axes in grid[:, 0]:
            axes.set_ylabel(f"{_axis_words(outcome)}, with 95 % interval")


def plot_cost(runs: pd.DataFrame, style: Style, path: FigurePath) -> None:
    """Draw FID against what the training of a run took, a point per variant with intervals, and the Pareto front.

    Args:
        runs: columns cell, fid, train_sec.
        style: of the variants.
        path: the PNG to write.
    """
    is_split = len(style.panels) > 1
    with open_figure(path, 2.8 * -(-len(style.panels) // 3) + 0.5 if is_split else 4.2) as figure:
        panels = lay_out_panels(figure, len(style.panels))
        for axes, (title, labels) in zip(panels, style.panels.items(), strict=True):
            _draw_costs(axes, runs, style, labels)
            axes.margins(x=0.15)
            if is_split:
                axes.set_title(title, fontsize=9)
                axes.legend(frameon=False, fontsize=6.5)
        log_axis(panels[0], "y")
        low, high = panels[0].get_xlim()  # of all panels
        panels[0].set_xlim(max(low, 0), high)  # an interval may reach below, a time may not
        figure.supxlabel("training seconds of a run (lower is cheaper)", fontsize=10)
        figure.supylabel("FID, log scale (lower is better)", fontsize=10)
        if not is_split:
            draw_legend(figure, panels[0])


def _draw_costs(axes: Axes, runs: pd.DataFrame, style: Style, labels: Sequence[str]) -> None:
    points: list[tuple[float, float]] = []
    for label in labels:
        rows = runs.loc[runs["cell"] == label]
        fid = mean_on_scale(rows["fid"].to_numpy(np.float64), is_ratio=True)
        seconds = mean_estimate(rows["train_sec"].to_numpy(np.float64))
        if fid.num_seeds == 0 or seconds.num_seeds == 0:
            continue
        points.append((seconds.value, fid.value))
        bars: Any = {"xerr": error_bar(seconds), "yerr": error_bar(fid)}
        look: Any = {"fmt": style.markers[label], "color": style.colours[label], "ms": 8, "capsize": 3, "label": label}
        axes.errorbar(seconds.value, fid.value, **bars, **look)
    front = pareto_front(points)
    if len(front) > 1:  # one variant that is cheapest and best is no line
        words = "Pareto front of the means"
        axes.step(*zip(*front, strict=True), where="post", color="0.5", lw=1, ls="--", zorder=0, label=words)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pick the points than which no other is both cheaper and better, cheapest first.

    Args:
        points: (cost, score) pairs, lower being better in both.
    """
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points):
        if not front or score < front[-1][1]:
            front.append((cost, score))
    return front


def levels_in_order(factor: Factor) -> list[str]:
    """The levels of a factor: numbers in their order, names as they stand, the baseline first."""
    try:
        return sorted(factor.levels, key=float)
    except ValueError:
        return [factor.baseline, *(level for level in factor.levels if level != factor.baseline)]


def _cell_mean(runs: pd.DataFrame, levels: Mapping[str, str], outcome: Outcome) -> Estimate:
    """Mean over seeds at these levels, averaged within each seed over all other factors: of ratios, the geometric."""
    chosen = np.logical_and.reduce([runs[factor] == level for factor, level in levels.items()])
    values = runs.loc[chosen].dropna(subset=outcome.name).set_index("seed")[outcome.name]
    if outcome.scale == "difference":
        return mean_estimate(values.groupby("seed").mean().to_numpy(np.float64))
    return mean_estimate(np.log(values).groupby("seed").mean().to_numpy(np.float64)).as_ratio()


def plot_block_effects(panels: Mapping[str, Sequence[Effect | None]], path: FigurePath) -> None:
    """Draw every effect on FID in every block, on one scale, as ``plot_effects`` does.

    Args:
        panels: block, or what the blocks have in common → its effects, in the same order; None where there is none.
        path: the PNG to write.
    """
    num_rows = max(len(effects) for effects in panels.values())
    with _open_panels(path, list(panels), 0.42 * num_rows + 1.0) as (figure, by_name):
        for name, effects in panels.items():
            draw_forest(by_name[name], effects, 4)
        for axes in by_name.values():  # they share an axis, whose range the last panel may have changed
            percent_axis(axes, "x", 4)
        figure.suptitle(FOREST_KEY, fontsize=8, color="0.35")


def plot_block_quality(runs: Mapping[str, pd.DataFrame], style: Style, path: FigurePath) -> None:
    """Draw the FID of every run, a panel a block with an axis of its own: their scales do not compare.

    Args:
        runs: block → a row per run, as for ``plot_quality``.
        style: whose labels are the rows.
        path: the PNG to write.
    """
    with _open_panels(path, list(runs), 0.45 * len(style.colours) + 1.0, share_x=False) as (figure, by_name):
        for name, of_block in runs.items():
            draw_quality(by_name[name], of_block, style)
        figure.supxlabel("FID, log scale (lower is better); rings are seeds, bars 95 % intervals", fontsize=10)


def plot_block_curves(curves: Mapping[str, pd.DataFrame], style: Style, path: FigurePath) -> None:
    """Draw FID along training, a panel a block.

    Args:
        curves: block → columns cell, seed, step, fid.
        style: of the variants.
        path: the PNG to write.
    """
    with _open_panels(path, list(curves), 3.4, share_x=False, share_y=False) as (figure, by_name):
        for name, of_block in curves.items():
            axes = by_name[name]
            draw_curves([axes], of_block, style)
            log_axis(axes, "y")
            axes.set_xlabel("generator steps")
        first = next(iter(by_name.values()))
        first.set_ylabel("FID, log scale")
        draw_legend(figure, first)


@contextmanager
def _open_panels(
    path: FigurePath, names: Sequence[str], height_inches: float, *, share_x: bool = True, share_y: bool = True
) -> Iterator[tuple[Figure, dict[str, Axes]]]:
    """Open a figure with a panel for each name, its title, at most three to a row."""
    with open_figure(path, -(-len(names) // 3) * height_inches + 0.4) as figure:
        panels = lay_out_panels(figure, len(names), share_x=share_x, share_y=share_y)
        by_name = dict(zip(names, panels, strict=True))
        for name, axes in by_name.items():
            axes.set_title(name, fontsize=10)
        yield figure, by_name
