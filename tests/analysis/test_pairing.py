from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gan_ablate.analysis.design import Design
from gan_ablate.analysis.families import estimate_effects
from gan_ablate.analysis.pairing import Unpaired, relative_efficiency
from gan_ablate.analysis.user_table import Table, read_table
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.reporting.judge import estimate_effects as estimate_table

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RNG = np.random.default_rng(0)
DIFFERENCE = np.array([-1.0, 1.0])
FID = {"on": [20.1, 22.4, 19.3, 21.7, 20.6], "off": [27.9, 31.2, 25.5, 40.1]}
WELCH = stats.ttest_ind(np.log(FID["off"]), np.log(FID["on"]), equal_var=False)


def stack(*columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put samples side by side, with NaN below the shorter ones."""
    table = np.full((max(map(len, columns)), len(columns)), np.nan)
    for i, column in enumerate(columns):
        table[: len(column), i] = column
    return table


def make_frame(fid: dict[str, list[float]], seeds: dict[str, list[int]] | None = None) -> pd.DataFrame:
    """Make a table of runs of one factor, ``bn``."""
    rows: list[dict[str, Any]] = [
        {"bn": level, "fid": value} | ({} if seeds is None else {"seed": seeds[level][i]})
        for level, values in fid.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def read(frame: pd.DataFrame, **options: Any) -> Table:
    return read_table(frame, factors=["bn"], **options)


def test_relative_efficiency_is_the_ratio_of_the_two_variances() -> None:
    values = RNG.normal(size=(9, 1)) + 0.5 * RNG.normal(size=(9, 2))
    expected = values.var(axis=0, ddof=1).sum() / (values[:, 0] - values[:, 1]).var(ddof=1)
    assert relative_efficiency(values).value == pytest.approx(expected)


@pytest.mark.parametrize(("spreads", "correlation"), [((1.0, 1.0), 0.0), ((1.0, 4.0), 0.5), ((1.0, 1.0), 0.8)])
def test_relative_efficiency_interval_covers_at_its_level(spreads: tuple[float, float], correlation: float) -> None:
    a, b = spreads
    shared = correlation * a * b
    truth = (a**2 + b**2) / (a**2 + b**2 - 2 * shared)
    covered = []
    for _ in range(1_500):
        values = RNG.multivariate_normal([0, 0], [[a**2, shared], [shared, b**2]], 5)
        efficiency = relative_efficiency(values)
        covered.append(efficiency.low <= truth <= efficiency.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_relative_efficiency_of_too_few_seeds_or_no_spread_is_nan() -> None:
    assert math.isfinite(relative_efficiency(RNG.normal(size=(4, 2))).high)
    unpaired = np.array([[1.0, -1.0], [2.0, -2.0], [4.0, -4.0], [9.0, -9.0]])  # their sum has no spread
    for values in (RNG.normal(size=(3, 2)), unpaired):
        efficiency = relative_efficiency(values)
        assert all(math.isnan(number) for number in (efficiency.value, efficiency.low, efficiency.high))
        assert efficiency.num_seeds == len(values)
    with_gaps = np.where(np.arange(12).reshape(6, 2) == 3, np.nan, RNG.normal(size=(6, 2)))
    assert relative_efficiency(with_gaps).num_seeds == 5
    alike = RNG.normal(size=(6, 1)) + np.zeros((1, 2))
    assert math.isnan(relative_efficiency(alike).value)


def test_relative_efficiency_does_not_depend_on_the_unit() -> None:
    values = RNG.normal(size=(6, 2))
    efficiency = relative_efficiency(values)
    for unit in (1e-12, 1e12):
        scaled = relative_efficiency(unit * values)
        assert (scaled.low, scaled.value, scaled.high) == pytest.approx(
            (efficiency.low, efficiency.value, efficiency.high)
        )


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_unpaired_difference_is_scipys_welch_test(confidence: float) -> None:
    treated, control = RNG.normal(1, 3, 4), RNG.normal(0, 0.5, 9)
    estimate = Unpaired(stack(control, treated), DIFFERENCE).estimate(confidence)
    welch = stats.ttest_ind(treated, control, equal_var=False)
    low, high = welch.confidence_interval(confidence)
    assert (estimate.low, estimate.high, estimate.p) == pytest.approx((low, high, welch.pvalue))
    assert estimate.value == pytest.approx(treated.mean() - control.mean())
    assert estimate.num_seeds == 4


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.3, 2.0])
def test_unpaired_margin_test_is_scipys_two_one_sided_welch_tests(shift: float) -> None:
    treated, control, margin = RNG.normal(shift, 0.5, 6), RNG.normal(0, 0.2, 4), 1.0
    below = stats.ttest_ind(treated - margin, control, equal_var=False, alternative="less").pvalue
    above = stats.ttest_ind(treated + margin, control, equal_var=False, alternative="greater").pvalue
    assert Unpaired(stack(control, treated), DIFFERENCE).test_margin(margin) == pytest.approx(max(below, above))


def test_unpaired_contrast_of_four_variants_covers_at_its_level() -> None:
    weights, spreads, sizes = np.array([-0.5, 0.5, -0.5, 0.5]), (1.0, 5.0, 0.2, 1.0), (5, 3, 8, 4)
    covered = []
    for _ in range(4_000):
        samples = [RNG.normal(i, spread, size) for i, (spread, size) in enumerate(zip(spreads, sizes, strict=True))]
        estimate = Unpaired(stack(*samples), weights).estimate()
        covered.append(estimate.low <= 1.0 <= estimate.high)
    # Satterthwaite's degrees of freedom are an approximation: three runs of the widest spread cover in 93.4 %.
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


def test_unpaired_runs_without_spread_or_partner_have_no_interval() -> None:
    alike = Unpaired(stack(np.ones(3), np.full(3, 2.0)), DIFFERENCE)
    assert alike.estimate().value == 1
    assert math.isnan(alike.estimate().p)
    assert math.isnan(alike.test_margin(1.0))
    one, none = (Unpaired(stack(np.ones(3), values), DIFFERENCE) for values in (np.array([4.0]), np.array([])))
    assert (one.estimate().value, one.estimate().num_seeds) == (3, 1)
    assert math.isnan(one.estimate().low)
    assert (none.estimate().num_seeds, math.isnan(none.estimate().value)) == (0, True)
    assert math.isnan(one.test_margin(1.0))
    assert math.isnan(none.test_margin(1.0))


def test_table_without_seeds_is_judged_by_welch_on_logarithms() -> None:
    effects = estimate_table(make_frame(FID), factors=["bn"])
    assert effects["p"][0] == pytest.approx(WELCH.pvalue)
    assert (effects["low"][0], effects["high"][0]) == pytest.approx(tuple(WELCH.confidence_interval()))
    assert effects["num_seeds"][0] == 4
    assert effects[["p_sign_flip", "bootstrap_low", "pairing"]].isna().all(axis=None)


def test_table_of_partly_matching_seeds_is_judged_by_welch_on_all_runs() -> None:
    table = read(make_frame(FID, {"on": [0, 1, 2, 3, 4], "off": [3, 4, 5, 6]}))
    assert table.pairing == (
        "The seeds match in part: 4 of 9 runs have a seed that every variant has. "
        "So runs are compared as independent ones, by Welch's t test. Those alone are compared by --paired."
    )
    (effect,) = estimate_effects(table.design, table.runs)
    assert effect.estimate.p == pytest.approx(WELCH.pvalue)


def test_paired_when_asked_compares_the_shared_seeds_alone() -> None:
    table = read(make_frame(FID, {"on": [0, 1, 2, 3, 4], "off": [2, 3, 4, 6]}), paired=True)
    (effect,) = estimate_effects(table.design, table.runs)
    paired = stats.ttest_rel(np.log(FID["off"][:3]), np.log(FID["on"][2:]))
    assert effect.estimate.p == pytest.approx(paired.pvalue)
    assert table.pairing.endswith("3 of 9 runs have a seed that some variant lacks.")


def test_one_missing_run_of_many_leaves_the_others_paired() -> None:
    table = read(make_frame(FID, {"on": [0, 1, 2, 3, 4], "off": [0, 1, 2, 4]}))
    assert table.design.is_paired
    assert table.pairing == (
        "Runs are compared within a seed (the column seed). 1 of 9 runs have a seed that some variant lacks."
    )


def test_unpaired_when_asked_takes_equal_seeds_for_other_runs() -> None:
    frame = make_frame(FID, {"on": [1] * 5, "off": [1] * 4})
    with pytest.raises(UserError, match=r"row \d: another run of bn on, seed 1\. .* or paired=False if they are other"):
        read(frame)
    table = read(frame, paired=False)
    assert table.pairing == (
        "Runs of one seed share nothing. So runs are compared as independent ones, by Welch's t test."
    )
    (effect,) = estimate_effects(table.design, table.runs)
    assert effect.estimate.num_seeds == 4


@pytest.mark.parametrize("has_seeds", [True, False])
def test_runs_that_do_not_pair_are_refused_where_seeds_were_added(has_seeds: bool) -> None:
    seeds = {"on": [0, 1, 2, 3, 4], "off": [5, 6, 7, 8]} if has_seeds else None
    reason = "no seed has runs of every variant" if has_seeds else "the table has no seeds"
    with pytest.raises(UserError, match=f"intervals='sequential': the table: {reason}, so .*; valid: a table whose"):
        read(make_frame(FID, seeds), intervals="sequential")


def test_pairing_runs_without_seeds_is_refused() -> None:
    with pytest.raises(UserError, match="paired: the table has no seeds; valid: seed with the name of a column"):
        read(make_frame(FID), paired=True)


def test_table_sorted_by_its_results_does_not_pair_the_best_with_the_best() -> None:
    fid = {"on": sorted(RNG.normal(20, 2, 12)), "off": sorted(RNG.normal(20.3, 2, 12))}
    frame = make_frame(fid).assign(status="completed")
    frame.loc[len(frame)] = {"bn": "off", "fid": np.nan, "status": "diverged"}
    shuffled = frame.sample(frac=1, random_state=1)
    both = [read(each, baselines={"bn": "on"}) for each in (frame, shuffled)]
    (first,), (second,) = (estimate_effects(table.design, table.runs) for table in both)
    assert first.basis == "median"
    assert (first.estimate.p, first.adjusted) == (second.estimate.p, second.adjusted)
    assert first.estimate.p > 0.05


def test_factorial_table_without_seeds_averages_variants_alike() -> None:
    rows = [
        {"bn": bn, "lr": lr, "accuracy": float(value)}
        for (bn, lr), num in zip(itertools.product(("on", "off"), ("1e-3", "2e-4")), (3, 4, 5, 6), strict=True)
        for value in RNG.normal(size=num)
    ]
    frame = pd.DataFrame(rows)
    effects = estimate_table(frame, factors=["bn", "lr"], outcome="accuracy:higher:difference")
    means = frame.groupby(["bn", "lr"])["accuracy"].mean()
    assert effects["value"][0] == pytest.approx(means["off"].mean() - means["on"].mean())
    interaction = means["off", "2e-4"] - means["off", "1e-3"] - means["on", "2e-4"] + means["on", "1e-3"]
    assert effects["value"][2] == pytest.approx(interaction)


def test_script_whose_runs_share_nothing_is_judged_by_welch(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "grid.toml").write_text(
        """
title = "A script without seeds"
[external]
command = ["python", "train.py", "--bn", "{bn}"]
samples = "samples/*.png"
paired = false
[factors.bn]
baseline = "on"
levels.on = {}
levels.off = {}
"""
    )
    design = Design.of(plan(load_grid(tmp_path / "grid.toml"), seeds=5, allow_code=True))
    frame = make_frame({f"bn {level}": fid for level, fid in FID.items()}).rename(columns={"bn": "variant"})
    runs = frame.assign(seed=frame.groupby("variant").cumcount(), status="completed")
    (effect,) = estimate_effects(design, runs)
    assert effect.estimate.p == pytest.approx(WELCH.pvalue)
    assert not effect.is_paired
