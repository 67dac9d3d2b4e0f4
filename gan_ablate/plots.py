"""Tables in, figures out: one message each, a variant's colour and marker the same in all of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from PIL import Image

from gan_ablate.stats import Estimate, mean_estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from gan_ablate.effects import Effect

WIDTH_INCHES = 9.0
DPI = 110
"""At nine inches a little wider than a forge's text column: it is shown at its own size or just below."""

_MARKERS = "oDsXP^vd*<>h"
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))


class Style:
    """One colour, marker and dash pattern per variant, in the plan's order."""

    def __init__(self, labels: Sequence[str]) -> None:
        palette = sns.color_palette("colorblind", max(len(labels), 3))
        self.colours = {label: palette[i % len(palette)] for i, label in enumerate(labels)}
        self.markers = {label: _MARKERS[i % len(_MARKERS)] for i, label in enumerate(labels)}
        self.dashes = {label: _DASHES[i % len(_DASHES)] for i, label in enumerate(labels)}


def plot_quality(runs: pd.DataFrame, style: Style, floor: str, path: Path) -> None:
    """Draw the FID of every run, a row per variant, with the geometric mean and its interval.

    Args:
        runs: a row per run with columns cell and fid.
        style: whose labels are the rows.
        floor: what real images score, in words.
        path: the PNG to write.
    """
    labels = list(style.colours)
    with _figure(path, 0.45 * len(labels) + 1.3) as figure:
        axes = figure.add_subplot()
        for row, label in enumerate(labels):
            fid = runs.loc[runs["cell"] == label, "fid"].to_numpy(np.float64)
            colour = style.colours[label]
            axes.plot(fid, np.full(len(fid), row), "o", ms=5, mfc="none", color=colour, alpha=0.7, zorder=2)
            _draw_interval(axes, mean_estimate(np.log(fid)).as_ratio(), row, colour, style.markers[label])
        _mark_floor(axes, floor)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        _log_axis(axes, "x")
        axes.set_xlabel("FID, log scale (lower is better); rings are seeds, bars 95 % intervals")


def plot_effects(effects: Sequence[Effect], path: Path) -> None:
    """Draw every effect on FID in percent with its interval, a forest around zero.

    Args:
        effects: main effects and interactions.
        path: the PNG to write.
    """
    with _figure(path, 0.42 * len(effects) + 1.3) as figure:
        axes = figure.add_subplot()
        axes.axvline(0, color="0.3", lw=1)
        for row, effect in enumerate(effects):
            estimate = effect.fid
            colour = "0.15" if estimate.excludes_zero else "0.6"
            _draw_interval(axes, estimate, row, colour, "s" if effect.is_interaction else "o")
        names = [effect.name + (" (interaction)" if effect.is_interaction else "") for effect in effects]
        axes.set_yticks(range(len(effects)), names)
        axes.set_ylim(len(effects) - 0.5, -0.5)
        ticks = _percent_ticks(*axes.get_xlim())
        axes.set_xticks(
            [np.log1p(percent / 100) for percent in ticks],
            [f"{percent:+d} %" if percent else "0 %" for percent in ticks],
        )
        axes.set_xlabel("← better     change of FID, with 95 % interval (dark: excludes zero)     worse →")


def plot_curves(curves: pd.DataFrame, style: Style, floor: str, num_samples: int, path: Path) -> None:
    """Draw FID along training: the geometric mean over seeds, and the range of the seeds as a band.

    Args:
        curves: columns cell, seed, step, fid.
        style: of the variants.
        floor: what real images score, in words.
        num_samples: images behind each point.
        path: the PNG to write.
    """
    with _figure(path, 4.2) as figure:
        axes = figure.add_subplot()
        for label, colour in style.colours.items():
            by_step = curves.loc[curves["cell"] == label].groupby("step")["fid"]
            if by_step.ngroups == 0:
                continue
            mean = by_step.agg(lambda fid: float(np.exp(np.log(fid).mean())))
            axes.fill_between(mean.index, by_step.min(), by_step.max(), color=colour, alpha=0.18, lw=0)
            axes.plot(
                mean.index, mean, color=colour, ls=style.dashes[label], marker=style.markers[label], ms=4, label=label
            )
        _mark_floor(axes, floor)
        _log_axis(axes, "y")
        axes.set_xlabel("generator steps")
        axes.set_ylabel(f"FID on {num_samples:,} samples, log scale")
        _legend(figure, axes)


