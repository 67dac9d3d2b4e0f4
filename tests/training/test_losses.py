from __future__ import annotations

import math

import pytest
import torch

from gan_ablate.design.objective import BCELoss
from gan_ablate.training.losses import discriminator_loss, generator_loss

LOGITS_REAL = torch.tensor([0.0, 2.0], dtype=torch.float64)
LOGITS_FAKE = torch.tensor([1.0, -3.0], dtype=torch.float64)


def log_sigmoid(logit: float) -> float:
    return -math.log(1 + math.exp(-logit))


def test_the_discriminators_loss_is_the_sum_over_real_and_fake() -> None:
    expected = -(log_sigmoid(0) + log_sigmoid(2)) / 2 - (log_sigmoid(-1) + log_sigmoid(3)) / 2
    assert discriminator_loss(BCELoss(kind="bce"), LOGITS_REAL, LOGITS_FAKE).item() == pytest.approx(expected)


def test_a_smoothed_real_label_mixes_both_targets_on_real_images_only() -> None:
    on_real = [0.9 * log_sigmoid(logit) + 0.1 * log_sigmoid(-logit) for logit in (0, 2)]
    expected = -sum(on_real) / 2 - (log_sigmoid(-1) + log_sigmoid(3)) / 2
    loss = discriminator_loss(BCELoss(kind="bce", real_label=0.9), LOGITS_REAL, LOGITS_FAKE)
    assert loss.item() == pytest.approx(expected)


def test_the_generator_wants_its_images_taken_for_real() -> None:
    expected = -(log_sigmoid(1) + log_sigmoid(-3)) / 2
    assert generator_loss(BCELoss(kind="bce", real_label=0.9), LOGITS_FAKE).item() == pytest.approx(expected)


def test_extreme_logits_give_finite_losses() -> None:
    extreme = torch.tensor([-1e4, 1e4])
    assert discriminator_loss(BCELoss(kind="bce"), extreme, extreme).isfinite()
