"""A Plan and a results folder in, the runs that are still to be computed out, and how long each will take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_ablate.design.blocks import order_block
from gan_ablate.design.cost import estimate_run_sec

if TYPE_CHECKING:
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.planning import Plan
    from gan_ablate.execution.store import Store


def missing_runs(plan: Plan, store: Store) -> list[RunConfig]:
    """List the runs of a plan that have no result yet, seed by seed, those of a seed that take longest first."""
    configs = [config for _, config in plan.runs if not store.is_done(config.run_id)]
    seconds = estimate_seconds(plan, store)
    return sorted(configs, key=lambda config: (config.seed, -seconds[config.run_id]))


def estimate_seconds(plan: Plan, store: Store) -> dict[str, float]:
    """Estimate the seconds of every run of a plan, from the runs of the same variant where there are any."""
    seconds = {}
    for cell in plan.cells:
        configs = [cell.with_seed(seed) for seed in plan.seeds_of(cell)]
        records = [store.load_record(config.run_id) for config in configs]
        known = [r.throughput.step_ms_median for r in records if r is not None and r.throughput is not None]
        step_ms = sorted(known)[len(known) // 2] if known else None
        seconds.update({config.run_id: estimate_run_sec(config, step_ms) for config in configs})
    return seconds


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
