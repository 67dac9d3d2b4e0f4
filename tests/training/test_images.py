from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gan_ablate.design.run_fields import Augmentation
from gan_ablate.training.images import augment

KINDS: tuple[Augmentation, ...] = ("colour", "translation", "cutout")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num: int = 200, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand((num, channels, side, side), generator=stream(9)) * 2 - 1


def test_a_stream_decides_all() -> None:
    x = noise(8)
    assert torch.equal(augment(x, KINDS, stream()), augment(x, KINDS, stream()))
    assert not torch.equal(augment(x, KINDS, stream()), augment(x, KINDS, stream(1)))
    assert augment(x, (), stream()) is x


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_back_to_every_pixel_that_is_left(kind: Augmentation) -> None:
    x = noise(4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, (kind,), stream()), x[:, :, :4, :4].detach().requires_grad_())
    augment(x, (kind,), stream()).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).double().mean() > 0.5


def test_translation_moves_by_at_most_an_eighth_with_zeros_behind() -> None:
    x = torch.ones(500, 1, 16, 16)
    moved = augment(x, ("translation",), stream())
    kept = moved.sum((1, 2, 3)) / 16  # rows times columns that are left, over the side
    assert moved.unique().tolist() == [0, 1]
    assert kept.min() == 14 * 14 / 16
    assert kept.max() == 16
    rows = moved.amax((1, 3)).argmax(1)  # the first row that is not black: 0, 1 or 2
    assert rows.unique().tolist() == [0, 1, 2]


def test_translation_keeps_the_picture() -> None:
    x = noise(50)
    moved = augment(x, ("translation",), stream())
    for before, after in zip(x, moved, strict=True):
        rows, columns = (after.abs().amax(dim).amax(0) > 0 for dim in (2, 1))
        inside = after[:, rows][:, :, columns]
        height, width = inside.shape[1:]
        windows = before.unfold(1, height, 1).unfold(2, width, 1)
        same = (windows == inside[:, None, None]).all(dim=(-1, -2)).all(0)
        assert same.sum() == 1


def test_cutout_leaves_a_black_square_of_half_the_side() -> None:
    cut = augment(torch.ones(5_000, 1, 16, 16), ("cutout",), stream())
    black = (cut == 0).sum((1, 2, 3))
    assert black.max() == 8 * 8
    assert black.min() >= 4 * 4  # its centre is in the image, so at least a quarter is
    quarters = cut[black == 16, 0]
    for row, column in ((0, 0), (0, 15), (15, 0), (15, 15)):  # and that in every corner
        assert (quarters[:, row, column] == 0).any()


def test_colour_keeps_its_bounds() -> None:
    grey = torch.full((2_000, 1, 2, 2), 0.25)
    brightness = augment(grey, ("colour",), stream())[:, 0, 0, 0] - 0.25  # contrast of a flat image changes nothing
    assert brightness.min().item() == pytest.approx(-0.5, abs=0.01)
    assert brightness.max().item() == pytest.approx(0.5, abs=0.01)
    x = noise(500)
    spread = augment(x.mean(1, keepdim=True), ("colour",), stream()).std((1, 2, 3)) / x.mean(1).std((1, 2))
    assert spread.min().item() == pytest.approx(0.5, abs=0.02)
    assert spread.max().item() == pytest.approx(1.5, abs=0.02)


def test_halves_of_a_pixel_are_rounded_up_as_in_the_authors_code() -> None:
    """An eighth of 20 is 2.5, half of 5 is 2.5: both 3, where Python's ``round`` makes 2 of them."""
    moved = augment(torch.ones(500, 1, 20, 20), ("translation",), stream())
    assert moved.amax((1, 3)).argmax(1).unique().tolist() == [0, 1, 2, 3]
    cut = augment(torch.ones(500, 1, 5, 5), ("cutout",), stream())
    assert (1 - cut).sum((1, 2, 3)).max() == 9
