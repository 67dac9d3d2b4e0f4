from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from gan_ablate.analysis.claims import Judgement, judge
from gan_ablate.analysis.effects import Effect, estimate_against, estimate_effects
from gan_ablate.analysis.outcomes import OUTCOMES
from gan_ablate.analysis.results import GridResults
from gan_ablate.design.claims import RATIO_OUTCOMES, Claim, OutcomeName
from gan_ablate.design.grid import list_grids, load_grid
from gan_ablate.design.planning import Cell, plan
from gan_ablate.execution.store import Store
from tests.synthetic import make_results, save_runs

HELPS = Claim(id="C0", sentence="x helps", levels=[{"dropout": "elements-50"}], direction="lower")
SHIPPED = [claim for grid in list_grids() for claim in load_grid(grid).claims]


def dropout_effects(log_effects: dict[str, float], seeds: int = 5, noise: float = 0.1) -> list[Effect]:
    """Effects with a spread at which one of nothing is open; at a fifth of it, it is negligible."""
    planned = plan(load_grid("dropout"), seeds=seeds)

    def fid(cell: Cell, seed: int) -> float:
        return 30 * math.exp(log_effects.get(cell.levels["dropout"], 0) + noise * math.sin(7 * seed + len(cell.label)))

    return estimate_effects(planned, make_results(planned, fid).runs)


@pytest.mark.parametrize(
    ("change", "noise", "verdict"),
    [
        (-0.5, 0.1, "supported"),
        (0.5, 0.1, "refuted"),
        (0.001, 0.1, "open"),
        (0.001, 0.02, "negligible"),
        (0.09, 0.002, "refuted"),
    ],
)
def test_a_verdict_follows_from_the_adjusted_interval(change: float, noise: float, verdict: str) -> None:
    effects = dropout_effects({"elements-50": change}, noise=noise)
    judgement = judge(HELPS, lambda _: effects)
    assert judgement is not None
    assert judgement.verdict == verdict
    assert (judgement.needed_seeds is None) is (verdict != "open")
    assert tuple(finding.expectation for finding in judgement.decisive) == HELPS.decisive
    assert judgement.is_too_small is (change == 0.09)  # real, and within log 1.1 = 0.095


@pytest.mark.parametrize(
    ("change", "noise", "verdict"),
    [
        (0.001, 0.02, "supported"),
        (0.09, 0.002, "supported"),
        (0.11, 0.002, "refuted"),
        (0.12, 0.06, "open"),  # an effect, and perhaps one within the margin
        (0.0, 0.1, "open"),
    ],
)
def test_a_claim_of_no_difference_rests_on_the_margin(change: float, noise: float, verdict: str) -> None:
    claim = HELPS.model_copy(update={"direction": "none"})
    effects = dropout_effects({"elements-50": change}, noise=noise)
    judgement = judge(claim, lambda _: effects)
    assert judgement is not None
    assert judgement.verdict == verdict


@pytest.mark.parametrize(
    ("log_effects", "noise", "verdict"),
    [
        ({"channels-25": -0.5}, 0.1, "supported"),
        ({"channels-25": 0.5, "elements-30": 0.4, "elements-50": 0.3}, 0.1, "refuted"),
        ({"channels-25": -0.5, "elements-50": 0.5}, 0.1, "open"),
        # That one level does harm does not refute that some other one helps, unless none certainly does.
        ({"channels-25": 0.5}, 0.1, "open"),
        ({"channels-25": 0.5}, 0.01, "refuted"),
        ({}, 0.01, "negligible"),
        ({}, 0.1, "open"),
    ],
)
def test_several_levels_decide_together(log_effects: dict[str, float], noise: float, verdict: str) -> None:
    (claim,) = load_grid("dropout").claims
    effects = dropout_effects(log_effects, noise=noise)
    judgement = judge(claim, lambda _: effects)
    assert judgement is not None
    assert judgement.verdict == verdict
    assert len(judgement.decisive) == 3


