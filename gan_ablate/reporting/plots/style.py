"""What all figures share: size, colours, markers, axes, panels, and how an interval is drawn."""

from __future__ import annotations

import io
import itertools
import re
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, ScalarFormatter, StrMethodFormatter
from PIL import Image

from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.outcomes import OUTCOMES, percent_change
from gan_ablate.reporting.formats import log_ticks, percent_ticks
from gan_ablate.reporting.plots import FigurePool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from gan_ablate.analysis.effects import Decision, Effect
    from gan_ablate.analysis.estimates import Estimate
    from gan_ablate.design.outcomes import Outcome

WIDTH_INCHES = 9.0
COLUMN_INCHES, TEXT_INCHES = 3.25, 6.75
"""Widths of PDF figures: a column of a paper of two columns, as ICML and CVPR have them, and both columns."""
MIN_POINTS, MAX_POINTS = 7, 8
"""Sizes of text in PDF figures, which a paper includes as they are."""
_COLUMN_NAME = 24
"""The most characters in a line of a row's name in a PDF figure of one column."""
_PAPER_SIZES = {
    "font.size": MAX_POINTS, "axes.titlesize": MAX_POINTS, "axes.labelsize": MAX_POINTS,
    "xtick.labelsize": MIN_POINTS, "ytick.labelsize": MIN_POINTS, "legend.fontsize": MIN_POINTS,
}  # fmt: skip
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

