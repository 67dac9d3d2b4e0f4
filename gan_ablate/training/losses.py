"""Logits in, adversarial losses out: pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from gan_ablate.design.config import BCELoss


def discriminator_loss(loss: BCELoss, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Sum or mean of the losses on real and fake images (arXiv:1406.2661, algorithm 1), with smoothed labels if asked.

    Args:
        loss: the labels, and which of the two.
        logits_real: (B,) D's logits of real images.
        logits_fake: (B,) D's logits of generated images.

    Returns:
        () the loss to minimise.
    """
    total = _bce(logits_real, loss.real_label) + _bce(logits_fake, loss.fake_label)
    return total / 2 if loss.discriminator_reduction == "mean" else total


def generator_loss(loss: BCELoss, logits_fake: Tensor) -> Tensor:
    """Non-saturating loss of G: its images should be taken for real (arXiv:1406.2661, section 3).

    Args:
        loss: the labels.
        logits_fake: (B,) D's logits of generated images.

    Returns:
        () the loss to minimise.
    """
    return _bce(logits_fake, loss.generator_label)


def _bce(logits: Tensor, label: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
