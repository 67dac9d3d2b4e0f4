"""A run with code of one's own in; what of it does not give what it should, said before anything is trained, out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gan_ablate.errors import UserError
from gan_ablate.training.losses import discriminator_loss, generator_loss
from gan_ablate.training.models import build_discriminator, build_generator
from gan_ablate.training.penalties import Judged, discriminator_penalty
from gan_ablate.training.step import select_logits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gan_ablate.design.config import RunConfig

BATCH = 4


def check_own(config: RunConfig) -> None:
    """Let a batch go through networks, loss and penalty, if any of them is code of somebody's own.

    Raises:
        UserError: naming the part, what came and what was expected.
    """
    if not config.own_parts:
        return
    with torch.random.fork_rng(devices=[]):
        generator, discriminator = build_generator(config), build_discriminator(config)
        size = (BATCH, config.num_channels, config.image_size, config.image_size)
        latents = torch.randn(BATCH, config.num_inputs_g)
        images = _call(generator, latents, "generator", config)
        _check_shape(images, size, latents, "generator")
        real = torch.rand(size) * 2 - 1
        valid: tuple[int, ...] = (BATCH,) if config.num_classes is None else (BATCH, config.num_outputs_d)
        outputs = _call(discriminator, real, "discriminator", config)
        _check_shape(outputs, valid, real, "discriminator")
        classes = None if config.num_classes is None else torch.eye(config.num_classes)[[0] * BATCH]

        def judge(x: Tensor) -> Tensor:
            return select_logits(discriminator(x), classes)

        x_real, x_fake = (x.detach().requires_grad_() for x in (real, images))
        logits_real, logits_fake = judge(x_real), judge(x_fake)
        if config.loss.kind == "module":
            for role, compute in (
                ("discriminator", lambda: discriminator_loss(config.loss, logits_real, logits_fake)),
                ("generator", lambda: generator_loss(config.loss, logits_fake)),
            ):
                _guard(compute, f"loss.{role} ({config.loss.path})")
        if config.penalty.kind == "module":

            def penalise() -> Tensor:
                epsilon = torch.rand(BATCH, 1, 1, 1)
                seen = Judged(x_real, logits_real), Judged(x_fake, logits_fake)
                return discriminator_penalty(config.penalty, judge, *seen, lambda _: epsilon)

            _guard(penalise, f"penalty ({config.penalty.path})")
        for role, network in (("generator", generator), ("discriminator", discriminator)):
            if not any(parameter.requires_grad for parameter in network.parameters()):
                raise UserError(f"{role} ({_path_of(config, role)}): it has no parameters to train")


def _call(network: nn.Module, x: Tensor, role: str, config: RunConfig) -> Tensor:
    advice = ""
    if role == "generator" and config.generator.kind == "module" and config.generator.latents == "vectors":
        advice = f'; latents = "maps" gives it {(*x.shape, 1, 1)}'
    found: Tensor = _guard(lambda: network(x), f"{role} ({_path_of(config, role)}), given {_shape(x)}", advice)
    return found


def _guard(compute: Callable[[], Any], what: str, advice: str = "") -> Any:
    try:
        return compute()
    except UserError:
        raise
    except (Exception, SystemExit) as broken:  # whatever somebody's code raises
        reason = str(broken).strip().partition("\n")[0][:300]
        raise UserError(f"{what}: fails ({type(broken).__name__}: {reason}){advice}") from None


def _check_shape(found: Any, valid: tuple[int, ...], given: Tensor, role: str) -> None:
    is_tensor = isinstance(found, torch.Tensor)
    if not is_tensor or tuple(found.shape) != valid or not found.is_floating_point():
        came = f"{_shape(found)} of {found.dtype}" if is_tensor else f"a {type(found).__name__}"
        raise UserError(f"{role}: given {_shape(given)}, it gives {came}; valid: {valid} of torch.float32")


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape))


def _path_of(config: RunConfig, role: str) -> str:
    part = getattr(config, role)
    return str(part.path) if part.kind == "module" else str(part.kind)
