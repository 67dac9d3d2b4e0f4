"""Simulations of families in which runs collapse: false verdicts at any look, and typical changes that are found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from tabulate import tabulate

from bench import command
from gan_ablate.analysis.estimates import CONFIDENCE
from gan_ablate.analysis.sequential import estimate_at_looks
from gan_ablate.analysis.tests import SIGN_PRIOR, evidence_of_rates, holm, sign_p_value

MOST = 30
STD = 0.1
"""Standard deviation of a paired difference of log FID between runs that did not collapse."""

JUMP = 1.0
"""What collapse adds to log FID."""

MARGIN = math.log(1.1)
DROP = math.log(1 - 0.14)
"""The typical change that is to be found."""

INTRODUCTION = f"""\
A paired difference of log FID has a standard deviation of {STD:g} between runs that did not collapse. A run collapses
with some chance, which adds {JUMP:g} to its log FID. Families are looked at after every seed up to {MOST}. At each look
an effect is estimated by Student's t (valid at every look) while no run of its two variants collapsed, and by signs
from then on. Holm's procedure is over the family, whatever each effect's test. A verdict is false

- if the typical change is called lower or higher where the median of all pairs is not on that side;
- if it is called negligible where that median is on the margin or beyond it;
- if the rate of collapse is called lower or higher where it is not."""

TYPICAL = """\
Where one side alone collapses, the median of all pairs lies on the other side of zero by a part of a standard
deviation: a run of that side is the worse one in more than half of the seeds, and to say so is true. The column *if
unchanged* counts it as false all the same, as if the typical run were one that did not collapse. The last column
counts so what Student's t alone says, valid at every look. *On the margin* is the change of runs that did not
collapse, towards the side that collapses, so that *negligible* is false by either count."""

POWER = f"""\
The typical run is {-math.expm1(DROP):.0%} better, and a tenth of the runs of one side collapses. How often this is
found by look {MOST}, and the median look at which it is. Collapse of the baseline's runs only widens the mean's gain;
collapse with the level hides it from the mean."""

ALLOWED = """\
A family of one without any change, in which runs of one side collapse. How often it is called negligible before the
first collapse is seen, as it must be: then the page says which rate of collapse the seeds still allow. How often that
bound is below the true rate, of all families, and the median bound."""


@dataclass(frozen=True)
class Mixture:
    """Chances of collapse: of the runs with the levels, and of the baseline's runs.

    Attributes:
        treated: of the first.
        baseline: of the second.
        std: standard deviation of a paired difference between runs that did not collapse.
    """

    treated: float
    baseline: float
    std: float = STD

    def sample(
        self, rng: np.random.Generator, shifts: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Sample a family: (seeds, effects) paired differences, which treated and which baseline runs collapsed."""
        treated = rng.random((MOST, len(shifts))) < self.treated
        baseline = rng.random((MOST, 1)) < self.baseline
        std = self.std / math.sqrt(2)
        noise = rng.normal(0, std, (MOST, len(shifts))) - rng.normal(0, std, (MOST, 1))
        return shifts + noise + JUMP * (treated * 1.0 - baseline), treated, np.broadcast_to(baseline, treated.shape)

    @property
    def middle(self) -> float:
        """The median of all pairs without a typical change, by bisection."""
        low, high = -JUMP, JUMP
        chances = {
            JUMP: self.treated * (1 - self.baseline),
            -JUMP: self.baseline * (1 - self.treated),
        }
        chances[0.0] = 1 - sum(chances.values())
        for _ in range(60):
            middle = (low + high) / 2
            below = sum(chance * _normal_cdf((middle - at) / self.std) for at, chance in chances.items())
            low, high = (middle, high) if below < 0.5 else (low, middle)
        return low


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


@dataclass(frozen=True)
class Decisions:
    """The decisions on one family at every look, (looks, effects); the first look is at one seed.

    Attributes:
        signs: -1 where the outcome of the typical run is called lower, 1 where higher, 0 otherwise.
        negligible: where it is called negligible.
        rates: -1 where fewer runs are said to collapse, 1 where more are, 0 otherwise.
    """

    signs: NDArray[np.int64]
    negligible: NDArray[np.bool_]
    rates: NDArray[np.int64]


