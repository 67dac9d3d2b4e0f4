"""Figures of what networks learn besides drawing: probes of D's features, and pictures that runs left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from PIL import Image

from gan_ablate.reporting.plots.style import lay_out_panels, open_figure, save_picture

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from gan_ablate.reporting.plots.style import FigurePath

_LOOKS: dict[str, dict[str, Any]] = {
    "D's features": {"color": "#0072b2", "marker": "o"},
    "untrained D's": {"color": "#c44e00", "marker": "s"},
    "raw pixels": {"color": "0.4", "marker": "^"},
}

_SCALE = 2


def plot_probes(probes: pd.DataFrame, path: FigurePath) -> None:
    """Draw the accuracy of a linear classifier by its number of labelled images, a panel a variant.

    Args:
        probes: from ``tabulate_probes``.
        path: the PNG to write.
    """
    cells = list(dict.fromkeys(probes["cell"]))
    numbers = sorted(set(probes["num_labels"]))
    with open_figure(path, 3.2 * -(-len(cells) // 2) + 0.5) as figure:
        for axes, cell in zip(lay_out_panels(figure, len(cells), 2, share_y=True), cells, strict=True):
            of_cell = probes[probes["cell"] == cell]
            for name, look in _LOOKS.items():
                shown = of_cell[of_cell["features"] == name]
                axes.plot(shown["num_labels"], shown["accuracy"], ls="", alpha=0.4, ms=4, **look)
                means = shown.groupby("num_labels")["accuracy"].mean()
                axes.plot(means.index, means, lw=1.5, ms=5, label=name, **look)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator(numbers))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, 0))
            axes.set_title(cell, fontsize=9)
        figure.supxlabel("labelled images", fontsize=10)
        figure.supylabel("accuracy of a linear classifier", fontsize=10)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9)


def enlarge_picture(source: Path, path: Path) -> None:
    """Write a run's picture twice as large, pixel by pixel."""
    with Image.open(source) as picture:
        size = (picture.width * _SCALE, picture.height * _SCALE)
        save_picture(picture.resize(size, Image.Resampling.NEAREST), path)
