from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from gan_ablate.sheets import save_sheet


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num", [5, 6])
def test_a_sheet_is_torchvisions_grid(tmp_path: Path, channels: int, num: int) -> None:
    images = torch.randint(0, 256, (num, channels, 4, 7), generator=torch.Generator().manual_seed(0)).byte()
    save_sheet(images, 3, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert np.array_equal(np.asarray(sheet.convert("RGB")), make_grid(images, nrow=3).permute(1, 2, 0).numpy())
