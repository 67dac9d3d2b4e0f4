"""Estimates and records in, sentences and Markdown tables out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd
from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from gan_ablate.effects import Effect
    from gan_ablate.results import GridResults
    from gan_ablate.stats import Estimate


SMOKE_WARNING = "The smoke budget shows that everything works; its runs are too short to answer anything."


def answer_sentence(effect: Effect) -> str:
    """Say what an effect comes to, and only as surely as its interval allows."""
    name, fid, seeds = effect.name, effect.fid.as_percent_change(), effect.fid.num_seeds
    if seeds == 0:
        return f"**{name}**: no seed has a score for every variant that this compares."
    if seeds == 1:
        return f"**{name}**: FID {_signed(fid.value)} % in the only seed; one seed says nothing about the next."
    interval = f"95 % interval {_signed(fid.low)} to {_signed(fid.high)} %, {seeds} seeds"
    if effect.is_interaction:
        if effect.fid.excludes_zero:
            direction = "lower" if fid.value < 0 else "higher"
            return (
                f"**{name}** interact: with both, FID is {abs(fid.value):.0f} % {direction} than their separate "
                f"effects would make it ({interval})."
            )
        return f"**{name}**: no interaction to be seen: {_signed(fid.value)} % ({interval})."
    cost = _cost_words(effect.step_time)
    if not effect.fid.excludes_zero:
        return f"**{name}** shows no clear effect on FID: {_signed(fid.value)} % ({interval}); {cost}."
    verb = "lowers" if fid.value < 0 else "raises"
    return f"**{name}** {verb} FID by {abs(fid.value):.0f} % ({interval}); {cost}."


def _cost_words(step_time: Estimate) -> str:
    change = step_time.as_percent_change()
    if not math.isfinite(change.value):
        return "its cost is not known"
    if not step_time.excludes_zero:
        return "no clear change of the step's time"
    return f"a step takes {abs(change.value):.0f} % {'longer' if change.value > 0 else 'less time'}"


def caveat_sentences(results: GridResults) -> list[str]:
    """Say what a reader must know before believing the answers: runs missing, diverged, failed or not scored."""
    plan, runs = results.plan, results.runs
    planned, caveats = len(plan.cells) * len(plan.seeds), []
    if len(runs) < planned:
        caveats.append(f"{len(runs)} of {planned} runs are finished; the same command computes the others.")
    for status, words in (("diverged", "diverged"), ("failed", "failed with an error, and will be tried again")):
        ended = runs.loc[runs["status"] == status, "cell"]
        if len(ended):
            where = "; ".join(f"{count}× {label}" for label, count in ended.value_counts(sort=False).items())
            caveats.append(f"{len(ended)} of {planned} runs {words}: {where}.")
    unscored = {record.unscored_reason for _, record in results.records if record.unscored_reason}
    caveats += [f"Not scored: {reason}." for reason in sorted(unscored)]
    if len(results.machines) > 1:
        caveats.append("The runs were computed on different machines or versions: their times are not compared.")
    if len({record.dataset_sha256 for _, record in results.records if record.dataset_sha256}) > 1:
        caveats.append("The runs were trained on different images.")
    if len(results.protocols) > 1:
        caveats.append("The runs were scored in different ways (data, extractor or sample count): nothing is compared.")
    return caveats


def variants_table(summary: pd.DataFrame) -> list[str]:
    """Tabulate every variant's scores, speed, time and divergences."""
    is_scored = bool(summary["fid"].notna().any())
    rows = []
    for row in summary.to_dict("records"):
        scores = []
        if is_scored:
            scores = [
                _interval_text(row, "fid"),
                _interval_text(row, "kid"),
                _number(row["fid_batch_stats"]),
                "–" if pd.isna(row["classes_covered"]) else f"{row['classes_covered']:.0f}",
            ]
        minutes = _number(row["total_sec"] / 60)
        diverged = f"{row['diverged']}/{row['planned']}"
        rows.append([row["cell"], *scores, _number(row["steps_per_sec"]), minutes, diverged])
    scores = ["FID", "KID", "FID, batch statistics", "classes, fewest"] if is_scored else []
    return _table(rows, ["variant", *scores, "it/s", "minutes", "diverged"])


