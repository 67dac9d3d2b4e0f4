"""The trainer: one run's networks, optimisers and random streams, which a checkpoint saves and restores."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import nn

from gan_ablate.seeding import stream_seed
from gan_ablate.training.augment import augment
from gan_ablate.training.data import BatchOrder
from gan_ablate.training.global_state import read_streams, seed_streams, set_streams
from gan_ablate.training.latents import ask_for, draw_latents, one_hot
from gan_ablate.training.losses import discriminator_loss, generator_loss
from gan_ablate.training.models import build_discriminator, build_generator
from gan_ablate.training.step import AdversarialStep, DiscriminatorTerms, Network, StepTerms
from gan_ablate.training.user_code import keep_own

if TYPE_CHECKING:
    from torch import Tensor

    from gan_ablate.design.config import RunConfig

MEASURE_EVERY = 10
"""Steps between two rows of the history: often enough to draw curves, rarely enough to cost nothing."""

CLASS_STREAMS = ("classes/discriminator", "classes/generator", "classes/mismatched")
"""Of the classes that fakes are asked to be of, and of the wrong ones that D learns to reject."""


@dataclass(frozen=True)
class Measurement:
    """One row of the history, taken after ``step`` generator steps.

    D(x) and D(G(z)) are batch means of D's probability that an image is real. ``accuracy_d`` is the share of a real and
    a fake batch that D got right, in [0, 1]. Gradient norms are Euclidean, over all parameters of a network.
    """

    step: int
    loss_d: float
    loss_g: float
    d_real: float
    d_fake_before: float
    d_fake_after: float
    accuracy_d: float
    grad_norm_d: float
    grad_norm_g: float


class Trainer(AdversarialStep):
    """One run's networks, optimisers, data order and latents: all state that its training changes.

    Args:
        config: the run.
        images: (N, C, S, S) uint8 training images, on the device that trains.
        labels: (N,) int64 their classes, on the same device; only conditional runs need them.

    Weights, losses and updates are of PyTorch's default dtype, float32.

    Attributes:
        order: in which real images are met.
        streams: purpose → what it draws from, on the device; dropout draws from PyTorch's global stream.
        average: G with the moving average of its weights, where the run keeps one.
        average_weight: () how much of that average its own weights are by now.
        own_modules: the loss and the penalty, where they are a user's and modules.
    """

    def __init__(self, config: RunConfig, images: Tensor, labels: Tensor | None = None) -> None:
        self.config = config
        self.images = images
        self._labels = labels if config.conditional else None
        self._device = images.device
        self.order = BatchOrder(images, config.batch_size, config.seed)
        self.streams = {
            purpose: torch.Generator(self._device).manual_seed(stream_seed(config.seed, purpose))
            for purpose in ("latent/discriminator", "latent/generator", "penalty", *CLASS_STREAMS, *config.augmentation)
        }
        self.generator = build_generator(config).to(memory_format=torch.channels_last).to(self._device)
        self.discriminator = build_discriminator(config).to(memory_format=torch.channels_last).to(self._device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False) if config.ema_decay else None
        self.average_weight = torch.zeros((), device=self._device)
        # Dropout is the one thing in training that draws from PyTorch's global stream. Seeded here, as the networks'
        # constructors draw from it too: variants with other layers meet the same masks.
        torch.manual_seed(stream_seed(config.seed, "dropout"))
        self.own_modules: list[nn.Module] = []
        if config.own_parts:
            self.own_modules = keep_own(config.own_parts, config.seed, self._device)
            seed_streams(stream_seed(config.seed, "dropout"))
        self.optimizer_g = _build_adam(self.generator, config.lr_g, config, self._device)
        self.optimizer_d = _build_adam(self.discriminator, config.lr_d, config, self._device)

    def draw_latents(self, network: Network) -> Tensor:
        """Draw the next (B, num_inputs_g) latents of the fakes that a network learns from.

        Where the run is conditional, their classes are as frequent as those of the training images.
        """
        z = draw_latents(self.config, self.config.batch_size, self.streams[f"latent/{network}"])
        if self._labels is None:
            return z
        stream = self.streams[f"classes/{network}"]  # of their own: the latents are those of a run without classes
        drawn = torch.randint(len(self._labels), (len(z),), generator=stream, device=self._device)
        return ask_for(self.config, z, self._labels[drawn])

    def random_streams(self) -> list[torch.Generator]:
        """Return what a step draws from: latents, a stream for each network that learns from them, and other noise."""
        return list(self.streams.values())

    def classes_of(self, indices: Tensor) -> Tensor | None:
        """Return the one-hot classes of real images, (B, num_classes), where the run is conditional."""
        return None if self._labels is None else one_hot(self.config, self._labels[indices])

    def draw_other_classes(self, classes: Tensor) -> Tensor:
        """Draw for each of (B, num_classes) one-hot classes another one, all others equally often."""
        num = classes.shape[1]
        stream = self.streams["classes/mismatched"]
        ahead = torch.randint(1, num, (len(classes),), generator=stream, device=self._device)
        return one_hot(self.config, (classes.argmax(1) + ahead) % num)

    def augment(self, x: Tensor) -> Tensor:
        """Return images as D is to see them."""
        for kind in self.config.augmentation:
            x = augment(x, (kind,), self.streams[kind])
        return x

    def draw_epsilon(self, x: Tensor) -> Tensor:
        """Draw where between a real and a fake image a gradient penalty looks: (B, 1, 1, 1) in [0, 1]."""
        return torch.rand((len(x), 1, 1, 1), generator=self.streams["penalty"], device=self._device)

    @torch.no_grad()
    def after_generator_step(self) -> None:
        """Move the average of G's weights, and of its batch norms' averages, towards the present ones.

        As in Adam (arXiv:1412.6980, section 3), what the average began with has no part in it: after n steps its weight
        is 1 - decayⁿ, by which it is divided. All on the device, as a CUDA graph needs it.
        """
        if self.average is None:
            return
        new = 1 - self.config.ema_decay
        self.average_weight.mul_(self.config.ema_decay).add_(new)
        share = (new / self.average_weight).to(torch.get_default_dtype())
        moved: set[int] = set()  # a tensor that the network has under two names moves once
        for mean, now in zip(self.average.state_dict().values(), self.generator.state_dict().values(), strict=True):
            if mean.is_floating_point() and mean.data_ptr() not in moved:
                moved.add(mean.data_ptr())
                mean.lerp_(now, share)

    def next_indices(self) -> Tensor:
        """Return which images make the next batch of real ones: (B,)."""
        return self.order.next()

    def discriminator_loss(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """Return D's loss of (B,) logits: ()."""
        return discriminator_loss(self.config.loss, logits_real, logits_fake)

    def generator_loss(self, logits_fake: Tensor, logits_real: Tensor | None) -> Tensor:
        """Return G's loss of (B,) logits: ()."""
        return generator_loss(self.config.loss, logits_fake, logits_real)

    def measure(self, step: int, terms: StepTerms) -> Measurement:
        """Fetch one row of the history from the device: the loop's only synchronisation."""
        values = torch.stack(
            (
                terms.loss_d,
                terms.loss_g,
                terms.logits_real.sigmoid().mean(),
                terms.logits_fake_before.sigmoid().mean(),
                terms.logits_fake_after.sigmoid().mean(),
                torch.cat((terms.logits_real > 0, terms.logits_fake_before <= 0)).float().mean(),
                _gradient_norm(self.discriminator),
                _gradient_norm(self.generator),
            )
        )
        return Measurement(step, *values.tolist())

    def is_finite(self) -> bool:
        """Whether every weight and buffer of both networks is a finite number."""
        tensors = (*self.generator.state_dict().values(), *self.discriminator.state_dict().values())
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def _build_adam(network: nn.Module, lr: float, config: RunConfig, device: torch.device) -> torch.optim.Optimizer:
    # Fused: the same formula for all parameters in one pass. A CUDA graph takes it only if it is said to be capturable.
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(network.parameters(), lr, betas, fused=True, capturable=device.type == "cuda")


