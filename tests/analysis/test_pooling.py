from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from gan_ablate.analysis.pooling import Blocks, compare_blocks
from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Variant, plan
from gan_ablate.execution.store import Store
from tests.synthetic import make_results, save_runs

LogEffect = Callable[[str, int], float]
"""A block and a seed → the planted effect of β1 0.9 on log FID."""


def compare(
    effect: LogEffect,
    datasets: tuple[str, ...] = ("mnist-10k", "fashion-mnist"),
    seeds: tuple[int, ...] = (),
    noise: float = 0.03,
) -> Blocks:
    results = []
    for number, dataset in enumerate(datasets):
        planned = plan(load_grid("beta1"), seeds=seeds[number] if seeds else 6, dataset=dataset)

        def fid(variant: Variant, seed: int, number: int = number, dataset: str = dataset) -> float:
            # A block has a level, and a seed a luck, of its own: neither may reach an effect.
            luck = np.random.default_rng(seed).normal(0, 0.5) + 2 * number
            draw = np.random.default_rng([seed, number, len(variant.label), variant.levels["beta1"] == "0.9"])
            error = draw.normal(0, noise)
            return math.exp(3 + luck + error + effect(dataset, seed) * (variant.levels["beta1"] == "0.9"))

        results.append(make_results(planned, fid))
    (blocks,) = compare_blocks(results)
    return blocks


def test_an_effect_that_all_blocks_have_is_pooled() -> None:
    blocks = compare(lambda *_: 0.4, noise=0.01)
    effect = next(e for e in blocks.effects if e.pooled.levels == {"beta1": "0.9"})
    assert effect.decision == "alike"
    assert effect.pooled.decision == "higher"
    assert effect.pooled.estimate.value == pytest.approx(0.4, abs=0.02)
    within = [at.estimate.value for at in effect.within.values()]
    assert effect.pooled.estimate.value == pytest.approx(np.mean(within))
    assert effect.pooled in blocks.pooled
    assert effect.pooled.margin == pytest.approx(math.log(1.1))
    assert [of_block.name for of_block in blocks.results] == ["beta1", "beta1@fashion-mnist"]


def test_an_effect_that_turns_is_not_pooled() -> None:
    blocks = compare(lambda dataset, _: 0.4 if dataset == "mnist-10k" else -0.4)
    effect = next(e for e in blocks.effects if e.pooled.levels == {"beta1": "0.9"})
    assert effect.decision == "differs"
    assert [at.decision for at in effect.within.values()] == ["higher", "lower"]
    assert effect.differences["fashion-mnist", "mnist-10k"].estimate.value == pytest.approx(-0.8, abs=0.05)
    assert effect.pooled not in blocks.pooled
    table = blocks.tabulate()
    averaged = set(table.loc[table["block"] == "all", "effect"])
    assert averaged == {other.pooled.name for other in blocks.effects if other is not effect}


def test_few_seeds_show_neither_difference_nor_agreement() -> None:
    blocks = compare(lambda *_: 0.4, noise=0.3)
    assert {effect.decision for effect in blocks.effects} == {"inconclusive"}
    assert len(blocks.pooled) == len(blocks.effects)


def test_differences_are_paired_by_seed() -> None:
    """A luck that an effect shares over blocks cancels, and the difference is that of SciPy's paired test."""
    blocks = compare(lambda dataset, seed: 0.5 * math.sin(seed) + 0.2 * (dataset == "fashion-mnist"))
    effect = next(e for e in blocks.effects if e.pooled.levels == {"beta1": "0.9"})
    one, other = ([float(a - b) for a, b in at.sides] for at in effect.within.values())
    difference = effect.differences["fashion-mnist", "mnist-10k"].estimate
    assert difference.p == pytest.approx(stats.ttest_rel(other, one).pvalue)
    assert difference.p < 0.01 < stats.ttest_ind(other, one).pvalue


