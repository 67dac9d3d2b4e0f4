"""Oddities of a set of images: copies, unusual pixel values, and pictures of many samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from gan_ablate.scoring.extractors import FeatureExtractor


MIN_COPIED_SHARE = 0.01


NUM_BINS = 16
"""Of a histogram of pixel values."""


MIN_DISTANCE = 0.2
"""Total variation between histograms from which they differ. Single classes of CIFAR-10 are within 0.14 of all."""


TILE_SIDES = (28, 32, 64)
"""Sides that a sample in a grid may have besides the data's own: the tutorials' usual ones."""


MAX_TILES = 20


MAX_PADDING = 4
"""Of a grid: samples in a row, and pixels between them, as ``torchvision.utils.make_grid`` lays them (2 by default)."""


NUM_COMPARED = 250
"""Images whose mean features tell tiles from whole images: one batch."""


@dataclass(frozen=True)
class SampleGrid:
    """How a square picture may be a grid of samples.

    Attributes:
        num: samples in a row and in a column.
        side: of a sample, in pixels.
        padding: pixels between samples.
        border: pixels around them all.
    """

    num: int
    side: int
    padding: int
    border: int

    def cut(self, images: Tensor) -> Tensor:
        """Cut pictures, (N, C, S, S), into their samples, (N · num², C, side, side)."""
        starts = [self.border + place * (self.side + self.padding) for place in range(self.num)]
        tiles = [images[..., y : y + self.side, x : x + self.side] for y in starts for x in starts]
        return torch.stack(tiles, 1).flatten(0, 1)


def describe_copies(images: Tensor) -> str:
    """Say how many images are copies of others, or nothing where hardly any is.

    Args:
        images: (N, C, S, S) uint8, in the order of ``order_by_content``: equal ones follow each other.
    """
    is_copy = (images[1:] == images[:-1]).flatten(1).all(1)
    num = int(is_copy.sum())
    if num < MIN_COPIED_SHARE * len(images):
        return ""
    return f"{num:,} of {len(images):,} images are exact copies of others; {len(images) - num:,} distinct"


def describe_range(images: Tensor, real: Tensor) -> str:
    """Say that pixel values would resemble real ones if they were read in another way, or nothing.

    Values from -127 to 127, saved as unsigned ones, are shifted by half of their range; those of another convention of
    black and white are inverted. A set of few grey levels, or without both dark and bright ones, such as an untrained
    generator's, is not judged.

    Args:
        images: (N, C, S, S) uint8.
        real: (M, C, H, W) uint8, the data set's.
    """
    found, expected = _histogram(images), _histogram(real)
    quarter = NUM_BINS // 4
    has_extremes = min(float(found[:quarter].sum()), float(found[-quarter:].sum())) > 0.01
    distance = _distance(found, expected)
    if not has_extremes or distance < MIN_DISTANCE or int((found > 0).sum()) < 3:
        return ""
    if _distance(found.roll(NUM_BINS // 2), expected) < distance / 2:
        return "pixel values look wrapped around: shifted by 128 they would be like the real ones; saved as int8?"
    if _distance(found.flip(0), expected) < distance / 2:
        return "pixel values look inverted: 255 - x would be like the real ones"
    return ""


def find_grid(images: Tensor, real: Tensor, extractor: FeatureExtractor) -> SampleGrid | None:
    """Find out whether each picture is a grid of samples.

    It is one if its size is that of a grid, and its tiles are much nearer to real images than it is as a whole: the
    squared distance of mean features is below a quarter.

    Args:
        images: (N, C, S, S) uint8.
        real: (M, C, H, W) uint8, the data set's.
        extractor: of the features.
    """
    candidates = list(_list_grids(images.shape[-1], {real.shape[-1], *TILE_SIDES}))
    if not candidates:
        return None
    stream = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(real), generator=stream)[:NUM_COMPARED]
    centre = extractor(real[chosen]).vectors.mean(0)

    def squared_distance(of: Tensor) -> float:
        return float((extractor(of).vectors.mean(0) - centre).square().sum())

    few = images[:NUM_COMPARED]
    distances = []
    for grid in candidates:
        tiles = grid.cut(few)
        chosen = torch.randperm(len(tiles), generator=stream)[:NUM_COMPARED]
        distances.append(squared_distance(tiles[chosen]))
    nearest = min(distances)
    return candidates[distances.index(nearest)] if nearest < squared_distance(few) / 4 else None


def _list_grids(size: int, sides: set[int]) -> Iterator[SampleGrid]:
    """List the grids that make a picture of ``size`` pixels: without padding, with it, and with it around them too."""
    for side in sorted(sides):
        for num in range(2, MAX_TILES + 1):
            for padding in range(MAX_PADDING + 1):
                for border in {0, padding}:
                    if num * side + (num - 1) * padding + 2 * border == size:
                        yield SampleGrid(num, side, padding, border)


def _histogram(images: Tensor) -> Tensor:
    """The share of values in each of ``NUM_BINS`` bins, of at most 2,000 images."""
    values = images[:2_000].flatten().to(torch.int64) // (256 // NUM_BINS)
    return values.bincount(minlength=NUM_BINS).double() / len(values)


def _distance(a: Tensor, b: Tensor) -> float:
    """Total variation between two histograms."""
    return float((a - b).abs().sum()) / 2
