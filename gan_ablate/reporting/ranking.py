"""The ranking of the front page: a line for the levels of each factor, under a heading for each decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from gan_ablate.analysis.questions import find_same, question_of, setting_of
from gan_ablate.analysis.ranking import find_default, rank_effects, surest_effects
from gan_ablate.reporting.formats import escape_markdown, number
from gan_ablate.reporting.other_studies import compare_elsewhere, elsewhere_words
from gan_ablate.reporting.run_sentences import (
    average_words,
    collapsed_words,
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
    num_seeds_text,
    settling_words,
    simple_effect_words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.questions import Lasting
    from gan_ablate.analysis.ranking import Default
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.reporting.other_studies import OtherStudy

    Ranked: TypeAlias = tuple[GridResults, Effect]


MAX_RANKED = 24
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
    "Depends": " (on another factor, by the test of their interaction, or on steps or data, where a level turns)",
    "Does not matter": " (negligible: the interval lies within the margin)",
    "Not known yet": " (inconclusive, or most runs collapsed, so that FID decides nothing)",
}
"""What each heading means."""


LASTING_HEADINGS: dict[Lasting, str] = {
    "same": "Same decision there",
    "other": "Other decision there",
    "moved": "Inconclusive there, and the interval excludes the number here",
    "undecided": "Inconclusive there",
}
"""What the page calls what became of an answer in another study."""


@dataclass(frozen=True)
class RankingLines:
    """Writes the ranking of the front page.

    Attributes:
        results: of the grids, without smoke runs.
        blocks: the name of its block, by the name of the grid's folder.
        default: the baseline that most grids share, if there is one.
        others: studies in other results folders.
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
        for pairs in lists.values():
            pairs.sort(key=lambda pair: -abs(self._find_surest(*pair).estimate.value))
        used = {(of_grid.name, *effect.levels) for of_grid, effect in lists["use"]}
        lists["rescue"] = []
        for of_grid, effect in ranking.rescue:  # all levels of a factor stand together; each says what it reaches
            is_beside = (of_grid.name, *effect.levels) in used
            is_default = self.default is not None and self.default.has_level(of_grid, effect)
            lists["use" if is_beside and not is_default else "rescue"].append((of_grid, effect))
        return {HEADINGS[name]: self._lines(pairs, name) for name, pairs in lists.items() if pairs or name != "rescue"}

    def _turns(self, results: GridResults, effect: Effect) -> bool:
        """Whether the same change has the other sign in another study."""
        compared = (compare_elsewhere(other, results, effect) for other in self.others)
        return any(one is not None and one.turns for one in compared)

    def _lines(self, pairs: Sequence[Ranked], name: str) -> list[str]:
        of_factors: dict[tuple[str, str], list[Ranked]] = {}
        for of_grid, effect in pairs:
            of_factors.setdefault((of_grid.name, next(iter(effect.levels))), []).append((of_grid, effect))
        lines = [self._line(same, name) for same in of_factors.values()]
        if len(lines) > MAX_RANKED:
            lines[MAX_RANKED:] = [f"{len(lines) - MAX_RANKED} more, smaller: see the grids"]
        return lines

    def lasting(self, other: OtherStudy) -> list[str]:
        """Write the default's FID in another study, and a line for each thing that may have become of an answer."""
        found: dict[str, dict[tuple[str, str], list[str]]] = {heading: {} for heading in LASTING_HEADINGS.values()}
        for results, effect in sorted(surest_effects(self.results), key=lambda pair: -abs(pair[1].estimate.value)):
            compared = compare_elsewhere(other, results, effect, self._find_surest(results, effect))
            if compared is not None:
                ((name, _),) = effect.levels.items()
                level = level_words(effect, results.plan.grid.factors)
                of_factors = found[LASTING_HEADINGS[compared.lasting]]
                of_factors.setdefault((results.name, name), []).append(f"{level}{compared.words}")
        lines = []
        for heading, factors in found.items():
            words = [f"{self._title(*of_factor)} {' · '.join(levels)}" for of_factor, levels in factors.items()]
            num = sum(map(len, factors.values()))
            lines += [f"**{heading}** ({num}): {'; '.join(words)}"] if words else []
        if not lines:
            is_common = any(find_same(other.results, *pair) is not None for pair in surest_effects(self.results))
            lines = ["nothing is decided in both" if is_common else "it measured other changes"]
        there = find_default(other.results)
        if self.default is None or there is None or not self.default.is_scored_like(there):
            return lines
        in_order = sorted((self.default, there), key=lambda default: default.results.plan.baseline.config.steps)
        before, after = (number(float(default.results.summary["fid"].iloc[0])) for default in in_order)
        return [f"**The default**: FID {before} → {after}", *lines]

    def _title(self, grid: str, factor: str) -> str:
        """Name a factor, and the block and the start of its grid, where grids have others."""
        results = next(of_grid for of_grid in self.results if of_grid.name == grid)
        title = escape_markdown(results.plan.grid.factors[factor].title_of(factor))
        where = self._where_words(results).removeprefix(", ")
        return f"*{title}*{f' ({where})' if where else ''}"

    def _line(self, same: Sequence[Ranked], list_name: str) -> str:
        """Write the effects of a factor's levels: ``dropout elements-50 rather than none: +25.8 % […], 5 seeds``.

        A level to be used says what was not shown of it: that it beats the default, and that it lasts.
        """
        results, first = same[0]
        ((name, _),) = first.levels.items()
        factor, is_use = results.plan.grid.factors[name], list_name == "use"
        words = f"**{escape_markdown(factor.title_of(name))}**"
        where = self._where_words(results)
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

    def _where_words(self, results: GridResults) -> str:
        """Name the block of a grid, and its start, where grids have others."""
        block = self.blocks[results.name]
        return (f", {escape_markdown(block)}" if block else "") + self._start_words(results)

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
        surest, average = self._find_surest(results, effect), average_words(results, effect)
        words = f"{adjusted_text(surest)}{self._reached_words(results, effect, is_use=is_use)}{average}"
        words += f", {num_seeds_text(surest)}{allowed_rate_words(surest)}{collapsed_words(surest)}"
        if effect.compares_failures:
            return words
        if surest is not effect:  # what follows is said of the effect itself
            return words + self._held_words(results, effect) + elsewhere_words(self.others, results, effect)
        if results.verdicts.varies(effect):
            words = f"{'; '.join(map(simple_effect_words, results.verdicts.simple_effects_of(effect)))}; {words}"
        elif effect.decision == "inconclusive" and effect.likely_seeds is not None:
            words += f"; {settling_words(effect.likely_seeds)}"
        words += inflated_words(effect)
        words += self._held_words(results, effect)
        words += shrinking_words(results, effect) + step_time_words(results, effect)
        return words + elsewhere_words(self.others, results, effect)

    def _find_surest(self, results: GridResults, effect: Effect) -> Effect:
        """Return the effect, or a simple effect of another grid that says the same of the same change with more seeds.

        It is scored alike, and nothing that the heading rests on differs.
        """
        asked, where, scored = question_of(results, effect), setting_of(results), results.comparable.protocols
        found = [
            one
            for of_grid in self.results
            if (setting_of(of_grid), of_grid.comparable.protocols) == (where, scored)
            for one in of_grid.verdicts.simple_effects
            if one.levels == effect.levels and _heading_of(one) == _heading_of(effect)
            if question_of(of_grid, one) == asked
        ]
        return max([effect, *found], key=lambda one: one.estimate.num_seeds)

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


def _heading_of(effect: Effect) -> tuple[object, ...]:
    """Return what decides under which heading an effect stands, beside its decision on another baseline."""
    return effect.decision, effect.margin, effect.is_too_small, effect.failure_change, effect.compares_failures


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
