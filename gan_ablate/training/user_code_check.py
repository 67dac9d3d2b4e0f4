"""Checks of user code: try networks, loss and penalty on a few small batches before training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load
from torch import nn

from gan_ablate.errors import UserError
from gan_ablate.training.data import select_logits
from gan_ablate.training.losses import Judged, discriminator_loss, discriminator_penalty, generator_loss
from gan_ablate.training.models import build_discriminator, build_generator
from gan_ablate.training.runtime import SEEDING, read_streams, seed_streams
from gan_ablate.training.trainer import Trainer, capture_state, pack_weights, restore_state
from gan_ablate.training.user_code import make_user_part, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.user_code import UserPart

BATCH = 4

NUM_PERTURBED = 4
"""Networks of random weights whose outputs are looked at, half of them with the signs of the other half."""


def check_user_code(config: RunConfig) -> None:
    """Let some batches go through networks, loss and penalty, if any of them is a user's code.

    What training will do to them is done here: they are built, copied, trained for two steps, saved and loaded.

    Raises:
        UserError: naming the part, what came and what was expected.
    """
    if not config.user_parts:
        return
    with watching(_list_paths(config)):
        seed_streams(0)
        for role, part in config.user_parts.items():
            _refuse_seeding_when_made(part, role)
        for check in (_refuse_hidden_layers, _check_shapes, _check_ranges, _check_mixing):
            _guard(functools.partial(check, config), _list_paths(config))
        _guard(lambda: _check_training(config), f"a training step ({_list_paths(config)})")


def _refuse_seeding_when_made(part: UserPart, role: str) -> None:
    """Refuse a part that seeds a stream when it is made: equal positions behind different seeds say so."""
    ends = [make_user_part(part, seed)[1] for seed in (0, 1)]
    _compare_streams(ends, f"{role} ({part.path})", "when it is made, so every seed starts from the same weights")


def _compare_streams(ends: Sequence[Mapping[str, Tensor]], what: str, consequence: str) -> None:
    for name, first in ends[0].items():
        if torch.equal(first, ends[1][name]):
            raise UserError(f"{what}: calls {SEEDING[name]} {consequence}; valid: without it")


def _refuse_hidden_layers(config: RunConfig) -> None:
    """Refuse layers in a plain list, tuple or dictionary: PyTorch neither trains nor saves those."""
    for role, build in (("generator", build_generator), ("discriminator", build_discriminator)):
        network = build(config)
        known = {id(parameter) for parameter in network.parameters()}
        for module in network.modules():
            for name, held in vars(module).items():
                if name.startswith("_") or not isinstance(held, (list, tuple, dict)):
                    continue  # PyTorch keeps what it does see behind an underscore
                values = held.values() if isinstance(held, dict) else held
                layers = [layer for layer in values if isinstance(layer, nn.Module)]
                parameters = [one for layer in layers for one in layer.parameters()]
                parameters += [one for one in values if isinstance(one, nn.Parameter)]
                if any(id(parameter) not in known for parameter in parameters):
                    kind = "Dict" if isinstance(held, dict) else "List"
                    raise UserError(
                        f"{role} ({_path_of(config, role)}): {type(module).__name__}.{name} holds layers or parameters "
                        f"in a {type(held).__name__}, where nothing trains or saves them; "
                        f"valid: torch.nn.Module{kind} or torch.nn.Parameter{kind}"
                    )


def _check_shapes(config: RunConfig) -> None:
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


def _check_ranges(config: RunConfig) -> None:
    """Refuse a D that ends in a sigmoid, and a G whose images are never dark.

    Networks of random, large weights show what the last layer lets through, whatever their initial weights are.
    """
    size = (BATCH, config.num_channels, config.image_size, config.image_size)
    if config.discriminator.kind == "module":
        low, high = _find_range(lambda: build_discriminator(config), torch.rand(size) * 2 - 1)
        if low >= 0 and high <= 1:
            raise UserError(
                f"discriminator ({config.discriminator.path}): its outputs stay in [0, 1], as behind a sigmoid, "
                "and losses take logits; valid: without the sigmoid"
            )
    if config.generator.kind == "module":
        low, high = _find_range(lambda: build_generator(config), torch.randn(BATCH, config.num_inputs_g))
        if low >= 0:
            raise UserError(
                f"generator ({config.generator.path}): its pixels are never below 0, at most {high:.2g}, "
                "and images are in [-1, 1]; valid: a tanh at its end, or 2 * x - 1 behind its sigmoid"
            )


@torch.no_grad()
def _find_range(build: Callable[[], nn.Module], x: Tensor) -> tuple[float, float]:
    """Return the least and the greatest output of a network whose weights are random numbers."""
    outputs, network = [], build()
    for number in range(NUM_PERTURBED):
        stream = torch.Generator().manual_seed(number // 2)
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream) * (-1) ** number)
        outputs += [network(scale * x).flatten() for scale in (1, 10)]
    found = torch.cat(outputs)
    return found.min().item(), found.max().item()


def _check_mixing(config: RunConfig) -> None:
    """Refuse a gradient penalty on a D whose logit of one image depends on others: as for ours, with batch norm."""
    kind = config.penalty.kind
    if config.discriminator.kind != "module" or kind not in ("gradient", "r1", "r1_r2"):
        return
    x = torch.rand(BATCH, config.num_channels, config.image_size, config.image_size).requires_grad_()
    logits = _call(build_discriminator(config), x, "discriminator", config)
    (gradient,) = torch.autograd.grad(logits[0].sum(), x, allow_unused=True)
    if gradient is not None and gradient[1:].any():
        raise UserError(
            f"penalty = {kind!r}: a penalty on each image's gradient has no meaning where the discriminator "
            f"({config.discriminator.path}) mixes the images of a batch, as batch norm does; "
            "valid: instance or layer norm, or none"
        )


def _check_training(config: RunConfig) -> None:
    """Train two steps, and the second one again from the state behind the first."""
    small = config.model_copy(update={"batch_size": BATCH, "d_steps_per_g_step": 1})
    images = torch.randint(256, (2 * BATCH, config.num_channels, config.image_size, config.image_size)).to(torch.uint8)
    labels = torch.arange(len(images)) % config.num_classes if config.num_classes else None
    ends = []
    for seed in (1, 0):
        trainer = Trainer(small.with_seed(seed), images, labels)
        trainer.step()
        ends.append(read_streams())
    _compare_streams(ends, _list_paths(config), "in a step, so every step draws the same")
    state = capture_state(trainer)
    terms = trainer.step()
    again = Trainer(small.with_seed(0), images, labels)
    restore_state(again, state)
    for first, second in zip(terms, again.step(), strict=True):
        if not torch.allclose(first, second, rtol=0, atol=0, equal_nan=True):
            raise UserError(
                f"{_list_paths(config)}: a run does not go on from a checkpoint as without it: something besides "
                "parameters and buffers changes from step to step; valid: register it as a buffer of a torch.nn.Module"
            )
    loaded = build_generator(config)
    loaded.load_state_dict(load(pack_weights(trainer.generator)))
    x = torch.randn(BATCH, config.num_inputs_g)
    drawn = []
    for network in (trainer.generator, loaded):
        seed_streams(0)
        drawn.append(network.eval()(x))
    if not torch.allclose(drawn[0], drawn[1], rtol=1e-4, atol=1e-4, equal_nan=True):
        raise UserError(
            f"generator ({_path_of(config, 'generator')}): saved and loaded, it draws other images: "
            "something besides parameters and buffers matters; valid: register it as a buffer"
        )


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
    except (Exception, SystemExit) as broken:  # user code may raise anything
        reason = str(broken).strip().partition("\n")[0][:300]
        raise UserError(f"{what}: fails ({type(broken).__name__}: {reason}){advice}") from None


def _check_shape(found: Any, valid: tuple[int, ...], given: Tensor, role: str) -> None:
    is_tensor = isinstance(found, torch.Tensor)
    if not is_tensor or tuple(found.shape) != valid or not found.is_floating_point():
        came = f"{_shape(found)} of {found.dtype}" if is_tensor else f"a {type(found).__name__}"
        raise UserError(f"{role}: given {_shape(given)}, it gives {came}; valid: {valid} of torch.float32")


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape))


def _list_paths(config: RunConfig) -> str:
    return ", ".join(dict.fromkeys(part.path for part in config.user_parts.values()))


def _path_of(config: RunConfig, role: str) -> str:
    part = getattr(config, role)
    return str(part.path) if part.kind == "module" else str(part.kind)
