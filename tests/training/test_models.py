from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import list_presets
from gan_ablate.errors import UserError
from gan_ablate.scoring.scorer import NUM_SAMPLE_GRID_IMAGES, sample_grid_latents, sample_images
from gan_ablate.training.data import ImageDataset, load_dataset
from gan_ablate.training.models import build_discriminator, build_generator, initialise
from gan_ablate.training.models.layers import (
    Dropout,
    FlattenLinear,
    MinibatchStd,
    SelfAttention,
    build_activation,
    build_norm,
)
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config, shipped_variants


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_mlp_has_the_documents_parameters() -> None:
    config = make_config("mlp")
    assert num_parameters(build_generator(config)) == 559_632
    assert num_parameters(build_discriminator(config)) == 533_505


def test_dcgan_has_the_parameters_counted_by_hand() -> None:
    config = make_config("dcgan-28")  # 32 channels: stem 64·7·7, then 64→32→1; 1→32→64, then 64·7·7→1
    assert num_parameters(build_generator(config)) == 100 * 3136 + 2 * 64 + 16 * 64 * 32 + 2 * 32 + 16 * 32 + 1
    assert num_parameters(build_discriminator(config)) == 16 * 32 + 32 + 16 * 32 * 64 + 2 * 64 + 3136 + 1


@pytest.mark.parametrize("image_size", [28, 32, 64])
@pytest.mark.parametrize("dataset", ["mnist-10k", "cifar10"])
@pytest.mark.parametrize("preset", ["mlp", "dcgan-28"])
def test_shapes_and_ranges(preset: str, dataset: str, image_size: int) -> None:
    scoring = {"features": "none"}
    config = make_config(preset, dataset=dataset, image_size=image_size, scoring=scoring)
    images = build_generator(config)(torch.randn(5, 100) * 100)
    assert images.shape == (5, 3 if dataset == "cifar10" else 1, image_size, image_size)
    assert images.abs().max() <= 1
    assert build_discriminator(config)(images).shape == (5,)


@pytest.mark.slow
@pytest.mark.parametrize("config", shipped_variants().values(), ids=shipped_variants())
def test_every_level_of_every_shipped_grid_takes_finite_steps_and_can_be_scored(config: RunConfig) -> None:
    """Twenty steps at tiny widths, and as many of its images as a sample grid holds."""
    few = narrow(config)
    data = load_digits(config.image_size)
    trainer = Trainer(few, data.images, data.labels)
    for _ in range(20):
        terms = trainer.step()
    row = trainer.measure(20, terms)
    assert math.isfinite(row.loss_d + row.loss_g + row.grad_norm_d + row.grad_norm_g)
    assert row.grad_norm_g > 0
    assert trainer.is_finite()
    images = sample_images(trainer.generator, sample_grid_latents(few), torch.device("cpu"))
    assert images.shape == (NUM_SAMPLE_GRID_IMAGES, 1, config.image_size, config.image_size)


@functools.cache
def load_digits(image_size: int) -> ImageDataset:
    return load_dataset("mnist-10k", image_size, Path())


