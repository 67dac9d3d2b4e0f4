"""Simulations of sequential analysis: false verdicts at any look, and the seeds until effects are settled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from tabulate import tabulate

from bench.populations import Population
from gan_ablate.analysis.estimates import CONFIDENCE, Estimate, mean_estimate
from gan_ablate.analysis.sequential import PRIOR_SEEDS, estimate_at_looks
from gan_ablate.analysis.tests import holm, margin_p, seeds_needed

MOST = 30
FAMILY = 6
MARGIN_STD = 1.0
"""The margin of the family's simulations, in standard deviations of a paired difference."""

FIXED = """\
False is: an effect where there is none, and *negligible* or *too small to matter* where it is as large as the margin.
Each of the two is held to 5 % in a whole family; of either, that is not promised."""

FALSE_VERDICTS = f"""\
The margin is {MARGIN_STD:.0f} standard deviation of a paired difference. A verdict is false if it calls nothing an
effect, or an effect on the margin or beyond it negligible. Each of the two is held to 5 % in a whole family, as with a
fixed number of seeds; of either, that is not promised. Beside it, what Student's intervals, with Bonferroni's
adjustment, would have said at any look from the third seed on."""

SEEDS = """\
Median seeds at which an effect is settled, for margins of 5, 10 and 20 %. Beside it, the fixed number of seeds that
settles it with a chance of 80 %, which nobody knows beforehand. An effect about as large as the margin takes longest:
it is neither negligible nor large."""

CHOICE = """\
Of 0.1, 0.3, 1 and 3 it settles effects of one to five standard deviations earliest on the whole. Pocock's constant
bounds for thirty looks, at an error of 5 % on normal differences, would settle an effect of one standard deviation
about two seeds of twelve earlier, but they hold for thirty looks and no more."""


@dataclass(frozen=True)
class Decisions:
    """The decisions on families of effects at every look, each (families, looks, effects) of booleans."""

    found: NDArray[np.bool_]
    negligible: NDArray[np.bool_]

    @property
    def is_settled(self) -> NDArray[np.bool_]:
        """Whether an effect is found or negligible at a look."""
        return self.found | self.negligible

    def false_verdicts(self, truths: NDArray[np.float64], margin: float) -> FalseVerdicts:
        """Count the families with a false verdict at any look.

        Args:
            truths: (effects,) the true means.
            margin: within which an effect is negligible; one on it or beyond it is not.
        """
        effect = (self.found & (truths == 0)).any(axis=(1, 2))
        negligible = (self.negligible & (abs(truths) >= margin)).any(axis=(1, 2))
        return FalseVerdicts(float(effect.mean()), float(negligible.mean()), float((effect | negligible).mean()))


def decide(values: NDArray[np.float64], margin: float) -> Decisions:
    """Decide on families of effects at every look, as the report does.

    Args:
        values: (families, seeds, effects) paired differences.
        margin: of every effect.
    """
    looks = estimate_at_looks(np.moveaxis(values, 1, 2), margin=margin)
    found = reject(np.moveaxis(looks.p, 2, 1))
    return Decisions(found, reject(np.moveaxis(looks.p_beyond, 2, 1), fewest=2) & ~found)


def reject(p_values: NDArray[np.float64], fewest: int = 1) -> NDArray[np.bool_]:
    """Test families by Holm's procedure, many at once: (..., effects) p-values → which are rejected."""
    num = p_values.shape[-1]
    order = p_values.argsort(axis=-1)
    levels = (1 - CONFIDENCE) / np.maximum(fewest, num - np.arange(num))
    is_rejected = np.logical_and.accumulate(np.take_along_axis(p_values, order, -1) < levels, axis=-1)
    found = np.zeros_like(is_rejected)
    np.put_along_axis(found, order, is_rejected, -1)
    return found