@pytest.mark.parametrize(
    ("log_effects", "noise", "verdict"),
    [
        ({}, 0.01, "supported"),
        ({"channels-25": 0.3}, 0.01, "refuted"),
        ({"channels-25": 0.3, "elements-50": -0.3}, 0.01, "refuted"),
        ({"elements-30": 0.08}, 0.05, "open"),
        ({}, 0.1, "open"),
    ],
)
def test_that_nothing_matters_is_said_of_all_levels(log_effects: dict[str, float], noise: float, verdict: str) -> None:
    (claim,) = load_grid("dropout").claims
    effects = dropout_effects(log_effects, noise=noise)
    judgement = judge(claim.model_copy(update={"direction": "none"}), lambda _: effects)
    assert judgement is not None
    assert judgement.verdict == verdict
    needed = [finding.effect.needed_seeds for finding in judgement.decisive if finding.verdict == "open"]
    if verdict == "open":  # it takes as many as the last of its levels does
        assert judgement.needed_seeds == (None if None in needed else max(number or 0 for number in needed))


def test_a_claim_of_which_a_part_was_not_measured_is_not_judged() -> None:
    (claim,) = load_grid("dropout").claims
    effects = [effect for effect in dropout_effects({"elements-50": -1}) if "elements-30" not in effect.name]
    assert judge(claim, lambda _: effects) is None


def test_a_level_at_which_every_run_diverges_is_judged_and_says_so(tmp_path: Path) -> None:
    planned = plan(load_grid("bn_label_smooth"))
    save_runs(Store(tmp_path), planned, lambda cell, seed: None if cell.levels["batch_norm"] == "off" else 20.0 + seed)
    results = GridResults.load(Store(tmp_path), "bn_label_smooth")
    (batch_norm, _) = results.verdicts.judgements()
    assert batch_norm.verdict == "open"
    rates = results.verdicts.rates(batch_norm.decisive[0].effect)["diverged"]
    assert (rates.count, rates.total, rates.baseline_count, rates.baseline_total) == (0, 10, 10, 10)
    assert rates.p < 1e-4


def test_a_variant_that_never_reaches_the_target_is_judged_by_its_last_step(tmp_path: Path) -> None:
    def fid(cell: Cell, seed: int) -> float:  # at thrice the baseline's FID the curve ends above the target
        return 20 * (3.0 if cell.levels["head"] == "average-pool" else 1.0) * math.exp(0.02 * math.sin(seed))

    save_runs(Store(tmp_path), plan(load_grid("head")), fid)
    results = GridResults.load(Store(tmp_path), "head")
    judged = {judgement.claim.id: judgement for judgement in results.verdicts.judgements()}
    assert judged["C12b"].verdict == "supported"
    (slower,) = judged["C12b"].decisive
    assert math.exp(slower.effect.estimate.value) == pytest.approx(2, rel=0.1)  # half-way, and the last step
    pooled = results.summary.set_index("head").loc["average-pool"]
    assert (pooled["fid_reached"], pooled["steps_to_fid"], pooled["steps_to_fid_bound"]) == (0, 1500, "≥")
    assert results.verdicts.effects("sec_to_fid") == []


def test_a_claim_without_its_effect_is_not_judged() -> None:
    effects = dropout_effects({})
    other = HELPS.model_copy(update={"levels": [{"dropout": "elements-70"}]})
    assert judge(other, lambda _: effects) is None


def test_one_seed_settles_nothing() -> None:
    effects = dropout_effects({"elements-50": -2}, seeds=1)
    judgement = judge(HELPS, lambda _: effects)
    assert judgement is not None
    assert judgement.verdict == "open"


def test_the_claims_that_shipped_grids_can_decide_are_there() -> None:
    assert {claim.id for claim in SHIPPED} >= {
        "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12a", "C12b", "C15", "C20a", "C20b",
    }  # fmt: skip
    assert len({claim.id for claim in SHIPPED}) == len(SHIPPED)


def test_a_claim_may_be_on_every_outcome_and_on_no_other() -> None:
    assert set(get_args(OutcomeName)) == set(OUTCOMES)
    assert set(RATIO_OUTCOMES) == {name for name, outcome in OUTCOMES.items() if outcome.scale == "ratio"}


def test_a_smoke_run_judges_no_claim(tmp_path: Path) -> None:
    for budget, known in (("smoke", []), ("standard", ["C2", "C9"])):
        planned = plan(load_grid("bn_label_smooth"), budget=budget)  # type: ignore[arg-type]
        save_runs(Store(tmp_path / budget), planned, lambda *_: 20.0)
        judged = GridResults.load(Store(tmp_path / budget), "bn_label_smooth").verdicts.judgements()
        assert [judgement.claim.id for judgement in judged] == known


