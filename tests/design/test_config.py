from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import pytest

from gan_ablate.design.config import RunConfig
from gan_ablate.design.gan import LeakyReLU, MLPGenerator, NormalInit
from gan_ablate.design.validation import validate
from gan_ablate.errors import UserError
from tests.configs import make_config

PART = {"kind": "dcgan", "base_channels": 4}
OF_SIDE_20 = {
    "image_size": 20,
    "generator": {**PART, "smallest_size": 5},
    "discriminator": {**PART, "smallest_size": 5},
}


def test_run_id_names_the_configuration_and_nothing_else() -> None:
    assert make_config().run_id == make_config().run_id
    assert make_config(seed=1).run_id != make_config().run_id
    assert make_config(beta1=0.9).run_id != make_config().run_id
    assert len(make_config().run_id) == 12


class LaterConfig(RunConfig):
    """A run's configuration as a later version has it: one field more."""

    label_flips: float = 0.0


class OtherDefaultConfig(RunConfig):
    precision: Literal["fp32", "bf16"] = "bf16"


def test_a_name_follows_every_change() -> None:
    """It is kept once it is known, and must not be taken along by a copy."""
    config = make_config()
    first = config.run_id
    assert config.run_id_of(7) == config.with_seed(7).run_id == make_config(seed=7).run_id != first
    assert config.with_seed(7).with_seed(0).run_id == first
    assert config.model_copy(update={"steps": 4}).run_id == make_config(steps=4).run_id
    assert config.model_copy(update={"steps": 4}).run_id_of(9) == make_config(steps=4, seed=9).run_id
    assert config.model_copy(deep=True).run_id == first
    assert config == make_config()
    assert "run_id" not in config.model_dump()


def test_a_field_that_comes_later_renames_no_run() -> None:
    old = make_config()
    assert LaterConfig(**old.model_dump()).run_id == old.run_id
    assert LaterConfig(**old.model_dump(), label_flips=0.1).run_id != old.run_id


def test_a_field_that_comes_later_in_a_part_renames_no_run() -> None:
    class LaterGenerator(MLPGenerator):
        skip: bool = False

    class LaterPartConfig(RunConfig):
        generator: LaterGenerator

    old = make_config("mlp")
    values = old.model_dump()
    assert LaterPartConfig(**values).run_id == old.run_id
    values["generator"]["skip"] = True
    assert LaterPartConfig(**values).run_id != old.run_id


def test_saying_a_default_aloud_is_the_same_run() -> None:
    assert make_config(d_steps_per_g_step=1, precision="fp32").run_id == make_config().run_id


def test_a_default_that_changed_gives_an_old_configuration_another_name() -> None:
    """So that the store notices: a record says its values, and the name says which are not at their defaults."""
    old = make_config()
    assert OtherDefaultConfig(**old.model_dump()).run_id != old.run_id


def test_a_kind_alone_stands_for_its_table() -> None:
    config = make_config(init="normal")
    assert config.init == NormalInit(kind="normal", std=0.02)
    assert config.discriminator.kind == "dcgan"
    assert config.discriminator.activation == LeakyReLU(kind="leaky_relu", negative_slope=0.2)


