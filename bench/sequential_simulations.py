"""Simulations of sequential analysis: false verdicts at any look, and the seeds until effects are settled."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from tabulate import tabulate

from gan_ablate.analysis.estimates import CONFIDENCE, Estimate, mean_estimate
from gan_ablate.analysis.sequential import PRIOR_SEEDS, estimate_at_looks
from gan_ablate.analysis.tests import holm, seeds_needed


class Population(enum.Enum):
    """The distribution of simulated paired differences, with mean 0 and standard deviation 1."""

    NORMAL = "normal"
    HEAVY = "heavy tails (t, 5 degrees of freedom)"
    SKEWED = "skewed (log-normal, σ 0.5)"

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Sample differences."""
        match self:
            case Population.NORMAL:
                return rng.standard_normal(shape)
            case Population.HEAVY:
                return rng.standard_t(5, shape) / math.sqrt(5 / 3)
            case Population.SKEWED:
                variance = (math.exp(0.25) - 1) * math.exp(0.25)
                return (rng.lognormal(0, 0.5, shape) - math.exp(0.125)) / math.sqrt(variance)


MOST = 30
FAMILY = 6
MARGIN_STD = 1.0
"""The margin of the family's simulations, in standard deviations of a paired difference."""

FIXED = """\
False is: an effect where there is none, and *negligible* or *too small to matter* where it is as large as the margin.
Each of the two is held to 5 % in a whole family; of either, that is not promised."""

FALSE_VERDICTS = f"""\
The margin is {MARGIN_STD:.0f} standard deviation of a paired difference. A verdict is false if it calls nothing an
effect, or an effect on the margin or beyond it negligible. Beside it, what Student's intervals, with Bonferroni's
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
    """The decisions on one family of effects at every look, each (looks, effects) of booleans."""

    found: NDArray[np.bool_]
    negligible: NDArray[np.bool_]

    @property
    def is_settled(self) -> NDArray[np.bool_]:
        """Whether an effect is found or negligible at a look."""
        return self.found | self.negligible


def decide(values: NDArray[np.float64], margin: float | None) -> Decisions:
    """Decide on a family of effects at every look, as the report does.

    Args:
        values: (seeds, effects) paired differences.
        margin: of every effect.
    """
    num_seeds, num_effects = values.shape
    p = np.stack([estimate_at_looks(column).p for column in values.T], axis=1)
    bounds = [estimate_at_looks(column, 1 - (1 - CONFIDENCE) / num_effects) for column in values.T]
    found, negligible = np.zeros((2, num_seeds, num_effects), dtype=bool)
    for look in range(1, num_seeds):
        for effect, test in enumerate(holm(list(p[look]))):
            looks = bounds[effect]
            found[look, effect] = test.is_rejected
            if margin is not None and not test.is_rejected:
                negligible[look, effect] = -margin < looks.low[look] and looks.high[look] < margin
    return Decisions(found, negligible)


def false_verdicts(
    population: Population, truths: NDArray[np.float64], margin: float, num_repetitions: int
) -> tuple[float, float]:
    """Count the families with a false verdict at any look, by the sequential test and by Student's t.

    Args:
        population: of the differences, of standard deviation one.
        truths: (effects,) the true means.
        margin: within which an effect is negligible.
        num_repetitions: how many families.
    """
    rng = np.random.default_rng(0)
    wrong = naive = 0
    for _ in range(num_repetitions):
        values = population.sample(rng, (MOST, len(truths))) + truths
        decisions = decide(values, margin)
        wrong += bool((decisions.found & (truths == 0)).any() or (decisions.negligible & (abs(truths) >= margin)).any())
        naive += _is_ever_wrong_by_t(values, truths, margin)
    return wrong / num_repetitions, naive / num_repetitions


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
    strictest = 1 - (1 - CONFIDENCE) / len(truths)
    wrong = np.zeros((num_repetitions, 2), dtype=bool)
    for repetition in range(num_repetitions):
        values = rng.standard_normal((num_seeds, len(truths))) + truths
        tests = holm([mean_estimate(column).p for column in values.T])
        for column, truth, test in zip(values.T, truths, tests, strict=True):
            bounds = mean_estimate(column, strictest)
            is_within = -margin < bounds.low and bounds.high < margin
            wrong[repetition] |= (test.is_rejected and truth == 0, is_within and abs(truth) >= margin)
    effect, negligible = wrong.mean(axis=0)
    return FalseVerdicts(float(effect), float(negligible), float(wrong.any(axis=1).mean()))


def coverage(population: Population, num_repetitions: int) -> float:
    """Return the share of sequences whose intersected interval holds the truth after the last look."""
    rng = np.random.default_rng(1)
    truth = 0.7
    held = []
    for _ in range(num_repetitions):
        looks = estimate_at_looks(population.sample(rng, (MOST,)) + truth)
        held.append(bool(looks.low[-1] <= truth <= looks.high[-1]))
    return float(np.mean(held))


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
        looks = estimate_at_looks(rng.normal(effect, std, 2 * MOST), 1 - (1 - CONFIDENCE) / num_tests)
        answers = (looks.low > 0) | (looks.high < 0) | ((looks.low > -margin) & (looks.high < margin))
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
            rows.append([population.value, name, f"{ours:.1%}", f"{naive:.1%}"])
    headers = ["differences", f"true effects of a family of {FAMILY}", "any false verdict", "the same by Student's t"]
    covered = [[p.value, f"{coverage(p, num_repetitions):.1%}"] for p in Population]
    return [
        "## Looking after every seed",
        "",
        f"{num_repetitions:,} families of {FAMILY} effects, looked at after every seed up to {MOST}.",
        FALSE_VERDICTS,
        "",
        *tabulate(rows, headers, tablefmt="github").splitlines(),
        "",
        f"Intersected intervals that hold the truth at every look up to {MOST}:",
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
