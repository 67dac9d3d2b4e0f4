"""What ``run`` was asked for in; its runs computed, and what is to be said of them, before and after, out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gan_ablate.api import run_grids, run_until_settled
from gan_ablate.design.blocks import name_blocks
from gan_ablate.execution.index import summarise_runs
from gan_ablate.execution.schedule import place_plans
from gan_ablate.execution.store import Store
from gan_ablate.forecast import count_seeds

if TYPE_CHECKING:
    from gan_ablate.design.planning import Plan
    from gan_ablate.execution.progress import Display
    from gan_ablate.options import RunOptions


def describe(options: RunOptions, plans: list[Plan], num_missing: int, num_jobs: int) -> str:
    """Say what is going to be computed, and what is to be known before."""
    if options.until is None:
        size = f"{count_seeds(plans)}, {num_missing} runs to compute"
    else:
        size = f"as many seeds as settle it, at most {len(plans[0].seeds)}"
    title = plans[0].grid.title if len(plans) == 1 else f"{len(plans)} grids"
    num_variants = len({cell.config.run_id for plan in plans for cell in plan.cells})
    notes = dict.fromkeys(note for plan in plans for note in plan.notes)
    return "\n".join([f"{title}: {num_variants} variants × {size}, {num_jobs} at once", *notes])


def compute(options: RunOptions, plans: list[Plan], display: Display) -> tuple[list[Plan], list[str]]:
    """Compute plans' runs, as many as are asked for; return plans of those, and what is to be said at the end."""
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
    settlings = run_until_settled(
        plans,
        options.out,
        max_hours=options.max_hours,
        on_look=lambda block, look: display.say(look_lines(look, names.get(block.name, ""))),
        **where,
    )
    computed = [settling.plan for settling in settlings]
    endings = [settled_sentence(settling, names.get(settling.plan.name, "")) for settling in settlings]
    store = Store(options.out)
    needed = {run_id for one in computed for run_id in one.run_ids}
    ended = summarise_runs(store, (run_id for plan in plans for run_id in plan.run_ids))
    others = {run_id for run_id, run in ended.items() if run.status != "failed"} - needed
    if others:
        endings.append(f"{len(others)} finished runs of other seeds were not needed, and are left out of the report.")
    return computed, endings
