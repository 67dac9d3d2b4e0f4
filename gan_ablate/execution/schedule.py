"""Plans and a results folder in, the runs that are still to be computed out, and how long they will take."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from gan_ablate.design.blocks import order_block
from gan_ablate.design.cost import Speed, estimate_run_sec, step_key
from gan_ablate.design.external import ExternalConfig
from gan_ablate.execution.index import summarise_runs

UNKNOWN_RUN_SEC = 60.0
"""Stands for the seconds of a run of which nothing is known before it is over."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.design.configs import AnyConfig
    from gan_ablate.design.planning import Cell, Plan
    from gan_ablate.execution.store import Store


def missing_runs(plans: Sequence[Plan], store: Store, speed: Speed | None = None) -> list[AnyConfig]:
    """List the runs of plans that have no result yet, seed by seed, those of a seed that take longest first.

    A run that several plans share is listed once.
    """
    seconds = estimate_seconds(plans, store, speed)
    missing = [cell.with_seed(seed) for cell, seed in find_missing_ids(plans, store).values()]
    return sorted(missing, key=lambda config: (config.seed, -seconds[config.run_id]))


def find_missing_ids(plans: Sequence[Plan], store: Store) -> dict[str, tuple[Cell, int]]:
    """Name the same runs, in the plans' order, with the variant and the seed of each."""
    places = {cell.run_id(seed): (cell, seed) for plan in plans for cell, seed in plan.places}
    known = summarise_runs(store, places)
    return {
        run_id: place for run_id, place in places.items() if run_id not in known or known[run_id].status == "failed"
    }


def estimate_seconds(plans: Sequence[Plan], store: Store, speed: Speed | None = None) -> dict[str, float]:
    """Estimate the seconds of every run of some plans.

    Args:
        plans: of the runs.
        store: whose runs of the same variants tell where the machine's speed is not known.
        speed: from ``calibration.calibrate``.
    """
    known = speed or Speed(step_ms=_seen_step_ms(plans, store))
    return {
        cell.run_id(seed): seconds
        for plan in plans
        for cell in plan.cells
        for seconds in (_run_sec(cell.config, known),)
        for seed in plan.seeds_of(cell)
    }


def _run_sec(config: AnyConfig, speed: Speed) -> float:
    """Estimate the seconds of a run; of a program of somebody's nothing is known, and all count alike."""
    return UNKNOWN_RUN_SEC if isinstance(config, ExternalConfig) else estimate_run_sec(config, speed)


def _seen_step_ms(plans: Sequence[Plan], store: Store) -> dict[str, float]:
    """Look up the median milliseconds of a step of every variant that has runs, by its ``step_key``."""
    runs = summarise_runs(store, (run_id for plan in plans for run_id in plan.run_ids))
    seen = {}
    for one, cell in ((plan, cell) for plan in plans for cell in plan.cells):
        if isinstance(cell.config, ExternalConfig):
            continue
        ended = [runs[run_id] for seed in one.seeds_of(cell) if (run_id := cell.run_id(seed)) in runs]
        times = [run.step_ms for run in ended if run.step_ms is not None]
        if times:
            seen[step_key(cell.config)] = statistics.median(times)
    return seen


def place_plans(plan: Plan, store: Store) -> list[Plan]:
    """Part a plan by its blocks, under names that take no other block's place.

    A grid's file may have been given another data set, or base preset, since it was run into the folder.
    """
    return [_apart_from(store.find_plan(block.name), block) for block in plan.blocks]


def _apart_from(previous: Plan | None, plan: Plan) -> Plan:
    if previous is None:
        return plan
    dataset = plan.baseline.config.dataset
    own = dict(plan.baseline.block)
    if "preset" not in own and plan.grid.base != previous.grid.base:
        own["preset"] = plan.grid.base
    if "dataset" not in own and dataset != previous.baseline.config.dataset:
        own["dataset"] = dataset
    cells = tuple(cell.model_copy(update={"block": order_block(own)}) for cell in plan.cells)
    return plan.model_copy(update={"cells": cells})


def grow_plan(plan: Plan, store: Store) -> Plan:
    """Mark a plan whose seeds are not those that the same variants were run with before: answers have been looked at.

    Its intervals then have to hold at every look. That stays so, however many seeds are asked for later.
    """
    others = store.known_seeds(plan) - {len(plan.seeds)}
    return plan.model_copy(update={"intervals": "sequential"}) if others else plan
