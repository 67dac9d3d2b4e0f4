"""A results folder in, what of it can be kept for years out: records, compressed, and last sheets, without weights."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from gan_ablate.errors import UserError
from gan_ablate.execution.store import write_atomically

if TYPE_CHECKING:
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
    num_added = 0
    for name in names:
        plan = store.load_plan(name)
        for _, config in plan.runs:
            record = store.load_record(config.run_id)
            if record is None or to.load_record(config.run_id) is not None:
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
        to.save_plan(plan.model_copy(update={"folders": {}}))  # where data lay on this machine
        to.adopt_seeds(plan, store.known_seeds(plan))
    return num_added
