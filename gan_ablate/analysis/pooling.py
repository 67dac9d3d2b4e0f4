"""Pooling: compare and pool a grid's effects across blocks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from gan_ablate.analysis.estimates import subtract_sides
from gan_ablate.analysis.families import Comparison, estimate_effects, estimate_family
from gan_ablate.analysis.pairing import SHARED_ENOUGH, Unpaired
from gan_ablate.analysis.table import tabulate_effect
from gan_ablate.design.plan import name_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.analysis.user_table import Table
    from gan_ablate.design.outcomes import Outcome
    from gan_ablate.design.plan import Intervals


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
