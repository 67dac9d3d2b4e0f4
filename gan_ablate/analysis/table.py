"""Tidy tables: a row per run with every outcome from its record, and a row per effect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gan_ablate.analysis.comparability import find_timed_machine, is_unsteady, machine_of
from gan_ablate.design.outcomes import MAX_LOG, RESULT_COLUMNS, percent_change
from gan_ablate.design.run_fields import OSCILLATION_POINTS
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gan_ablate.analysis.design import Event
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.records import Record


TARGET_SEEDS = 4
"""The seeds of the baseline that set the target FID: no interim analysis has fewer."""

PROBE_LABELS = 1_000
"""Labelled images of the probe behind ``probe_gain``: few enough that features matter, enough to choose a penalty."""


def load_results(out: str | Path, grid: str) -> pd.DataFrame:
    """Read the runs of a grid as a tidy table.

    >>> from gan_ablate import load_grid, load_results, plan, run_grid
    >>> runs = run_grid(plan(load_grid("beta1"), budget="smoke", seeds=1, steps=5), "results")
    >>> load_results("results", "beta1").equals(runs)
    True

    Args:
        out: the results folder.
        grid: the grid's name.

    Returns:
        One row per run that is over: a column per factor, ``variant``, ``seed``, ``status``, the scores, the costs.
        Scores are missing where a run diverged, failed or has no scores. Factors, ``variant`` and ``status`` are
        categories in the plan's order, counts are ``Int64``, flags are ``boolean``, all other numbers are floats.

    Raises:
        UserError: if the folder has no plan of that grid.
    """
    store = Store(Path(out))
    plan = store.load_plan(grid)
    return _type_columns(tabulate_runs(plan, list(store.records(plan, with_earlier=True))), plan)


_COUNTS = ("classes_covered", "num_samples", "steps", "diverged_at", "best_step")
_FLAGS = ("collapsed", "fid_reached")
_WORDS = ("run_id", "extractor", "target_bound")


def _type_columns(runs: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Give every column the type that its values have in any grid, also where all are missing."""
    import pandas as pd

    categories = {name: list(factor.levels) for name, factor in plan.grid.factors.items()}
    for name, factor in plan.grid.factors.items():
        categories[name].sort(key=lambda level, first=factor.baseline: level != first)  # type: ignore[misc]
    categories |= {
        "variant": [variant.label for variant in plan.variants],
        "status": ["completed", "diverged", "failed"],
    }
    types: dict[str, Any] = dict.fromkeys(runs.columns.drop([*_WORDS, "seed"]), "float64")
    types |= dict.fromkeys(_COUNTS, "Int64") | dict.fromkeys(_FLAGS, "boolean")
    return runs.astype(types | {name: pd.CategoricalDtype(words) for name, words in categories.items()})


def tabulate_runs(plan: Plan, records: Sequence[tuple[dict[str, str], str, Record]]) -> pd.DataFrame:
    """Tabulate a plan's runs as ``load_results`` does, from (levels, variant's label, record) of each."""
    import pandas as pd  # a second that plan, list and status need not pay

    yardsticks = find_yardsticks(plan, [(label, record) for _, label, record in records])
    rows = [_row(levels, label, record, yardsticks) for levels, label, record in records]
    return pd.DataFrame(rows, columns=[*plan.grid.factors, *RESULT_COLUMNS])


@dataclass(frozen=True)
class Yardsticks:
    """Reference values of a grid, from its own runs; None where no run has a curve yet.

    Attributes:
        target_fid: the FID whose first reaching is timed: the geometric mean of the baseline's first ``TARGET_SEEDS``
            seeds half-way through training. Seeds that are added do not change it.
        equal_sec: the training time at which all variants are compared: mean training seconds of the fastest variant,
            over its steady runs on ``find_timed_machine``.
    """

    target_fid: float | None
    equal_sec: float | None


def find_yardsticks(plan: Plan, records: Sequence[tuple[str, Record]]) -> Yardsticks:
    """Compute a grid's yardsticks.

    Args:
        plan: the plan, which names the baseline.
        records: (variant's label, record) of the plan's runs.
    """
    log_middles: list[float] = []
    seconds: dict[str, list[float]] = {}
    machine = find_timed_machine(record for _, record in records)
    for label, record in records:
        scoring = record.scoring
        if scoring is None or record.status != "completed" or not scoring.curve_steps:
            continue
        if machine_of(record) == machine and not is_unsteady(record):
            seconds.setdefault(label, []).append(scoring.curve_train_sec[-1])
        if label == plan.baseline.label and record.config.seed in plan.seeds[:TARGET_SEEDS]:
            middle = min(scoring.curve_steps, key=lambda step: (abs(2 * step - record.config.steps), step))
            log_middles.append(math.log(scoring.curve_fid[scoring.curve_steps.index(middle)]))
    return Yardsticks(
        target_fid=math.exp(sum(log_middles) / len(log_middles)) if log_middles else None,
        equal_sec=min((sum(of_variant) / len(of_variant) for of_variant in seconds.values()), default=None),
    )


