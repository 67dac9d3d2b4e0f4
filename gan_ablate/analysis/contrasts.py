"""A design in, the comparisons that it allows out: which cells count how much, one row of weights each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

import numpy as np

if TYPE_CHECKING:
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
    """List main effects, then two-way interactions.

    In a factorial design a main effect is averaged over the levels of the other factors; in a one-at-a-time design it
    compares one cell with the baseline, and there are no interactions.
    """
    singles = _list_levels(design)
    match design.kind:
        case "one-at-a-time":
            return [Contrast(single, _weights_from_baseline(design, single)) for single in singles]
        case "factorial":
            pairs = [{**a, **b} for a, b in itertools.combinations(singles, 2) if a.keys() != b.keys()]
            return [Contrast(levels, _factorial_weights(design, levels)) for levels in (*singles, *pairs)]
        case _:
            assert_never(design.kind)


def list_simple_contrasts(design: Design) -> list[Contrast]:
    """List each level's effect at every combination of the other factors' levels; none but in factorial designs."""
    if design.kind != "factorial" or len(design.factors) == 1:
        return []
    contrasts = []
    for levels in _list_levels(design):
        ((name, level),) = levels.items()
        places = {tuple(cell.levels.items()): i for i, cell in enumerate(design.cells)}
        for cell in design.cells:
            if cell.levels[name] == level:
                weights = np.zeros(len(design.cells))
                baseline = {**cell.levels, name: design.factors[name].baseline}
                weights[places[tuple(cell.levels.items())]] = 1
                weights[places[tuple(baseline.items())]] = -1
                within = {other: at for other, at in cell.levels.items() if other != name}
                contrasts.append(Contrast(levels, weights, within))
    return contrasts


def _list_levels(design: Design) -> list[dict[str, str]]:
    return [
        {name: level} for name, factor in design.factors.items() for level in factor.levels if level != factor.baseline
    ]


def _weights_from_baseline(design: Design, levels: dict[str, str]) -> NDArray[np.float64]:
    ((name, level),) = levels.items()
    weights = np.array([cell.levels[name] == level for cell in design.cells], np.float64)
    weights[0] = -1
    return weights


def _factorial_weights(design: Design, levels: dict[str, str]) -> NDArray[np.float64]:
    """Weigh cells by the product of ±1 over the compared factors, averaged over the levels of all others."""
    weights = np.ones(len(design.cells))
    for name, level in levels.items():
        baseline = design.factors[name].baseline
        sign = {level: 1.0, baseline: -1.0}
        weights *= [sign.get(cell.levels[name], 0.0) for cell in design.cells]
    weights /= np.count_nonzero(weights) / 2 ** len(levels)
    return weights
