"""Summaries, effects and verdicts in, Markdown tables out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd
from tabulate import tabulate

from gan_ablate.analysis.outcomes import OUTCOMES
from gan_ablate.reporting.formats import (
    change_text,
    count,
    escape_markdown,
    number,
    p_text,
    percent,
    percent_text,
    rate_text,
)
from gan_ablate.reporting.settling import settled_text
from gan_ablate.reporting.wording import (
    INTERVAL_WORDS,
    adjusted_estimate,
    answer_words,
    evidence_words,
    rates_words,
    verdict_words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from gan_ablate.analysis.claims import Judgement
    from gan_ablate.analysis.courses import Course
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.analysis.settling import Look
    from gan_ablate.analysis.significance import SignFlip
    from gan_ablate.analysis.stats import Estimate


def verdicts_table(
    judgements: Iterable[tuple[GridResults, Judgement]], places: Mapping[str, str], page_of: Callable[[str], str]
) -> list[str]:
    """Tabulate the verdicts of many grids, narrow enough for a front page.

    Args:
        judgements: with the grids that gave them.
        places: a grid's name → words for its block, where it is not the only one.
        page_of: a grid's name → link of its page.
    """
    rows = []
    for results, judgement in judgements:
        decisive = [finding.effect for finding in judgement.decisive]
        rows.append(
            [
                claim_name(judgement) + (f" ({escape_markdown(place)})" if (place := places[results.name]) else ""),
                verdict_words(judgement, is_complete=results.is_complete),
                "; ".join(_decided_text(effect, is_alone=len(decisive) == 1) for effect in decisive),
                _seeds_text(decisive),
                f"[see]({page_of(results.name)})",
            ]
        )
    return lay_out(rows, ["claim", "verdict", "effect [adjusted interval]", "rests on", ""])


def claims_table(results: GridResults, judgements: Iterable[Judgement]) -> list[str]:
    """Tabulate the verdicts of one grid with all that they rest on."""
    rows = []
    for judgement in judgements:
        decisive = [finding.effect for finding in judgement.decisive]
        rows.append(
            [
                claim_name(judgement),
                verdict_words(judgement, is_complete=results.is_complete),
                "; ".join(evidence_words(effect) + rates_words(results.verdicts.rates(effect)) for effect in decisive),
                "; ".join(evidence_words(finding.effect) for finding in judgement.beside) or "–",
                f"{_seeds_text(decisive)} × {results.plan.baseline.config.steps:,} steps",
            ]
        )
    return lay_out(rows, ["claim", "verdict", "decided by [adjusted interval], Holm's p", "beside", "rests on"])


def claim_name(judgement: Judgement) -> str:
    """Write a claim behind its number, if it has one."""
    claim = judgement.claim
    sentence = escape_markdown(claim.sentence)
    return f"{claim.id}: {sentence}" if claim.id else sentence


def _seeds_text(effects: Sequence[Effect]) -> str:
    *fewer, most = sorted({effect.estimate.num_seeds for effect in effects})
    return " or ".join([*map(str, fewer), count(most, "seed")])


def _decided_text(effect: Effect, *, is_alone: bool) -> str:
    change = change_text(effect, adjusted_estimate(effect))
    return f"{effect.outcome.title} {change}" if is_alone else f"{effect.name} {change}"


def variants_table(summary: pd.DataFrame) -> list[str]:
    """Tabulate every variant's scores, speed, time and divergences."""
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
        rows.append([row["cell"], *scores, number(row["steps_per_sec"]), minutes, diverged])
    scores = ["FID", "spread over seeds", "KID", "FID, batch statistics", "classes, fewest"] if is_scored else []
    return lay_out(rows, ["variant", *scores, "it/s", "minutes", "diverged"])


def effects_table(effects: Sequence[Effect], looks: Sequence[Look] = (), courses: Sequence[Course] = ()) -> list[str]:
    """Tabulate every effect on FID with what it is called, and why.

    Args:
        effects: on FID.
        looks: at which they were settled, where seeds were added one by one.
        courses: of the same effects along training, in the same order.
    """
    rows = []
    for i, effect in enumerate(effects):
        row = [
            effect_name(effect),
            percent_text(effect.estimate),
            _percent_interval(effect.adjusted.low, effect.adjusted.high),
            answer_words(effect),
            str(effect.estimate.num_seeds),
        ]
        if courses:
            is_same = courses[i].effects[-1].answer == effect.answer  # it rests on other images
            holds_from = courses[i].holds_from if is_same else None
            row.append("–" if holds_from is None else f"{holds_from:,}")
        if looks:
            row.append(settled_text(effect, looks))
        rows.append(row)
    headers = ["effect", "change of FID [95 %]", "adjusted interval", "answer", "seeds"]
    more = ["holds from step"] * bool(courses) + ["settled at"] * bool(looks)
    return lay_out(rows, [*headers, *more])


