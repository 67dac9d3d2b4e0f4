"""Adversarial losses and penalties: pure functions of D's logits and of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, assert_never

import torch
from torch.nn import functional

from gan_ablate.errors import UserError
from gan_ablate.training.user_code import find_user_part

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gan_ablate.design.gan import BCELoss, Loss, Penalty

MODE_SEEKING_EPS = 1e-5
"""Keeps the mode-seeking term finite where all images are the same, as in the authors' code."""


def discriminator_loss(loss: Loss, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Return D's adversarial loss.

    Args:
        loss: the kind of loss, with its targets.
        logits_real: (B,) D's logits of real images.
        logits_fake: (B,) D's logits of generated images.

    Returns:
        () the loss to minimise.

    Raises:
        UserError: if user code returns anything but a tensor of one number.
    """
    match loss.kind:
        case "bce":
            # arXiv:1406.2661, algorithm 1: the sum of both, with smoothed labels if asked.
            total = _bce(loss, logits_real, loss.real_label) + _bce(loss, logits_fake, loss.fake_label)
            return total / 2 if loss.discriminator_reduction == "mean" else total
        case "least_squares":
            # arXiv:1611.04076, equation 2: ½ E[(D(x) - b)²] + ½ E[(D(G(z)) - a)²]
            real, fake = (logits_real - loss.real_label).square(), (logits_fake - loss.fake_label).square()
            return (real.mean() + fake.mean()) / 2
        case "hinge":
            # arXiv:1802.05957, equation 16: E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]
            return functional.relu(1 - logits_real).mean() + functional.relu(1 + logits_fake).mean()
        case "wasserstein":
            # arXiv:1701.07875, algorithm 1, line 5, which maximises E[D(x)] - E[D(G(z))].
            return logits_fake.mean() - logits_real.mean()
        case "relativistic":
            # arXiv:2501.05441, equation 2, with f(t) = -log(1 + e^-t): D maximises E[f(D(x) - D(G(z)))].
            return functional.softplus(logits_fake - logits_real).mean()
        case "module":
            return _single(find_user_part(loss).discriminator(logits_real, logits_fake), f"{loss.path}.discriminator")
        case _:
            assert_never(loss)


def generator_loss(loss: Loss, logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """Return G's adversarial loss.

    Args:
        loss: the kind of loss, with its targets.
        logits_fake: (B,) D's logits of generated images.
        logits_real: (B,) D's logits of real images, which a relativistic loss compares with.

    Returns:
        () the loss to minimise.

    Raises:
        UserError: if user code returns anything but a tensor of one number.
    """
    match loss.kind:
        case "bce":
            # Non-saturating: G maximises log D(G(z)) (arXiv:1406.2661, section 3).
            return _bce(loss, logits_fake, loss.generator_label)
        case "least_squares":
            # arXiv:1611.04076, equation 2: ½ E[(D(G(z)) - c)²]
            return (logits_fake - loss.generator_label).square().mean() / 2
        case "hinge" | "wasserstein":
            # arXiv:1802.05957, equation 17, and arXiv:1701.07875, algorithm 1, line 10: -E[D(G(z))]
            return -logits_fake.mean()
        case "relativistic":
            # arXiv:2501.05441, equation 2, its sign turned as for the non-saturating loss: -E[f(D(G(z)) - D(x))]
            assert logits_real is not None
            return functional.softplus(logits_real - logits_fake).mean()
        case "module":
            return _single(find_user_part(loss).generator(logits_fake), f"{loss.path}.generator")
        case _:
            assert_never(loss)


def mode_seeking_term(x_fake: Tensor, z: Tensor) -> Tensor:
    """Return the inverse ratio of distances between images to distances between latents (arXiv:1903.05628, equation 5).

    The pairs are the first half of the batch with the second, so no image is generated for the term alone.

    Args:
        x_fake: (B, C, S, S) images, at least two.
        z: (B, latent_dim) latents of the images.

    Returns:
        () the term to minimise: 1 / (mean |G(z₁) - G(z₂)| / mean |z₁ - z₂|).
    """
    half = len(z) // 2
    apart = (x_fake[:half] - x_fake[half : 2 * half]).abs().mean() / (z[:half] - z[half : 2 * half]).abs().mean()
    return 1 / (apart + MODE_SEEKING_EPS)


class Judged(NamedTuple):
    """Images, (B, C, S, S), and D's logits of them, (B,)."""

    images: Tensor
    logits: Tensor


def images_differentiated_by(penalty: Penalty, x_real: Tensor, x_fake: Tensor) -> tuple[Tensor, ...]:
    """Return those of the images at which a penalty takes D's gradient; they have to require one."""
    match penalty.kind:
        case "r1":
            return (x_real,)
        case "r1_r2":
            return (x_real, x_fake)
        case _:  # a gradient penalty takes it between the two
            return ()


def penalty_interval(penalty: Penalty) -> int:
    """Return every how many D steps a penalty is computed, and by what it is multiplied then.

    Lazy regularisation (StyleGAN2, arXiv:1912.04958, appendix B): every k-th step it weighs k times as much. The
    authors' code takes it as a step of its own, with Adam's rates adjusted; here it is part of D's loss in that step.
    """
    return penalty.every if penalty.kind in ("r1", "r1_r2") else 1


def discriminator_penalty(
    penalty: Penalty,
    judge: Callable[[Tensor], Tensor],
    real: Judged,
    fake: Judged,
    sample_epsilon: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the weighted penalty that is added to D's loss.

    Args:
        penalty: the kind of penalty, with its weight.
        judge: D, which maps images to (B,) logits.
        real: real images; they require a gradient as ``images_differentiated_by`` says.
        fake: generated images; they require a gradient as ``images_differentiated_by`` says.
        sample_epsilon: samples (B, 1, 1, 1) in [0, 1] for images: the points between real and fake ones.

    Returns:
        () the penalty to minimise.

    Raises:
        UserError: if user code returns anything but a tensor of one number.
    """
    match penalty.kind:
        case "none":
            return real.logits.new_zeros(())
        case "gradient":
            epsilon = sample_epsilon(real.images)
            return penalty.weight * interpolated_gradient_penalty(
                judge, real.images, fake.images, epsilon, penalty.target
            )
        case "r1":
            return penalty.gamma * zero_centred_gradient_penalty(real.logits, real.images)
        case "r1_r2":
            at_real, at_fake = (zero_centred_gradient_penalty(x.logits, x.images) for x in (real, fake))
            return penalty.gamma * (at_real + at_fake)
        case "module":
            given = find_user_part(penalty)(judge, real.images.detach(), fake.images.detach())
            if not isinstance(given, torch.Tensor) or given.numel() != 1:
                raise UserError(f"{penalty.path}: gives no tensor of one number")
            return given.reshape(())
        case _:
            assert_never(penalty)


def interpolated_gradient_penalty(
    judge: Callable[[Tensor], Tensor], x_real: Tensor, x_fake: Tensor, epsilon: Tensor, target: float
) -> Tensor:
    """Return the mean squared distance of the norm of D's gradient, between real and fake images, from ``target``.

    Args:
        judge: D, which maps images to (B,) logits; each logit depends on its own image alone.
        x_real: (B, C, S, S) real images.
        x_fake: (B, C, S, S) generated images.
        epsilon: (B, 1, 1, 1) in [0, 1], the share of the real image.
        target: the norm that costs nothing.

    Returns:
        () the penalty before its weight.
    """
    # arXiv:1704.00028, equation 3: E[(‖∇D(x̂)‖₂ - 1)²] at x̂ = ε x + (1 - ε) x̃ (algorithm 1, line 6)
    x_between = torch.lerp(x_fake.detach(), x_real, epsilon).requires_grad_()
    # The derivative of this norm at a zero gradient is zero; that of a root would be infinite.
    norms: Tensor = torch.linalg.vector_norm(_gradient(judge(x_between), x_between).flatten(1), dim=1)
    return (norms - target).square().mean()


def zero_centred_gradient_penalty(logits: Tensor, x: Tensor) -> Tensor:
    """Return half of the mean squared norm of D's gradient at the images it judged.

    Args:
        logits: (B,) D's logits of ``x``; each depends on its own image alone.
        x: (B, C, S, S) real images, or fake ones, that require a gradient.

    Returns:
        () the penalty before its weight γ.
    """
    # arXiv:1801.04406, equations 9 (real images) and 10 (fake images): γ/2 E[‖∇D(x)‖²]
    return _gradient(logits, x).flatten(1).square().sum(1).mean() / 2


def _single(loss: object, source: str) -> Tensor:
    """Return user code's loss as a () tensor.

    Raises:
        UserError: if it is no tensor of one number.
    """
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        given = f"a tensor of {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise UserError(f"{source}: gives {given}; valid: a tensor of one number")
    return loss.reshape(())


def _bce(loss: BCELoss, logits: Tensor, label: float) -> Tensor:
    target = torch.full_like(logits, label)
    match loss.computed_from:
        case "logits":
            return functional.binary_cross_entropy_with_logits(logits, target)
        case "probabilities":
            return functional.binary_cross_entropy(logits.sigmoid(), target)
        case _:
            assert_never(loss.computed_from)


def _gradient(logits: Tensor, x: Tensor) -> Tensor:
    """Differentiate each logit by its own image, so that the result can be differentiated again."""
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient
