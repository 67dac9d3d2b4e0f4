"""Ranking: the effects of several grids by their decisions, beside the baseline that most grids share."""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gan_ablate.analysis.design import iterate_contrasts
from gan_ablate.analysis.estimates import CONFIDENCE, subtract_sides
from gan_ablate.analysis.families import Comparison, estimate_family
from gan_ablate.analysis.questions import surety
from gan_ablate.design.outcomes import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.plan import Intervals, Variant


@dataclass(frozen=True)
class Ranking:
    """Main effects on FID by their decisions, each comparison once, the largest first in each list.

    Attributes:
        use: levels that lower FID.
        rescue: levels that lower the FID of another baseline than the default, and come no lower than the default.
        avoid: levels that raise FID, or with which more runs collapse or diverge.
        depends: levels whose effects depend on another factor; see ``Verdicts.varies``.
        indifferent: levels that are negligible, or whose effects are too small to matter.
        unknown: levels whose effects are inconclusive, or say something else than the rate of collapse.
        num_families: how many families of tests the effects are of: one per grid.
    """

    use: list[tuple[GridResults, Effect]] = field(default_factory=list)
    rescue: list[tuple[GridResults, Effect]] = field(default_factory=list)
    avoid: list[tuple[GridResults, Effect]] = field(default_factory=list)
    depends: list[tuple[GridResults, Effect]] = field(default_factory=list)
    indifferent: list[tuple[GridResults, Effect]] = field(default_factory=list)
    unknown: list[tuple[GridResults, Effect]] = field(default_factory=list)
    num_families: int = 0

    @property
    def num_false(self) -> float:
        """The most families, on average, with a false direction; and as many with a falsely negligible effect.

        Each family has one with a chance of at most 5 %. Nothing adjusts across families: to hold 5 % over 16 grids
        takes half as many runs again (``bench/calibration.py``).
        """
        return (1 - CONFIDENCE) * self.num_families


def rank_effects(results: Iterable[GridResults]) -> Ranking:
    """Sort the main effects on FID of grids by their decisions, each comparison once, without smoke runs.

    Args:
        results: the results of every grid.
    """
    trusted = [of_grid for of_grid in results if of_grid.plan.budget != "smoke"]
    ranking = Ranking(num_families=len({id(of_grid) for of_grid, _ in _main_effects(trusted)}))
    default = find_default(trusted)
    for pair in sorted(surest_effects(trusted), key=lambda pair: -abs(pair[1].estimate.value)):
        _list_of(ranking, *pair, default).append(pair)
    return ranking


def _main_effects(results: Iterable[GridResults]) -> list[tuple[GridResults, Effect]]:
    return [
        (of_grid, effect)
        for of_grid in results
        for effect in of_grid.verdicts.effects("fid")
        if not effect.is_interaction and math.isfinite(effect.estimate.value)
    ]


def surest_effects(results: Iterable[GridResults]) -> list[tuple[GridResults, Effect]]:
    """List the main effects on FID of grids, every comparison once, the surest first.

    Two grids may have the same comparison: with the levels swapped, under other names, or averaged over another factor
    and alone. The surest one is listed: decided before inconclusive, then with more seeds, then the one that a claim
    rests on, so that the claim's verdict shows the same interval, then with a smaller p. Of equal ones, by ``round_p``,
    the first grid's is.

    Args:
        results: the results of every grid.
    """
    seen: set[object] = set()
    found: list[tuple[GridResults, Effect]] = []
    wholes: list[frozenset[frozenset[str]]] = []
    for of_grid, effect in sorted(_main_effects(results), key=lambda pair: surety(*pair), reverse=True):
        compared = _compared(of_grid, effect)
        names = {compared, _named(of_grid, effect)}
        if not names & seen and not any(_is_part_of(compared, whole) for whole in wholes):
            found.append((of_grid, effect))
            wholes.append(compared)
        seen |= names
    return found


def _is_part_of(part: frozenset[frozenset[str]], whole: frozenset[frozenset[str]]) -> bool:
    """Whether a comparison is one of those that another one averages over."""
    return any(all(map(operator.le, part, sides)) for sides in itertools.permutations(whole))


def _compared(results: GridResults, effect: Effect) -> frozenset[frozenset[str]]:
    """Return the run ids of the variants that an effect compares: a set for each side."""
    plan = results.plan
    (weights,) = (
        contrast.weights for contrast in iterate_contrasts(results.design) if contrast.levels == effect.levels
    )
    sides = (weights > 0, weights < 0)
    return frozenset(
        frozenset(variant.config.run_id for variant, counts in zip(plan.variants, side, strict=True) if counts)
        for side in sides
    )


def _named(results: GridResults, effect: Effect) -> tuple[object, ...]:
    """Return the names of what an effect compares: preset, block, data set, steps, factor and its two levels.

    A grid with a user's script has no preset; its name stands for the script.
    """
    plan = results.plan
    ((factor, level),) = effect.levels.items()
    levels = frozenset((level, plan.grid.factors[factor].baseline))
    config, base = plan.baseline.config, plan.grid.base or plan.grid.name
    return base, tuple(plan.baseline.block.items()), config.dataset, config.steps, factor, levels


