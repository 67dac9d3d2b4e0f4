"""Pooling: compare and pool a grid's effects across blocks, and rank the effects of several grids."""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from gan_ablate.analysis.design import iterate_contrasts
from gan_ablate.analysis.estimates import CONFIDENCE, subtract_sides
from gan_ablate.analysis.families import Comparison, estimate_effects, estimate_family
from gan_ablate.analysis.pairing import SHARED_ENOUGH, Unpaired
from gan_ablate.analysis.questions import surety
from gan_ablate.analysis.table import tabulate_effect
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.design.plan import name_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.analysis.user_table import Table
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.design.plan import Intervals, Variant


@dataclass(frozen=True)
class BlockedEffect:
    """One effect on an outcome, block by block.

    Attributes:
        within: block's name → the effect in it.
        differences: (block, earlier block) → the difference of the effect between them: the interaction with the block.
            All differences of all effects are one family.
        pooled: the mean over blocks; those of all effects are one family.
    """

    within: dict[str, Effect]
    differences: dict[tuple[str, str], Effect]
    pooled: Effect

    @property
    def decision(self) -> Literal["differs", "alike", "inconclusive"]:
        """Whether the effect differs between blocks, is alike in all of them, or is undecided."""
        if any(effect.is_found and not effect.is_too_small for effect in self.differences.values()):
            return "differs"
        is_small = (effect.decision == "negligible" or effect.is_too_small for effect in self.differences.values())
        return "alike" if all(is_small) else "inconclusive"


@dataclass(frozen=True)
class Blocks:
    """Results of one grid in several blocks that compare: the same variants, trained for as many steps.

    Attributes:
        results: the results of each block.
        names: the blocks' names.
        effects: the effects on FID.
    """

    results: tuple[GridResults, ...]
    names: tuple[str, ...]
    effects: tuple[BlockedEffect, ...]

    @property
    def pooled(self) -> list[Effect]:
        """The pooled effects, without those that differ between blocks."""
        return [effect.pooled for effect in self.effects if effect.decision != "differs"]

    def tabulate(self) -> pd.DataFrame:
        """Tabulate every effect in every block, every difference, and the pooled effects."""
        return tabulate_blocks(self.effects)


def tabulate_blocks(effects: Iterable[BlockedEffect]) -> pd.DataFrame:
    """Tabulate effects block by block: a row for each block, each difference, and the mean where blocks agree."""
    rows = []
    for effect in effects:
        rows += [{"block": name, "against": "", **tabulate_effect(at)} for name, at in effect.within.items()]
        rows += [
            {"block": name, "against": other, **tabulate_effect(by)} for (name, other), by in effect.differences.items()
        ]
        if effect.decision != "differs":
            rows.append({"block": "all", "against": "", **tabulate_effect(effect.pooled)})
    return pd.DataFrame(rows)


def compare_blocks(results: Iterable[GridResults]) -> list[Blocks]:
    """Group results of one grid in several blocks, and compare their effects on FID.

    Results of a smoke run, of other numbers of steps or of other levels are not blocks of the same grid.

    Args:
        results: the results of every plan in a folder.
    """
    by_design: dict[tuple[object, ...], list[GridResults]] = {}
    for of_plan in results:
        plan = of_plan.plan
        if plan.budget != "smoke" and of_plan.verdicts.effects("fid"):
            include: dict[str, Any] = dict.fromkeys(("name", "design", "set", "margin"), True)
            include["factors"] = {"__all__": {"baseline", "levels"}}
            grid = plan.grid.model_dump_json(include=include)
            by_design.setdefault((grid, plan.baseline.config.steps), []).append(of_plan)
    return [_compare(tuple(of_design)) for of_design in by_design.values() if len(of_design) > 1]


def _compare(results: tuple[GridResults, ...]) -> Blocks:
    plans = [of_block.plan for of_block in results]
    names = tuple(name_blocks(plans))
    intervals: Intervals = "sequential" if any(plan.intervals == "sequential" for plan in plans) else "fixed"
    families = [of_block.verdicts.effects("fid") for of_block in results]
    return Blocks(results, names, compare_families(names, families, [plan.seeds for plan in plans], intervals))


def compare_table(table: Table, outcome: Outcome) -> tuple[BlockedEffect, ...]:
    """Compare the effects on one outcome between the blocks of a user's table, and pool them.

    Args:
        table: of at least two blocks.
        outcome: of the table.
    """
    design, by_block = table.design, table.by_block
    families = [estimate_effects(design, runs, outcome) for runs in by_block.values()]
    return compare_families(tuple(by_block), families, [design.seeds] * len(by_block), design.intervals)