def tests_table(effects: Sequence[Effect], step_times: Sequence[Effect]) -> list[str]:
    """Tabulate the tests of every effect on FID, what pairing is worth, and its effect on the time of a step.

    Args:
        effects: on FID.
        step_times: the same effects on the time of a step; none where times do not compare.
    """
    has_bootstrap = any(effect.bootstrap is not None for effect in effects)
    has_diverged = any(effect.with_diverged is not None for effect in effects)
    rows = []
    for i, effect in enumerate(effects):
        p, adjusted = (p_text(p).removeprefix("= ") for p in (effect.estimate.p, effect.test.p))
        row = [effect_name(effect), p, adjusted, _sign_flip_text(effect.sign_flip)]
        if has_bootstrap:
            bootstrap = effect.bootstrap
            row.append("–" if bootstrap is None else _percent_interval(bootstrap.low, bootstrap.high))
        if has_diverged:
            row.append("–" if effect.with_diverged is None else percent_text(effect.with_diverged))
        row.append(_pairing_text(effect.pairing))
        if step_times:
            row.append(percent_text(step_times[i].estimate))
        rows.append(row)
    headers = ["effect", "p", "p, Holm", "p, sign-flip (smallest possible)"] + ["bootstrap interval"] * has_bootstrap
    headers += ["diverged as worst"] * has_diverged + ["pairing is worth"]
    return lay_out(rows, [*headers, *["change of step time"] * bool(step_times)])


def other_effects_table(effects: Mapping[str, Sequence[Effect]]) -> list[str]:
    """Tabulate the effects on outcomes beside FID, in bold where Holm's procedure finds one.

    Args:
        effects: outcome → every effect of the design on it, in the same order.
    """
    shown = {name: of_outcome for name, of_outcome in effects.items() if any(e.estimate.num_seeds for e in of_outcome)}
    if not shown:
        return []
    rows = []
    for same in zip(*shown.values(), strict=True):
        texts = [change_text(effect, effect.estimate) for effect in same]
        bold = [f"**{text}**" if e.is_found else text for text, e in zip(texts, same, strict=True)]
        rows.append([effect_name(same[0]), *bold])
    return lay_out(rows, ["effect", *(OUTCOMES[name].title for name in shown)])


def scores_table(summary: pd.DataFrame, floor: Mapping[str, float | None]) -> list[str]:
    """Tabulate what else the features tell, with the floor's values in the last row.

    Args:
        summary: from ``GridResults.summary``.
        floor: outcome → what real images score.
    """
    names = (
        "precision", "recall", "density", "coverage", "classifier_score", "class_divergence", "nearest_ratio",
        "label_accuracy", "fid_ema",
    )  # fmt: skip
    shown = [name for name in names if summary[name].notna().any()]
    rows = [[row["cell"], *(number(row[name]) for name in shown)] for row in summary.to_dict("records")]
    known = {name: floor.get(name) for name in shown}
    rows.append(["*real images*", *("–" if (value := known[name]) is None else number(value) for name in shown)])
    return lay_out(rows, ["variant", *(f"{OUTCOMES[name].title}" for name in shown)])


def stability_table(summary: pd.DataFrame) -> list[str]:
    """Tabulate rates of divergence and collapse, oscillation, convergence, gradients and what D thinks."""
    rows = []
    for row in summary.to_dict("records"):
        over = row["completed"] + row["diverged"]
        bound = "≤ " if row["steps_to_fid_is_bound"] else ""
        rows.append(
            [
                row["cell"],
                rate_text(row["diverged"], over),
                rate_text(row["collapsed"], row["completed"]) if row["is_collapse_known"] else "–",
                number(row["oscillation"]),
                f"{bound}{number(row['steps_to_fid'])} ({row['steps_to_fid_reached']}/{row['completed']})",
                f"{bound}{number(row['sec_to_fid'])}",
                number(row["grad_norm_g"]),
                number(row["grad_norm_d"]),
                number(row["accuracy_d"]),
                number(row["confidence_d"]),
            ]
        )
    titles = ("oscillation", "steps_to_fid", "sec_to_fid", "grad_norm_g", "grad_norm_d", "accuracy_d", "confidence_d")
    return lay_out(rows, ["variant", "diverged", "collapsed", *(OUTCOMES[name].title for name in titles)])


