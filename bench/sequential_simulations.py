"""Simulations of sequential analysis: false verdicts at any look, and the seeds until effects are settled."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from tabulate import tabulate

from bench.populations import Population
from gan_ablate.analysis.estimates import CONFIDENCE, Estimate
from gan_ablate.analysis.sequential import PRIOR_SEEDS, estimate_at_looks
from gan_ablate.analysis.tests import seeds_needed

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
Of 0.1, 0.3, 1 and 3, each at levels calibrated for a hundred looks, it settles effects of two to five standard
deviations earliest on the whole. With 1, what is nothing would be settled up to six seeds of 63 earlier, and an effect
of five standard deviations one seed later."""


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
    population: Population, truths: NDArray[np.float64], margin: float, num_repetitions: int
) -> tuple[FalseVerdicts, float]:
    """Count the families with a false verdict at any look, by the sequential test and by Student's t.

    Args:
        population: of the differences, of standard deviation one.
        truths: (effects,) the true means.
        margin: within which an effect is negligible.
        num_repetitions: how many families.
    """
    rng = np.random.default_rng(0)
    values = population.sample(rng, (num_repetitions, MOST, len(truths))) + truths
    naive = float(_is_ever_wrong_by_t(values, truths, margin).mean())
    return decide(values, margin).false_verdicts(truths, margin), naive


def _is_ever_wrong_by_t(values: NDArray[np.float64], truths: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Return for each family whether Bonferroni's intervals for a fixed number of seeds are false at any look."""
    nums = np.arange(3, values.shape[1] + 1)[:, None]
    means = values.cumsum(axis=1)[:, 2:] / nums
    squares = (values**2).cumsum(axis=1)[:, 2:] - nums * means**2
    half = scipy_stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / len(truths), nums - 1) * np.sqrt(squares / (nums - 1) / nums)
    found, negligible = np.abs(means) > half, np.abs(means) + half < margin
    is_wrong = (found & (truths == 0)) | (negligible & (abs(truths) >= margin))
    is_ever_wrong: NDArray[np.bool_] = np.any(is_wrong, axis=(1, 2))
    return is_ever_wrong


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
    values = np.random.default_rng(0).standard_normal((num_repetitions, num_seeds, len(truths))) + truths
    means, errors = values.mean(axis=1), values.std(axis=1, ddof=1) / math.sqrt(num_seeds)
    found = reject(2 * scipy_stats.t.sf(np.abs(means) / errors, num_seeds - 1))
    negligible = reject(scipy_stats.t.sf((margin - np.abs(means)) / errors, num_seeds - 1), fewest=2)
    return Decisions(found[:, None], negligible[:, None]).false_verdicts(truths, margin)


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
    looks = estimate_at_looks(np.random.default_rng(2).normal(effect, std, (num_repetitions, 2 * MOST)), margin=margin)
    answers = (looks.p < (1 - CONFIDENCE) / num_tests) | (looks.p_beyond < (1 - CONFIDENCE) / max(2, num_tests))
    median = float(np.median(np.where(answers.any(axis=1), answers.argmax(axis=1) + 1, 2 * MOST + 1)))
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
