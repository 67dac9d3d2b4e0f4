from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gan_ablate.analysis.claims import ClaimVerdict, Verdicts, judge
from gan_ablate.analysis.design import Design
from gan_ablate.analysis.effects import Effect
from gan_ablate.analysis.families import estimate_against, estimate_effects
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import tabulate_effect
from gan_ablate.design.claims import Claim
from gan_ablate.design.grid import list_grids, load_grid
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.design.plan import Plan, Variant, plan
from gan_ablate.execution.store import Store
from tests.synthetic import make_results, save_runs

HELPS = Claim(id="C0", sentence="x helps", levels=[{"dropout": "elements-50"}], direction="lower")
SHIPPED = [claim for grid in list_grids() for claim in load_grid(grid).claims]


def dropout_effects(log_effects: dict[str, float], seeds: int = 5, noise: float = 0.1) -> list[Effect]:
    """Effects with a spread at which one of nothing is open; at a fifth of it, it is negligible."""
    planned = plan(load_grid("dropout"), seeds=seeds)

    def fid(variant: Variant, seed: int) -> float:
        return 30 * math.exp(
            log_effects.get(variant.levels["dropout"], 0) + noise * math.sin(7 * seed + len(variant.label))
        )

    return estimate_effects(Design.of(planned), make_results(planned, fid).runs)


@pytest.mark.parametrize(
    ("change", "noise", "verdict"),
    [
        (-0.5, 0.1, "supported"),
        (0.5, 0.1, "refuted"),
        (0.001, 0.15, "inconclusive"),
        (0.001, 0.02, "negligible"),
        (0.09, 0.002, "refuted"),
    ],
)
def test_a_verdict_follows_from_the_adjusted_interval(change: float, noise: float, verdict: str) -> None:
    effects = dropout_effects({"elements-50": change}, noise=noise)
    claim_verdict = judge(HELPS, lambda _: effects)
    assert claim_verdict is not None
    assert claim_verdict.verdict == verdict
    assert (claim_verdict.needed_seeds is None) is (verdict != "inconclusive")
    assert tuple(finding.expectation for finding in claim_verdict.decisive) == HELPS.decisive
    assert claim_verdict.is_too_small is (change == 0.09)  # real, and within log 1.1 = 0.095


@pytest.mark.parametrize(
    ("change", "noise", "verdict"),
    [
        (0.001, 0.02, "supported"),
        (0.09, 0.002, "supported"),
        (0.11, 0.002, "refuted"),
        (0.12, 0.06, "inconclusive"),  # an effect, and perhaps one within the margin
        (0.0, 0.15, "inconclusive"),
    ],
)
def test_a_claim_of_no_difference_rests_on_the_margin(change: float, noise: float, verdict: str) -> None:
    claim = HELPS.model_copy(update={"direction": "none"})
    effects = dropout_effects({"elements-50": change}, noise=noise)
    claim_verdict = judge(claim, lambda _: effects)
    assert claim_verdict is not None
    assert claim_verdict.verdict == verdict


@pytest.mark.parametrize(
    ("log_effects", "noise", "verdict"),
    [
        ({"channels-25": -0.5}, 0.1, "supported"),
        ({"channels-25": 0.5, "elements-30": 0.4, "elements-50": 0.3}, 0.1, "refuted"),
        ({"channels-25": -0.5, "elements-50": 0.5}, 0.1, "inconclusive"),
        # That one level does harm does not refute that some other one helps, unless none certainly does.
        ({"channels-25": 0.5}, 0.15, "inconclusive"),
        ({"channels-25": 0.5}, 0.01, "refuted"),
        ({}, 0.01, "negligible"),
        ({}, 0.15, "inconclusive"),
    ],
)
def test_several_levels_decide_together(log_effects: dict[str, float], noise: float, verdict: str) -> None:
    (claim,) = load_grid("dropout").claims
    effects = dropout_effects(log_effects, noise=noise)
    claim_verdict = judge(claim, lambda _: effects)
    assert claim_verdict is not None
    assert claim_verdict.verdict == verdict
    assert len(claim_verdict.decisive) == 3


@pytest.mark.parametrize(
    ("log_effects", "noise", "verdict"),
    [
        ({}, 0.01, "supported"),
        ({"channels-25": 0.3}, 0.01, "refuted"),
        ({"channels-25": 0.3, "elements-50": -0.3}, 0.01, "refuted"),
        ({"elements-30": 0.08}, 0.05, "inconclusive"),
        ({}, 0.15, "inconclusive"),
    ],
)
def test_claim_of_no_effect_needs_all_levels(log_effects: dict[str, float], noise: float, verdict: str) -> None:
    (claim,) = load_grid("dropout").claims
    effects = dropout_effects(log_effects, noise=noise)
    claim_verdict = judge(claim.model_copy(update={"direction": "none"}), lambda _: effects)
    assert claim_verdict is not None
    assert claim_verdict.verdict == verdict
    needed = [finding.effect.needed_seeds for finding in claim_verdict.decisive if finding.verdict == "inconclusive"]
    if verdict == "inconclusive":  # it takes as many as the last of its levels does
        assert claim_verdict.needed_seeds == (None if None in needed else max(number or 0 for number in needed))


