"""The commands ``run`` and ``plan``: compute the runs of grids, and estimate how long they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from gan_ablate.api import run_grids, run_until_settled
from gan_ablate.design.config import RunConfig
from gan_ablate.design.plan import name_blocks
from gan_ablate.execution.progress import format_duration
from gan_ablate.execution.schedule import (
    calibrate,
    estimate_seconds,
    estimate_total_sec,
    find_missing_ids,
    place_plans,
)
from gan_ablate.execution.store import Store, summarise_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from gan_ablate.cli.options import RunOptions
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.progress import Display


def describe(options: RunOptions, plans: list[Plan], num_missing: int, num_jobs: int) -> str:
    """Describe the runs that are going to be computed: the header of the progress display."""
    if options.until is None:
        size = f"{count_seeds(plans)}, {num_missing} runs to compute"
    else:
        size = f"as many seeds as settle it, at most {len(plans[0].seeds)}"
    title = plans[0].grid.title if len(plans) == 1 else f"{len(plans)} grids"
    num_variants = len({variant.config.run_id for plan in plans for variant in plan.variants})
    notes = dict.fromkeys(note for plan in plans for note in plan.notes)
    return "\n".join([f"{title}: {num_variants} variants × {size}, {num_jobs} at once", *notes])


def compute(options: RunOptions, plans: list[Plan], display: Display) -> tuple[list[Plan], list[str]]:
    """Compute the runs of plans.

    Returns:
        The plans with the seeds that were needed, and lines to print at the end.
    """
    where: dict[str, Any] = {
        "data_dir": options.data_dir,
        "device": options.device,
        "jobs": options.jobs,
        "inception_weights": options.inception_weights,
        "checkpoint_sec": options.checkpoint_sec,
        "keep_checkpoints": options.keep_checkpoints,
        "executor": options.choose_executor(),
        "observer": display,
    }
    if options.until is None:
        run_grids(plans, options.out, **where)
        return plans, []
    from gan_ablate.reporting.run_sentences import look_lines, settled_sentence

    names: dict[str, str] = {}
    for plan in plans:
        placed = place_plans(plan, Store(options.out))
        words = [plan.grid.title] * len(placed) if len(plans) > 1 and len(placed) == 1 else name_blocks(placed)
        names |= {block.name: of_block for block, of_block in zip(placed, words, strict=True)}
    states = run_until_settled(
        plans,
        options.out,
        max_hours=options.max_hours,
        on_look=lambda block, look: display.say(look_lines(look, names.get(block.name, ""))),
        **where,
    )
    computed = [state.plan for state in states]
    endings = [settled_sentence(state, names.get(state.plan.name, "")) for state in states]
    store = Store(options.out)
    needed = {run_id for one in computed for run_id in one.run_ids}
    ended = summarise_runs(store, (run_id for plan in plans for run_id in plan.run_ids))
    others = {run_id for run_id, run in ended.items() if run.status != "failed"} - needed
    if others:
        endings.append(f"{len(others)} finished runs of other seeds were not needed, and are left out of the report.")
    return computed, endings


MAX_FILES = 12
"""Files of a user's code that ``plan`` lists."""


def check_code(plans: Sequence[Plan]) -> None:
    """Run the user code of plans on a small batch.

    Raises:
        UserError: if it does not return what it should.
    """
    variants = [variant for plan in plans for variant in plan.variants if isinstance(variant.config, RunConfig)]
    if not any(variant.trained.user_parts for variant in variants):
        return
    from gan_ablate.training.user_code import allow_code
    from gan_ablate.training.user_code_check import check_user_code  # PyTorch: seconds

    for plan in plans:
        allow_code(plan.folders)
    for variant in variants:
        check_user_code(variant.trained)


def show_forecast(
    console: Console, plans: Sequence[Plan], store: Store, num_jobs: int, *, is_bound: bool, device: str
) -> None:
    """Print the variants of plans, how many runs are done, and about how long the others take.

    Args:
        console: the console to print to.
        plans: a plan per grid.
        store: the results folder.
        num_jobs: the number of runs that are computed at once.
        is_bound: whether the plans' seeds are an upper bound.
        device: the device that trains.
    """
    with console.status("Timing some steps of every variant on this machine …"):
        speed = calibrate(plans, store, num_jobs, device)
    seconds = estimate_seconds(plans, store, speed)
    missing = find_missing_ids(plans, store).keys()
    for plan in plans:
        table = Table("variant", "first run", "done", "a run takes", title=plan.grid.title, title_justify="left")
        names = plan.run_names
        for variant in plan.variants:
            run_ids = [variant.run_id(seed) for seed in plan.seeds]
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
        num_variants = sum(len(plan.variants) for plan in plans)
        total_sec = estimate_total_sec([seconds[run_id] for run_id in missing], num_jobs, num_variants, speed)
        time = f"{most or 'about '}{format_duration(total_sec)} with {num_jobs} at once, report included"
    numbers = sorted({plan.variants[0].config.steps for plan in plans} - {0})
    steps = f" × {' or '.join(f'{number:,}' for number in numbers)} steps" if numbers else ""
    console.print(f"{plans[0].budget}: {most}{count_seeds(plans)}{steps}; {most}{len(missing)} runs to compute, {time}")
    precisions = {
        variant.config.precision
        for plan in plans
        for variant, seed in plan.seeded_variants
        if isinstance(variant.config, RunConfig) and variant.run_id(seed) in missing
    }
    if "bf16" in precisions and device == "cpu":
        from gan_ablate.training.runtime import NO_BF16, has_native_bf16  # PyTorch: seconds that others save

        if not has_native_bf16():
            console.print(NO_BF16, soft_wrap=True)


def _list(files: Sequence[str]) -> str:
    """Write ``a.py, b.py``; of many files, the number of the others."""
    shown = ", ".join(files[:MAX_FILES]) or "no files"
    return shown if len(files) <= MAX_FILES else f"{shown} and {len(files) - MAX_FILES:,} more"


def count_seeds(plans: Sequence[Plan]) -> str:
    """Write ``5 seeds``, or ``5 or 6 seeds`` where plans differ."""
    numbers = sorted({len(plan.seeds) for plan in plans})
    return "1 seed" if numbers == [1] else f"{' or '.join(map(str, numbers))} seeds"
