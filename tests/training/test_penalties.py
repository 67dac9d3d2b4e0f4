from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gan_ablate.design.objective import GradientPenalty, NoPenalty, Penalty, R1Penalty, R1R2Penalty
from gan_ablate.training.penalties import (
    Judged,
    discriminator_penalty,
    interpolated_gradient_penalty,
    zero_centred_gradient_penalty,
)

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


def test_a_penalty_between_real_and_fake_images_tells_the_generator_nothing() -> None:
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