def narrow(config: RunConfig) -> RunConfig:
    """The same run at an eighth of its width, on small batches."""

    def part(network: Any) -> Any:
        if network.kind == "mlp":
            return network.model_copy(update={"hidden_sizes": tuple(size // 8 for size in network.hidden_sizes)})
        fewer = {"base_channels": max(1, network.base_channels // 8), "norm_groups": max(1, network.norm_groups // 8)}
        return network.model_copy(update=fewer)

    parts = {"generator": part(config.generator), "discriminator": part(config.discriminator)}
    return config.model_copy(update={**parts, "batch_size": 8})


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
@pytest.mark.parametrize("init", ["normal", "default"])
def test_batch_norm_shifts_no_other_layers_start(build: Callable[[RunConfig], nn.Module], init: str) -> None:
    def weights(norm: str) -> dict[str, torch.Tensor]:
        part = {"kind": "dcgan", "base_channels": 8, "norm": norm}
        return dict(build(make_config(init=init, generator=part, discriminator=part)).named_parameters())

    with_norm, without = weights("batch"), weights("none")
    shared = [name for name in without if name.endswith("weight")]
    assert len(shared) >= 3
    for name in shared:
        assert torch.equal(with_norm[name], without[name]), name


def test_batch_norm_takes_the_place_of_the_bias_only_where_it_follows_the_layer() -> None:
    first, last = (
        build_discriminator(make_config(discriminator={"kind": "dcgan", "base_channels": 4, "norm_position": position}))
        for position in ("before_activation", "last")
    )
    assert "down2.layer.bias" not in first.state_dict()
    assert "down2.layer.bias" in last.state_dict()


def test_normal_initialisation_is_the_dcgan_papers() -> None:
    generator: Any = build_generator(make_config())
    convolution, norm = generator.up1.layer, generator.up1.norm
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert norm.bias.abs().max() == 0


def test_default_initialisation_has_pytorchs_bounds() -> None:
    generator: Any = build_generator(make_config(init="default"))
    fresh = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
    assert generator.up1.layer.weight.abs().max().item() == pytest.approx(fresh.weight.abs().max().item(), rel=1e-2)
    linear, fresh_linear = generator.stem.layer.linear, nn.Linear(100, 3136)
    assert linear.weight.abs().max().item() == pytest.approx(fresh_linear.weight.abs().max().item(), rel=1e-3)


def test_networks_differ_by_seed() -> None:
    first, second = (build_generator(make_config(seed=seed)).state_dict() for seed in (0, 1))
    assert not torch.equal(first["output.weight"], second["output.weight"])


def test_a_linear_layer_on_a_map_is_flatten_and_linear_and_keeps_the_layout() -> None:
    layer = FlattenLinear(3 * 4 * 4, 2).double()
    x = torch.randn(5, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    logits = layer(x)
    expected = functional.linear(x.flatten(1), layer.weight, layer.bias)
    torch.testing.assert_close(logits, expected, rtol=1e-13, atol=1e-13)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name in list_presets() if name.startswith("dcgan")])
def test_everything_between_the_ends_of_a_dcgan_is_channels_last(preset: str) -> None:
    config = make_config(preset, batch_size=4, scoring={"features": "none"})
    trainer = Trainer(config, load_dataset("mnist-10k", config.image_size, Path()).images)
    strayed = []

    def look(layer: nn.Module, inputs: object, gradients: tuple[torch.Tensor, ...]) -> None:
        maps = [tensor for tensor in gradients if tensor.ndim == 4 and min(tensor.shape[1:3]) > 1]
        if not all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in maps):
            strayed.append(layer)

    for network in (trainer.generator, trainer.discriminator):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LeakyReLU | nn.ReLU):
                module.register_full_backward_hook(look)
                if not isinstance(module, nn.BatchNorm2d):
                    module.inplace = False  # which such hooks do not go with
    trainer.step()
    assert strayed == []


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.999999])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(64, 32, 14, 14).to(memory_format=torch.channels_last)
    y = Dropout(rate)(x)
    kept = y != 0
    share = min(rate, 1 - 2**-16)
    assert abs(float(kept.double().mean()) - (1 - share)) < 5 * math.sqrt(share * (1 - share) / x.numel())
    assert y[kept].unique().numel() == 1
    assert float(y.max()) == pytest.approx(1 / (1 - share), rel=2**-15)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert (
        abs(float(kept[:, 1:].double().mul(kept[:, :-1]).mean()) - (1 - share) ** 2) < 0.01
    )  # neighbours on their own


def test_dropout_passes_gradients_where_it_passes_values_and_everything_in_evaluation() -> None:
    layer, x = Dropout(0.4), torch.randn(5, 7).requires_grad_()
    y = layer(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, y.detach() / x.detach())
    assert torch.equal(layer.eval()(x), x)


def test_dropout_repeats_with_the_seed() -> None:
    def drop(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        dropped: torch.Tensor = Dropout(0.5)(torch.ones(3, 11))
        return dropped

    assert torch.equal(drop(7), drop(7))
    assert not torch.equal(drop(7), drop(8))


def test_spectral_norm_bounds_every_layer_and_starts_from_the_same_weights() -> None:
    part: dict[str, Any] = {"kind": "dcgan", "base_channels": 8, "norm": "none"}
    plain, normed = (
        build_discriminator(make_config(discriminator={**part, "spectral_norm": is_on})) for is_on in (False, True)
    )
    x = torch.rand(4, 1, 28, 28)
    for _ in range(50):  # steps of the power iteration
        normed(x)
    normed.eval()
    layers = [module for module in normed.modules() if hasattr(module, "parametrizations")]
    assert len(layers) == 3
    for layer, before in zip(
        layers, [m for m in plain.modules() if getattr(m, "weight", None) is not None], strict=True
    ):
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)
        torch.testing.assert_close(layer.parametrizations.weight.original, before.weight)  # type: ignore[union-attr]


