"""Seed allocation: which variants get another seed after each interim analysis, until every decision is made.

An allocation depends only on the scores of earlier seeds. So the order in which runs end does not matter, nor how often
the program was stopped.
"""

from __future__ import annotations

import functools
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gan_ablate.analysis.claims import list_claims, measure
from gan_ablate.analysis.comparability import Comparability
from gan_ablate.analysis.design import Design, iterate_contrasts
from gan_ablate.analysis.estimates import CONFIDENCE
from gan_ablate.analysis.families import estimate_against, estimate_effects
from gan_ablate.analysis.sequential import critical_t
from gan_ablate.analysis.table import tabulate_runs
from gan_ablate.analysis.tests import margin_alpha
from gan_ablate.errors import UserError, option
from gan_ablate.execution.forecast import estimate_seconds, missing_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.context import RunObserver
    from gan_ablate.execution.forecast import Speed
    from gan_ablate.execution.store import Store


FUTILE_SEEDS = 10
"""From this look on, an effect with values in fewer than half of its seeds, because runs fail, is futile."""

EQUAL_SEEDS = 4
"""With so many seeds of equal scores, two variants count as the same."""


@dataclass(frozen=True)
class InterimAnalysis:
    """One analysis while seeds are still being added: the effects in question, over the first ``num_seeds`` seeds."""

    num_seeds: int
    effects: tuple[Effect, ...]

    @property
    def open_effects(self) -> list[Effect]:
        """The effects that need another seed."""
        return [effect for effect in self.effects if effect.decision == "inconclusive" and not self._is_futile(effect)]

    @property
    def futile_effects(self) -> list[Effect]:
        """The inconclusive effects that no further seed would decide: without values, or equal in every seed."""
        return [effect for effect in self.effects if effect.decision == "inconclusive" and self._is_futile(effect)]

    def _is_futile(self, effect: Effect) -> bool:
        has_few_values = self.num_seeds >= FUTILE_SEEDS and 2 * effect.estimate.num_seeds < self.num_seeds
        return has_few_values or (effect.estimate.num_seeds >= EQUAL_SEEDS and effect.estimate.std == 0)


@dataclass(frozen=True)
class SequentialState:
    """How far the sequential computation of a grid is.

    Attributes:
        plan: all runs that were needed so far, with those of the next look.
        looks: the interim analyses whose runs are all over, in order.
        is_over: whether no further run is needed: nothing is inconclusive, or no seed is left.
    """

    plan: Plan
    looks: tuple[InterimAnalysis, ...]
    is_over: bool


def replay_looks(plan: Plan, runs: pd.DataFrame) -> SequentialState:
    """Replay a grid seed by seed: after each look, only variants of an inconclusive effect get another seed.

    The effects in question are all main effects on FID and the primary evidence of the grid's claims. An effect is
    inconclusive until a test of its family, valid at every look, rejects no effect at all, or one on the margin.

    Args:
        plan: the plan, with all seeds that may be spent.
        runs: the runs that are over, from ``load_results``; runs that no look needs are left out.
    """
    most = len(plan.seeds)
    num_seeds = min(most, first_look(plan))
    counts = {variant.label: num_seeds for variant in plan.variants}
    present = set(zip(runs["variant"], runs["seed"], strict=True))
    positions = {seed: number for number, seed in enumerate(plan.seeds)}
    looks: list[InterimAnalysis] = []
    while True:
        now = _cut(plan, num_seeds, counts)
        if any((variant.label, config.seed) not in present for variant, config in now.runs):
            return SequentialState(now, tuple(looks), is_over=False)
        asked = [
            positions.get(seed, most) < counts[variant]
            for variant, seed in zip(runs["variant"], runs["seed"], strict=True)
        ]
        look = InterimAnalysis(num_seeds, tuple(_estimate_in_question(now, runs.loc[asked])))
        looks.append(look)
        if not look.open_effects or num_seeds == most:
            return SequentialState(now, tuple(looks), is_over=True)
        num_seeds += 1
        for label in _list_compared(plan, look.open_effects):
            counts[label] = num_seeds


def first_look(plan: Plan) -> int:
    """Return the smallest number of seeds at which an effect of the plan's family can be decided."""
    # An interval within the margin is of a lower confidence than one that excludes zero.
    alpha = margin_alpha((1 - CONFIDENCE) / sum(1 for _ in iterate_contrasts(Design.of(plan))))
    return next(num for num in itertools.count(2) if critical_t(num, 1 - alpha) < float("inf"))


def _cut(plan: Plan, num_seeds: int, counts: dict[str, int]) -> Plan:
    stopped = {label: count for label, count in counts.items() if count < num_seeds}
    changes = {"seeds": plan.seeds[:num_seeds], "stopped": stopped, "intervals": "sequential", "until_settled": True}
    return plan.model_copy(update=changes)


