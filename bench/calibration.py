"""Simulations of the calibrated sequential test: its levels, the errors of families and of pages, and its cost.

``python -m bench.calibration`` prints the sections that ``nox -s simulations`` writes into results/statistics.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bench import command, stopping
from bench.populations import Population
from bench.sequential_simulations import MOST, Decisions, FalseVerdicts, decide, reject
from bench.stopping import ALPHA, Floats
from gan_ablate.analysis.sequential import (
    CALIBRATED_LOOKS,
    calibrated_level,
    estimate_at_looks,
)

CHUNK = 1_000
"""Families that are simulated at once, to bound memory."""


def in_chunks(num: int, simulate: Callable[[np.random.Generator, int], Floats]) -> Floats:
    """Simulate ``num`` rows in chunks of one random stream, and stack them."""
    rng = np.random.default_rng(0)
    return np.concatenate([simulate(rng, min(CHUNK, num - start)) for start in range(0, num, CHUNK)])


def sample_families(
    rng: np.random.Generator, population: Population, shape: tuple[int, int, int], truths: Floats
) -> Floats:
    """Sample paired differences, (families, seeds, effects), of standard deviation one around their true means.

    All effects of a family share the baseline's noise, as in a one-at-a-time grid: they correlate by one half.
    """
    noise = population.sample(rng, (*shape[:2], shape[2] + 1))
    if population is Population.SKEWED:  # of differences: that of two skewed numbers is not skewed
        return noise[..., 1:] + truths
    differences: Floats = (noise[..., 1:] - noise[..., :1]) / math.sqrt(2) + truths
    return differences


def levels(num: int) -> Iterator[str]:
    """Measure the error of each level by a number of looks, two-sided and of one side."""
    yield f"{num:,} sequences of normal differences. k effects share 5 %: each test has 5 % / k. The error by a look is"
    yield "multiplied by k. A test of one side asks whether an effect on the margin is said to be within."
    yield ""
    horizons = (12, 30, CALIBRATED_LOOKS, 3 * CALIBRATED_LOOKS)

    def smallest(rng: np.random.Generator, size: int) -> Floats:
        far = 1e3  # so far from the other end of the margin that only one end matters
        values = rng.standard_normal((size, horizons[-1]))
        looks, beyond = estimate_at_looks(values), estimate_at_looks(values + far, margin=far)
        pairs = [(looks.p[:, :last].min(axis=1), beyond.p_beyond[:, :last].min(axis=1)) for last in horizons]
        return np.array(pairs).transpose(2, 0, 1)

    p = in_chunks(num, smallest)
    rows = []
    for size in (1, 2, 3, 4, 5, 6, 8, 12, 20):
        alpha = ALPHA / size
        shares = [(p[:, at, side] < alpha).mean() * size for side in (0, 1) for at in range(len(horizons))]
        rows.append([size, f"{calibrated_level(alpha):.4f}", *(f"{share:.1%}" for share in shares)])
    names = [f"by look {last}" for last in horizons]
    yield from stopping.table(rows, ["k", "level", *names, *(f"one side, {name}" for name in names)])


def families(num: int) -> Iterator[str]:
    """Count the families with a false verdict at any look, up to the look for which levels are calibrated."""
    yield f"{num:,} families, looked at after every seed up to {CALIBRATED_LOOKS}, with a margin of 1 standard"
    yield "deviation. Half of the effects of *half* lie on the margin, the others are nothing. All share a baseline,"
    yield "but for the skewed population, of which the differences themselves are drawn. *As in the study* is the noise"
    yield "of log FID of its variants of which no run collapsed."
    yield ""
    rows = []
    for population in Population:
        for size in (1, 3, 6, 12):
            half: tuple[str, list[float]] = ("half", [0.0, 1.0] * size) if size > 1 else ("on the margin", [1.0])
            for name, sizes in (("nothing", [0.0] * size), half):
                truths = np.array(sizes[:size])
                shares = _family_shares(num, population, truths)
                rows.append([population.value, size, name, *(f"{x:.1%}" for x in (*shares[0], *shares[1]))])
    kinds = ("effect", "negligible", "either")
    headers = [f"by look {last}: {kind}" for last in (MOST, CALIBRATED_LOOKS) for kind in kinds]
    yield from stopping.table(rows, ["differences", "effects", "true effects", *headers])
    yield ""
    yield "A false effect and a false *negligible* are each held to 5 %, on normal and heavy-tailed differences and"
    yield "with the study's noise. Of either, which is not promised, 5 to 7 % of families have one where half of the"
    yield "effects lie exactly on the margin. Skewed differences are not held: pairing takes away the skew that two"
    yield "variants share, and that of one variant which sometimes collapses remains."


def _family_shares(num: int, population: Population, truths: Floats) -> Floats:
    def wrong(rng: np.random.Generator, size: int) -> Floats:
        decisions = decide(sample_families(rng, population, (size, CALIBRATED_LOOKS, len(truths)), truths), 1.0)
        early = Decisions(decisions.found[:, :MOST], decisions.negligible[:, :MOST])
        counts = [_as_row(part.false_verdicts(truths, 1.0)) for part in (early, decisions)]
        return np.array([counts]) * size

    total: Floats = in_chunks(num, wrong).sum(axis=0) / num
    return total


def _as_row(shares: FalseVerdicts) -> tuple[float, float, float]:
    return shares.effect, shares.negligible, shares.any


COSTS = (
    ("one effect: 0", (0.0,)),
    ("three: 0, 1, 3", (0.0, 1.0, 3.0)),
    ("six: 0, 0, 0, 0.3, 2, 4", (0.0, 0.0, 0.0, 0.3, 2.0, 4.0)),
    ("six: 0, 0.5, 1, 2, 3, 5", (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)),
    ("six: nothing", (0.0,) * 6),
)


def cost(num: int) -> Iterator[str]:
    """Count the runs that settle families, by the test before it was calibrated and by ours."""
    yield f"{num:,} one-at-a-time grids of normal differences, at most {MOST} seeds. *Before* is the same mixture at"
    yield "its nominal levels, with two-sided intervals for the margin and without a step-down for it."
    yield ""
    rows = []
    for name, sizes in COSTS:
        truths = np.array(sizes)
        for margin in (1.0, 2.0):
            values = sample_families(np.random.default_rng(0), Population.NORMAL, (num, MOST, len(sizes)), truths)
            before, ours = _decide_nominally(values, margin).is_settled, decide(values, margin).is_settled
            runs = [_count_runs(settled) for settled in (before, ours)]
            seeds = [" ".join(f"{x:.0f}" for x in np.median(_settled_at(s), axis=0)) for s in (before, ours)]
            rows.append([name, f"{margin:g}", *(f"{x:.0f}" for x in runs), f"{runs[1] / runs[0] - 1:+.0%}", *seeds])
    headers = ["true effects, standard deviations", "margin", "runs before", "runs", "change", "median seeds before"]
    yield from stopping.table(rows, [*headers, "median seeds"])


def _decide_nominally(values: Floats, margin: float) -> Decisions:
    looks = estimate_at_looks(np.moveaxis(values, 1, 2), margin=margin)
    to_level = np.vectorize(calibrated_level, otypes=[np.float64])
    p, beyond = to_level(np.maximum(looks.p, 1e-300)), to_level(np.clip(2 * looks.p_beyond, 1e-300, 1.0))
    found = reject(np.moveaxis(p, 2, 1))
    return Decisions(found, (np.moveaxis(beyond, 2, 1) < ALPHA / values.shape[2]) & ~found)


def _settled_at(is_settled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return after how many seeds each effect is settled, or all seeds: (families, effects)."""
    first: NDArray[np.int64] = is_settled.argmax(axis=1) + 1
    return np.where(is_settled.any(axis=1), first, is_settled.shape[1])