def test_a_layer_looks_at_its_normed_weight_once_a_pass() -> None:
    """Each look takes a step of the power iteration, in training."""
    part = {"kind": "dcgan", "base_channels": 4, "norm": "none", "spectral_norm": True}
    network: Any = build_discriminator(make_config(discriminator=part))
    norm = network.down1.layer.parametrizations.weight[0]
    x = torch.rand(2, 1, 28, 28)
    before = norm._u.clone()
    network(x)
    once = norm._u.clone()
    with torch.no_grad():
        matrix = network.down1.layer.parametrizations.weight.original.flatten(1)
        v = functional.normalize(matrix.T @ before, dim=0)
        u = functional.normalize(matrix @ v, dim=0)
    torch.testing.assert_close(once, u)


def test_minibatch_std_is_the_mean_deviation_over_the_batch() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]]).reshape(2, 2, 1, 1).expand(2, 2, 3, 3)
    y = MinibatchStd()(x)
    assert y.shape == (2, 3, 3, 3)
    assert torch.equal(y[:, :2], x)
    torch.testing.assert_close(y[:, 2], torch.full((2, 3, 3), (1.0 + 1e-4) / 2))  # deviations 1 and √1e-8
    same = torch.ones(2, 4, requires_grad=True)
    MinibatchStd()(same).sum().backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()


def test_minibatch_std_of_a_dcgan_goes_through_a_convolution_before_the_last_layer() -> None:
    """arXiv:1710.10196, table 2, by NumPy: the feature, a 3×3 convolution, LeakyReLU, and then the logit."""
    part = {"kind": "dcgan", "base_channels": 4, "minibatch_std": True}
    network: Any = build_discriminator(make_config(discriminator=part)).double()
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=torch.Generator().manual_seed(1))
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    maps: list[torch.Tensor] = []
    network.down2.register_forward_hook(lambda _, __, output: maps.append(output.clone()))
    logits = network(x).detach().numpy()
    features = maps[0].detach().numpy()  # (3, 8, 7, 7)
    spread = np.sqrt(features.var(0) + 1e-8).mean()
    padded = np.zeros((3, 9, 9, 9))
    padded[:, :, 1:-1, 1:-1] = np.concatenate((features, np.full((3, 1, 7, 7), spread)), 1)
    weight, bias = (
        tensor.detach().numpy() for tensor in (network.minibatch_std.layer.weight, network.minibatch_std.layer.bias)
    )
    hidden = np.zeros((3, 8, 7, 7))
    for row, column in np.ndindex(7, 7):
        patch = padded[:, :, row : row + 3, column : column + 3]
        hidden[:, :, row, column] = np.einsum("bcij,ocij->bo", patch, weight) + bias
    hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
    expected = hidden.reshape(3, -1) @ network.output.weight.detach().numpy()[0] + network.output.bias.item()
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_minibatch_std_of_an_mlp_goes_through_a_linear_layer_before_the_last_one() -> None:
    part = {"kind": "mlp", "hidden_sizes": [6, 5], "minibatch_std": True}
    network: Any = build_discriminator(make_config("mlp", discriminator=part, init="default")).double()
    seen: list[torch.Tensor] = []
    network.hidden2.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    logits = network(torch.rand(3, 1, 28, 28, dtype=torch.float64)).detach().numpy()
    features = seen[0].detach().numpy()
    spread = np.sqrt(features.var(0) + 1e-8).mean()
    weight, bias = (tensor.detach().numpy() for tensor in network.minibatch_std.layer.parameters())
    hidden = np.concatenate((features, np.full((3, 1), spread)), 1) @ weight.T + bias
    hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
    expected = hidden @ network.output.weight.detach().numpy()[0] + network.output.bias.item()
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


@pytest.mark.parametrize("preset", ["mlp", "dcgan-28"])
def test_the_spread_of_a_batch_moves_its_logits_by_different_numbers(preset: str) -> None:
    """One number for all of them tells D nothing that a bias would not."""
    config = make_config(preset, init={"kind": "normal", "std": 0.3})
    part = config.discriminator.model_copy(update={"minibatch_std": True})
    network: Any = build_discriminator(config.model_copy(update={"discriminator": part}))
    x = torch.rand(6, 1, 28, 28)
    logits = network(x)
    network.minibatch_std.std.register_forward_hook(lambda _, __, y: torch.cat((y[:, :-1], y[:, -1:] + 3), 1))
    moved = network(x) - logits
    assert moved.std() > 0.05 * moved.abs().mean() > 0


