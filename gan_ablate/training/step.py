"""The adversarial step: one update of G with the updates of D that go with it, and what these updates sample."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal, NamedTuple, assert_never

import torch

from gan_ablate.design.gan import NoPenalty
from gan_ablate.seeding import stream_seed
from gan_ablate.training.data import BatchOrder, ask_for, classes_in, one_hot, sample_latents, select_logits, take_batch
from gan_ablate.training.images import augment
from gan_ablate.training.losses import (
    Judged,
    discriminator_loss,
    discriminator_penalty,
    generator_loss,
    images_differentiated_by,
    mode_seeking_term,
    penalty_interval,
)
from gan_ablate.training.models import build_discriminator, build_generator
from gan_ablate.training.runtime import computing_in, rounding_to, seed_streams
from gan_ablate.training.updates import (
    build_optimizer,
    clip_gradients,
    clip_weights,
    has_schedule,
    move_average,
    rate_factor,
    set_rate,
)
from gan_ablate.training.user_code import keep_user_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gan_ablate.design.config import RunConfig

Network = Literal["discriminator", "generator"]

CLASS_STREAMS = ("classes/discriminator", "classes/generator", "classes/mismatched")
"""Random streams of the classes of fakes, and of the wrong classes that D learns to reject."""


class DiscriminatorTerms(NamedTuple):
    """The results of a D step, detached and on the device: its () loss and the (B,) logits of real and fake images."""

    loss: Tensor
    logits_real: Tensor
    logits_fake: Tensor


class GeneratorTerms(NamedTuple):
    """The results of a G step, detached and on the device: its () loss and the (B,) logits of its images."""

    loss: Tensor
    logits_fake: Tensor


class StepTerms(NamedTuple):
    """The results of one G step with its D steps, detached and on the device: () losses and (B,) logits.

    Losses are the adversarial ones, without penalties. ``logits_fake_before`` are D's logits of its own fakes, before
    it learns from them. ``logits_fake_after`` are the logits that G learns from, after D's update. They are the D(G(z))
    before and after of the DCGAN literature. Where G is updated first, it learns from the D of the step before. Where a
    G step has no D step, D's terms are those of its last one.
    """

    loss_d: Tensor
    loss_g: Tensor
    logits_real: Tensor
    logits_fake_before: Tensor
    logits_fake_after: Tensor


class Fakes(NamedTuple):
    """Generated images, (B, C, S, S), and the latents that they were made from, (B, num_inputs_g)."""

    images: Tensor
    latents: Tensor


class RealBatch(NamedTuple):
    """The real images of a D step: their (B,) int64 indices, and whether D's loss has its penalty."""

    indices: Tensor
    has_penalty: bool


class StepInputs:
    """The inputs of a run's steps: real images in order, and all that is sampled, each from a stream of its own.

    Args:
        config: the run.
        images: (N, C, S, S) uint8 training images, on the device that trains.
        labels: (N,) int64 classes of the images, on the same device; only conditional runs need them.

    Attributes:
        order: the order in which real images come.
        streams: purpose → random stream on the device; dropout samples from PyTorch's global stream.
    """

    def __init__(self, config: RunConfig, images: Tensor, labels: Tensor | None = None) -> None:
        self.config, self.images = config, images
        self._labels = labels if config.conditional else None
        self.order = BatchOrder(images, config.batch_size, config.seed)
        self.streams = {
            purpose: torch.Generator(images.device).manual_seed(stream_seed(config.seed, purpose))
            for purpose in ("latent/discriminator", "latent/generator", "penalty", *CLASS_STREAMS, *config.augmentation)
        }

    def next_indices(self) -> Tensor:
        """Return which images make the next batch of real ones: (B,) int64."""
        return self.order.next()

    def classes_of(self, indices: Tensor) -> Tensor | None:
        """Return the one-hot classes of real images, (B, num_classes), where the run is conditional."""
        return None if self._labels is None else one_hot(self.config, self._labels[indices])

    def sample_latents(self, network: Network) -> Tensor:
        """Sample the next (B, num_inputs_g) latents of the fakes that a network learns from.

        Where the run is conditional, their classes are as frequent as those of the training images.
        """
        z = sample_latents(self.config, self.config.batch_size, self.streams[f"latent/{network}"])
        if self._labels is None:
            return z
        stream = self.streams[f"classes/{network}"]  # a separate one: the latents are those of a run without classes
        sampled = torch.randint(len(self._labels), (len(z),), generator=stream, device=z.device)
        return ask_for(self.config, z, self._labels[sampled])

    def sample_other_classes(self, classes: Tensor) -> Tensor:
        """Sample for each of (B, num_classes) one-hot classes another one, all others equally often."""
        num, stream = classes.shape[1], self.streams["classes/mismatched"]
        ahead = torch.randint(1, num, (len(classes),), generator=stream, device=classes.device)
        return one_hot(self.config, (classes.argmax(1) + ahead) % num)

    def sample_epsilon(self, x: Tensor) -> Tensor:
        """Sample the points between real and fake images for a gradient penalty: (B, 1, 1, 1) in [0, 1]."""
        return torch.rand((len(x), 1, 1, 1), generator=self.streams["penalty"], device=x.device)

    def augment(self, x: Tensor) -> Tensor:
        """Return images, (B, C, S, S), as D sees them."""
        for kind in self.config.augmentation:
            x = augment(x, (kind,), self.streams[kind])
        return x


