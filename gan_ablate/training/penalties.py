"""Penalties on D's gradient: pure functions of its logits and of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, assert_never

import torch

from gan_ablate.errors import UserError
from gan_ablate.training.user_code import find_own

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gan_ablate.design.objective import Penalty


class Judged(NamedTuple):
    """Images, (B, C, S, S), and what D made of them, (B,)."""

    images: Tensor
    logits: Tensor


def discriminator_penalty(
    penalty: Penalty,
    judge: Callable[[Tensor], Tensor],
    real: Judged,
    fake: Judged,
    draw_epsilon: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return what is added to D's loss, weighted.

    Args:
        penalty: which one, with its weight.
        judge: D, which maps images to (B,) logits.
        real: real images; for a penalty on their gradient, they require one.
        fake: generated images; for a penalty on their gradient, they require one.
        draw_epsilon: draws for images (B, 1, 1, 1) in [0, 1]: where between real and fake ones to look.

    Returns:
        () to be minimised.
    """
    match penalty.kind:
        case "none":
            return real.logits.new_zeros(())
        case "gradient":
            epsilon = draw_epsilon(real.images)
            return penalty.weight * interpolated_gradient_penalty(
                judge, real.images, fake.images, epsilon, penalty.target
            )
        case "r1":
            return penalty.gamma * zero_centred_gradient_penalty(real.logits, real.images)
        case "r1_r2":
            at_real, at_fake = (zero_centred_gradient_penalty(x.logits, x.images) for x in (real, fake))
            return penalty.gamma * (at_real + at_fake)
        case "module":
            given = find_own(penalty)(judge, real.images.detach(), fake.images.detach())
            if not isinstance(given, torch.Tensor) or given.numel() != 1:
                raise UserError(f"{penalty.path}: gives no tensor of one number")
            return given.reshape(())
        case _:
            assert_never(penalty)


def interpolated_gradient_penalty(
    judge: Callable[[Tensor], Tensor], x_real: Tensor, x_fake: Tensor, epsilon: Tensor, target: float
) -> Tensor:
    """Return how far the norm of D's gradient between real and fake images is from ``target``.

    Args:
        judge: D, which maps images to (B,) logits; each logit depends on its own image alone.
        x_real: (B, C, S, S) real images.
        x_fake: (B, C, S, S) generated images.
        epsilon: (B, 1, 1, 1) in [0, 1], where between the two.
        target: of the norm.

    Returns:
        () the mean squared distance.
    """
    # arXiv:1704.00028, equation 3: E[(‖∇D(x̂)‖₂ - 1)²] at x̂ = ε x + (1 - ε) x̃ (algorithm 1, line 6)
    x_between = torch.lerp(x_fake.detach(), x_real, epsilon).requires_grad_()
    # Its derivative is zero where the gradient is, and not, as a root's, infinite.
    norms: Tensor = torch.linalg.vector_norm(_gradient(judge(x_between), x_between).flatten(1), dim=1)
    return (norms - target).square().mean()


def zero_centred_gradient_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """Return half of the mean squared norm of D's gradient at the images it judged.

    Args:
        logits: (B,) what D made of ``x``; each depends on its own image alone.
        x: (B, C, S, S) real images, or fake ones, that require a gradient.

    Returns:
        () to be weighted with γ.
    """
    # arXiv:1801.04406, equations 9 (real images) and 10 (fake images): γ/2 E[‖∇D(x)‖²]
    return _gradient(logits, x).flatten(1).square().sum(1).mean() / 2


def _gradient(logits: Tensor, x: Tensor) -> Tensor:
    """Differentiate each logit by its own image, so that the result can be differentiated again."""
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient
