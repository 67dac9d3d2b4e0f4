"""A RunConfig and its images in, a trained generator with its history and step times out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from gan_ablate.data import BatchStream
from gan_ablate.losses import discriminator_loss, generator_loss
from gan_ablate.models import build_discriminator, build_generator
from gan_ablate.seeding import stream_seed
from gan_ablate.throughput import StepTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gan_ablate.config import RunConfig

MEASURE_EVERY = 10
"""Steps between two rows of the history: often enough to draw curves, rarely enough to cost nothing."""


class StepTerms(NamedTuple):
    """What one G step leaves behind, on the device: () losses and (B,) logits, all detached.

    ``logits_fake_before`` are D's logits of its own fakes, before it learns from them, ``logits_fake_after`` those that
    G learns from, after D's update: the D(G(z)) before / after of the DCGAN literature.
    """

    loss_d: Tensor
    loss_g: Tensor
    logits_real: Tensor
    logits_fake_before: Tensor
    logits_fake_after: Tensor


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
        diverged_at: the step at which a loss, gradient, weight or pixel was found not to be finite, or None.
        timer: the times of all steps.
    """

    generator: nn.Module
    discriminator: nn.Module
    history: list[Measurement]
    diverged_at: int | None
    timer: StepTimer


class Trainer:
    """The adversarial step and all state that it changes.

    Args:
        config: the run.
        images: (N, C, S, S) uint8 training images, on the device that trains.
    """

    def __init__(self, config: RunConfig, images: Tensor) -> None:
        self._config = config
        self._device = images.device
        self._batches = BatchStream(images, config.batch_size, config.seed)
        self._latents, self._fresh_latents = (
            torch.Generator(self._device).manual_seed(stream_seed(config.seed, f"latent/{network}"))
            for network in ("discriminator", "generator")
        )
        # Dropout is the one thing in training that draws from PyTorch's global stream.
        torch.manual_seed(stream_seed(config.seed, "dropout"))
        self.generator = build_generator(config).to(memory_format=torch.channels_last).to(self._device)
        self.discriminator = build_discriminator(config).to(memory_format=torch.channels_last).to(self._device)
        betas = (config.beta1, config.beta2)
        self._optimizer_g = torch.optim.Adam(self.generator.parameters(), config.lr_g, betas, fused=True)
        self._optimizer_d = torch.optim.Adam(self.discriminator.parameters(), config.lr_d, betas, fused=True)

    def step(self) -> StepTerms:
        """Take one G step, after the D steps that go with it (arXiv:1406.2661, algorithm 1)."""
        for _ in range(self._config.d_steps_per_g_step):
            x_real = self._batches.next()
            x_fake = self.generator(self._sample_latents(self._latents))
            logits_real = self.discriminator(x_real)
            logits_fake_before = self.discriminator(x_fake.detach())
            loss_d = discriminator_loss(self._config.loss, logits_real, logits_fake_before)
            self._optimizer_d.zero_grad()
            loss_d.backward()
            self._optimizer_d.step()

        if self._config.generator_fakes == "fresh":
            x_fake = self.generator(self._sample_latents(self._fresh_latents))
        self.discriminator.requires_grad_(False)  # G's step needs no gradient of D's weights
        logits_fake_after = self.discriminator(x_fake)
        loss_g = generator_loss(self._config.loss, logits_fake_after)
        self._optimizer_g.zero_grad()
        loss_g.backward()
        self._optimizer_g.step()
        self.discriminator.requires_grad_(True)
        return StepTerms(*(t.detach() for t in (loss_d, loss_g, logits_real, logits_fake_before, logits_fake_after)))

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

    def _sample_latents(self, stream: torch.Generator) -> Tensor:
        shape = (self._config.batch_size, self._config.latent_dim)
        return torch.randn(shape, generator=stream, device=self._device)


def train(
    config: RunConfig,
    images: Tensor,
    on_measurement: Callable[[Measurement], None],
    on_snapshot: Callable[[int, nn.Module, StepTimer], bool],
) -> TrainResult:
    """Train one run from its beginning to its end, or to the step at which it diverges.

    Args:
        config: the run.
        images: (N, C, S, S) uint8 training images, on the device that trains.
        on_measurement: called with every row of the history.
        on_snapshot: called with the step, the generator and the timer, before the first step and then
            ``curve_points`` times, evenly spread, the last time at the end. It leaves the generator as it was, and
            returns whether what it drew was finite.
    """
    trainer = Trainer(config, images)
    timer = StepTimer(images.device)
    history: list[Measurement] = []
    points = config.scoring.curve_points
    snapshots = {round(config.steps * point / points) for point in range(1, points + 1)}
    with timer.paused():
        is_finite = on_snapshot(0, trainer.generator, timer)
    step = 0
    while is_finite and step < config.steps:
        step += 1
        with timer:
            terms = trainer.step()
        if step % MEASURE_EVERY == 0 or step == config.steps:
            history.append(trainer.measure(step, terms))
            on_measurement(history[-1])
            is_finite = _is_finite(history[-1])
        if step in snapshots:
            with timer.paused():
                is_finite = is_finite and trainer.is_finite() and on_snapshot(step, trainer.generator, timer)
    diverged_at = None if is_finite else step
    return TrainResult(trainer.generator, trainer.discriminator, history, diverged_at, timer)


def _gradient_norm(network: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def _is_finite(row: Measurement) -> bool:
    values = (row.loss_d, row.loss_g, row.grad_norm_d, row.grad_norm_g)
    return all(abs(value) < float("inf") for value in values)