def decide(
    values: NDArray[np.float64], treated: NDArray[np.bool_], baseline: NDArray[np.bool_], *, by_signs: bool = True
) -> Decisions:
    """Decide on a family at every look as the report does, or always by the mean.

    Args:
        values: (seeds, effects) paired differences.
        treated: which of the runs with the levels collapsed.
        baseline: which of the baseline's runs.
        by_signs: whether an effect is estimated by signs once some runs of a variant collapsed and others did not.
    """
    nums = np.arange(1, len(values) + 1)[:, None]
    looks = estimate_at_looks(values.T, margin=MARGIN)
    p, beyond = looks.p.T, looks.p_beyond.T
    directions = np.sign(values.cumsum(axis=0))
    if by_signs:
        is_mixed = np.any([(side.cumsum(axis=0) > 0) & (side.cumsum(axis=0) < nums) for side in (treated, baseline)], 0)
        above, below = (values > 0).cumsum(axis=0), (values < 0).cumsum(axis=0)
        p = np.where(is_mixed, _p_of_signs(nums - np.maximum(above, below)), p)
        directions = np.where(is_mixed, np.sign(above - below), directions)
        inside = np.minimum((values > -MARGIN).cumsum(axis=0), (values < MARGIN).cumsum(axis=0))
        of_signs = np.where(2 * inside > nums, _p_of_signs(nums - inside) / 2, 1.0)
        beyond = np.where(is_mixed, of_signs, beyond)
    found = _reject(p)
    counts = [(treated & baseline), (treated & ~baseline), (~treated & baseline), (~treated & ~baseline)]
    rates = np.apply_along_axis(_p_of_rates, 0, np.stack([count.cumsum(axis=0) for count in counts]))
    excess = np.sign(treated.cumsum(axis=0) - baseline.cumsum(axis=0).astype(int))
    return Decisions(found * directions.astype(int), _reject(beyond, 2) & ~found, _reject(rates) * excess)


def _reject(p: NDArray[np.float64], fewest: int = 1) -> NDArray[np.bool_]:
    """Return which tests of a family Holm's procedure rejects at each look: (looks, effects)."""
    return np.array([[test.is_rejected for test in holm(list(row), fewest=fewest)] for row in p])


