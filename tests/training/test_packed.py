from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gan_ablate.design.config import RunConfig
from gan_ablate.training import packed as packed_module
from gan_ablate.training.packed import MappedBatchNorm, PackedAdam, PackedTrainer, find_obstacle
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config, make_images

NUM_STEPS = 4
NUM_IMAGES = 50
SMALL: dict[str, Any] = {
    "generator": {"kind": "dcgan", "base_channels": 4},
    "discriminator": {"kind": "dcgan", "base_channels": 4},
    "batch_size": 8,
}
PLAIN_D: dict[str, Any] = {"discriminator": {"kind": "dcgan", "base_channels": 4, "norm": "none"}}

DIFFERENCES: tuple[dict[str, Any], ...] = (
    {"seed": 0},
    {"seed": 1},
    {"seed": 0, "lr_g": 1e-3, "lr_d": 5e-4, "beta1": 0.9, "beta2": 0.99},
    {"seed": 2, "loss": {"kind": "bce", "real_label": 0.9, "generator_label": 0.8, "discriminator_reduction": "mean"}},
    {"seed": 1, "loss": {"kind": "bce", "computed_from": "probabilities"}},
)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("mlp", {"batch_size": 8}),
        ("dcgan-28", SMALL),
        ("dcgan-28", {**SMALL, "d_steps_per_g_step": 2, "generator_fakes": "fresh"}),
        ("dcgan-28", {**SMALL, "update_order": "generator_first"}),
        ("dcgan-28", {**SMALL, "generator_gradient": "accumulated", "d_steps_per_g_step": 2}),
        ("dcgan-28", {**SMALL, "g_steps_per_d_step": 2, "latent_distribution": "uniform"}),
        ("dcgan-28", {**SMALL, "discriminator": {"kind": "dcgan", "base_channels": 4, "minibatch_std": True}}),
        (
            "dcgan-28",
            {**SMALL, "image_size": 32, "generator": {"kind": "dcgan", "base_channels": 4, "upsample": "nearest"}},
        ),
    ],
)
def test_every_run_of_a_pack_is_its_lone_run(preset: str, changes: dict[str, Any]) -> None:
    configs = [make_config(preset, **{**changes, **difference}) for difference in DIFFERENCES]
    packed, lone = assert_steps_together_are_those_alone(configs)
    for unpacked, trainer in zip(packed.unpack(), lone, strict=True):
        for mine, theirs in ((unpacked.generator, trainer.generator), (unpacked.discriminator, trainer.discriminator)):
            for name, tensor in theirs.state_dict().items():
                torch.testing.assert_close(mine.state_dict()[name], tensor, rtol=1e-8, atol=1e-9, msg=name)


@pytest.mark.usefixtures("float64")
def test_batch_norm_is_the_same_where_it_has_to_be_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(packed_module, "maps_batch_norm", lambda _: False)
    changes = {**SMALL, "generator": {"kind": "dcgan", "base_channels": 4, "norm_eps": 0.8}}
    packed, lone = assert_steps_together_are_those_alone([make_config(**{**changes, **d}) for d in DIFFERENCES])
    assert any(isinstance(module, MappedBatchNorm) for module in packed.generator._template[0].modules())
    for unpacked, trainer in zip(packed.unpack(), lone, strict=True):
        for name, tensor in trainer.generator.state_dict().items():
            torch.testing.assert_close(unpacked.generator.state_dict()[name], tensor, rtol=1e-8, atol=1e-9, msg=name)


def assert_steps_together_are_those_alone(configs: list[RunConfig]) -> tuple[PackedTrainer, list[Trainer]]:
    """Take a pack's steps beside those of its lone runs, and see that they are the same."""
    packed = PackedTrainer(configs, make_images(configs[0], NUM_IMAGES))
    lone = [Trainer(config, make_images(config, NUM_IMAGES)) for config in configs]
    for _ in range(NUM_STEPS):
        terms = packed.step()
        for index, trainer in enumerate(lone):
            for together, alone in zip(terms, trainer.step(), strict=True):
                torch.testing.assert_close(together[index], alone, rtol=1e-9, atol=1e-10)
    return packed, lone


def test_packed_adam_is_adam_in_float32() -> None:
    torch.manual_seed(0)
    start, beta2s = torch.randn(2, 50), (0.9, 0.9999)
    packed = nn.Parameter(start.clone())
    lone = [nn.Parameter(row.clone()) for row in start]
    optimizer = PackedAdam([packed], [1e-3, 1e-2], [0.5, 0.9], beta2s)
    others = [
        torch.optim.Adam([parameter], lr, (beta1, beta2))
        for parameter, lr, beta1, beta2 in zip(lone, (1e-3, 1e-2), (0.5, 0.9), beta2s, strict=True)
    ]
    for _ in range(5):
        packed.grad = torch.randn(2, 50)
        optimizer.step()
        for index, (parameter, other) in enumerate(zip(lone, others, strict=True)):
            parameter.grad = packed.grad[index].clone()
            other.step()
    moved = torch.stack([parameter.detach() for parameter in lone]) - start
    torch.testing.assert_close(packed.detach() - start, moved, rtol=0, atol=3e-7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 16}, "may differ in seed"),
        ({"precision": "bf16"}, "may differ in seed"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(change: dict[str, Any], words: str) -> None:
    configs = [make_config(**SMALL), make_config(**{**SMALL, **change})]
    with pytest.raises(ValueError, match=words):
        PackedTrainer(configs, make_images(configs[0], NUM_IMAGES))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", ["relativistic", "hinge", "least_squares"])
def test_packs_carry_every_loss_that_needs_nothing_beside_it(loss: str) -> None:
    configs = [make_config(**SMALL, loss=loss, seed=seed) for seed in (0, 1)]
    assert_steps_together_are_those_alone(configs)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"penalty": "r1", **PLAIN_D}, "penalty"),
        ({"augmentation": ("colour",)}, "augmentation"),
        ({"mode_seeking_weight": 1.0}, "mode-seeking"),
        ({"conditional": True, "num_classes": 10}, "classes"),
        ({"ema_decay": 0.9}, "average"),
        ({"discriminator": {"kind": "dcgan", "base_channels": 4, "spectral_norm": True}}, "power iteration"),
        ({"loss": {"kind": "wasserstein", "weight_clip": 0.1}}, "clips"),
    ],
)
def test_what_a_pack_cannot_do_is_refused_with_its_reason(change: dict[str, Any], word: str) -> None:
    assert word in str(find_obstacle([make_config(**{**SMALL, **change})]))


def test_a_pack_has_one_kind_of_loss() -> None:
    assert "kind of loss" in str(find_obstacle([make_config(loss=loss) for loss in ("bce", "hinge")]))


def test_bfloat16_is_refused() -> None:
    assert "fp32" in str(find_obstacle([make_config(precision="bf16")]))


def test_dropout_is_refused() -> None:
    config = make_config(discriminator={"kind": "dcgan", "base_channels": 4, "dropout2d": 0.25})
    assert "dropout" in str(find_obstacle([config]))
