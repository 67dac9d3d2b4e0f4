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
from gan_ablate.analysis.pooling import compare_table, tabulate_blocks
from gan_ablate.analysis.table import tabulate_effect, tabulate_effects
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.outcomes import margin_text
from gan_ablate.design.settings import file_name
from gan_ablate.errors import UserError, option
from gan_ablate.reporting import exports, sentences, tables
from gan_ablate.reporting.blocks_page import block_effects_table, block_sentence
from gan_ablate.reporting.formats import PAGE_NAME, MethodsPage, Page, Picture, count, escape_markdown
from gan_ablate.reporting.plots import effects as effect_plots
from gan_ablate.reporting.plots import quality as quality_plots
from gan_ablate.reporting.plots.style import Style
from gan_ablate.reporting.user_sentences import blank_sentence, blocks_headline, headline, interactions_sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.pooling import BlockedEffect
    from gan_ablate.analysis.user_table import Table
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.reporting.plots.style import FigurePath


MAX_SHOWN = 60
"""The most effects and variants that a page shows: a figure has no room for more."""

MAX_TOLD = 12
"""The most effects among which each interaction has a sentence of its own; of more, only those that were found."""

MAX_LEVELS_CROSSED = 20
"""The most levels of a factor in the figure of interactions."""

_ENDINGS = {"diverged": "diverged", "failed": "failed", "unfinished": "had not finished"}


