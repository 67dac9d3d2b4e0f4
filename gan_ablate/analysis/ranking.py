"""Results of many grids in, their levels sorted by what to do with them out: use, avoid, never mind, find out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gan_ablate.analysis.contrasts import list_contrasts

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
        indifferent: they lie within the margin, effects that are too small to matter among them.
        unknown: they are open.
    """

    use: list[tuple[GridResults, Effect]] = field(default_factory=list)
    avoid: list[tuple[GridResults, Effect]] = field(default_factory=list)
    indifferent: list[tuple[GridResults, Effect]] = field(default_factory=list)
    unknown: list[tuple[GridResults, Effect]] = field(default_factory=list)


def rank_effects(results: Iterable[GridResults]) -> Ranking:
    """Sort the main effects on FID of grids by what they say; of a smoke run, nothing.

    Two grids that share runs may show one effect twice, or from either side: it is told once, where it is surer.

    Args:
        results: of every grid.
    """
    found: dict[frozenset[frozenset[str]], tuple[GridResults, Effect]] = {}
    for of_grid in results:
        if of_grid.plan.budget == "smoke":
            continue
        for effect in of_grid.verdicts.effects("fid"):
            if effect.is_interaction or not math.isfinite(effect.estimate.value):
                continue
            compared = _compared(of_grid, effect)
            twin = found.get(compared)
            if twin is None or _surety(effect) > _surety(twin[1]):
                found[compared] = of_grid, effect
    ranking = Ranking()
    by_size = sorted(found.values(), key=lambda pair: -abs(pair[1].estimate.value))
    for pair in by_size:
        _list_of(ranking, pair[1]).append(pair)
    return ranking


def _compared(results: GridResults, effect: Effect) -> frozenset[frozenset[str]]:
    """The variants that an effect compares, on either side, by what they are and not by how a grid calls them."""
    plan = results.plan
    (weights,) = (contrast.weights for contrast in list_contrasts(plan) if contrast.levels == effect.levels)
    sides = (weights > 0, weights < 0)
    return frozenset(
        frozenset(cell.config.run_id for cell, counts in zip(plan.cells, side, strict=True) if counts) for side in sides
    )


def _surety(effect: Effect) -> tuple[int, float]:
    return effect.estimate.num_seeds, -effect.test.p


def _list_of(ranking: Ranking, effect: Effect) -> list[tuple[GridResults, Effect]]:
    if effect.answer == "open":
        return ranking.unknown
    if effect.answer == "negligible" or effect.is_too_small:
        return ranking.indifferent
    return ranking.use if effect.answer == "lower" else ranking.avoid
