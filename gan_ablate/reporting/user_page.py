"""The page on a user's table of runs: effects on each outcome, figures, and tables as files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from gan_ablate.analysis.estimates import mean_on_scale
from gan_ablate.analysis.families import estimate_effects, estimate_simple_effects
from gan_ablate.analysis.table import tabulate_effects
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.outcomes import margin_text
from gan_ablate.design.settings import file_name
from gan_ablate.errors import UserError, option
from gan_ablate.reporting import exports, sentences, tables
from gan_ablate.reporting.formats import PAGE_NAME, MethodsPage, Page, Picture, escape_markdown
from gan_ablate.reporting.plots import effects as effect_plots
from gan_ablate.reporting.plots import quality as quality_plots
from gan_ablate.reporting.plots.style import Style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.user_table import Table
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.reporting.plots.style import FigurePath


MAX_SHOWN = 60
"""The most effects and variants that a page shows: a figure has no room for more."""

MAX_LEVELS_CROSSED = 20
"""The most levels of a factor in the figure of interactions."""

_ENDINGS = {"diverged": "diverged", "failed": "failed", "unfinished": "had not finished"}


@dataclass(frozen=True)
class OutcomeSection:
    """What the page says of one outcome. Tables are Markdown; an attribute is empty where there is nothing to show.

    Attributes:
        outcome: of the section.
        num_blank: how many completed runs have no value of it.
        answers: a sentence for every effect.
        effects: a table of them.
        simple_effects: a table of the simple effects.
        pictures: the figures.
        tests: a table of the tests.
        pairing: for which effects sharing seeds pays.
    """

    outcome: Outcome
    num_blank: int
    answers: list[str]
    effects: str
    simple_effects: str
    pictures: list[Picture]
    tests: str
    pairing: str


@dataclass(frozen=True, kw_only=True)
class UserPage(Page):
    """The model of the page on a user's table.

    Attributes:
        table: of the runs.
        baseline: its levels.
        margin: of ratios, in percent.
        intervals: their method.
        ended: how runs that are not completed ended, in words → their number.
        extent: which effects and variants the page shows; empty where it shows all.
        sections: one for each outcome.
    """

    template: ClassVar[str] = "user_page.md.j2"

    table: Table
    baseline: str
    margin: str
    intervals: str
    ended: dict[str, int]
    extent: str
    sections: list[OutcomeSection]


def write_user_page(table: Table, outcomes: Sequence[Outcome], folder: FigurePath, *, title: str) -> Path:
    """Write the page as ``report.md`` and ``report.html``, its definitions, its figures, and its tables as files.

    Args:
        table: of runs.
        outcomes: the columns to compare, the most important one first.
        folder: to write to; it is made where it is missing. If it is one of PDFs, only its figures are written.
        title: of the page.

    Returns:
        The page's path.

    Raises:
        UserError: if no seed has values of two variants to compare, or the folder cannot be written to.
    """
    effects = {outcome.name: estimate_effects(table.design, table.runs, outcome) for outcome in outcomes}
    for name, of_outcome in effects.items():
        if not any(effect.estimate.num_seeds for effect in of_outcome):
            if not table.design.is_paired:
                raise UserError(f"{table.source}: no two variants have {name}; valid: values of both sides")
            raise UserError(
                f"{table.source}: no seed has {name} for both sides of any comparison: runs are compared within a "
                f"seed; valid: the same seeds for every variant, or {option('paired', False)}"
            )
    shown = {name: _select(of_outcome) for name, of_outcome in effects.items()}
    out = folder.path
    try:
        out.mkdir(parents=True, exist_ok=True)
        if folder.as_pdf:
            for number, outcome in enumerate(outcomes):
                _draw_figures(table, outcome, shown[outcome.name], folder, number)
            return out / PAGE_NAME
        sections = [
            _make_section(table, outcome, shown[outcome.name], folder, number)
            for number, outcome in enumerate(outcomes)
        ]
        _write_tables(table, effects, _summarise(table, outcomes), out)
        page = _make_page(table, shown, max(map(len, effects.values())), sections, title)
        written: list[Page] = [page, MethodsPage()]
        for one_page in written:
            write_atomically(out / one_page.path, one_page.markdown)
        write_atomically(out / "report.html", exports.render_html(written, out))
    except OSError as refused:
        raise UserError(f"{option('out', out)}: cannot be written to ({refused.strerror})") from None
    return out / PAGE_NAME


def _make_page(
    table: Table, shown: dict[str, list[Effect]], num_effects: int, sections: list[OutcomeSection], title: str
) -> UserPage:
    design = table.design
    found = (sentences.findings_sentence(of_outcome) for of_outcome in shown.values())
    ended = table.runs["status"].value_counts()
    return UserPage(
        title=title,
        path=PAGE_NAME,
        sentences=[sentence for sentence in found if sentence],
        table=table,
        baseline=", ".join(f"{name} {factor.baseline}" for name, factor in design.factors.items()),
        margin=margin_text(design.log_margin),
        intervals=sentences.INTERVAL_WORDS["unpaired" if design.by_welch else design.intervals],
        ended={words: int(ended[status]) for status, words in _ENDINGS.items() if ended.get(status)},
        extent=_describe_extent(table, num_effects),
        sections=sections,
    )


def _describe_extent(table: Table, num_effects: int) -> str:
    """Say which effects and variants the page shows; empty where it shows all."""
    num_variants = len(table.design.variants)
    if max(num_effects, num_variants) <= MAX_SHOWN:
        return ""
    words = f"{MAX_SHOWN} of them: effects with the smallest p, variants with the best mean"
    return f"Of {num_effects:,} effects and {num_variants:,} variants this page shows at most {words}."


def _select(effects: Sequence[Effect]) -> list[Effect]:
    """Select the effects that a page has room for, in their order: those of the smallest p, then the largest."""

    def rank(effect: Effect) -> tuple[float, float]:
        p, size = effect.estimate.p, abs(effect.estimate.value)
        return p if math.isfinite(p) else 2.0, -size if math.isfinite(size) else 0.0

    kept = {id(effect) for effect in sorted(effects, key=rank)[:MAX_SHOWN]}
    return [effect for effect in effects if id(effect) in kept]


def _select_variants(table: Table, outcome: Outcome) -> list[str]:
    """Select the variants that a figure has room for, in their order: the baseline, and those of the best mean."""
    labels = list(table.design.variants)
    if len(labels) <= MAX_SHOWN:
        return labels
    means = table.runs.groupby("variant")[outcome.name].mean().dropna()
    best = means.sort_values(ascending=outcome.better == "lower").index[: MAX_SHOWN - 1]
    kept = {labels[0], *best}
    return [label for label in labels if label in kept]


def _make_section(
    table: Table, outcome: Outcome, effects: Sequence[Effect], folder: FigurePath, number: int
) -> OutcomeSection:
    """Describe, tabulate and draw the effects on one outcome, of which ``number`` come before."""
    design, runs = table.design, table.runs
    simple = _select(estimate_simple_effects(design, runs, outcome))
    return OutcomeSection(
        outcome=outcome,
        num_blank=int(((runs["status"] == "completed") & runs[outcome.name].isna()).sum()),
        answers=[sentences.decision_sentence(effect, None, tells_cost=False) for effect in effects],
        effects=tables.effects_table(effects),
        simple_effects=tables.effects_table(simple) if simple else "",
        pictures=_draw_figures(table, outcome, effects, folder, number),
        tests=tables.tests_table(effects, []),
        pairing=sentences.pairing_sentence(effects) or "",
    )


def _draw_figures(
    table: Table, outcome: Outcome, effects: Sequence[Effect], folder: FigurePath, number: int
) -> list[Picture]:
    """Draw the figures of one outcome; the number keeps the names of files distinct."""
    prefix = f"{file_name(outcome.name)}-{number}" if number else file_name(outcome.name)
    design, runs = table.design, table.runs
    title, drawn = escape_markdown(outcome.title), []
    known = [effect for effect in effects if math.isfinite(effect.estimate.value)]
    if known:
        file = f"{prefix}-effects.png"
        effect_plots.plot_effects(known, folder / file)
        drawn.append(Picture(f"All effects on {title}", file, effect_plots.FOREST_NOTE))
    file = f"{prefix}-runs.png"
    quality_plots.plot_quality(runs, Style(_select_variants(table, outcome)), "", folder / file, outcome)
    drawn.append(Picture(f"{title} of every run", file, quality_plots.RUNS_NOTE))
    is_readable = all(len(factor.levels) <= MAX_LEVELS_CROSSED for factor in design.factors.values())
    if is_readable and any(effect.is_interaction for effect in known):
        file = f"{prefix}-interactions.png"
        effect_plots.plot_interactions(runs, design.factors, known, folder / file, outcome)
        drawn.append(Picture(effect_plots.INTERACTIONS_CAPTION, file, effect_plots.INTERACTIONS_NOTE))
    return drawn


def _summarise(table: Table, outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """Make a row for every variant: its levels, and the mean, interval and number of runs of each outcome."""
    rows = []
    by_variant = dict(iter(table.runs.groupby("variant")))
    for label, levels in table.design.variants.items():
        of_variant = by_variant[label]
        row: dict[str, object] = {**levels, "variant": label, "runs": len(of_variant)}
        for outcome in outcomes:
            values = of_variant[outcome.name].to_numpy(np.float64)
            mean = mean_on_scale(values, is_ratio=outcome.scale == "ratio")
            row |= {outcome.name: mean.value, f"{outcome.name}_low": mean.low, f"{outcome.name}_high": mean.high}
            row[f"{outcome.name}_runs"] = mean.num_seeds
        rows.append(row)
    return rows


def _write_tables(table: Table, effects: dict[str, list[Effect]], variants: list[dict[str, object]], out: Path) -> None:
    every = [effect for of_outcome in effects.values() for effect in of_outcome]
    write_atomically(out / "effects.csv", exports.effects_as_csv(tabulate_effects(every)))
    write_atomically(out / "variants.csv", exports.table_as_csv(pd.DataFrame(variants)))
    first = next(iter(effects.values()))
    seeds = exports.seeds_text(table.runs.groupby("variant")["seed"].nunique())
    runs = f"{Path(table.source).name} ({seeds})"
    write_atomically(out / "effects.tex", exports.effects_as_latex(first, out.name, runs))
