"""The commands ``run`` and ``plan``, and those on a results folder: ``status``, ``verify`` and ``clean``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from gan_ablate.api import check_plans, run_grids, run_until_settled
from gan_ablate.cli.options import NO_BREAK, RESULTS, OutOption, print_text, study_hint
from gan_ablate.design.config import RunConfig
from gan_ablate.design.plan import name_blocks
from gan_ablate.design.settings import write_settings
from gan_ablate.design.validation import list_devices, printable
from gan_ablate.errors import RunFailedError, UserError
from gan_ablate.execution.executors.local import has_gpu
from gan_ablate.execution.forecast import advise_precision, calibrate, estimate_seconds, estimate_total_sec
from gan_ablate.execution.image_sizes import describe_sizes
from gan_ablate.execution.progress import Display, PhaseDisplay, format_duration, open_console
from gan_ablate.execution.schedule import find_missing_ids, find_trained, kept_notes, place_plans
from gan_ablate.execution.store import Store, summarise_runs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from gan_ablate.analysis.allocation import InterimAnalysis
    from gan_ablate.cli.options import RunOptions
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.records import Record
    from gan_ablate.execution.trackers import TrackerWriter


def describe(options: RunOptions, num_missing: int) -> str:
    """Describe what is going to be computed, and what to know before."""
    plans = options.plans
    if options.until_settled:
        size = f"as many seeds as settle it, at most {len(plans[0].seeds)}"
    else:
        size = f"{count_seeds(plans)}, {num_missing} runs to compute"
    title = plans[0].grid.title if len(plans) == 1 else f"{len(plans)} grids"
    num_variants = len({variant.config.run_id for plan in plans for variant in plan.variants})
    every_note = (note for plan in plans for note in plan.notes)
    told = [*every_note, *_describe_images(plans, is_brief=True), *kept_notes(plans, Store(options.out))]
    notes = dict.fromkeys(told)
    return "\n".join([f"{title}: {num_variants} variants × {size}, {options.num_jobs} at once", *notes])


def _describe_images(plans: Sequence[Plan], *, is_brief: bool = False) -> list[str]:
    folders = {name: folder for plan in plans for name, folder in plan.folders.items()}
    configs = (variant.config for plan in plans for variant in plan.variants)
    return describe_sizes(configs, folders, is_brief=is_brief)


class RunDisplay(Display):
    """A progress display that also shows interim analyses, and hands finished runs to trackers.

    Attributes:
        block_names: the name of a block's plan → words for it.
    """

    def __init__(
        self,
        console: Console,
        header: str,
        labels: Mapping[str, str],
        num_done: int,
        options: RunOptions,
        writer: TrackerWriter,
    ) -> None:
        is_calibrated = options.compute.device == "cpu"
        super().__init__(console, header, labels, num_done, options.num_jobs, is_calibrated=is_calibrated)
        self.block_names = _name_blocks(options)
        self._writer = writer

    def finished(self, record: Record) -> None:
        """Print how a run ended, and hand it to trackers."""
        super().finished(record)
        self._writer.put(record)

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
    """Print what every variant of plans sets, how many of the runs there are, and about how long the rest takes.

    Raises:
        UserError: if ``run`` would refuse the plans.
    """
    plans, store, num_jobs, device = options.plans, Store(options.out), options.num_jobs, options.compute.device
    speed_notes: list[str] = []
    with PhaseDisplay(console) as display:
        check_plans(plans, options.out, options.compute, display, until_settled=options.until_settled)
        speed = calibrate(plans, store, num_jobs, device, display)
        if options.compute.executor == "local":
            speed_notes = advise_precision(plans, store, speed, num_jobs, device, display, is_asked=True)
    seconds = estimate_seconds(plans, store, speed)
    missing = find_missing_ids(plans, store).keys()
    for plan in plans:
        _show_variants(console, plan, missing, {} if speed is None else seconds)
    for note in dict.fromkeys([*(note for plan in plans for note in plan.notes), *_describe_images(plans)]):
        print_text(console, note)
    trained = find_trained([plan for plan in plans if plan.grid.external is None], store)
    if trained:
        words = "differ in their scoring alone from finished runs whose generators are kept"
        print_text(console, f"{len(trained)} runs {words}: gan-ablate rescore has them without training again.")
    for note in (*kept_notes(plans, store), *gpu_notes(plans, device), *speed_notes):
        print_text(console, note)
    sources = [files for plan in plans for files in plan.sources.values()]
    if sources:
        files = list(dict.fromkeys(name for of_one in sources for name in of_one))
        print_text(console, f"Part of the runs' names: {_list(files)}")
    most = "at most " if options.until_settled else ""
    time = "a time that the first runs will tell"
    if speed is not None:
        num_variants = sum(len(plan.variants) for plan in plans)
        total_sec = estimate_total_sec([seconds[run_id] for run_id in missing], num_jobs, num_variants, speed)
        time = f"{most or 'about '}{format_duration(total_sec)} with {num_jobs} at once, report included"
    numbers = sorted({plan.variants[0].config.steps for plan in plans} - {0})
    steps = f" × {' or '.join(f'{number:,}' for number in numbers)} steps" if numbers else ""
    size = f"{plans[0].budget}: {most}{count_seeds(plans)}{steps}; {most}{len(missing)} runs to compute, {time}"
    print_text(console, size)


def gpu_notes(plans: Sequence[Plan], device: str) -> list[str]:
    """Say which GPU users' scripts find on this machine.

    Args:
        plans: of the runs.
        device: of the option ``--device``.
    """
    scripts = [plan.grid.external for plan in plans if plan.grid.external is not None]
    if not scripts:
        return []
    hides = any("CUDA_VISIBLE_DEVICES" in script.env for script in scripts)
    names = any("device" in script.names for script in scripts)
    told = f"its command is told {device}" if names else "its command does not name {device}"
    if hides:
        return [f"--device {device}: the script finds the GPUs that external.env.CUDA_VISIBLE_DEVICES names; {told}."]
    if not has_gpu():
        return [f"--device {device}: the script finds no GPU on this machine; {told}."]
    if device == "cpu":
        advice = 'external.env = { CUDA_VISIBLE_DEVICES = "" } hides it'
        return [f"--device cpu: the script finds this machine's GPU all the same, one run at a time; {told}; {advice}."]
    told = told.replace(f"told {device}", "told cuda:0")
    numbers = [name.removeprefix("cuda:") for name in list_devices(device) if name != "cuda"]
    place = f", number {' or '.join(numbers)}, counted from 0," if numbers else ""
    return [f"--device {device}: the script finds one GPU of this machine{place} as its cuda:0; {told}."]


def _show_variants(console: Console, plan: Plan, missing: Collection[str], seconds: Mapping[str, float]) -> None:
    """Print a plan's base, and a few lines for every variant: its runs, and what it sets of the base.

    Args:
        console: where to print.
        plan: the plan.
        missing: ids of runs to compute.
        seconds: run id → estimated seconds; empty where nothing is known.
    """
    grid = plan.grid
    console.print(f"{grid.title}: {len(plan.variants)} variants", highlight=False, soft_wrap=True)
    blocks = plan.blocks
    for block, words in zip(blocks, name_blocks(blocks), strict=True):
        base = block.baseline.block.get("preset", grid.base) or f"the script {grid.source} names"
        print_text(console, f"Base{f' ({words})' if words else ''}: {base} on {block.baseline.config.dataset}")
        if grid.set:
            print_text(console, f"Every variant sets {', '.join(write_settings(grid.set))}")
        for variant in block.variants:
            run_ids = [variant.run_id(seed) for seed in plan.seeds_of(variant)]
            num_done = sum(run_id not in missing for run_id in run_ids)
            takes = f", a run takes ~{format_duration(seconds[run_ids[0]])}" if seconds else ""
            is_baseline = " (baseline)" if variant is block.variants[0] and variant.label != "baseline" else ""
            console.print(f"  {variant.label}{is_baseline}", highlight=False, soft_wrap=True)
            print_text(console, f"{num_done}/{len(run_ids)} runs done{takes}; the first is {run_ids[0]}", indent=4)
            changes = (grid.factors[name].levels[level] for name, level in variant.levels.items())
            settings = ", ".join(text.replace(" ", NO_BREAK) for change in changes for text in write_settings(change))
            print_text(console, f"sets {settings}" if settings else "the base as it is", indent=4)
    console.print()


def _list(files: Sequence[str]) -> str:
    """Write ``a.py, b.py``; of many files, the number of the others."""
    shown = ", ".join(files[:MAX_FILES]) or "no files"
    return shown if len(files) <= MAX_FILES else f"{shown} and {len(files) - MAX_FILES:,} more"


def count_seeds(plans: Sequence[Plan]) -> str:
    """Write ``5 seeds``, or ``5 or 6 seeds`` where plans differ."""
    numbers = sorted({len(plan.seeds) for plan in plans})
    return "1 seed" if numbers == [1] else f"{' or '.join(map(str, numbers))} seeds"


PARTS_OF_A_PAGE = 10
"""About how many pages and figures a report has for each grid."""

MAX_PAGES = 5
"""The most pages of grids that are named at the end of a run."""


def write_pages(out: Path, console: Console, blocks: Sequence[Plan] = (), *, beside: Sequence[Path] = ()) -> None:
    """Write the report, and print where it is.

    Args:
        out: the results folder.
        console: where to print.
        blocks: plans whose pages are named, too.
        beside: other results folders with the same questions.
    """
    names = Store(out).list_plans()
    if not names:
        advice = f"gan-ablate run --grid NAME does that; {study_hint()}"
        raise UserError(f"--out {out}: no grid was run into this folder yet; {advice}")
    num_parts, num_written = PARTS_OF_A_PAGE * len(names), 0
    with PhaseDisplay(console) as display:
        what = "Writing the report"
        display.preparing(what, 0, num_parts)
        from gan_ablate.reporting.report import write_report  # pandas, SciPy, matplotlib: seconds that plan saves

        def count(_: str) -> None:
            nonlocal num_written
            num_written += 1
            display.preparing(what, min(num_written, num_parts), num_parts)

        path = write_report(out, beside=beside, progress=count)
    console.print(f"Report: {path}", highlight=False, soft_wrap=True)
    for block in blocks[:MAX_PAGES]:
        console.print(f"{block.grid.title}: {out / block.name / path.name}", highlight=False, soft_wrap=True)
    console.print(f"All in one file, for a browser: {out / 'report.html'}", highlight=False, soft_wrap=True)


def status(out: OutOption = RESULTS) -> None:
    """Show how far the grids of a results folder are."""
    store = Store(out)
    table = Table(Column("grid", overflow="fold"), "budget", "completed", "diverged", "failed", "missing")
    for name in store.list_plans():
        plan = store.load_plan(name)
        ended = [run.status for run in summarise_runs(store, plan.run_ids).values()]
        counts = [ended.count(status) for status in ("completed", "diverged", "failed")]
        num_missing = plan.num_runs - len(ended)
        table.add_row(name, plan.budget, *(str(count) for count in (*counts, num_missing)))
    console = open_console()
    if table.row_count:
        console.print(table)
    else:
        print_text(console, f"{out}: no grid was run into this folder yet; {study_hint()}")


def verify(out: OutOption = RESULTS) -> None:
    """Check every plan, record, weight file, checkpoint and cached file of a results folder against its checksum."""
    from gan_ablate.execution.maintenance import verify as check

    result = check(Store(out))
    for problem in result.problems:
        print(printable(problem))
    if result.problems:
        raise RunFailedError(f"{len(result.problems)} of {result.num_checked} in {out} are damaged")
    open_console().print(
        f"{result.num_checked} plans, runs, checkpoints and cached files in {out}: as they were written"
    )


def clean(
    out: OutOption = RESULTS,
    runs: Annotated[
        bool, typer.Option("--runs", help="Also delete runs that no grid has, such as those of train.")
    ] = False,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="Also delete checkpoints of finished runs: more --steps then begin anew."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """List the files that nothing in a results folder refers to, ask, and delete them."""
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
