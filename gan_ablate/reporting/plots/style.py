"""What all figures share: size, colours, markers, axes, panels, and how an interval is drawn."""

from __future__ import annotations

import io
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.outcomes import OUTCOMES, percent_change
from gan_ablate.reporting.plots import FigurePool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from gan_ablate.analysis.effects import Decision, Effect
    from gan_ablate.analysis.estimates import Estimate
    from gan_ablate.design.outcomes import Outcome

WIDTH_INCHES = 9.0
DPI = 110
"""At nine inches a figure is a little wider than the text column of a forge, which shows it at full size or less."""

FID = OUTCOMES["fid"]

DECISION_STYLES: dict[str, dict[str, Any]] = {
    "lower": {"color": "#0072b2", "marker": "o"},
    "higher": {"color": "#c44e00", "marker": "s"},
    "negligible": {"color": "#007a5a", "marker": "D"},
    "inconclusive": {"color": "0.5", "marker": "o", "mfc": "white"},
}
"""One colour and one shape for each decision, in every figure of effects."""

MAX_LINES = 8
"""The most lines that a reader can distinguish in one panel."""

_MARKERS = "oDs^vPd*<>hX"
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))


class Style:
    """A colour, marker and dash pattern per variant, in the plan's order, and panels of variants that belong together.

    Args:
        labels: of the variants, the baseline first.
        groups: title → labels of one panel, where there are too many variants for a single one. Colours differ within
            a group; the baseline is in every panel, in grey.
    """

    def __init__(self, labels: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None) -> None:
        parts = dict(groups or {"": labels})
        is_split = len(parts) > 1
        palette = sns.color_palette("colorblind", 10)
        self.colours: dict[str, Any] = {}
        self.markers: dict[str, str] = {}
        self.dashes: dict[str, Any] = {}
        places = {label: i for of_group in parts.values() for i, label in enumerate(of_group)}
        for label in labels:
            i = places.get(label, 0)
            self.colours[label] = "0.45" if is_split and label == labels[0] else palette[i % len(palette)]
            self.markers[label] = _MARKERS[i % len(_MARKERS)]
            self.dashes[label] = _DASHES[i % len(_DASHES)]
        self.panels = {
            title: [labels[0], *of_group] if is_split else list(of_group) for title, of_group in parts.items()
        }


@dataclass(frozen=True)
class FigurePath:
    """Where a figure is written, or a folder of figures.

    Attributes:
        path: of the PNG, or of the folder.
        as_pdf: whether each figure is also written as PDF, for papers.
        pool: draws the figures of this folder.
    """

    path: Path
    as_pdf: bool = False
    pool: FigurePool = field(default_factory=FigurePool, compare=False, repr=False)

    def __truediv__(self, name: str) -> FigurePath:
        return FigurePath(self.path / name, self.as_pdf, self.pool)

    def __reduce__(self) -> tuple[type[FigurePath], tuple[Path, bool]]:
        return FigurePath, (self.path, self.as_pdf)  # another process gets no pool

    def draw(self, name: str, plot: Callable[..., object], *arguments: object, **options: object) -> None:
        """Let the pool draw a figure of this folder.

        Args:
            name: of the figure's file.
            plot: its last positional argument is the ``FigurePath``.
            arguments: its other arguments.
            options: its arguments behind the path.
        """
        path = self / name
        self.pool.submit(path.path, plot, *arguments, path, **options)


@contextmanager
def open_figure(path: FigurePath, height_inches: float) -> Iterator[Figure]:
    """Open a figure in the common style, and save it at the end without display, global state or a date in the file.

    Args:
        path: of the PNG.
        height_inches: of the figure; its width is ``WIDTH_INCHES``.
    """
    style: Any = {
        "text.parse_math": False,  # a title may hold any sign
        "pdf.fonttype": 42,  # letters stay letters: publishers refuse type 3
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook", font_scale=0.85),
        "grid.color": "0.9",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout="constrained")
        yield figure
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()  # ``savefig`` draws twice, and writes a PNG that nobody needs
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        if path.as_pdf:
            paper = io.BytesIO()
            figure.savefig(paper, format="pdf", metadata={"CreationDate": None})
            write_atomically(path.path.with_suffix(".pdf"), paper.getvalue())
    # 256 colours are enough for text and lines, at a third of the size.
    save_picture(drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE), path.path, optimize=True)


def save_picture(picture: Image.Image, path: Path, **options: Any) -> None:
    """Write a picture atomically, in the format of the file's suffix.

    Args:
        picture: of any mode that the format allows.
        path: the file to write.
        options: of Pillow's writer for the format.
    """
    content = io.BytesIO()
    picture.save(content, format=Image.registered_extensions()[path.suffix], **options)
    write_atomically(path, content.getvalue())


def draw_interval(axes: Axes, estimate: Estimate, row: float, colour: object, marker: str, size: float = 8) -> None:
    """Draw an estimate as a marker on a horizontal bar."""
    if np.isfinite(estimate.low):
        axes.plot([estimate.low, estimate.high], [row, row], color=colour, lw=2.4, solid_capstyle="butt", zorder=3)
    axes.plot(estimate.value, row, marker, color=colour, ms=size, zorder=4)


