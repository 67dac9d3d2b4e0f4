"""Images in, one picture of them all out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from gan_ablate.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

GAP = 2
"""Black pixels around every image of a sheet."""


def save_sheet(images: Tensor, num_columns: int, to: Path) -> None:
    """Write images side by side, row by row.

    Args:
        images: (N, C, H, W) uint8, of one channel or three.
        num_columns: images in a row; as many as there are, if they are fewer.
        to: the picture, in the format that its name ends in.

    Raises:
        OSError: if it cannot be written.
        ValueError: if its name ends in no known format.
    """
    num, channels, height, width = images.shape
    num_columns = min(num_columns, num)
    num_rows = -(-num // num_columns)
    sheet = images.new_zeros((num_rows * (height + GAP) + GAP, num_columns * (width + GAP) + GAP, channels))
    for i, image in enumerate(images):
        top, left = (
            place * (side + GAP) + GAP for place, side in zip(divmod(i, num_columns), (height, width), strict=True)
        )
        sheet[top : top + height, left : left + width] = image.permute(1, 2, 0)
    pixels = sheet.numpy()
    Image.init()
    kind = Image.registered_extensions().get(to.suffix.lower())
    if kind is None:
        raise ValueError(f"unknown file extension: {to.suffix}")
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(content, format=kind)
    write_atomically(to, content.getvalue())