@pytest.mark.parametrize("preset", ["mlp", "dcgan-28"])
def test_outputs_are_what_their_name_says(preset: str) -> None:
    z = 3 * torch.randn(4, 100)
    images = {}
    for kind in ("none", "tanh", "sigmoid"):
        part = make_config(preset).generator.model_copy(update={"output_activation": kind})
        images[kind] = build_generator(make_config(preset, generator=part.model_dump()))(z)
    torch.testing.assert_close(images["tanh"], images["none"].tanh())
    torch.testing.assert_close(images["sigmoid"], 2 * images["none"].sigmoid() - 1)


def test_norm_on_all_layers_is_one_more_in_each_network() -> None:
    def count(build: Callable[[RunConfig], nn.Module], placement: str) -> int:
        part = {"kind": "dcgan", "base_channels": 4, "norm_placement": placement}
        network = build(make_config(generator=part, discriminator=part))
        return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())

    assert [count(build, "paper") for build in (build_generator, build_discriminator)] == [2, 1]
    assert [count(build, "all") for build in (build_generator, build_discriminator)] == [3, 2]


@pytest.mark.parametrize("downsample", ["max_pool", "average_pool"])
def test_pooling_halves_behind_the_activation(downsample: str) -> None:
    part = {"kind": "dcgan", "base_channels": 4, "kernel_size": 3, "downsample": downsample, "norm": "none"}
    network: Any = build_discriminator(make_config(discriminator=part))
    x = torch.randn(2, 1, 28, 28)
    pool = functional.max_pool2d if downsample == "max_pool" else functional.avg_pool2d
    expected = pool(functional.leaky_relu(functional.conv2d(x, network.down1.layer.weight, padding=1), 0.2), 2)
    torch.testing.assert_close(network.down1(x), expected + 0 * expected, rtol=1e-4, atol=1e-5)


def test_an_average_pooling_head_is_linear_in_each_channels_mean() -> None:
    part = {"kind": "dcgan", "base_channels": 4, "head": "average_pool", "norm": "none"}
    network: Any = build_discriminator(make_config(discriminator=part))
    maps = network[:3](torch.randn(2, 1, 28, 28))
    expected = functional.linear(maps.mean((2, 3)), network.output.weight, network.output.bias)[:, 0]
    torch.testing.assert_close(network[3:](maps), expected)


