"""Records and results with scores that a test chooses; nothing is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import tabulate_runs
from gan_ablate.design.grid import BudgetName, load_grid
from gan_ablate.design.outcomes import Throughput
from gan_ablate.design.plan import Plan, Variant, plan
from gan_ablate.design.run_fields import OSCILLATION_POINTS
from gan_ablate.execution.records import Record, ScoringRecord
from gan_ablate.execution.store import Store
from gan_ablate.scoring.scores import Scores


def save_runs(
    store: Store,
    plan: Plan,
    fid: Callable[[Variant, int], float | None],
    *,
    step_ms: Callable[[Variant], float] = lambda _: 20.0,
    extractor_sha256: str = "e" * 64,
) -> None:
    """Save a plan and a record of each of its runs; one without a FID diverged."""
    store.save_plan(plan)
    for variant, config in plan.runs:
        store.save_record(
            make_record(variant, config.seed, fid(variant, config.seed), step_ms(variant), extractor_sha256)
        )
        sample_grid = np.full((242, 242, 3), 40 * (config.seed % 5 + 1), np.uint8)
        samples = store.run_dir(config.run_id) / "samples"
        samples.mkdir(exist_ok=True)
        for step in (0, config.steps):
            Image.fromarray(sample_grid + step // 100).save(samples / f"step-{step:06d}.png")


def make_results(
    plan: Plan, fid: Callable[[Variant, int], float | None], *, step_ms: Callable[[Variant], float] = lambda _: 20.0
) -> GridResults:
    """Make a grid's results without writing records, which is quick; a run without a FID diverged."""
    records = [
        (variant.levels, variant.label, make_record(variant, seed, fid(variant, seed), step_ms(variant)))
        for variant, seed in plan.seeded_variants
    ]
    labelled = [(label, record) for _, label, record in records]
    return GridResults(Store(Path("nowhere")), plan, labelled, tabulate_runs(plan, records))


def results_of(
    grid: str | Path, gain: Callable[[Variant], float], noise: float = 0.005, seeds: int = 6, **options: Any
) -> GridResults:
    """Results of runs whose log FID has this gain and so much noise; where it is NaN they diverged."""
    planned = plan(load_grid(grid), seeds=seeds, **options)

    def fid(variant: Variant, seed: int) -> float | None:
        error = np.random.default_rng([seed, *variant.label.encode()]).normal(0, noise)
        return None if math.isnan(gain(variant)) else 20 * math.exp(gain(variant) + error)

    return make_results(planned, fid)


def planted(grid: str, gains: dict[str, float], fid: float = 20.0, noise: float = 0.005, **options: Any) -> GridResults:
    """Results of runs whose log FID a level of the grid's first factor changes by so much."""
    asked = plan(load_grid(grid), **options)
    factor = next(iter(asked.grid.factors))

    def with_gain(variant: Variant, seed: int) -> float:
        error = noise * math.sin(7 * seed + sum(map(ord, variant.label + grid)))
        return fid * math.exp(gains.get(variant.levels[factor], 0.0) + 0.05 * seed + error)

    return make_results(asked, with_gain)


def batch_norm_halves(variant: Variant, seed: int) -> float:
    """Without batch norm FID is twice as high."""
    noise = math.sin(7 * seed + 3 * len(variant.label))
    return (20.0 if variant.levels["batch_norm"] == "on" else 40.0) * math.exp(0.1 * seed + 0.005 * noise)


def make_factorial(fid: Callable[[Variant, int], float], budget: BudgetName = "standard") -> GridResults:
    """Make results of the grid that crosses batch norm with label smoothing, five seeds."""
    return make_results(plan(load_grid("bn_label_smooth"), seeds=5, budget=budget), fid)


def gains(**of_levels: dict[str, float]) -> Callable[[Variant], float]:
    """Factor → level → what it adds to log FID."""
    return lambda variant: sum(of_levels.get(factor, {}).get(level, 0.0) for factor, level in variant.levels.items())


def make_record(
    variant: Variant, seed: int, fid: float | None, step_ms: float = 20.0, extractor_sha256: str = "e" * 64
) -> Record:
    """Make the record of a run; one without a FID diverged."""
    config = variant.with_seed(seed)
    steps = [float(step) for step in range(0, config.steps + 1, max(1, config.steps // 5))]
    curve_steps = [] if fid is None else [config.steps * point // 10 for point in range(1, 11)]
    columns = ("loss_d", "loss_g", "d_real", "d_fake_before", "d_fake_after", "accuracy_d", "grad_norm_d")
    return Record(
        run_id=config.run_id,
        status="diverged" if fid is None else "completed",
        message="not a finite number at step 3" if fid is None else "",
        diverged_at=3 if fid is None else None,
        config=config,
        dataset_sha256="d" * 64,
        dataset_origin="invented",
        history={"step": steps, **{name: [0.5] * len(steps) for name in (*columns, "grad_norm_g")}},
        scoring=ScoringRecord(
            extractor="digits",
            extractor_sha256=extractor_sha256,
            num_reference=10_000,
            resolution=28,
            final=None if fid is None else _score(fid),
            fid_batch_stats=fid,
            floor=_score(0.05),
            sampling_sec=1.0,
            curve_sec=2.0,
            curve_samples=1_280,
            curve_steps=curve_steps,
            curve_train_sec=[step * step_ms / 1e3 for step in curve_steps],
            curve_fid=[] if fid is None else [fid * factor for factor in (5, 4, 3, 2, 1.6, 1.5, 1.3, 1.1, 1.2, 1.1)],
            oscillation_samples=256,
            oscillation_steps=[] if fid is None else list(range(OSCILLATION_POINTS)),
            oscillation_fid=[] if fid is None else [fid * (1.2, 1.3, 1.1)[at % 3] for at in range(OSCILLATION_POINTS)],
        ),
        throughput=Throughput(
            step_ms_median=step_ms,
            step_ms_p10=step_ms * 0.9,
            step_ms_p90=step_ms * 1.2,
            steps_per_sec=1e3 / step_ms,
            images_per_sec=64e3 / step_ms,
            num_timed_steps=100,
            peak_memory_bytes=500_000_000,
        ),
        train_sec=config.steps * step_ms / 1e3,
        total_sec=config.steps * step_ms / 1e3 + 3,
        environment={"cpu": "an invented processor"},
    )


def _score(fid: float) -> Scores:
    return Scores(
        num_samples=10_000,
        fid=fid,
        fid_sampling_error=0.01,
        kid=fid / 30,
        precision=0.8,
        recall=0.7,
        density=0.9,
        coverage=0.6,
        classifier_score=8.0,
        class_counts=(1_000,) * 10,
        nearest_ratio=1.1,
        seconds=3.0,
    )
