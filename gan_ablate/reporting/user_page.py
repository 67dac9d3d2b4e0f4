"""A table of anyone's runs in, the page that judges it out: answers, effects, figures, and the tables as files."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from gan_ablate.analysis.effects import compare_event_rates, estimate_effects, estimate_simple_effects
from gan_ablate.analysis.stats import mean_on_scale
from gan_ablate.analysis.verdicts import tabulate_effects
from gan_ablate.design.blocks import file_name
from gan_ablate.errors import UserError
from gan_ablate.files import write_atomically
from gan_ablate.reporting import exports, plots, tables, wording
from gan_ablate.reporting.formats import count, escape_markdown
from gan_ablate.reporting.html import Sheet, render_html

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gan_ablate.analysis.family import Effect
    from gan_ablate.analysis.outcomes import Outcome
    from gan_ablate.analysis.tabled import Table

HOW = (
    "Runs are compared within a seed. Effects of a ratio are paired log ratios, told in percent; intervals are "
    "Student's t over seeds, or hold at every look where seeds were added after looking. *Adjusted* intervals and "
    "Holm's p take all effects on the same outcome together: an effect is lower or higher if its adjusted interval "
    "excludes zero, and does not matter if that lies within the margin; all else is open, with the seeds that would "
    "settle it, if the effect is as large as it seems."
)


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
    found = [sentence for of_outcome in effects.values() if (sentence := wording.findings_sentence(of_outcome))]
    lines = [f"# {escape_markdown(title)}", "", *(line for sentence in found for line in (sentence, ""))]
    lines += ["Brackets are 95 % intervals, adjusted for all effects on an outcome.", "", *_setting_lines(table)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with plots.also_as_pdf(wanted=figures_as_pdf):
            for number, outcome in enumerate(outcomes):
                slug = file_name(outcome.name)
                lines += _outcome_lines(
                    table, outcome, effects[outcome.name], out, f"{slug}-{number}" if number else slug
                )
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
    margin = f"Margin of ratios: {100 * math.expm1(design.log_margin):.3g} %"
    intervals = f"Intervals: {wording.INTERVAL_WORDS[design.intervals]}"
    lines = [f"{sizes}, {how}, {count(len(design.seeds), 'seed')}. Baseline: {escape_markdown(baseline)}. {margin}."]
    lines += ["", f"{intervals}.", ""]
    ended = table.runs["status"].value_counts()
    lines += [f"{ended[status]} of the runs {status}." for status in ("diverged", "failed") if ended.get(status)]
    return lines


def _outcome_lines(table: Table, outcome: Outcome, effects: Sequence[Effect], out: Path, file: str) -> list[str]:
    """Say, tabulate and draw the effects on one outcome."""
    design, runs = table.design, table.runs
    simple = estimate_simple_effects(design, runs, outcome)
    rates = functools.partial(compare_event_rates, design, runs)
    sentences = []
    for effect in effects:
        diverged = rates(effect.levels, "diverged")
        told = {"diverged": diverged} if diverged.count or diverged.baseline_count else {}
        sentences.append(wording.answer_sentence(effect, None, told, tells_cost=False))
    scale = "compared as ratios" if outcome.scale == "ratio" else "compared as differences"
    lines = [f"## {escape_markdown(outcome.title)} ({outcome.goodness}, {scale})", ""]
    lines += [f"- {sentence}" for sentence in sentences] + ["", *tables.effects_table(effects), ""]
    if simple:
        lines += ["### Level by level", "", *tables.effects_table(simple), ""]
    style = plots.Style([cell.label for cell in design.cells])
    drawn = []
    known = [effect for effect in effects if math.isfinite(effect.estimate.value)]
    if known:
        plots.plot_effects(known, out / f"{file}-effects.png")
        drawn.append((f"All effects on {outcome.title}", f"{file}-effects.png"))
    plots.plot_quality(runs, style, "", out / f"{file}-runs.png", outcome)
    drawn.append((f"Is it one lucky run? {outcome.title} of every run", f"{file}-runs.png"))
    if any(effect.is_interaction for effect in known):
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
    for cell in table.design.cells:
        of_cell = table.runs.loc[table.runs["cell"] == cell.label]
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