def _row(levels: dict[str, str], label: str, record: Record, yardsticks: Yardsticks) -> dict[str, Any]:
    """Flatten a record; columns that it has no value for are missing."""
    scoring, throughput = record.scoring, record.throughput
    final = scoring.final if scoring else None
    row: dict[str, Any] = {
        **levels,
        "variant": label,
        "seed": record.config.seed,
        "run_id": record.run_id,
        "status": record.status,
        "steps": record.config.steps,
        "train_sec": record.train_sec,
        "total_sec": record.total_sec,
        "diverged_at": record.diverged_at,
    }
    if record.status == "completed":  # a run that stopped early has no last half
        row |= summarise_history(record.history)
    if final is not None:
        row |= final.as_row()
        row["collapsed"] = final.is_collapsed
    if scoring is not None:
        row |= {
            "fid_batch_stats": scoring.fid_batch_stats,
            "fid_ema": scoring.fid_ema,
            "fid_best": scoring.best.fid if scoring.best else None,
            "best_step": scoring.best_step,
            "fid_floor": scoring.floor.fid,
            "kid_floor": scoring.floor.kid,
            "extractor": scoring.extractor_sha256[:12],
            "scoring_sec": final.seconds if final else None,
            "best_curve_fid": min(scoring.curve_fid, default=None),
        }
    if scoring is not None and record.status == "completed":
        row["oscillation"] = oscillation(scoring.oscillation_fid)
        if yardsticks.target_fid is not None:
            reached = first_reached(yardsticks.target_fid, scoring.curve_steps, scoring.curve_fid)
            seconds = first_reached(yardsticks.target_fid, scoring.curve_train_sec, scoring.curve_fid)
            is_early = reached is not None and reached <= scoring.curve_steps[0]
            row["fid_reached"] = reached is not None
            row["target_bound"] = "≥" if reached is None else "≤" if is_early else ""
            row["steps_to_fid"] = record.config.steps if reached is None else reached
            row["sec_to_fid"] = scoring.curve_train_sec[-1] if seconds is None else seconds
        if yardsticks.equal_sec is not None:
            row["fid_equal_time"] = value_at(yardsticks.equal_sec, scoring.curve_train_sec, scoring.curve_fid)
    if scoring is not None and scoring.representation is not None:
        learnt = scoring.representation
        row["probe_gain"] = learnt.probe_gain(PROBE_LABELS)
        row["arithmetic_gain"] = learnt.arithmetic_gain
        row["filter_gain"] = learnt.filter_gain
    if throughput is not None:
        row |= throughput.model_dump()
        row["peak_memory_mib"] = throughput.peak_memory_bytes / 2**20
    return row


def oscillation(fid: Sequence[float]) -> float | None:
    """Compute the root mean square of the second differences of log FID, over √6.

    A straight line has second differences of zero, a smooth curve small ones. Of independent errors of standard
    deviation σ they have the variance 6σ² (von Neumann et al., Annals of Mathematical Statistics 12, 1941, for first
    differences).

    Args:
        fid: FID at evenly spread steps of the last half of training, each above zero.

    Returns:
        None with fewer than ``OSCILLATION_POINTS`` points: from few, the measure is mostly its own noise. With
        independent errors, the standard deviation of its logarithm is 0.20 at 26 points, and 0.50 at six.
    """
    if len(fid) < OSCILLATION_POINTS:
        return None
    return math.sqrt(float(np.square(np.diff(np.log(fid), 2)).mean()) / 6)


def first_reached(target: float, times: Sequence[float], fid: Sequence[float]) -> float | None:
    """Return the time at which FID first falls to a target, log FID interpolated; None if it never does.

    Args:
        target: a FID on as many samples.
        times: steps or seconds, ascending.
        fid: FID at each time.
    """
    for i, value in enumerate(fid):
        if value <= target:
            if i == 0:
                return float(times[0])
            above, below = math.log(fid[i - 1] / target), math.log(target / value)
            return times[i - 1] + (times[i] - times[i - 1]) * above / (above + below)
    return None


def value_at(time: float, times: Sequence[float], fid: Sequence[float]) -> float | None:
    """Return FID at a time, log FID interpolated; the last value beyond the last time.

    Args:
        time: the time in question.
        times: steps or seconds, ascending.
        fid: FID at each time.

    Returns:
        None before the first time.
    """
    if not times or time < times[0]:
        return None
    return math.exp(float(np.interp(time, times, np.log(fid))))