def test_a_configuration_survives_json() -> None:
    config = make_config("mlp")
    assert validate(RunConfig, config.model_dump(mode="json"), "json") == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"betta1": 0.5}, ["betta1 = 0.5", "did you mean beta1?"]),
        ({"beta1": 1.5}, ["beta1 = 1.5", "less than 1"]),
        ({"beta1": float("nan")}, ["beta1 = NaN", "finite"]),
        ({"batch_size": 1}, ["batch_size = 1", "greater than or equal to 2"]),
        ({"batch_size": True}, ["batch_size = true", "valid integer"]),
        ({"dataset": "mnits"}, ["dataset = 'mnits'", "did you mean mnist?", "folder:PATH"]),
        ({"generator": "mpl"}, ['generator = "mpl"', "valid: mlp, dcgan"]),
        ({"scoring": "digits"}, ['scoring = "digits": should be a table of fields']),
        ({"init": "uniform"}, ['init = "uniform"', '"uniform"', "normal, default"]),
        ({"image_size": 30}, ["image_size = 30", "28, 32"]),
        (
            {"generator": {"kind": "mlp", "hidden_sizes": [8], "base_channels": 8}},
            ["generator.base_channels = 8", "generator (mlp)", "hidden_sizes"],
        ),
        ({"discriminator": {"kind": "dcgan"}}, ["discriminator.base_channels is missing"]),
        (
            {"generator": {"kind": "dcgan", "base_channels": 8, "smallest_size": 5}},
            ["image_size = 28", "5·2^n"],
        ),
        ({"discriminator": {"kind": "dcgan", "base_channels": 8, "kernel_size": 5}}, ["discriminator.kernel_size = 5"]),
        ({"dataset": "fashion-mnist"}, ["scoring.features = 'digits'", "cannot judge fashion-mnist"]),
        ({"fit": "pad"}, ["fit = 'pad'", "all images are squares; valid: with folder:PATH"]),
        ({"fit": "stretch"}, ['fit = "stretch"', "'crop' or 'pad'"]),
        (
            {"scoring": {"features": "none", "keep_best": True}},
            ["scoring.keep_best = True", "nothing measures FID along training"],
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_valid(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UserError) as wrong:
        make_config(**changes)
    assert "\n" not in str(wrong.value)
    for word in ["test: ", *words]:
        assert word in str(wrong.value)


@pytest.mark.parametrize(("image_size", "stem", "doublings"), [(28, 7, 2), (32, 4, 3), (56, 7, 3), (64, 4, 4)])
def test_dcgan_sizes_double_from_four_or_seven(image_size: int, stem: int, doublings: int) -> None:
    network = make_config(image_size=image_size).generator
    assert network.kind == "dcgan"
    assert (network.smallest_side(image_size), network.num_scalings(image_size)) == (stem, doublings)


def test_a_long_value_is_cut_short_in_its_message() -> None:
    with pytest.raises(UserError) as refused:
        make_config(**{"x" * 10**6: "y" * 10**7})
    assert len(str(refused.value)) < 2_000
    assert "(1,000,000 characters)" in str(refused.value)


def test_only_runs_with_dropout_or_on_folders_are_named_anew() -> None:
    assert make_config().revisions == ()
    of_folder = make_config(dataset="folder:x@0", scoring={"features": "none"})
    assert "folder_images_in_fixed_order" in of_folder.revisions
    assert make_config().known_run_ids == {make_config().run_id}
    dropped = make_config(discriminator={"kind": "dcgan", "base_channels": 4, "dropout2d": 0.25}, seed=3)
    assert dropped.run_id in dropped.known_run_ids
    assert len(dropped.known_run_ids) == 2
    content = dropped.model_dump(mode="json", exclude_defaults=True)
    before = json.dumps({"protocol": 5, "config": content}, sort_keys=True)
    assert hashlib.sha256(before.encode()).hexdigest()[:12] in dropped.known_run_ids - {dropped.run_id}


def test_a_text_that_looks_like_the_seed_does_not_change_what_names_a_run() -> None:
    part = {"kind": "module", "path": "mynets:Generator", "code": "mynets@0", "name": '"seed": "SEED"'}
    config = make_config(generator=part, seed=4)
    content = {"config": config.model_dump(mode="json", exclude_defaults=True), "protocol": 5}
    if config.revisions:
        content["revisions"] = list(config.revisions)
    assert config.run_id == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("changes", "revisions"),
    [
        ({"discriminator": {**PART, "minibatch_std": True}}, ["layer_behind_minibatch_std"]),
        (
            {"discriminator": {**PART, "minibatch_std": True, "dropout": 0.3}},
            ["masks_after_networks", "layer_behind_minibatch_std"],
        ),
        ({"augmentation": ["translation"], **OF_SIDE_20}, ["halves_round_up"]),
        ({"augmentation": ["cutout"], **OF_SIDE_20}, []),
        ({"augmentation": ["translation", "cutout"]}, []),
    ],
)
def test_runs_whose_numbers_were_corrected_are_named_anew(changes: dict[str, object], revisions: list[str]) -> None:
    config = make_config(**changes)
    assert list(config.revisions) == revisions
    assert len(config.known_run_ids) == 1 + len(revisions)


