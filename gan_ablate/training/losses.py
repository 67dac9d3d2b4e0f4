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

    from gan_ablate.design.gan import Penalty


if TYPE_CHECKING:
    from torch import Tensor

    from gan_ablate.design.gan import BCELoss, HingeLoss, LeastSquaresLoss, RelativisticLoss, WassersteinLoss
    from gan_ablate.design.user_code import UserLoss

    AdversarialLoss = BCELoss | LeastSquaresLoss | HingeLoss | WassersteinLoss | RelativisticLoss | UserLoss

MODE_SEEKING_EPS = 1e-5
"""Keeps the term finite where all images are the same, as in the authors' code."""


def discriminator_loss(loss: AdversarialLoss, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Return D's loss.

    Args:
        loss: which one, with its targets.
        logits_real: (B,) D's logits of real images.
        logits_fake: (B,) D's logits of generated images.

    Returns:
        () the loss to minimise.
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


def generator_loss(loss: AdversarialLoss, logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """Return G's loss.

    Args:
        loss: which one, with its targets.
        logits_fake: (B,) D's logits of generated images.
        logits_real: (B,) D's logits of real images, for the loss that compares the two.

    Returns:
        () the loss to minimise.
    """
    match loss.kind:
        case "bce":
            # Non-saturating: its images should be taken for real (arXiv:1406.2661, section 3).
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
    """Return the inverse of how far images are apart, for how far their latents are (arXiv:1903.05628, equation 5).

    The pairs are the first half of the batch with the second, so no image is drawn for it alone.

    Args:
        x_fake: (B, C, S, S) images, at least two.
        z: (B, latent_dim) their latents.

    Returns:
        () to be minimised: 1 / (mean |G(z₁) - G(z₂)| / mean |z₁ - z₂|).
    """
    half = len(z) // 2
    apart = (x_fake[:half] - x_fake[half : 2 * half]).abs().mean() / (z[:half] - z[half : 2 * half]).abs().mean()
    return 1 / (apart + MODE_SEEKING_EPS)


def _single(loss: object, source: str) -> Tensor:
    """Check that user code returned one number.

    Raises:
        UserError: if it did not.
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


class Judged(NamedTuple):
    """Images, (B, C, S, S), and what D made of them, (B,)."""

    images: Tensor
    logits: Tensor


def discriminator_penalty(
    penalty: Penalty,
    judge: Callable[[Tensor], Tensor],
    real: Judged,
    fake: Judged,
    sample_epsilon: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return what is added to D's loss, weighted.

    Args:
        penalty: which one, with its weight.
        judge: D, which maps images to (B,) logits.
        real: real images; for a penalty on their gradient, they require one.
        fake: generated images; for a penalty on their gradient, they require one.
        sample_epsilon: draws for images (B, 1, 1, 1) in [0, 1]: where between real and fake ones to look.

    Returns:
        () to be minimised.
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
