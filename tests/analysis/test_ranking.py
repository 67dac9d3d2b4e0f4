from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_ablate.analysis.effects import Effect
from gan_ablate.analysis.ranking import Ranking, rank_effects, surest_effects
from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Cell, plan
from tests.synthetic import make_results

Pairs = Sequence[tuple[GridResults, Effect]]

MOMENTUM = """
base = "dcgan-28"
[factors.momentum]
baseline = "high"
levels.high = { beta1 = 0.9 }
levels.usual = { beta1 = 0.5 }
"""
"""The shipped grid's β1 of 0.9 against 0.5, by other names and from the other side."""

SMOOTHING = """
base = "dcgan-28"
[factors.label_smoothing]
baseline = "off"
levels.off = {}
levels.on = { loss.real_label = 0.9 }
"""
"""Of batch norm and label smoothing, the second alone."""

UNSURE = {"0.0": -0.3, "0.9": -0.3}
"""With a noise of 0.5, what leaves both levels open."""


def results_of(
    grid: str | Path, gain: Callable[[Cell], float], noise: float = 0.005, seeds: int = 6, **options: Any
) -> GridResults:
    """Results of runs whose log FID has this gain and so much noise; where it is NaN they diverged."""
    planned = plan(load_grid(grid), seeds=seeds, **options)

    def fid(cell: Cell, seed: int) -> float | None:
        error = np.random.default_rng([seed, *cell.label.encode()]).normal(0, noise)
        return None if math.isnan(gain(cell)) else 20 * math.exp(gain(cell) + error)

    return make_results(planned, fid)


def gains(**of_levels: dict[str, float]) -> Callable[[Cell], float]:
    """Factor → level → what it adds to log FID."""
    return lambda cell: sum(of_levels.get(factor, {}).get(level, 0.0) for factor, level in cell.levels.items())


def names(pairs: Pairs) -> list[tuple[str, str]]:
    return [(results.name, effect.name) for results, effect in pairs]


def test_effects_are_listed_by_what_they_say_the_largest_first() -> None:
    dropout = {"channels-25": 0.5, "elements-30": 0.05}
    ranking = rank_effects(
        [
            results_of("dropout", gains(dropout=dropout), 0.002),
            results_of("beta1", gains(beta1={"0.0": -0.3, "0.9": 0.9})),
            results_of("architecture", gains(architecture={"dcgan": -0.7})),
            results_of("beta1", gains(beta1=UNSURE), noise=0.5, dataset="fashion-mnist"),
        ]
    )
    assert names(ranking.use) == [("architecture", "architecture dcgan"), ("beta1", "beta1 0.0")]
    assert names(ranking.avoid) == [("beta1", "beta1 0.9"), ("dropout", "dropout channels-25")]
    # Of the second nothing is known but that it is small; the first is an effect, and too small to matter.
    assert names(ranking.indifferent) == [("dropout", "dropout elements-30"), ("dropout", "dropout elements-50")]
    assert sorted(names(ranking.unknown)) == [("beta1@fashion-mnist", f"beta1 {level}") for level in ("0.0", "0.9")]
    sizes = [abs(effect.estimate.value) for _, effect in ranking.unknown]
    assert sizes == sorted(sizes, reverse=True)
    assert ranking.depends == []


def test_what_turns_with_another_factors_level_depends() -> None:
    def gain(cell: Cell) -> float:
        return 0.0 if cell.levels["batch_norm"] == "off" else -0.7 if cell.levels["label_smoothing"] == "off" else 0.4

    ranking = rank_effects([results_of("bn_label_smooth", gain)])
    assert {name for _, name in names(ranking.depends)} == {"batch norm on", "label smoothing on"}
    assert ranking.use == ranking.avoid == ranking.indifferent == ranking.unknown == []


def test_a_smoke_run_says_nothing() -> None:
    smoke = results_of("beta1", gains(beta1={"0.9": 0.9}), budget="smoke")
    assert rank_effects([smoke]) == Ranking()
    assert len(surest_effects([smoke])) == 2