def plot_losses(histories: pd.DataFrame, style: Style, path: Path) -> None:
    """Draw losses and D's outputs along training, the mean over seeds.

    Args:
        histories: columns cell, seed, step and those of the history.
        style: of the variants.
        path: the PNG to write.
    """
    panels = {"loss_d": "loss of D", "loss_g": "loss of G", "d_real": "D(x)", "d_fake_before": "D(G(z))"}
    with _figure(path, 5.6) as figure:
        grid = figure.subplots(2, 2, sharex=True)
        for axes, (column, title) in zip(grid.flat, panels.items(), strict=True):
            for label, colour in style.colours.items():
                rows = histories.loc[histories["cell"] == label]
                mean = rows.groupby("step")[column].mean().rolling(5, min_periods=1, center=True).mean()
                axes.plot(mean.index, mean, color=colour, ls=style.dashes[label], lw=1.4, label=label)
            axes.set_title(title)
            if column.startswith("d_"):
                axes.set_ylim(0, 1)
                axes.axhline(0.5, color="0.6", lw=0.8, zorder=0)
        for axes in grid[1]:
            axes.set_xlabel("generator steps")
        _legend(figure, grid[0, 0])


def plot_cost(runs: pd.DataFrame, style: Style, path: Path) -> None:
    """Draw FID against what the training of a run took, a point per variant with intervals both ways.

    Args:
        runs: columns cell, fid, train_sec.
        style: of the variants.
        path: the PNG to write.
    """
    with _figure(path, 4.2) as figure:
        axes = figure.add_subplot()
        for label, colour in style.colours.items():
            rows = runs.loc[runs["cell"] == label]
            fid = mean_estimate(np.log(rows["fid"].to_numpy(np.float64))).as_ratio()
            seconds = mean_estimate(rows["train_sec"].to_numpy(np.float64))
            if fid.num_seeds == 0:
                continue
            axes.errorbar(
                seconds.value,
                fid.value,
                xerr=_error_bar(seconds),
                yerr=_error_bar(fid),
                fmt=style.markers[label],
                color=colour,
                ms=8,
                capsize=3,
                label=label,
            )
        axes.set_xlim(left=0)
        _log_axis(axes, "y")
        axes.set_xlabel("training seconds of a run (lower is cheaper)")
        axes.set_ylabel("FID, log scale (lower is better)")
        _legend(figure, axes)


def plot_samples(sheets: Mapping[str, Path], num_rows: int, path: Path) -> None:
    """Set the sample sheets of all variants side by side; equal places have equal latents.

    Args:
        sheets: variant → its sample sheet, eight images wide.
        num_rows: rows of images to show of each.
        path: the PNG to write.
    """
    num_columns = min(len(sheets), 2 if len(sheets) <= 4 else 3)
    lines = -(-len(sheets) // num_columns)
    pictures = {label: np.asarray(Image.open(sheet).convert("RGB")) for label, sheet in sheets.items()}
    shape = next(iter(pictures.values())).shape
    shown = round(shape[0] * num_rows / 8)
    panel = WIDTH_INCHES / num_columns
    with _figure(path, lines * (panel * shown / shape[1] + 0.45)) as figure:
        grid = figure.subplots(lines, num_columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (label, picture) in zip(grid.flat, pictures.items(), strict=False):
            axes.imshow(picture[:shown], interpolation="nearest")
            axes.set_title(label.replace(", ", "\n"), fontsize=9)


def _percent_ticks(low: float, high: float) -> list[int]:
    """Choose at most nine round changes in percent between two log ratios, zero among them where it is in sight."""
    round_changes = [
        -99,
        -98,
        -95,
        *range(-90, 0, 10),
        0,
        10,
        25,
        50,
        75,
        100,
        150,
        200,
        300,
        500,
        900,
        1900,
        4900,
        9900,
    ]
    inside = [percent for percent in round_changes if low <= np.log1p(percent / 100) <= high]
    every = -(-len(inside) // 9)
    anchor = inside.index(0) if 0 in inside else 0
    return [percent for i, percent in enumerate(inside) if (i - anchor) % every == 0]


def _draw_interval(axes: Axes, estimate: Estimate, row: int, colour: object, marker: str) -> None:
    if np.isfinite(estimate.low):
        axes.plot([estimate.low, estimate.high], [row, row], color=colour, lw=2.4, solid_capstyle="butt", zorder=3)
    axes.plot(estimate.value, row, marker, color=colour, ms=8, zorder=4)


def _error_bar(estimate: Estimate) -> list[list[float]] | None:
    if not np.isfinite(estimate.low):
        return None
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]


def _mark_floor(axes: Axes, floor: str) -> None:
    """Say what real images score, without stretching the axis down to it."""
    axes.set_title(floor, loc="right", fontsize=8, color="0.35")


def _log_axis(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        plain = ScalarFormatter()
        plain.set_scientific(False)
        formatter(plain)
    axis.set_tick_params(which="minor", labelsize=7)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max((len(label) for label in labels), default=0) > 24 else 4
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


@contextmanager
def _figure(path: Path, height_inches: float) -> Iterator[Figure]:
    """Open a figure in the house style and save it on leaving: no display, no global state, no date in the file."""
    style: Any = {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook", font_scale=0.85),
        "grid.color": "0.9",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout="constrained")
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
