"""Differentiable augmentation of images: DiffAugment (arXiv:2006.10738, section 3).

Its operations and their strengths are those of the paper, appendix A: each image gets its own draw, and real and
generated images are augmented alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gan_ablate.design.run_fields import Augmentation

SHIFT_SHARE = 1 / 8
"""Images move by up to this share of their side."""

CUT_SHARE = 1 / 2
"""Side of the square that is cut out, over the image's."""


def augment(x: Tensor, kinds: Sequence[Augmentation], stream: torch.Generator) -> Tensor:
    """Augment images.

    Args:
        x: (B, C, S, S) in [-1, 1].
        kinds: what is done, in this order.
        stream: what is drawn from, on the images' device.

    Returns:
        (B, C, S, S), after ``colour`` also beyond [-1, 1].
    """
    for kind in kinds:
        match kind:
            case "colour":
                x = _jitter(x, stream)
            case "translation":
                x = _translate(x, stream)
            case "cutout":
                x = _cut_out(x, stream)
            case _:
                assert_never(kind)
    return x


def _jitter(x: Tensor, stream: torch.Generator) -> Tensor:
    """Brightness by up to ±0.5, saturation by a factor in [0, 2], contrast by one in [0.5, 1.5]."""
    brightness, saturation, contrast = (
        torch.rand((len(x), 1, 1, 1), generator=stream, device=x.device, dtype=x.dtype) for _ in range(3)
    )
    x = x + (brightness - 0.5)
    if x.shape[1] > 1:  # one channel is its own mean
        grey = x.mean(1, keepdim=True)
        x = torch.lerp(grey, x, 2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, x, contrast + 0.5)


def _translate(x: Tensor, stream: torch.Generator) -> Tensor:
    """Shift by whole pixels, with zeros behind."""
    side = x.shape[-1]
    most = _round_half_up(side * SHIFT_SHARE)
    shifts = torch.randint(-most, most + 1, (2, len(x)), generator=stream, device=x.device)
    place = torch.arange(side, device=x.device)
    rows, columns = (place + shift[:, None] + most for shift in shifts)  # (B, S) each, in the padded image
    padded: Tensor = functional.pad(x, (most, most, most, most)).permute(0, 2, 3, 1)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    shifted: Tensor = padded[batch, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def _cut_out(x: Tensor, stream: torch.Generator) -> Tensor:
    """Set a square to zero, whose centre lies anywhere in the image."""
    side = x.shape[-1]
    cut = _round_half_up(side * CUT_SHARE)
    first = torch.randint(0, side + (1 - cut % 2), (2, len(x)), generator=stream, device=x.device) - cut // 2
    place = torch.arange(side, device=x.device)
    rows, columns = ((place >= start[:, None]) & (place < start[:, None] + cut) for start in first)
    cut_out: Tensor = rows[:, None, :, None] & columns[:, None, None, :]
    return x * ~cut_out


def _round_half_up(pixels: float) -> int:
    """Round as the authors' code does, and to one pixel at least."""
    return max(1, int(pixels + 0.5))
