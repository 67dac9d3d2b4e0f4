"""Latents and classes: draw latents for G, put one-hot classes behind them, and select D's logits of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from gan_ablate.design.config import RunConfig


def draw_latents(config: RunConfig, num: int, stream: torch.Generator) -> Tensor:
    """Draw latents from a run's own distribution: (num, latent_dim), on the stream's device."""
    shape = (num, config.latent_dim)
    match config.latent_distribution:
        case "normal":
            return torch.randn(shape, generator=stream, device=stream.device)
        case "uniform":
            return torch.rand(shape, generator=stream, device=stream.device).mul_(2).sub_(1)
        case _:
            assert_never(config.latent_distribution)


def one_hot(config: RunConfig, classes: Tensor) -> Tensor:
    """Turn (B,) int64 classes into (B, num_classes) of PyTorch's default dtype."""
    known = torch.arange(config.num_classes or 0, device=classes.device)
    return (classes[:, None] == known).to(torch.get_default_dtype())


def ask_for(config: RunConfig, z: Tensor, classes: Tensor) -> Tensor:
    """Put behind (B, latent_dim) latents the classes, (B,) int64, that G is to draw: (B, num_inputs_g)."""
    return torch.cat((z, one_hot(config, classes)), 1)


def classes_in(config: RunConfig, latents: Tensor) -> Tensor | None:
    """Read back the one-hot classes, (B, num_classes), that (B, num_inputs_g) latents ask for, if they ask for any."""
    return latents[:, config.latent_dim :] if config.num_classes else None


def select_logits(outputs: Tensor, classes: Tensor | None) -> Tensor:
    """Return the logits of images, of the classes they are said to be of.

    This is D(x, y) = ψ(φ(x)) + vᵧᵀφ(x) (arXiv:1802.05637, equation 3): D's last layer gives ψ first, then a term for
    each class.

    Args:
        outputs: (B,) of a D without classes, or (B, 1 + num_classes).
        classes: (B, num_classes) one-hot, or None.

    Returns:
        (B,) logits.
    """
    return outputs if classes is None else outputs[:, 0] + (outputs[:, 1:] * classes).sum(1)
