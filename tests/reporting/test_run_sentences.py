from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from gan_ablate.analysis.allocation import replay_looks
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import tabulate_runs
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.records import Record
from gan_ablate.reporting.run_sentences import look_lines, remark_sentences, settled_text, warning_sentences
from tests.reporting.example import change_records
from tests.synthetic import make_results

SENTENCE = "All 4 scored runs collapsed: what failures have in common is no answer."


@pytest.mark.parametrize(
    ("collapsed", "is_told"), [([True] * 4, True), ([True] * 3 + [False], False), ([None] * 4, False)]
)
def test_a_grid_of_collapsed_runs_answers_nothing(collapsed: list[bool | None], is_told: bool) -> None:
    results = make_results(
        plan(load_grid("activation"), seeds=1), lambda variant, seed: 20.0 + seed + len(variant.label)
    )
    assert len(results.runs) == 4
    changed = dataclasses.replace(results, runs=results.runs.assign(collapsed=pd.Series(collapsed, dtype=object)))
    assert (SENTENCE in warning_sentences(changed)) == is_told


def test_failures_and_missing_runs_are_said() -> None:
    results = make_results(plan(load_grid("beta1"), seeds=2), lambda _, seed: 20.0 + seed)
    failed, missing = (record.run_id for _, record in results.records[:2])
    levels = {variant.label: variant.levels for variant in results.plan.variants}

    def fail(record: Record) -> dict[str, object]:
        return {"status": "failed", "scoring": None} if record.run_id == failed else {}

    records = [pair for pair in change_records(results, fail).records if pair[1].run_id != missing]
    runs = tabulate_runs(results.plan, [(levels[label], label, record) for label, record in records])
    assert warning_sentences(GridResults(results.store, results.plan, records, runs)) == [
        "5 of 6 runs are finished; the same command computes the others.",
        "1 of 6 runs failed with an error, and will be tried again: 1× beta1 0.5.",
    ]


def test_look_is_a_line_for_each_effect_with_its_adjusted_interval() -> None:
    planned = plan(load_grid("beta1"), seeds=4)
    results = make_results(
        planned, lambda variant, seed: 20.0 + seed / 10 + (20.0 if variant.label == "beta1 0.9" else 0.0)
    )
    looks = replay_looks(planned, results.runs).looks
    title, *lines = look_lines(looks[-1], "mnist")
    assert title == f"mnist, after {looks[-1].num_seeds} seeds:"
    (line,) = [line for line in lines if line.startswith("  beta1 0.9  FID +")]
    assert line.endswith("]: higher")
    (effect,) = [one for one in looks[-1].effects if one.name == "beta1 0.9" and one.outcome.name == "fid"]
    assert settled_text(effect, looks) == str(looks[0].num_seeds)
    assert settled_text(effect, ()) == "–"


def test_runs_from_before_a_correction_are_said() -> None:
    results = make_results(plan(load_grid("dropout"), seeds=2), lambda _, seed: 20.0 + seed)

    def name_as_before(record: Record) -> dict[str, object]:
        return {"run_id": min(record.config.known_run_ids - {record.config.run_id}, default=record.run_id)}

    assert (
        "6 of 8 runs were computed before a correction (masks_after_networks): 2× dropout channels-25; "
        "2× dropout elements-30; 2× dropout elements-50. Running the grid again computes them anew."
    ) in remark_sentences(change_records(results, name_as_before))
    assert not [text for text in remark_sentences(results) if "correction" in text]


def test_the_page_says_which_weights_it_shows_where_runs_kept_the_best_ones() -> None:
    results = make_results(plan(load_grid("beta1"), seeds=2), lambda _, seed: 20.0 + seed)
    ids = [record.run_id for _, record in results.records]

    def keep_best(record: Record) -> dict[str, object]:
        assert record.scoring is not None
        step = {ids[0]: record.config.steps, ids[1]: 900}.get(record.run_id)
        if step is None:
            return {}
        best = {"best": record.scoring.final, "best_step": step}
        return {"scoring": record.scoring.model_copy(update=best)}

    said = remark_sentences(change_records(results, keep_best))
    assert "FID and all other scores are those of the last weights." in said
    assert (
        "The column *FID, best point* is of the weights with the lowest FID along training, in 2 of 6 runs: of "
        "steps 900 to 1,500; in 1 that is the last step."
    ) in said
    assert not [text for text in remark_sentences(results) if "weights" in text]
