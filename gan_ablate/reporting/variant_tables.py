"""Markdown tables of variants: scores, stability, cost and setup; settings in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from gan_ablate.analysis.comparability import machine_of, name_machine
from gan_ablate.design.config import RunConfig
from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.outcomes import OUTCOMES, margin_text, percent_change
from gan_ablate.reporting.formats import escape_latex, escape_markdown, number, rate_text, seed_text
from gan_ablate.reporting.sentences import INTERVAL_WORDS
from gan_ablate.reporting.tables import lay_out, lay_out_known

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from gan_ablate.analysis.comparability import Machine
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.gan import Loss, Penalty


def variants_table(summary: pd.DataFrame, *, has_intervals: bool = True) -> str:
    """Tabulate the scores, speed, time and divergences of every variant.

    Args:
        summary: from ``GridResults.summary``.
        has_intervals: whether scores have intervals and spreads.
    """
    is_scored = bool(summary["fid"].notna().any())
    rows = []
    for row in summary.to_dict("records"):
        scores = []
        if is_scored:
            fewest = row["classes_covered_fewest"]
            scores = [
                _interval_text(row, "fid") if has_intervals else number(row["fid"]),
                _percent(row["fid_spread"] if has_intervals else math.nan),
                _interval_text(row, "kid") if has_intervals else number(row["kid"]),
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
        "label_accuracy", "fid_ema", "fid_infinity", "fid_best",
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
        ("intervals", [INTERVAL_WORDS["unpaired" if results.design.by_welch else plan.intervals]]),
        ("margin", [f"{margin_text(plan.grid.log_margin)} of FID"]),
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


_CITED_DATASETS = {
    "mnist-10k": "lecun1998mnist",
    "mnist": "lecun1998mnist",
    "fashion-mnist": "xiao2017fashion",
    "cifar10": "krizhevsky2009cifar",
}
_LOSSES = {"bce": "binary cross-entropy", "least_squares": "least-squares", "module": "user-defined"}
_DESCRIBED = (
    "batch_size",
    "latent_dim",
    "lr_g",
    "lr_d",
    "beta1",
    "beta2",
    "loss",
    "penalty",
    "init",
    "dataset",
    "scoring",
)
"""Fields that ``list_settings`` describes in words."""


def list_settings(results: GridResults) -> dict[str, str]:
    """Describe the settings of a grid's baseline in LaTeX, a text for each; equal settings have equal texts."""
    plan, scored = results.plan, results.scored
    config = plan.baseline.config
    texts = dict.fromkeys(
        ("networks", "latents", "batch", "optimiser", "rates", "betas", "loss", "penalty", "init"), ""
    )
    texts |= _list_trained_settings(results) if isinstance(config, RunConfig) else {"networks": "a user's script"}
    others = [f"{path} {value}" for path, value in _flatten(plan.grid.set) if path.split(".")[0] not in _DESCRIBED]
    key = _CITED_DATASETS.get(config.dataset)
    hashes = dict.fromkeys(record.dataset_sha256[:12] for _, record in results.records if record.dataset_sha256)
    texts |= {
        "others": escape_latex(", ".join(others).replace("_", " ")),
        "steps": f"{config.steps:,} generator steps" if config.steps else "",
        "data": escape_latex(f"data set {config.dataset}")
        + (rf"~\cite{{{key}}}" if key else "")
        + f" (SHA-256 {' and '.join(hashes)})",
        "scores": "not scored",
        "design": f"{plan.grid.design} design",
    }
    if scored and scored[0].final is not None:
        extractor = scored[0].extractor
        cited = r"~\cite{szegedy2016inception}" if extractor == "inception" else ""
        texts["scores"] = (
            f"scored on {scored[0].final.num_samples:,} images against {scored[0].num_reference:,} held-out real ones, "
            f"on {extractor} features{cited} (SHA-256 {scored[0].extractor_sha256[:12]})"
        )
    return texts


def _list_trained_settings(results: GridResults) -> dict[str, str]:
    """Describe how the baseline of a grid is trained, if no script of the user does it."""
    config = results.plan.baseline.trained
    is_dcgan, init = config.generator.kind == "dcgan", config.init
    return {
        "networks": f"preset {results.plan.grid.base}" + r", a DCGAN~\cite{radford2016dcgan}" * is_dcgan,
        "latents": f"latents of {config.latent_dim} {config.latent_distribution} numbers",
        "batch": f"batches of {config.batch_size} images",
        "optimiser": _describe_optimisers(config),
        "rates": f"learning rates {config.lr_g:g} of G and {config.lr_d:g} of D{_describe_schedule(config)}",
        "betas": rf"$\beta_1 = {config.beta1:g}$, $\beta_2 = {config.beta2:g}$" if _has_betas(config) else "",
        "loss": f"{_describe_part(config.loss)} loss",
        "penalty": "no penalty" if config.penalty.kind == "none" else f"{_describe_part(config.penalty)} penalty",
        "init": rf"initial weights from $N(0, {init.std:g}^2)$"
        if init.kind == "normal"
        else "Glorot's initial weights"
        if init.kind == "glorot"
        else "PyTorch's initial weights",
    }


_OPTIMISERS = {"adam": r"Adam~\cite{kingma2015adam}", "adamw": "AdamW", "rmsprop": "RMSProp", "sgd": "SGD"}


def _describe_optimisers(config: RunConfig) -> str:
    of_g, of_d = (_OPTIMISERS[one.kind] for one in (config.optimizer_g, config.optimizer_d))
    return f"the optimiser {of_g}" if config.optimizer_g == config.optimizer_d else f"{of_g} for G and {of_d} for D"


def _describe_schedule(config: RunConfig) -> str:
    decay = "" if config.lr_schedule.kind == "constant" else f", with {config.lr_schedule.kind} decay"
    return decay + (f", after {config.lr_warmup_steps:,} steps of warm-up" if config.lr_warmup_steps else "")


def _has_betas(config: RunConfig) -> bool:
    return any(one.kind in ("adam", "adamw") for one in (config.optimizer_g, config.optimizer_d))


def _describe_part(part: Loss | Penalty) -> str:
    """Name the kind of a part and the settings that are not at their defaults: ``hinge``, ``r1 (gamma 1.0)``."""
    changed = part.model_dump(exclude={"kind", "code"}, exclude_defaults=True)
    words = ", ".join(f"{name} {value}" for name, value in changed.items())
    return escape_latex(f"{_LOSSES.get(part.kind, part.kind)}{f' ({words})' if words else ''}".replace("_", " "))


def _flatten(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the path and the value of every setting in nested tables."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
