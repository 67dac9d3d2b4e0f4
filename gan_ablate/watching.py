"""Who watches runs: whoever was asked to, or a bar where somebody can see it; and what runs are called there."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from gan_ablate.execution.events import Silent
from gan_ablate.execution.progress import Display
from gan_ablate.terminal import open_console

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gan_ablate.design.planning import Plan
    from gan_ablate.execution.events import RunObserver


@contextmanager
def observing(
    plans: Sequence[Plan], observer: RunObserver | None, progress: bool | None, num_jobs: int, device: str
) -> Iterator[RunObserver]:
    """Give the observer that was asked for, or else a bar where somebody can see it."""
    if observer is not None:
        yield observer
        return
    console = open_console()
    if progress is False or (progress is None and not (console.is_terminal or console.is_jupyter)):
        yield Silent()
        return
    title = ", ".join(plan.grid.title for plan in plans)
    with Display(console, title, name_runs(plans), 0, num_jobs, is_calibrated=device == "cpu") as display:
        yield display


def name_runs(plans: Sequence[Plan]) -> dict[str, str]:
    """Words for every run of some plans, by its id: its variant's label, behind its grid where there are several."""
    names: dict[str, str] = {}
    for plan in plans:
        for run_id, words in plan.run_names.items():
            names.setdefault(run_id, f"{plan.grid.name}: {words}" if len(plans) > 1 else words)
    return names
