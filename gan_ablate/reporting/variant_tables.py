"""Markdown tables of variants: scores, stability, cost and setup."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from gan_ablate.analysis.comparability import machine_of, name_machine
from gan_ablate.design.config import RunConfig
from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.outcomes import OUTCOMES, percent_change
from gan_ablate.reporting.formats import escape_markdown, number, rate_text, seed_text
from gan_ablate.reporting.sentences import INTERVAL_WORDS
from gan_ablate.reporting.tables import lay_out, lay_out_known

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    from gan_ablate.analysis.comparability import Machine
    from gan_ablate.analysis.results import GridResults


def variants_table(summary: pd.DataFrame) -> str:
    """Tabulate the scores, speed, time and divergences of every variant.

    Args:
        summary: from ``GridResults.summary``.
    """
    is_scored = bool(summary["fid"].notna().any())
    rows = []
    for row in summary.to_dict("records"):
        scores = []
        if is_scored:
            fewest = row["classes_covered_fewest"]
            scores = [
                _interval_text(row, "fid"),
                _percent(row["fid_spread"]),
                _interval_text(row, "kid"),
                number(row["fid_batch_stats"]),
                "–" if pd.isna(fewest) else f"{fewest:.0f}",
            ]
        minutes = number(row["total_sec"] / 60)
        diverged = f"{row['diverged']}/{row['planned']}"
        rows.append([row["variant"], *scores, number(row["steps_per_sec"]), minutes, diverged])
    scores = ["FID", "spread over seeds", "KID", "FID, batch statistics", "classes, fewest"] if is_scored else []
    return lay_out_known(rows, ["variant", *scores, "it/s", "minutes", "diverged"])


def scores_table(summary: pd.DataFrame, floor: Mapping[str, float | None]) -> str:
    """Tabulate the other scores of every variant, with those of real images in the last row.

    Args:
        summary: from ``GridResults.summary``.
        floor: outcome → the score of real images.
    """
    names = (
        "precision", "recall", "density", "coverage", "classifier_score", "class_divergence", "nearest_ratio",
        "label_accuracy", "fid_ema",
    )  # fmt: skip
    shown = [name for name in names if summary[name].notna().any()]
    rows = [[row["variant"], *(number(row[name]) for name in shown)] for row in summary.to_dict("records")]
    rows.append(["*real images*", *(number(floor.get(name)) for name in shown)])
    return lay_out_known(rows, ["variant", *(OUTCOMES[name].title for name in shown)])


def stability_table(summary: pd.DataFrame) -> str:
    """Tabulate rates of divergence and collapse, oscillation, convergence, gradients and D's outputs.

    Args:
        summary: from ``GridResults.summary``.
    """
    names = ("oscillation", "steps_to_fid", "sec_to_fid", "grad_norm_g", "grad_norm_d", "accuracy_d", "confidence_d")
    is_known = bool(summary[list(names)].notna().any(axis=None))  # of a user's script it is not
    shown = names if is_known else ()
    rows = []
    for row in summary.to_dict("records"):
        over = row["completed"] + row["diverged"]
        bound = row["steps_to_fid_bound"]
        texts = {name: number(row[name]) for name in shown}
        if "steps_to_fid" in texts:
            reached = f"({row['fid_reached']}/{row['completed']})"
            texts["steps_to_fid"] = f"{bound} {texts['steps_to_fid']} {reached}".strip()
            texts["sec_to_fid"] = f"{bound} {texts['sec_to_fid']}".strip()
        collapsed = rate_text(row["collapsed"], row["completed"]) if row["is_collapse_known"] else "–"
        rows.append([row["variant"], rate_text(row["diverged"], over), collapsed, *texts.values()])
    return lay_out_known(rows, ["variant", "diverged", "collapsed", *(OUTCOMES[name].title for name in shown)])


def cost_table(summary: pd.DataFrame) -> str:
    """Tabulate the time and memory of every variant; empty where none is known.

    Args:
        summary: from ``GridResults.summary``.
    """
    columns = (
        "step_ms_median", "step_ms_p10", "step_ms_p90", "images_per_sec", "train_sec", "scoring_sec", "peak_memory_mib",
    )  # fmt: skip
    rows = [[row["variant"], *(number(row[name]) for name in columns)] for row in summary.to_dict("records")]
    headers = ["variant", "ms a step, median", "p10", "p90", "images/s", "training s", "final scores s"]
    headers.append("process peak, MiB")
    return lay_out_known(rows, headers)


def setup_table(results: GridResults) -> str:
    """Tabulate the settings, data, scoring and software of a grid's runs, with all values where runs differ."""
    plan, records = results.plan, results.records
    configs = [record.config for _, record in records]
    scored = results.scored
    num_steps = plan.baseline.config.steps
    steps = f"{num_steps:,} generator steps, " if num_steps else ""
    facts: list[tuple[str, Iterable[object]]] = [
        ("budget", [f"{plan.budget}: {steps}seeds {plan.seeds[0]} to {plan.seeds[-1]}"]),
        ("intervals", [INTERVAL_WORDS[plan.intervals]]),
        ("margin", [f"{plan.grid.margin:.3g}: from 1/{1 + plan.grid.margin:.3g} to {1 + plan.grid.margin:.3g} times"]),
        ("base preset", [plan.grid.base]),
        ("batch size", (config.batch_size for config in configs if isinstance(config, RunConfig))),
        ("command", (escape_markdown(" ".join(config.command)) for config in configs
                     if isinstance(config, ExternalConfig))),
        ("data", (f"{r.config.dataset}, {r.dataset_origin}, SHA-256 {r.dataset_sha256[:12]}…" for _, r in records
                  if r.dataset_sha256)),
        ("scored with", (f"{s.extractor} features, SHA-256 {s.extractor_sha256[:12]}…" for s in scored)),
        ("images scored", (f"{s.final.num_samples:,} against {s.num_reference:,} held-out real ones" for s in scored
                           if s.final)),
        ("real images score", (f"FID {s.floor.fid:.3g}, KID {s.floor.kid:.2g} with {s.floor.num_samples:,} images at "
                               f"{s.resolution}×{s.resolution}" for s in scored)),
        ("computed on", _machines(results)),
        ("device", (record.device for _, record in records)),
    ]  # fmt: skip
    keys = dict.fromkeys(key for _, record in records for key in record.environment)
    facts += [(key.replace("_", " "), [r.environment.get(key, "") for _, r in records]) for key in keys]
    rows = [[name, "; ".join(value for value in dict.fromkeys(map(str, values)) if value)] for name, values in facts]
    return lay_out([row for row in rows if row[1]], ["what", "value"])


def _machines(results: GridResults) -> list[str]:
    """Say which seeds were computed on which machine; empty where there is one machine."""
    seeds: dict[Machine, set[int]] = {}
    for _, record in results.records:
        if record.status != "failed":
            seeds.setdefault(machine_of(record), set()).add(record.config.seed)
    named = [f"{name_machine(machine)}: {seed_text(numbers)}" for machine, numbers in seeds.items()]
    return named if len(named) > 1 else []


def _interval_text(row: Mapping[Hashable, float], column: str) -> str:
    """Write ``21.3 [19.8, 22.9]``, or the number alone where there is no interval."""
    value, low, high = (row[f"{column}{suffix}"] for suffix in ("", "_low", "_high"))
    if not math.isfinite(low):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def _percent(log_deviation: float) -> str:
    """Write a standard deviation of logarithms as a percentage: 0.05 → 5 %."""
    return "–" if not math.isfinite(log_deviation) else f"{percent_change(log_deviation):.3g} %"
