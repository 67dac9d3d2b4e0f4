"""The page on a user's table of runs: answers, effects, figures, and the tables as files."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from gan_ablate.analysis.effects import estimate_effects, estimate_simple_effects
from gan_ablate.analysis.estimates import mean_on_scale
from gan_ablate.analysis.table import tabulate_effects
from gan_ablate.analysis.tests import compare_event_rates
from gan_ablate.design.blocks import file_name
from gan_ablate.design.outcomes import percent_change
from gan_ablate.errors import UserError
from gan_ablate.files import write_atomically
from gan_ablate.reporting import exports, plots, tables, wording
from gan_ablate.reporting.formats import count, escape_markdown
from gan_ablate.reporting.html import Sheet, render_html

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.tabled import Table
    from gan_ablate.design.outcomes import Outcome

HOW = (
    "Runs are compared within a seed. Effects of a ratio are paired log ratios, told in percent; intervals are "
    "Student's t over seeds, or hold at every look where seeds were added after looking. *Adjusted* intervals and "
    "Holm's p take all effects on the same outcome together: an effect is lower or higher if its adjusted interval "
    "excludes zero, and does not matter if that lies within the margin; all else is open, with the seeds that would "
    "settle it, if the effect is as large as it seems."
)


MAX_SHOWN = 60
"""Effects and variants that a page shows: a figure has no room for more, and no reader either."""
MAX_LEVELS_CROSSED = 20
"""Levels of a factor in the figure of interactions."""


def write_judgement(table: Table, outcomes: Sequence[Outcome], out: Path, *, title: str, figures_as_pdf: bool) -> Path:
    """Write the page ``report.md``, the same as ``report.html``, its figures, and its tables as files.

    Args:
        table: of runs.
        outcomes: what is judged, the most important one first.
        out: the folder; it is made where it is missing.
        title: of the page.
        figures_as_pdf: whether each figure is also wanted as PDF.

    Returns:
        The page's path.

    Raises:
        UserError: if no seed has values of two variants to compare, or the folder cannot be written to.
    """
    effects = {outcome.name: estimate_effects(table.design, table.runs, outcome) for outcome in outcomes}
    for name, of_outcome in effects.items():
        if not any(effect.estimate.num_seeds for effect in of_outcome):
            raise UserError(
                f"{table.source}: no seed has {name} for both sides of any comparison: runs are compared within a "
                "seed; valid: the same seeds for every variant"
            )
    shown = {name: _select(of_outcome) for name, of_outcome in effects.items()}
    found = [sentence for of_outcome in shown.values() if (sentence := wording.findings_sentence(of_outcome))]
    lines = [f"# {escape_markdown(title)}", "", *(line for sentence in found for line in (sentence, ""))]
    lines += ["Brackets are 95 % intervals, adjusted for all effects on an outcome.", "", *_setting_lines(table)]
    lines += _extent_lines(table, max(map(len, effects.values())))
    try:
        out.mkdir(parents=True, exist_ok=True)
        with plots.also_as_pdf(wanted=figures_as_pdf):
            for number, outcome in enumerate(outcomes):
                slug = file_name(outcome.name)
                file = f"{slug}-{number}" if number else slug
                lines += _outcome_lines(table, outcome, shown[outcome.name], out, file)
        lines += ["## Files", "", _write_tables(effects, _summarise(table, outcomes), out), "", "## How to read this"]
        text = "\n".join([*lines, "", HOW, ""])
        write_atomically(out / "report.md", text)
        write_atomically(out / "report.html", render_html([Sheet(title, "report.md", text)], out))
    except OSError as refused:
        raise UserError(f"--out {out}: cannot be written to ({refused.strerror})") from None
    return out / "report.md"


def _setting_lines(table: Table) -> list[str]:
    design = table.design
    how = "every combination of levels" if design.kind == "factorial" else "single changes of the baseline"
    sizes = f"{count(len(table.runs), 'run')} of {count(len(design.cells), 'variant')}"
    baseline = ", ".join(f"{name} {factor.baseline}" for name, factor in design.factors.items())
    margin = f"Margin of ratios: {percent_change(design.log_margin):.3g} %"
    intervals = f"Intervals: {wording.INTERVAL_WORDS[design.intervals]}"
    lines = [f"{sizes}, {how}, {count(len(design.seeds), 'seed')}. Baseline: {escape_markdown(baseline)}. {margin}."]
    lines += ["", f"{intervals}.", ""]
    ended = table.runs["status"].value_counts()
    words = {"diverged": "diverged", "failed": "failed", "unfinished": "had not finished"}
    lines += [f"{ended[status]} of the runs {word}." for status, word in words.items() if ended.get(status)]
    return [*lines, *([f"Rows left out: {table.left_out}.", ""] if table.left_out else [])]


def _extent_lines(table: Table, num_effects: int) -> list[str]:
    """Say what of many effects and variants the page shows; nothing where it shows all."""
    num_variants = len(table.design.cells)
    if max(num_effects, num_variants) <= MAX_SHOWN:
        return []
    words = f"{MAX_SHOWN} of them: effects with the smallest p, variants with the best mean"
    return [f"Of {num_effects:,} effects and {num_variants:,} variants this page shows at most {words}.", ""]


def _select(effects: Sequence[Effect]) -> list[Effect]:
    """Pick the effects that a page has room for, in their order: of the smallest p, then the largest."""

    def rank(effect: Effect) -> tuple[float, float]:
        p, size = effect.estimate.p, abs(effect.estimate.value)
        return p if math.isfinite(p) else 2.0, -size if math.isfinite(size) else 0.0

    kept = {id(effect) for effect in sorted(effects, key=rank)[:MAX_SHOWN]}
    return [effect for effect in effects if id(effect) in kept]


def _select_variants(table: Table, outcome: Outcome) -> list[str]:
    """Pick the variants that a figure has room for, in their order: the baseline, and those of the best mean."""
    labels = [cell.label for cell in table.design.cells]
    if len(labels) <= MAX_SHOWN:
        return labels
    means = table.runs.groupby("cell")[outcome.name].mean().dropna()
    best = means.sort_values(ascending=outcome.better == "lower").index[: MAX_SHOWN - 1]
    kept = {labels[0], *best}
    return [label for label in labels if label in kept]


def _outcome_lines(table: Table, outcome: Outcome, effects: Sequence[Effect], out: Path, file: str) -> list[str]:
    """Say, tabulate and draw the effects on one outcome."""
    design, runs = table.design, table.runs
    simple = _select(estimate_simple_effects(design, runs, outcome))
    has_diverged = (runs["status"] == "diverged").any()
    rates = functools.partial(compare_event_rates, design, runs)
    sentences = []
    for effect in effects:
        diverged = rates(effect.levels, "diverged") if has_diverged else None
        told = {"diverged": diverged} if diverged and (diverged.count or diverged.baseline_count) else {}
        sentences.append(wording.answer_sentence(effect, None, told, tells_cost=False))
    scale = "compared as ratios" if outcome.scale == "ratio" else "compared as differences"
    lines = [f"## {escape_markdown(outcome.title)} ({outcome.goodness}, {scale})", ""]
    num_blank = int(((runs["status"] == "completed") & runs[outcome.name].isna()).sum())
    if num_blank:
        title = escape_markdown(outcome.title)
        lines += [f"{num_blank} of the completed runs without {title}; a column status says which diverged.", ""]
    lines += [f"- {sentence}" for sentence in sentences] + ["", *tables.effects_table(effects), ""]
    if simple:
        lines += ["### Level by level", "", *tables.effects_table(simple), ""]
    style = plots.Style(_select_variants(table, outcome))
    drawn = []
    known = [effect for effect in effects if math.isfinite(effect.estimate.value)]
    if known:
        plots.plot_effects(known, out / f"{file}-effects.png")
        drawn.append((f"All effects on {outcome.title}", f"{file}-effects.png"))
    plots.plot_quality(runs, style, "", out / f"{file}-runs.png", outcome)
    drawn.append((f"Is it one lucky run? {outcome.title} of every run", f"{file}-runs.png"))
    is_readable = all(len(factor.levels) <= MAX_LEVELS_CROSSED for factor in design.factors.values())
    if is_readable and any(effect.is_interaction for effect in known):
        plots.plot_interactions(runs, design.factors, known, out / f"{file}-interactions.png", outcome)
        caption = "Does it depend on the other factors? Lines in parallel do not interact"
        drawn.append((caption, f"{file}-interactions.png"))
    for caption, picture in drawn:
        lines += [f"### {escape_markdown(caption)}", "", f"![{escape_markdown(caption)}]({picture})", ""]
    lines += ["### How sure", "", *tables.tests_table(effects, []), ""]
    pairing = wording.pairing_sentence(effects)
    return [*lines, pairing, ""] if pairing else lines


def _summarise(table: Table, outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Make a row for every variant: its levels, each outcome's mean with interval, and how many runs have it."""
    rows = []
    by_cell = dict(iter(table.runs.groupby("cell")))
    for cell in table.design.cells:
        of_cell = by_cell[cell.label]
        row: dict[str, object] = {**cell.levels, "variant": cell.label, "runs": len(of_cell)}
        for outcome in outcomes:
            values = of_cell[outcome.name].to_numpy(np.float64)
            mean = mean_on_scale(values, is_ratio=outcome.scale == "ratio")
            row |= {outcome.name: mean.value, f"{outcome.name}_low": mean.low, f"{outcome.name}_high": mean.high}
            row[f"{outcome.name}_runs"] = mean.num_seeds
        rows.append(row)
    return rows


def _write_tables(effects: dict[str, list[Effect]], variants: list[dict[str, object]], out: Path) -> str:
    import pandas as pd

    every = [effect for of_outcome in effects.values() for effect in of_outcome]
    write_atomically(out / "effects.csv", exports.effects_as_csv(tabulate_effects(every)))
    write_atomically(out / "variants.csv", pd.DataFrame(variants).to_csv(index=False, lineterminator="\n"))
    first = next(iter(effects.values()))
    write_atomically(out / "effects.tex", exports.effects_as_latex(first, out.name))
    of_effects = "Every effect: [effects.csv](effects.csv), for papers [effects.tex](effects.tex)"
    return f"{of_effects}. Every variant: [variants.csv](variants.csv)."
