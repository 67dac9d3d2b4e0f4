"""The front page: which levels to use, a figure of all effects, the verdicts, and a few sentences on each grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from gan_ablate.analysis.estimates import CONFIDENCE
from gan_ablate.analysis.questions import compare_effects
from gan_ablate.analysis.ranking import find_default, rank_effects, surest_effects
from gan_ablate.design.outcomes import margin_text
from gan_ablate.reporting import tables
from gan_ablate.reporting.formats import PAGE_NAME, Page, escape_markdown, listed
from gan_ablate.reporting.plots import effects as effect_plots
from gan_ablate.reporting.plots.quality import COMPARISON_NOTE, plot_compared_effects
from gan_ablate.reporting.ranking import NOTES, RankingLines
from gan_ablate.reporting.run_sentences import SMOKE_WARNING, base_of, images_words, steps_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.questions import ComparedEffects
    from gan_ablate.analysis.ranking import Default
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.reporting.other_studies import OtherStudy
    from gan_ablate.reporting.plots.style import FigurePath

    Ranked: TypeAlias = tuple[GridResults, Effect]

FIGURE = "effects.png"

MAX_LABEL = 22
"""The most characters of a level's label that the figure shows; it shows the level's own name instead."""


@dataclass(frozen=True, kw_only=True)
class FrontPage(Page):
    """The model of the front page.

    Attributes:
        is_smoke: whether all runs are smoke runs, which answer nothing.
        bases: the presets that the grids change, where there is no default.
        default: the preset of the baseline that most grids share.
        is_only_start: whether all grids start from it.
        datasets: of the grids.
        steps: the length of training; empty where no run counts steps.
        baseline: its name, its FID and the FID of real images; None where scores do not compare.
        falling: ``3 of 14``, the variants that had not converged; empty without any.
        curve_samples: on how many images FID along training is taken, where the page tells it; 0 where it does not.
        lasting: studies in other results folders, each with lines on what became of this one's answers.
        compared: in words, the settings of the figure of changes that others measured, too; empty without any.
        ranking: ``Use``, ``Avoid`` and so on → a line for the levels of one factor; empty if all runs are smoke runs.
        has_figure: whether there is any effect to show.
        families: how many grids the effects are of, and how many false decisions that allows; empty for one grid.
        margins: of the grids.
        verdicts: for each way of scoring, its description and a Markdown table of the verdicts.
        outcomes_note: what their outcomes are.
        unjudged: a Markdown table of the claims without a verdict; empty without any.
        pages: of the grids, in order.
        documents: the pages on documents.
    """

    template: ClassVar[str] = "front_page.md.j2"
    smoke_warning: ClassVar[str] = SMOKE_WARNING
    notes: ClassVar[Mapping[str, str]] = NOTES
    comparison_note: ClassVar[str] = COMPARISON_NOTE

    is_smoke: bool
    bases: str
    default: str
    is_only_start: bool
    datasets: str
    steps: str
    baseline: tuple[str, float, float] | None
    falling: str
    curve_samples: int
    lasting: list[tuple[OtherStudy, list[str]]]
    compared: str
    ranking: dict[str, list[str]]
    has_figure: bool
    families: str
    margins: str
    verdicts: list[tuple[str, str]]
    outcomes_note: str
    unjudged: str
    pages: Sequence[Page]
    documents: Sequence[Page]

    @property
    def parted_pages(self) -> tuple[list[Page], list[Page]]:
        """Pages with sentences, and those that are only linked. That all runs are smoke runs is told above."""
        told = [self.smoke_warning] if self.is_smoke else []
        parts: tuple[list[Page], list[Page]] = ([], [])
        for page in self.pages:
            parts[not page.sentences or page.sentences == told].append(page)
        return parts

    @property
    def page_warnings(self) -> list[tuple[Page, str]]:
        """Reasons for not believing a page, each with the page; that all runs are smoke runs is told above."""
        every = [(page, warning) for page in self.pages for warning in page.warnings]
        return [(page, warning) for page, warning in every if not (self.is_smoke and warning == self.smoke_warning)]


def make_front_page(
    results: Mapping[str, GridResults],
    blocks: Mapping[str, str],
    pages: Sequence[Page],
    documents: Sequence[Page],
    *,
    has_figure: bool,
    others: Sequence[OtherStudy] = (),
    compared: ComparedEffects | None = None,
) -> FrontPage:
    """Make the front page, without its figure.

    Args:
        results: of every grid, by the name of its folder.
        blocks: the name of its block, by the same names; empty where its grid has one block.
        pages: of the grids, and of grids across their blocks, in order.
        documents: the pages on documents.
        has_figure: whether there is any effect to show.
        others: studies in other results folders.
        compared: the changes that they measured, too; None where there are none.
    """
    every = list(results.values())
    trusted = [of_grid for of_grid in every if of_grid.plan.budget != "smoke"]
    plans = [of_grid.plan for of_grid in trusted or every]
    default, steps = find_default(trusted), steps_words(plans)
    ranked = RankingLines(trusted, blocks, default, others)
    unjudged = [(of_grid, claim, reason) for of_grid in trusted for claim, reason in of_grid.verdicts.unjudged()]
    return FrontPage(
        title=f"What helps a GAN{f' {steps}' if steps else ''}, by how much, how surely, at what cost",
        path=PAGE_NAME,
        is_smoke=not trusted,
        bases=listed(f"`{base}`" for base in map(base_of, plans)) if default is None else "",
        default=f"`{base_of(default.results.plan)}`" if default is not None else "",
        is_only_start=default is None or all(map(default.is_baseline_of, trusted)),
        datasets=listed(escape_markdown(plan.baseline.config.dataset) for plan in plans),
        steps=steps,
        baseline=_find_baseline(trusted, default),
        falling=_count_falling(trusted),
        curve_samples=_find_curve_samples(trusted),
        lasting=[(other, ranked.lasting(other)) for other in others],
        compared=listed(setting.place for setting in compared.settings) if compared is not None else "",
        ranking=ranked.ranking() if trusted else {},
        has_figure=has_figure,
        families=_families_words(trusted),
        margins=" or ".join(map(margin_text, sorted({plan.grid.log_margin for plan in plans}))),
        verdicts=tables.verdict_tables(trusted, blocks, default, others),
        outcomes_note=tables.outcomes_note(trusted),
        unjudged=tables.unjudged_table(sorted(unjudged, key=lambda row: row[1].order)) if unjudged else "",
        pages=pages,
        documents=documents,
    )


def draw_front(results: Mapping[str, GridResults], titles: Mapping[str, str], path: FigurePath) -> bool:
    """Draw the effects of all grids, each comparison once, and return whether there was any.

    The figure leaves out smoke runs, and interactions that were not found.

    Args:
        results: of every grid, by the name of its folder.
        titles: of their pages, by the same names.
        path: of the figure.
    """
    groups = []
    trusted = {name: of_grid for name, of_grid in results.items() if of_grid.plan.budget != "smoke"}
    once = {(of_grid.name, effect.name) for of_grid, effect in surest_effects(trusted.values())}
    for name, of_grid in trusted.items():
        effects, times = of_grid.verdicts.effects("fid"), of_grid.verdicts.effects("step_ms_median")
        shown = [
            effect_plots.FrontRow(
                _row_name(of_grid, effect), effect, times[i] if times else None, _compares_failures(effect)
            )
            for i, effect in enumerate(effects)
            if (name, effect.name) in once or (effect.is_interaction and effect.is_found)
        ]
        if shown:
            groups.append((titles[name], shown))
    if groups:
        path.pool.submit(path.path, effect_plots.plot_front, groups, path)
    else:
        path.path.unlink(missing_ok=True)
    return bool(groups)


def _row_name(results: GridResults, effect: Effect) -> str:
    """Name an effect and its baseline."""
    if effect.is_interaction:
        return f"{effect.name}, beyond each"
    ((name, level),) = effect.levels.items()
    factor = results.plan.grid.factors[name]
    label = factor.label_of(level)
    words = f"{name.replace('_', ' ')} {label if len(label) <= MAX_LABEL else level} (vs {factor.baseline})"
    return f"{words}, collapsed" if _compares_failures(effect) else words


def _compares_failures(effect: Effect) -> bool:
    return not effect.is_interaction and effect.compares_failures


def draw_comparison(
    results: Mapping[str, GridResults], others: Sequence[OtherStudy], path: FigurePath
) -> ComparedEffects | None:
    """Draw the changes that other folders measured, too; return None where there are none.

    Args:
        results: of every grid, by the name of its folder.
        others: studies in other results folders.
        path: of the figure.
    """
    everywhere = [*results.values(), *(of_grid for other in others for of_grid in other.results)] if others else []
    compared = compare_effects(everywhere)
    if not compared.effects:
        path.path.unlink(missing_ok=True)
        return None
    names = [setting.name for setting in compared.settings]
    path.pool.submit(path.path, plot_compared_effects, names, compared.rows, path)
    return compared


def _find_curve_samples(every: Sequence[GridResults]) -> int:
    """Return on how many images FID along training is taken, where an effect shrinks and scores have another number."""
    shrinking = [of for of in every if images_words(of) and any(one.peak is not None for one in of.trajectories)]
    return max((of.scored[0].curve_samples for of in shrinking), default=0)


def _families_words(every: Sequence[GridResults]) -> str:
    """Say how many false decisions the pooled effects of several grids allow; empty for one grid."""
    ranking = rank_effects(every)
    if ranking.num_families < 2:
        return ""
    return (
        f"These are the effects of {ranking.num_families} grids. By chance, at most {100 * (1 - CONFIDENCE):.0f} % of "
        f"grids have a wrong direction: {ranking.num_false:.2g} of {ranking.num_families} on average. As many may "
        "wrongly say that a change does not matter."
    )


def _count_falling(every: Sequence[GridResults]) -> str:
    """Count the variants that had not converged, each once where grids share it; empty without any."""
    variants = [(results, variant) for results in every for variant in results.plan.variants]
    falling = {variant.config.run_id for results, variant in variants if variant.label in results.unconverged}
    return f"{len(falling)} of {len({variant.config.run_id for _, variant in variants})}" if falling else ""


def _find_baseline(every: Sequence[GridResults], default: Default | None) -> tuple[str, float, float] | None:
    """Name the default, its FID and that of real images; None where there is none or scores do not compare."""
    protocols = {protocol for results in every for protocol in results.comparable.protocols}
    if default is None or len(protocols) > 1:
        return None
    mean = float(default.results.summary["fid"].iloc[0])
    if not math.isfinite(mean):
        return None
    label = default.results.plan.baseline.label
    num_grids = sum(default.is_baseline_of(results) for results in every)
    named = "which most grids share" if num_grids > 1 else escape_markdown(label) if label != "baseline" else ""
    return f"The default{f' ({named})' if named else ''}", mean, default.results.scored[0].floor.fid
