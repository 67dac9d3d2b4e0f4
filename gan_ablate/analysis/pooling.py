"""Effects of many: pool a grid's effects across blocks, and rank the effects of several grids."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from gan_ablate.analysis.design import iterate_contrasts
from gan_ablate.analysis.effects import Comparison, Effect, estimate_family
from gan_ablate.analysis.estimates import subtract_sides
from gan_ablate.analysis.table import tabulate_effect
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.design.plan import name_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.plan import Intervals


@dataclass(frozen=True)
class BlockedEffect:
    """One effect on FID, block by block.

    Attributes:
        within: the effect in each block, as its own results have it.
        differences: how the effect in one block differs from that in an earlier one, for every two: the interaction
            with the block, paired by seed. All differences of all effects are one family.
        pooled: the mean over blocks, of the seeds that all have; these are a family over all effects.
    """

    within: dict[str, Effect]
    differences: dict[tuple[str, str], Effect]
    pooled: Effect

    @property
    def decision(self) -> Literal["differs", "alike", "open"]:
        """Whether the blocks differ by more than the margin may hide, certainly do not, or nothing is known yet."""
        if any(effect.is_found and not effect.is_too_small for effect in self.differences.values()):
            return "differs"
        is_small = (effect.decision == "negligible" or effect.is_too_small for effect in self.differences.values())
        return "alike" if all(is_small) else "open"


@dataclass(frozen=True)
class Blocks:
    """Results of one grid in several blocks that compare: the same variants, trained for as many steps.

    Attributes:
        results: of a block each.
        names: words that tell them apart.
        effects: on FID.
    """

    results: tuple[GridResults, ...]
    names: tuple[str, ...]
    effects: tuple[BlockedEffect, ...]

    @property
    def pooled(self) -> list[Effect]:
        """What the blocks have in common: the effects of which it is not known that they differ."""
        return [effect.pooled for effect in self.effects if effect.decision != "differs"]

    def tabulate(self) -> pd.DataFrame:
        """Tabulate every effect in every block, every difference, and what may be pooled."""
        rows = []
        for effect in self.effects:
            rows += [{"block": name, "against": "", **tabulate_effect(at)} for name, at in effect.within.items()]
            rows += [
                {"block": name, "against": other, **tabulate_effect(by)}
                for (name, other), by in effect.differences.items()
            ]
            if effect.decision != "differs":
                rows.append({"block": "all", "against": "", **tabulate_effect(effect.pooled)})
        return pd.DataFrame(rows)


def compare_blocks(results: Iterable[GridResults]) -> list[Blocks]:
    """Gather the results that are of one grid in several blocks, and compare their effects on FID.

    What was trained for other steps, or by other levels of the same names, is no block, nor is a smoke run.

    Args:
        results: of every plan in a results folder.
    """
    by_design: dict[tuple[object, ...], list[GridResults]] = {}
    for of_plan in results:
        plan = of_plan.plan
        if plan.budget != "smoke" and of_plan.verdicts.effects("fid"):
            grid = plan.grid.model_dump_json(include={"name", "design", "factors", "set", "margin"})
            by_design.setdefault((grid, plan.baseline.config.steps), []).append(of_plan)
    return [_compare(tuple(of_design)) for of_design in by_design.values() if len(of_design) > 1]


def _compare(results: tuple[GridResults, ...]) -> Blocks:
    plans = [of_block.plan for of_block in results]
    names = tuple(name_blocks(plans))
    intervals: Intervals = "sequential" if any(plan.intervals == "sequential" for plan in plans) else "fixed"
    seeds = [seed for seed in plans[0].seeds if all(seed in plan.seeds for plan in plans)]
    families = [of_block.verdicts.effects("fid") for of_block in results]
    margin, pairs = families[0][0].margin, list(itertools.combinations(range(len(names)), 2))
    per_seed = [
        [_sides_at(effect, of_block.plan.seeds, seeds) for effect in family]
        for of_block, family in zip(results, families, strict=True)
    ]
    differences = [
        Comparison(effect.levels, {}, np.stack([subtract_sides(per_seed[at][i]) for at in (b, a)], axis=1))
        for i, effect in enumerate(families[0])
        for a, b in pairs
    ]
    pooled = [
        Comparison(effect.levels, {}, np.mean([of_block[i] for of_block in per_seed], axis=0))
        for i, effect in enumerate(families[0])
    ]
    by_pair = iter(estimate_family(differences, OUTCOMES["fid"], margin, intervals))
    effects = [
        BlockedEffect(
            within={name: family[i] for name, family in zip(names, families, strict=True)},
            differences={(names[b], names[a]): next(by_pair) for a, b in pairs},
            pooled=in_common,
        )
        for i, in_common in enumerate(estimate_family(pooled, OUTCOMES["fid"], margin, intervals))
    ]
    return Blocks(results, names, tuple(effects))


def _sides_at(effect: Effect, seeds: Sequence[int], wanted: Sequence[int]) -> NDArray[np.float64]:
    """Pick the rows of the wanted seeds from an effect's sides."""
    rows_of = {seed: row for row, seed in enumerate(seeds)}
    return effect.sides[[rows_of[seed] for seed in wanted]]


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
    (weights,) = (
        contrast.weights for contrast in iterate_contrasts(results.design) if contrast.levels == effect.levels
    )
    sides = (weights > 0, weights < 0)
    return frozenset(
        frozenset(variant.config.run_id for variant, counts in zip(plan.variants, side, strict=True) if counts)
        for side in sides
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
    return effect.decision != "open", effect.estimate.num_seeds, -effect.test.p


def _list_of(ranking: Ranking, results: GridResults, effect: Effect) -> list[tuple[GridResults, Effect]]:
    if results.verdicts.compares_failures(effect):
        return ranking.unknown
    if results.verdicts.varies(effect):
        return ranking.depends
    if effect.decision == "open":
        return ranking.unknown
    if effect.decision == "negligible" or effect.is_too_small:
        return ranking.indifferent
    return ranking.use if effect.decision == "lower" else ranking.avoid