def cost_table(summary: pd.DataFrame) -> list[str]:
    """Tabulate what a step of every variant costs."""
    columns = ("step_ms_median", "step_ms_p10", "step_ms_p90", "images_per_sec", "train_sec", "scoring_sec")
    rows = [
        [row["cell"], *(number(row[column]) for column in (*columns, "peak_memory_mib"))]
        for row in summary.to_dict("records")
    ]
    headers = ["variant", "ms a step, median", "p10", "p90", "images/s", "training s", "final scores s"]
    return lay_out(rows, [*headers, "process peak, MiB"])


def setup_table(results: GridResults) -> list[str]:
    """List what the numbers rest on; where runs differ, all values are listed."""
    plan, records = results.plan, results.records
    configs = [record.config for _, record in records]
    scored = results.scored
    facts: list[tuple[str, Iterable[object]]] = [
        ("budget", [(f"{plan.budget}: {plan.cells[0].config.steps:,} generator steps, seeds {plan.seeds[0]} to "
                    f"{plan.seeds[-1]}")]),
        ("intervals", [INTERVAL_WORDS[plan.intervals]]),
        ("margin", [f"{plan.grid.margin:.3g}: from 1/{1 + plan.grid.margin:.3g} to {1 + plan.grid.margin:.3g} times"]),
        ("base preset", [plan.grid.base]),
        ("batch size", (config.batch_size for config in configs)),
        ("data", (f"{r.config.dataset}, {r.dataset_origin}, SHA-256 {r.dataset_sha256[:12]}…" for _, r in records
                  if r.dataset_sha256)),
        ("scored with", (f"{s.extractor} features, SHA-256 {s.extractor_sha256[:12]}…" for s in scored)),
        ("images scored", (f"{s.final.num_samples:,} against {s.num_reference:,} held-out real ones" for s in scored
                           if s.final)),
        ("real images score", (f"FID {s.floor.fid:.3g}, KID {s.floor.kid:.2g} with {s.floor.num_samples:,} images at "
                               f"{s.resolution}×{s.resolution}" for s in scored)),
        ("device", (record.device for _, record in records)),
    ]  # fmt: skip
    keys = dict.fromkeys(key for _, record in records for key in record.environment)
    facts += [(key.replace("_", " "), [r.environment.get(key, "") for _, r in records]) for key in keys]
    rows = [[name, "; ".join(value for value in dict.fromkeys(map(str, values)) if value)] for name, values in facts]
    return lay_out([row for row in rows if row[1]], ["what", "value"])


def definitions_table() -> list[str]:
    """List every outcome with its better direction and definition."""
    rows = [[outcome.title, outcome.goodness, outcome.definition] for outcome in OUTCOMES.values()]
    return lay_out(rows, ["outcome", "", "definition"])


def lay_out(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> list[str]:
    """Write a table's lines, whatever its cells hold."""
    # p(y|x) would end the cell, and a line end the table.
    cells = [[" ".join(str(cell).replace("|", "\\|").split()) for cell in row] for row in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True).splitlines()


def _sign_flip_text(flip: SignFlip) -> str:
    """Write ``0.062 (0.062)``: p, and the smallest that so many seeds can give."""
    return f"{flip.p:.2g} ({flip.smallest_p:.2g})" if math.isfinite(flip.p) else "–"


def effect_name(effect: Effect) -> str:
    """Name an effect, where it is measured, and whether it is an interaction."""
    place = f", with {effect.place}" if effect.within else ""
    return effect.name + place + (" (interaction)" if effect.is_interaction else "")


def _pairing_text(gain: Estimate) -> str:
    """Write ``×2.1 [0.8, 5.5]``: how many times as many unpaired seeds would be as sure."""
    return f"×{number(gain.value)} [{number(gain.low)}, {number(gain.high)}]" if math.isfinite(gain.value) else "–"


def _interval_text(row: Mapping[Hashable, float], column: str) -> str:
    """Write ``21.3 [19.8, 22.9]``, or the number alone where there is no interval."""
    value, low, high = (row[f"{column}{suffix}"] for suffix in ("", "_low", "_high"))
    if not math.isfinite(low):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def _percent_interval(low: float, high: float) -> str:
    if not math.isfinite(low):
        return "–"
    return f"[{percent(100 * math.expm1(low))}, {percent(100 * math.expm1(high))}] %"


def _percent(log_deviation: float) -> str:
    """Write a standard deviation of logarithms as a percentage: 0.05 → 5 %."""
    return "–" if not math.isfinite(log_deviation) else f"{100 * math.expm1(log_deviation):.3g} %"


def picture_table(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Lay captioned pictures out, three to a row."""
    width = min(3, len(cells))
    rows = []
    for i in range(0, len(cells), width):
        of_row = [*cells[i : i + width], *[("", "")] * (width - len(cells[i : i + width]))]
        rows += [[label for label, _ in of_row], [picture for _, picture in of_row]]
    return lay_out(rows[1:], rows[0])
