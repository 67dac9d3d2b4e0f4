from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gan_ablate.cli.inspect import KINDS
from gan_ablate.design.config import NOT_IN_LEVELS, RunConfig, find_fields, list_fields
from gan_ablate.design.datasets import DATASETS
from gan_ablate.design.grid import DEFAULT_BUDGETS, list_grids, list_presets, load_grid
from gan_ablate.design.networks import list_layers
from gan_ablate.design.plan import plan
from gan_ablate.design.resolve import plan_run
from gan_ablate.design.settings import find_levels
from gan_ablate.execution.store import Store
from gan_ablate.training.models import build_discriminator, build_generator
from tests.calls import call
from tests.synthetic import save_runs


def test_every_field_of_a_run_is_listed_but_those_that_levels_cannot_set() -> None:
    paths = {field.path.split(".")[0] for field in list_fields()}
    assert paths == set(RunConfig.model_fields) - set(NOT_IN_LEVELS)
    norms = "none | batch | instance | layer | group | pixel"
    assert ("generator.norm", norms) in [(field.path, field.valid) for field in list_fields()]


def test_every_field_says_what_it_means() -> None:
    assert [field.path for field in list_fields() if not field.meaning] == []
    assert [field.path for field in list_fields() for what in field.kinds.values() if not what] == []


def test_a_field_is_found_by_its_path_or_the_end_of_it() -> None:
    assert [field.path for field in find_fields("weight_clip")] == ["loss.weight_clip"]
    (loss,) = find_fields("loss")
    assert loss.kinds["hinge"].startswith("D's output above 1")
    assert [field.default for field in find_fields("discriminator.spectral_norm")] == ["false"]
    assert [field.path for field in find_fields("norm")] == ["generator.norm", "discriminator.norm"]
    assert find_fields("bach_size") == []


def test_the_levels_of_shipped_grids_that_set_a_field_are_found() -> None:
    levels = [(level.grid, level.level, level.value) for level in find_levels("generator_fakes")]
    assert ("update_rule", "fresh", '"fresh"') in levels
    losses = {level.level: level.value for level in find_levels("loss") if level.grid == "remedies"}
    assert losses["WGAN"] == '{ kind = "wasserstein", weight_clip = 0.01 }'