def false_verdicts(
    population: Population, truths: NDArray[np.float64], margin: float, num_repetitions: int, most: int = MOST
) -> tuple[FalseVerdicts, float]:
    """Count the families with a false verdict at any look, by the sequential test and by Student's t.

    Args:
        population: of the differences, of standard deviation one.
        truths: (effects,) the true means.
        margin: within which an effect is negligible.
        num_repetitions: how many families.
        most: the number of looks.
    """
    rng = np.random.default_rng(0)
    values = population.sample(rng, (num_repetitions, most, len(truths))) + truths
    naive = np.mean([_is_ever_wrong_by_t(family, truths, margin) for family in values[:, :MOST]])
    return decide(values, margin).false_verdicts(truths, margin), float(naive)


def _is_ever_wrong_by_t(values: NDArray[np.float64], truths: NDArray[np.float64], margin: float) -> bool:
    """Return whether Bonferroni's intervals for a fixed number of seeds are false at any look from the third on."""
    nums = np.arange(3, MOST + 1)[:, None]
    means = values.cumsum(axis=0)[2:] / nums
    stds = np.stack([values[:num].std(axis=0, ddof=1) for num in nums[:, 0]])
    half = scipy_stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / len(truths), nums - 1) * stds / np.sqrt(nums)
    found, negligible = np.abs(means) > half, np.abs(means) + half < margin
    return bool((found & (truths == 0)).any() or (negligible & (abs(truths) >= margin)).any())


@dataclass(frozen=True)
class FalseVerdicts:
    """Shares of families with a false verdict: a false effect, a false negligible effect, or either."""

    effect: float
    negligible: float
    any: float


def false_verdicts_of_fixed(
    num_seeds: int, truths: NDArray[np.float64], margin: float, num_repetitions: int
) -> FalseVerdicts:
    """Count false verdicts by Student's t for a fixed number of seeds.

    "Real, and too small to matter" of an effect on the margin or beyond it is a false "negligible".

    Args:
        num_seeds: of each family.
        truths: (effects,) the true means, of normal differences of standard deviation one.
        margin: within which an effect is negligible.
        num_repetitions: how many families.
    """
    rng = np.random.default_rng(0)
    wrong = np.zeros((num_repetitions, 2), dtype=bool)
    for repetition in range(num_repetitions):
        values = rng.standard_normal((num_seeds, len(truths))) + truths
        tests = holm([mean_estimate(column).p for column in values.T])
        equivalences = holm([margin_p(column, margin) for column in values.T], fewest=2)
        for truth, test, equivalence in zip(truths, tests, equivalences, strict=True):
            is_false = equivalence.is_rejected and abs(truth) >= margin
            wrong[repetition] |= (test.is_rejected and truth == 0, is_false)
    effect, negligible = wrong.mean(axis=0)
    return FalseVerdicts(float(effect), float(negligible), float(wrong.any(axis=1).mean()))


def coverage(population: Population, num_repetitions: int) -> float:
    """Return the share of sequences of which the intervals of all looks hold the truth."""
    truth = 0.7
    looks = estimate_at_looks(population.sample(np.random.default_rng(1), (num_repetitions, MOST)) + truth)
    return float(((looks.low <= truth) & (truth <= looks.high)).all(axis=1).mean())


def seeds_until_settled(effect: float, std: float, margin: float, num_tests: int, num_repetitions: int) -> str:
    """Write the median number of seeds at which an effect is settled, or ``> 30``.

    Args:
        effect: its size, a log ratio.
        std: standard deviation of a paired difference.
        margin: a log ratio.
        num_tests: how many effects share the family; all others are open.
        num_repetitions: how many sequences.
    """
    rng = np.random.default_rng(2)
    settled = []
    for _ in range(num_repetitions):
        looks = estimate_at_looks(rng.normal(effect, std, 2 * MOST), margin=margin)
        answers = (looks.p < (1 - CONFIDENCE) / num_tests) | (looks.p_beyond < (1 - CONFIDENCE) / max(2, num_tests))
        settled.append(int(answers.argmax()) + 1 if answers.any() else 2 * MOST + 1)
    median = float(np.median(settled))
    return f"> {2 * MOST}" if median > 2 * MOST else f"{median:.0f}"