def test_only_seeds_that_all_blocks_have_are_compared() -> None:
    blocks = compare(lambda dataset, seed: 0.4 * math.sin(seed + len(dataset)), seeds=(8, 5))
    effect = next(e for e in blocks.effects if e.pooled.levels == {"beta1": "0.9"})
    one, other = ([float(a - b) for a, b in at.sides] for at in effect.within.values())
    assert effect.pooled.estimate.value == pytest.approx(np.mean(one[:5] + other))
    difference = effect.differences["fashion-mnist", "mnist-10k"].estimate
    assert difference.p == pytest.approx(stats.ttest_rel(other, one[:5]).pvalue)
    assert [at.estimate.num_seeds for at in effect.within.values()] == [8, 5]
    assert effect.pooled.estimate.num_seeds == 5
    assert {by.estimate.num_seeds for by in effect.differences.values()} == {5}


def test_of_three_blocks_every_two_are_compared() -> None:
    datasets = ("mnist-10k", "fashion-mnist", "mnist")
    blocks = compare(lambda dataset, _: 0.5 * (dataset == "mnist"), datasets)
    assert len(blocks.names) == 3
    effect = next(e for e in blocks.effects if e.pooled.levels == {"beta1": "0.9"})
    found = {frozenset(pair) for pair, by in effect.differences.items() if by.is_found}
    assert found == {frozenset(("mnist", "mnist-10k")), frozenset(("mnist", "fashion-mnist"))}
    assert effect.decision == "differs"


def test_blocks_agree_only_if_every_pair_does() -> None:
    """Two agree to a hair; of the third nothing is known."""
    datasets = ("mnist-10k", "fashion-mnist", "mnist")
    wild = np.random.default_rng(0).normal(0, 1, 6)
    blocks = compare(lambda name, seed: wild[seed] * (name == "mnist"), datasets, noise=0.005)
    effect = next(e for e in blocks.effects if e.pooled.levels == {"beta1": "0.9"})
    assert [by.decision for by in effect.differences.values()].count("negligible") == 1
    assert effect.decision == "inconclusive"


def test_runs_of_other_lengths_and_of_other_grids_are_no_blocks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    save_runs(store, plan(load_grid("beta1")), lambda *_: 20.0)
    save_runs(store, plan(load_grid("beta1"), dataset="fashion-mnist", steps=99), lambda *_: 20.0)
    save_runs(store, plan(load_grid("dropout")), lambda *_: 20.0)
    assert compare_blocks(GridResults.load(store, name) for name in store.list_plans()) == []


def test_levels_that_only_share_a_name_are_no_blocks(tmp_path: Path) -> None:
    store, grid = Store(tmp_path), load_grid("beta1")
    save_runs(store, plan(grid), lambda _, seed: 20.0 + seed)
    levels = {**grid.factors["beta1"].levels, "0.9": {"beta1": 0.99}}
    factors = {"beta1": grid.factors["beta1"].model_copy(update={"levels": levels})}
    other = plan(grid.model_copy(update={"factors": factors}), dataset="fashion-mnist")
    save_runs(store, other, lambda _, seed: 20.0 + seed)
    assert compare_blocks(GridResults.load(store, name) for name in store.list_plans()) == []


@pytest.mark.slow
def test_equal_effects_are_seldom_found_different() -> None:
    num_wrong = 0
    for number in range(60):
        blocks = compare(lambda *_: 0.1, noise=0.1 + number / 1e3)
        num_wrong += any(effect.decision == "differs" for effect in blocks.effects)
    assert num_wrong <= stats.binom.ppf(0.999, 60, 0.05)


def test_the_table_has_every_block_every_difference_and_what_may_be_pooled() -> None:
    blocks = compare(lambda dataset, _: 0.5 * (dataset == "fashion-mnist"))
    table = blocks.tabulate()
    shared, turned = blocks.effects
    assert (shared.decision != "differs", turned.decision) == (True, "differs")
    by_place = {(row["effect"], row["block"], row["against"]): row["value"] for row in table.to_dict("records")}
    one, other = "mnist-10k", "fashion-mnist"
    expected = {
        ("beta1 0.0", one, ""): shared.within[one].estimate.value,
        ("beta1 0.0", other, ""): shared.within[other].estimate.value,
        ("beta1 0.0", other, one): shared.within[other].estimate.value - shared.within[one].estimate.value,
        ("beta1 0.0", "all", ""): (shared.within[other].estimate.value + shared.within[one].estimate.value) / 2,
        ("beta1 0.9", one, ""): turned.within[one].estimate.value,
        ("beta1 0.9", other, ""): turned.within[other].estimate.value,
        ("beta1 0.9", other, one): turned.within[other].estimate.value - turned.within[one].estimate.value,
    }
    assert by_place == pytest.approx(expected)
    assert list(table.columns[:2]) == ["block", "against"]


