from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gan_ablate.analysis.claims import Verdicts, tabulate_effect
from gan_ablate.analysis.effects import Effect, estimate_against, estimate_effects
from gan_ablate.analysis.outcomes import OUTCOMES
from gan_ablate.design.grid import load_grid
from gan_ablate.design.planning import Cell, Plan, plan
from tests.synthetic import make_results

FIRST_POINT = 150

COLUMNS = [
    "outcome", "scale", "effect", "within", "interaction", "answer", "margin", "value", "low", "high", "num_seeds",
    "percent_change", "percent_change_low", "percent_change_high", "percent_change_adjusted_low",
    "percent_change_adjusted_high", "p", "p_holm", "rejected", "adjusted_low", "adjusted_high", "p_sign_flip",
    "smallest_p_sign_flip", "bootstrap_low", "bootstrap_high", "needed_seeds", "pairing", "pairing_low",
    "pairing_high", "with_diverged", "with_diverged_low", "with_diverged_high",
]  # fmt: skip


def verdicts_of(grid: str, log_fid: Callable[[Cell, int], float], seeds: int = 5) -> Verdicts:
    """Verdicts on runs with this log FID; where it is NaN they diverged."""
    planned = plan(load_grid(grid), seeds=seeds)

    def fid(cell: Cell, seed: int) -> float | None:
        at = log_fid(cell, seed)
        return None if math.isnan(at) else 20 * math.exp(at)

    return Verdicts(planned, make_results(planned, fid).runs, FIRST_POINT)


def noise(cell: Cell, seed: int, size: float = 0.02) -> float:
    return float(np.random.default_rng([seed, *cell.label.encode()]).normal(0, size))


def row_of(effect: Effect) -> dict[str, object]:
    row = tabulate_effect(effect)
    assert list(row) == COLUMNS
    return row


def numbers(row: dict[str, object], *names: str) -> list[float]:
    return [float(str(row[name])) for name in names]


def test_a_row_holds_an_effects_numbers_under_their_names() -> None:
    """Of nine seeds, and a tenth that diverged at β1 0.9, the first of two effects; by SciPy."""

    def log_fid(cell: Cell, seed: int) -> float:
        is_high = cell.levels["beta1"] == "0.9"
        return math.nan if is_high and seed == 9 else 0.6 * is_high + 0.3 * math.sin(seed) + noise(cell, seed, 0.1)

    verdicts = verdicts_of("beta1", log_fid, seeds=10)
    effect = next(effect for effect in verdicts.effects("fid") if effect.levels == {"beta1": "0.9"})
    row = row_of(effect)
    runs = verdicts.runs.pivot_table(index="seed", columns="beta1", values="fid").apply(np.log)
    high, usual = runs["0.9"][:9].to_numpy(), runs["0.5"][:9].to_numpy()
    test = stats.ttest_rel(high, usual)
    (low, top), (wide_low, wide_top) = (test.confidence_interval(level) for level in (0.95, 0.975))
    assert [row[name] for name in ("outcome", "scale", "effect", "within")] == ["fid", "log ratio", "beta1 0.9", ""]
    assert (row["interaction"], row["answer"], row["rejected"], row["needed_seeds"]) == (False, "higher", True, None)
    assert row["margin"] == pytest.approx(math.log(1.1))
    assert row["num_seeds"] == 9
    expected = [np.mean(high - usual), low, top, wide_low, wide_top]
    assert numbers(row, "value", "low", "high", "adjusted_low", "adjusted_high") == pytest.approx(expected)
    percent = numbers(
        row, *(f"percent_change{end}" for end in ("", "_low", "_high", "_adjusted_low", "_adjusted_high"))
    )
    assert percent == pytest.approx([100 * (math.exp(at) - 1) for at in expected])
    assert numbers(row, "p", "p_holm") == pytest.approx([test.pvalue, 2 * test.pvalue])
    assert numbers(row, "p_sign_flip", "smallest_p_sign_flip") == [2 / 2**9] * 2
    assert numbers(row, "bootstrap_low", "bootstrap_high") == pytest.approx([low, top], abs=0.03)
    gain = (high.var(ddof=1) + usual.var(ddof=1)) / (high - usual).var(ddof=1)
    assert numbers(row, "pairing") == pytest.approx([gain])
    assert effect.pairing.low < gain < effect.pairing.high
    assert numbers(row, "pairing_low", "pairing_high") == [effect.pairing.low, effect.pairing.high]
    # The run that diverged counts like the worst FID there is.
    counted = [*(high - usual), np.nanmax(runs.to_numpy()) - runs["0.5"][9]]
    bounds = stats.ttest_1samp(counted, 0).confidence_interval(0.95)
    assert numbers(row, "with_diverged", "with_diverged_low", "with_diverged_high") == pytest.approx(
        [np.mean(counted), bounds.low, bounds.high]
    )