def test_claim_with_an_unmeasured_part_has_no_verdict() -> None:
    (claim,) = load_grid("dropout").claims
    effects = [effect for effect in dropout_effects({"elements-50": -1}) if "elements-30" not in effect.name]
    assert judge(claim, lambda _: effects) is None


def test_level_whose_runs_all_diverge_has_a_verdict_with_a_note(tmp_path: Path) -> None:
    planned = plan(load_grid("bn_label_smooth"))
    save_runs(
        Store(tmp_path), planned, lambda variant, seed: None if variant.levels["batch_norm"] == "on" else 20.0 + seed
    )
    results = GridResults.load(Store(tmp_path), "bn_label_smooth")
    (batch_norm, _) = results.verdicts.claim_verdicts
    assert batch_norm.verdict == "refuted"
    assert batch_norm.decisive[0].basis == "failure rate"
    rates = batch_norm.decisive[0].effect.rates["diverged"]
    assert (rates.count, rates.total, rates.baseline_count, rates.baseline_total) == (0, 10, 10, 10)
    assert rates.p < 1e-4


def test_variant_that_misses_the_target_counts_its_last_step(tmp_path: Path) -> None:
    def fid(variant: Variant, seed: int) -> float:  # at thrice the baseline's FID the curve ends above the target
        return 20 * (3.0 if variant.levels["head"] == "average-pool" else 1.0) * math.exp(0.02 * math.sin(seed))

    save_runs(Store(tmp_path), plan(load_grid("head"), seeds=8), fid)
    results = GridResults.load(Store(tmp_path), "head")
    judged = {claim_verdict.claim.id: claim_verdict for claim_verdict in results.verdicts.claim_verdicts}
    assert judged["C12b"].verdict == "supported"
    (slower,) = judged["C12b"].decisive
    assert slower.basis == "typical run"
    assert math.exp(slower.effect.estimate.value) == pytest.approx(2, rel=0.1)  # half-way, and the last step
    assert (slower.effect.value_bound, slower.effect.estimate.high) == ("≥", math.inf)
    assert slower.effect.estimate.low > 0.6
    pooled = results.summary.set_index("head").loc["average-pool"]
    assert (pooled["fid_reached"], pooled["steps_to_fid"], pooled["steps_to_fid_bound"]) == (0, 1500, "≥")
    seconds = next(e for e in results.verdicts.effects("sec_to_fid") if e.levels == {"head": "average-pool"})
    assert (seconds.basis, seconds.estimate.high) == ("median", math.inf)


def test_claim_without_its_effect_has_no_verdict() -> None:
    effects = dropout_effects({})
    other = HELPS.model_copy(update={"levels": [{"dropout": "elements-70"}]})
    assert judge(other, lambda _: effects) is None


def test_one_seed_is_inconclusive() -> None:
    effects = dropout_effects({"elements-50": -2}, seeds=1)
    claim_verdict = judge(HELPS, lambda _: effects)
    assert claim_verdict is not None
    assert claim_verdict.verdict == "inconclusive"


def test_the_claims_that_shipped_grids_can_decide_are_there() -> None:
    assert {claim.id for claim in SHIPPED} >= {
        "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12a", "C12b", "C15", "C20a", "C20b",
        "C20c", "C20d",
    }  # fmt: skip
    assert len({claim.id for claim in SHIPPED}) == len(SHIPPED)


def test_smoke_run_gives_no_verdict(tmp_path: Path) -> None:
    for budget, known in (("smoke", []), ("standard", ["C2", "C9"])):
        planned = plan(load_grid("bn_label_smooth"), budget=budget)  # type: ignore[arg-type]
        save_runs(Store(tmp_path / budget), planned, lambda *_: 20.0)
        judged = GridResults.load(Store(tmp_path / budget), "bn_label_smooth").verdicts.claim_verdicts
        assert [claim_verdict.claim.id for claim_verdict in judged] == known


