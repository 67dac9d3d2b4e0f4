"""Trajectories: curves and histories of runs, and effects over training."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from gan_ablate.analysis.families import estimate_effects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from gan_ablate.analysis.design import Design
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.execution.records import Record

    Records: TypeAlias = Sequence[tuple[str, Record]]
    """(Variant's label, record) of runs that are over."""


def tabulate_curves(records: Records, untimed: Collection[str]) -> pd.DataFrame:
    """Tabulate FID over training: columns variant, seed, step, train_sec (NaN for ``untimed`` runs), fid."""
    rows = []
    for label, record in records:
        if record.scoring is None:
            continue
        has_time = record.run_id not in untimed
        scoring = record.scoring
        for step, sec, fid in zip(scoring.curve_steps, scoring.curve_train_sec, scoring.curve_fid, strict=True):
            rows.append((label, record.config.seed, step, sec if has_time else np.nan, fid))
    return pd.DataFrame(rows, columns=["variant", "seed", "step", "train_sec", "fid"])


def tabulate_histories(records: Records) -> pd.DataFrame:
    """Tabulate the histories of all runs, with columns variant and seed."""
    parts = [
        pd.DataFrame(record.history).assign(variant=label, seed=record.config.seed)
        for label, record in records
        if record.history
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def tabulate_probes(records: Records) -> pd.DataFrame:
    """Tabulate linear probes: columns variant, seed, num_labels, features, accuracy."""
    rows = [
        {
            "variant": label,
            "seed": record.config.seed,
            "num_labels": probe.num_labels,
            "features": name,
            "accuracy": value,
        }
        for label, record in records
        if record.scoring is not None and record.scoring.representation is not None
        for probe in record.scoring.representation.probes
        for name, value in (
            ("D's features", probe.trained), ("untrained D's", probe.untrained), ("raw pixels", probe.pixels),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["variant", "seed", "num_labels", "features", "accuracy"])


SHRUNK_TO = 0.5
"""An effect shrinks that ends at less than this part of its largest size, on the log scale, with disjoint intervals."""


@dataclass(frozen=True)
class Trajectory:
    """One effect on FID over training.

    Attributes:
        steps: the steps at which FID was measured, ascending.
        effects: the effect at each step; a family of tests has all effects at one step.
    """

    steps: tuple[int, ...]
    effects: tuple[Effect, ...]

    @property
    def holds_from(self) -> int | None:
        """The step from which every decision equals the last one; None where the last is inconclusive."""
        last = self.effects[-1].decision
        if last == "inconclusive":
            return None
        others = [step for step, effect in zip(self.steps, self.effects, strict=True) if effect.decision != last]
        later = [step for step in self.steps if not others or step > others[-1]]
        return later[0]

    @property
    def turned_at(self) -> int | None:
        """The last step whose decision is a direction and not the last decision; None if there is none.

        The point before has to have the same decision: a single one of many may be chance.
        """
        last = self.effects[-1].decision
        turned = [
            step
            for step, (before, effect) in zip(self.steps[1:], itertools.pairwise(self.effects), strict=True)
            if effect.is_found and effect.decision == before.decision != last
        ]
        return turned[-1] if turned else None

    @property
    def peak(self) -> tuple[int, Effect] | None:
        """The step and the effect at its largest, if the last decision is a direction and the effect shrank."""
        last = self.effects[-1]
        same = [
            (step, effect)
            for step, effect in zip(self.steps, self.effects, strict=True)
            if effect.decision == last.decision and last.is_found
        ]
        if not same:
            return None
        step, largest = max(same, key=lambda pair: abs(pair[1].estimate.value))
        is_apart = largest.adjusted.high < last.adjusted.low or last.adjusted.high < largest.adjusted.low
        is_half = abs(last.estimate.value) < SHRUNK_TO * abs(largest.estimate.value)
        return (step, largest) if is_apart and is_half else None


LARGE = math.log(1.65)
"""An effect is large from this log ratio on: +65 %, or -39 %."""

TIMES = (2.0, 10 / 3)
"""How many times as many steps later a decision is looked at again."""

_TOLERANCE = math.log(1.12)
"""Points of a curve rarely lie at exactly so many times as many steps."""


@dataclass(frozen=True)
class Standing:
    """How many decisions were looked at again after more steps, and how many were then the same or another one.

    Attributes:
        num: all of them; the rest is inconclusive later.
        same: those with the same decision.
        other: those with another one.
    """

    num: int = 0
    same: int = 0
    other: int = 0

    def __add__(self, added: Standing) -> Standing:
        return Standing(self.num + added.num, self.same + added.same, self.other + added.other)


BASE_RATES = {
    True: (Standing(95, 77, 0), Standing(58, 39, 0)),
    False: (Standing(162, 87, 17), Standing(81, 36, 12)),
}
"""Whether an effect is large → how decisions stood after each of ``TIMES`` as many steps: ``results/lasting.md``."""


def count_standing(trajectories: Iterable[Trajectory], times: float) -> dict[bool, Standing]:
    """Count how many decisions still stand after so many times as many steps.

    Args:
        trajectories: of effects on FID.
        times: above 1.

    Returns:
        Whether the effect is large → the counts.
    """
    counted = {True: Standing(), False: Standing()}
    for one in trajectories:
        for step, effect in zip(one.steps, one.effects, strict=True):
            wanted = math.log(step * times)
            later = min(one.steps, key=lambda at: abs(math.log(at) - wanted))
            if effect.decision == "inconclusive" or abs(math.log(later) - wanted) > _TOLERANCE:
                continue
            then = one.effects[one.steps.index(later)].decision
            is_same, is_other = then == effect.decision, then not in (effect.decision, "inconclusive")
            counted[abs(effect.estimate.value) >= LARGE] += Standing(1, int(is_same), int(is_other))
    return counted


def follow_effects(design: Design, curves: pd.DataFrame) -> list[Trajectory]:
    """Estimate every effect at every point of FID over training.

    Args:
        design: of the runs.
        curves: from ``tabulate_curves``, perhaps with the column ``collapsed`` of each run's final images.
    """
    steps = tuple(sorted(int(step) for step in curves["step"].unique()))
    by_step = [
        estimate_effects(design, curves.loc[curves["step"] == step].assign(status="completed"), "fid") for step in steps
    ]
    return [Trajectory(steps, effects) for effects in zip(*by_step, strict=True)]


def find_unconverged(design: Design, curves: pd.DataFrame) -> dict[str, float]:
    """Find the variants whose FID falls by more than the margin over the last third: variant → mean log ratio.

    Args:
        design: the design of the runs.
        curves: from ``tabulate_curves``.
    """
    falling = {}
    for label in design.variants:
        of_variant = curves.loc[curves["variant"] == label]
        changes = [_last_third(of_seed) for _, of_seed in of_variant.groupby("seed")]
        if changes and np.mean(changes) < -design.log_margin:
            falling[label] = float(np.mean(changes))
    return falling


def _last_third(curve: pd.DataFrame) -> float:
    """Return the log ratio of the last FID to that at two thirds of the steps, interpolated between points."""
    steps, logs = curve["step"].to_numpy(np.float64), np.log(curve["fid"].to_numpy(np.float64))
    return float(logs[-1] - np.interp(2 / 3 * steps[-1], steps, logs))
