"""Simulations of what is said of effects when seeds stop: estimates, the range of needed seeds, and "depends"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from bench.sequential_simulations import MOST, decide
from gan_ablate.analysis.estimates import CONFIDENCE, Estimate, mean_estimate
from gan_ablate.analysis.sequential import estimate_at_looks, seeds_to_settle, settling_range
from gan_ablate.analysis.tests import margin_alpha

ALPHA = 1 - CONFIDENCE

Floats = NDArray[np.float64]


def inflation(num: int) -> Iterator[str]:
    """Measure how much too large an effect is estimated at the look that finds it."""
    yield f"{num:,} sequences of normal differences of an effect that is one of three, with a margin of 1 standard"
    yield "deviation. The factor is the mean size of the estimate at the look that finds the effect, over the"
    yield "true size."
    yield ""
    rows = []
    for truth in (0.25, 0.5, 1.0, 1.5, 2.0, 3.0):
        values = np.random.default_rng(0).standard_normal((num, MOST)) + truth
        looks = estimate_at_looks(values, margin=1.0)
        found, within = looks.p < ALPHA / 3, looks.p_beyond < ALPHA / 3
        stop = (found | within).argmax(axis=1)
        means = np.abs(values.cumsum(axis=1) / np.arange(1, MOST + 1))[np.arange(num), stop]
        row = [f"{truth:g}"]
        for last in (12, MOST):
            is_found = found[np.arange(num), stop] & (stop < last)
            row += [f"{is_found.mean():.0%}", f"{means[is_found].mean() / truth:.2f}"]
        rows.append(row)
    headers = ["true effect, standard deviations"]
    headers += [f"{name} {last} seeds" for last in (12, MOST) for name in ("found within", "factor within")]
    yield from table(rows, headers)


def needed(num: int) -> Iterator[str]:
    """Measure how often the range of needed seeds holds the number of the true effect."""
    yield f"{num:,} inconclusive effects of each kind, of a family of three, with a margin of 1 standard deviation. The"
    yield "range is meant to hold the right number, that of the true effect and spread, in about 80 % of cases."
    yield ""
    confidence, rows = 1 - ALPHA / 3, []
    for truth in (0.0, 0.3, 0.6, 1.0, 1.5):
        right = seeds_to_settle(Estimate(truth, 0, 0, 5, std=1.0), 1.0, confidence)
        assert right is not None
        row = [f"{truth:g}", str(right)]
        for seeds in (5, 8, 12):
            row += _range_texts(truth, seeds, right, confidence, num) if seeds < right else ["–", "–"]
        rows.append(row)
    names = [f"{seeds} seeds: {name}" for seeds in (5, 8, 12) for name in ("held", "median range")]
    yield from table(rows, ["true effect, standard deviations", "right", *names])


def _range_texts(truth: float, num_seeds: int, right: int, confidence: float, num: int) -> list[str]:
    rng, ranges = np.random.default_rng(0), list[tuple[float, float]]()
    while len(ranges) < num:
        values = rng.standard_normal(num_seeds) + truth
        looks = estimate_at_looks(values, margin=1.0)
        likely = settling_range(mean_estimate(values), 1.0, confidence)
        if looks.p[-1] >= ALPHA / 3 and looks.p_beyond[-1] >= margin_alpha(ALPHA / 3) / 2 and likely is not None:
            ranges.append((likely[0], math.inf if likely[1] is None else likely[1]))
    low, high = np.array(ranges).T
    share = ((low <= right) & (right <= high)).mean()
    return [f"{share:.0%}", f"{np.median(low):.0f} to {np.median(high):.0f}"]


def depends(num: int) -> Iterator[str]:
    """Count how often a factor's effect is said to depend on another one, with and without an interaction."""
    yield f"{num:,} factorial grids of two factors of two levels, 12 seeds, a spread of 0.1 of a variant's log FID, and"
    yield "a margin of 10 %. An effect is said to depend where the interaction is found, larger than the margin, and"
    yield "its simple effects have no decision in common."
    yield ""
    rows = []
    margin = math.log(1.1)
    for size in (0.0, 1.0, 3.0):
        row = [f"{size:g}"]
        for interaction in (0.0, 0.5, 1.0, 2.0, 4.0):
            rng = np.random.default_rng(0)
            cells = rng.normal(0, 0.1, (num, 12, 2, 2))
            cells[..., 1, :] += size * margin
            cells[..., 1, 1] += interaction * margin
            row.append(f"{_share_said_to_depend(cells, margin):.1%}")
        rows.append(row)
    headers = [f"interaction of {size:g} margins" for size in (0, 0.5, 1, 2, 4)]
    yield from table(rows, ["effect without the other factor, margins", *headers])


def _share_said_to_depend(cells: Floats, margin: float) -> float:
    """Return the share of grids, (grids, seeds, 2, 2), in which the first factor's effect is said to depend."""
    first, second = cells[..., 1, :] - cells[..., 0, :], cells[..., 1] - cells[..., 0]
    mains = np.stack([first.mean(axis=-1), second.mean(axis=-1), first[..., 1] - first[..., 0]], axis=-1)
    interacts = decide(mains, margin).found[:, -1, 2] & (np.abs(mains[..., 2].mean(axis=1)) > margin)
    simple = decide(np.concatenate([first, second], axis=-1), margin)
    signs = np.sign(first.mean(axis=1))
    decisions = np.where(simple.found[:, -1, :2], signs, np.where(simple.negligible[:, -1, :2], 0.0, 2.0))
    return float((interacts & ((decisions[:, 0] != decisions[:, 1]) | (decisions[:, 0] == 2.0))).mean())


def table(rows: Sequence[Sequence[object]], headers: list[str]) -> list[str]:
    """Write a Markdown table, line by line."""
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True).splitlines()
