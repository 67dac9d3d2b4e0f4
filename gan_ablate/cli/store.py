"""Commands for a results folder: ``status``, ``verify`` and ``clean``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from gan_ablate.cli.options import RESULTS, OutOption
from gan_ablate.design.validation import printable
from gan_ablate.errors import RunFailedError
from gan_ablate.execution.index import summarise_runs
from gan_ablate.execution.progress import open_console
from gan_ablate.execution.store import Store


def status(out: OutOption = RESULTS) -> None:
    """Show how far the grids of a results folder are."""
    store = Store(out)
    table = Table("grid", "budget", "completed", "diverged", "failed", "missing")
    for name in store.list_plans():
        plan = store.load_plan(name)
        ended = [run.status for run in summarise_runs(store, plan.run_ids).values()]
        counts = [ended.count(status) for status in ("completed", "diverged", "failed")]
        num_missing = plan.num_runs - len(ended)
        table.add_row(name, plan.budget, *(str(count) for count in (*counts, num_missing)))
    console = open_console()
    console.print(table if table.row_count else f"{out}: no grid was run into this folder yet")


def verify(out: OutOption = RESULTS) -> None:
    """Check every plan, record, weight file, checkpoint and cached file of a results folder against its checksum."""
    from gan_ablate.execution.maintenance import verify as check

    findings = check(Store(out))
    for problem in findings.problems:
        print(printable(problem))
    if findings.problems:
        raise RunFailedError(f"{len(findings.problems)} of {findings.num_checked} in {out} are damaged")
    open_console().print(
        f"{findings.num_checked} plans, runs, checkpoints and cached files in {out}: as they were written"
    )


def clean(
    out: OutOption = RESULTS,
    runs: Annotated[bool, typer.Option("--runs", help="Runs of no grid, too, those of train among them.")] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Checkpoints of finished runs, too: more --steps begin anew then.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete what nothing in a results folder refers to, after saying what."""
    from gan_ablate.execution.maintenance import find_waste, remove

    store = Store(out)
    found = find_waste(store, with_runs=runs, with_checkpoints=checkpoints)
    for waste in found:
        print(printable(f"{waste.path}: {waste.reason}, {waste.num_bytes / 1e6:.1f} MB"))
    if not found:
        open_console().print(f"{out}: nothing to delete")
    elif yes or typer.confirm(f"Delete these {len(found)}, {sum(w.num_bytes for w in found) / 1e6:.1f} MB?"):
        num_gone = sum(remove(store, waste) for waste in found)
        kept = f"; {len(found) - num_gone} that a command works on stay" if num_gone < len(found) else ""
        open_console().print(f"{num_gone} deleted{kept}")