def test_a_row_leaves_empty_what_an_effect_does_not_have() -> None:
    verdicts = verdicts_of("beta1", noise)
    row = row_of(verdicts.effects("recall")[0])
    assert (row["outcome"], row["scale"], row["answer"]) == ("recall", "difference", "open")
    empty = ("margin", "bootstrap_low", "bootstrap_high", "with_diverged", "with_diverged_low", "with_diverged_high")
    percent = [name for name in COLUMNS if name.startswith("percent")]
    assert {row[name] for name in (*empty, *percent)} == {None}
    fid = row_of(dataclasses.replace(verdicts.effects("fid")[0], needed_seeds=17))
    assert fid["needed_seeds"] == 17


def test_bounds_that_nothing_excludes_are_numbers_in_percent() -> None:
    verdicts = verdicts_of("beta1", noise, seeds=2)
    growing = verdicts.plan.model_copy(update={"intervals": "sequential"})
    row = row_of(estimate_effects(growing, verdicts.runs)[0])
    assert numbers(row, "low", "high") == [-math.inf, math.inf]
    lowest, highest = numbers(row, "percent_change_low", "percent_change_high")
    assert lowest == -100
    assert 1e300 < highest < math.inf


def test_all_effects_are_those_of_every_outcome_and_the_simple_ones_of_fid() -> None:
    table = verdicts_of("bn_label_smooth", noise).all_effects()
    assert list(table.columns) == COLUMNS
    of_fid, others = table[table["outcome"] == "fid"], table[table["outcome"] != "fid"]
    assert of_fid["effect"].tolist()[:2] == ["batch norm on", "label smoothing on"]
    assert of_fid["interaction"].tolist() == [False, False, True, False, False, False, False]
    places = sorted(of_fid["within"])
    assert places[:3] == [""] * 3
    assert places[3:] == ["batch norm off", "batch norm on", "label smoothing off", "label smoothing on"]
    assert set(others["within"]) == {""}
    assert set(others.groupby("outcome").size()) == {3}
    assert {"kid", "recall", "step_ms_median"} <= set(others["outcome"]) <= set(OUTCOMES)


@pytest.mark.parametrize(
    ("steps", "reached", "is_known"),
    [(600, True, True), (151, True, True), (FIRST_POINT, True, False), (1_500, False, False), (600, None, False)],
)
def test_seconds_to_the_target_are_compared_only_where_every_runs_are_known(
    steps: int, reached: bool | None, is_known: bool
) -> None:
    verdicts = verdicts_of("beta1", noise)
    runs = verdicts.runs.assign(steps_to_fid=600.0, fid_reached=True, sec_to_fid=6.0)
    runs["fid_reached"] = runs["fid_reached"].astype(object)
    runs.loc[3, ["steps_to_fid", "fid_reached"]] = [steps, reached]
    assert bool(dataclasses.replace(verdicts, runs=runs).effects("sec_to_fid")) is is_known
    assert dataclasses.replace(verdicts, runs=runs).effects("steps_to_fid")


def test_an_outcome_that_no_run_has_has_no_effects() -> None:
    verdicts = verdicts_of("bn_label_smooth", noise)
    unscored = dataclasses.replace(verdicts, runs=verdicts.runs.assign(fid=np.nan))
    assert unscored.effects("fid") == unscored.simple_effects == []
    assert unscored.effects("recall")


def collapsing(runs: pd.DataFrame, planned: Plan) -> pd.DataFrame:
    """Two runs of β1 0.9 collapsed, and one of the baseline."""
    collapsed = (runs["beta1"] == "0.9") & (runs["seed"] < 2) | (runs["cell"] == planned.baseline.label) & (
        runs["seed"] == 0
    )
    return runs.assign(collapsed=collapsed)


