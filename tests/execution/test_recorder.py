from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_ablate.execution.recorder import save_sample_grid


def test_images_lie_row_by_row_with_a_black_gap_around_each(tmp_path: Path) -> None:
    images = torch.arange(1, 6, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 3, 4) * 50
    save_sample_grid(images, 2, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 + 3 * (3 + 2), 2 + 2 * (4 + 2))
    assert (pixels[2:5, 2:6] == 50).all()
    assert (pixels[2:5, 8:12] == 100).all()
    assert (pixels[12:15, 2:6] == 250).all()
    assert pixels.sum() == 12 * (50 + 100 + 150 + 200 + 250)


def test_a_sample_grid_is_no_wider_than_its_images_and_keeps_their_colours(tmp_path: Path) -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    save_sample_grid(red, 8, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (6, 6)
        assert picture.getpixel((3, 3)) == (255, 0, 0)


def test_a_format_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown file extension"):
        save_sample_grid(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 1, tmp_path / "sheet.nonsense")
