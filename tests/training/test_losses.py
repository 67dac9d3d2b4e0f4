from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from gan_ablate.design.objective import BCELoss, HingeLoss, LeastSquaresLoss, RelativisticLoss, WassersteinLoss
from gan_ablate.training.losses import discriminator_loss, generator_loss, mode_seeking_term

AdversarialLoss = BCELoss | LeastSquaresLoss | HingeLoss | WassersteinLoss | RelativisticLoss

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


def test_a_smoothed_fake_label_mixes_both_targets_on_fake_images_only() -> None:
    on_fake = [0.2 * log_sigmoid(logit) + 0.8 * log_sigmoid(-logit) for logit in (1, -3)]
    expected = -(log_sigmoid(0) + log_sigmoid(2)) / 2 - sum(on_fake) / 2
    loss = discriminator_loss(BCELoss(kind="bce", fake_label=0.2), LOGITS_REAL, LOGITS_FAKE)
    assert loss.item() == pytest.approx(expected)


def test_the_mean_over_real_and_fake_is_half_their_sum() -> None:
    total = -(log_sigmoid(0) + log_sigmoid(2)) / 2 - (log_sigmoid(-1) + log_sigmoid(3)) / 2
    loss = discriminator_loss(BCELoss(kind="bce", discriminator_reduction="mean"), LOGITS_REAL, LOGITS_FAKE)
    assert loss.item() == pytest.approx(total / 2)


def test_the_generator_wants_its_images_taken_for_real() -> None:
    expected = -(log_sigmoid(1) + log_sigmoid(-3)) / 2
    assert generator_loss(BCELoss(kind="bce", real_label=0.9), LOGITS_FAKE).item() == pytest.approx(expected)


@pytest.mark.parametrize("label", [1.0, 0.9])
def test_bce_from_probabilities_is_pytorchs_bceloss_of_a_sigmoid(label: float) -> None:
    logits = torch.linspace(-120, 120, 481)  # in float32, as documents train
    loss = BCELoss(kind="bce", real_label=label, generator_label=label, computed_from="probabilities")
    criterion, targets = torch.nn.BCELoss(), torch.full_like(logits, label)
    for ours, theirs in (
        (lambda x: generator_loss(loss, x), lambda x: criterion(torch.sigmoid(x), targets)),
        (
            lambda x: discriminator_loss(loss, x, -x),
            lambda x: criterion(torch.sigmoid(x), targets) + criterion(torch.sigmoid(-x), torch.zeros_like(x)),
        ),
    ):
        found = []
        for compute in (ours, theirs):
            x = logits.clone().requires_grad_()
            value = compute(x)
            found.append((value, *torch.autograd.grad(value, x)))
        for actual, expected in zip(*found, strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("computed_from", "logit", "value", "gradient"),
    [
        # log(1 + e⁻ˣ) and its derivative -1 / (1 + eˣ)
        ("logits", -120.0, 120.0, -1.0),
        ("logits", -5.0, math.log(1 + math.exp(5)), -1 / (1 + math.exp(-5))),
        ("probabilities", -5.0, math.log(1 + math.exp(5)), -1 / (1 + math.exp(-5))),
        # e⁻¹²⁰ is less than float32's smallest number, and its logarithm is bounded at -100
        ("probabilities", -120.0, 100.0, 0.0),
        # p = e⁻³⁰ is a number, but the derivative of the logarithm is bounded at 10¹²: -10¹² · p
        ("probabilities", -30.0, 30.0, -1e12 * math.exp(-30)),
    ],
)
def test_only_probabilities_bound_the_loss_where_d_is_sure(
    computed_from: Literal["logits", "probabilities"], logit: float, value: float, gradient: float
) -> None:
    x = torch.tensor([logit], requires_grad=True)
    loss = generator_loss(BCELoss(kind="bce", computed_from=computed_from), x)
    assert loss.item() == pytest.approx(value, rel=1e-5)
    assert torch.autograd.grad(loss, x)[0].item() == pytest.approx(gradient, rel=1e-5)


def test_extreme_logits_give_finite_losses() -> None:
    extreme = torch.tensor([-1e4, 1e4])
    assert discriminator_loss(BCELoss(kind="bce"), extreme, extreme).isfinite()


# By hand, for logits 0 and 2 of real images, 1 and -3 of fake ones.
@pytest.mark.parametrize(
    ("loss", "of_d", "of_g"),
    [
        # ½ (mean of (0-1)², (2-1)²) + ½ (mean of 1², 3²); ½ mean of (1-1)², (-3-1)²
        (LeastSquaresLoss(kind="least_squares"), 0.5 * 1 + 0.5 * 5, 0.5 * 8),
        # mean of max(0, 1-0), max(0, 1-2), plus mean of max(0, 1+1), max(0, 1-3); minus the mean of 1, -3
        (HingeLoss(kind="hinge"), 0.5 + 1, 1),
        # mean of 1, -3 minus mean of 0, 2
        (WassersteinLoss(kind="wasserstein"), -1 - 1, 1),
        # mean of log(1 + e^(1-0)), log(1 + e^(-3-2)); of log(1 + e^(0-1)), log(1 + e^(2+3))
        (
            RelativisticLoss(kind="relativistic"),
            (math.log(1 + math.e) + math.log(1 + math.exp(-5))) / 2,
            (math.log(1 + 1 / math.e) + math.log(1 + math.exp(5))) / 2,
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_losses_are_their_papers_by_hand(loss: AdversarialLoss, of_d: float, of_g: float) -> None:
    assert discriminator_loss(loss, LOGITS_REAL, LOGITS_FAKE).item() == pytest.approx(of_d)
    assert generator_loss(loss, LOGITS_FAKE, LOGITS_REAL).item() == pytest.approx(of_g)


def test_least_squares_takes_other_codings() -> None:
    loss = LeastSquaresLoss(kind="least_squares", real_label=1, fake_label=-1, generator_label=0)  # its equation 8
    assert discriminator_loss(loss, LOGITS_REAL, LOGITS_FAKE).item() == pytest.approx(0.5 * 1 + 0.5 * (4 + 4) / 2)
    assert generator_loss(loss, LOGITS_FAKE).item() == pytest.approx(0.5 * (1 + 9) / 2)


def test_the_mode_seeking_term_is_the_inverse_of_the_ratio_of_distances() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [1.0, 9.0]])  # first with third, second with fourth
    images = torch.tensor([0.0, 0.5, 0.3, 0.4]).reshape(4, 1, 1, 1)
    apart, latents_apart = (0.3 + 0.1) / 2, (2 + 0 + 0 + 8) / 4
    assert mode_seeking_term(images, z).item() == pytest.approx(1 / (apart / latents_apart + 1e-5))


def test_an_image_without_a_partner_is_left_out_of_the_mode_seeking_term() -> None:
    z, images = torch.tensor([[0.0], [1.0], [3.0], [5.0], [99.0]]), torch.tensor([0.0, 0.5, 0.3, 0.4, 99.0])
    apart, latents_apart = (0.3 + 0.1) / 2, (3 + 4) / 2
    term = mode_seeking_term(images.reshape(5, 1, 1, 1), z)
    assert term.item() == pytest.approx(1 / (apart / latents_apart + 1e-5))


def test_images_that_are_all_the_same_cost_much_but_no_infinity() -> None:
    images = torch.zeros(4, 1, 2, 2, requires_grad=True)
    term = mode_seeking_term(images + 0 * torch.randn(4, 1, 2, 2), torch.randn(4, 3))
    assert term.item() == pytest.approx(1e5)