def test_a_grid_of_ones_own_judges_its_own_claims(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (
        'base = "dcgan-28"\n[factors.latent]\nbaseline = "100"\n'
        'levels."100" = { latent_dim = 100 }\nlevels."10" = { latent_dim = 10 }\n'
        '[[claims]]\nsentence = "Ten are worse"\nlevels = { latent = "10" }\ndirection = "higher"\n'
    )
    path.write_text(text)
    planned, store = plan(load_grid(path)), Store(tmp_path)
    save_runs(
        store, planned, lambda cell, seed: (20 + seed) * (2 if cell.levels["latent"] == "10" else 1.0 + seed / 50)
    )
    (judgement,) = GridResults.load(store, "mine").verdicts.judgements()
    assert (judgement.claim.sentence, judgement.verdict) == ("Ten are worse", "supported")


def compare_with(value: float, *, spread: float, **claim: object) -> Judgement | None:
    """Judge where D(G(z)) lies at the end, of runs in which it is about 0.3."""
    planned = plan(load_grid("dropout"))
    runs = make_results(planned, lambda *_: 1.0).runs
    runs["d_fake_end"] = 0.3 + spread * runs["seed"].map({0: -1.2, 1: -0.4, 2: 0.1, 3: 0.5, 4: 1.0})
    runs.loc[runs["dropout"] != "none", "d_fake_end"] = 0.9
    stated = Claim.model_validate(
        {"sentence": "It is there", "outcome": "d_fake_end", "direction": "none", "against": value, **claim}
    )
    return judge(stated, lambda _: [], functools.partial(estimate_against, planned, runs))


@pytest.mark.parametrize(
    ("value", "spread", "claim", "verdict"),
    [
        (0.3, 0.01, {"margin": 0.05}, "supported"),
        (0.5, 0.01, {"margin": 0.05}, "refuted"),
        (0.34, 0.05, {"margin": 0.05}, "open"),
        (0.2, 0.01, {"direction": "higher"}, "supported"),
        (0.4, 0.01, {"direction": "higher"}, "refuted"),
        (0.31, 0.1, {"direction": "higher"}, "open"),
    ],
)
def test_a_baseline_is_compared_with_a_value(
    value: float, spread: float, claim: dict[str, object], verdict: str
) -> None:
    judgement = compare_with(value, spread=spread, **claim)
    assert judgement is not None
    assert judgement.verdict == verdict
    (finding,) = judgement.decisive
    assert finding.effect.estimate.value == pytest.approx(0.3 - value)
    assert finding.effect.name == f"the baseline against {value:g}"


def test_what_no_run_has_is_not_judged() -> None:
    planned = plan(load_grid("dropout"))
    runs = make_results(planned, lambda *_: 1.0).runs
    assert runs["probe_gain"].isna().all()
    assert estimate_against(planned, runs, "probe_gain", 0.0) is None


def test_a_claim_without_a_verdict_says_why(tmp_path: Path) -> None:
    planned = plan(load_grid("representation"), seeds=3)
    save_runs(Store(tmp_path), planned, lambda *_: 1.0)
    verdicts = GridResults.load(Store(tmp_path), "representation").verdicts
    judged = [judgement.claim.id for judgement in verdicts.judgements()]
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
    judgement = judge(claim, lambda _: billed)
    assert judgement is not None
    assert judgement.verdict == "open"
    assert judgement.needed_seeds == expected


def test_what_is_told_beside_a_claim_does_not_decide_it() -> None:
    """Batch norm lowers FID; on oscillation, which stands beside, it does nothing."""
    rng = np.random.default_rng(0)
    planned = plan(load_grid("bn_label_smooth"))
    fid = {(cell.label, seed): 20 * math.exp(rng.normal(0, 0.01)) for cell, seed in planned.places}
    results = make_results(
        planned, lambda cell, seed: fid[cell.label, seed] * (0.5 if cell.levels["batch_norm"] == "on" else 1.0)
    )
    judgement = results.verdicts.judgements()[0]
    assert (judgement.claim.id, judgement.verdict) == ("C2", "supported")
    (beside,) = judgement.beside
    assert beside.expectation == judgement.claim.beside[0]
    assert (beside.effect.outcome.name, beside.verdict) == ("oscillation", "open")
