"""Updates: what turns gradients into new weights, by clipping, optimisers and schedules, and the average of weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.gan import Loss
    from gan_ablate.design.optimizers import Optimizer


def build_optimizer(
    network: nn.Module, optimizer: Optimizer, lr: float, config: RunConfig, device: torch.device
) -> torch.optim.Optimizer:
    """Build the optimiser of a network.

    Args:
        network: on the device.
        optimizer: its kind, with its fields.
        lr: the learning rate.
        config: the run, which has Adam's β.
        device: where the run is trained.
    """
    # Fused: the same formula for all parameters in one pass. A CUDA graph takes it only if it is said to be capturable.
    is_graph = device.type == "cuda"
    rate = torch.tensor(lr, device=device) if is_graph and has_schedule(config) else lr
    betas, parameters = (config.beta1, config.beta2), network.parameters()
    match optimizer.kind:
        case "adam":
            return torch.optim.Adam(parameters, rate, betas, optimizer.eps, fused=True, capturable=is_graph)
        case "adamw":
            decay = optimizer.weight_decay
            return torch.optim.AdamW(
                parameters, rate, betas, optimizer.eps, weight_decay=decay, fused=True, capturable=is_graph
            )
        case "rmsprop":
            return torch.optim.RMSprop(
                parameters, rate, optimizer.decay, optimizer.eps, momentum=optimizer.momentum, capturable=is_graph
            )
        case "sgd":
            return torch.optim.SGD(parameters, rate, optimizer.momentum, nesterov=optimizer.nesterov, fused=True)
        case _:
            assert_never(optimizer)


def has_schedule(config: RunConfig) -> bool:
    """Whether the learning rates of a run change."""
    return config.lr_schedule.kind != "constant" or config.lr_warmup_steps > 0


def rate_factor(config: RunConfig, num_steps: int) -> float:
    """Return the factor of both learning rates in the step after ``num_steps`` G steps.

    The first of n warm-up steps has 1 / n, the last one 1, times the factor of the schedule.

    Args:
        config: the run.
        num_steps: G steps taken so far, from 0 to ``config.steps`` - 1.
    """
    warm_up = min(1.0, (num_steps + 1) / config.lr_warmup_steps) if config.lr_warmup_steps else 1.0
    schedule, done = config.lr_schedule, num_steps / config.steps
    match schedule.kind:
        case "constant":
            return warm_up
        case "linear":
            fallen = max(0.0, done - schedule.start) / (1 - schedule.start)
            return warm_up * (1 - (1 - schedule.final) * fallen)
        case "cosine":
            # arXiv:1608.03983, equation 5, with η_max = 1 and η_min = ``final``.
            return warm_up * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2)
        case _:
            assert_never(schedule)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of an optimiser, in place where a CUDA graph reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def clip_gradients(network: nn.Module, max_norm: float, norm: Tensor) -> None:
    """Scale the gradients of a network down to a Euclidean norm (arXiv:1211.5063, algorithm 1).

    Args:
        network: after a backward pass.
        max_norm: the largest norm of all gradients together.
        norm: () receives the norm before, where a CUDA graph leaves it.
    """
    norm.copy_(nn.utils.clip_grad_norm_(network.parameters(), max_norm))


@torch.no_grad()
def clip_weights(network: nn.Module, loss: Loss) -> None:
    """Keep every weight of D in ± the loss's bound, where it has one (arXiv:1701.07875, algorithm 1, line 7)."""
    if loss.kind == "wasserstein" and loss.weight_clip is not None:
        for parameter in network.parameters():
            parameter.clamp_(-loss.weight_clip, loss.weight_clip)


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, config: RunConfig, weight: Tensor) -> None:
    """Move the average of G's weights towards the present ones. All happens on the device, as a CUDA graph needs it.

    As in Adam (arXiv:1412.6980, section 3), the average's initial value has no part in it: after n steps its weight is
    1 - decayⁿ, by which it is divided. With ``ema_rampup``, the average's half-life is at most that share of the steps
    so far, as in StyleGAN2-ADA's code; the first step takes G as it is.

    Args:
        average: a copy of G.
        network: G.
        config: the run.
        weight: () 1 - decayⁿ after n steps; with ``ema_rampup`` it counts the steps.
    """
    decay = config.ema_decay
    if config.ema_rampup is None:
        weight.mul_(decay).add_(1 - decay)
        share = (1 - decay) / weight
    else:
        # Half-life h of a decay d: d = ½^(1/h). No step came before the first one.
        share = (1 - 0.5 ** (1 / (config.ema_rampup * weight))).clamp(min=1 - decay)
        weight.add_(1)
    share = share.to(torch.get_default_dtype())
    buffers = {name for name, _ in network.named_buffers()} if config.ema_buffers == "copied" else set()
    moved: set[int] = set()  # a tensor that the network has under two names moves once
    now = network.state_dict()
    for name, mean in average.state_dict().items():
        if mean.data_ptr() in moved:
            continue
        moved.add(mean.data_ptr())
        if name in buffers:
            mean.copy_(now[name])
        elif mean.is_floating_point():
            mean.lerp_(now[name], share)