def test_interactions_and_effects_without_a_value_are_not_listed() -> None:
    both = results_of("bn_label_smooth", gains(batch_norm={"on": -0.5}))
    diverged = results_of("beta1", gains(beta1={"0.9": math.nan}))
    found = {name for _, name in names(surest_effects([both, diverged]))}
    assert found == {"batch norm on", "label smoothing on", "beta1 0.0"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_comparison_of_two_grids_is_told_by_the_one_with_more_seeds(order: int) -> None:
    many = results_of("essentials", gains(beta1={"0.9": 0.5}), seeds=4)
    own = results_of("beta1", gains(beta1={"0.9": 0.5}), seeds=6)
    found = names(surest_effects([many, own][::order]))
    assert set(found[:2]) == {("beta1", "beta1 0.0"), ("beta1", "beta1 0.9")}  # the surest first
    assert len(found) == len(set(found)) == 10
    assert {grid for grid, _ in found[2:]} == {"essentials"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_settled_answer_goes_before_more_seeds(order: int) -> None:
    settled = results_of("essentials", gains(beta1={"0.9": 0.5, "0.0": 0.5}), 0.0005, seeds=4)
    still_open = results_of("beta1", gains(beta1=UNSURE), noise=0.5)
    found = names(surest_effects([settled, still_open][::order]))
    assert len(found) == 10
    assert {grid for grid, _ in found} == {"essentials"}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("alone", "surest"), [(0.002, "smoothing"), (0.05, "bn_label_smooth")])
def test_of_as_many_seeds_the_smallest_p_tells_an_effect_that_is_averaged_and_alone(
    tmp_path: Path, alone: float, surest: str, order: int
) -> None:
    path = tmp_path / "smoothing.toml"
    path.write_text(SMOOTHING)
    effect = gains(label_smoothing={"on": 0.5})
    averaged = results_of("bn_label_smooth", effect, noise=0.01)
    found = names(surest_effects([averaged, results_of(path, effect, noise=alone)][::order]))
    assert [grid for grid, name in found if name == "label smoothing on"] == [surest]
    assert len(found) == 2


@pytest.mark.parametrize(("seeds", "surest"), [(4, "beta1"), (8, "momentum")])
def test_the_same_variants_compared_from_the_other_side_are_told_once(tmp_path: Path, seeds: int, surest: str) -> None:
    path = tmp_path / "momentum.toml"
    path.write_text(MOMENTUM)
    one = results_of("beta1", gains(beta1={"0.9": 0.5}))
    other = results_of(path, gains(momentum={"usual": -0.5}), seeds=seeds)
    found = names(surest_effects([one, other]))
    assert len(found) == 2
    assert [grid for grid, name in found if name != "beta1 0.0"] == [surest]


@pytest.mark.parametrize("options", [{"dataset": "fashion-mnist"}, {"steps": 99}, {"base": "dcgan-fc"}])
def test_other_data_another_length_and_another_base_are_other_comparisons(options: dict[str, Any]) -> None:
    one = results_of("beta1", gains(beta1={"0.9": 0.5}))
    other = results_of("beta1", gains(beta1={"0.9": 0.5}), **options)
    assert len(surest_effects([one, other])) == 4


def external_grid(folder: Path, name: str) -> Path:
    (folder / "train.py").touch()
    path = folder / f"{name}.toml"
    command = f'command = ["python", "train.py", "{name}", "{{norm}}", "{{seed}}"]\nsamples = "*.png"'
    factor = 'baseline = "on"\nlevels.on = {}\nlevels.off = {}'
    path.write_text(f"[external]\n{command}\n[factors.norm]\n{factor}", "utf-8")
    return path


def test_scripts_with_the_same_factors_are_different_experiments(tmp_path: Path) -> None:
    helps, harms = (
        results_of(external_grid(tmp_path, name), gains(norm={"off": gain}), allow_code=True)
        for name, gain in (("mine", -0.5), ("other", 0.3))
    )
    ranking = rank_effects([helps, harms])
    assert names(ranking.use) == [("mine", "norm off")]
    assert names(ranking.avoid) == [("other", "norm off")]


@pytest.mark.parametrize(("gain", "words"), [(-0.5, "use"), (0.0, "indifferent")])
@pytest.mark.parametrize("is_collapsed", [False, True])
def test_a_comparison_of_collapsed_runs_is_no_answer(
    tmp_path: Path, gain: float, words: str, is_collapsed: bool
) -> None:
    results = results_of(external_grid(tmp_path, "mine"), gains(norm={"off": gain}), allow_code=True)
    results.runs["collapsed"] = is_collapsed
    results.runs.loc[0, "collapsed"] = not is_collapsed
    ranking = rank_effects([results])
    found = {name: names(getattr(ranking, name)) for name in ("use", "indifferent", "unknown")}
    expected = "unknown" if is_collapsed else words
    assert found == {name: [("mine", "norm off")] if name == expected else [] for name in found}
