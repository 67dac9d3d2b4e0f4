"""Runs that differ in seed and scalar settings in, one program that trains them all out.

A small network keeps a GPU waiting for its next kernel. Here the layers' kernels serve all runs: weights have one more
dimension, the run's, and networks are mapped over it. Each run has its own batches, latents, labels and learning rate.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gan_ablate.training.step import AdversarialStep, Network
from gan_ablate.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gan_ablate.design.config import RunConfig

ADAM_EPS = 1e-8
"""As in ``torch.optim.Adam``."""


class PackedTrainer(AdversarialStep):
    """R runs as one: every tensor of a step has R as its first dimension, and each run's part is its lone run's.

    That holds to rounding: mapped layers may add up in another order.

    Args:
        configs: the runs; ``find_obstacle`` says which do not go together.
        images: (N, C, S, S) uint8 training images, on the device that trains.

    Raises:
        ValueError: if they do not go together.
    """

    def __init__(self, configs: Sequence[RunConfig], images: Tensor) -> None:
        obstacle = find_obstacle(configs)
        if obstacle:
            raise ValueError(obstacle)
        self.config = configs[0]
        self.images = images
        self._runs = [Trainer(config, images) for config in configs]
        self.generator: PackedNetwork = PackedNetwork([run.generator for run in self._runs])
        self.discriminator: PackedNetwork = PackedNetwork([run.discriminator for run in self._runs])
        betas = ([config.beta1 for config in configs], [config.beta2 for config in configs])
        self.optimizer_g = PackedAdam(self.generator.parameters(), [config.lr_g for config in configs], *betas)
        self.optimizer_d = PackedAdam(self.discriminator.parameters(), [config.lr_d for config in configs], *betas)

    def draw_latents(self, network: Network) -> Tensor:
        """Draw the next latents of every run: (R, B, latent_dim)."""
        return torch.stack([run.draw_latents(network) for run in self._runs])

    def random_streams(self) -> list[torch.Generator]:
        """Return what the latents of all runs are drawn from."""
        return [stream for run in self._runs for stream in run.random_streams()]

    def next_indices(self) -> Tensor:
        """Return which images make the next batch of real ones of every run: (R, B)."""
        return torch.stack([run.next_indices() for run in self._runs])

    def discriminator_loss(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """Return every run's loss of D, from (R, B) logits: (R,)."""
        pairs = zip(self._runs, logits_real, logits_fake, strict=True)
        return torch.stack([run.discriminator_loss(real, fake) for run, real, fake in pairs])

    def generator_loss(self, logits_fake: Tensor, logits_real: Tensor | None) -> Tensor:
        """Return every run's loss of G, from (R, B) logits: (R,)."""
        reals = [None] * len(self._runs) if logits_real is None else list(logits_real)
        triples = zip(self._runs, logits_fake, reals, strict=True)
        return torch.stack([run.generator_loss(fake, real) for run, fake, real in triples])

    def classes_of(self, indices: Tensor) -> Tensor | None:  # noqa: ARG002 (``find_obstacle`` refuses what needs it)
        """Return None: no run in a pack has classes."""
        return None

    def draw_other_classes(self, classes: Tensor) -> Tensor:
        """Return ``classes``: no run in a pack has any."""
        return classes

    def augment(self, x: Tensor) -> Tensor:
        """Return ``x``: no run in a pack is augmented."""
        return x

    def draw_epsilon(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """Refuse: no run in a pack has a penalty."""
        raise ValueError("a gradient penalty differentiates one run's D, not a pack of them")

    def after_generator_step(self) -> None:
        """Do nothing: a pack keeps no average."""

    def unpack(self) -> list[Trainer]:
        """Return a trainer for each run, with its networks as they are now; optimisers are not carried over."""
        for index, run in enumerate(self._runs):
            for packed, lone in ((self.generator, run.generator), (self.discriminator, run.discriminator)):
                lone.load_state_dict({name: tensor[index] for name, tensor in packed.stacked().items()})
        return self._runs


_NOT_MAPPED = "nobody knows whether code of one's own can be mapped over runs"


def find_obstacle(configs: Sequence[RunConfig]) -> str | None:
    """Say why runs cannot be packed together, or None where they can."""
    scalars: dict[str, Any] = {"seed": 0, "lr_g": 1.0, "lr_d": 1.0, "beta1": 0.0, "beta2": 0.0}
    if len({config.loss.kind for config in configs}) > 1:
        return "runs in one pack have one kind of loss"
    alike = {config.model_copy(update={**scalars, "loss": configs[0].loss}).model_dump_json() for config in configs}
    for has_it, reason in (
        (len(alike) > 1, "runs in one pack may differ in seed, learning rates, Adam's β and the loss only"),
        (configs[0].precision != "fp32", "mapped layers do not round as autocast does; valid: precision fp32"),
        (configs[0].penalty.kind != "none", "a gradient penalty differentiates one run's D, not a pack of them"),
        (configs[0].augmentation, "augmentation draws from one stream, which runs in one pack cannot share"),
        (configs[0].mode_seeking_weight, "the mode-seeking term compares images within a run, not within a pack"),
        (configs[0].conditional, "classes are drawn from one stream, which runs in one pack cannot share"),
        (configs[0].ema_decay, "a pack keeps no average of its weights"),
        (
            configs[0].discriminator.spectral_norm,
            "the power iteration changes vectors in place",
        ),
        ("module" in (configs[0].generator.kind, configs[0].loss.kind), _NOT_MAPPED),
        (any(c.loss.kind == "wasserstein" and c.loss.weight_clip for c in configs), "a pack clips no weights"),
    ):
        if has_it:
            return reason
    discriminator = configs[0].discriminator
    if discriminator.kind == "module":
        return _NOT_MAPPED
    if discriminator.dropout or (discriminator.kind == "dcgan" and discriminator.dropout2d):
        return "dropout draws from one stream, which runs in one pack cannot share"
    return None


class PackedNetwork(nn.Module):
    """Training networks of the same shape as one, whose parameters and buffers are theirs, stacked.

    Args:
        networks: R of them.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = torch.func.stack_module_state(list(networks))
        # A module's own names must not hold dots, as those of the networks' layers do.
        self._parameter_names, self._buffer_names = list(parameters), list(buffers)
        self._stacked_parameters = nn.ParameterList([nn.Parameter(tensor.detach()) for tensor in parameters.values()])
        for index, tensor in enumerate(buffers.values()):
            self.register_buffer(f"stacked_{index}", tensor)
        # In a tuple, it is no part of this module: its own tensors are empty, and replaced in every call.
        template = copy.deepcopy(networks[0]).to("meta")
        if not maps_batch_norm(next(iter(parameters.values())).device):
            replace_batch_norms(template)
        self._template = (template,)

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, B, …) to what each network makes of its part."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            result: Tensor = torch.func.functional_call(self._template[0], (parameters, buffers), (x,))
            return result

        mapped: Tensor = torch.vmap(one)(self._parameters_by_name(), self._buffers_by_name(), x)
        return mapped

    def stacked(self) -> dict[str, Tensor]:
        """Return what the networks' state dicts hold, stacked, under the same names."""
        named = {**self._parameters_by_name(), **self._buffers_by_name()}
        return {name: named[name].detach() for name in self._template[0].state_dict()}

    def _parameters_by_name(self) -> dict[str, Tensor]:
        return dict(zip(self._parameter_names, self._stacked_parameters, strict=True))

    def _buffers_by_name(self) -> dict[str, Tensor]:
        return {name: self.get_buffer(f"stacked_{index}") for index, name in enumerate(self._buffer_names)}


class MappedBatchNorm(nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 (what its layers for 1 and 2 dimensions share)
    """Batch norm in training, spelt out, for where PyTorch's own cannot be mapped over runs: on a GPU."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (PyTorch's name)
        """Normalise (B, C, …) as arXiv:1502.03167, algorithm 1, and move the running averages."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        dims = [dim for dim in range(input.ndim) if dim != 1]
        var, mean = torch.var_mean(input, dims, correction=0, keepdim=True)
        with torch.no_grad():
            num = input.numel() // input.shape[1]
            self.num_batches_tracked.add_(1)
            self.running_mean.mul_(1 - self.momentum).add_(mean.flatten() * self.momentum)
            self.running_var.mul_(1 - self.momentum).add_(var.flatten() * (self.momentum * num / (num - 1)))
        shape = [-1 if dim == 1 else 1 for dim in range(input.ndim)]
        return (input - mean) * (var + self.eps).rsqrt() * self.weight.view(shape) + self.bias.view(shape)


def maps_batch_norm(device: torch.device) -> bool:
    """Whether PyTorch's batch norm can be mapped over runs there."""
    return device.type == "cpu"


def replace_batch_norms(network: nn.Module) -> None:
    """Put ``MappedBatchNorm`` in the place of batch norms."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, MappedBatchNorm(child.num_features, child.eps, child.momentum, device="meta"))


class PackedAdam(torch.optim.Optimizer):
    """Adam (arXiv:1412.6980, algorithm 1) with a learning rate and decay rates for each index of the first dimension.

    Args:
        parameters: (R, …) each.
        lr: R learning rates.
        beta1: R decay rates of the mean.
        beta2: R decay rates of the square.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: Sequence[float], beta1: Sequence[float], beta2: Sequence[float]
    ) -> None:
        super().__init__(parameters, {})
        first = self.param_groups[0]["params"][0]
        # 1 - β leaves few digits of a float32.
        self._lr, self._beta1, self._beta2 = torch.tensor([lr, beta1, beta2], dtype=torch.float64, device=first.device)
        self._power1, self._power2 = torch.ones_like(self._lr), torch.ones_like(self._lr)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        self._power1.mul_(self._beta1)
        self._power2.mul_(self._beta2)
        scale, rescale = self._lr / (1 - self._power1), (1 - self._power2).rsqrt()
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            shape = (-1, *[1] * (parameter.ndim - 1))
            new1, kept2, new2, scale_, rescale_ = (
                column.to(parameter.dtype).reshape(shape)
                for column in (1 - self._beta1, self._beta2, 1 - self._beta2, scale, rescale)
            )
            state["mean"].lerp_(parameter.grad, new1)
            state["square"].mul_(kept2).add_(new2 * parameter.grad.square())
            parameter.sub_(scale_ * state["mean"] / (state["square"].sqrt() * rescale_ + ADAM_EPS))
