"""A small results folder whose pages show everything that a page may hold, and the golden files of those pages."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gan_ablate.analysis.allocation import replay_looks
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import tabulate_runs
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Variant, plan
from gan_ablate.execution.records import Record, ScoringRecord
from gan_ablate.execution.store import FILTERS_FILE, Store
from gan_ablate.reporting.front_page import FrontPage, make_front_page
from gan_ablate.reporting.other_studies import OtherStudy
from gan_ablate.scoring.scores import ProbeScores, RepresentationScores, Scores
from tests.reporting.conftest import PIXEL
from tests.synthetic import make_record, save_runs

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare a page with its golden file; with ``RENEW_GOLDEN=1`` in the environment, write the file instead."""
    golden = GOLDEN / name
    if os.environ.get("RENEW_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def make_front(*results: GridResults, has_figure: bool = True, others: Sequence[OtherStudy] = ()) -> FrontPage:
    """Make the front page of some results."""
    by_name = {of_grid.name: of_grid for of_grid in results}
    return make_front_page(by_name, dict.fromkeys(by_name, ""), [], [], has_figure=has_figure, others=others)


def change_records(results: GridResults, change: Callable[[Record], dict[str, object]]) -> GridResults:
    """Return the same results of records with other fields; no fields leave a record as it is."""
    levels = {variant.label: variant.levels for variant in results.plan.variants}
    records = [(label, record.model_copy(update=change(record))) for label, record in results.records]
    runs = tabulate_runs(results.plan, [(levels[label], label, record) for label, record in records])
    return GridResults(results.store, results.plan, records, runs)


def scoring_of(record: Record) -> tuple[ScoringRecord, Scores]:
    assert record.scoring is not None
    assert record.scoring.final is not None
    return record.scoring, record.scoring.final


def noise(variant: Variant, seed: int, salt: str = "") -> float:
    return math.sin(7 * seed + sum(map(ord, variant.label + salt)))


def make_example(out: Path) -> Path:
    """Save grids of all kinds: factorial, one at a time, sequential, in blocks, a smoke run, one without a run."""
    store = Store(out)
    save_factorial(store)
    save_sequential(store)
    save_blocks(store)
    save_representation(store)
    save_runs(store, plan(load_grid("activation"), budget="smoke"), lambda variant, seed: 90 + noise(variant, seed))
    store.save_plan(plan(load_grid("precision"), seeds=2))
    return out


def save_factorial(store: Store) -> None:
    """Save four seeds: batch norm halves FID, smoothing raises it beside batch norm; one run diverged, one failed."""
    planned = plan(load_grid("bn_label_smooth"), seeds=4)

    def fid(variant: Variant, seed: int) -> float | None:
        norm, smoothing = (variant.levels[name] == "on" for name in ("batch_norm", "label_smoothing"))
        if smoothing and not norm and seed == 0:
            return None
        effect = (-0.7 if norm else 0.0) + (0.5 if norm and smoothing else 0.0)
        return 40 * math.exp(effect + 0.1 * seed + (0.01 if norm else 0.1) * noise(variant, seed))

    save_runs(store, planned, fid, step_ms=lambda variant: 25.0 if variant.levels["batch_norm"] == "on" else 20.0)
    broken = planned.variants[-1].with_seed(3)
    store.save_record(Record(run_id=broken.run_id, status="failed", message="planted", config=broken))


def save_sequential(store: Store) -> None:
    """Save twelve seeds of which only as many are planned as settle each level; one level does nothing."""
    asked = plan(load_grid("dropout"), seeds=12)
    errors = {variant.label: np.random.default_rng(i).normal(0, 0.04, 12) for i, variant in enumerate(asked.variants)}
    gains = {"channels-25": 1.0}
    save_runs(
        store,
        asked,
        lambda variant, seed: 20 * math.exp(gains.get(variant.levels["dropout"], 0) + errors[variant.label][seed]),
    )
    store.save_plan(replay_looks(asked, tabulate_runs(asked, list(store.records(asked)))).plan)


def save_blocks(store: Store) -> None:
    """Save one grid on two data sets: one effect turns between them, the other is the same on both."""
    turned = {"mnist-10k": 0.5, "fashion-mnist": -0.5}
    for dataset, turn in turned.items():

        def fid(variant: Variant, seed: int, dataset: str = dataset, turn: float = turn) -> float:
            change = {"0.9": turn, "0.0": 0.3}.get(variant.levels["beta1"], 0.0)
            return 20 * math.exp(change + 0.004 * noise(variant, seed, dataset))

        save_runs(store, plan(load_grid("beta1"), dataset=dataset), fid)


def save_representation(store: Store) -> None:
    """Save two seeds with probes of D's features, and the picture that the first one left."""
    planned = plan(load_grid("representation"), seeds=2)
    store.save_plan(planned)
    for variant, config in planned.runs:
        record = make_record(variant, config.seed, 20.0 + config.seed + noise(variant, config.seed))
        assert record.scoring is not None
        learnt = RepresentationScores(
            probes=[
                ProbeScores(num_labels=num, trained=0.9 + config.seed / 100, untrained=0.8, pixels=0.7)
                for num in (100, 1_000)
            ],
            arithmetic=0.6 + config.seed / 10,
            arithmetic_shuffled=0.1,
            filter_auc=0.85,
            filter_auc_untrained=0.7,
        )
        store.save_record(
            record.model_copy(update={"scoring": record.scoring.model_copy(update={"representation": learnt})})
        )
    picture = store.run_dir(planned.baseline.with_seed(0).run_id) / "samples" / FILTERS_FILE
    picture.parent.mkdir()
    picture.write_bytes(PIXEL)


def make_runs(*, num_seeds: int = 8, seed: int = 0) -> pd.DataFrame:
    """Runs whose truth is known: batch norm off +40 % FID and -0.1 accuracy, the rate nothing, no interaction."""
    rng = np.random.default_rng(seed)
    rows = []
    for run_seed in range(num_seeds):
        shared = rng.normal(0, 0.5)
        for norm in ("on", "off"):
            for rate in (0.0002, 0.001):
                log_fid = 3 + shared + np.log(1.4) * (norm == "off") + rng.normal(0, 0.02)
                accuracy = 0.5 + 0.1 * shared - 0.1 * (norm == "off") + rng.normal(0, 0.01)
                row = {"batch_norm": norm, "lr": rate, "run": run_seed + 40, "fid": np.exp(log_fid), "acc": accuracy}
                rows.append(row)
    return pd.DataFrame(rows)