def page(num_repetitions: int) -> list[str]:
    """Run all simulations and write their part of the page."""
    return [
        *_fixed_section(num_repetitions),
        *_false_verdicts_section(num_repetitions),
        *_seeds_section(num_repetitions),
    ]


def _families(margin: float) -> dict[str, NDArray[np.float64]]:
    half = FAMILY // 2
    return {
        "no effect at all": np.zeros(FAMILY),
        "all on the margin": np.full(FAMILY, margin),
        "half nothing, half on the margin": np.array([0.0, margin] * half),
        "half nothing, half twice the margin": np.array([0.0, 2 * margin] * half),
    }


def _fixed_section(num_repetitions: int) -> list[str]:
    rows = []
    for num_seeds, margin in ((5, 3.0), (8, 2.0), (30, 0.8)):
        for name, truths in _families(margin).items():
            shares = false_verdicts_of_fixed(num_seeds, truths, margin, num_repetitions)
            texts = [f"{share:.1%}" for share in (shares.effect, shares.negligible, shares.any)]
            rows.append([num_seeds, f"{margin:g}", name, *texts])
    headers = ["seeds", "margin", f"true effects of a family of {FAMILY}", "false effect", "false negligible", "either"]
    return [
        "## Verdicts of a fixed number of seeds",
        "",
        f"{num_repetitions:,} families of {FAMILY} effects on normal differences, of which margins are multiples.",
        FIXED,
        "",
        *tabulate(rows, headers, tablefmt="github").splitlines(),
        "",
    ]


def _false_verdicts_section(num_repetitions: int) -> list[str]:
    margin = MARGIN_STD
    rows = []
    for population in Population:
        for name, truths in _families(margin).items():
            ours, naive = false_verdicts(population, truths, margin, num_repetitions)
            shares = [f"{share:.1%}" for share in (ours.effect, ours.negligible, ours.any, naive)]
            rows.append([population.value, name, *shares])
    headers = ["differences", f"true effects of a family of {FAMILY}", "false effect", "false negligible", "either"]
    headers.append("either by Student's t")
    covered = [[p.value, f"{coverage(p, num_repetitions):.1%}"] for p in Population]
    return [
        "## Looking after every seed",
        "",
        f"{num_repetitions:,} families of {FAMILY} effects, looked at after every seed up to {MOST}.",
        FALSE_VERDICTS,
        "",
        *tabulate(rows, headers, tablefmt="github").splitlines(),
        "",
        f"Sequences of which the intervals of all looks up to {MOST} hold the truth:",
        "",
        *tabulate(covered, ["differences", "coverage"], tablefmt="github").splitlines(),
        "",
    ]


def _seeds_section(num_repetitions: int) -> list[str]:
    std, num_tests = 0.1, 3
    rows = []
    for size in (0.0, 0.5, 1.0, 2.0, 5.0):
        row = [f"{size:g}"]
        for percent in (5, 10, 20):
            margin = math.log1p(percent / 100)
            fixed = seeds_needed(Estimate(size * std, 0, 0, 5, std=std), (1 - CONFIDENCE) / num_tests, margin)
            row += [
                seeds_until_settled(size * std, std, margin, num_tests, num_repetitions),
                "–" if fixed is None else f"{fixed:,}",
            ]
        rows.append(row)
    headers = ["effect, standard deviations"]
    for percent in (5, 10, 20):
        headers += [f"±{percent} %: sequential", f"±{percent} %: fixed"]
    return [
        "## Seeds until settled",
        "",
        f"A paired difference of log FID has a standard deviation of {std:g}, and {num_tests} effects share a family.",
        SEEDS,
        "",
        *tabulate(rows, headers, tablefmt="github", disable_numparse=True).splitlines(),
        "",
        f"The mixture's g is {PRIOR_SEEDS}.",
        CHOICE,
        "",
    ]