def summarise_history(history: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    """Summarise a run's history: gradient norms, D's accuracy and confidence, and D's mean outputs at the end.

    Args:
        history: column → values, see ``gan_ablate.training.trainer.Measurement``; it may be empty.
    """
    names = ("grad_norm_g", "grad_norm_d", "accuracy_d", "confidence_d", "d_real_end", "d_fake_end")
    if not history.get("step") or not history.keys() >= {"grad_norm_g", "grad_norm_d", "accuracy_d", "d_real"}:
        return dict.fromkeys(names)  # the history of a user's script has fewer columns
    columns = {name: np.array(values, np.float64) for name, values in history.items()}
    late = columns["step"] >= columns["step"][-1] / 2
    last = columns["step"] >= 0.9 * columns["step"][-1]
    confidence = (columns["d_real"] + 1 - columns["d_fake_before"]) / 2
    return {
        "grad_norm_g": _geometric_mean(columns["grad_norm_g"]),
        "grad_norm_d": _geometric_mean(columns["grad_norm_d"]),
        "accuracy_d": float(columns["accuracy_d"][late].mean()),
        "confidence_d": float(confidence[late].mean()),
        "d_real_end": float(columns["d_real"][last].mean()),
        "d_fake_end": float(columns["d_fake_before"][last].mean()),
    }


def _geometric_mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    # The smallest float32 replaces a gradient norm of 0, which has no logarithm.
    return math.exp(float(np.log(np.maximum(values, np.finfo(np.float32).tiny)).mean()))


def tabulate_effects(effects: Sequence[Effect]) -> pd.DataFrame:
    """Tabulate effects, a row each, with all their intervals and tests."""
    import pandas as pd  # a second that plan, list and status need not pay

    table = pd.DataFrame([tabulate_effect(effect) for effect in effects])
    numbers = [name for name in table if table[name].map(type).isin([float, type(None)]).all()]
    types = dict.fromkeys(numbers, "float64") | dict.fromkeys(("needed_seeds", "earlier_seeds"), "Int64")
    return table.astype(types) if len(table) else table


def tabulate_effect(effect: Effect) -> dict[str, object]:
    """Flatten an effect; columns that it has no value for are None."""
    estimate, bootstrap, with_diverged = effect.estimate, effect.bootstrap, effect.with_diverged
    return {
        "outcome": effect.outcome.name,
        "scale": "log ratio" if effect.outcome.scale == "ratio" else "difference",
        "effect": effect.name,
        "within": effect.place,
        "interaction": effect.is_interaction,
        "decision": effect.decision,
        "basis": effect.basis,
        "value_bound": effect.value_bound,
        **_percent(effect),
        "margin": effect.margin,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "num_seeds": estimate.num_seeds,
        "p": estimate.p,
        "p_holm": effect.test.p,
        "rejected": effect.test.is_rejected,
        "adjusted_low": effect.adjusted.low,
        "adjusted_high": effect.adjusted.high,
        "p_sign_flip": effect.sign_flip.p,
        "smallest_p_sign_flip": effect.sign_flip.smallest_p,
        "bootstrap_low": None if bootstrap is None else bootstrap.low,
        "bootstrap_high": None if bootstrap is None else bootstrap.high,
        "needed_seeds": effect.needed_seeds,
        "earlier_seeds": effect.earlier_seeds,
        "pairing": effect.pairing.value,
        "pairing_low": effect.pairing.low,
        "pairing_high": effect.pairing.high,
        "with_diverged": None if with_diverged is None else with_diverged.value,
        "with_diverged_low": None if with_diverged is None else with_diverged.low,
        "with_diverged_high": None if with_diverged is None else with_diverged.high,
        "allowed_collapse_rate": effect.allowed_collapse_rate,
        **_rates(effect),
    }


def _rates(effect: Effect) -> dict[str, float | None]:
    """Return how often runs collapsed and diverged with the level and without it; None where none did."""
    columns: dict[str, float | None] = {}
    events: tuple[Event, ...] = ("collapsed", "diverged")
    for event in events:
        rates = effect.rates.get(event)
        columns |= {
            event: None if rates is None else float(rates.count),
            f"{event}_of": None if rates is None else float(rates.total),
            f"baseline_{event}": None if rates is None else float(rates.baseline_count),
            f"baseline_{event}_of": None if rates is None else float(rates.baseline_total),
            f"p_{event}": None if rates is None else rates.p,
            f"p_{event}_holm": None if rates is None else rates.p_holm,
        }
    return columns


def _percent(effect: Effect) -> dict[str, float | None]:
    """Return an effect on the ratio scale as a change in percent; None on the other scale."""
    estimate, adjusted = effect.estimate, effect.adjusted
    bounds = {
        "": estimate.value, "_low": estimate.low, "_high": estimate.high,
        "_adjusted_low": adjusted.low, "_adjusted_high": adjusted.high,
    }  # fmt: skip
    is_ratio = effect.outcome.scale == "ratio"
    return {
        f"percent_change{end}": percent_change(min(at, MAX_LOG)) if is_ratio else None for end, at in bounds.items()
    }