def _p_of_signs(against: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the p-value of so many seeds against a side at each look: (looks, effects)."""
    return np.array([[sign_p_value(int(k), num, is_fixed=False) for k in row] for num, row in enumerate(against, 1)])


def _p_of_rates(counts: NDArray[np.int64]) -> float:
    return min(1.0, math.exp(-evidence_of_rates(*map(int, counts))))


@dataclass(frozen=True)
class Shares:
    """Shares of families that a verdict at any look was wrong of.

    Attributes:
        typical: of the typical change.
        rate: of the rate of collapse.
        either: of one of them.
        unchanged: of the typical change, if it is false to find one where runs that did not collapse are unchanged.
        by_mean: the same of Student's t, which takes the mean's change for that of the typical run.
    """

    typical: float
    rate: float
    either: float
    unchanged: float
    by_mean: float


def false_verdicts(mixture: Mixture, shifts: NDArray[np.float64], num_repetitions: int) -> Shares:
    """Count the families with a false verdict at any look.

    Args:
        mixture: the chances of collapse.
        shifts: (effects,) the changes of runs that did not collapse.
        num_repetitions: how many families.
    """
    rng = np.random.default_rng(0)
    middles = np.round(shifts + mixture.middle, 9)
    excess = np.sign(mixture.treated - mixture.baseline)
    wrong = np.zeros((num_repetitions, 4), dtype=bool)
    for repetition in range(num_repetitions):
        sample = mixture.sample(rng, shifts)
        ours, by_mean = decide(*sample), decide(*sample, by_signs=False)
        typical, unchanged, of_mean = (
            bool(((looks.signs != 0) & (looks.signs != np.sign(truths))).any())
            or bool((looks.negligible & (np.abs(truths) >= MARGIN * (1 - 1e-9))).any())
            for looks, truths in ((ours, middles), (ours, shifts), (by_mean, shifts))
        )
        wrong[repetition] = typical, ((ours.rates != 0) & (ours.rates != excess)).any(), unchanged, of_mean
    shares = [float(share) for share in wrong.mean(axis=0)]
    return Shares(shares[0], shares[1], float(wrong[:, :2].any(axis=1).mean()), shares[2], shares[3])


def found_by(mixture: Mixture, num_effects: int, num_repetitions: int, *, by_signs: bool) -> tuple[float, float]:
    """Return how often a typical change is found in a family's first effect, and the median look at which it is.

    Args:
        mixture: the chances of collapse.
        num_effects: effects of the family; the others do not change.
        num_repetitions: how many families.
        by_signs: whether by signs, or by Student's t.
    """
    rng = np.random.default_rng(1)
    looks = []
    for _ in range(num_repetitions):
        signs = decide(*mixture.sample(rng, DROP * (np.arange(num_effects) == 0)), by_signs=by_signs).signs[:, 0]
        looks.append(int((signs == -1).argmax()) + 1 if (signs == -1).any() else MOST + 1)
    return float(np.mean(np.array(looks) <= MOST)), float(np.median(looks))


def clean_so_far(rate: float, num_repetitions: int) -> tuple[float, float, float]:
    """Return how often no change is called negligible before a collapse is seen, and what is said of its rate then.

    Args:
        rate: of collapse on one side.
        num_repetitions: how many families of one effect.

    Returns:
        The share called negligible; the share whose bound on the rate is too low, of all; and the median bound.
    """
    rng = np.random.default_rng(2)
    bounds = []
    for _ in range(num_repetitions):
        values, treated, baseline = Mixture(rate, 0.0).sample(rng, np.zeros(1))
        negligible = decide(values, treated, baseline).negligible[:, 0]
        first = int(negligible.argmax()) + 1
        if negligible.any() and not treated[:first].any():
            bounds.append(1 - (1 - CONFIDENCE) ** (1 / first))
    too_low = sum(bound < rate for bound in bounds) / num_repetitions
    return len(bounds) / num_repetitions, too_low, float(np.median(bounds)) if bounds else math.nan


SIDES = {"with the level": (1.0, 0.0), "of the baseline": (0.0, 1.0), "on both sides": (1.0, 1.0)}


def page(num_repetitions: int) -> list[str]:
    """Run all simulations and write their part of the page."""
    rows = []
    for num_effects in (1, 3, 6):
        for rate in (0.1, 0.2, 0.3):
            for side, (treated, baseline) in SIDES.items():
                mixture = Mixture(rate * treated, rate * baseline)
                away = -1 if mixture.treated < mixture.baseline else 1
                for truth, shift in (("no change", 0.0), ("on the margin", MARGIN * away)):
                    shares = false_verdicts(mixture, np.full(num_effects, shift), num_repetitions)
                    texts = (shares.typical, shares.rate, shares.either, shares.unchanged, shares.by_mean)
                    rows.append([num_effects, f"{rate:.0%} {side}", truth, *(f"{share:.1%}" for share in texts)])
    headers = [
        "effects", "runs that collapse", "typical change", "typical: false", "rate: false", "either",
        "typical: false if unchanged", "Student's t: the same",
    ]  # fmt: skip
    return [
        "## Runs that collapse",
        "",
        f"{num_repetitions:,} families a row.",
        f"`python -m bench.collapse_simulations --families {num_repetitions}` prints this section.",
        *INTRODUCTION.splitlines(),
        "",
        *TYPICAL.splitlines(),
        "",
        *tabulate(rows, headers, tablefmt="github", disable_numparse=True).splitlines(),
        "",
        *_power_section(num_repetitions),
        *_allowed_section(num_repetitions),
        f"The parameter of the mixture over the chance of a sign is {SIGN_PRIOR:g}.",
        *CHOICE.splitlines(),
        "",
    ]


def _power_section(num_repetitions: int) -> list[str]:
    rows: list[list[object]] = []
    for num_effects in (1, 3, 6):
        for std in (STD / 2, STD):
            for side in ("with the level", "of the baseline"):
                treated, baseline = SIDES[side]
                mixture = Mixture(0.1 * treated, 0.1 * baseline, std)
                row: list[object] = [num_effects, f"{std:g}", side]
                for by_signs in (True, False):
                    share, look = found_by(mixture, num_effects, num_repetitions, by_signs=by_signs)
                    row += [f"{share:.0%}", f"{look:.0f}" if look <= MOST else f"> {MOST}"]
                rows.append(row)
    methods = ["by signs", "median look", "by Student's t", "median look"]
    headers = ["effects", "standard deviation", "runs that collapse", *methods]
    return [
        *POWER.splitlines(),
        "",
        *tabulate(rows, headers, tablefmt="github", disable_numparse=True).splitlines(),
        "",
    ]


def _allowed_section(num_repetitions: int) -> list[str]:
    rows = [
        [f"{rate:.0%}", *(f"{share:.1%}" for share in clean_so_far(rate, num_repetitions))] for rate in (0.1, 0.2, 0.3)
    ]
    headers = ["rate of collapse", "called negligible, none seen", "bound too low", "median bound"]
    return [
        *ALLOWED.splitlines(),
        "",
        *tabulate(rows, headers, tablefmt="github", disable_numparse=True).splitlines(),
        "",
    ]


CHOICE = """\
With it a family of 1, 3 or 6 effects can be decided from 6, 8 or 9 seeds on, as early as signs allow. It spends 3.9 %
of its 5 % by look 30, and 4.2 % by look 100, by exact probabilities. At ½ a family of one waits for 7 seeds, and at 1
for 8."""


def main(*, families: Annotated[int, typer.Option(help="Simulations of each row.")] = 4_000) -> None:
    """Print the section on runs that collapse."""
    typer.echo("\n".join(page(families)))


if __name__ == "__main__":
    command.run(main)
