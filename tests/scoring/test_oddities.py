from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid

from gan_ablate.scoring.extractors import Features
from gan_ablate.scoring.oddities import SampleGrid, describe_copies, describe_range, find_grid

STREAM = torch.Generator().manual_seed(0)


def draw_strokes(num: int, size: int = 28) -> Tensor:
    """Bright blots with soft edges, in the middle of black: (num, 1, size, size) uint8."""
    middle = torch.rand(num, 1, 4, 4, generator=STREAM)
    x = functional.interpolate(functional.pad(middle, (2, 2, 2, 2)), size=size, mode="bilinear")
    return (x * 255).byte()


class Patches:
    """Sixteen features: the brightness of each sixteenth of an image."""

    name, sha256, num_features, is_fast = "patches", "p" * 64, 16, True

    def __call__(self, images: Tensor) -> Features:
        return Features(functional.adaptive_avg_pool2d(images.float(), 4).flatten(1) / 255, None)


REAL = draw_strokes(400)


@pytest.mark.parametrize(("padding", "num"), [(0, 2), (0, 5), (2, 5), (1, 3)])
@pytest.mark.parametrize("side", [28, 32])
def test_a_grid_is_found_and_cut_into_its_samples(padding: int, num: int, side: int) -> None:
    samples = draw_strokes(300 * num**2, side)
    rows = samples.unflatten(0, (300, num**2))
    pictures = torch.stack([make_grid(row, nrow=num, padding=padding)[:1] for row in rows])
    grid = find_grid(pictures, REAL, Patches())
    assert grid == SampleGrid(num, side, padding, padding)
    assert torch.equal(grid.cut(pictures), samples)


@pytest.mark.parametrize("size", [14, 28, 32, 56, 64, 84, 112])
def test_single_images_are_no_grids_however_large(size: int) -> None:
    assert find_grid(draw_strokes(300, size), REAL, Patches()) is None


def wrap(x: Tensor) -> Tensor:
    return torch.from_numpy(((x.numpy() / 127.5 - 1) * 127).astype(np.int8).view(np.uint8))


def test_wrapped_and_inverted_values_are_named() -> None:
    images = draw_strokes(300)
    assert describe_range(images, REAL) == ""
    assert describe_range(wrap(images), REAL).startswith("pixel values look wrapped around")
    assert describe_range(255 - images, REAL).startswith("pixel values look inverted")


@pytest.mark.parametrize(
    "images",
    [
        torch.full((9, 1, 8, 8), 128, dtype=torch.uint8),  # an untrained generator's grey
        (127 + 20 * torch.randn(99, 1, 28, 28, generator=STREAM)).byte(),
        torch.randint(0, 256, (99, 1, 28, 28), generator=STREAM).byte(),
        draw_strokes(99) // 2,
        draw_strokes(99) // 2 + 64,
        torch.full((9, 1, 8, 8), 255, dtype=torch.uint8),  # a collapsed one's white
    ],
)
def test_poor_images_are_not_taken_for_a_mistake(images: Tensor) -> None:
    assert describe_range(images, REAL) == ""


def test_copies_are_counted() -> None:
    images = draw_strokes(100)
    assert describe_copies(images) == ""
    assert (
        describe_copies(images.repeat_interleave(2, 0)) == "100 of 200 images are exact copies of others; 100 distinct"
    )
    assert (
        describe_copies(images[:1].expand(100, -1, -1, -1)) == "99 of 100 images are exact copies of others; 1 distinct"
    )