def _gradient_norm(network: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def capture_state(trainer: Trainer) -> dict[str, Tensor]:
    """Copy a trainer's networks, optimisers, data order and the position of every random stream.

    Returns:
        Name → tensor on the CPU, of whatever dtype and shape it has; ``restore_state`` takes them all.
    """
    state = {
        "num_steps": torch.tensor(trainer.num_steps),
        "order/stream": trainer.order.stream.get_state(),
        "order/left": trainer.order.left,
        "stream/global": _global_stream(trainer.images.device),
    }
    if trainer.config.own_parts:  # a user's code may draw from any stream
        state |= {f"process/{name}": position for name, position in read_streams().items()}
    for purpose, stream in trainer.streams.items():
        state[f"stream/{purpose}"] = stream.get_state()
    for name, network in _networks(trainer).items():
        state |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
    if trainer.average is not None:
        state["average_weight"] = trainer.average_weight
    for name, (optimizer, parameters) in _optimizers(trainer).items():
        for number, parameter in enumerate(parameters):
            state |= {f"{name}/{number}/{key}": value for key, value in optimizer.state[parameter].items()}
    if trainer.last_d is not None:  # where D rests, rows of the history tell of its last step again
        state |= {f"last_d/{key}": value for key, value in trainer.last_d._asdict().items()}
        for number, parameter in enumerate(trainer.discriminator.parameters()):
            if parameter.grad is not None:
                state[f"last_d/gradient/{number}"] = parameter.grad
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}