PLAIN_D = {"kind": "dcgan", "base_channels": 4, "norm": "none"}
ACCUMULATED = {"generator_gradient": "accumulated"}
CLIPPED = {"kind": "wasserstein", "weight_clip": 0.01}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"penalty": "r1"}, ["penalty = 'r1'", "batch norm mixes", 'discriminator.norm = "none"']),
        ({"penalty": "gradient", "discriminator": {**PLAIN_D, "minibatch_std": True}}, ["minibatch_std mixes"]),
        (
            {"loss": CLIPPED, "discriminator": {**PLAIN_D, "spectral_norm": True}},
            ["loss.weight_clip = 0.01", "use one"],
        ),
        ({"d_steps_per_g_step": 2, "g_steps_per_d_step": 2}, ["g_steps_per_d_step = 2", "valid: 1"]),
        ({"loss": "relativistic", "g_steps_per_d_step": 2}, ["g_steps_per_d_step = 2", "a real image beside it"]),
        ({"augmentation": ["cutout", "cutout"]}, ["augmentation = ['cutout', 'cutout']", "each kind once"]),
        ({"augmentation": ["flip"]}, ["augmentation", "'colour', 'translation' or 'cutout'"]),
        ({"conditional": True}, ["num_classes = None", "comes from the data set"]),
        ({"num_classes": 10}, ["num_classes = 10", "valid: conditional = true"]),
        ({"conditional": True, "num_classes": 10, "loss": "relativistic"}, ["loss", "of different classes"]),
        ({"conditional": True, "num_classes": 10, "mode_seeking_weight": 1.0}, ["mode_seeking_weight = 1.0"]),
        ({"conditional": True, "num_classes": 10, "penalty": "gradient", "discriminator": PLAIN_D}, ["penalty"]),
        ({"matching_aware": False}, ["matching_aware = False", "valid: conditional = true"]),
        ({**ACCUMULATED, "generator_fakes": "fresh"}, ["generator_fakes = 'fresh'", "the same fakes", '"reused"']),
        ({**ACCUMULATED, "update_order": "generator_first"}, ["update_order", "before G's", '"discriminator_first"']),
        ({**ACCUMULATED, "g_steps_per_d_step": 2}, ["g_steps_per_d_step = 2", "before it; valid: 1"]),
        ({**ACCUMULATED, "penalty": "r1_r2", "discriminator": PLAIN_D}, ["penalty = 'r1_r2'", "would reach G"]),
        ({"loss": "wasserstein"}, ["loss = 'wasserstein'", "nothing keeps D from growing", "weight_clip"]),
        ({"loss": CLIPPED, "penalty": "gradient", "discriminator": PLAIN_D}, ["loss.weight_clip = 0.01", "use one"]),
        (
            {"discriminator": {**PLAIN_D, "norm": "group", "norm_groups": 3}},
            ["discriminator.norm_groups = 3", "does not divide the 4 channels"],
        ),
        (
            {"generator": {**PLAIN_D, "norm": "group", "norm_groups": 2, "norm_placement": "all"}},
            ["generator.norm_groups = 2", "does not divide the 1 channels"],
        ),
        (
            {"generator": {"kind": "mlp", "hidden_sizes": [8], "norm": "instance"}},
            ["generator.norm = 'instance'", "valid: none, batch, layer"],
        ),
        ({"generator": {**PLAIN_D, "attention": 8}}, ["generator.attention = 8", "valid: 7, 14"]),
        ({"discriminator": {**PLAIN_D, "minibatch_std_group": 4}}, ["minibatch_std_group = 4", "minibatch_std = true"]),
        (
            {"discriminator": {**PLAIN_D, "minibatch_std": True, "minibatch_std_group": 7}},
            ["minibatch_std_group = 7", "a divisor of batch_size = 64"],
        ),
        ({"ema_rampup": 0.05}, ["ema_rampup = 0.05", "with ema_decay above 0"]),
        ({"ema_buffers": "copied"}, ["ema_buffers = 'copied'", "with ema_decay above 0"]),
        ({"optimizer_g": {"kind": "sgd", "nesterov": True}}, ["optimizer_g", "valid: momentum above 0"]),
        ({"optimizer_g": "adagrad"}, ['optimizer_g = "adagrad"', "valid: adam, adamw, rmsprop, sgd"]),
        (
            {"discriminator": {**PLAIN_D, "downsample": "max_pool"}},
            ["discriminator.kernel_size = 4", "pooling follows a convolution that keeps the size; valid: 3"],
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        make_config(**changes)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"penalty": "r1", "discriminator": PLAIN_D},
        {"loss": CLIPPED},
        {"loss": "wasserstein", "discriminator": {**PLAIN_D, "spectral_norm": True}},
        {"loss": "wasserstein", "penalty": "gradient", "discriminator": PLAIN_D},
        {"conditional": True, "num_classes": 10, "matching_aware": False},
        {"conditional": True, "num_classes": 10, "penalty": "r1", "discriminator": PLAIN_D},
        {**ACCUMULATED, "d_steps_per_g_step": 2, "penalty": "r1", "discriminator": PLAIN_D},
    ],
)
def test_what_goes_together_is_not(changes: dict[str, Any]) -> None:
    assert make_config(**changes).run_id
