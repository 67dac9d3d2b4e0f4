from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.certainty import _page, settle_studies
from gan_ablate.analysis.estimates import Estimate
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.sequential import seeds_to_settle
from gan_ablate.analysis.tests import seeds_needed
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Variant, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from tests.synthetic import save_runs

MARGIN = math.log(1.1)
DIFFERENCE = np.array([1.0, -1.0])


def scores_of(effect: float, shared: float, own: float, num: int = 400) -> NDArray[np.float64]:
    """So many seeds that drawing from them is as good as new ones."""
    rng = np.random.default_rng(0)
    scores: NDArray[np.float64] = rng.normal(0, shared, (num, 1)) + rng.normal(0, own, (num, 2))
    scores -= scores.mean(axis=0)
    scores[:, 0] += effect
    return scores


@pytest.mark.parametrize(("effect", "own"), [(0.3, 0.1), (0.15, 0.1), (0.0, 0.04)])
def test_a_fixed_number_of_paired_seeds_is_that_of_the_power_analysis(effect: float, own: float) -> None:
    scores = scores_of(effect, 0.0, own)
    differences = scores @ DIFFERENCE
    seen = Estimate(effect, 0, 0, 5, std=float(differences.std(ddof=1)))
    cost = settle_studies(scores, DIFFERENCE, MARGIN, 3, 2_000)
    needed, one_by_one = seeds_needed(seen, 0.05 / 3, MARGIN), seeds_to_settle(seen, MARGIN, 1 - 0.05 / 3)
    assert needed is not None
    assert one_by_one is not None
    assert cost.paired == pytest.approx(needed, abs=2)
    # The estimate is of the usual study, the cost of four out of five.
    assert cost.sequential is not None
    assert one_by_one - 1 <= cost.sequential <= 1.6 * one_by_one


def test_what_seeds_share_costs_unpaired_studies_dearly_and_paired_ones_nothing() -> None:
    alone, together = (
        settle_studies(scores_of(0.2, shared, 0.05), DIFFERENCE, MARGIN, 1, 1_000) for shared in (0.0, 0.2)
    )
    assert alone.unpaired is not None
    assert alone.paired is not None
    assert abs(alone.unpaired - alone.paired) <= 2
    assert together.paired == alone.paired
    assert together.unpaired is not None
    assert together.unpaired > 5 * alone.unpaired


def test_an_effect_that_nothing_settles_says_so() -> None:
    cost = settle_studies(scores_of(MARGIN, 0.0, 1.0), DIFFERENCE, MARGIN, 3, 200)
    assert (cost.unpaired, cost.paired, cost.sequential) == (None, None, None)


def test_the_page_has_a_row_for_every_effect(tmp_path: Path) -> None:
    planned = plan(load_grid("bn_label_smooth"), seeds=12)

    def fid(variant: Variant, seed: int) -> float:
        return 20 * math.exp(
            0.1 * math.sin(7 * seed + len(variant.label)) + 0.5 * (variant.levels["batch_norm"] == "off")
        )

    save_runs(Store(tmp_path), planned, fid)
    lines = _page(GridResults.load(Store(tmp_path), "bn_label_smooth"), 200)
    rows = [line for line in lines if line.startswith(("| batch norm", "| label smoothing"))]
    assert len(rows) == 3 + 4
    assert "runs" in rows[0]
    assert "min" in rows[0]
    save_runs(Store(tmp_path / "few"), plan(load_grid("bn_label_smooth"), seeds=3), fid)
    with pytest.raises(UserError, match="3 seeds with all variants; valid: at least 10"):
        _page(GridResults.load(Store(tmp_path / "few"), "bn_label_smooth"), 200)
