"""The design of a grid or of a user's table: its variants, their contrasts, and the relative efficiency of pairing."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, assert_never

import numpy as np
from scipy import stats

from gan_ablate.analysis.estimates import CONFIDENCE, Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from gan_ablate.design.claims import DesignKind, Factor
    from gan_ablate.design.plan import Intervals


class VariantProtocol(Protocol):
    """One variant of a design."""

    @property
    def label(self) -> str:
        """What the table's column ``variant`` calls it."""

    @property
    def levels(self) -> dict[str, str]:
        """A level for every factor."""


class Design(Protocol):
    """A plan, or what a table of others' runs shows of one."""

    @property
    def factors(self) -> Mapping[str, Factor]:
        """What is varied, with the levels and which of them is the baseline."""

    @property
    def kind(self) -> DesignKind:
        """Whether all factors are crossed, or each level is compared with the one baseline."""

    @property
    def variants(self) -> Sequence[VariantProtocol]:
        """The variants, the baseline first."""

    @property
    def seeds(self) -> Sequence[int]:
        """In the order in which they came."""

    @property
    def intervals(self) -> Intervals:
        """Whether the number of seeds was settled beforehand."""

    @property
    def log_margin(self) -> float:
        """The log ratio within ± which an effect is negligible."""


@dataclass(frozen=True)
class Contrast:
    """A difference of variants within a seed.

    Attributes:
        levels: factor → level that is compared with the factor's baseline; two of them for an interaction.
        weights: (variants,) summing to zero.
        within: factor → level at which all others stand still, for a simple effect; empty for an average over them.
    """

    levels: dict[str, str]
    weights: NDArray[np.float64]
    within: dict[str, str] = field(default_factory=dict)


def list_contrasts(design: Design) -> list[Contrast]:
    """List main effects, then two-way interactions; see ``iterate_contrasts``."""
    return list(iterate_contrasts(design))


def iterate_contrasts(design: Design) -> Iterator[Contrast]:
    """Yield main effects, then two-way interactions: the weights of all at once may not fit into memory.

    In a factorial design a main effect is averaged over the levels of the other factors; in a one-at-a-time design it
    compares one variant with the baseline, and there are no interactions.
    """
    singles = _list_levels(design)
    columns = {name: np.array([variant.levels[name] for variant in design.variants]) for name in design.factors}
    match design.kind:
        case "one-at-a-time":
            yield from (Contrast(single, _weights_from_baseline(columns, single)) for single in singles)
        case "factorial":
            of_factors = [[single for single in singles if name in single] for name in design.factors]
            pairs = (
                {**first, **second}
                for place, of_factor in enumerate(of_factors, 1)
                for first in of_factor
                for second in itertools.chain.from_iterable(of_factors[place:])
            )
            for levels in itertools.chain(singles, pairs):
                yield Contrast(levels, _factorial_weights(design, columns, levels))
        case _:
            assert_never(design.kind)


def list_simple_contrasts(design: Design) -> list[Contrast]:
    """List each level's effect at every combination of the other factors' levels; none but in factorial designs."""
    return list(iterate_simple_contrasts(design))


def iterate_simple_contrasts(design: Design) -> Iterator[Contrast]:
    """Yield what ``list_simple_contrasts`` lists, one at a time."""
    if design.kind != "factorial" or len(design.factors) == 1:
        return
    places = {tuple(variant.levels.items()): i for i, variant in enumerate(design.variants)}
    for levels in _list_levels(design):
        ((name, level),) = levels.items()
        for variant in design.variants:
            if variant.levels[name] == level:
                weights = np.zeros(len(design.variants))
                baseline = {**variant.levels, name: design.factors[name].baseline}
                weights[places[tuple(variant.levels.items())]] = 1
                weights[places[tuple(baseline.items())]] = -1
                within = {other: at for other, at in variant.levels.items() if other != name}
                yield Contrast(levels, weights, within)


def _list_levels(design: Design) -> list[dict[str, str]]:
    return [
        {name: level} for name, factor in design.factors.items() for level in factor.levels if level != factor.baseline
    ]


def _weights_from_baseline(columns: Mapping[str, NDArray[np.str_]], levels: dict[str, str]) -> NDArray[np.float64]:
    ((name, level),) = levels.items()
    weights: NDArray[np.float64] = np.asarray(columns[name] == level, np.float64)
    weights[0] = -1
    return weights


def _factorial_weights(
    design: Design, columns: Mapping[str, NDArray[np.str_]], levels: dict[str, str]
) -> NDArray[np.float64]:
    """Weigh variants by the product of ±1 over the compared factors, averaged over the levels of all others."""
    weights = np.ones(len(design.variants))
    for name, level in levels.items():
        baseline = design.factors[name].baseline
        weights *= (columns[name] == level).astype(np.float64) - (columns[name] == baseline)
    weights /= np.count_nonzero(weights) / 2 ** len(levels)
    return weights


MIN_PAIRED_SEEDS = 4
"""With fewer, the interval leaves everything possible."""


def pairing_gain(sides: NDArray[np.float64], confidence: float = CONFIDENCE) -> Estimate:
    """Estimate the relative efficiency of pairing: the variance of an unpaired over that of a paired difference.

    Let A and B be the sides, means of the variants that are compared. Over seeds of their own the variance of A - B is
    Var A + Var B, over shared ones Var(A - B): what a seed does to both alike cancels. The ratio is how many times as
    many seeds the same certainty would have taken. It is (1 + Var(A + B) / Var(A - B)) / 2, and the interval of a ratio
    of two correlated normal variances is exact (Morgan, "A test for the significance of the difference between the two
    variances in a sample from a normal bivariate population", Biometrika 31, 1939).

    Args:
        sides: (seeds, 2) A and B; a seed with a NaN is left out.
        confidence: of the interval, in (0, 1).

    Returns:
        The ratio, above 1 where pairing pays; NaN where there are fewer than ``MIN_PAIRED_SEEDS`` seeds or no spread.
    """
    sides = sides[np.isfinite(sides).all(axis=1)]
    num = len(sides)
    if num < MIN_PAIRED_SEEDS:
        return Estimate(math.nan, math.nan, math.nan, num)
    treated, control = sides.T
    (summed, shared), (_, paired) = np.cov(treated + control, treated - control)
    if not (summed > 0 and paired > 1e-20 * summed):  # equal to rounding in every seed
        return Estimate(math.nan, math.nan, math.nan, num)
    t = float(stats.t.ppf((1 + confidence) / 2, num - 2))
    width = 1 + 2 * (1 - shared**2 / (summed * paired)) * t**2 / (num - 2)
    root = math.sqrt(max(width**2 - 1, 0.0))
    value, low, high = (float(1 + summed / paired * factor) / 2 for factor in (1.0, width - root, width + root))
    return Estimate(value, low, high, num)
