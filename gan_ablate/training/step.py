"""One G step with its D steps, the mathematics of training: whose networks, images and latents, a subclass says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, NamedTuple, assert_never

import torch

from gan_ablate.training.data import take_batch
from gan_ablate.training.precision import computing_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from gan_ablate.design.config import RunConfig

Network = Literal["discriminator", "generator"]


class StepTerms(NamedTuple):
    """What one G step leaves behind, on the device: () losses and (B,) logits, all detached; of packed runs, R of each.

    ``logits_fake_before`` are D's logits of its own fakes, before it learns from them, ``logits_fake_after`` those that
    G learns from, after D's update: the D(G(z)) before / after of the DCGAN literature. Where G is updated first, it
    learns from the D of the step before.
    """

    loss_d: Tensor
    loss_g: Tensor
    logits_real: Tensor
    logits_fake_before: Tensor
    logits_fake_after: Tensor


class AdversarialStep(ABC):
    """One G step with its D steps, whatever the networks are: one run's, or those of many runs at once.

    Attributes:
        config: the run, or one of the runs, for all that they share.
        images: (N, C, S, S) uint8 training images, on the device that trains.
        generator: latents in, images out.
        discriminator: images in, logits out.
        optimizer_g: of the generator's parameters.
        optimizer_d: of the discriminator's parameters.
    """

    config: RunConfig
    images: Tensor
    generator: nn.Module
    discriminator: nn.Module
    optimizer_g: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer

    @abstractmethod
    def draw_latents(self, network: Network) -> Tensor:
        """Draw the next latents of the fakes that a network learns from."""

    @abstractmethod
    def random_streams(self) -> list[torch.Generator]:
        """Return what latents are drawn from."""

    @abstractmethod
    def next_indices(self) -> Tensor:
        """Return which images make the next batch of real ones."""

    @abstractmethod
    def discriminator_loss(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """Return D's loss, one number a run."""

    @abstractmethod
    def generator_loss(self, logits_fake: Tensor) -> Tensor:
        """Return G's loss, one number a run."""

    def step(self) -> StepTerms:
        """Take one G step and the D steps that go with it, on the next real images."""
        return self.step_on(self.next_batches())

    def next_batches(self) -> list[Tensor]:
        """Return which images make the next batch of every D step of a G step."""
        return [self.next_indices() for _ in range(self.config.d_steps_per_g_step)]

    def step_on(self, batches: Sequence[Tensor]) -> StepTerms:
        """Take one G step and a D step on each batch of real images (arXiv:1406.2661, algorithm 1).

        All of it happens on the device, so that a CUDA graph can hold it.
        """
        is_reused = self.config.generator_fakes == "reused"
        match self.config.update_order:
            case "discriminator_first":
                for number, indices in enumerate(batches, 1):
                    x_fake = self._generate("discriminator", for_generator=is_reused and number == len(batches))
                    loss_d, logits_real, logits_fake_before = self._step_discriminator(indices, x_fake)
                if not is_reused:
                    x_fake = self._generate("generator", for_generator=True)
                loss_g, logits_fake_after = self._step_generator(x_fake)
            case "generator_first":
                x_fake = self._generate("discriminator" if is_reused else "generator", for_generator=True)
                loss_g, logits_fake_after = self._step_generator(x_fake)
                for number, indices in enumerate(batches, 1):
                    if number > 1 or not is_reused:
                        x_fake = self._generate("discriminator", for_generator=False)
                    loss_d, logits_real, logits_fake_before = self._step_discriminator(indices, x_fake)
            case _:
                assert_never(self.config.update_order)
        return StepTerms(*(t.detach() for t in (loss_d, loss_g, logits_real, logits_fake_before, logits_fake_after)))

    def _generate(self, network: Network, *, for_generator: bool) -> Tensor:
        """Draw a batch of fakes; those that only D sees keep nothing for a backward pass."""
        z = self.draw_latents(network)
        with torch.set_grad_enabled(for_generator), self._in_precision(z):
            x_fake: Tensor = self.generator(z)
        return x_fake

    def _step_discriminator(self, indices: Tensor, x_fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_real = take_batch(self.images, indices)
        with self._in_precision(x_real):
            logits_real = self.discriminator(x_real).to(x_real.dtype)
            logits_fake = self.discriminator(x_fake.detach()).to(x_real.dtype)
        loss = self.discriminator_loss(logits_real, logits_fake)
        self.optimizer_d.zero_grad()
        loss.sum().backward()
        self.optimizer_d.step()
        return loss, logits_real, logits_fake

    def _step_generator(self, x_fake: Tensor) -> tuple[Tensor, Tensor]:
        # D's weights take no part in G's update: without their gradients the gradient of the images is the same.
        self.discriminator.requires_grad_(False)
        with self._in_precision(x_fake):
            logits_fake = self.discriminator(x_fake).to(torch.get_default_dtype())
        loss = self.generator_loss(logits_fake)
        self.optimizer_g.zero_grad()
        loss.sum().backward()
        self.optimizer_g.step()
        self.discriminator.requires_grad_(True)
        return loss, logits_fake

    def _in_precision(self, x: Tensor) -> AbstractContextManager[None]:
        return computing_in(self.config.precision, x.device.type)
