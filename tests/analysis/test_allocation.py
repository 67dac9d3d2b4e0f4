from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gan_ablate.analysis.allocation import (
    FUTILE_SEEDS,
    Allocation,
    InterimAnalysis,
    SequentialState,
    first_look,
    replay_looks,
)
from gan_ablate.analysis.sequential import critical_t
from gan_ablate.analysis.table import tabulate_runs
from gan_ablate.design.claims import Claim
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, Variant, plan
from gan_ablate.execution.context import RunObserver
from gan_ablate.execution.store import Store
from gan_ablate.reporting.run_sentences import settled_sentence
from tests.synthetic import make_record, save_runs

MOST = 30


def scored(grid: str, gains: dict[str, float], noise: float = 0.06) -> tuple[Plan, pd.DataFrame]:
    """A plan of as many seeds as may be spent, and what all of its runs would score."""
    planned = plan(load_grid(grid), seeds=MOST)
    errors = {
        variant.label: np.random.default_rng(i).normal(0, noise, MOST) for i, variant in enumerate(planned.variants)
    }

    def fid(variant: Variant, seed: int) -> float | None:
        gain = sum(gains.get(f"{factor}:{level}", 0.0) for factor, level in variant.levels.items())
        return None if math.isnan(gain) else 20 * math.exp(gain + errors[variant.label][seed])

    records = [
        (variant.levels, variant.label, make_record(variant, config.seed, fid(variant, config.seed)))
        for variant, config in planned.runs
    ]
    return planned, tabulate_runs(planned, records)


def reveal(planned: Plan, runs: pd.DataFrame) -> tuple[SequentialState, list[set[tuple[str, int]]]]:
    """Give the runs that are asked for, and no others, until none is."""
    given: set[tuple[str, int]] = set()
    waves: list[set[tuple[str, int]]] = []
    keys = pd.Series(list(zip(runs["variant"], runs["seed"], strict=True)))
    while True:
        state = replay_looks(planned, runs.loc[keys.isin(given)])
        if state.is_over:
            return state, waves
        wanted = {(variant.label, config.seed) for variant, config in state.plan.runs} - given
        assert wanted
        waves.append(wanted)
        given |= wanted


def test_seeds_are_added_until_every_main_effect_is_decided() -> None:
    planned, runs = scored("dropout", {"dropout:channels-25": 0.4})
    state, waves = reveal(planned, runs)
    assert state.looks[-1].open_effects == []
    assert len(state.looks[-1].effects) == 3
    answers = {effect.levels["dropout"]: effect.decision for effect in state.looks[-1].effects}
    assert answers == {"channels-25": "higher", "elements-30": "negligible", "elements-50": "negligible"}
    assert first_look(planned) < len(state.plan.seeds) < MOST
    assert len(waves) == len(state.looks)


def test_only_variants_that_an_open_effect_needs_get_another_seed() -> None:
    planned, runs = scored("dropout", {"dropout:channels-25": 0.4})
    state, waves = reveal(planned, runs)
    names = [[effect.name for effect in look.open_effects] for look in state.looks]
    number = next(number for number, of_look in enumerate(names) if "dropout channels-25" not in of_look)
    at = state.looks[number].num_seeds
    assert at < state.looks[-1].num_seeds
    later = [wanted for wanted in waves if min(seed for _, seed in wanted) >= at]
    assert later
    assert all("dropout channels-25" not in {label for label, _ in wanted} for wanted in later)
    assert all(planned.baseline.label in {label for label, _ in wanted} for wanted in later)
    assert state.plan.stopped["dropout channels-25"] == at
    assert state.plan.num_runs == sum(map(len, waves))


def test_first_look_comes_when_an_effect_could_be_decided() -> None:
    planned, runs = scored("dropout", {})
    first = first_look(planned)
    assert math.isinf(critical_t(first - 1, 1 - 0.05 / 3))
    assert math.isfinite(critical_t(first, 1 - 0.05 / 3))
    _, waves = reveal(planned, runs)
    assert len(waves[0]) == 4 * first


def test_runs_that_no_look_asked_for_change_nothing() -> None:
    planned, runs = scored("dropout", {"dropout:channels-25": 0.4})
    step_by_step, _ = reveal(planned, runs)
    at_once = replay_looks(planned, runs.sample(frac=1, random_state=0))
    assert at_once.plan == step_by_step.plan
    for mine, theirs in zip(at_once.looks, step_by_step.looks, strict=True):
        assert [e.adjusted for e in mine.effects] == [e.adjusted for e in theirs.effects]


def test_no_more_seeds_are_spent_than_allowed() -> None:
    planned, runs = scored("dropout", {}, noise=1.0)
    state, _ = reveal(planned.model_copy(update={"seeds": planned.seeds[:8]}), runs)
    assert state.is_over
    assert len(state.plan.seeds) == 8
    assert len(state.looks[-1].open_effects) == 3


def test_what_a_claim_rests_on_is_a_question_too() -> None:
    planned, runs = scored("beta1", {"beta1:0.9": 0.5, "beta1:0.0": 0.5}, noise=0.01)
    questions = {(effect.outcome.name, effect.name) for effect in replay_looks(planned, runs).looks[0].effects}
    assert questions == {("fid", "beta1 0.0"), ("fid", "beta1 0.9"), ("oscillation", "beta1 0.9")}