NARROW = 80
"""Columns of a terminal, and what rich takes for a pipe's."""


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return what ``list`` prints on 80 columns."""

    def show(*arguments: str) -> str:
        monkeypatch.setitem(os.environ, "COLUMNS", str(NARROW))
        assert call(monkeypatch, "list", *arguments) == 0
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize(
    "what", [[], *([kind] for kind in KINDS), *([name] for name in (*list_grids(), *list_presets()))]
)
def test_nothing_is_cut_at_80_columns(what: list[str], listed: Callable[..., str]) -> None:
    output = listed(*what)
    assert "…" not in output
    assert max(len(line) for line in output.splitlines()) <= NARROW


def test_the_overview_is_short_and_names_all_grids_presets_and_data_sets(listed: Callable[..., str]) -> None:
    output = listed()
    for name in (*list_grids(), *list_presets(), *DATASETS, *DEFAULT_BUDGETS, *KINDS, "documents"):
        assert name in output
    assert "1,500 steps × 5 seeds, 10,000 images scored: about" in output
    assert len(output.splitlines()) < 60


def test_every_field_is_listed_whole(listed: Callable[..., str]) -> None:
    lines = [line.strip() for line in listed("fields").splitlines()]
    assert [field.path for field in list_fields() if field.path not in lines] == []


def test_a_grid_is_listed_with_its_base_and_what_each_level_sets(listed: Callable[..., str]) -> None:
    output = " ".join(listed("normalisation").split())
    for words in (
        "base preset dcgan-28",
        "one-at-a-time: each level against one baseline, 7 variants",
        "paper (baseline) on all layers but G's last and D's first nothing: the base as it is",
        'none generator.norm = "none" discriminator.norm = "none"',
        "C20b Batch norm's eps and its initial scale do not matter",
        "gan-ablate run --grid normalisation",
    ):
        assert words in output


def test_a_grid_file_is_listed_by_its_path(listed: Callable[..., str], tiny_grid: Path) -> None:
    output = listed(tiny_grid.name)
    assert "loss.real_label = 0.9" in output
    assert "budget smoke" in output
    assert "gan-ablate run --grid tiny.toml" in output


def test_a_preset_is_listed_with_its_settings_and_layers(listed: Callable[..., str]) -> None:
    output = listed("dcgan-28")
    for words in ("batch_size = 64", 'generator.activation = "relu"', "lr_g = 0.0002", "32×14×14", "stride 2, tanh"):
        assert words in output


@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        *((preset, []) for preset in list_presets()),
        ("dcgan-28", ["discriminator.minibatch_std=true", "discriminator.head=average_pool", "generator.stem=conv"]),
        ("dcgan-28", ["discriminator.downsample=max_pool", "discriminator.kernel_size=3", "generator.output=conv"]),
        ("mlp", ["conditional=true", "discriminator.minibatch_std=true"]),
    ],
)
def test_listed_layers_have_the_sizes_of_the_networks(preset: str, fields: list[str]) -> None:
    config = plan_run(preset, overrides=fields).config
    images, sizes = torch.zeros(2, config.num_inputs_g), []
    for network in (build_generator(config).eval(), build_discriminator(config).eval()):
        found: list[int] = []
        for name, part in network.named_children():
            if name.rstrip("0123456789") in ("stem", "hidden", "up", "down", "block", "minibatch_std", "output"):
                part.register_forward_hook(lambda _, __, given, found=found: found.append(given[0].numel()))
        with torch.no_grad():
            images = network(images)
        sizes.append(found)
    listed = [[math.prod(map(int, layer.size.split("×"))) for layer in layers[1:]] for layers in list_layers(config)]
    assert listed == sizes


def test_a_data_set_is_listed_with_its_size_classes_and_extractor(listed: Callable[..., str]) -> None:
    output = listed("fashion-mnist")
    for words in ("60,000 to train", "28×28, grey", "classes    10", "fashion: 64 features"):
        assert words in output
    assert "--features inception" in listed("cifar10")


def test_a_name_of_a_grid_and_a_field_shows_both(listed: Callable[..., str]) -> None:
    output = listed("batch_size")
    assert "Grid batch_size: " in output
    assert "Field batch_size: integer" in output


def test_a_claim_is_listed_with_what_tests_it_and_where_verdicts_are(listed: Callable[..., str]) -> None:
    output = " ".join(listed("C4").split())
    assert "Tested by grid normalisation: gan-ablate run --grid normalisation" in output
    assert "oscillation is higher with batch_norm_layers all than with batch_norm_layers paper" in output
    assert "no grid was run into results yet; see the finished study: --out" in output
    assert "results/study" in output


@pytest.mark.parametrize(
    ("name", "near"),
    [("bach_size", "batch_size"), ("normalization", "normalisation"), ("dcgan28", "dcgan-28"), ("minst", "mnist")],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, near: str
) -> None:
    assert call(monkeypatch, "list", name) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"list {name}: no such grid" in line
    assert near in line.partition("did you mean")[2]


def test_list_shows_the_verdict_of_every_claim(listed: Callable[..., str]) -> None:
    planned = plan(load_grid("bn_label_smooth"))
    save_runs(
        Store(Path("results")),
        planned,
        lambda variant, seed: 20.0 + seed / 9 + 20 * (variant.levels["batch_norm"] == "off"),
    )
    lines = [line.strip() for line in listed("claims").splitlines()]
    assert "bn_label_smooth: supported" in lines
    assert "learning_rate: not run yet" in lines
    ids = [line.split()[0] for line in lines if line[:1] == "C" and line[1:2].isdigit()]
    assert ids.index("C2") < ids.index("C10")
    assert "Verdict in results: supported" in listed("C2")
