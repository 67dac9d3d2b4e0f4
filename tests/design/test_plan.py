from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gan_ablate.design.gan import NormalInit
from gan_ablate.design.grid import (
    list_grids,
    load_grid,
    read_preset,
)
from gan_ablate.design.plan import Plan, plan
from gan_ablate.design.validation import validate
from gan_ablate.errors import UserError
from tests.design.test_grid import FACTORIAL, GRID, write


@pytest.mark.parametrize("name", list_grids())
def test_every_shipped_grid_plans_at_every_budget(name: str) -> None:
    smoke, standard, full = (plan(load_grid(name), budget=budget) for budget in ("smoke", "standard", "full"))
    costs = [len(p.seeds) * p.variants[0].config.steps for p in (smoke, standard, full)]
    assert costs == sorted(costs)
    assert len(standard.seeds) >= 3
    assert len({config.run_id for _, config in standard.runs}) == len(standard.variants) * len(standard.seeds)


def test_a_factorial_design_has_every_combination_the_baseline_first(tmp_path: Path) -> None:
    planned = plan(load_grid(write(tmp_path, FACTORIAL)))
    assert [tuple(variant.levels.values()) for variant in planned.variants] == [
        ("x", "n"), ("x", "m"), ("y", "n"), ("y", "m"), ("z", "n"), ("z", "m"),
    ]  # fmt: skip
    assert planned.variants[5].trained.beta1 == 0.9
    assert planned.variants[5].trained.init == NormalInit(kind="normal", std=0.05)


def test_a_one_at_a_time_design_changes_one_factor_a_variant(tmp_path: Path) -> None:
    planned = plan(load_grid(write(tmp_path, 'design = "one-at-a-time"\n' + FACTORIAL)))
    assert [tuple(variant.levels.values()) for variant in planned.variants] == [
        ("x", "n"),
        ("y", "n"),
        ("z", "n"),
        ("x", "m"),
    ]
    assert [variant.label for variant in planned.variants] == ["baseline", "a y", "a z", "b m"]


def test_two_grids_share_the_runs_of_a_common_variant() -> None:
    dropout, beta1 = (plan(load_grid(name)) for name in ("dropout", "beta1"))
    assert dropout.baseline.config.run_id == beta1.baseline.config.run_id


def test_a_level_may_name_another_preset() -> None:
    mlp = next(c for c in plan(load_grid("architecture")).variants if c.levels["architecture"] == "mlp")
    assert mlp.trained.generator.kind == "mlp"
    assert mlp.trained.generator_fakes == "fresh"


def test_options_lie_over_the_grid() -> None:
    planned = plan(
        load_grid("beta1"), budget="smoke", seeds=4, steps=7, dataset="fashion-mnist", overrides=["init=default"]
    )
    config = planned.baseline.trained
    assert (planned.seeds, config.steps, config.dataset) == ((0, 1, 2, 3), 7, "fashion-mnist")
    assert config.scoring.features == "fashion"
    assert config.init.kind == "default"


def test_a_grids_own_budget_comes_before_the_shared_one(tiny_grid: Path) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    assert planned.baseline.config.steps == 10
    assert planned.baseline.config.scoring.num_samples == 1_280


def test_a_plan_survives_json() -> None:
    planned = plan(load_grid("essentials"))
    assert validate(Plan, planned.model_dump(mode="json"), "json") == planned


def test_options_win_over_the_grids_own_settings(tmp_path: Path) -> None:
    path = write(tmp_path, FACTORIAL + '[set]\ndataset = "mnist"\nbatch_size = 32')
    assert plan(load_grid(path)).baseline.config.dataset == "mnist"
    config = plan(load_grid(path), dataset="fashion-mnist", overrides=["batch_size=16"]).baseline.trained
    assert (config.dataset, config.scoring.features, config.batch_size) == ("fashion-mnist", "fashion", 16)


def test_variants_that_would_be_called_the_same_are_refused(tmp_path: Path) -> None:
    text = 'base = "mlp"\ndesign = "one-at-a-time"\n'
    for name, level, beta1 in (("f", "x b", 0.9), ('"f x"', "b", 0.8)):
        text += f'[factors.{name}]\nbaseline = "a"\nlevels.a = {{}}\nlevels."{level}" = {{ beta1 = {beta1} }}\n'
    with pytest.raises(UserError, match="two variants are called 'f x b'"):
        plan(load_grid(write(tmp_path, text)))