@torch.no_grad()
def restore_state(trainer: Trainer, state: dict[str, Tensor]) -> None:
    """Put a fresh trainer of the same run where another one was.

    Args:
        trainer: before its first step.
        state: from ``capture_state``.

    Raises:
        KeyError: if something is missing in it.
        RuntimeError: if it is of other networks.
    """
    device = trainer.images.device
    trainer.num_steps = int(state["num_steps"])
    trainer.order.stream.set_state(state["order/stream"])
    trainer.order.left = state["order/left"].to(device, copy=True)
    _set_global_stream(device, state["stream/global"])
    if trainer.config.own_parts:
        set_streams(_below(state, "process"))
    for purpose, stream in trainer.streams.items():
        stream.set_state(state[f"stream/{purpose}"])
    for name, network in _networks(trainer).items():
        network.load_state_dict(_below(state, name))
    if trainer.average is not None:
        trainer.average_weight.copy_(state["average_weight"])
    for name, (optimizer, parameters) in _optimizers(trainer).items():
        for number, parameter in enumerate(parameters):
            optimizer.state[parameter] = {
                key: value.to(device, copy=True) if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
                for key, value in _below(state, f"{name}/{number}").items()
            }
    last_d = {key: value.to(device, copy=True) for key, value in _below(state, "last_d").items() if "/" not in key}
    if last_d:
        trainer.last_d = DiscriminatorTerms(**last_d)
        for number, parameter in enumerate(trainer.discriminator.parameters()):
            gradient = state.get(f"last_d/gradient/{number}")
            if gradient is not None:
                parameter.grad = torch.empty_like(parameter).copy_(gradient)


def pack_weights(network: nn.Module) -> bytes:
    """Write a network's state dict as a safetensors file; a tensor of two names is there twice."""
    return save({name: tensor.to("cpu", copy=True).contiguous() for name, tensor in network.state_dict().items()})


def _networks(trainer: Trainer) -> dict[str, nn.Module]:
    networks = {"generator": trainer.generator, "discriminator": trainer.discriminator}
    networks |= {f"own/{number}": module for number, module in enumerate(trainer.own_modules)}
    return networks if trainer.average is None else {**networks, "average": trainer.average}


def _optimizers(trainer: Trainer) -> dict[str, tuple[torch.optim.Optimizer, list[nn.Parameter]]]:
    return {
        "optimizer_g": (trainer.optimizer_g, list(trainer.generator.parameters())),
        "optimizer_d": (trainer.optimizer_d, list(trainer.discriminator.parameters())),
    }


def _below(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}


def _global_stream(device: torch.device) -> Tensor:
    """PyTorch's own stream, from which dropout draws."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_global_stream(device: torch.device, position: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(position, device)
    else:
        torch.set_rng_state(position)
