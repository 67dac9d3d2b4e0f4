"""The commands ``run`` and ``plan``: compute the runs of grids, and estimate how long they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from gan_ablate.api import run_grids, run_until_settled
from gan_ablate.design.config import RunConfig
from gan_ablate.design.plan import name_blocks
from gan_ablate.execution.progress import Display, format_duration
from gan_ablate.execution.schedule import (
    calibrate,
    estimate_seconds,
    estimate_total_sec,
    find_missing_ids,
    place_plans,
)
from gan_ablate.execution.store import Store, summarise_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from gan_ablate.analysis.allocation import InterimAnalysis
    from gan_ablate.cli.options import RunOptions
    from gan_ablate.design.plan import Plan


def describe(options: RunOptions, num_missing: int) -> str:
    """Describe what is going to be computed, and what to know before."""
    plans = options.plans
    if options.until_settled:
        size = f"as many seeds as settle it, at most {len(plans[0].seeds)}"
    else:
        size = f"{count_seeds(plans)}, {num_missing} runs to compute"
    title = plans[0].grid.title if len(plans) == 1 else f"{len(plans)} grids"
    num_variants = len({variant.config.run_id for plan in plans for variant in plan.variants})
    notes = dict.fromkeys(note for plan in plans for note in plan.notes)
    return "\n".join([f"{title}: {num_variants} variants × {size}, {options.num_jobs} at once", *notes])


class RunDisplay(Display):
    """A progress display that also shows interim analyses.

    Attributes:
        block_names: the name of a block's plan → words for it.
    """

    def __init__(
        self, console: Console, header: str, labels: Mapping[str, str], num_done: int, options: RunOptions
    ) -> None:
        is_calibrated = options.compute.device == "cpu"
        super().__init__(console, header, labels, num_done, options.num_jobs, is_calibrated=is_calibrated)
        self.block_names = _name_blocks(options)

    def analysed(self, block: Plan, analysis: InterimAnalysis) -> None:
        """Print what an interim analysis has settled."""
        from gan_ablate.reporting.run_sentences import look_lines

        self.show(look_lines(analysis, self.block_names.get(block.name, "")))


def _name_blocks(options: RunOptions) -> dict[str, str]:
    """Map the names of blocks' plans to words for them, empty for the only block."""
    names: dict[str, str] = {}
    for plan in options.plans:
        placed = place_plans(plan, Store(options.out))
        words = [plan.grid.title] * len(placed) if len(options.plans) > 1 and len(placed) == 1 else name_blocks(placed)
        names |= {block.name: of_block for block, of_block in zip(placed, words, strict=True)}
    return names


def compute_plans(options: RunOptions, display: RunDisplay) -> tuple[list[Plan], list[str]]:
    """Compute the runs of plans; return plans of those that were needed, and lines to print at the end."""
    plans = options.plans
    if not options.until_settled:
        run_grids(plans, options.out, options.compute, observer=display)
        return plans, []
    from gan_ablate.reporting.run_sentences import settled_sentence

    states = run_until_settled(plans, options.out, options.compute, max_hours=options.max_hours, observer=display)
    computed = [state.plan for state in states]
    endings = [settled_sentence(state, display.block_names.get(state.plan.name, "")) for state in states]
    needed = {run_id for one in computed for run_id in one.run_ids}
    ended = summarise_runs(Store(options.out), (run_id for plan in plans for run_id in plan.run_ids))
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


def show_forecast(console: Console, options: RunOptions) -> None:
    """Print the variants of plans, how many of their runs there are, and about how long the rest takes."""
    plans, store, num_jobs, device = options.plans, Store(options.out), options.num_jobs, options.compute.device
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
    most = "at most " if options.until_settled else ""
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