def _estimate_in_question(plan: Plan, runs: pd.DataFrame) -> list[Effect]:
    """Estimate every main effect on FID and the primary evidence of the grid's claims, each once."""
    design = Design.of(plan)
    effects = functools.cache(functools.partial(estimate_effects, design, runs))
    against = functools.partial(estimate_against, design, runs)
    expected = [expectation for claim in list_claims(plan) for expectation in claim.decisive]
    of_claims = [measure(expectation, effects, against) for expectation in expected]
    asked = [effect for effect in effects("fid") if not effect.is_interaction]
    asked += [effect for effect in of_claims if effect is not None]
    return list({(effect.outcome.name, effect.name): effect for effect in asked}.values())


def _list_compared(plan: Plan, effects: list[Effect]) -> list[str]:
    """List the variants that the effects compare, the baseline always among them."""
    wanted = [effect.levels for effect in effects]
    design = Design.of(plan)
    weights = [contrast.weights for contrast in iterate_contrasts(design) if contrast.levels in wanted]
    return [label for i, label in enumerate(design.variants) if i == 0 or any(weight[i] for weight in weights)]


class Allocation:
    """The seeds that grids get, one after the other, until every decision is made.

    The grids are computed together; a run that several share is computed once.

    Args:
        blocks: plans of one block each, with all seeds that may be spent.
        store: the store of the runs.
        speed: the machine's speed, if it is known.
        max_hours: the hours after which no further seed is started.
        observer: is notified of each interim analysis, in order, and of the runs to expect.

    Attributes:
        states: how far each block is, after ``list_runs``.

    Raises:
        UserError: if the runs are not scored, or were scored in different ways.
    """

    def __init__(
        self,
        blocks: Sequence[Plan],
        store: Store,
        speed: Speed | None,
        max_hours: float | None,
        observer: RunObserver,
    ) -> None:
        for config in (block.baseline.config for block in blocks):
            if config.scoring.features == "none":
                raise UserError(
                    f"{option('run_until_settled')}: {config.dataset} is not scored; valid: with "
                    f"{option('inception_weights', 'PATH')}"
                )
        self._blocks, self._store, self._speed, self._observer = blocks, store, speed, observer
        self._max_hours, self._started_at = max_hours, time.monotonic()
        self._attempted: set[str] = set()
        self._num_reported = [0] * len(blocks)
        self.states: list[SequentialState] = []

    def list_runs(self) -> list[AnyConfig]:
        """Take every look that the runs allow, and return the missing runs of the next looks; none once all is over."""
        self.states = [replay_looks(block, self._read_runs(block)) for block in self._blocks]
        self._report_looks()
        is_late = self._max_hours is not None and time.monotonic() - self._started_at > 3600 * self._max_hours
        missing: dict[str, AnyConfig] = {}
        for state in self.states:
            if not state.is_over and not is_late:
                missing |= {run.run_id: run for run in missing_runs([state.plan], self._store, self._speed)}
        runs = {run_id: config for run_id, config in missing.items() if run_id not in self._attempted}
        self._attempted.update(runs)
        seconds = estimate_seconds(self._blocks, self._store, self._speed)
        self._observer.expect({run_id: seconds[run_id] for run_id in runs})
        return list(runs.values())

    def next_runs(self) -> list[AnyConfig]:
        """Return ``list_runs``, and save plans of the runs that were needed so far."""
        runs = self.list_runs()
        self.keep()
        return runs

    def keep(self) -> None:
        """Save plans of the runs that were needed so far, which the report covers."""
        for state in self.states:
            self._store.save_plan(state.plan)
            self._store.note_seeds(state.plan)

    def _report_looks(self) -> None:
        for number, (block, state) in enumerate(zip(self._blocks, self.states, strict=True)):
            for look in state.looks[self._num_reported[number] :]:
                self._observer.analysed(block, look)
            self._num_reported[number] = len(state.looks)

    def _read_runs(self, block: Plan) -> pd.DataFrame:
        """Read the runs of a block; a run that failed is left out until it was attempted again."""
        records = list(self._store.records(block))
        labelled = [(label, record) for _, label, record in records]
        comparable = Comparability(labelled, tabulate_runs(block, records))
        if len(comparable.protocols) > 1:
            where = self._store.root
            settled, another = option("run_until_settled"), option("out")
            raise UserError(f"{settled}: runs in {where} were scored in different ways; use another {another}")
        runs = comparable.runs
        return runs.loc[(runs["status"] != "failed") | runs["run_id"].isin(self._attempted)]