def _list_of(
    ranking: Ranking, results: GridResults, effect: Effect, default: Default | None
) -> list[tuple[GridResults, Effect]]:
    if results.verdicts.varies(effect) and not effect.compares_failures:
        return ranking.depends
    others = {"inconclusive": ranking.unknown, "negligible": ranking.indifferent, "higher": ranking.avoid}
    if effect.answer in others:
        return others[effect.answer]
    against = None if default is None else default.compare(results, effect)
    is_better = against is None or (against.decision == "lower" and not against.is_too_small)
    return ranking.use if is_better else ranking.rescue


@dataclass(frozen=True)
class Default:
    """The baseline that most grids share.

    Attributes:
        results: those with the most runs of it.
        log_fid: seed → its log FID, of all grids that are scored like these.
    """

    results: GridResults
    log_fid: dict[int, float]

    def is_baseline_of(self, results: GridResults) -> bool:
        """Whether a grid's baseline is trained like this one."""
        return _training_of(results.plan.baseline) == _training_of(self.results.plan.baseline)

    def is_scored_like(self, other: Default) -> bool:
        """Whether another default differs at most in the length of training."""
        ours, theirs = (
            default.results.plan.baseline.config.model_dump_json(exclude={"seed", "scoring", "steps"})
            for default in (self, other)
        )
        return ours == theirs and self.results.comparable.protocols == other.results.comparable.protocols

    def has_level(self, results: GridResults, effect: Effect) -> bool:
        """Whether a grid of another baseline has the default as a level."""
        usual = _training_of(self.results.plan.baseline)
        with_level = (v for v in results.plan.variants if effect.levels.items() <= v.levels.items())
        return any(_training_of(variant) == usual for variant in with_level)

    def compare(self, results: GridResults, effect: Effect) -> Effect | None:
        """Compare a level of another baseline with the default on FID, seed by seed.

        The family of tests has all levels of the grid.

        Args:
            results: of a grid.
            effect: a main effect in them.

        Returns:
            The effect; None where the grid's baseline is the default, or was trained or scored otherwise: for another
            number of steps, on other data.
        """
        ours, theirs = self.results.plan.baseline.config, results.plan.baseline.config
        is_alike = (ours.dataset, ours.steps) == (theirs.dataset, theirs.steps)
        is_scored_alike = self.results.comparable.protocols == results.comparable.protocols
        if self.is_baseline_of(results) or not is_alike or not is_scored_alike:
            return None
        default = np.array([self.log_fid.get(seed, np.nan) for seed in results.plan.seeds])
        effects = [other for other in results.verdicts.effects("fid") if not other.is_interaction]
        family = [_against_default(other, default) for other in effects]
        kinds = {self.results.plan.intervals, results.plan.intervals}
        intervals: Intervals = "sequential" if "sequential" in kinds else "fixed"
        compared = estimate_family(family, OUTCOMES["fid"], effect.margin, intervals)
        return next(other for other in compared if other.levels == effect.levels)


def _against_default(effect: Effect, default: NDArray[np.float64]) -> Comparison:
    """Compare a level's side with the default's log FID; by signs where the level's own effect is told by signs."""
    sides = np.stack([effect.sides[:, 0], default], axis=1)
    if effect.bounds is None:
        return Comparison(effect.levels, {}, sides)
    differences = subtract_sides(sides)
    is_lost = np.isnan(effect.sides[:, 0]) & np.isfinite(effect.bounds).any(axis=1) & np.isfinite(default)
    bounds = np.stack([np.where(is_lost, end, differences) for end in (-np.inf, np.inf)], axis=1)
    return Comparison(effect.levels, {}, sides, bounds=bounds)


def find_default(results: Iterable[GridResults]) -> Default | None:
    """Find the baseline that most grids share; None where several grids share none, or none is scored.

    Args:
        results: the results of every grid, without smoke runs.
    """
    scored = [of_grid for of_grid in results if of_grid.verdicts.effects("fid")]
    shared = Counter(_training_of(of_grid.plan.baseline) for of_grid in scored).most_common(1)
    if not shared or (shared[0][1] == 1 and len(scored) > 1):
        return None
    with_it = [of_grid for of_grid in scored if _training_of(of_grid.plan.baseline) == shared[0][0]]
    most = max(with_it, key=lambda of_grid: of_grid.summary["completed"].iloc[0])
    log_fid: dict[int, float] = {}
    for of_grid in scored:
        labels = [variant.label for variant in of_grid.plan.variants if _training_of(variant) == shared[0][0]]
        if labels and of_grid.comparable.protocols == most.comparable.protocols:
            runs = of_grid.comparable.runs
            runs = runs.loc[runs["variant"].isin(labels) & (runs["fid"].astype(float) > 0)]
            log_fid |= {int(seed): math.log(fid) for seed, fid in zip(runs["seed"], runs["fid"], strict=True)}
    return Default(most, log_fid)


def _training_of(variant: Variant) -> str:
    """Return what a variant's runs share with others that differ at most in seed and scoring."""
    return variant.config.model_dump_json(exclude={"seed", "scoring"})
