"""The schedule: where the blocks of plans go in a results folder, and which of their runs are missing there."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from gan_ablate.design.config import RunConfig
from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.run_fields import Scoring
from gan_ablate.design.settings import order_block
from gan_ablate.design.validation import validate
from gan_ablate.errors import UserError
from gan_ablate.execution.kept import Trainings
from gan_ablate.execution.store import GENERATOR_FILE, summarise_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gan_ablate.design.plan import Plan, Variant
    from gan_ablate.execution.store import Store


def place_plans(plan: Plan, store: Store) -> list[Plan]:
    """Split a plan into its blocks, under names that replace no other block's plan.

    The grid's file may name another data set or base preset than when it was run into the folder.
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
    variants = tuple(variant.model_copy(update={"block": order_block(own)}) for variant in plan.variants)
    return plan.model_copy(update={"variants": variants})


def grow_plan(plan: Plan, store: Store) -> Plan:
    """Give a plan sequential intervals if its variants were run with another number of seeds before.

    Its effects may have been looked at, so its intervals have to hold at every look, also with more seeds later.
    """
    others = store.known_seeds(plan) - {len(plan.seeds)}
    return plan.model_copy(update={"intervals": "sequential"}) if others else plan


def find_missing_ids(plans: Sequence[Plan], store: Store) -> dict[str, tuple[Variant, int]]:
    """Find the same runs, in the plans' order: run id → variant and seed."""
    runs = {variant.run_id(seed): (variant, seed) for plan in plans for variant, seed in plan.seeded_variants}
    known = summarise_runs(store, runs)
    return {run_id: run for run_id, run in runs.items() if run_id not in known or known[run_id].status == "failed"}


def find_trained(plans: Sequence[Plan], store: Store) -> dict[str, str]:
    """Find what missing runs can be had from without training: the folders of other runs, or what a script left.

    A run of a preset is had from a finished run that differs in its scoring alone, and whose generator is kept; one of
    a user's script from what the script left when it was run in the same way; see ``kept.is_readable``.

    Args:
        plans: of the missing runs.
        store: the results folder.

    Returns:
        Run id of a missing run → the folder.
    """
    missing = find_missing_ids(plans, store)
    return _find_kept_generators(missing, store) | find_kept_trainings(missing, store)


def find_kept_trainings(missing: Mapping[str, tuple[Variant, int]], store: Store) -> dict[str, str]:
    """Find the missing runs of users' scripts that are read from what a script left; see ``find_trained``."""
    trainings = None
    found = {}
    for run_id, (variant, seed) in missing.items():
        if isinstance(variant.config, ExternalConfig):
            trainings = Trainings(store) if trainings is None else trainings
            known = trainings.find(variant.config.with_seed(seed))
            if known is not None:
                found[run_id] = str(known[1].absolute())
    return found


def kept_notes(plans: Sequence[Plan], store: Store) -> list[str]:
    """Say how many missing runs of users' scripts need no run of the script, and where more samples need one."""
    missing = find_missing_ids(plans, store)
    missing = {run_id: run for run_id, run in missing.items() if isinstance(run[0].config, ExternalConfig)}
    if not missing:
        return []
    found, trainings = find_kept_trainings(missing, store), Trainings(store)
    others = [variant.with_seed(seed) for run_id, (variant, seed) in missing.items() if run_id not in found]
    scripts = [config for config in others if isinstance(config, ExternalConfig)]
    short = [config for config in scripts if trainings.has_too_few(config)]
    notes = []
    if found:
        notes.append(f"{len(found)} of {len(missing)} runs do not run the script: what it has left is read again.")
    if short:
        num = max(config.scoring.num_samples for config in short)
        what = f"its command names {{num_samples}}, which has risen to {num:,}"
        notes.append(f"{len(short)} of {len(missing)} runs run a finished script again: {what}.")
    return notes


def _find_kept_generators(missing: Mapping[str, tuple[Variant, int]], store: Store) -> dict[str, str]:
    """Find finished runs that differ from missing ones in their scoring alone; see ``find_trained``."""
    wanted: dict[str, list[tuple[str, Scoring]]] = {}
    for run_id, (variant, seed) in missing.items():
        if not isinstance(variant.config, RunConfig):
            continue
        scoring = variant.config.scoring
        if scoring.features != "none" and not scoring.representation:  # which needs D, and D is not kept
            wanted.setdefault(_training_key(variant.config, seed), []).append((run_id, scoring))
    found: dict[str, list[tuple[bool, Path]]] = {}
    for path in sorted((store.root / "runs").glob("[!.]*/config.json")) if wanted else ():
        with suppress(OSError, ValueError, UserError):  # a script's run, an earlier version's or a damaged file
            config = validate(RunConfig, json.loads(path.read_text("utf-8")), str(path))
            is_current = config.run_id == path.parent.name
            for run_id, scoring in wanted.get(_training_key(config, config.seed), ()) if is_current else ():
                of_final = {name: getattr(config.scoring, name) for name in ("num_samples", "keep_best")}
                has_other_curve = config.scoring != scoring.model_copy(update=of_final)
                if scoring.keep_best and (has_other_curve or not config.scoring.keep_best):
                    continue
                found.setdefault(run_id, []).append((has_other_curve, path.parent))  # equal curves come first
    known = summarise_runs(store, (path.name for places in found.values() for _, path in places))
    is_kept = {
        run_id: run.status == "diverged" or (store.run_dir(run_id) / GENERATOR_FILE).is_file()
        for run_id, run in known.items()
        if run.status != "failed"
    }
    kept = {run_id: [place for place in places if is_kept.get(place[1].name)] for run_id, places in found.items()}
    return {run_id: str(min(places)[1].absolute()) for run_id, places in kept.items() if places}


def _training_key(config: RunConfig, seed: int) -> str:
    """Return a hash of all that a training depends on."""
    return config.model_copy(update={"scoring": Scoring(features="none")}).run_id_of(seed)
