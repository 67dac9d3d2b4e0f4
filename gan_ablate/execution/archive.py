"""A results folder in, what of it can be kept for years out: records, compressed, and last sheets, without weights."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from gan_ablate.errors import UserError
from gan_ablate.execution.schedule import grow_plan
from gan_ablate.execution.store import FILTERS_FILE, INTERPOLATION_FILE
from gan_ablate.files import write_atomically

if TYPE_CHECKING:
    from gan_ablate.design.planning import Plan
    from gan_ablate.execution.store import Store


def archive(store: Store, to: Store) -> int:
    """Copy what the report of a results folder is made of to another one, whose report then says the same.

    Runs that are there already are left as they are, and seeds can be added to an archive as to any results folder.
    Weights, logs and all but the last sample sheet of each variant's first seed stay behind.

    Args:
        store: to be archived.
        to: where to; made if need be.

    Returns:
        How many records were added.

    Raises:
        UserError: if there is nothing to archive, or it cannot be written.
    """
    names = store.list_plans()
    if not names:
        raise UserError(f"--out {store.root}: no grid was run into this folder yet; nothing to archive")
    if to.root.resolve() == store.root.resolve():
        raise UserError(f"{to.root}: valid: another folder than the one to be archived")
    to.check_writable()
    plans = {name: store.load_plan(name) for name in names}
    kept = {name: _larger(to, plan) for name, plan in plans.items()}
    num_added = 0
    for name, plan in plans.items():
        for _, config in plan.runs:
            record = store.load_record(config.run_id)
            if record is None or record.status == "failed" or to.is_done(config.run_id):
                continue
            # No date in it: the same record is the same file.
            packed = gzip.compress(record.model_dump_json().encode("utf-8"), mtime=0)
            write_atomically(to.archived_record(config.run_id), packed)
            num_added += 1
        for cell in plan.cells:
            run_id = cell.with_seed(plan.seeds[0]).run_id
            sheets = store.sample_sheets(run_id)
            if sheets and not to.sample_sheets(run_id):
                write_atomically(to.archived_sheet(run_id, sheets[-1].name), sheets[-1].read_bytes())
            for file in (INTERPOLATION_FILE, FILTERS_FILE):
                picture = store.picture(run_id, file)
                if picture is not None and to.picture(run_id, file) is None:
                    write_atomically(to.archived_sheet(run_id, file), picture.read_bytes())
        to.adopt_seeds(plan, store.known_seeds(plan))
        to.note_seeds(plan)
        to.save_plan(grow_plan(kept[name].model_copy(update={"folders": {}}), to))  # where data lay on this machine
    return num_added


def _larger(to: Store, plan: Plan) -> Plan:
    """Choose between a plan and the one of its name that was archived before: that which has all runs of the other.

    That answers were settled before the last seed makes a plan no smaller.
    """
    previous = to.find_plan(plan.name)
    if previous is None:
        return plan
    mine, theirs = ({cell.run_id(seed) for cell in one.cells for seed in one.seeds} for one in (plan, previous))
    if mine >= theirs:
        return plan
    if mine < theirs:
        return previous
    raise UserError(f"{to.root}: {plan.name} was archived there with other runs; valid: another folder")
