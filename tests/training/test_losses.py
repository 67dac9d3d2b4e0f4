from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from gan_ablate.design.gan import (
    BCELoss,
    GradientPenalty,
    HingeLoss,
    LeastSquaresLoss,
    NoPenalty,
    Penalty,
    R1Penalty,
    R1R2Penalty,
    RelativisticLoss,
    WassersteinLoss,
)
from gan_ablate.training.losses import (
    Judged,
    discriminator_loss,
    discriminator_penalty,
    generator_loss,
    interpolated_gradient_penalty,
    mode_seeking_term,
    zero_centred_gradient_penalty,
)

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


WEIGHT = torch.tensor([3.0, 4.0])


def linear(x: Tensor) -> Tensor:
    """A D whose gradient has norm 5 everywhere."""
    return x.flatten(1) @ WEIGHT.to(x.dtype)


def images(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).reshape(len(rows), 1, 1, 2)


def test_the_norm_of_a_linear_d_is_its_weights() -> None:
    real, fake = images([0.0, 1.0], [1.0, 1.0]), images([2.0, 0.0], [0.0, 0.0])
    epsilon = torch.tensor([0.25, 0.75]).reshape(2, 1, 1, 1)
    assert interpolated_gradient_penalty(linear, real, fake, epsilon, 1.0).item() == pytest.approx((5 - 1) ** 2)
    assert interpolated_gradient_penalty(linear, real, fake, epsilon, 5.0).item() == pytest.approx(0)
    real.requires_grad_()
    assert zero_centred_gradient_penalty(linear(real), real).item() == pytest.approx(25 / 2)


def test_it_looks_between_a_real_image_and_a_fake_one() -> None:
    seen = []

    def judge(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return linear(x)

    real, fake = images([0.0, 1.0]), images([2.0, 0.0])
    interpolated_gradient_penalty(judge, real, fake, torch.tensor(0.25).reshape(1, 1, 1, 1), 1.0)
    torch.testing.assert_close(seen[0], images([0.25 * 0 + 0.75 * 2, 0.25 * 1 + 0.75 * 0]))


def half_square(x: Tensor) -> Tensor:
    """A D whose gradient at an image is the image itself."""
    return x.flatten(1).square().sum(1) / 2


# By hand: real images of norms 5 and 13, fake ones of norms 10 and 0; a quarter of the way from fake to real, norms
# are those of (5.25, 7) and (1.25, 3).
@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (NoPenalty(kind="none"), 0),
        (R1Penalty(kind="r1", gamma=0.5), 0.5 / 2 * (25 + 169) / 2),
        (R1R2Penalty(kind="r1_r2", gamma=0.5), 0.5 / 2 * ((25 + 169) / 2 + 100 / 2)),
        (
            GradientPenalty(kind="gradient", weight=7, target=3),
            7 * ((math.hypot(5.25, 7) - 3) ** 2 + (math.hypot(1.25, 3) - 3) ** 2) / 2,
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_penalties_are_their_papers_by_hand(penalty: Penalty, expected: float) -> None:
    real, fake = images([3.0, 4.0], [5.0, 12.0]).requires_grad_(), images([6.0, 8.0], [0.0, 0.0]).requires_grad_()
    found = discriminator_penalty(
        penalty,
        half_square,
        Judged(real, half_square(real)),
        Judged(fake, half_square(fake)),
        lambda x: x.new_full((len(x), 1, 1, 1), 0.25),
    )
    assert found.shape == ()
    assert found.item() == pytest.approx(expected)


def test_where_between_real_and_fake_to_look_is_drawn_for_the_real_images() -> None:
    seen: list[Tensor] = []

    def draw(x: Tensor) -> Tensor:
        seen.append(x)
        return x.new_zeros(len(x), 1, 1, 1)

    real, fake = images([0.0, 1.0]), images([2.0, 0.0])
    at_real, at_fake = Judged(real, linear(real)), Judged(fake, linear(fake))
    discriminator_penalty(GradientPenalty(kind="gradient"), linear, at_real, at_fake, draw)
    assert len(seen) == 1
    assert torch.equal(seen[0], real)


def test_interpolation_penalty_gives_the_generator_no_gradient() -> None:
    fake = images([2.0, 0.0]).requires_grad_()
    weight = torch.tensor(1.0, requires_grad=True)
    interpolated_gradient_penalty(
        lambda x: weight * half_square(x), images([0.0, 1.0]), fake, torch.zeros(1, 1, 1, 1), 1.0
    ).backward()
    assert fake.grad is None
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(2 * (2 - 1) * 2)  # (w ‖x‖ - 1)² in w, at w = 1 and ‖x‖ = 2


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["interpolated", "zero-centred"])
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    """Of the penalty itself by differences of D's logits, and of its gradient in D's weights by differences of it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 4, 1), nn.Flatten(0))
    real, fake = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    epsilon = torch.rand(3, 1, 1, 1)
    place = epsilon * real + (1 - epsilon) * fake if kind == "interpolated" else real

    def penalty() -> Tensor:
        if kind == "interpolated":
            return interpolated_gradient_penalty(network, real, fake, epsilon, 1.0)
        x = real.clone().requires_grad_()
        return zero_centred_gradient_penalty(network(x), x)

    squares = norms_squared_by_differences(network, place)
    expected = (squares.sqrt() - 1).square().mean() if kind == "interpolated" else squares.mean() / 2
    torch.testing.assert_close(penalty().detach(), expected, rtol=1e-7, atol=0)

    penalty().backward()
    for parameter in network.parameters():
        if parameter.grad is None:
            continue  # a last bias moves no gradient
        flat, gradient = parameter.data.flatten(), parameter.grad.flatten()
        for index in range(0, len(flat), 5):
            assert gradient[index].item() == pytest.approx(difference(flat, index, penalty), rel=1e-5, abs=1e-9)


def norms_squared_by_differences(network: nn.Module, place: Tensor) -> Tensor:
    step, totals = 1e-5, []
    for x in place:
        shifts = step * torch.eye(x.numel()).reshape(-1, *x.shape)
        with torch.no_grad():
            totals.append(((network(x + shifts) - network(x - shifts)) / (2 * step)).square().sum())
    return torch.stack(totals)


def difference(flat: Tensor, index: int, value: Callable[[], Tensor]) -> float:
    step, was, ends = 1e-5, flat[index].item(), []
    for end in (was + step, was - step):
        flat[index] = end
        ends.append(value().item())
    flat[index] = was
    return (ends[0] - ends[1]) / (2 * step)


def test_where_d_is_flat_the_penalty_has_a_gradient_that_is_a_number() -> None:
    dead = nn.Linear(2, 2)
    nn.init.constant_(dead.bias, -100.0)
    network = nn.Sequential(nn.Flatten(), dead, nn.ReLU(), nn.Linear(2, 1), nn.Flatten(0))
    x, epsilon = images([0.0, 1.0]), torch.zeros(1, 1, 1, 1)
    penalty = interpolated_gradient_penalty(network, x, x, epsilon, 1.0)
    assert penalty.item() == 1
    penalty.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in network.parameters())
