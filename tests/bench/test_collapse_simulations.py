from __future__ import annotations

import numpy as np
import pytest

from bench.collapse_simulations import MARGIN, MOST, Mixture, clean_so_far, decide, false_verdicts, found_by
from gan_ablate.analysis.families import Comparison, estimate_family
from gan_ablate.analysis.tests import compare_rates
from gan_ablate.design.outcomes import OUTCOMES


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_the_simulated_report_decides_as_the_report_does(shift: float) -> None:
    """On families of three at every look; on one side a fifth of the runs collapses."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        values, treated, baseline = Mixture(0.2, 0.0).sample(rng, np.full(3, shift))
        simulated = decide(values, treated, baseline)
        for num in range(2, MOST + 1):
            family = []
            for effect in range(3):
                seen, happened = values[:num, effect], treated[:num, effect]
                sides = np.stack([seen, np.zeros(num)], axis=1)
                bounds = np.stack([seen, seen], axis=1) if 0 < happened.sum() < num else None
                rates = compare_rates(happened.astype(np.float64), np.zeros(num), is_fixed=False)
                family.append(Comparison({"x": str(effect)}, {}, sides, None, bounds, {"collapsed": rates}))
            for effect, found in enumerate(estimate_family(family, OUTCOMES["fid"], MARGIN, "sequential")):
                decision = {-1: "lower", 0: "inconclusive", 1: "higher"}[int(simulated.signs[num - 1, effect])]
                decision = "negligible" if simulated.negligible[num - 1, effect] else decision
                assert found.decision == decision
                change = {-1: "lower", 0: None, 1: "higher"}[int(simulated.rates[num - 1, effect])]
                assert found.failure_change == change


@pytest.mark.parametrize(("mixture", "middle"), [((0.0, 0.0), 0.0), ((0.3, 0.3), 0.0), ((0.3, 0.0), 0.0566)])
def test_the_median_of_pairs_is_found(mixture: tuple[float, float], middle: float) -> None:
    """Of 0.7 of the runs it is the quantile 0.5 / 0.7, 0.566 standard deviations of 0.1."""
    assert Mixture(*mixture).middle == pytest.approx(middle, abs=1e-4)
    assert Mixture(*mixture[::-1]).middle == pytest.approx(-middle, abs=1e-4)


@pytest.mark.slow
def test_few_families_have_a_false_verdict_where_runs_collapse() -> None:
    for mixture in (Mixture(0.2, 0.0), Mixture(0.0, 0.2), Mixture(0.2, 0.2)):
        for shift in (0.0, MARGIN if mixture.treated else -MARGIN):
            assert false_verdicts(mixture, np.full(3, shift), 60).either <= 0.1


@pytest.mark.slow
def test_signs_find_what_jumps_hide_from_a_mean() -> None:
    by_signs, by_mean = (found_by(Mixture(0.1, 0.0, 0.05), 1, 60, by_signs=by_signs)[0] for by_signs in (True, False))
    assert by_signs > 0.9
    assert by_mean < 0.8


def test_the_bound_of_clean_seeds_holds_their_rate() -> None:
    share, too_low, bound = clean_so_far(0.1, 40)
    assert share > 0.1
    assert too_low <= 0.05
    assert 0.1 < bound < 0.5