def _count_runs(is_settled: NDArray[np.bool_]) -> float:
    """Return the mean number of runs of a one-at-a-time grid: the baseline goes on while anyone needs it."""
    seeds = _settled_at(is_settled)
    return float((seeds.sum(axis=1) + seeds.max(axis=1)).mean())


NUM_GRIDS = 16
"""Grids on one front page, of three effects each."""


def pooling(num: int) -> Iterator[str]:
    """Count false decisions of a page with many grids, and what it costs to control them across grids."""
    yield f"{num:,} pages of {NUM_GRIDS} grids of three effects, which all share a baseline; a margin of 1 standard"
    yield f"deviation, at most {MOST} seeds. Each effect stops when it is settled. Nothing adjusts across grids, so"
    yield f"that a page has at most {NUM_GRIDS * ALPHA:g} false directions on average. Two ways to control them were"
    yield "tried. *e-BH* keeps the effects found whose E is large among all of the page, with at most 5 % false ones"
    yield "(Wang and Ramdas, Journal of the Royal Statistical Society B 84, 2022). It loses most, as each E is just"
    yield "large enough where its effect stops. *All one family* tests every effect at Bonferroni's level for the page,"
    yield "and takes more runs."
    yield ""
    rows = []
    for name, kinds in (("all nothing", (0.0,)), ("half nothing", (0.0, 0.0, 1.0, 3.0)), ("all large", (2.0, 4.0))):
        truths = np.resize(np.array(kinds), 3 * NUM_GRIDS)
        found, false, kept, runs, runs_together = in_chunks(num, functools.partial(_pool, truths=truths)).T
        row = [name, f"{found.mean():.1f}", f"{false.mean():.2f}", f"{(false > 0).mean():.0%}"]
        lost = 1 - kept.sum() / max(found.sum(), 1)
        rows.append([*row, f"{lost:.0%}", f"{runs_together.sum() / runs.sum() - 1:+.0%}"])
    headers = ["true effects", "found", "false ones", "pages with one", "lost by e-BH", "runs as one family"]
    yield from stopping.table(rows, headers)


