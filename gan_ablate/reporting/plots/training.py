"""Figures of training: curves, losses, stability, probes of D's features, and sample grids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from PIL import Image, ImageDraw

from gan_ablate.analysis.estimates import mean_on_scale, rate_interval
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.errors import UserError
from gan_ablate.reporting.plots.style import (
    WIDTH_INCHES,
    Style,
    draw_interval,
    draw_legend,
    draw_panel_legend,
    lay_out_panels,
    log_axis,
    name_rows,
    open_figure,
    save_picture,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.axes import Axes

    from gan_ablate.reporting.plots.style import FigurePath


SAMPLE_GRID_ROWS = 8
"""Rows of images on a sample grid."""

FRAME_MS, LAST_FRAME_MS = 450, 1_800
"""How long an animation shows a frame, in milliseconds."""

_PROBE_STYLES: dict[str, dict[str, Any]] = {
    "D's features": {"color": "#0072b2", "marker": "o"},
    "untrained D's": {"color": "#c44e00", "marker": "s"},
    "raw pixels": {"color": "0.4", "marker": "^"},
}


CURVES_NOTE = (
    "Look for curves that cross, and for curves that still fall at the end. Lines are geometric means over seeds. "
    "Bands reach from the best to the worst seed: they are no intervals."
)
SECONDS_NOTE = "Seconds are medians over seeds."

STABILITY_NOTE = (
    "Look for rows that differ from the first one. Rings are seeds. Thick bars are 95 % intervals of the means. Thin "
    "lines are exact 95 % intervals of a rate: 0 of 5 runs still allows a rate of 52 %."
)

LOSSES_NOTE = "Look for a loss that keeps growing, and for D(G(z)) near 0: there D tells all images apart."


def plot_curves(curves: pd.DataFrame, style: Style, target: float | None, num_samples: int, path: FigurePath) -> None:
    """Draw FID along training, against steps and median seconds: the mean over seeds, with their range as a band.

    Args:
        curves: columns variant, seed, step, train_sec, fid; a variant without seconds is left out of that panel.
        style: of the variants.
        target: the FID that runs are timed to reach, a dotted line.
        num_samples: images of each score.
        path: the PNG to write.
    """
    if len(style.panels) > 1:
        _plot_many_curves(curves, style, num_samples, path)
        return
    with open_figure(path, 4.2) as figure:
        by_step, by_second = figure.subplots(1, 2, sharey=True)
        draw_curves([by_step, by_second], curves, style)
        if target is not None:
            for axes in (by_step, by_second):
                axes.axhline(target, color="0.4", lw=0.9, ls=":")
            place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
            by_second.annotate("target", (0.99, target), **place, fontsize=8, color="0.35")
        log_axis(by_step, "y")
        by_step.set_xlabel("generator steps")
        by_second.set_xlabel("training seconds")
        by_step.set_ylabel(f"FID on {num_samples:,} samples, log scale")
        draw_legend(figure, by_step)


def _plot_many_curves(curves: pd.DataFrame, style: Style, num_samples: int, path: FigurePath) -> None:
    """Draw FID against steps, a panel for each group of variants, with the baseline in grey."""
    with open_figure(path, 2.6 * -(-len(style.panels) // 3) + 0.5) as figure:
        panels = lay_out_panels(figure, len(style.panels))
        for axes, (title, labels) in zip(panels, style.panels.items(), strict=True):
            draw_curves([axes], curves, style, labels)
            axes.set_title(title, fontsize=9)
            draw_panel_legend(axes)
        log_axis(panels[0], "y")
        figure.supxlabel("generator steps", fontsize=10)
        figure.supylabel(f"FID on {num_samples:,} samples, log scale", fontsize=10)


def draw_curves(
    panels: Sequence[Axes], curves: pd.DataFrame, style: Style, labels: Sequence[str] | None = None
) -> None:
    """Draw FID along training against steps into the first panel, and against seconds into a second one.

    The second panel leaves out variants whose seconds are not known.
    """
    for label in style.colours if labels is None else labels:
        colour = style.colours[label]
        grouped = curves.loc[curves["variant"] == label].groupby("step")
        if grouped.ngroups == 0:
            continue
        fid = grouped["fid"]
        mean = fid.agg(lambda values: float(np.exp(np.log(values).mean())))
        line: Any = {"ls": style.dashes[label], "marker": style.markers[label], "ms": 4, "label": label}
        seconds = grouped["train_sec"].median().to_numpy(np.float64)  # one run that had to wait does not stretch it
        for axes, places in zip(panels, (mean.index.to_numpy(np.float64), seconds), strict=False):
            if np.isfinite(places).all():
                axes.fill_between(places, fid.min(), fid.max(), color=colour, alpha=0.18, lw=0)
                axes.plot(places, mean, color=colour, **line)


def plot_losses(histories: pd.DataFrame, style: Style, path: FigurePath) -> None:
    """Draw losses and D's outputs along training, the mean over seeds.

    Args:
        histories: columns variant, seed, step and those of the history.
        style: of the variants.
        path: the PNG to write.
    """
    words_of = {"loss_d": "loss of D", "loss_g": "loss of G", "d_real": "D(x)", "d_fake_before": "D(G(z))"}
    quantities = {name: words for name, words in words_of.items() if name in histories}
    if len(style.panels) > 1:
        with open_figure(path, 1.9 * len(style.panels) + 0.4) as figure:
            grid = figure.subplots(len(style.panels), len(quantities), squeeze=False, sharex=True, sharey="col")
            for row, (title, labels) in zip(grid, style.panels.items(), strict=True):
                for axes, column in zip(row, quantities, strict=True):
                    _draw_history(axes, histories, column, style, labels)
                row[0].set_ylabel(title, fontsize=9)
                draw_panel_legend(row[-1], loc="upper left", bbox_to_anchor=(1, 1))
            for axes, words in zip(grid[0], quantities.values(), strict=True):
                axes.set_title(words, fontsize=9)
            figure.supxlabel("generator steps", fontsize=10)
        return
    num_rows = -(-len(quantities) // 2)
    with open_figure(path, 2.6 * num_rows + 0.4) as figure:
        grid = figure.subplots(num_rows, min(2, len(quantities)), sharex=True, squeeze=False)
        for axes, (column, words) in zip(grid.flat, quantities.items(), strict=False):
            _draw_history(axes, histories, column, style, list(style.colours))
            axes.set_title(words)
        for axes in grid[-1]:
            axes.set_xlabel("generator steps")
        draw_legend(figure, grid[0, 0])


def _draw_history(axes: Axes, histories: pd.DataFrame, column: str, style: Style, labels: Sequence[str]) -> None:
    for label in labels:
        rows = histories.loc[histories["variant"] == label]
        mean = rows.groupby("step")[column].mean().rolling(5, min_periods=1, center=True).mean()
        axes.plot(mean.index, mean, color=style.colours[label], ls=style.dashes[label], lw=1.4, label=label)
    if column.startswith("d_"):
        axes.set_ylim(0, 1)
        axes.axhline(0.5, color="0.6", lw=0.8, zorder=0)


def plot_stability(runs: pd.DataFrame, style: Style, path: FigurePath) -> None:
    """Draw the stability of every variant: rates of divergence and collapse, oscillation, gradients and D's outputs.

    Args:
        runs: from ``load_results``.
        style: of the variants, which are the rows.
        path: the PNG to write.
    """
    names = ("oscillation", "steps_to_fid", "grad_norm_g", "accuracy_d", "confidence_d")
    labels = list(style.colours)
    with open_figure(path, 2 * (0.27 * len(labels) + 0.75)) as figure:
        grid = figure.subplots(2, 3, sharey=True)
        _draw_rates(grid[0, 0], runs, style)
        for axes, name in zip(grid.flat[1:], names, strict=True):
            outcome = OUTCOMES[name]
            for row, label in enumerate(labels):
                values = runs.loc[runs["variant"] == label, name].to_numpy(np.float64)
                colour, mean = style.colours[label], mean_on_scale(values, is_ratio=outcome.scale == "ratio")
                axes.plot(values, np.full(len(values), row), "o", ms=4, mfc="none", color=colour, alpha=0.6)
                draw_interval(axes, mean, row, colour, style.markers[label], size=5)
            if not runs[name].notna().any():
                axes.set_xticks([])
                axes.text(0.5, 0.5, "not known", transform=axes.transAxes, ha="center", va="center", fontsize=8)
            elif name in ("accuracy_d", "confidence_d"):
                axes.set_xlim(min(0.45, runs[name].min() - 0.02), 1.01)
            else:
                axes.set_xlim(0, max(axes.get_xlim()[1], 1.06 * runs[name].max()))  # markers at the end are whole
            axes.set_title(outcome.title)
        name_rows(grid[0, 0], labels, most_lines=1)


def _draw_rates(axes: Axes, runs: pd.DataFrame, style: Style) -> None:
    for row, label in enumerate(style.colours):
        of_variant = runs.loc[runs["variant"] == label]
        over = of_variant["status"].isin(["completed", "diverged"])
        counts = {
            "diverged": (int((of_variant["status"] == "diverged").sum()), int(over.sum())),
            "collapsed": (
                int((of_variant["collapsed"] == True).sum()),  # noqa: E712 (None is not False)
                int(of_variant["collapsed"].notna().sum()),
            ),
        }
        for offset, (name, (count, total)) in zip((-0.23, 0.23), counts.items(), strict=True):
            if total:
                interval = rate_interval(count, total)
                colour, marker = ("0.25", "X") if name == "diverged" else ("0.55", "o")
                axes.plot([interval.low, interval.high], [row + offset] * 2, color=colour, lw=0.8, zorder=2)
                axes.plot(count / total, row + offset, marker, color=colour, ms=5, zorder=4, clip_on=False)
                place: Any = {"ha": "left", "va": "center", "fontsize": 7, "color": "0.25"}
                axes.text(1.03, row + offset, f"{count} of {total}", transform=axes.get_yaxis_transform(), **place)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, 0, " %"))
    axes.set_title("✖ diverged, ● collapsed")


def plot_probes(probes: pd.DataFrame, path: FigurePath) -> None:
    """Draw the accuracy of a linear classifier against its number of labelled images, a panel for each variant.

    Args:
        probes: from ``tabulate_probes``.
        path: the PNG to write.
    """
    variants = list(dict.fromkeys(probes["variant"]))
    numbers = sorted(set(probes["num_labels"]))
    with open_figure(path, 3.2 * -(-len(variants) // 2) + 0.5) as figure:
        for axes, variant in zip(lay_out_panels(figure, len(variants), 2, share_y=True), variants, strict=True):
            of_variant = probes[probes["variant"] == variant]
            for name, look in _PROBE_STYLES.items():
                shown = of_variant[of_variant["features"] == name]
                axes.plot(shown["num_labels"], shown["accuracy"], ls="", alpha=0.4, ms=4, **look)
                means = shown.groupby("num_labels")["accuracy"].mean()
                axes.plot(means.index, means, lw=1.5, ms=5, label=name, **look)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(numbers))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, 0, " %"))
            axes.set_title(variant, fontsize=9)
        figure.supxlabel("labelled images", fontsize=10)
        figure.supylabel("accuracy of a linear classifier", fontsize=10)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)


def enlarge_picture(source: Path, path: Path) -> None:
    """Write a run's picture twice as large, pixel by pixel."""
    with Image.open(source) as picture:
        size = (2 * picture.width, 2 * picture.height)
        save_picture(picture.resize(size, Image.Resampling.NEAREST), path)


