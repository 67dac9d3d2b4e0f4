"""Count the seeds that certainty costs, from many finished seeds of a grid: ``nox -s certainty`` writes the page.

Studies are sampled with replacement from the trained seeds, and compared in three ways: with other seeds for every
variant, as tutorials do, or shared seeds, both for a fixed number of seeds; or with shared seeds, added one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from scipy import stats
from tabulate import tabulate

from bench import command
from gan_ablate.analysis.design import Contrast, iterate_contrasts, iterate_simple_contrasts
from gan_ablate.analysis.effects import name_levels
from gan_ablate.analysis.estimates import CONFIDENCE
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.sequential import estimate_at_looks
from gan_ablate.analysis.tests import POWER, margin_alpha
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.outcomes import percent_change
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_SEEDS = 200
NUM_STUDIES = 2_000
MIN_SEEDS = 10
"""The fewest trained seeds from which studies are sampled."""


@dataclass(frozen=True)
class Cost:
    """The seeds of every variant that settle studies of each kind; None where ``MOST_SEEDS`` are not enough."""

    unpaired: int | None
    paired: int | None
    sequential: int | None


def main(
    *,
    grid: Annotated[str, typer.Option(help="A grid of which many seeds are finished.")] = "bn_label_smooth",
    out: Annotated[Path, typer.Option(help="The results folder.")] = Path("results/study"),
    studies: Annotated[int, typer.Option(help="Studies that are drawn.")] = NUM_STUDIES,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = Path("results/certainty.md"),
) -> None:
    """Count what certainty costs, paired or not, sequential or not."""
    results = GridResults.load(Store(out), grid)
    write_atomically(to, "\n".join(_page(results, studies)).rstrip() + "\n")


def _page(results: GridResults, num_studies: int) -> list[str]:
    plan = results.plan
    runs = results.comparable.runs
    by_seed = runs.pivot_table(index="seed", columns="variant", values="fid").reindex(columns=results.labels)
    scores = np.log(by_seed.to_numpy(np.float64))
    scores = scores[np.isfinite(scores).all(axis=1)]
    if len(scores) < MIN_SEEDS:
        raise UserError(f"{results.folder}: {len(scores)} seeds with all variants; valid: at least {MIN_SEEDS}")
    minutes = runs.groupby("variant")["train_sec"].median().reindex(results.labels).to_numpy(np.float64) / 60
    margin, steps = plan.grid.log_margin, plan.baseline.config.steps
    lines = [
        "# What certainty costs",
        "",
        f"`nox -s certainty` wrote this page from {len(scores)} seeds of `{results.name}`, of {steps:,} steps each:",
        f"{num_studies:,} studies of each kind, drawn from them with replacement.",
        EXPLANATION,
        "",
    ]
    for title, contrasts in (
        ("Main effects and interactions", list(iterate_contrasts(results.design))),
        ("Level by level", list(iterate_simple_contrasts(results.design))),
    ):
        if contrasts:
            lines += [f"## {title}", "", *_table(contrasts, scores, minutes, margin, num_studies), ""]
    return lines


EXPLANATION = f"""\
A study is settled when the interval of an effect, at Bonferroni's level for all effects of its table, excludes zero, or
when the one of the tests of the margin lies within it. All numbers of seeds are those with which {POWER:.0%} of studies
are settled; where they are fixed, that is the cheapest number, which nobody can know beforehand. Runs are those of all
variants that the effect compares, core-minutes their training on the machine that computed them."""


def _table(
    contrasts: Sequence[Contrast],
    scores: NDArray[np.float64],
    minutes: NDArray[np.float64],
    margin: float,
    num_studies: int,
) -> list[str]:
    rows = []
    for contrast in contrasts:
        counts = contrast.weights != 0
        cost = settle_studies(scores, contrast.weights, margin, len(contrasts), num_studies)
        differences = scores @ contrast.weights
        row = [
            name_levels(contrast.levels) + (f", with {name_levels(contrast.within, ', ')}" if contrast.within else ""),
            f"{percent_change(differences.mean()):+.1f} %",
            f"{percent_change(differences.std(ddof=1)):.1f} %",
        ]
        row += [_bill(seeds, minutes[counts]) for seeds in (cost.unpaired, cost.paired, cost.sequential)]
        row.append("–" if not (cost.unpaired and cost.sequential) else f"×{cost.unpaired / cost.sequential:.1f}")
        rows.append(row)
    headers = [
        "effect", "change of FID", "spread of a paired difference", "unpaired, fixed: seeds", "paired, fixed",
        "paired, one by one", "unpaired over ours",
    ]  # fmt: skip
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True).splitlines()


def _bill(seeds: int | None, minutes: NDArray[np.float64]) -> str:
    """Write seeds and runs, and core-minutes where the times of all variants are known."""
    if seeds is None:
        return f"> {MOST_SEEDS}"
    spent = seeds * float(minutes.sum())
    return f"{seeds}: {seeds * len(minutes):,} runs" + (f", {spent:,.0f} min" if math.isfinite(spent) else "")


def settle_studies(
    scores: NDArray[np.float64], weights: NDArray[np.float64], margin: float, num_tests: int, num_studies: int
) -> Cost:
    """Sample studies of a contrast and count the seeds that settle them.

    Args:
        scores: (seeds, variants) log scores, none missing.
        weights: (variants,) of the contrast.
        margin: within which it is negligible.
        num_tests: effects in its family.
        num_studies: how many are sampled.
    """
    counts = weights != 0
    values, weights = scores[:, counts], weights[counts]
    rng = np.random.default_rng(0)
    shared = (values @ weights)[rng.integers(0, len(values), (num_studies, MOST_SEEDS))]
    own = [values[rng.integers(0, len(values), (num_studies, MOST_SEEDS)), i] for i in range(len(weights))]
    nums = np.arange(2, MOST_SEEDS + 1)
    confidence = 1 - (1 - CONFIDENCE) / num_tests

    means, variances = _running(shared)
    # A seed that is sampled twice in a row has no spread, which shows nothing.
    errors = np.where(variances > 0, np.sqrt(variances / nums), np.inf)
    levels = (confidence, 1 - margin_alpha(1 - confidence))
    paired = _is_settled(means, [stats.t.ppf((1 + level) / 2, nums - 1) * errors for level in levels], margin)

    parts = [_running(column) for column in own]
    means_own = sum(weight * mean for weight, (mean, _) in zip(weights, parts, strict=True))
    shares = [weight**2 * variance / nums for weight, (_, variance) in zip(weights, parts, strict=True)]
    total = np.maximum(sum(shares), 1e-300)
    # Welch (1947) for a sum of several means.
    freedom = total**2 / np.maximum(sum(share**2 for share in shares) / (nums - 1), 1e-300)
    halves = [stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(total) for level in levels]
    unpaired = _is_settled(means_own, halves, margin)

    firsts = [_first_settled(study, confidence, margin) for study in shared]
    enough = math.ceil(float(np.quantile(firsts, POWER)))
    return Cost(_smallest(unpaired, nums), _smallest(paired, nums), None if enough > MOST_SEEDS else enough)


def _first_settled(study: NDArray[np.float64], confidence: float, margin: float) -> int:
    """Return after how many seeds a sequential study is settled, or one more than it has if it never is."""
    looks, alpha = estimate_at_looks(study, margin=margin), 1 - confidence
    settled = (looks.p < alpha) | (looks.p_beyond < margin_alpha(alpha) / 2)
    return int(settled.argmax()) + 1 if settled.any() else len(study) + 1


def _running(draws: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means and variances of the first two, three, … seeds of every study, each (studies, seeds - 1)."""
    nums = np.arange(1, draws.shape[1] + 1)
    origin = draws[:, :1]
    sums, squares = (draws - origin).cumsum(axis=1), ((draws - origin) ** 2).cumsum(axis=1)
    means = sums / nums
    variances = np.maximum(squares - nums * means**2, 0) / np.maximum(nums - 1, 1)
    return (means + origin)[:, 1:], variances[:, 1:]


def _is_settled(means: NDArray[np.float64], halves: Sequence[NDArray[np.float64]], margin: float) -> NDArray[np.bool_]:
    """Say which intervals exclude zero, of the first half width, or lie within the margin, of the second."""
    return (np.abs(means) > halves[0]) | (np.abs(means) + halves[1] < margin)


def _smallest(settled: NDArray[np.bool_], nums: NDArray[np.int64]) -> int | None:
    """Return the fewest seeds that settle a study with chance ``POWER``; None where no number does."""
    is_enough = settled.mean(axis=0) >= POWER
    return int(nums[is_enough.argmax()]) if is_enough.any() else None


if __name__ == "__main__":
    command.run(main)