def test_rates_are_of_events_that_happened() -> None:
    verdicts = verdicts_of("beta1", noise)
    usual, high = verdicts.effects("fid")
    assert verdicts.rates(high) == {}
    collapsed = dataclasses.replace(verdicts, runs=collapsing(verdicts.runs, verdicts.plan))
    rates = collapsed.rates(high)
    assert list(rates) == ["collapsed"]
    of = rates["collapsed"]
    assert (of.count, of.total, of.baseline_count, of.baseline_total) == (2, 5, 1, 5)
    # Of the baseline alone it is told too.
    of = collapsed.rates(usual)["collapsed"]
    assert (of.count, of.baseline_count) == (0, 1)


def test_a_run_of_which_nobody_knows_whether_it_collapsed_is_not_counted() -> None:
    verdicts = verdicts_of("beta1", noise)
    runs = collapsing(verdicts.runs, verdicts.plan).astype({"collapsed": object})
    runs.loc[(runs["beta1"] == "0.9") & (runs["seed"] == 4), "collapsed"] = None
    of = dataclasses.replace(verdicts, runs=runs).rates(verdicts.effects("fid")[1])["collapsed"]
    assert (of.count, of.total) == (2, 4)


def test_a_comparison_with_a_value_has_no_rates() -> None:
    verdicts = verdicts_of("beta1", lambda cell, seed: math.nan if seed == 0 else noise(cell, seed))
    effect = estimate_against(verdicts.plan, verdicts.runs, "recall", 0.5, 0.1)
    assert effect is not None
    assert (effect.levels, effect.within, effect.outcome.name) == ({}, {}, "recall")
    assert effect.estimate.value == pytest.approx(0.2)  # a synthetic recall is 0.7
    assert verdicts.rates(effect) == {}
    assert list(verdicts.rates(verdicts.effects("fid")[0])) == ["diverged"]


@pytest.mark.parametrize(
    ("smoothed", "spread", "varies"),
    [
        (-0.5, 0.01, False),  # the same everywhere
        (0.5, 0.01, True),
        (0.0, 0.01, True),  # an effect at one place, none at the other
        (-0.5, 2.0, False),  # nothing is known anywhere
    ],
)
def test_an_effect_varies_where_places_give_other_answers(smoothed: float, spread: float, varies: bool) -> None:
    def log_fid(cell: Cell, seed: int) -> float:
        gain = {"off": -0.5, "on": smoothed}[cell.levels["label_smoothing"]]
        return gain * (cell.levels["batch_norm"] == "on") + noise(cell, seed, spread)

    verdicts = verdicts_of("bn_label_smooth", log_fid)
    effect = verdicts.effects("fid")[0]
    assert effect.name == "batch norm on"
    assert {simple.place for simple in verdicts.simple_effects_of(effect)} == {
        "label smoothing off",
        "label smoothing on",
    }
    assert all(simple.levels == effect.levels for simple in verdicts.simple_effects_of(effect))
    assert verdicts.varies(effect) is varies


def test_a_place_that_is_open_does_not_make_an_effect_vary() -> None:
    def log_fid(cell: Cell, seed: int) -> float:
        is_noisy = cell.levels == {"batch_norm": "on", "label_smoothing": "on"}
        return -0.5 * (cell.levels["batch_norm"] == "on") + noise(cell, seed, 0.6 if is_noisy else 0.01)

    verdicts = verdicts_of("bn_label_smooth", log_fid)
    effect = verdicts.effects("fid")[0]
    answers = {simple.place: simple.answer for simple in verdicts.simple_effects_of(effect)}
    assert answers == {"label smoothing off": "lower", "label smoothing on": "open"}
    assert not verdicts.varies(effect)


def test_effects_on_an_outcome_are_estimated_once() -> None:
    verdicts = verdicts_of("beta1", noise)
    once = {outcome: verdicts.effects(outcome) for outcome in ("fid", "recall")}
    assert all(verdicts.effects(outcome) is effects for outcome, effects in once.items())
    assert once["fid"][0].outcome != once["recall"][0].outcome
