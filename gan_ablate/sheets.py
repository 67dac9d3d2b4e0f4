"""Images in, one picture of them in rows out.

torchvision's ``make_grid`` does the same, but importing torchvision takes every worker three seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PADDING = 2
"""Black pixels around every image."""


def save_sheet(images: Tensor, num_columns: int, path: Path) -> None:
    """Write images as one PNG, row by row from the top left.

    Args:
        images: (N, C, H, W) uint8, C being 1 or 3.
        num_columns: images in a row.
        path: the file to write.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the file's name has no ending of a picture.
    """
    num, channels, height, width = images.shape
    num_rows = -(-num // num_columns)
    cell = (height + PADDING, width + PADDING)
    sheet = np.zeros((num_rows * cell[0] + PADDING, num_columns * cell[1] + PADDING, channels), np.uint8)
    for i, image in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        top, left = (PADDING + position * size for position, size in zip(divmod(i, num_columns), cell, strict=True))
        sheet[top : top + height, left : left + width] = image
    Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet).save(path)