def test_a_level_whose_runs_all_diverge_does_not_eat_every_seed() -> None:
    planned, runs = scored("dropout", {"dropout:channels-25": math.nan}, noise=0.01)
    state, _ = reveal(planned, runs)
    assert state.is_over
    assert len(state.plan.seeds) == 8  # the first at which the signs of three effects can tell
    assert not state.looks[-1].futile_effects


def test_an_effect_with_few_values_is_given_up() -> None:
    planned, runs = scored("dropout", {}, noise=1.0)
    state, _ = reveal(planned.model_copy(update={"seeds": planned.seeds[:4]}), runs)
    few = tuple(effect for effect in state.looks[-1].effects if effect.decision == "inconclusive")
    assert InterimAnalysis(2 * 4, few).futile_effects == []
    look = InterimAnalysis(FUTILE_SEEDS, few)
    assert look.futile_effects == list(few)
    given_up = dataclasses.replace(state, looks=(look,))
    assert "; given up, as its runs have no scores or the same ones: dropout" in settled_sentence(given_up)


def test_levels_with_equal_scores_get_no_more_seeds() -> None:
    planned = plan(load_grid("dropout"), seeds=MOST)
    records = [(c.levels, c.label, make_record(c, config.seed, 20.0 + config.seed)) for c, config in planned.runs]
    state = replay_looks(planned, tabulate_runs(planned, records))
    assert state.is_over
    assert len(state.plan.seeds) == first_look(planned)
    assert len(state.looks[-1].futile_effects) == 3


@pytest.mark.parametrize("design", ["bn_label_smooth", "conditional"])
def test_interactions_are_reported_and_add_no_seeds(design: str) -> None:
    planned, runs = scored(design, {})
    assert not any(effect.is_interaction for effect in replay_looks(planned, runs).looks[0].effects)


@pytest.mark.parametrize(
    ("of_look", "with_value", "std", "is_futile"),
    [
        (10, 5, 0.1, False),  # half of the seeds have a value
        (10, 4, 0.1, True),
        (9, 1, 0.1, False),  # too early to give up
        (4, 4, 0.0, True),
        (4, 3, 0.0, False),  # three that agree may be luck
    ],
)
def test_an_effect_is_given_up_where_few_seeds_have_values_or_enough_agree(
    of_look: int, with_value: int, std: float, *, is_futile: bool
) -> None:
    planned, runs = scored("dropout", {}, noise=1.0)
    effect = replay_looks(planned, runs).looks[0].effects[0]
    assert effect.decision == "inconclusive"
    estimate = dataclasses.replace(effect.estimate, num_seeds=with_value, std=std)
    look = InterimAnalysis(of_look, (dataclasses.replace(effect, estimate=estimate),))
    assert len(look.futile_effects) == is_futile
    assert len(look.open_effects) == (not is_futile)


def test_before_any_run_there_is_no_look_and_all_of_the_first_is_wanted() -> None:
    planned, runs = scored("dropout", {})
    state = replay_looks(planned, runs.iloc[:0])
    assert (state.looks, state.is_over) == ((), False)
    assert state.plan.num_runs == 4 * first_look(planned)
    assert state.plan.intervals == "sequential"
    assert state.plan.until_settled


def test_runs_of_unplanned_seeds_are_ignored() -> None:
    planned, runs = scored("dropout", {"dropout:channels-25": 0.4})
    fewer = planned.model_copy(update={"seeds": planned.seeds[:8]})
    expected = replay_looks(fewer, runs.loc[runs["seed"] < 8])
    for mine, theirs in zip(replay_looks(fewer, runs).looks, expected.looks, strict=True):
        assert [e.estimate for e in mine.effects] == [e.estimate for e in theirs.effects]


def test_where_only_a_comparison_with_a_value_is_open_the_baseline_alone_goes_on() -> None:
    planned, runs = scored("dropout", {"dropout:channels-25": 0.9}, noise=0.001)
    claim = Claim.model_validate(
        {"sentence": "It is there", "outcome": "d_fake_end", "direction": "none", "against": 0.3, "margin": 0.05}
    )
    planned = planned.model_copy(update={"grid": planned.grid.model_copy(update={"claims": [claim]})})
    runs["d_fake_end"] = 0.3 + np.random.default_rng(0).normal(0, 0.05, len(runs))
    state = replay_looks(planned, runs)
    first, *later = state.looks
    assert [effect.name for effect in first.open_effects] == ["the baseline against 0.3"]
    assert later
    others = {variant.label: first_look(planned) for variant in planned.variants[1:]}
    assert state.plan.stopped == others


def test_a_shared_run_that_failed_before_is_listed_once_and_no_grid_goes_on_without_it(tmp_path: Path) -> None:
    store, planned = Store(tmp_path), plan(load_grid("dropout"), seeds=MOST)
    twin = planned.model_copy(update={"grid": planned.grid.model_copy(update={"name": "twin"})})
    few = planned.model_copy(update={"seeds": planned.seeds[:5]})
    save_runs(store, few, lambda variant, seed: 20.0 + 5 * math.sin(7 * seed + len(variant.label)))
    first = make_record(planned.baseline, 0, None).model_copy(update={"status": "failed"})
    store.save_record(first)
    allocation = Allocation((planned, twin), store, None, None, RunObserver())
    assert [config.run_id for config in allocation.list_runs()] == [first.run_id]
    assert [state.looks for state in allocation.states] == [(), ()]
    assert {config.seed for config in allocation.list_runs()} == {5}
    assert all(state.looks[-1].num_seeds == 5 for state in allocation.states)