MAX_NAME = 44
"""The most characters in a line of a row's name: half of the figure is left for the row."""

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
        as_pdf: whether a figure is written as PDF for papers instead of PNG; see ``open_figure``.
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

    A PDF for papers is ``COLUMN_INCHES`` wide if it has one panel, ``TEXT_INCHES`` if it has several.

    Args:
        path: of the PNG; a PDF has the same name with another suffix.
        height_inches: of the figure; its width is ``WIDTH_INCHES``.
    """
    style: Any = {
        "text.parse_math": False,  # a title may hold any sign
        "pdf.fonttype": 42,  # letters stay letters: publishers refuse type 3
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook", font_scale=0.85),
        "grid.color": "0.9",
    }
    if path.as_pdf:
        style |= _PAPER_SIZES
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DPI, layout="constrained")
        yield figure
        _separate_thousands(figure)
        if path.as_pdf:
            _fit_paper(figure)
            paper = io.BytesIO()
            figure.savefig(paper, format="pdf", metadata={"CreationDate": None})
            write_atomically(path.path.with_suffix(".pdf"), paper.getvalue())
            return
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()  # ``savefig`` draws twice, and writes a PNG that nobody needs
        if sum(_thin_ticks(figure, axes) for axes in figure.axes if axes.axison):
            canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    # 256 colours are enough for text and lines, at a third of the size.
    save_picture(drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE), path.path, optimize=True)


def _separate_thousands(figure: Figure) -> None:
    """Write the numbers of x axes that reach a thousand as the text does: ``1,500``."""
    for axes in figure.axes:
        if isinstance(axes.xaxis.get_major_formatter(), ScalarFormatter) and max(axes.get_xlim()) >= 1_000:
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _fit_paper(figure: Figure) -> None:
    """Resize a figure for a paper: the width of a column, or of two; text of two sizes; long lines are broken."""
    shown = [axes for axes in figure.axes if axes.axison]
    names = [label.get_text() for label in shown[0].get_yticklabels()] if len(shown) == 1 else []
    longest = 0 if all(map(_is_number, names)) else max(map(len, names))
    is_column = len(shown) == 1 and longest <= 2 * _COLUMN_NAME  # two lines fit into a row
    width, height = COLUMN_INCHES if is_column else TEXT_INCHES, 0.85 * figure.get_figheight()
    if longest:
        broken = [textwrap.fill(name, _COLUMN_NAME if is_column else MAX_NAME) for name in names]
        shown[0].set_yticks(shown[0].get_yticks(), broken)
        most = max(name.count("\n") + 1 for name in broken)
        height = max(height, 0.9 + len(names) * (1.2 * most + 0.3) * MIN_POINTS / 72)
    figure.set_size_inches(width, height)
    for text in figure.findobj(Text):
        text.set_fontsize(min(max(text.get_fontsize(), MIN_POINTS), MAX_POINTS))
    figure.draw_without_rendering()
    for axes in figure.axes:
        panel = axes.get_window_extent().width / figure.dpi
        _break_lines(axes.yaxis.label, height)
        for child in (*axes.get_children(), axes.xaxis.label):  # titles among them
            if isinstance(child, Text) and child not in axes.texts:
                _break_lines(child, width if child.get_horizontalalignment() == "right" else panel)
    for title in figure.texts:
        _break_lines(title, height if title.get_rotation() else width)
    for columns in (3, 2, 1):
        figure.draw_without_rendering()
        for legend in list(figure.legends):
            if legend.get_window_extent().width > figure.dpi * width:
                handles: Any = legend.legend_handles
                labels = [text.get_text() for text in legend.get_texts()]
                if columns == 1:
                    labels = [textwrap.fill(label, int((width - 0.6) * 72 / (0.54 * MAX_POINTS))) for label in labels]
                legend.remove()
                figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    figure.draw_without_rendering()
    for axes in shown:
        _thin_ticks(figure, axes)
        left = axes.get_window_extent().x0
        for text in axes.texts:  # a remark that would lie on the names of rows
            text.set_visible(text.get_window_extent().x0 >= left - 2)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-−]?[\d.,]*( %)?", text) is not None


def _break_lines(text: Text, inches: float) -> None:
    """Break the lines of a text that are longer than so many inches; a letter is about half as wide as high."""
    most = max(8, int(inches * 72 / (0.54 * MAX_POINTS)))
    # An interval stays on one line.
    lines = re.sub(r"(?<=[\d,%]) (?=[%\[\d+-])", "\N{NO-BREAK SPACE}", text.get_text()).split("\n")
    text.set_text("\n".join(part for line in lines for part in textwrap.wrap(line, most) or [""]))


def _thin_ticks(figure: Figure, axes: Axes) -> bool:
    """Leave out every other number of the x axis until none overlaps the next; zero stays. Return whether any went."""
    for times in range(3):
        low, high = sorted(axes.get_xlim())
        labels = [
            label
            for label in axes.get_xticklabels()
            if label.get_visible() and label.get_text() and low <= label.get_position()[0] <= high
        ]
        ends = [(label.get_window_extent().x0, label.get_window_extent().x1) for label in labels]
        is_apart = all(right + 2 < left for (_, right), (left, _) in itertools.pairwise(ends))
        if is_apart or not all(_is_number(label.get_text()) for label in labels):
            return times > 0
        ticks = [float(label.get_position()[0]) for label in labels]
        texts = [label.get_text() for label in labels]
        first = ticks.index(0.0) % 2 if 0.0 in ticks else 0
        axes.set_xticks(ticks[first::2], texts[first::2])
        figure.draw_without_rendering()
    return True


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


def name_rows(axes: Axes, names: Sequence[str], most_lines: int = 2) -> None:
    """Name the rows of a panel, the first at the top, each in at most ``most_lines`` and one, in smaller letters."""
    widest = max(MAX_NAME, round(1.25 * max(map(len, names), default=0) / (most_lines + 1)))
    broken = [textwrap.fill(name, widest) for name in names]
    is_high = any(name.count("\n") >= most_lines for name in broken)
    labels: dict[str, Any] = {"fontsize": MIN_POINTS} if is_high else {}
    axes.set_yticks(range(len(names)), broken, **labels)
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_interval(axes: Axes, estimate: Estimate, row: float, colour: object, marker: str, size: float = 8) -> None:
    """Draw an estimate as a marker on a horizontal bar."""
    if np.isfinite(estimate.low):
        axes.plot([estimate.low, estimate.high], [row, row], color=colour, lw=2.4, solid_capstyle="butt", zorder=3)
    axes.plot(estimate.value, row, marker, color=colour, ms=size, zorder=4)


def draw_decision(
    axes: Axes, effect: Effect, row: float, farthest: float, size: float = 6, *, decides_nothing: bool = False
) -> None:
    """Draw an effect in the colour and shape of its decision: a thick bar, and a thin one, adjusted.

    Args:
        axes: to draw on.
        effect: to draw.
        row: its place on the y axis.
        farthest: where bars and markers beyond it end with an arrow, on the scale of the estimate.
        size: of the marker, in points.
        decides_nothing: whether it is drawn as inconclusive, whatever its decision.
    """
    decision = "negligible" if effect.is_too_small else _as_if_lower_were_better(effect)
    style = DECISION_STYLES["inconclusive" if decides_nothing else decision]
    colour = style["color"]
    for bounds, width in ((effect.adjusted, 1.0), (effect.estimate, 2.4)):
        if np.isfinite(bounds.low):
            shown = np.clip([bounds.low, bounds.high], -farthest, farthest)
            axes.plot(shown, [row, row], color=colour, lw=width, solid_capstyle="butt", zorder=2)
    for bound, marker in ((effect.adjusted.low, "<"), (effect.adjusted.high, ">")):
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


def percent_axis(axes: Axes, which: Literal["x", "y"], most: int = 9) -> None:
    """Label an axis of log ratios with changes in percent, about ``most`` of them."""
    limits, set_ticks = (axes.get_xlim(), axes.set_xticks) if which == "x" else (axes.get_ylim(), axes.set_yticks)
    ticks = percent_ticks(*limits, most)
    set_ticks([np.log1p(tick / 100) for tick in ticks], [f"{tick:+d} %" if tick else "0 %" for tick in ticks])


def draw_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of ``axes`` above the figure."""
    handles, labels = axes.get_legend_handles_labels()
    widest = 0.5 + 0.075 * max((len(label) for label in labels), default=0)  # inches, about
    columns = max(1, min(4, int(WIDTH_INCHES / widest)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def draw_panel_legend(axes: Axes, **place: Any) -> None:
    """Put the legend of a panel beside its lines; a panel whose runs are still to come has none."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, frameon=False, fontsize=7, **place)


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
