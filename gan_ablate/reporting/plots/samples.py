"""Sample grids: those of all variants side by side, and the training of one variant as a small animation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from gan_ablate.errors import UserError
from gan_ablate.reporting.plots.style import WIDTH_INCHES, open_figure, save_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gan_ablate.reporting.plots.style import FigurePath

SHEET_ROWS = 8
"""Rows of images on a sample sheet."""

FRAME_MS, LAST_FRAME_MS = 450, 1_800


def plot_samples(sheets: Mapping[str, Path], num_rows: int, path: FigurePath) -> None:
    """Set the sample sheets of all variants side by side; equal places have equal latents.

    Args:
        sheets: variant → its sample sheet, eight images wide.
        num_rows: rows of images to show of each.
        path: the PNG to write.

    Raises:
        UserError: if a sheet cannot be read.
    """
    num_columns = min(len(sheets), 2 if len(sheets) <= 4 else 3)
    lines = -(-len(sheets) // num_columns)
    pictures = {label: np.asarray(_open(sheet)) for label, sheet in sheets.items()}
    shape = next(iter(pictures.values())).shape
    shown = round(shape[0] * num_rows / SHEET_ROWS)
    panel = WIDTH_INCHES / num_columns
    with open_figure(path, lines * (panel * shown / shape[1] + 0.45)) as figure:
        grid = figure.subplots(lines, num_columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (label, picture) in zip(grid.flat, pictures.items(), strict=False):
            axes.imshow(picture[: round(picture.shape[0] * num_rows / SHEET_ROWS)], interpolation="nearest")
            axes.set_title(label.replace(", ", "\n"), fontsize=9)


def write_animation(sheets: Sequence[Path], num_rows: int, path: Path) -> None:
    """Write sample sheets along training as a looping WebP, each frame with its step.

    Args:
        sheets: of one run, in order, named ``step-N.png``.
        num_rows: rows of images to show.
        path: the file to write.

    Raises:
        UserError: if a sheet cannot be read.
    """
    frames = []
    for sheet in sheets:
        picture = _open(sheet)
        shown = round(picture.height * num_rows / SHEET_ROWS)
        frame = Image.new("RGB", (picture.width, shown + 14), "white")
        frame.paste(picture.crop((0, 0, picture.width, shown)), (0, 14))
        ImageDraw.Draw(frame).text((2, 1), f"step {int(sheet.stem.removeprefix('step-')):,}", fill="black")
        frames.append(frame)
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
    options = {"duration": durations, "loop": 0, "quality": 60, "method": 4}
    save_picture(frames[0], path, save_all=True, append_images=frames[1:], **options)


def _open(sheet: Path) -> Image.Image:
    try:
        with Image.open(sheet) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError) as broken:
        run = sheet.parent.parent
        raise UserError(f"{sheet}: cannot be read ({broken}); delete {run} to run it again") from None
