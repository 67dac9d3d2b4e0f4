"""Results of many grids in, their levels sorted by what to do with them out: use, avoid, never mind, find out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gan_ablate.analysis.design import list_contrasts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults


@dataclass(frozen=True)
class Ranking:
    """Main effects on FID by what they say, each list with the largest first, every finding once.

    Attributes:
        use: they lower FID.
        avoid: they raise it.
        depends: what they do at one level of another factor is not what they do at another.
        indifferent: they lie within the margin, effects that are too small to matter among them.
        unknown: they are open, or most runs that they compare collapsed.
    """

    use: list[tuple[GridResults, Effect]] = field(default_factory=list)
    avoid: list[tuple[GridResults, Effect]] = field(default_factory=list)
    depends: list[tuple[GridResults, Effect]] = field(default_factory=list)
    indifferent: list[tuple[GridResults, Effect]] = field(default_factory=list)
    unknown: list[tuple[GridResults, Effect]] = field(default_factory=list)


def rank_effects(results: Iterable[GridResults]) -> Ranking:
    """Sort the main effects on FID of grids by what they say, each comparison once; of a smoke run, nothing.

    Args:
        results: of every grid.
    """
    ranking = Ranking()
    found = surest_effects(of_grid for of_grid in results if of_grid.plan.budget != "smoke")
    for pair in sorted(found, key=lambda pair: -abs(pair[1].estimate.value)):
        _list_of(ranking, *pair).append(pair)
    return ranking


def surest_effects(results: Iterable[GridResults]) -> list[tuple[GridResults, Effect]]:
    """List the main effects on FID of grids, every comparison once, the surest first.

    Two grids may show one comparison twice, from either side, or averaged over another factor and alone. It is taken
    from where it is surest: settled, then with most seeds, then with the smallest p.

    Args:
        results: of every grid.
    """
    every = [
        (of_grid, effect)
        for of_grid in results
        for effect in of_grid.verdicts.effects("fid")
        if not effect.is_interaction and math.isfinite(effect.estimate.value)
    ]
    told: set[object] = set()
    found = []
    for of_grid, effect in sorted(every, key=lambda pair: _surety(pair[1]), reverse=True):
        names = {_compared(of_grid, effect), _named(of_grid, effect)}
        if not names & told:
            found.append((of_grid, effect))
        told |= names
    return found


def _compared(results: GridResults, effect: Effect) -> frozenset[frozenset[str]]:
    """The variants that an effect compares, on either side, by what they are and not by how a grid calls them."""
    plan = results.plan
    (weights,) = (contrast.weights for contrast in list_contrasts(plan) if contrast.levels == effect.levels)
    sides = (weights > 0, weights < 0)
    return frozenset(
        frozenset(cell.config.run_id for cell, counts in zip(plan.cells, side, strict=True) if counts) for side in sides
    )


def _named(results: GridResults, effect: Effect) -> tuple[object, ...]:
    """The same comparison in words: one base preset, block and length of training, two levels of one factor.

    A grid with a user's script has no base preset: its effects are those of its own script.
    """
    plan = results.plan
    ((factor, level),) = effect.levels.items()
    levels = frozenset((level, plan.grid.factors[factor].baseline))
    config, base = plan.baseline.config, plan.grid.base or plan.grid.name
    return base, tuple(plan.baseline.block.items()), config.dataset, config.steps, factor, levels


def _surety(effect: Effect) -> tuple[bool, int, float]:
    return effect.answer != "open", effect.estimate.num_seeds, -effect.test.p


def _list_of(ranking: Ranking, results: GridResults, effect: Effect) -> list[tuple[GridResults, Effect]]:
    if results.verdicts.compares_failures(effect):
        return ranking.unknown
    if results.verdicts.varies(effect):
        return ranking.depends
    if effect.answer == "open":
        return ranking.unknown
    if effect.answer == "negligible" or effect.is_too_small:
        return ranking.indifferent
    return ranking.use if effect.answer == "lower" else ranking.avoid
