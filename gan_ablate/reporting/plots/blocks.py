"""Figures with a panel a block: the same effects, variants and curves in each."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from gan_ablate.reporting.plots.quality import FOREST_KEY, draw_forest, draw_quality
from gan_ablate.reporting.plots.style import draw_legend, lay_out_panels, log_axis, open_figure, percent_axis
from gan_ablate.reporting.plots.training import draw_curves

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.reporting.plots.style import FigurePath, Style


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
