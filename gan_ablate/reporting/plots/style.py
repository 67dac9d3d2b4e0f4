"""The look that all figures share: size, colours, markers, axes and how an interval is drawn."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from gan_ablate.analysis.stats import Estimate

WIDTH_INCHES = 9.0
DPI = 110
"""At nine inches a little wider than a forge's text column: it is shown at its own size or just below."""

_MARKERS = "oDs^vPd*<>hX"
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))


class Style:
    """One colour, marker and dash pattern per variant, in the plan's order."""

    def __init__(self, labels: Sequence[str]) -> None:
        palette = sns.color_palette("colorblind", max(len(labels), 3))
        self.colours = {label: palette[i % len(palette)] for i, label in enumerate(labels)}
        self.markers = {label: _MARKERS[i % len(_MARKERS)] for i, label in enumerate(labels)}
        self.dashes = {label: _DASHES[i % len(_DASHES)] for i, label in enumerate(labels)}


@contextmanager
def open_figure(path: Path, height_inches: float) -> Iterator[Figure]:
    """Open a figure in the house style and save it on leaving: no display, no global state, no date in the file."""
    style: Any = {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook", font_scale=0.85),
        "grid.color": "0.9",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout="constrained")
        yield figure
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    # 256 colours are enough for text and lines, at a third of the size.
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_interval(axes: Axes, estimate: Estimate, row: float, colour: object, marker: str, size: float = 8) -> None:
    """Draw an estimate as a marker on a horizontal bar."""
    if np.isfinite(estimate.low):
        axes.plot([estimate.low, estimate.high], [row, row], color=colour, lw=2.4, solid_capstyle="butt", zorder=3)
    axes.plot(estimate.value, row, marker, color=colour, ms=size, zorder=4)


def error_bar(estimate: Estimate) -> list[list[float]] | None:
    """Lay an interval out as matplotlib's error bars want it."""
    if not np.isfinite(estimate.low):
        return None
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]


def mark_floor(axes: Axes, floor: str) -> None:
    """Say what real images score, without stretching the axis down to it."""
    axes.set_title(floor, loc="right", fontsize=8, color="0.35")


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers for labels."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        plain = ScalarFormatter()
        plain.set_scientific(False)
        formatter(plain)
    axis.set_tick_params(which="minor", labelsize=7)


def percent_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Label an axis of log ratios by changes in percent."""
    limits, set_ticks = (axes.get_xlim(), axes.set_xticks) if which == "x" else (axes.get_ylim(), axes.set_yticks)
    ticks = _percent_ticks(*limits)
    set_ticks([np.log1p(tick / 100) for tick in ticks], [f"{tick:+d} %" if tick else "0 %" for tick in ticks])


def draw_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of ``axes`` above the figure."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max((len(label) for label in labels), default=0) > 24 else 4
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def _percent_ticks(low: float, high: float) -> list[int]:
    """Choose round changes in percent between two log ratios, zero among them, no closer than a ninth of the axis."""
    below = (-5, -10, -20, -30, -40, -50, -60, -70, -80, -90, -95, -98, -99)
    above = (5, 10, 25, 50, 75, 100, 150, 200, 300, 500, 900, 1900, 4900, 9900)
    ticks = [0] if low <= 0 <= high else []
    for side in (below, above):
        last = 0.0
        for tick in side:
            place = float(np.log1p(tick / 100))
            if low <= place <= high and abs(place - last) >= (high - low) / 9:
                ticks.append(tick)
                last = place
    return sorted(ticks)
