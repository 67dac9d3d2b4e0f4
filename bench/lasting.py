"""Count how many decisions still stand after more steps, in the curves of finished studies.

``python -m bench.lasting`` writes the page, whose numbers are the base rates that reports quote.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tabulate import tabulate

from bench import command
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.trajectories import LARGE, TIMES, count_standing
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.outcomes import percent_change
from gan_ablate.errors import UserError, option
from gan_ablate.execution.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gan_ablate.analysis.trajectories import Trajectory

STUDIES = (Path("results/study"), Path("results/study-long"))


def main(
    *,
    out: Annotated[list[Path] | None, typer.Option(help="A results folder; repeatable.")] = None,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = Path("results/lasting.md"),
) -> None:
    """Count how many decisions on FID are the same after more steps."""
    folders = out or STUDIES
    trajectories = [one for folder in folders for one in _main_effects(folder)]
    write_atomically(to, "\n".join(_page(trajectories, folders)).rstrip() + "\n")
    print(to.read_text("utf-8"))


def _main_effects(folder: Path) -> Iterator[Trajectory]:
    store = Store(folder)
    if not store.list_plans():
        raise UserError(f"{option('out', folder)}: no grid was run into this folder; valid: a results folder")
    for name in store.list_plans():
        results = GridResults.load(store, name)
        yield from (one for one in results.trajectories if not one.effects[-1].is_interaction)


def _page(trajectories: Sequence[Trajectory], folders: Sequence[Path]) -> Iterator[str]:
    reach = f"{percent_change(LARGE):+.0f} % or {percent_change(-LARGE):+.0f} %"
    yield "# How long an answer lasts"
    yield ""
    yield f"Command: `python -m bench.lasting{''.join(f' --out {folder.as_posix()}' for folder in folders)}`"
    yield ""
    yield "FID is measured along training, so each main effect has a decision at each of these points."
    yield "The table takes every decision that is not *inconclusive*, and looks at the same effect later in the same"
    yield f"training. An effect is large if it is beyond {reach}."
    yield ""
    rows = []
    for is_large, size in ((True, "large"), (False, "smaller")):
        for times in TIMES:
            found = count_standing(trajectories, times)[is_large]
            shares = (100 * number / found.num if found.num else 0.0 for number in (found.same, found.other))
            rows.append(
                [size, f"{times:.2g}", found.num, found.same, found.other, *(f"{share:.0f} %" for share in shares)]
            )
    heads = ["effect", "times as many steps", "decisions", "the same", "another", "the same", "another"]
    yield tabulate(rows, heads, tablefmt="pipe")
    yield ""
    yield "The rest is inconclusive later. Effects of one grid share runs, and points of one run are alike."
    yield "These are the shares of these studies. Other data and models may have others."


if __name__ == "__main__":
    command.run(main)