def compare_families(
    names: Sequence[str],
    families: Sequence[Sequence[Effect]],
    seeds_of: Sequence[Sequence[int]],
    intervals: Intervals,
) -> tuple[BlockedEffect, ...]:
    """Compare the same effects on one outcome between blocks, and pool them.

    Blocks are compared within a seed where they share those of the smallest block, see ``SHARED_ENOUGH``. Else the
    means of independent blocks are compared, by Welch's test. Medians, and runs that are added one by one, need shared
    seeds.

    Args:
        names: of the blocks.
        families: each block's effects, in the same order.
        seeds_of: each block's seeds: those of the rows of its effects' sides.
        intervals: whether the number of seeds was fixed beforehand, in every block.
    """
    outcome, margin = families[0][0].outcome, families[0][0].margin
    pairs = list(itertools.combinations(range(len(names)), 2))
    seeds = _find_shared(families, seeds_of, intervals)
    differences, pooled = [], []
    for of_effect in zip(*families, strict=True):
        bounds = _bounds_at(of_effect, seeds_of, seeds)
        if bounds is None and (not seeds or not all(effect.is_paired for effect in of_effect)):
            differences += [_combine_means((of_effect[b], of_effect[a]), (1, -1)) for a, b in pairs]
            pooled.append(_combine_means(of_effect, [1 / len(names)] * len(names)))
            continue
        levels = of_effect[0].levels
        sides = [_sides_at(effect, known, seeds) for effect, known in zip(of_effect, seeds_of, strict=True)]
        differences += [
            Comparison(
                levels,
                {},
                np.stack([subtract_sides(sides[at]) for at in (b, a)], axis=1),
                bounds=None if bounds is None else bounds[b] - bounds[a][:, ::-1],
            )
            for a, b in pairs
        ]
        mean_bounds = None if bounds is None else np.mean(bounds, axis=0)
        pooled.append(Comparison(levels, {}, np.mean(sides, axis=0), bounds=mean_bounds))
    by_pair = iter(estimate_family(differences, outcome, margin, intervals))
    return tuple(
        BlockedEffect(
            within={name: family[i] for name, family in zip(names, families, strict=True)},
            differences={(names[b], names[a]): next(by_pair) for a, b in pairs},
            pooled=in_common,
        )
        for i, in_common in enumerate(estimate_family(pooled, outcome, margin, intervals))
    )


def _find_shared(
    families: Sequence[Sequence[Effect]], seeds_of: Sequence[Sequence[int]], intervals: Intervals
) -> list[int]:
    """Return the seeds that all blocks have; none where too few are shared for blocks to be compared within a seed."""
    known = [
        [seed for row, seed in enumerate(seeds) if any(effect.has_seed(row) for effect in family)]
        for family, seeds in zip(families, seeds_of, strict=True)
    ]
    shared = [seed for seed in known[0] if all(seed in of_block for of_block in known)]
    is_enough = len(shared) >= SHARED_ENOUGH * min(map(len, known))
    return shared if is_enough or intervals == "sequential" else []


def _combine_means(effects: Sequence[Effect], factors: Sequence[float]) -> Comparison:
    """Add the means of one effect in blocks whose runs are independent, each times a factor."""
    parts = [
        (effect.unpaired or Unpaired(subtract_sides(effect.sides)[:, np.newaxis], np.ones(1)), factor)
        for effect, factor in zip(effects, factors, strict=True)
    ]
    return Comparison(effects[0].levels, {}, np.full((1, 2), np.nan), unpaired=Unpaired.combine(parts))


def _sides_at(effect: Effect, seeds: Sequence[int], wanted: Sequence[int]) -> NDArray[np.float64]:
    """Return the rows of some seeds of an effect's sides: (wanted, 2)."""
    return effect.sides[[seeds.index(seed) for seed in wanted]]


def _bounds_at(
    effects: Sequence[Effect], seeds_of: Sequence[Sequence[int]], wanted: Sequence[int]
) -> list[NDArray[np.float64]] | None:
    """Return each block's bounds of one effect at some seeds, (wanted, 2); None where all blocks estimate the mean."""
    if all(effect.basis == "mean" for effect in effects):
        return None
    return [
        effect.seed_bounds[[seeds.index(seed) for seed in wanted]]
        for effect, seeds in zip(effects, seeds_of, strict=True)
    ]


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
    # A change of how often runs collapse outweighs a typical run that hardly changes.
    is_worse, is_rarer = effect.failure_change == "higher", effect.failure_change == "lower"
    is_torn = effect.decision == "lower" if is_worse else is_rarer and effect.decision != "lower"
    if effect.compares_failures or is_torn or (effect.decision == "inconclusive" and not is_worse):
        return ranking.unknown
    if not is_worse and (effect.decision == "negligible" or effect.is_too_small):
        return ranking.indifferent
    if is_worse or effect.decision == "higher":
        return ranking.avoid
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