def _pool(rng: np.random.Generator, size: int, truths: Floats) -> Floats:
    """Return for each page: effects found, false ones, those that e-BH keeps, runs, and runs if it were one family."""
    values = sample_families(rng, Population.NORMAL, (size, MOST, len(truths)), truths)
    parts = [decide(values[..., columns], 1.0) for columns in np.array_split(np.arange(len(truths)), NUM_GRIDS)]
    stop = _settled_at(np.concatenate([part.is_settled for part in parts], axis=2))
    every = np.concatenate([part.found for part in parts], axis=2)
    found = np.take_along_axis(every, stop[:, None, :] - 1, axis=1)[:, 0]
    looks = estimate_at_looks(np.moveaxis(values, 1, 2), margin=1.0)
    e_values = 1 / np.vectorize(calibrated_level, otypes=[np.float64])(
        np.take_along_axis(looks.p, stop[:, :, None] - 1, 2)
    )
    is_settled = (looks.p < ALPHA / len(truths)) | (looks.p_beyond < ALPHA / len(truths))
    runs_together = _settled_at(np.moveaxis(is_settled, 2, 1)).sum(axis=1)
    kept = _keep_by_e_bh(e_values[..., 0]) & found
    columns = [x.sum(axis=1) for x in (found, found & (truths == 0), kept, stop)]
    return np.stack([*columns, runs_together], axis=1).astype(np.float64)


def _keep_by_e_bh(e_values: Floats) -> NDArray[np.bool_]:
    """Keep the k largest of m e-values, (pages, m), for the largest k whose smallest is at least m / (k · 5 %)."""
    num = e_values.shape[1]
    ranked = -np.sort(-e_values, axis=1)
    is_enough = ranked >= num / (np.arange(1, num + 1) * ALPHA)
    limits = np.where(is_enough, ranked, np.inf).min(axis=1)
    kept: NDArray[np.bool_] = e_values >= limits[:, None]
    return kept


SECTIONS = {
    "levels": ("Calibrated levels", levels, 25),
    "families": ("Families, up to the hundredth look", families, 1),
    "cost": ("What calibrated levels save", cost, 1),
    "pooling": ("Many grids on one page", pooling, 0.5),
    "inflation": ("Estimates at the stop", stopping.inflation, 5),
    "needed": ("The range of seeds that would tell", stopping.needed, 0.05),
    "depends": ("Depends", stopping.depends, 1),
}
"""Name → title, simulation, and its repetitions as a multiple of those asked for."""


def page(num_repetitions: int, only: str | None = None) -> list[str]:
    """Run the simulations and write their part of the page."""
    lines: list[str] = []
    for name, (title, section, times) in SECTIONS.items():
        if only in (None, name):
            lines += [f"## {title}", "", f"Command: `python -m bench.calibration --only {name}`.", ""]
            lines += [*section(int(num_repetitions * times)), ""]
    return lines


def main(
    *,
    repetitions: Annotated[int, typer.Option(help="Simulations of a row; some sections take more or fewer.")] = 4_000,
    only: Annotated[str | None, typer.Option(help=f"One section: {', '.join(SECTIONS)}.")] = None,
) -> None:
    """Simulate the calibrated sequential test."""
    print("\n".join(page(repetitions, only)))


if __name__ == "__main__":
    command.run(main)