def test_too_few_samples_for_the_features_are_refused() -> None:
    words = (
        "scoring.num_samples = 50: too few for the 64 features of digits; valid: at least 1,280, 20 for each feature"
    )
    with pytest.raises(UserError, match=re.escape(words)):
        plan(load_grid("beta1"), overrides=["scoring.num_samples=50"])
    scoring = plan(load_grid("beta1"), budget="smoke", features="inception").baseline.trained.scoring
    assert (scoring.num_samples, scoring.curve_samples) == (4096, 4096)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": 0}, "--seeds 0: valid: a whole number from 1"),
        ({"steps": -5}, "--steps -5: valid"),
        ({"budget": "huge"}, "--budget huge: no such budget"),
        ({"overrides": ["beta1"]}, "--set beta1: valid: path=value"),
        ({"overrides": ["seed=3"]}, "--seeds"),
        ({"overrides": ["beta1=0.3"]}, "or do --set or --dataset override them"),
        ({"seeds": 10**12}, "--seeds 1000000000000: valid: a whole number from 1 to 10000"),
        ({"overrides": ["beta1=0.9\nx=3"]}, "one line with one value"),
        ({"overrides": ["scoring=digits"]}, 'scoring = "digits"'),
        ({"overrides": ["latent_dim=10000000"]}, "latent_dim = 10000000: should be less than or equal to 65536"),
        ({"dataset": "folder:"}, "which folder"),
        ({"dataset": "folder:~nobody-of-that-name"}, "no such folder"),
        ({"dataset": "folder:/nowhere"}, "folder:/nowhere: no such folder"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as refused:
        plan(load_grid("beta1"), **options)  # type: ignore[arg-type]
    assert words in refused.value.with_options


@pytest.mark.parametrize(
    ("where", "options", "origin"),
    [
        ("[set]\nbatch_size = 1\n", {}, "own.toml, [set]: batch_size = 1"),
        ("[set]\ngenerator.activation = 'rely'\n", {}, "own.toml, [set]: generator.activation = "),
        ("[set]\nbatch_size = 1\n", {"overrides": ["batch_size=0"]}, "--set batch_size=0: batch_size = 0"),
        ("", {"overrides": ["generator.width=0"]}, "--set generator.width=0: generator.width = 0"),
        ("", {"overrides": [f"beta1={'9' * 5_000}"]}, "--set beta1=999"),
        ("", {"overrides": [f"{'a.' * 3_000}a=1"]}, "more than 20 tables deep"),
        ("", {"dataset": "mnits"}, "--dataset mnits: dataset = 'mnits'"),
        ("[factors.size]\nbaseline = 'a'\nlevels.a = {}\nlevels.b = { batch_size = 1 }\n", {},
         "own.toml, level smoothing.off, size.b: batch_size = 1"),
        ("[set]\nbatch_size = 8\n[factors.size]\nbaseline = 'a'\nlevels.a = {}\nlevels.b = { batch_size = 1 }\n", {},
         "own.toml, level smoothing.off, size.b: batch_size = 1"),
    ],
)  # fmt: skip
def test_what_set_a_wrong_value_is_named(tmp_path: Path, where: str, options: dict[str, Any], origin: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GRID + where, "utf-8")
    with pytest.raises(UserError) as refused:
        plan(load_grid(path), **options)
    assert origin in refused.value.with_options
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ('"normal", "Normal"', "blocks.latent_distribution: 'normal' and 'Normal' look alike"),
        ('"a_b", "a b"', "blocks.latent_distribution: 'a_b' and 'a b' look alike"),
    ],
)
def test_blocks_that_look_alike_are_refused(tmp_path: Path, values: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        load_grid(write(tmp_path, f"{FACTORIAL}[blocks]\nlatent_distribution = [{values}]\n"))
    assert words in str(refused.value)


def test_a_preset_is_parsed_once_for_all_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write(tmp_path, FACTORIAL)
    read_preset.cache_clear()
    parsed: list[str] = []

    def count(text: str) -> dict[str, Any]:
        parsed.append(text)
        return tomllib.loads(text)

    grid = load_grid(text)
    monkeypatch.setattr("gan_ablate.design.grid.tomllib", SimpleNamespace(loads=count))
    first, second = plan(grid), plan(grid)
    assert len(parsed) <= 1
    assert first.variants == second.variants


def test_more_runs_than_can_be_held_are_refused(tmp_path: Path) -> None:
    levels = "\n".join(f"levels.l{i} = {{ beta1 = {i / 1000} }}" for i in range(101))
    path = write(tmp_path, f'base = "mlp"\n[factors.f]\nbaseline = "l0"\n{levels}\n')
    with pytest.raises(UserError) as refused:
        plan(load_grid(path), seeds=10_000)
    words = "101 variants × 10,000 seeds are 1,010,000 runs; valid: at most 1,000,000, here 9,900 seeds"
    assert str(refused.value) == f"{path}: {words}"


def test_notebook_shows_a_plan_as_a_table() -> None:
    shown = plan(load_grid("beta1"), budget="smoke", seeds=2)._repr_html_()
    assert shown.count("<tr>") == shown.count("</tr>") == 4
    for words in ("<b>Adam's β1</b>".replace("'", "&#x27;"), "3 variants, 6 runs, budget smoke", "<th>beta1</th>"):
        assert words in shown