@dataclass(frozen=True)
class OutcomeSection:
    """What the page says of one outcome, in one block. Tables are Markdown; empty where there is nothing to show.

    Attributes:
        heading: the outcome and its scale; the block, too, where there are several.
        blank: how many completed runs have no value of it, variant by variant.
        answers: a sentence for every effect.
        effects: a table of them.
        simple_effects: a table of the simple effects.
        pictures: the figures.
        tests: a table of the tests.
        pairing: for which effects sharing seeds pays.
    """

    heading: str
    blank: str
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
        headlines: title of an outcome → a few lines on it.
        table: of the runs.
        blocks: the name of each block, and its number of runs; empty without blocks.
        baseline: its levels.
        margin: of ratios, in percent.
        intervals: their method.
        ended: how runs that are not completed ended, in words → their number.
        extent: which effects and variants the page shows; empty where it shows all.
        sections: one for each outcome; with blocks one across them, and one for each block.
    """

    template: ClassVar[str] = "user_page.md.j2"

    headlines: dict[str, list[str]]
    table: Table
    blocks: str
    baseline: str
    margin: str
    intervals: str
    ended: dict[str, int]
    extent: str
    sections: list[OutcomeSection]


@dataclass(frozen=True)
class OutcomeEffects:
    """The effects on one outcome, before the page is written.

    Attributes:
        outcome: the outcome.
        within: block → its effects, under an empty name without blocks.
        simple: block → its simple effects.
        across: the effects block by block; empty without blocks.
    """

    outcome: Outcome
    within: dict[str, list[Effect]]
    simple: dict[str, list[Effect]]
    across: tuple[BlockedEffect, ...]

    @classmethod
    def of(cls, table: Table, outcome: Outcome) -> OutcomeEffects:
        """Estimate the effects in a table.

        Raises:
            UserError: if no seed has values of two variants to compare.
        """
        across = () if table.blocks is None else compare_table(table, outcome)
        within = {
            name: [effect.within[name] for effect in across] or estimate_effects(table.design, runs, outcome)
            for name, runs in table.by_block.items()
        }
        if not any(effect.estimate.num_seeds for of_block in within.values() for effect in of_block):
            if not table.design.is_paired:
                raise UserError(f"{table.source}: no two variants have {outcome.name}; valid: values of both sides")
            raise UserError(
                f"{table.source}: no seed has {outcome.name} for both sides of any comparison: runs are compared "
                f"within a seed; valid: the same seeds for every variant, or {option('paired', False)}"
            )
        simple = {name: estimate_simple_effects(table.design, runs, outcome) for name, runs in table.by_block.items()}
        return cls(outcome, within, simple, across)

    def headline(self) -> list[str]:
        """Say in a few lines what was found."""
        if self.across:
            return blocks_headline(self.across)
        ((effects, simple),) = zip(self.within.values(), self.simple.values(), strict=True)
        return headline(effects, simple)

    def tabulate(self) -> pd.DataFrame:
        """Tabulate all effects, simple ones among them; with blocks, differences between them and averages as well."""
        if not self.across:
            return tabulate_effects([*self.within[""], *self.simple[""]])
        simple = [
            {"block": name, "against": "", **tabulate_effect(effect)}
            for name, effects in self.simple.items()
            for effect in effects
        ]
        return pd.DataFrame([*tabulate_blocks(self.across).to_dict("records"), *simple])


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
    effects = [OutcomeEffects.of(table, outcome) for outcome in outcomes]
    out = folder.path
    try:
        out.mkdir(parents=True, exist_ok=True)
        sections = [
            section
            for number, of_outcome in enumerate(effects)
            for section in _make_sections(table, of_outcome, folder, number)
        ]
        if folder.as_pdf:
            return out / PAGE_NAME
        _write_tables(table, effects, _summarise(table, outcomes), out)
        page = _make_page(table, effects, sections, title)
        written: list[Page] = [page, MethodsPage()]
        for one_page in written:
            write_atomically(out / one_page.path, one_page.markdown)
        write_atomically(out / "report.html", exports.render_html(written, out))
    except OSError as refused:
        raise UserError(f"{option('out', out)}: cannot be written to ({refused.strerror})") from None
    return out / PAGE_NAME


def _make_page(table: Table, effects: Sequence[OutcomeEffects], sections: list[OutcomeSection], title: str) -> UserPage:
    design = table.design
    ended = table.runs["status"].value_counts()
    num_effects = max(len(of_block) for one in effects for of_block in one.within.values())
    blocks = (f"{escape_markdown(name)} ({count(len(runs), 'run')})" for name, runs in table.by_block.items())
    return UserPage(
        title=title,
        path=PAGE_NAME,
        sentences=[],
        headlines={one.outcome.title: one.headline() for one in effects},
        table=table,
        blocks="" if table.blocks is None else ", ".join(blocks),
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


def _make_sections(table: Table, effects: OutcomeEffects, folder: FigurePath, number: int) -> Iterator[OutcomeSection]:
    """Yield the section on one outcome, of which ``number`` come before; with blocks, across them and for each."""
    outcome = effects.outcome
    title = escape_markdown(outcome.title)
    scale = f"({outcome.goodness}, compared as {outcome.scale}s)"
    prefix = f"{file_name(outcome.name)}-{number}" if number else file_name(outcome.name)
    if effects.across:
        yield OutcomeSection(
            heading=f"{title} across blocks {scale}",
            blank="",
            answers=_answer_across(effects.across),
            effects=block_effects_table(effects.across, list(effects.within)),
            simple_effects="",
            pictures=_draw_blocks(table, effects, folder, prefix),
            tests="",
            pairing="",
        )
    for place, (block, runs) in enumerate(table.by_block.items(), 1):
        shown, simple = _select(effects.within[block]), _select(effects.simple[block])
        told = [effect for effect in shown if _is_told(effect, shown)]
        answers = [sentences.decision_sentence(effect, None, tells_cost=False) for effect in told]
        others = interactions_sentence([effect for effect in shown if not _is_told(effect, shown)])
        name = f"{prefix}-block-{place}" if block else prefix
        yield OutcomeSection(
            heading=f"{title}, {escape_markdown(block)} {scale}" if block else f"{title} {scale}",
            blank=blank_sentence(runs, outcome),
            answers=[*answers, others] if others else answers,
            effects=tables.effects_table(shown),
            simple_effects=tables.effects_table(simple) if simple else "",
            pictures=_draw_figures(table, outcome, runs, shown, folder, name),
            tests=tables.tests_table(shown, []),
            pairing=sentences.pairing_sentence(shown) or "",
        )


def _answer_across(effects: Sequence[BlockedEffect]) -> list[str]:
    """Write a sentence for every effect across blocks, and say where no seed lets blocks be compared."""
    answers = [block_sentence(effect) for effect in effects if _is_told(effect.pooled, effects)]
    if not any(by.estimate.num_seeds for effect in effects for by in effect.differences.values()):
        answers.append("Too few seeds are in two blocks, so whether effects differ between them is not tested.")
    return answers


def _is_told(effect: Effect, effects: Sequence[object]) -> bool:
    """Whether an effect has a sentence: of many effects, an interaction only if it was found."""
    return not effect.is_interaction or effect.is_found or len(effects) <= MAX_TOLD


def _draw_blocks(table: Table, effects: OutcomeEffects, folder: FigurePath, prefix: str) -> list[Picture]:
    """Draw the figures of one outcome across blocks."""
    outcome, title = effects.outcome, escape_markdown(effects.outcome.title)
    across = effects.across[:MAX_SHOWN]
    panels: dict[str, list[Effect | None]] = {
        name: [_if_known(effect.within[name]) for effect in across] for name in effects.within
    }
    panels["average"] = [None if effect.decision == "differs" else _if_known(effect.pooled) for effect in across]
    panels = {name: of_panel for name, of_panel in panels.items() if any(of_panel)}
    drawn = []
    if panels:
        file = f"{prefix}-effects.png"
        quality_plots.plot_block_effects(panels, folder / file)
        drawn.append(Picture(f"All effects on {title}, block by block", file, effect_plots.FOREST_NOTE))
    file = f"{prefix}-runs.png"
    style = Style(_select_variants(table, outcome))
    quality_plots.plot_block_quality(table.by_block, style, folder / file, outcome)
    note = f"{quality_plots.RUNS_NOTE} Values do not compare across blocks."
    return [*drawn, Picture(f"{title} of every run, block by block", file, note)]


def _if_known(effect: Effect) -> Effect | None:
    return effect if math.isfinite(effect.estimate.value) else None


def _draw_figures(
    table: Table, outcome: Outcome, runs: pd.DataFrame, effects: Sequence[Effect], folder: FigurePath, prefix: str
) -> list[Picture]:
    """Draw the figures of one outcome of some runs; the prefix keeps the names of files distinct."""
    design = table.design
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
    for block, runs in table.by_block.items():
        by_variant = dict(iter(runs.groupby("variant")))
        for label, levels in table.design.variants.items():
            of_variant = by_variant.get(label, runs.iloc[:0])
            row: dict[str, object] = {"block": block} if block else {}
            row |= {**levels, "variant": label, "runs": len(of_variant)}
            for outcome in outcomes:
                values = of_variant[outcome.name].to_numpy(np.float64)
                mean = mean_on_scale(values, is_ratio=outcome.scale == "ratio")
                row |= {outcome.name: mean.value, f"{outcome.name}_low": mean.low, f"{outcome.name}_high": mean.high}
                row[f"{outcome.name}_runs"] = mean.num_seeds
            rows.append(row)
    return rows


def _write_tables(
    table: Table, effects: Sequence[OutcomeEffects], variants: list[dict[str, object]], out: Path
) -> None:
    every = pd.concat([of_outcome.tabulate() for of_outcome in effects], ignore_index=True)
    write_atomically(out / "effects.csv", exports.effects_as_csv(every))
    write_atomically(out / "variants.csv", exports.table_as_csv(pd.DataFrame(variants)))
    latex = []
    for block, runs in table.by_block.items():
        seeds = exports.seeds_text(runs.groupby("variant")["seed"].nunique())
        words = f"{Path(table.source).name} ({f'{block}, ' if block else ''}{seeds})"
        label = f"{out.name}-{file_name(block)}" if block else out.name
        latex.append(exports.effects_as_latex(effects[0].within[block], label, words))
    write_atomically(out / "effects.tex", "\n".join(latex))
