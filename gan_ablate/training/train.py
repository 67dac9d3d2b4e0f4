"""A RunConfig and its images in, a trained generator with its history and step times out."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from gan_ablate.seeding import stream_seed
from gan_ablate.training.augment import augment
from gan_ablate.training.data import BatchOrder
from gan_ablate.training.global_state import seed_streams
from gan_ablate.training.graphs import choose_step
from gan_ablate.training.latents import ask_for, draw_latents, one_hot
from gan_ablate.training.losses import discriminator_loss, generator_loss
from gan_ablate.training.models import build_discriminator, build_generator
from gan_ablate.training.own import keep_own
from gan_ablate.training.state import capture_state, restore_state
from gan_ablate.training.step import AdversarialStep, Network, StepTerms
from gan_ablate.training.timer import StepTimer

if TYPE_CHECKING:
    from collections.abc import Callable

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


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        generator: after the last step.
        discriminator: likewise.
        history: a row every ``MEASURE_EVERY`` steps and after the last one.
        average: the generator with the moving average of its weights, where the run keeps one.
        diverged_at: the step at which a loss, gradient, weight or pixel was found not to be finite, or None.
        timer: the times of all steps.
    """

    generator: nn.Module
    discriminator: nn.Module
    average: nn.Module | None
    history: list[Measurement]
    diverged_at: int | None
    timer: StepTimer


@dataclass(frozen=True)
class TrainingState:
    """Where a training is after ``step`` G steps: all that it needs to go on as if it had never stopped.

    Attributes:
        step: G steps taken.
        tensors: from ``capture_state``.
        history: the rows so far.
        times_ms: what every step took.
        peak_memory_bytes: so far.
    """

    step: int
    tensors: dict[str, Tensor]
    history: list[Measurement]
    times_ms: list[float]
    peak_memory_bytes: int


class Checkpoints(Protocol):
    """What keeps a training's states, and knows where it may go on."""

    def load(self) -> TrainingState | None:
        """Return the state to go on from, or None to begin."""

    def is_due(self, step: int) -> bool:
        """Whether the state after this step is to be kept; asked after every step."""

    def save(self, state: TrainingState) -> None:
        """Keep a state in the place of the one before."""


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


def train(
    config: RunConfig,
    images: Tensor,
    on_measurement: Callable[[Measurement], None],
    on_snapshot: Callable[[int, nn.Module, StepTimer], bool],
    labels: Tensor | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainResult:
    """Train one run from its beginning, or where it stopped, to its end, or to the step at which it diverges.

    Args:
        config: the run.
        images: (N, C, S, S) uint8 training images, on the device that trains.
        on_measurement: called with every row of the history.
        on_snapshot: called with the step, the generator and the timer, before the first step and then
            after each of ``sheet_steps``, the last of which is the end. It leaves the generator as it was, and
            returns whether what it drew was finite.
        labels: (N,) int64 the images' classes, on the same device; only conditional runs need them.
        checkpoints: where states are kept; without, none are.
    """
    trainer = Trainer(config, images, labels)
    take_step = choose_step(trainer)
    timer = StepTimer(images.device)
    snapshots = config.sheet_steps
    state = None if checkpoints is None else checkpoints.load()
    if state is None:
        step, history = 0, list[Measurement]()
        with timer.paused():
            is_finite = on_snapshot(0, trainer.generator, timer)
    else:
        step, history, is_finite = state.step, list(state.history), True
        restore_state(trainer, state.tensors)
        timer.restore(state.times_ms, state.peak_memory_bytes)
    while is_finite and step < config.steps:
        step += 1
        with timer:
            terms = take_step()
        if step % MEASURE_EVERY == 0 or step == config.steps:
            history.append(trainer.measure(step, terms))
            on_measurement(history[-1])
            is_finite = _is_finite(history[-1])
        if step in snapshots:
            with timer.paused():
                is_finite = is_finite and trainer.is_finite() and on_snapshot(step, trainer.generator, timer)
        if checkpoints is not None and is_finite and checkpoints.is_due(step):
            with timer.paused():
                tensors = capture_state(trainer)
                peak = timer.peak_memory_bytes
                checkpoints.save(TrainingState(step, tensors, history, timer.times_ms(), peak))
    diverged_at = None if is_finite else step
    return TrainResult(trainer.generator, trainer.discriminator, trainer.average, history, diverged_at, timer)


def _build_adam(network: nn.Module, lr: float, config: RunConfig, device: torch.device) -> torch.optim.Optimizer:
    # Fused: the same formula for all parameters in one pass. A CUDA graph takes it only if it is said to be capturable.
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(network.parameters(), lr, betas, fused=True, capturable=device.type == "cuda")


def _gradient_norm(network: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def _is_finite(row: Measurement) -> bool:
    values = (row.loss_d, row.loss_g, row.grad_norm_d, row.grad_norm_g)
    return all(abs(value) < float("inf") for value in values)
