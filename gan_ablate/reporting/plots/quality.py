"""Figures of final scores: every run, quality against cost, and the same in a panel for each block."""

from __future__ import annotations

import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.lines import Line2D

from gan_ablate.analysis.estimates import mean_estimate, mean_on_scale
from gan_ablate.reporting.plots.effects import FOREST_KEY, draw_forest
from gan_ablate.reporting.plots.style import (
    FID,
    Style,
    axis_words,
    draw_interval,
    draw_legend,
    draw_panel_legend,
    lay_out_panels,
    log_axis,
    name_rows,
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
    from gan_ablate.analysis.estimates import Estimate
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.reporting.plots.style import FigurePath


RUNS_NOTE = (
    "Look for a ring far from the others of its row: one lucky or unlucky run. Rings are seeds, filled markers means. "
    "Bars are 95 % intervals of the means."
)

COMPARISON_NOTE = (
    "Look for rows whose bars lie on different sides of zero. Thick bars are 95 % intervals. Thin bars are adjusted "
    "for all comparisons of a grid, and decisions rest on them. A missing thin bar is wider than the axis. Hollow "
    "markers are inconclusive. The grey band is the margin. Bars beyond six times FID, or a sixth of it, are cut."
)

COMPARISON_WRAP = 42
"""The most characters in a line of a change's name beside its row."""

COMPARISON_REACH = np.log(6.0)
"""The axis of compared effects ends at six times FID and at a sixth of it."""

COST_NOTE = (
    "Look for variants further down and to the left. Bars are 95 % intervals of the means over seeds. Where bars "
    "overlap, the order of two variants is not known. A bar that ends at the frame reaches further. Variants whose "
    "times do not compare are left out."
)


def plot_quality(runs: pd.DataFrame, style: Style, floor: str, path: FigurePath, outcome: Outcome = FID) -> None:
    """Draw an outcome of every run, a row for each variant, with the mean and its interval.

    The mean is geometric for an outcome of the ratio scale. The end of a row counts diverged and failed runs.

    Args:
        runs: a row for each run, with columns variant, status and the outcome.
        style: of the variants, which are the rows.
        floor: what real images score, in words; empty where it is not known.
        path: the PNG to write.
        outcome: on the x axis.
    """
    with open_figure(path, 0.45 * len(style.colours) + 1.3) as figure:
        axes = figure.add_subplot()
        draw_quality(axes, runs, style, outcome)
        axes.set_title(floor, loc="right", fontsize=8, color="0.35")  # no line: the axis need not reach it
        axes.set_xlabel(f"{axis_words(outcome)} ({outcome.goodness})")


def draw_quality(axes: Axes, runs: pd.DataFrame, style: Style, outcome: Outcome = FID) -> None:
    """Draw the outcome of every run into a panel; see ``plot_quality``."""
    labels = list(style.colours)
    for row, label in enumerate(labels):
        of_variant = runs.loc[runs["variant"] == label]
        values = of_variant[outcome.name].to_numpy(np.float64)
        colour = style.colours[label]
        axes.plot(values, np.full(len(values), row), "o", ms=5, mfc="none", color=colour, alpha=0.7, zorder=2)
        draw_interval(axes, mean_on_scale(values, is_ratio=outcome.scale == "ratio"), row, colour, style.markers[label])
        ended = [(status, int((of_variant["status"] == status).sum())) for status in ("diverged", "failed")]
        words = ", ".join(f"{count} {status}" for status, count in ended if count)
        if words:  # beside the panel, where no run is
            place: Any = {"ha": "left", "va": "center", "fontsize": 8, "color": "#b3261e"}
            axes.text(1.01, row, words, transform=axes.get_yaxis_transform(), **place)
    name_rows(axes, labels)
    if outcome.scale == "ratio":
        log_axis(axes, "x")


def plot_cost(runs: pd.DataFrame, style: Style, path: FigurePath) -> None:
    """Draw FID against the training time of a run, a point with intervals for each variant.

    No line joins the best: a front of means would pass through noise.

    Args:
        runs: columns variant, fid, train_sec.
        style: of the variants.
        path: the PNG to write.
    """
    known, is_split = list_timed(runs), len(style.panels) > 1
    shown = {title: [label for label in labels if label in known] for title, labels in style.panels.items()}
    shown = {title: labels for title, labels in shown.items() if len(labels) > 1} or shown
    with open_figure(path, 2.8 * -(-len(shown) // 3) + 0.5 if is_split else 4.2) as figure:
        panels = lay_out_panels(figure, len(shown))
        longest = 0.0
        for axes, (title, labels) in zip(panels, shown.items(), strict=True):
            longest = max(longest, _draw_costs(axes, runs, style, labels))
            axes.margins(x=0.15)
            if is_split:
                axes.set_title(title, fontsize=9)
                draw_panel_legend(axes)
        log_axis(panels[0], "y")
        low, high = panels[0].get_xlim()  # of all panels
        # An interval may reach below zero, a time may not; one that reaches far to the right is cut.
        panels[0].set_xlim(max(low, 0), min(high, 1.5 * longest))
        figure.supxlabel("training seconds of a run (lower is cheaper)", fontsize=10)
        figure.supylabel("FID, log scale (lower is better)", fontsize=10)
        if not is_split:
            draw_legend(figure, panels[0])


def list_timed(runs: pd.DataFrame) -> set[str]:
    """List the variants that have an FID and training seconds that compare."""
    return set(runs.loc[runs["fid"].notna(), "variant"]) & set(runs.loc[runs["train_sec"].notna(), "variant"])


def _draw_costs(axes: Axes, runs: pd.DataFrame, style: Style, labels: Sequence[str]) -> float:
    """Draw a point for each variant, and return the longest of their mean seconds."""
    longest = 0.0
    for label in labels:
        rows = runs.loc[runs["variant"] == label]
        fid = mean_on_scale(rows["fid"].to_numpy(np.float64), is_ratio=True)
        seconds = mean_estimate(rows["train_sec"].to_numpy(np.float64))
        bars: Any = {"xerr": _error_bar(seconds), "yerr": _error_bar(fid)}
        look: Any = {"marker": style.markers[label], "color": style.colours[label], "ms": 8, "label": label}
        axes.errorbar(seconds.value, fid.value, fmt="none", ecolor=style.colours[label], capsize=3, **bars)
        axes.plot(seconds.value, fid.value, ls="", **look)
        longest = max(longest, seconds.value)
    return longest


def _error_bar(estimate: Estimate) -> list[list[float]] | None:
    """Turn an interval into the lengths of matplotlib's error bars, below and above."""
    if not np.isfinite(estimate.low):
        return None
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]


def plot_block_effects(panels: Mapping[str, Sequence[Effect | None]], path: FigurePath) -> None:
    """Draw a forest plot of the effects on one outcome for each block, all on one scale.

    Args:
        panels: block, or ``average`` → its effects, all in the same order; None leaves a row empty.
        path: the PNG to write.
    """
    is_ratio = all(effect is None or effect.outcome.scale == "ratio" for of in panels.values() for effect in of)
    rows = list(zip(*panels.values(), strict=True))
    names = [next((effect_name(effect) for effect in row if effect is not None), "") for row in rows]
    with _open_panels(path, list(panels), 0.42 * len(rows) + 1.0) as (figure, by_name):
        for name, effects in panels.items():
            by_name[name].set_autoscalex_on(True)  # the panel before has fixed the axis that they share
            draw_forest(by_name[name], effects, 4)
            name_rows(by_name[name], names)
        for axes in by_name.values():  # they share an axis, whose range the last panel may have changed
            if is_ratio:
                percent_axis(axes, "x", 4)
            figure.supxlabel(axes.get_xlabel(), fontsize=10)
            axes.set_xlabel("")
        figure.suptitle(FOREST_KEY, fontsize=8, color="0.35")


def plot_compared_effects(
    settings: Sequence[str], rows: Sequence[tuple[str, Sequence[Effect | None]]], path: FigurePath
) -> None:
    """Draw the same changes in several settings: rows for each change, a bar for each setting.

    Args:
        settings: in words, such as ``1,500 steps of mnist-10k``.
        rows: the name of a change, and its effect in each setting, None where it was not measured.
        path: the PNG to write.
    """
    colours = sns.color_palette("colorblind", len(settings))
    offsets = 0.7 / len(settings) * (np.arange(len(settings)) - (len(settings) - 1) / 2)
    names = [textwrap.fill(name, COMPARISON_WRAP, break_on_hyphens=False) for name, _ in rows]
    row_inches = max(0.1 + 0.1 * len(settings), 0.14 * max(name.count("\n") + 1 for name in names))
    with open_figure(path, row_inches * len(rows) + 1.1) as figure:
        axes = figure.subplots()
        axes.axvline(0, color="0.3", lw=1)
        axes.grid(visible=False, axis="y")
        for row, (_, effects) in enumerate(rows):
            for offset, effect, colour in zip(offsets, effects, colours, strict=True):
                if effect is not None:
                    _draw_answer(axes, effect, row + offset, colour)
            margin = next(effect.margin for effect in effects if effect is not None)
            if margin is not None:
                axes.fill_betweenx([row - 0.5, row + 0.5], -margin, margin, color="0.93", zorder=0)
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        low, high = axes.get_xlim()
        axes.set_xlim(max(min(low, -0.05), -COMPARISON_REACH), min(max(high, 0.05), COMPARISON_REACH))
        percent_axis(axes, "x", 9)
        axes.set_xlabel("change of FID, log scale: left is better")
        handles = [
            Line2D([], [], color=colour, marker="o", ms=5, lw=1.6, label=name)
            for name, colour in zip(settings, colours, strict=True)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(settings), frameon=False, fontsize=9)


def _draw_answer(axes: Axes, effect: Effect, y: float, colour: Any) -> None:
    for interval, width in ((effect.adjusted, 0.9), (effect.estimate, 2.4)):
        ends = np.clip([interval.low, interval.high], -COMPARISON_REACH, COMPARISON_REACH)
        if np.isfinite(ends).all() and abs(ends).min() < COMPARISON_REACH:  # else it spans the axis, or lies beside it
            axes.plot(ends, [y, y], color=colour, lw=width, solid_capstyle="butt", zorder=2)
    value = float(np.clip(effect.estimate.value, -COMPARISON_REACH, COMPARISON_REACH))
    marker = "o" if value == effect.estimate.value else ">" if value > 0 else "<"
    face = "white" if effect.answer == "inconclusive" else colour
    axes.plot(value, y, marker, color=colour, mfc=face, ms=4.5, zorder=3)


def plot_block_quality(
    runs: Mapping[str, pd.DataFrame], style: Style, path: FigurePath, outcome: Outcome = FID
) -> None:
    """Draw an outcome of every run, a panel for each block; each has its x axis, as the scales do not compare.

    Args:
        runs: block → a row for each run, with columns variant, status and the outcome's.
        style: of the variants, which are the rows.
        path: the PNG to write.
        outcome: on the x axes.
    """
    with _open_panels(path, list(runs), 0.45 * len(style.colours) + 1.0, share_x=False) as (figure, by_name):
        for name, of_block in runs.items():
            draw_quality(by_name[name], of_block, style, outcome)
        figure.supxlabel(f"{axis_words(outcome)} ({outcome.goodness})", fontsize=10)


def plot_block_curves(curves: Mapping[str, pd.DataFrame], style: Style, path: FigurePath) -> None:
    """Draw FID along training, a panel for each block.

    Args:
        curves: block → columns variant, seed, step, fid.
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
    """Open a figure with a titled panel for each name, at most three in a row."""
    with open_figure(path, -(-len(names) // 3) * height_inches + 0.4) as figure:
        panels = lay_out_panels(figure, len(names), share_x=share_x, share_y=share_y)
        by_name = dict(zip(names, panels, strict=True))
        for name, axes in by_name.items():
            axes.set_title(name, fontsize=10)
        yield figure, by_name
