"""A design in, the comparisons that it allows out: which cells count how much, one row of weights each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from gan_ablate.analysis.designs import Design


@dataclass(frozen=True)
class Contrast:
    """A difference of cells within a seed.

    Attributes:
        levels: factor → level that is compared with the factor's baseline; two of them for an interaction.
        weights: (cells,) summing to zero.
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
    compares one cell with the baseline, and there are no interactions.
    """
    singles = _list_levels(design)
    columns = {name: np.array([cell.levels[name] for cell in design.cells]) for name in design.factors}
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
    places = {tuple(cell.levels.items()): i for i, cell in enumerate(design.cells)}
    for levels in _list_levels(design):
        ((name, level),) = levels.items()
        for cell in design.cells:
            if cell.levels[name] == level:
                weights = np.zeros(len(design.cells))
                baseline = {**cell.levels, name: design.factors[name].baseline}
                weights[places[tuple(cell.levels.items())]] = 1
                weights[places[tuple(baseline.items())]] = -1
                within = {other: at for other, at in cell.levels.items() if other != name}
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
    """Weigh cells by the product of ±1 over the compared factors, averaged over the levels of all others."""
    weights = np.ones(len(design.cells))
    for name, level in levels.items():
        baseline = design.factors[name].baseline
        weights *= (columns[name] == level).astype(np.float64) - (columns[name] == baseline)
    weights /= np.count_nonzero(weights) / 2 ** len(levels)
    return weights