class AdversarialStep(StepInputs):
    """A run's networks and optimisers, and the step that updates them.

    Weights, losses and updates are of PyTorch's default dtype, float32.

    Args:
        config: the run.
        images: (N, C, S, S) uint8 training images, on the device that trains.
        labels: (N,) int64 classes of the images, on the same device; only conditional runs need them.

    Attributes:
        num_steps: G steps taken so far.
        last_d: the terms of the last D step; None before the first one.
        average: G with the moving average of its weights, where the run keeps one.
        average_weight: () what tells how far that average has come; see ``updates.move_average``.
        norms: network → () the norm of its last gradient before clipping, where that is clipped.
        user_modules: the loss and the penalty, where they are user code and modules.
    """

    def __init__(self, config: RunConfig, images: Tensor, labels: Tensor | None = None) -> None:
        super().__init__(config, images, labels)
        self.num_steps = 0
        self.last_d: DiscriminatorTerms | None = None
        self.generator = build_generator(config).to(memory_format=torch.channels_last).to(images.device)
        self.discriminator = build_discriminator(config).to(memory_format=torch.channels_last).to(images.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False) if config.ema_decay else None
        self.average_weight = torch.zeros((), device=images.device)
        self.user_modules = _start_global_streams(config, images.device)
        self.optimizer_g = build_optimizer(self.generator, config.optimizer_g, config.lr_g, config, images.device)
        self.optimizer_d = build_optimizer(self.discriminator, config.optimizer_d, config.lr_d, config, images.device)
        self.norms: dict[Network, Tensor] = {}
        if config.clip_grad_norm_g:
            self.norms["generator"] = torch.zeros((), device=images.device)
        if config.clip_grad_norm_d:
            self.norms["discriminator"] = torch.zeros((), device=images.device)

    def step(self) -> StepTerms:
        """Take one G step and the D steps that go with it, on the next real images."""
        return self.join_terms(*self.step_on(self.next_batches()))

    def next_batches(self) -> list[RealBatch]:
        """Return the real images of each D step that goes with the next G step, none where D rests; set the rates."""
        number, self.num_steps = self.num_steps, self.num_steps + 1
        if has_schedule(self.config):
            factor = rate_factor(self.config, number)
            set_rate(self.optimizer_g, factor * self.config.lr_g)
            set_rate(self.optimizer_d, factor * self.config.lr_d)
        if number % self.config.g_steps_per_d_step:
            return []
        num = self.config.d_steps_per_g_step
        first = number // self.config.g_steps_per_d_step * num
        every = penalty_interval(self.config.penalty)
        return [RealBatch(self.next_indices(), (first + i) % every == 0) for i in range(num)]

    def step_on(self, batches: Sequence[RealBatch]) -> tuple[DiscriminatorTerms | None, GeneratorTerms]:
        """Take one G step and a D step on each batch of real images (arXiv:1406.2661, algorithm 1).

        All of it happens on the device, so that a CUDA graph can hold it.
        """
        with rounding_to(self.config.precision):
            return self._step_on(batches)

    def _step_on(self, batches: Sequence[RealBatch]) -> tuple[DiscriminatorTerms | None, GeneratorTerms]:
        is_reused = self.config.generator_fakes == "reused"
        terms_d: DiscriminatorTerms | None = None
        match self.config.update_order:
            case "discriminator_first":
                fakes: Fakes | None = None
                for number, batch in enumerate(batches, 1):
                    fakes = self._generate("discriminator", for_generator=is_reused and number == len(batches))
                    terms_d = self._step_discriminator(batch, fakes)
                if fakes is None or not is_reused:
                    fakes = self._generate("generator", for_generator=True)
                terms_g = self._step_generator(fakes, batches[-1].indices if batches else None)
            case "generator_first":
                fakes = self._generate("discriminator" if is_reused else "generator", for_generator=True)
                terms_g = self._step_generator(fakes, batches[0].indices if batches else None)
                for number, batch in enumerate(batches, 1):
                    if number > 1 or not is_reused:
                        fakes = self._generate("discriminator", for_generator=False)
                    terms_d = self._step_discriminator(batch, fakes)
            case _:
                assert_never(self.config.update_order)
        return terms_d, terms_g

    def join_terms(self, terms_d: DiscriminatorTerms | None, terms_g: GeneratorTerms) -> StepTerms:
        """Put D's terms, or its last ones where it rested, beside G's."""
        self.last_d = last = terms_d or self.last_d
        assert last is not None
        return StepTerms(last.loss, terms_g.loss, last.logits_real, last.logits_fake, terms_g.logits_fake)

    def _step_discriminator(self, batch: RealBatch, fakes: Fakes) -> DiscriminatorTerms:
        """Update D on a batch of real images and one of fakes."""
        is_accumulated = self.config.generator_gradient == "accumulated"
        penalty = self.config.penalty if batch.has_penalty else NoPenalty(kind="none")
        x_real = take_batch(self.images, batch.indices)
        x_fake = fakes.images if is_accumulated else fakes.images.detach()
        classes_real, classes_fake = self.classes_of(batch.indices), classes_in(self.config, fakes.latents)
        for x in images_differentiated_by(penalty, x_real, x_fake):
            x.requires_grad_()
        outputs_real, logits_fake = self._look_at(x_real), self._judge(x_fake, classes_fake)
        logits_real, logits_rejected = select_logits(outputs_real, classes_real), logits_fake
        if classes_real is not None and self.config.matching_aware:
            # arXiv:1605.05396, algorithm 1, line 10: fakes and mismatched pairs count half each.
            mismatched = select_logits(outputs_real, self.sample_other_classes(classes_real))
            logits_rejected = torch.cat((logits_fake, mismatched))
        loss = discriminator_loss(self.config.loss, logits_real, logits_rejected)
        real, fake = Judged(x_real, logits_real), Judged(x_fake, logits_fake)
        total = loss + penalty_interval(penalty) * discriminator_penalty(
            penalty, lambda x: self._judge(x, classes_real), real, fake, self.sample_epsilon
        )
        self.optimizer_d.zero_grad()
        if is_accumulated:
            self.optimizer_g.zero_grad()
        total.backward(retain_graph=is_accumulated)  # G's step goes through the same fakes once more
        if self.config.clip_grad_norm_d:
            clip_gradients(self.discriminator, self.config.clip_grad_norm_d, self.norms["discriminator"])
        self.optimizer_d.step()
        clip_weights(self.discriminator, self.config.loss)
        return DiscriminatorTerms(loss.detach(), logits_real.detach(), logits_fake.detach())

    def _step_generator(self, fakes: Fakes, indices: Tensor | None) -> GeneratorTerms:
        """Update G through D's logits of its fakes; ``indices`` name real images for a loss that compares the two."""
        # D's weights take no part in G's update: without their gradients the gradient of the images is the same.
        self.discriminator.requires_grad_(False)
        logits_real = None
        if self.config.loss.kind == "relativistic":
            assert indices is not None
            with torch.no_grad():
                logits_real = self._judge(take_batch(self.images, indices), self.classes_of(indices))
        logits_fake = self._judge(fakes.images, classes_in(self.config, fakes.latents))
        loss = total = generator_loss(self.config.loss, logits_fake, logits_real)
        if self.config.mode_seeking_weight:
            z = fakes.latents[:, : self.config.latent_dim]
            total = total + self.config.mode_seeking_weight * mode_seeking_term(fakes.images, z)
        if self.config.generator_gradient == "own":
            self.optimizer_g.zero_grad()
        total.backward()
        if self.config.clip_grad_norm_g:
            clip_gradients(self.generator, self.config.clip_grad_norm_g, self.norms["generator"])
        self.optimizer_g.step()
        self.discriminator.requires_grad_(True)
        if self.average is not None:
            move_average(self.average, self.generator, self.config, self.average_weight)
        return GeneratorTerms(loss.detach(), logits_fake.detach())

    def _generate(self, network: Network, *, for_generator: bool) -> Fakes:
        """Generate a batch of fakes; those that only D sees keep nothing for a backward pass."""
        z = self.sample_latents(network)
        with torch.set_grad_enabled(for_generator), computing_in(self.config.precision, z.device.type):
            # A penalty or an augmentation that follows meets fakes in the precision of real images.
            return Fakes(self.generator(z).to(torch.get_default_dtype()), z)

    def _look_at(self, x: Tensor) -> Tensor:
        """Return D's outputs of images, (B,) or (B, 1 + num_classes), in the precision of weights."""
        with computing_in(self.config.precision, x.device.type):
            outputs: Tensor = self.discriminator(self.augment(x))
        return outputs.to(torch.get_default_dtype())

    def _judge(self, x: Tensor, classes: Tensor | None) -> Tensor:
        """Return D's (B,) logits of images for their one-hot classes, (B, num_classes)."""
        return select_logits(self._look_at(x), classes)


def _start_global_streams(config: RunConfig, device: torch.device) -> list[nn.Module]:
    """Seed the global streams of training, and make the loss and the penalty that are user code.

    Dropout is the one thing in training that samples from PyTorch's global stream. Seeded after the networks are built,
    as their constructors sample from it too: variants with other layers meet the same masks.

    Returns:
        The user code's modules.
    """
    torch.manual_seed(stream_seed(config.seed, "dropout"))
    if not config.user_parts:
        return []
    modules = keep_user_parts(config.user_parts, config.seed, device)
    seed_streams(stream_seed(config.seed, "dropout"))
    return modules
