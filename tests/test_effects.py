from __future__ import annotations

import math
from pathlib import Path

import pytest

from gan_ablate.effects import Effect, estimate_effects
from gan_ablate.grid import load_grid
from gan_ablate.planning import Cell, plan
from gan_ablate.store import Store, load_results
from tests.synthetic import save_runs

# Seeds differ by far more than variants do: only a paired analysis sees the effects.
SEED_FACTOR = (1.0, 5.0, 2.0, 9.0, 3.0)


def effects_of(tmp_path: Path, grid: str, log_fid: dict[str, float], noise: float = 0.0) -> dict[str, Effect]:
    planned = plan(load_grid(grid), budget="standard")

    def fid(cell: Cell, seed: int) -> float:
        active = [key for key in log_fid if all(f"{f}:{v}" in levels(cell) for f, v in parts(key))]
        return SEED_FACTOR[seed] * math.exp(
            sum(log_fid[key] for key in active) + noise * math.sin(7 * seed + len(active))
        )

    def levels(cell: Cell) -> set[str]:
        return {f"{factor}:{level}" for factor, level in cell.levels.items()}

    def parts(key: str) -> list[tuple[str, str]]:
        return [(part.split(":")[0], part.split(":")[1]) for part in key.split("*")]

    save_runs(Store(tmp_path), planned, fid, step_ms=lambda cell: 20.0 if "batch_norm:off" in levels(cell) else 30.0)
    return {effect.name: effect for effect in estimate_effects(planned, load_results(tmp_path, grid))}


def test_main_effects_and_interaction_are_what_was_planted(tmp_path: Path) -> None:
    planted = {"batch_norm:on": -0.7, "label_smoothing:on": 0.1, "batch_norm:on*label_smoothing:on": 0.4}
    effects = effects_of(tmp_path, "bn_label_smooth", planted)
    # Averaged over the other factor's levels, a main effect contains half the interaction.
    assert effects["batch norm on"].fid.value == pytest.approx(-0.7 + 0.2)
    assert effects["label smoothing on"].fid.value == pytest.approx(0.1 + 0.2)
    interaction = effects["batch norm on × label smoothing on"]
    assert interaction.fid.value == pytest.approx(0.4)
    assert interaction.is_interaction
    assert [effect.fid.num_seeds for effect in effects.values()] == [5, 5, 5]


def test_step_times_are_compared_too(tmp_path: Path) -> None:
    effects = effects_of(tmp_path, "bn_label_smooth", {})
    assert effects["batch norm on"].step_time.as_percent_change().value == pytest.approx(50)
    assert effects["label smoothing on"].step_time.value == pytest.approx(0)


def test_an_effect_smaller_than_the_spread_of_seeds_is_found_by_pairing(tmp_path: Path) -> None:
    effects = effects_of(tmp_path, "bn_label_smooth", {"batch_norm:on": -0.2}, noise=0.01)
    assert effects["batch norm on"].fid.high < 0
    assert effects["batch norm on"].fid.value == pytest.approx(-0.2, abs=0.03)


def test_one_at_a_time_compares_each_level_with_the_baseline(tmp_path: Path) -> None:
    effects = effects_of(tmp_path, "essentials", {"beta1:0.9": 0.5, "dropout:elements-50": -0.3})
    assert effects["beta1 0.9"].fid.value == pytest.approx(0.5)
    assert effects["beta1 0.0"].fid.value == pytest.approx(0)
    assert effects["dropout elements-50"].fid.value == pytest.approx(-0.3)
    assert len(effects) == 10
    assert not any(effect.is_interaction for effect in effects.values())


def test_three_levels_give_two_effects(tmp_path: Path) -> None:
    effects = effects_of(tmp_path, "beta1", {"beta1:0.0": -0.1, "beta1:0.9": 0.6})
    assert effects["beta1 0.0"].fid.value == pytest.approx(-0.1)
    assert effects["beta1 0.9"].fid.value == pytest.approx(0.6)
