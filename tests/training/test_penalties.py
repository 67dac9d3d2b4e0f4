from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gan_ablate.training.penalties import interpolated_gradient_penalty, zero_centred_gradient_penalty

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