def draw_decision(axes: Axes, effect: Effect, row: float, farthest: float, size: float = 6) -> None:
    """Draw an effect in the colour and shape of its decision: a thick bar, and a thin one, adjusted.

    Args:
        axes: to draw on.
        effect: to draw.
        row: its place on the y axis.
        farthest: where bars and markers beyond it end with an arrow, on the scale of the estimate.
        size: of the marker, in points.
    """
    style = DECISION_STYLES["negligible" if effect.is_too_small else _as_if_lower_were_better(effect)]
    colour = style["color"]
    for bounds, width in ((effect.shown_adjusted, 1.0), (effect.shown, 2.4)):
        if np.isfinite(bounds.low):
            shown = np.clip([bounds.low, bounds.high], -farthest, farthest)
            axes.plot(shown, [row, row], color=colour, lw=width, solid_capstyle="butt", zorder=2)
    for bound, marker in ((effect.shown_adjusted.low, "<"), (effect.shown_adjusted.high, ">")):
        if np.isfinite(bound) and abs(bound) > farthest:
            axes.plot(np.clip(bound, -farthest, farthest), row, marker, color=colour, ms=3.5, zorder=3)
    value = float(np.clip(effect.estimate.value, -farthest, farthest))
    if value != effect.estimate.value:
        style = {**style, "marker": ">" if value > 0 else "<"}
        beside: Any = {"ha": "right" if value > 0 else "left", "va": "center", "fontsize": 7, "color": colour}
        beside["bbox"] = {
            "facecolor": "white",
            "edgecolor": "none",
            "pad": 0.6,
        }  # the bar of its interval runs below it
        change = percent_change(effect.estimate.value)  # only log ratios are cut off
        words = f"{change:+.0f} %" if change < 1e6 else f"{change:+.2g} %"
        axes.annotate(words, (value, row), (-9 if value > 0 else 9, 0), textcoords="offset points", **beside)
    axes.plot(value, row, ls="", ms=size, zorder=4, **style)


def _as_if_lower_were_better(effect: Effect) -> Decision:
    if effect.outcome.better == "higher" and effect.is_found:
        return "higher" if effect.decision == "lower" else "lower"
    return effect.decision


def axis_words(outcome: Outcome) -> str:
    """Label the axis of an outcome: ``FID, log scale``."""
    return f"{outcome.title}, log scale" if outcome.scale == "ratio" else outcome.title


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with a few round numbers inside its range, after everything is drawn."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    ticks = log_ticks(*(axes.get_xlim() if which == "x" else axes.get_ylim()))
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:,.4g}"))
    axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round numbers between two positive ones for a logarithmic axis, at least three where possible."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), np.arange(1, 10, 0.25)):
        ticks = [float(step * 10.0**power) for power in range(first, last + 1) for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside if len(inside) <= 8 else inside[:: -(-len(inside) // 8)]
    return [float(f"{tick:.3g}") for tick in np.geomspace(low, high, 5)[1:-1]]


def percent_axis(axes: Axes, which: Literal["x", "y"], most: int = 9) -> None:
    """Label an axis of log ratios with changes in percent, about ``most`` of them."""
    limits, set_ticks = (axes.get_xlim(), axes.set_xticks) if which == "x" else (axes.get_ylim(), axes.set_yticks)
    ticks = _percent_ticks(*limits, most)
    set_ticks([np.log1p(tick / 100) for tick in ticks], [f"{tick:+d} %" if tick else "0 %" for tick in ticks])


def _percent_ticks(low: float, high: float, most: int = 9) -> list[int]:
    """Choose round changes in percent between two log ratios, zero among them, ``most`` fitting on the axis."""
    below = (-1, -2, -5, -10, -20, -30, -40, -50, -60, -70, -80, -90, -95, -98, -99)
    above = (1, 2, 5, 10, 25, 50, 75, 100, 150, 200, 300, 500, 900, 1900, 4900, 9900)
    ticks = [0] if low <= 0 <= high else []
    for side in (below, above):
        last = 0.0
        for tick in side:
            place = float(np.log1p(tick / 100))
            if low <= place <= high and abs(place - last) >= (high - low) / most:
                ticks.append(tick)
                last = place
    return sorted(ticks)


def draw_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of ``axes`` above the figure."""
    handles, labels = axes.get_legend_handles_labels()
    widest = 0.5 + 0.075 * max((len(label) for label in labels), default=0)  # inches, about
    columns = max(1, min(4, int(WIDTH_INCHES / widest)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def lay_out_panels(
    figure: Figure, num_panels: int, num_columns: int = 3, *, share_x: bool = True, share_y: bool = True
) -> list[Axes]:
    """Lay out panels in rows of at most ``num_columns``; the rest of the last row stays blank."""
    num_columns = min(num_columns, num_panels)
    num_rows = -(-num_panels // num_columns)
    grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=share_x, sharey=share_y)
    for axes in grid.flat[num_panels:]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, num_panels - num_columns) : num_panels]:  # the lowest panel of each column
        axes.tick_params(labelbottom=True)
    return list(grid.flat[:num_panels])