def plot_samples(sample_grids: Mapping[str, Path], num_rows: int, path: FigurePath) -> None:
    """Show the sample grids of all variants side by side; equal places have equal latents.

    Args:
        sample_grids: variant → its sample grid, eight images wide.
        num_rows: rows of images to show of each.
        path: the PNG to write.

    Raises:
        UserError: if a sample grid cannot be read.
    """
    num_columns = min(len(sample_grids), 2 if len(sample_grids) <= 4 else 3)
    lines = -(-len(sample_grids) // num_columns)
    pictures = {label: np.asarray(_open(sample_grid)) for label, sample_grid in sample_grids.items()}
    shape = next(iter(pictures.values())).shape
    shown = round(shape[0] * num_rows / SAMPLE_GRID_ROWS)
    panel = WIDTH_INCHES / num_columns
    title_lines = max(label.count(", ") for label in sample_grids) + 1
    with open_figure(path, lines * (panel * shown / shape[1] + 0.15 + 0.18 * title_lines)) as figure:
        grid = figure.subplots(lines, num_columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (label, picture) in zip(grid.flat, pictures.items(), strict=False):
            axes.imshow(picture[: round(picture.shape[0] * num_rows / SAMPLE_GRID_ROWS)], interpolation="nearest")
            axes.set_title(label.replace(", ", "\n"), fontsize=9)


def write_animation(sample_grids: Sequence[Path], num_rows: int, path: Path) -> None:
    """Write sample grids along training as a looping WebP, each frame with its step.

    Args:
        sample_grids: of one run, in order, named ``step-N.png``.
        num_rows: rows of images to show.
        path: the file to write.

    Raises:
        UserError: if a sample grid cannot be read.
    """
    frames = []
    for sample_grid in sample_grids:
        picture = _open(sample_grid)
        shown = round(picture.height * num_rows / SAMPLE_GRID_ROWS)
        frame = Image.new("RGB", (picture.width, shown + 14), "white")
        frame.paste(picture.crop((0, 0, picture.width, shown)), (0, 14))
        ImageDraw.Draw(frame).text((2, 1), f"step {int(sample_grid.stem.removeprefix('step-')):,}", fill="black")
        frames.append(frame)
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    options = {"duration": durations, "loop": 0, "quality": 60, "method": 4}
    save_picture(frames[0], path, save_all=True, append_images=frames[1:], **options)


def _open(sample_grid: Path) -> Image.Image:
    try:
        with Image.open(sample_grid) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError) as broken:
        run = sample_grid.parent.parent
        raise UserError(f"{sample_grid}: cannot be read ({broken}); delete {run} to run it again") from None
