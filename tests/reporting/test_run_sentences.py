"""What a reader must know before believing a grid's answers."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from gan_ablate.design.grid import load_grid
from gan_ablate.design.planning import plan
from gan_ablate.reporting.caveats import warning_sentences
from tests.synthetic import make_results

SENTENCE = "All 4 scored runs collapsed: what failures have in common is no answer."


@pytest.mark.parametrize(
    ("collapsed", "is_told"), [([True] * 4, True), ([True] * 3 + [False], False), ([None] * 4, False)]
)
def test_a_grid_of_collapsed_runs_answers_nothing(collapsed: list[bool | None], is_told: bool) -> None:
    results = make_results(plan(load_grid("activation"), seeds=1), lambda cell, seed: 20.0 + seed + len(cell.label))
    assert len(results.runs) == 4
    changed = dataclasses.replace(results, runs=results.runs.assign(collapsed=pd.Series(collapsed, dtype=object)))
    assert (SENTENCE in warning_sentences(changed)) == is_told