def effects_table(effects: Iterable[Effect]) -> list[str]:
    """Tabulate every effect on FID and on the time of a step."""
    rows = [
        [
            effect.name + (" (interaction)" if effect.is_interaction else ""),
            _percent_text(effect.fid),
            _percent_text(effect.step_time),
            effect.fid.num_seeds,
        ]
        for effect in effects
    ]
    return _table(rows, ["effect", "change of FID", "change of step time", "seeds"])


def cost_table(summary: pd.DataFrame) -> list[str]:
    """Tabulate what a step of every variant costs."""
    columns = ("step_ms_median", "step_ms_p10", "step_ms_p90", "images_per_sec", "train_sec", "peak_memory_mib")
    rows = [[row["cell"], *(_number(row[column]) for column in columns)] for row in summary.to_dict("records")]
    headers = ["variant", "ms a step, median", "p10", "p90", "images/s", "training s", "peak memory, MiB"]
    return _table(rows, headers)


def setup_table(results: GridResults) -> list[str]:
    """List what the numbers rest on; where runs differ, all values are listed."""
    plan, records = results.plan, results.records
    configs = [record.config for _, record in records]
    scored = results.scored
    facts: list[tuple[str, Iterable[object]]] = [
        ("budget", [f"{plan.budget}: {plan.cells[0].config.steps:,} generator steps, seeds 0 to {plan.seeds[-1]}"]),
        ("base preset", [plan.grid.base]),
        ("batch size", (config.batch_size for config in configs)),
        ("data", (f"{r.config.dataset}, {r.dataset_origin}, SHA-256 {r.dataset_sha256[:12]}…" for _, r in records
                  if r.dataset_sha256)),
        ("scored with", (f"{s.extractor} features, SHA-256 {s.extractor_sha256[:12]}…" for s in scored)),
        ("images scored", (f"{s.final.num_samples:,} against {s.num_reference:,} held-out real ones" for s in scored
                           if s.final)),
        ("real images score", (f"FID {s.floor.fid:.3g}, KID {s.floor.kid:.2g} with {s.floor.num_samples:,} images"
                               for s in scored)),
        ("device", (record.device for _, record in records)),
    ]  # fmt: skip
    keys = dict.fromkeys(key for _, record in records for key in record.environment)
    facts += [(key.replace("_", " "), [r.environment.get(key, "") for _, r in records]) for key in keys]
    rows = [[name, "; ".join(value for value in dict.fromkeys(map(str, values)) if value)] for name, values in facts]
    return _table([row for row in rows if row[1]], ["what", "value"])


def _table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> list[str]:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True).splitlines()


def _interval_text(row: Mapping[Hashable, float], column: str) -> str:
    """Write ``21.3 [19.8, 22.9]``, or the number alone where there is no interval."""
    value, low, high = (row[f"{column}{suffix}"] for suffix in ("", "_low", "_high"))
    if not math.isfinite(low):
        return _number(value)
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _percent_text(estimate: Estimate) -> str:
    change = estimate.as_percent_change()
    if not math.isfinite(change.value):
        return "–"
    if not math.isfinite(change.low):
        return f"{_signed(change.value, 1)} %"
    return f"{_signed(change.value, 1)} % [{_signed(change.low, 1)}, {_signed(change.high, 1)}]"


def _signed(value: float, num_decimals: int = 0) -> str:
    """Write a change with its sign; what rounds to zero has none."""
    text = f"{value:+.{num_decimals}f}"
    return text if float(text) else text[1:]


def _number(value: float) -> str:
    """Write three significant digits, without an exponent."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
