"""The design of an experiment: its variants, and the contrasts between them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gan_ablate.design.claims import DesignKind, Factor
    from gan_ablate.design.plan import Intervals, Plan


@dataclass(frozen=True)
class Design:
    """What is compared: of one block of a grid, or of a user's table of runs.

    Attributes:
        factors: name → what is varied: the levels, and which of them is the baseline.
        kind: whether all factors are crossed, or each level is compared with the one baseline.
        variants: label → a level for every factor; the baseline comes first.
        seeds: in the order in which they were added.
        intervals: whether the number of seeds was fixed beforehand.
        log_margin: the log ratio within ± which an effect is negligible.
    """

    factors: dict[str, Factor]
    kind: DesignKind
    variants: dict[str, dict[str, str]]
    seeds: tuple[int, ...]
    intervals: Intervals
    log_margin: float

    @classmethod
    def of(cls, plan: Plan) -> Design:
        """Return the design of a plan of one block."""
        return cls(
            factors=plan.grid.factors,
            kind=plan.grid.design,
            variants={variant.label: variant.levels for variant in plan.variants},
            seeds=plan.seeds,
            intervals=plan.intervals,
            log_margin=plan.grid.log_margin,
        )


@dataclass(frozen=True)
class Contrast:
    """A difference of variants within a seed.

    Attributes:
        levels: factor → the level that is compared with its baseline; an interaction has two.
        weights: (variants,) summing to zero.
        within: factor → the level at which it is held, for a simple effect; empty for an average over all levels.
    """

    levels: dict[str, str]
    weights: NDArray[np.float64]
    within: dict[str, str] = field(default_factory=dict)


def iterate_contrasts(design: Design) -> Iterator[Contrast]:
    """Yield main effects, then two-way interactions: the weights of all at once may not fit into memory.

    In a factorial design a main effect is averaged over the levels of the other factors. In a one-at-a-time design it
    compares one variant with the baseline, and there are no interactions.
    """
    singles = _list_levels(design)
    columns = {name: np.array([levels[name] for levels in design.variants.values()]) for name in design.factors}
    match design.kind:
        case "one-at-a-time":
            for single in singles:
                ((name, level),) = single.items()
                weights = (columns[name] == level).astype(np.float64)
                weights[0] = -1
                yield Contrast(single, weights)
        case "factorial":
            pairs = (a | b for a, b in itertools.combinations(singles, 2) if a.keys() != b.keys())
            for levels in itertools.chain(singles, pairs):
                yield Contrast(levels, _factorial_weights(design, columns, levels))
        case _:
            assert_never(design.kind)


def iterate_simple_contrasts(design: Design) -> Iterator[Contrast]:
    """Yield each level's effect at every combination of the other factors' levels.

    Only a factorial design of several factors has simple effects.
    """
    if design.kind != "factorial" or len(design.factors) == 1:
        return
    positions = {tuple(levels.items()): i for i, levels in enumerate(design.variants.values())}
    for single in _list_levels(design):
        ((name, level),) = single.items()
        for levels in design.variants.values():
            if levels[name] == level:
                weights = np.zeros(len(design.variants))
                baseline = levels | {name: design.factors[name].baseline}
                weights[positions[tuple(levels.items())]] = 1
                weights[positions[tuple(baseline.items())]] = -1
                yield Contrast(single, weights, {other: at for other, at in levels.items() if other != name})


def _list_levels(design: Design) -> list[dict[str, str]]:
    """List all levels but the baselines, each as factor → level."""
    return [
        {name: level} for name, factor in design.factors.items() for level in factor.levels if level != factor.baseline
    ]


def _factorial_weights(
    design: Design, columns: dict[str, NDArray[np.str_]], levels: dict[str, str]
) -> NDArray[np.float64]:
    """Weigh variants by the product of ±1 over the compared factors, averaged over the levels of all others."""
    weights = np.ones(len(design.variants))
    for name, level in levels.items():
        baseline = design.factors[name].baseline
        weights *= (columns[name] == level).astype(np.float64) - (columns[name] == baseline)
    weights /= np.count_nonzero(weights) / 2 ** len(levels)
    return weights
