"""Plans in, what there is to do and how long it will take out, as tables on a console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from gan_ablate.design.config import RunConfig
from gan_ablate.design.cost import EMULATED_BF16_SLOWDOWN, estimate_total_sec
from gan_ablate.execution.calibration import calibrate
from gan_ablate.execution.progress import format_duration
from gan_ablate.execution.schedule import estimate_seconds, find_missing_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from gan_ablate.design.planning import Plan
    from gan_ablate.execution.store import Store

MAX_FILES = 12
"""Of a user's code, that are listed."""


def check_code(plans: Sequence[Plan]) -> None:
    """Let a batch go through code of somebody's own that plans name.

    Raises:
        UserError: if it does not give what it should.
    """
    cells = [cell for plan in plans for cell in plan.cells if isinstance(cell.config, RunConfig)]
    if not any(cell.trained.own_parts for cell in cells):
        return
    from gan_ablate.training.check import check_own  # PyTorch: seconds that other plans need not pay
    from gan_ablate.training.own import allow_code

    for plan in plans:
        allow_code(plan.folders)
    for cell in cells:
        check_own(cell.trained)


def show_forecast(
    console: Console, plans: Sequence[Plan], store: Store, num_jobs: int, *, is_bound: bool, device: str
) -> None:
    """Print the variants of plans, how many of their runs there are, and about how long the rest takes.

    Args:
        console: where to.
        plans: one a grid.
        store: what there is.
        num_jobs: how many runs will go on at once.
        is_bound: whether the plans' seeds are the most that there may be.
        device: where they will be trained.
    """
    with console.status("Timing some steps of every variant on this machine …"):
        speed = calibrate(plans, store, num_jobs, device)
    seconds = estimate_seconds(plans, store, speed)
    missing = find_missing_ids(plans, store).keys()
    for plan in plans:
        table = Table("variant", "first run", "done", "a run takes", title=plan.grid.title, title_justify="left")
        names = plan.run_names
        for cell in plan.cells:
            run_ids = [cell.run_id(seed) for seed in plan.seeds]
            done = sum(run_id not in missing for run_id in run_ids)
            takes = "?" if speed is None else f"~{format_duration(seconds[run_ids[0]])}"
            table.add_row(names[run_ids[0]], run_ids[0], f"{done}/{len(run_ids)}", takes)
        console.print(table)
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        console.print(note, soft_wrap=True)
    sources = [files for plan in plans for files in plan.sources.values()]
    if sources:
        files = list(dict.fromkeys(name for of_one in sources for name in of_one))
        console.print(f"Part of the runs' names: {_list(files)}", soft_wrap=True)
    most = "at most " if is_bound else ""
    time = "a time that the first runs will tell"
    if speed is not None:
        num_variants = sum(len(plan.cells) for plan in plans)
        total_sec = estimate_total_sec([seconds[run_id] for run_id in missing], num_jobs, num_variants, speed)
        time = f"{most or 'about '}{format_duration(total_sec)} with {num_jobs} at once, report included"
    numbers = sorted({plan.cells[0].config.steps for plan in plans} - {0})
    steps = f" × {' or '.join(f'{number:,}' for number in numbers)} steps" if numbers else ""
    console.print(f"{plans[0].budget}: {most}{count_seeds(plans)}{steps}; {most}{len(missing)} runs to compute, {time}")
    emulated = {
        cell.run_id(seed)
        for plan in plans
        for cell, seed in plan.places
        if isinstance(cell.config, RunConfig) and cell.config.precision == "bf16"
    } & missing
    bf16_sec = sum(seconds[run_id] for run_id in emulated) / num_jobs
    if bf16_sec and device == "cpu":
        from gan_ablate.training.precision import has_native_bf16  # PyTorch: seconds that other plans need not pay

        if not has_native_bf16():
            console.print(
                "This CPU has no bfloat16 arithmetic: runs with precision bf16 come to the same numbers by rounding; "
                f"in float32 they would take about {format_duration(bf16_sec * (EMULATED_BF16_SLOWDOWN - 1))} less"
            )


def _list(files: Sequence[str]) -> str:
    """Write ``a.py, b.py``, the last ones as a number where there are many."""
    shown = ", ".join(files[:MAX_FILES]) or "no files"
    return shown if len(files) <= MAX_FILES else f"{shown} and {len(files) - MAX_FILES:,} more"


def count_seeds(plans: Sequence[Plan]) -> str:
    """Write ``5 seeds``, or ``5 or 6 seeds`` where plans differ."""
    numbers = sorted({len(plan.seeds) for plan in plans})
    return "1 seed" if numbers == [1] else f"{' or '.join(map(str, numbers))} seeds"