@pytest.mark.parametrize("grows", [(False, False), (True, False), (False, True)])
def test_intervals_hold_at_every_look_where_those_of_any_block_do(grows: tuple[bool, bool]) -> None:
    results = []
    for dataset, does_grow in zip(("mnist-10k", "fashion-mnist"), grows, strict=True):
        planned = plan(load_grid("beta1"), seeds=5, dataset=dataset)
        noise = np.random.default_rng(len(dataset)).normal(0, 0.05, (5, 3))
        labels = [variant.label for variant in planned.variants]

        def fid(variant: Variant, seed: int, noise: NDArray[np.float64] = noise, labels: list[str] = labels) -> float:
            return 20 * math.exp(float(noise[seed, labels.index(variant.label)]))

        intervals = "sequential" if does_grow else "fixed"
        results.append(make_results(planned.model_copy(update={"intervals": intervals}), fid))
    (blocks,) = compare_blocks(results)
    for effect in blocks.effects:
        assert effect.pooled.is_fixed is not any(grows)
        assert {by.is_fixed for by in effect.differences.values()} == {not any(grows)}


@pytest.mark.parametrize(
    ("changes", "compares"),
    [
        ({}, True),
        ({"title": "Another title", "question": "Another question?", "claims": []}, True),
        ({"name": "another"}, False),
        ({"design": "one-at-a-time"}, False),
        ({"set": {"batch_size": 32}}, False),
        ({"margin": 0.2}, False),
    ],
)
def test_blocks_are_of_grids_that_differ_in_words_alone(changes: dict[str, object], *, compares: bool) -> None:
    one, other = plan(load_grid("beta1")), plan(load_grid("beta1"), dataset="fashion-mnist")
    other = other.model_copy(update={"grid": other.grid.model_copy(update=changes)})
    results = [make_results(planned, lambda _, seed: 20.0 + seed) for planned in (one, other)]
    assert len(compare_blocks(results)) == compares


def test_smoke_runs_and_runs_without_scores_are_no_blocks() -> None:
    for budget, fid in (("smoke", 20.0), ("standard", None)):
        plans = [plan(load_grid("beta1"), budget=budget, dataset=name) for name in ("mnist-10k", "fashion-mnist")]  # type: ignore[arg-type]
        assert compare_blocks(make_results(planned, lambda *_, fid=fid: fid) for planned in plans) == []


def test_a_block_with_a_mixture_of_collapse_is_compared_by_signs() -> None:
    """One of eight runs collapsed in the second block, with e times the FID: neither median moves with it."""
    blocks = compare(lambda dataset, seed: 0.4 + (dataset == "fashion-mnist" and seed == 0), seeds=(10, 10))
    second = blocks.results[1]
    is_lost = (second.runs["beta1"] == "0.9") & (second.runs["seed"] == 0)
    lost = dataclasses.replace(second, runs=second.runs.assign(collapsed=is_lost))
    (told,) = compare_blocks([blocks.results[0], lost])
    effect = next(e for e in told.effects if e.pooled.levels == {"beta1": "0.9"})
    (difference,) = effect.differences.values()
    assert [at.basis for at in effect.within.values()] == ["mean", "median"]
    assert (effect.pooled.basis, effect.pooled.decision, difference.basis) == ("median", "higher", "median")
    one, other = ([float(a - b) for a, b in at.sides] for at in effect.within.values())
    assert effect.pooled.estimate.value == pytest.approx(np.median(np.mean([one, other], axis=0)))
    assert difference.estimate.value == pytest.approx(np.median(np.subtract(other, one)))
