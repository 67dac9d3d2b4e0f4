"""One G step with its D steps, the mathematics of training: whose networks, images and latents, a subclass says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, NamedTuple, assert_never

import torch

from gan_ablate.training.data import take_batch
from gan_ablate.training.latents import classes_in
from gan_ablate.training.losses import mode_seeking_term
from gan_ablate.training.penalties import Judged, discriminator_penalty
from gan_ablate.training.precision import computing_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from gan_ablate.design.config import RunConfig

Network = Literal["discriminator", "generator"]


class DiscriminatorTerms(NamedTuple):
    """What a D step leaves behind, on the device: its loss and the (B,) logits of real and fake images, detached."""

    loss: Tensor
    logits_real: Tensor
    logits_fake: Tensor


class GeneratorTerms(NamedTuple):
    """What a G step leaves behind, on the device: its loss and the (B,) logits of its images, detached."""

    loss: Tensor
    logits_fake: Tensor


class StepTerms(NamedTuple):
    """What one G step leaves behind, on the device: () losses and (B,) logits, all detached; of packed runs, R of each.

    Losses are the adversarial ones, without penalties. ``logits_fake_before`` are D's logits of its own fakes, before
    it learns from them, ``logits_fake_after`` those that G learns from, after D's update: the D(G(z)) before / after of
    the DCGAN literature. Where G is updated first, it learns from the D of the step before. Where a G step has no D
    step, D's are those of its last one.
    """

    loss_d: Tensor
    loss_g: Tensor
    logits_real: Tensor
    logits_fake_before: Tensor
    logits_fake_after: Tensor


class Fakes(NamedTuple):
    """Generated images and what they were drawn from: (B, C, S, S) and (B, num_inputs_g)."""

    images: Tensor
    latents: Tensor


class Ingredients(ABC):
    """What a step is made of, whatever the networks are: one run's, or those of many runs at once.

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
        """Draw the next latents of the fakes that a network learns from, with their classes if they have any."""

    @abstractmethod
    def random_streams(self) -> list[torch.Generator]:
        """Return all that a step draws from on the device."""

    @abstractmethod
    def next_indices(self) -> Tensor:
        """Return which images make the next batch of real ones."""

    @abstractmethod
    def discriminator_loss(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """Return D's loss, one number a run."""

    @abstractmethod
    def generator_loss(self, logits_fake: Tensor, logits_real: Tensor | None) -> Tensor:
        """Return G's loss, one number a run; real images' logits are there for a loss that compares the two."""

    @abstractmethod
    def classes_of(self, indices: Tensor) -> Tensor | None:
        """Return the one-hot classes of real images, (B, num_classes), where the run is conditional."""

    @abstractmethod
    def draw_other_classes(self, classes: Tensor) -> Tensor:
        """Draw for each of (B, num_classes) one-hot classes another one."""

    @abstractmethod
    def augment(self, x: Tensor) -> Tensor:
        """Return images as D is to see them."""

    @abstractmethod
    def draw_epsilon(self, x: Tensor) -> Tensor:
        """Draw where between a real and a fake image a gradient penalty looks: (B, 1, 1, 1) in [0, 1]."""

    @abstractmethod
    def after_generator_step(self) -> None:
        """Follow G's weights, where a run keeps their average."""


class AdversarialStep(Ingredients):
    """One G step with its D steps.

    Attributes:
        num_steps: G steps taken so far.
        last_d: what the last D step left behind, once there was one.
    """

    num_steps: int = 0
    last_d: DiscriminatorTerms | None = None

    def step(self) -> StepTerms:
        """Take one G step and the D steps that go with it, on the next real images."""
        return self.join_terms(*self.step_on(self.next_batches()))

    def next_batches(self) -> list[Tensor]:
        """Return which images make the next batch of every D step of a G step; none where D rests."""
        number, self.num_steps = self.num_steps, self.num_steps + 1
        if number % self.config.g_steps_per_d_step:
            return []
        return [self.next_indices() for _ in range(self.config.d_steps_per_g_step)]

    def step_on(self, batches: Sequence[Tensor]) -> tuple[DiscriminatorTerms | None, GeneratorTerms]:
        """Take one G step and a D step on each batch of real images (arXiv:1406.2661, algorithm 1).

        All of it happens on the device, so that a CUDA graph can hold it.
        """
        is_reused = self.config.generator_fakes == "reused"
        terms_d: DiscriminatorTerms | None = None
        match self.config.update_order:
            case "discriminator_first":
                fakes: Fakes | None = None
                for number, indices in enumerate(batches, 1):
                    fakes = self._generate("discriminator", for_generator=is_reused and number == len(batches))
                    terms_d = self._step_discriminator(indices, fakes)
                if fakes is None or not is_reused:
                    fakes = self._generate("generator", for_generator=True)
                terms_g = self._step_generator(fakes, batches[-1] if batches else None)
            case "generator_first":
                fakes = self._generate("discriminator" if is_reused else "generator", for_generator=True)
                terms_g = self._step_generator(fakes, batches[0] if batches else None)
                for number, indices in enumerate(batches, 1):
                    if number > 1 or not is_reused:
                        fakes = self._generate("discriminator", for_generator=False)
                    terms_d = self._step_discriminator(indices, fakes)
            case _:
                assert_never(self.config.update_order)
        return terms_d, terms_g

    def join_terms(self, terms_d: DiscriminatorTerms | None, terms_g: GeneratorTerms) -> StepTerms:
        """Put D's terms, or its last ones where it rested, beside G's."""
        self.last_d = last = terms_d or self.last_d
        assert last is not None
        return StepTerms(last.loss, terms_g.loss, last.logits_real, last.logits_fake, terms_g.logits_fake)

    def _generate(self, network: Network, *, for_generator: bool) -> Fakes:
        """Draw a batch of fakes; those that only D sees keep nothing for a backward pass."""
        z = self.draw_latents(network)
        with torch.set_grad_enabled(for_generator), self._in_precision(z):
            # Whatever follows, a penalty or an augmentation, meets fakes in the precision of real images.
            return Fakes(self.generator(z).to(torch.get_default_dtype()), z)

    def _look_at(self, x: Tensor) -> Tensor:
        """Return D's outputs of images, (B,) or (B, 1 + num_classes), in the precision of weights."""
        with self._in_precision(x):
            outputs: Tensor = self.discriminator(self.augment(x))
        return outputs.to(torch.get_default_dtype())

    def _judge(self, x: Tensor, classes: Tensor | None) -> Tensor:
        """Return D's (B,) logits of images, of the classes they are said to be of."""
        return select_logits(self._look_at(x), classes)

    def _step_discriminator(self, indices: Tensor, fakes: Fakes) -> DiscriminatorTerms:
        is_accumulated = self.config.generator_gradient == "accumulated"
        x_real = take_batch(self.images, indices)
        x_fake = fakes.images if is_accumulated else fakes.images.detach()
        classes_real, classes_fake = self.classes_of(indices), classes_in(self.config, fakes.latents)
        penalty = self.config.penalty
        if penalty.kind in ("r1", "r1_r2"):
            x_real.requires_grad_()
        if penalty.kind == "r1_r2":
            x_fake.requires_grad_()
        outputs_real, logits_fake = self._look_at(x_real), self._judge(x_fake, classes_fake)
        logits_real, logits_rejected = select_logits(outputs_real, classes_real), logits_fake
        if classes_real is not None and self.config.matching_aware:
            # arXiv:1605.05396, algorithm 1, line 10: fakes and mismatched pairs count half each.
            mismatched = select_logits(outputs_real, self.draw_other_classes(classes_real))
            logits_rejected = torch.cat((logits_fake, mismatched))
        loss = self.discriminator_loss(logits_real, logits_rejected)
        total = loss.sum() + discriminator_penalty(
            penalty,
            lambda x: self._judge(x, classes_real),
            Judged(x_real, logits_real),
            Judged(x_fake, logits_fake),
            self.draw_epsilon,
        )
        self.optimizer_d.zero_grad()
        if is_accumulated:
            self.optimizer_g.zero_grad()
        total.backward(retain_graph=is_accumulated)  # G's step goes through the same fakes once more
        self.optimizer_d.step()
        if self.config.loss.kind == "wasserstein" and self.config.loss.weight_clip is not None:
            _clip_weights(self.discriminator, self.config.loss.weight_clip)
        return DiscriminatorTerms(loss.detach(), logits_real.detach(), logits_fake.detach())

    def _step_generator(self, fakes: Fakes, indices: Tensor | None) -> GeneratorTerms:
        # D's weights take no part in G's update: without their gradients the gradient of the images is the same.
        self.discriminator.requires_grad_(False)
        logits_real = None
        if self.config.loss.kind == "relativistic":
            assert indices is not None
            with torch.no_grad():
                logits_real = self._judge(take_batch(self.images, indices), self.classes_of(indices))
        logits_fake = self._judge(fakes.images, classes_in(self.config, fakes.latents))
        loss = self.generator_loss(logits_fake, logits_real)
        total = loss.sum()
        if self.config.mode_seeking_weight:
            z = fakes.latents[:, : self.config.latent_dim]
            total = total + self.config.mode_seeking_weight * mode_seeking_term(fakes.images, z)
        if self.config.generator_gradient == "own":
            self.optimizer_g.zero_grad()
        total.backward()
        self.optimizer_g.step()
        self.discriminator.requires_grad_(True)
        self.after_generator_step()
        return GeneratorTerms(loss.detach(), logits_fake.detach())

    def _in_precision(self, x: Tensor) -> AbstractContextManager[None]:
        return computing_in(self.config.precision, x.device.type)


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


@torch.no_grad()
def _clip_weights(network: nn.Module, bound: float) -> None:
    """Keep every weight in ±``bound`` (arXiv:1701.07875, algorithm 1, line 7)."""
    for parameter in network.parameters():
        parameter.clamp_(-bound, bound)