def test_spectral_norm_starts_from_the_runs_seed() -> None:
    part = {"kind": "dcgan", "base_channels": 4, "norm": "none", "spectral_norm": True}
    states = []
    for stream in (1, 2):
        torch.manual_seed(stream)
        states.append(build_discriminator(make_config(discriminator=part)).state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(states[1][name], tensor), name


def drawn_layer(role: str) -> torch.nn.Linear:
    """A layer of eight weights on one input, and eight biases, as a network's role draws it by PyTorch's default."""
    layer = torch.nn.Linear(1, 8)
    initialise(torch.nn.Sequential(layer), make_config(init="default").init, 0, role)
    return layer


def test_networks_are_initialised_from_separate_streams() -> None:
    """Layers of G and D bear the same names."""
    generator, discriminator = drawn_layer("generator"), drawn_layer("discriminator")
    assert not torch.equal(generator.weight, discriminator.weight)
    assert torch.equal(generator.weight, drawn_layer("generator").weight)


def test_weight_and_bias_are_initialised_from_separate_streams() -> None:
    layer = drawn_layer("generator")  # one input: both would be the same eight numbers in ±1
    assert not torch.allclose(layer.weight[:, 0], layer.bias)


def two_layers(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    return nn.Sequential(wrap(nn.Conv2d(3, 8, 3)), nn.Flatten(), wrap(nn.Linear(288, 4)))


@pytest.mark.parametrize("init", [{"kind": "normal", "std": 0.5}, {"kind": "default"}])
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_init_draws_parametrized_layers_from_the_same_streams(
    norm: Callable[[nn.Module], nn.Module], init: dict[str, Any]
) -> None:
    chosen = make_config(init=init).init
    plain = initialise(two_layers(lambda layer: layer), chosen, 3, "discriminator")
    found = initialise(two_layers(norm), chosen, 3, "discriminator")
    for layer, other in ((plain[0], found[0]), (plain[2], found[2])):  # type: ignore[index]
        expected = layer.weight
        if norm is nn.utils.parametrizations.spectral_norm:
            expected = expected / torch.linalg.matrix_norm(expected.flatten(1), 2)
        torch.testing.assert_close(other.weight, expected, rtol=0.05, atol=1e-3)
        assert torch.equal(other.bias, layer.bias)


def test_init_refuses_a_weight_that_is_no_parameter() -> None:
    class Halved(nn.Linear):
        """A layer whose weight is computed from another tensor, before each call."""

        def __init__(self) -> None:
            super().__init__(2, 2)
            whole = self.weight
            del self._parameters["weight"]
            self.whole = whole
            self.weight = whole.detach() / 2

    with pytest.raises(UserError, match=r"generator: 0\.weight: no parameter, init cannot draw it; valid: init"):
        initialise(nn.Sequential(Halved()), make_config().init, 0, "generator")

    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    layer = nn.Linear(2, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    with pytest.raises(UserError, match=r"generator: 0.weight: init cannot draw it through its parametrization \("):
        initialise(nn.Sequential(layer), make_config().init, 0, "generator")


NORMS = ("batch", "instance", "layer", "group", "pixel")
SMALL_NORM = {"kind": "dcgan", "base_channels": 8, "norm_groups": 4}


def normalise_by_hand(kind: str, x: np.ndarray[Any, Any], eps: float) -> np.ndarray[Any, Any]:
    """Normalise (B, C, H, W) by the papers' formulas, without scale and shift."""
    if kind == "pixel":
        return np.asarray(x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-8))
    batch, channels, *sides = x.shape
    groups = {"layer": 1, "group": 4, "instance": channels}.get(kind, channels)
    parts = x.reshape(batch, groups, channels // groups, *sides)
    axes = (0, 2, 3, 4) if kind == "batch" else (2, 3, 4)
    mean, variance = parts.mean(axis=axes, keepdims=True), parts.var(axis=axes, keepdims=True)
    return np.asarray(((parts - mean) / np.sqrt(variance + eps)).reshape(x.shape))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", NORMS)
def test_norms_are_the_papers_formulas(kind: Any) -> None:
    x = torch.randn(3, 8, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 + 1
    norm = build_norm(kind, 8, 1e-3, groups=4, spatial=True)
    assert norm is not None
    found = norm(x)
    np.testing.assert_allclose(found.detach().numpy(), normalise_by_hand(kind, x.numpy(), 1e-3), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", NORMS)
def test_a_bias_goes_only_where_a_norm_takes_out_each_channels_mean(kind: str) -> None:
    config = make_config(generator={**SMALL_NORM, "norm": kind}, discriminator={**SMALL_NORM, "norm": kind})
    generator, discriminator = build_generator(config), build_discriminator(config)
    has_bias = kind not in ("batch", "instance")
    for network, layer in ((generator, "stem.layer.linear"), (generator, "up1.layer"), (discriminator, "down2.layer")):
        assert (network.get_submodule(layer).bias is not None) == has_bias
    x = torch.randn(4, 1, 28, 28)
    layers: Any = discriminator
    hidden = layers.down1(layers.layout(x))
    shifted = layers.down2.norm(layers.down2.layer(hidden) + torch.arange(16.0)[:, None, None])
    cancels = torch.allclose(shifted, layers.down2.norm(layers.down2.layer(hidden)), atol=1e-6)
    assert cancels == (not has_bias)


@pytest.mark.parametrize("kind", ["batch", "layer", "group", "pixel"])
def test_norms_of_an_mlp_are_over_its_units(kind: Any) -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    norm = build_norm(kind, 8, 1e-5, groups=4, spatial=False)
    assert norm is not None
    expected = normalise_by_hand(kind, x.numpy()[..., None, None], 1e-5)[..., 0, 0]
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["instance", "layer", "group"])
def test_init_draws_the_scales_of_every_norm(kind: str) -> None:
    config = make_config(generator={**SMALL_NORM, "norm": kind}, init={"kind": "normal", "std": 0.1, "norm_mean": 5.0})
    scales = build_generator(config).state_dict()["stem.norm.weight"]
    assert abs(float(scales.mean()) - 5) < 0.2
    assert 0.03 < float(scales.std()) < 0.3


ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_are_the_papers_formulas(kind: str) -> None:
    config = make_config(generator={"kind": "dcgan", "base_channels": 4, "activation": kind})
    assert config.generator.kind == "dcgan"
    x = torch.linspace(-3, 3, 13)
    expected = [ACTIVATIONS[kind](value) for value in x.tolist()]
    assert build_activation(config.generator.activation)(x.clone()).tolist() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation_trains_with_and_without_norms(kind: str) -> None:
    for norm in ("none", "batch", "group"):
        part = {**SMALL_NORM, "norm": norm, "activation": kind}
        config = make_config(generator=part, discriminator={**part, "dropout": 0.2}, batch_size=4)
        trainer = Trainer(config, torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8))
        for _ in range(2):
            trainer.step()
        assert trainer.is_finite()


@pytest.mark.usefixtures("float64")
def test_minibatch_std_of_groups_is_stylegan2s() -> None:
    """StyleGAN2's code: image i is in the group of all i + k·(batch / group)."""
    x = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    y = MinibatchStd(3)(x)
    for first in range(2):
        members = [first, first + 2, first + 4]
        expected = np.sqrt(x.numpy()[members].var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(y[members, 3].numpy(), np.full((3, 2, 2), expected), rtol=1e-12)
    assert torch.equal(y[:, :3], x)
    assert torch.equal(MinibatchStd(4)(x), MinibatchStd()(x))  # a batch that does not split


@pytest.mark.usefixtures("float64")
def test_self_attention_is_the_papers_equations() -> None:
    """arXiv:1805.08318, equations 1 to 3, with loops."""
    layer = SelfAttention(16)
    with torch.no_grad():
        layer.gamma.fill_(0.7)
    x = torch.randn(2, 16, 3, 2, generator=torch.Generator().manual_seed(0))
    convolutions = layer.query, layer.key, layer.value, layer.output
    f, g, h, v = (conv.weight.detach().numpy()[:, :, 0, 0] for conv in convolutions)
    expected = np.empty((2, 16, 6))
    for image, flat in enumerate(x.flatten(2).numpy()):
        for j in range(6):
            scores = np.array([(f @ flat[:, j]) @ (g @ flat[:, i]) for i in range(6)])
            beta = np.exp(scores) / np.exp(scores).sum()
            seen = sum(beta[i] * (h @ flat[:, i]) for i in range(6))
            expected[image, :, j] = 0.7 * (v @ seen) + flat[:, j]
    np.testing.assert_allclose(layer(x).detach().flatten(2).numpy(), expected, rtol=1e-9, atol=1e-12)


def test_self_attention_starts_as_nothing_and_stands_where_it_is_asked_for() -> None:
    part = {"kind": "dcgan", "base_channels": 8, "attention": 14}
    plain = {"kind": "dcgan", "base_channels": 8}
    with_it, without = (make_config(generator=one, discriminator=one) for one in (part, plain))
    z, x = torch.randn(3, 100), torch.randn(3, 1, 28, 28)
    for build, given in ((build_generator, z), (build_discriminator, x)):
        torch.testing.assert_close(build(with_it)(given), build(without)(given))
    shown: list[tuple[int, ...]] = []
    for network, given in ((build_generator(with_it), z), (build_discriminator(with_it), x)):
        for module in network.modules():
            if isinstance(module, SelfAttention):
                module.register_forward_hook(lambda _, __, y: shown.append(tuple(y.shape[1:])))
        network(given)
    assert shown == [(8, 14, 14), (8, 14, 14)]


@pytest.mark.parametrize("changes", [{"spectral_norm": True, "norm": "none"}, {"norm": "none"}, {"norm": "group"}])
def test_twenty_steps_with_attention_are_finite(changes: dict[str, Any]) -> None:
    part = {**SMALL_NORM, "attention": 7}
    penalty = "r1" if changes["norm"] == "none" else "none"
    config = make_config(generator=part, discriminator={**part, **changes}, batch_size=4, penalty=penalty)
    trainer = Trainer(config, torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8))
    for _ in range(20):
        trainer.step()
    assert trainer.is_finite()
    gammas = [p for name, p in trainer.generator.named_parameters() if name.endswith("gamma")]
    assert all(gamma.item() != 0 for gamma in gammas)