def test_users_grid_gets_verdicts_on_its_claims(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (
        'base = "dcgan-28"\n[factors.latent]\nbaseline = "100"\n'
        'levels."100" = { latent_dim = 100 }\nlevels."10" = { latent_dim = 10 }\n'
        '[[claims]]\nsentence = "Ten are worse"\nlevels = { latent = "10" }\ndirection = "higher"\n'
    )
    path.write_text(text)
    planned, store = plan(load_grid(path)), Store(tmp_path)
    save_runs(
        store, planned, lambda variant, seed: (20 + seed) * (2 if variant.levels["latent"] == "10" else 1.0 + seed / 50)
    )
    (claim_verdict,) = GridResults.load(store, "mine").verdicts.claim_verdicts
    assert (claim_verdict.claim.sentence, claim_verdict.verdict) == ("Ten are worse", "supported")


def compare_with(value: float, *, spread: float, **claim: object) -> ClaimVerdict | None:
    """Judge where D(G(z)) lies at the end, of runs in which it is about 0.3."""
    planned = plan(load_grid("dropout"))
    runs = make_results(planned, lambda *_: 1.0).runs
    runs["d_fake_end"] = 0.3 + spread * runs["seed"].map({0: -1.2, 1: -0.4, 2: 0.1, 3: 0.5, 4: 1.0})
    runs.loc[runs["dropout"] != "none", "d_fake_end"] = 0.9
    stated = Claim.model_validate(
        {"sentence": "It is there", "outcome": "d_fake_end", "direction": "none", "against": value, **claim}
    )
    return judge(stated, lambda _: [], functools.partial(estimate_against, Design.of(planned), runs))


@pytest.mark.parametrize(
    ("value", "spread", "claim", "verdict"),
    [
        (0.3, 0.01, {"margin": 0.05}, "supported"),
        (0.5, 0.01, {"margin": 0.05}, "refuted"),
        (0.34, 0.05, {"margin": 0.05}, "inconclusive"),
        (0.2, 0.01, {"direction": "higher"}, "supported"),
        (0.4, 0.01, {"direction": "higher"}, "refuted"),
        (0.31, 0.1, {"direction": "higher"}, "inconclusive"),
    ],
)
def test_a_baseline_is_compared_with_a_value(
    value: float, spread: float, claim: dict[str, object], verdict: str
) -> None:
    claim_verdict = compare_with(value, spread=spread, **claim)
    assert claim_verdict is not None
    assert claim_verdict.verdict == verdict
    (finding,) = claim_verdict.decisive
    assert finding.effect.estimate.value == pytest.approx(0.3 - value)
    assert finding.effect.name == f"the baseline against {value:g}"


def test_outcome_that_no_run_has_gives_no_verdict() -> None:
    planned = plan(load_grid("dropout"))
    runs = make_results(planned, lambda *_: 1.0).runs
    assert runs["probe_gain"].isna().all()
    assert estimate_against(Design.of(planned), runs, "probe_gain", 0.0) is None


def test_claim_without_a_verdict_has_a_reason(tmp_path: Path) -> None:
    planned = plan(load_grid("representation"), seeds=3)
    save_runs(Store(tmp_path), planned, lambda *_: 1.0)
    verdicts = GridResults.load(Store(tmp_path), "representation").verdicts
    judged = [claim_verdict.claim.id for claim_verdict in verdicts.claim_verdicts]
    reasons = {claim.id: reason for claim, reason in verdicts.unjudged()}
    assert not set(judged) & reasons.keys()
    assert {*judged, *reasons} == {"C16", "C17", "C18", "C19"}
    assert reasons["C16"] == "no run has what would decide it"
    smoke = plan(load_grid("representation"), budget="smoke")
    save_runs(Store(tmp_path / "smoke"), smoke, lambda *_: 1.0)
    verdicts = GridResults.load(Store(tmp_path / "smoke"), "representation").verdicts
    assert {reason for _, reason in verdicts.unjudged()} == {"smoke runs judge nothing"}
    assert len(verdicts.unjudged()) == 4


@pytest.mark.parametrize(("direction", "expected"), [("lower", 10), ("none", 40)])
def test_the_bill_of_a_claim_is_of_its_cheapest_level_or_of_all(direction: str, expected: int) -> None:
    """One level that helps is enough for a claim that something helps; a claim of no difference needs them all."""
    effects = dropout_effects({}, noise=0.3)
    levels = [{"dropout": "elements-50"}, {"dropout": "elements-30"}]
    needed = {"elements-50": 40, "elements-30": 10}
    billed = [dataclasses.replace(effect, needed_seeds=needed.get(effect.levels["dropout"])) for effect in effects]
    claim = HELPS.model_copy(update={"levels": levels, "direction": direction})
    claim_verdict = judge(claim, lambda _: billed)
    assert claim_verdict is not None
    assert claim_verdict.verdict == "inconclusive"
    assert claim_verdict.needed_seeds == expected


def test_secondary_evidence_does_not_change_the_verdict() -> None:
    """Batch norm lowers FID; on oscillation, which stands beside, it does nothing."""
    rng = np.random.default_rng(0)
    planned = plan(load_grid("bn_label_smooth"))
    fid = {(variant.label, seed): 20 * math.exp(rng.normal(0, 0.01)) for variant, seed in planned.seeded_variants}
    results = make_results(
        planned, lambda variant, seed: fid[variant.label, seed] * (0.5 if variant.levels["batch_norm"] == "on" else 1.0)
    )
    claim_verdict = results.verdicts.claim_verdicts[0]
    assert (claim_verdict.claim.id, claim_verdict.verdict) == ("C2", "supported")
    (beside,) = claim_verdict.beside
    assert beside.expectation == claim_verdict.claim.beside[0]
    assert (beside.effect.outcome.name, beside.verdict) == ("oscillation", "inconclusive")


def test_verdict_on_an_average_of_effects_that_differ_depends() -> None:
    """Smoothing harms without batch norm, and does nothing beside it: no verdict on the average is given."""

    def fid(variant: Variant, seed: int) -> float:
        is_harmed = variant.levels == {"batch_norm": "off", "label_smoothing": "on"}
        return 20 * math.exp(0.5 * is_harmed + 0.01 * math.sin(7 * seed + 3 * len(variant.label)))

    verdicts = make_results(plan(load_grid("bn_label_smooth")), fid).verdicts
    (smoothing,) = [one for one in verdicts.claim_verdicts if one.claim.id == "C9"]
    assert smoothing.verdict == "depends"
    assert [simple.decision for simple in smoothing.simple] == ["negligible", "higher"]
    assert [finding.verdict for finding in smoothing.decisive] == ["refuted"]


COLUMNS = [
    "outcome", "scale", "effect", "within", "interaction", "decision", "basis", "value_bound", "percent_change",
    "percent_change_low", "percent_change_high", "percent_change_adjusted_low", "percent_change_adjusted_high",
    "margin", "value", "low", "high", "num_seeds", "p", "p_holm", "rejected", "adjusted_low", "adjusted_high",
    "p_sign_flip", "smallest_p_sign_flip", "bootstrap_low", "bootstrap_high", "needed_seeds", "earlier_seeds",
    "pairing", "pairing_low", "pairing_high", "with_diverged", "with_diverged_low", "with_diverged_high",
    "allowed_collapse_rate",
    "collapsed", "collapsed_of", "baseline_collapsed", "baseline_collapsed_of", "p_collapsed", "p_collapsed_holm",
    "diverged", "diverged_of", "baseline_diverged", "baseline_diverged_of", "p_diverged", "p_diverged_holm",
]  # fmt: skip


def verdicts_of(grid: str, log_fid: Callable[[Variant, int], float], seeds: int = 5) -> Verdicts:
    """Verdicts on runs with this log FID; where it is NaN they diverged."""
    planned = plan(load_grid(grid), seeds=seeds)

    def fid(variant: Variant, seed: int) -> float | None:
        at = log_fid(variant, seed)
        return None if math.isnan(at) else 20 * math.exp(at)

    return Verdicts(planned, make_results(planned, fid).runs)


def noise(variant: Variant, seed: int, size: float = 0.02) -> float:
    return float(np.random.default_rng([seed, *variant.label.encode()]).normal(0, size))


def row_of(effect: Effect) -> dict[str, object]:
    row = tabulate_effect(effect)
    assert list(row) == COLUMNS
    return row


def numbers(row: dict[str, object], *names: str) -> list[float]:
    return [float(str(row[name])) for name in names]


def test_a_row_holds_an_effects_numbers_under_their_names() -> None:
    """Of nine seeds, the first of two effects; by SciPy."""

    def log_fid(variant: Variant, seed: int) -> float:
        is_high = variant.levels["beta1"] == "0.9"
        return 0.6 * is_high + 0.3 * math.sin(seed) + noise(variant, seed, 0.1)

    verdicts = verdicts_of("beta1", log_fid, seeds=9)
    effect = next(effect for effect in verdicts.effects("fid") if effect.levels == {"beta1": "0.9"})
    row = row_of(effect)
    runs = verdicts.runs.pivot_table(index="seed", columns="beta1", values="fid").apply(np.log)
    high, usual = runs["0.9"][:9].to_numpy(), runs["0.5"][:9].to_numpy()
    test = stats.ttest_rel(high, usual)
    (low, top), (wide_low, wide_top) = (test.confidence_interval(level) for level in (0.95, 0.975))
    assert [row[name] for name in ("outcome", "scale", "effect", "within")] == ["fid", "log ratio", "beta1 0.9", ""]
    assert (row["basis"], row["value_bound"], row["collapsed"], row["diverged"]) == ("mean", "", None, None)
    assert row["allowed_collapse_rate"] == pytest.approx(1 - 0.05 ** (1 / 9))
    assert (row["interaction"], row["decision"], row["rejected"], row["needed_seeds"]) == (False, "higher", True, None)
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


def test_a_row_tells_a_median_and_its_rates_where_a_run_diverged() -> None:
    """Of seven seeds, and an eighth that diverged at β1 0.9."""

    def log_fid(variant: Variant, seed: int) -> float:
        is_high = variant.levels["beta1"] == "0.9"
        return math.nan if is_high and seed == 7 else -0.6 * is_high + noise(variant, seed, 0.1)

    verdicts = verdicts_of("beta1", log_fid, seeds=8)
    row = row_of(verdicts.effects("fid")[1])
    runs = verdicts.runs.pivot_table(index="seed", columns="beta1", values="fid").apply(np.log)
    differences = [*(runs["0.9"] - runs["0.5"])[:7], math.inf]
    assert (row["basis"], row["decision"], row["num_seeds"]) == ("median", "inconclusive", 8)
    assert numbers(row, "value", "p", "low") == pytest.approx([np.median(differences), 2 * 9 / 256, min(differences)])
    rates = numbers(row, "diverged", "diverged_of", "baseline_diverged", "baseline_diverged_of", "p_diverged")
    assert rates == [1, 8, 0, 8, 1]
    counted = [*differences[:7], np.nanmax(runs.to_numpy()) - runs["0.5"][7]]
    bounds = stats.ttest_1samp(counted, 0).confidence_interval(0.95)
    assert numbers(row, "with_diverged", "with_diverged_low", "with_diverged_high") == pytest.approx(
        [np.mean(counted), bounds.low, bounds.high]
    )
    empty = ("p_sign_flip", "smallest_p_sign_flip")
    assert all(math.isnan(at) for at in numbers(row, *empty))


def test_a_row_leaves_empty_what_an_effect_does_not_have() -> None:
    verdicts = verdicts_of("beta1", noise)
    row = row_of(verdicts.effects("recall")[0])
    assert (row["outcome"], row["scale"], row["decision"]) == ("recall", "difference", "inconclusive")
    assert row["margin"] == 0.05
    empty = ("bootstrap_low", "bootstrap_high", "with_diverged", "with_diverged_low", "with_diverged_high")
    percent = [name for name in COLUMNS if name.startswith("percent")]
    assert {row[name] for name in (*empty, *percent)} == {None}
    fid = row_of(dataclasses.replace(verdicts.effects("fid")[0], needed_seeds=17))
    assert fid["needed_seeds"] == 17


def test_bounds_that_nothing_excludes_are_numbers_in_percent() -> None:
    verdicts = verdicts_of("beta1", noise, seeds=2)
    growing = verdicts.plan.model_copy(update={"intervals": "sequential"})
    row = row_of(estimate_effects(Design.of(growing), verdicts.runs)[0])
    assert numbers(row, "low", "high") == [-math.inf, math.inf]
    lowest, highest = numbers(row, "percent_change_low", "percent_change_high")
    assert lowest == -100
    assert 1e300 < highest < math.inf


def test_all_effects_are_those_of_every_outcome_and_the_simple_ones_of_fid() -> None:
    table = verdicts_of("bn_label_smooth", noise).all_effects()
    assert list(table.columns) == COLUMNS
    of_fid, others = table[table["outcome"] == "fid"], table[table["outcome"] != "fid"]
    assert of_fid["effect"].tolist()[:2] == ["batch norm off", "label smoothing on"]
    assert of_fid["interaction"].tolist() == [False, False, True, False, False, False, False]
    places = sorted(of_fid["within"])
    assert places[:3] == [""] * 3
    assert places[3:] == ["batch norm off", "batch norm on", "label smoothing off", "label smoothing on"]
    assert set(others["within"]) == {""}
    assert set(others.groupby("outcome").size()) == {3}
    assert {"kid", "recall", "step_ms_median"} <= set(others["outcome"]) <= set(OUTCOMES)


def test_an_outcome_that_no_run_has_has_no_effects() -> None:
    verdicts = verdicts_of("bn_label_smooth", noise)
    unscored = dataclasses.replace(verdicts, runs=verdicts.runs.assign(fid=np.nan))
    assert unscored.effects("fid") == unscored.simple_effects == []
    assert unscored.effects("recall")


def collapsing(runs: pd.DataFrame, planned: Plan) -> pd.DataFrame:
    """Two runs of β1 0.9 collapsed, and one of the baseline."""
    collapsed = (runs["beta1"] == "0.9") & (runs["seed"] < 2) | (runs["variant"] == planned.baseline.label) & (
        runs["seed"] == 0
    )
    return runs.assign(collapsed=collapsed)


def test_rates_are_of_events_that_happened() -> None:
    verdicts = verdicts_of("beta1", noise)
    _, high = verdicts.effects("fid")
    assert high.rates == {}
    collapsed = dataclasses.replace(verdicts, runs=collapsing(verdicts.runs, verdicts.plan))
    usual, high = collapsed.effects("fid")
    rates = high.rates
    assert list(rates) == ["collapsed"]
    of = rates["collapsed"]
    assert (of.count, of.total, of.baseline_count, of.baseline_total) == (2, 5, 1, 5)
    # Of the baseline alone it is told too.
    of = usual.rates["collapsed"]
    assert (of.count, of.baseline_count) == (0, 1)


def test_run_with_unknown_collapse_is_not_counted() -> None:
    verdicts = verdicts_of("beta1", noise)
    runs = collapsing(verdicts.runs, verdicts.plan).astype({"collapsed": object})
    runs.loc[(runs["beta1"] == "0.9") & (runs["seed"] == 4), "collapsed"] = None
    of = dataclasses.replace(verdicts, runs=runs).effects("fid")[1].rates["collapsed"]
    assert (of.count, of.total) == (2, 4)


def test_a_comparison_with_a_value_has_no_rates() -> None:
    verdicts = verdicts_of("beta1", lambda variant, seed: math.nan if seed == 0 else noise(variant, seed))
    effect = estimate_against(Design.of(verdicts.plan), verdicts.runs, "recall", 0.5, 0.1)
    assert effect is not None
    assert (effect.levels, effect.within, effect.outcome.name) == ({}, {}, "recall")
    assert effect.estimate.value == pytest.approx(0.2)  # a synthetic recall is 0.7
    assert effect.rates == {}
    assert list(verdicts.effects("fid")[0].rates) == ["diverged"]


@pytest.mark.parametrize(
    ("smoothed", "spread", "varies"),
    [
        (-0.5, 0.01, False),  # the same everywhere
        (0.5, 0.01, True),
        (0.0, 0.01, True),  # an effect at one place, none at the other
        (-0.8, 0.01, False),  # an interaction, and lower at both places
        (-0.5, 2.0, False),  # nothing is known anywhere
    ],
)
def test_effect_varies_where_an_interaction_is_found_and_no_decision_is_common(
    smoothed: float, spread: float, varies: bool
) -> None:
    def log_fid(variant: Variant, seed: int) -> float:
        gain = {"off": -0.5, "on": smoothed}[variant.levels["label_smoothing"]]
        return gain * (variant.levels["batch_norm"] == "off") + noise(variant, seed, spread)

    verdicts = verdicts_of("bn_label_smooth", log_fid)
    effect = verdicts.effects("fid")[0]
    assert effect.name == "batch norm off"
    assert {simple.place for simple in verdicts.simple_effects_of(effect)} == {
        "label smoothing off",
        "label smoothing on",
    }
    assert all(simple.levels == effect.levels for simple in verdicts.simple_effects_of(effect))
    assert verdicts.varies(effect) is varies


def test_effect_varies_where_an_interaction_is_found_and_nothing_is_known_of_simple_effects() -> None:
    """What seeds do to batch norm is the same with and without smoothing, and hides either effect."""

    def log_fid(variant: Variant, seed: int) -> float:
        is_off = variant.levels["batch_norm"] == "off"
        both = is_off and variant.levels["label_smoothing"] == "on"
        shared = 2.0 * math.cos(math.pi * seed)
        return shared * is_off + 0.5 * both + noise(variant, seed, 0.01)

    verdicts = verdicts_of("bn_label_smooth", log_fid)
    effect = verdicts.effects("fid")[0]
    assert {simple.decision for simple in verdicts.simple_effects_of(effect)} == {"inconclusive"}
    assert effect.decision == "inconclusive"
    assert verdicts.varies(effect)


def test_two_labels_without_an_interaction_do_not_make_an_effect_vary() -> None:
    def log_fid(variant: Variant, seed: int) -> float:
        is_noisy = variant.levels == {"batch_norm": "off", "label_smoothing": "on"}
        return -0.5 * (variant.levels["batch_norm"] == "off") + noise(variant, seed, 0.6 if is_noisy else 0.01)

    verdicts = verdicts_of("bn_label_smooth", log_fid)
    effect = verdicts.effects("fid")[0]
    decisions = {simple.place: simple.decision for simple in verdicts.simple_effects_of(effect)}
    assert decisions == {"label smoothing off": "lower", "label smoothing on": "inconclusive"}
    assert not verdicts.varies(effect)


def test_effects_on_an_outcome_are_estimated_once() -> None:
    verdicts = verdicts_of("beta1", noise)
    once = {outcome: verdicts.effects(outcome) for outcome in ("fid", "recall")}
    assert all(verdicts.effects(outcome) is effects for outcome, effects in once.items())
    assert once["fid"][0].outcome != once["recall"][0].outcome


def mixed_verdicts(
    log_fid: Callable[[Variant, int], float], collapsed: Callable[[str, int], bool], seeds: int = 8, grid: str = "beta1"
) -> Verdicts:
    """Verdicts on runs of which some collapsed, by the level of the grid's only factor and the seed."""
    verdicts = verdicts_of(grid, log_fid, seeds)
    (factor,) = verdicts.plan.grid.factors
    pairs = zip(verdicts.runs[factor], verdicts.runs["seed"], strict=True)
    return dataclasses.replace(
        verdicts, runs=verdicts.runs.assign(collapsed=[collapsed(level, seed) for level, seed in pairs])
    )


def of_level(verdicts: Verdicts, level: str, outcome: str = "fid") -> Effect:
    return next(effect for effect in verdicts.effects(outcome) if level in effect.levels.values())


def test_an_effect_is_the_typical_runs_where_some_runs_of_a_variant_collapsed() -> None:
    """One of ten runs collapsed, with a FID e times as high: the mean is nothing, the typical run is lower."""

    def log_fid(variant: Variant, seed: int) -> float:
        is_high = variant.levels["beta1"] == "0.9"
        return -0.15 * is_high + 1.0 * (is_high and seed == 0) + noise(variant, seed)

    verdicts = mixed_verdicts(log_fid, lambda level, seed: level == "0.9" and seed == 0, seeds=10)
    effect, other = of_level(verdicts, "0.9"), of_level(verdicts, "0.0")
    assert (effect.basis, other.basis) == ("median", "mean")
    assert effect.estimate.value == pytest.approx(-0.15, abs=0.03)
    assert effect.estimate.high < 0
    assert of_level(verdicts, "0.9", "step_ms_median").basis == "mean"  # no collapse changes the time of a step
    by_mean = of_level(dataclasses.replace(verdicts, runs=verdicts.runs.assign(collapsed=False)), "0.9")
    assert by_mean.basis == "mean"
    assert by_mean.estimate.low < 0 < by_mean.estimate.high


@pytest.mark.parametrize(
    ("treated", "usual", "basis"), [(8, 0, "mean"), (8, 8, "mean"), (0, 0, "mean"), (7, 0, "median"), (8, 1, "median")]
)
def test_runs_of_which_all_collapsed_or_none_are_no_mixture(treated: int, usual: int, basis: str) -> None:
    verdicts = mixed_verdicts(noise, lambda level, seed: seed < {"0.9": treated, "0.5": usual}.get(level, 0))
    assert of_level(verdicts, "0.9").basis == basis


CURE = Claim(sentence="it cures collapse", levels=[{"beta1": "0.9"}], outcome="class_divergence", direction="lower")


def cure_verdict(treated: int, usual: int, change: float) -> tuple[str, str]:
    """The verdict on a cure after which so many of eight runs collapsed, against so many without it; and its basis."""
    verdicts = mixed_verdicts(noise, lambda level, seed: seed < {"0.9": treated, "0.5": usual}.get(level, 0))
    divergence = [
        1.5 + change * (level == "0.9") + 0.01 * math.sin(7 * seed + 2 * len(level) * float(level))
        for level, seed in zip(verdicts.runs["beta1"], verdicts.runs["seed"], strict=True)
    ]
    verdicts = dataclasses.replace(verdicts, runs=verdicts.runs.assign(class_divergence=divergence))
    claim_verdict = judge(CURE, verdicts.effects)
    assert claim_verdict is not None
    return claim_verdict.verdict, claim_verdict.decisive[0].basis


@pytest.mark.parametrize(
    ("treated", "usual", "change", "verdict", "basis"),
    [
        (8, 8, -0.5, "inconclusive", "failure rate"),  # another collapse is no cure
        (8, 8, 0.5, "refuted", "mean"),
        (0, 8, -0.5, "supported", "mean"),
        (0, 8, 0.0, "supported", "failure rate"),
        (8, 0, 0.0, "refuted", "failure rate"),
        (8, 0, -0.5, "inconclusive", "mean"),  # the two contradict each other
        (1, 8, -0.5, "supported", "typical run"),
        (0, 0, -0.5, "supported", "mean"),
    ],
)
def test_a_verdict_rests_on_the_typical_run_or_on_the_rate_of_collapse(
    treated: int, usual: int, change: float, verdict: str, basis: str
) -> None:
    assert cure_verdict(treated, usual, change) == (verdict, basis)


def test_a_rate_bears_on_outcomes_of_images_alone() -> None:
    verdicts = mixed_verdicts(noise, lambda level, _: level == "0.9")
    assert of_level(verdicts, "0.9").failure_change == "higher"
    for outcome in ("grad_norm_g", "oscillation", "step_ms_median"):
        runs = verdicts.runs.assign(**{outcome: [5.0 + 0.1 * math.sin(3 * i) for i in range(len(verdicts.runs))]})
        claim = CURE.model_copy(update={"outcome": outcome})
        claim_verdict = judge(claim, dataclasses.replace(verdicts, runs=runs).effects)
        assert claim_verdict is not None
        assert claim_verdict.decisive[0].basis == "mean"


def test_a_difference_of_rates_refutes_that_nothing_changes() -> None:
    verdicts = mixed_verdicts(lambda variant, seed: noise(variant, seed, 0.001), lambda level, _: level == "0.9")
    claim = CURE.model_copy(update={"outcome": "fid", "direction": "none"})
    claim_verdict = judge(claim, verdicts.effects)
    assert claim_verdict is not None
    assert (claim_verdict.verdict, claim_verdict.decisive[0].basis) == ("refuted", "failure rate")


@pytest.mark.parametrize(("seeds", "rate"), [(5, 0.45), (12, 0.22)])
def test_seeds_without_a_collapse_allow_a_rate(seeds: int, rate: float) -> None:
    assert of_level(verdicts_of("beta1", noise, seeds), "0.9").allowed_collapse_rate == pytest.approx(rate, abs=0.005)


def test_runs_that_collapsed_bound_their_rate_exactly() -> None:
    effect = of_level(mixed_verdicts(noise, lambda level, seed: level == "0.9" and seed < 2), "0.9")
    assert effect.allowed_collapse_rate == pytest.approx(stats.beta.ppf(0.95, 3, 6))


def censored(verdicts: Verdicts, bounds: Callable[[dict[str, str], int], str]) -> Verdicts:
    """With 600 steps to the target, or twice as many or half as many where that is a bound."""
    runs, names = verdicts.runs, list(verdicts.plan.grid.factors)
    levels = [dict(zip(names, row, strict=True)) for row in runs[names].itertuples(index=False, name=None)]
    told = [bounds(of_run, seed) for of_run, seed in zip(levels, runs["seed"], strict=True)]
    steps = [{"": 600.0 + seed, "≥": 1_200.0, "≤": 300.0}[word] for word, seed in zip(told, runs["seed"], strict=True)]
    return dataclasses.replace(verdicts, runs=runs.assign(steps_to_fid=steps, target_bound=told))


def test_an_effect_of_censored_runs_is_a_bound_by_signs() -> None:
    """At 0.9 no run reaches the target, at 0.0 all do before the first point."""
    words = {"0.9": "≥", "0.0": "≤", "0.5": ""}
    verdicts = censored(verdicts_of("beta1", noise, 8), lambda levels, _: words[levels["beta1"]])
    slow, fast = of_level(verdicts, "0.9", "steps_to_fid"), of_level(verdicts, "0.0", "steps_to_fid")
    assert (slow.basis, slow.value_bound, slow.decision) == ("median", "≥", "higher")
    assert (fast.basis, fast.value_bound, fast.decision) == ("median", "≤", "lower")
    assert slow.estimate.value == pytest.approx(math.log(2), abs=0.01)
    assert (slow.estimate.high, fast.estimate.low) == (math.inf, -math.inf)
    assert slow.estimate.low == pytest.approx(math.log(1_200 / 607))


def test_runs_censored_on_both_sides_tell_nothing() -> None:
    verdicts = censored(verdicts_of("beta1", noise, 12), lambda levels, _: "≥" if levels["beta1"] != "0.0" else "")
    both = of_level(verdicts, "0.9", "steps_to_fid")
    assert (both.decision, both.test.p) == ("inconclusive", 1)
    assert math.isnan(both.estimate.value)


def test_an_interaction_of_censored_runs_is_not_estimated() -> None:
    verdicts = verdicts_of("bn_label_smooth", noise, 8)
    told = censored(verdicts, lambda levels, seed: "≥" if levels["batch_norm"] == "off" and seed == 0 else "")
    (*_, interaction) = told.effects("steps_to_fid")
    assert interaction.is_interaction
    assert interaction.estimate.num_seeds == 0
    (*_, whole) = censored(verdicts, lambda *_: "").effects("steps_to_fid")
    assert (whole.basis, whole.estimate.num_seeds) == ("mean", 8)


def test_a_diverged_run_is_on_the_worse_side() -> None:
    """Half of the runs diverged, the others are better: the survivors' mean would be lower, the typical run is not."""

    def log_fid(variant: Variant, seed: int) -> float:
        if variant.levels["beta1"] != "0.9":
            return noise(variant, seed)
        return math.nan if seed % 2 else -0.5 + noise(variant, seed)

    effect = of_level(verdicts_of("beta1", log_fid, 12), "0.9")
    assert (effect.basis, effect.decision, effect.estimate.num_seeds) == ("median", "inconclusive", 12)
    assert effect.rates["diverged"].count == 6


def test_rates_with_both_levels_and_with_neither_are_no_interaction() -> None:
    verdicts = verdicts_of("bn_label_smooth", noise, 8)
    runs = verdicts.runs.assign(collapsed=verdicts.runs["batch_norm"] == "off")
    norm, _, both = dataclasses.replace(verdicts, runs=runs).effects("fid")
    assert both.rates["collapsed"].change == norm.rates["collapsed"].change == "higher"
    assert (norm.failure_change, both.failure_change) == ("higher", None)
