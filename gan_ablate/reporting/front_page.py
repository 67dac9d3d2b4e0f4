"""The front page: which levels to use, a figure of all effects, the verdicts, and a few sentences on each grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from gan_ablate.analysis.estimates import CONFIDENCE
from gan_ablate.analysis.pooling import find_default, rank_effects, surest_effects
from gan_ablate.analysis.questions import compare_effects, find_same, question_of, setting_of
from gan_ablate.design.outcomes import margin_text
from gan_ablate.reporting import tables
from gan_ablate.reporting.formats import PAGE_NAME, Page, count, escape_markdown, number
from gan_ablate.reporting.plots import effects as effect_plots
from gan_ablate.reporting.plots.quality import COMPARISON_NOTE, plot_compared_effects
from gan_ablate.reporting.run_sentences import (
    SMOKE_WARNING,
    OtherStudy,
    average_words,
    base_of,
    changed_words,
    collapsed_words,
    elsewhere_words,
    images_words,
    shrinking_words,
    start_words,
    step_time_words,
    steps_words,
)
from gan_ablate.reporting.sentences import (
    adjusted_text,
    allowed_rate_words,
    inflated_words,
    level_words,
    settling_words,
    simple_effect_words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.pooling import Default
    from gan_ablate.analysis.questions import ComparedEffects
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.reporting.plots.style import FigurePath

    Ranked: TypeAlias = tuple[GridResults, Effect]

FIGURE = "effects.png"

MAX_LABEL = 22
"""The most characters of a level's label that the figure shows; it shows the level's own name instead."""

MAX_RANKED = 15
"""The most factors that a list of the ranking names."""


HEADINGS = {
    "use": "Use",
    "rescue": "Helps a weaker start",
    "avoid": "Avoid",
    "depends": "Depends",
    "indifferent": "Does not matter",
    "unknown": "Not known yet",
}
"""Lists of a ``Ranking``, and what the page calls them."""

NOTES = {
    "Use": " (the interval lies below zero)",
    "Helps a weaker start": " (it improves a model that is worse than the default, but is not shown to beat it)",
    "Avoid": " (the interval lies above zero)",
    "Depends": " (on another factor, by the test of their interaction, or on the steps)",
    "Does not matter": " (negligible: the interval lies within the margin)",
    "Not known yet": " (inconclusive, or most runs collapsed, so that FID decides nothing)",
}
"""What each heading means."""


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
        changes: other results folders with the same questions: a heading, the folder, and a line for each factor that
            it decides otherwise.
        compared: the settings of the figure of changes that other folders measured, too; empty without any.
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
    changes: list[tuple[str, OtherStudy, list[str]]]
    compared: list[str]
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
        others: other results folders with the same questions.
        compared: the changes that they measured, too; None where there are none.
    """
    every = list(results.values())
    trusted = [of_grid for of_grid in every if of_grid.plan.budget != "smoke"]
    plans = [of_grid.plan for of_grid in trusted or every]
    default = find_default(trusted)
    ranked = _Ranked(trusted, blocks, default, others)
    unjudged = [(of_grid, claim, reason) for of_grid in trusted for claim, reason in of_grid.verdicts.unjudged()]
    return FrontPage(
        title="What helps a GAN, by how much, how surely, at what cost",
        path=PAGE_NAME,
        is_smoke=not trusted,
        bases=" and ".join(f"`{base}`" for base in dict.fromkeys(map(base_of, plans))) if default is None else "",
        default=f"`{base_of(default.results.plan)}`" if default is not None else "",
        is_only_start=default is None or all(map(default.is_baseline_of, trusted)),
        datasets=", ".join(dict.fromkeys(escape_markdown(plan.baseline.config.dataset) for plan in plans)),
        steps=steps_words(plans),
        baseline=_find_baseline(trusted, default),
        falling=_count_falling(trusted),
        curve_samples=_find_curve_samples(trusted),
        changes=[(ranked.changes_heading(other), other, ranked.changes(other)) for other in others],
        compared=[setting.name for setting in compared.settings] if compared is not None else [],
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
        others: other results folders with the same questions.
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


@dataclass(frozen=True)
class _Ranked:
    """Writes the ranking of the front page.

    Attributes:
        results: of the grids, without smoke runs.
        blocks: the name of its block, by the name of the grid's folder.
        default: the baseline that most grids share, if there is one.
        others: other results folders with the same questions.
    """

    results: Sequence[GridResults]
    blocks: Mapping[str, str]
    default: Default | None
    others: Sequence[OtherStudy]

    def ranking(self) -> dict[str, list[str]]:
        """Write a line for the levels of one factor, under each heading."""
        ranking = rank_effects(self.results)
        lists: dict[str, list[Ranked]] = {name: list(getattr(ranking, name)) for name in HEADINGS}
        for name in ("use", "avoid"):
            turned = {(of_grid.name, *effect.levels) for of_grid, effect in lists[name] if self._turns(of_grid, effect)}
            with_turned = [pair for pair in lists[name] if (pair[0].name, *pair[1].levels) in turned]
            lists[name] = [pair for pair in lists[name] if (pair[0].name, *pair[1].levels) not in turned]
            lists["depends"] += with_turned  # all levels of the factor: a reader looks for it in one place
        lists["depends"].sort(key=lambda pair: -abs(pair[1].estimate.value))
        used = {(of_grid.name, *effect.levels) for of_grid, effect in lists["use"]}
        lists["rescue"] = []
        for of_grid, effect in ranking.rescue:  # all levels of a factor stand together; each says what it reaches
            is_beside = (of_grid.name, *effect.levels) in used
            is_default = self.default is not None and self.default.has_level(of_grid, effect)
            lists["use" if is_beside and not is_default else "rescue"].append((of_grid, effect))
        return {HEADINGS[name]: self._lines(pairs, name) for name, pairs in lists.items() if pairs or name != "rescue"}

    def _turns(self, results: GridResults, effect: Effect) -> bool:
        """Whether the same change has the other sign in another folder."""
        found = (find_same(other.results, results, effect) for other in self.others)
        signs = {"lower", "higher"} - {effect.decision}
        return any(same is not None and same[1].decision in signs for same in found)

    def _lines(self, pairs: Sequence[Ranked], name: str) -> list[str]:
        of_factors: dict[tuple[str, str], list[Ranked]] = {}
        for of_grid, effect in pairs:
            of_factors.setdefault((of_grid.name, next(iter(effect.levels))), []).append((of_grid, effect))
        lines = [self._line(same, name) for same in of_factors.values()]
        if len(lines) > MAX_RANKED:
            lines[MAX_RANKED:] = [f"{len(lines) - MAX_RANKED} more, smaller: see the grids"]
        return lines

    def changes(self, other: OtherStudy) -> list[str]:
        """Write the default's FID in another folder, and a line for each factor on which that one decides otherwise."""
        lines: dict[tuple[str, str], list[str]] = {}
        for results, effect in sorted(surest_effects(self.results), key=lambda pair: -abs(pair[1].estimate.value)):
            words = changed_words(other, results, effect)
            if words:
                ((name, _),) = effect.levels.items()
                level = level_words(effect, results.plan.grid.factors)
                lines.setdefault((results.name, name), []).append(f"{level}{words}")
        factors = {of_grid.name: of_grid.plan.grid.factors for of_grid in self.results}
        changed = [
            f"**{escape_markdown(factors[grid][name].title_of(name))}** {' · '.join(levels)}"
            for (grid, name), levels in lines.items()
        ]
        there = find_default([of_grid for of_grid in other.results if of_grid.plan.budget != "smoke"])
        if self.default is None or there is None or not self.default.is_scored_like(there):
            return changed
        before, after = (number(float(default.results.summary["fid"].iloc[0])) for default in (self.default, there))
        return [f"**the default**: FID {before} → {after}", *changed]

    def changes_heading(self, other: OtherStudy) -> str:
        """Name the list of what another folder decides otherwise."""
        steps = [
            max(of.plan.baseline.config.steps for of in results)
            for results in (self.results or other.results, other.results)
        ]
        return "Longer training" if steps[1] > steps[0] else "Shorter training" if steps[1] < steps[0] else "Elsewhere"

    def _line(self, same: Sequence[Ranked], list_name: str) -> str:
        """Write the effects of a factor's levels: ``dropout elements-50 rather than none: +25.8 % […], 5 seeds``.

        A level to be used says what was not shown of it: that it beats the default, and that it lasts.
        """
        results, first = same[0]
        ((name, _),) = first.levels.items()
        factor, is_use = results.plan.grid.factors[name], list_name == "use"
        words = f"**{escape_markdown(factor.title_of(name))}**"
        block = self.blocks[results.name]
        where = (f", {escape_markdown(block)}" if block else "") + self._start_words(results)
        baseline = escape_markdown(factor.label_of(factor.baseline))
        if len(same) == 1:
            level = level_words(first, results.plan.grid.factors)
            line = f"{words} {level} rather than {baseline}{where}: {self._size_words(results, first, is_use=is_use)}"
        else:
            levels = (
                f"{level_words(effect, results.plan.grid.factors)} {self._size_words(results, effect, is_use=is_use)}"
                for _, effect in same
            )
            line = f"{words} rather than {baseline}{where}: {' · '.join(levels)}"
        steps = results.plan.baseline.config.steps
        is_measured = any(elsewhere_words(self.others, of_grid, effect) for of_grid, effect in same)
        is_advice = list_name in ("use", "rescue")
        only = f"; {steps:,} steps only" if is_advice and self.others and steps and not is_measured else ""
        return line + only + _decided_elsewhere_words(same)

    def _start_words(self, results: GridResults) -> str:
        """Say from which baseline a grid starts, its FID, and after how many steps, where they are not the page's."""
        horizons = {of_grid.plan.baseline.config.steps for of_grid in self.results}
        steps = f", {steps_words([results.plan])}" if len(horizons) > 1 else ""
        if self.default is None or self.default.is_baseline_of(results):
            return steps
        words = start_words(results.plan, self.default)
        return f"{f', from {words}' if words else ''}{steps} (FID {number(float(results.summary['fid'].iloc[0]))})"

    def _size_words(self, results: GridResults, effect: Effect, *, is_use: bool) -> str:
        """Say how large an effect is, on what it rests and depends, whether it lasts, and what it costs."""
        words = adjusted_text(effect) + self._reached_words(results, effect, is_use=is_use)
        words += average_words(results, effect)
        words += f", {count(effect.estimate.num_seeds, 'seed')}"
        words += allowed_rate_words(effect)
        if effect.compares_failures:
            return words + collapsed_words(effect)
        if results.verdicts.varies(effect):
            words = f"{'; '.join(map(simple_effect_words, results.verdicts.simple_effects_of(effect)))}; {words}"
        elif effect.decision == "inconclusive" and effect.likely_seeds is not None:
            words += f"; {settling_words(effect.likely_seeds)}"
        words += inflated_words(effect)
        words += self._held_words(results, effect)
        words += shrinking_words(results, effect) + step_time_words(results, effect)
        return words + elsewhere_words(self.others, results, effect)

    def _held_words(self, results: GridResults, effect: Effect) -> str:
        """Say what another grid found of the same change at other levels of a factor that this grid does not vary."""
        asked = question_of(results, effect)
        told: list[Effect] = []
        for of_grid in self.results:
            is_alike = of_grid.name != results.name and setting_of(of_grid) == setting_of(results)
            simple = [one for one in of_grid.verdicts.simple_effects if is_alike and one.levels == effect.levels]
            questions = [question_of(of_grid, one) for one in simple]
            if asked in questions:
                told += [one for one, question in zip(simple, questions, strict=True) if question != asked]
        return "".join(f"; {simple_effect_words(one)}" for one in told)

    def _reached_words(self, results: GridResults, effect: Effect, *, is_use: bool) -> str:
        """Say which FID a level reaches from another baseline than the default."""
        against = None if self.default is None else self.default.compare(results, effect)
        if against is None or not math.isfinite(against.estimate.value):
            return ""
        levels = against.sides[:, 0]
        is_default = self.default is not None and self.default.has_level(results, effect)
        reached = number(math.exp(float(levels[np.isfinite(levels)].mean())))
        if is_default:
            return f" to FID {reached}, that of the default"
        is_doubtful = is_use and (against.decision != "lower" or against.is_too_small)
        return f" to FID {reached}{', not shown to beat the default' if is_doubtful else ''}"


def _decided_elsewhere_words(same: Sequence[Ranked]) -> str:
    """Say which claim rests on another outcome of levels whose FID decides nothing, as most runs collapsed."""
    levels = [effect.levels for _, effect in same if effect.compares_failures]
    found = {
        f"{verdict.claim.id or 'a verdict below'} rests on {finding.effect.outcome.title} instead"
        for results, _ in same
        for verdict in results.verdicts.claim_verdicts
        for finding in verdict.decisive
        if finding.effect.levels in levels and finding.effect.outcome.name != "fid"
    }
    return "".join(f"; {words}" for words in sorted(found))


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
