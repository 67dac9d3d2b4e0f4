"""The page that compares results folders: the same changes after other numbers of steps, or on other data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gan_ablate.analysis.questions import compare_effects
from gan_ablate.analysis.results import GridResults
from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError, option
from gan_ablate.execution.store import Store
from gan_ablate.reporting.exports import table_as_csv
from gan_ablate.reporting.formats import Page, count, escape_markdown, listed
from gan_ablate.reporting.plots import FigurePool
from gan_ablate.reporting.plots.quality import COMPARISON_NOTE, plot_compared_effects
from gan_ablate.reporting.plots.style import FigurePath
from gan_ablate.reporting.sentences import decided_text, num_seeds_text
from gan_ablate.reporting.tables import lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gan_ablate.analysis.questions import ComparedEffect, ComparedEffects, Setting

COMPARISON = "comparison"
"""The name of the page, its figure and its table."""


@dataclass(frozen=True, kw_only=True)
class ComparisonPage(Page):
    """The model of the page that compares results folders.

    Attributes:
        effects: a Markdown table: a row per change, a column per setting.
        figure_note: what to look for in the figure, and which intervals are drawn.
    """

    template: ClassVar[str] = "comparison_page.md.j2"
    figure_note: ClassVar[str] = COMPARISON_NOTE

    effects: str


def write_comparison(folders: Sequence[str | Path], to: str | Path = COMPARISON) -> Path:
    """Compare the effects on FID that several results folders, or several settings of one folder, have in common.

    >>> from gan_ablate import load_grid, plan, run_grid, write_comparison
    >>> few = ["scoring.num_samples=1280", "scoring.curve_samples=1280", "scoring.curve_points=1"]
    >>> for steps, out in ((4, "short"), (8, "long")):
    ...     runs = run_grid(plan(load_grid("beta1"), seeds=1, steps=steps, base="mlp", overrides=few), out)
    >>> write_comparison(["short", "long"], "both").as_posix()
    'both/comparison.md'

    Args:
        folders: results folders. A change counts as the same where the same trainings are compared, whatever the names
            of grids and levels, the data set and the number of steps.
        to: the folder to write ``comparison.md``, ``comparison.png`` and ``comparison.csv`` to.

    Returns:
        The path of ``comparison.md``.

    Raises:
        UserError: if a folder has no results, or if they have no change in common.
    """
    stores = [Store(Path(folder)) for folder in folders]
    for store, folder in zip(stores, folders, strict=True):
        if not store.list_plans():
            raise UserError(f"{option('folders', folder)}: no grid was run into this folder; valid: a results folder")
    compared = compare_effects(GridResults.load(store, name) for store in stores for name in store.list_plans())
    if not compared.effects:
        named = ", ".join(str(folder) for folder in folders)
        raise UserError(
            f"{option('folders', named)}: they have no change of FID in common, after other numbers of steps or on "
            "other data; valid: folders whose grids share levels, smoke runs left out"
        )
    folder = Path(to)
    folder.mkdir(parents=True, exist_ok=True)
    with FigurePool() as pool:
        names = [setting.name for setting in compared.settings]
        plot_compared_effects(names, compared.rows, FigurePath(folder / f"{COMPARISON}.png", pool=pool))
    write_atomically(folder / f"{COMPARISON}.csv", table_as_csv(compared.tabulate()))
    page = make_comparison_page(compared)
    write_atomically(folder / page.path, page.markdown)
    return folder / page.path


def make_comparison_page(compared: ComparedEffects) -> ComparisonPage:
    """Make the page, without its figure.

    Args:
        compared: the changes, at least one.
    """
    names = [setting.name for setting in compared.settings]
    return ComparisonPage(
        title=f"The same changes {listed(setting.place for setting in compared.settings)}",
        path=f"{COMPARISON}.md",
        sentences=list(lasting_sentences(compared)),
        effects=lay_out(
            [[escape_markdown(effect.name), *_cells(effect, compared.settings)] for effect in compared.effects],
            ["change", *map(escape_markdown, names)],
        ),
    )


def _cells(effect: ComparedEffect, settings: Sequence[Setting]) -> Iterator[str]:
    for setting in settings:
        if setting in effect.answers:
            _, at = effect.answers[setting]
            yield f"{decided_text(at)}, {num_seeds_text(at)}"
        else:
            yield "–"


def lasting_sentences(compared: ComparedEffects) -> Iterator[str]:
    """Say how many decisions of the first setting are the same in each other one, and which are not.

    Args:
        compared: the changes.
    """
    first = compared.settings[0]
    for setting in compared.settings[1:]:
        found, where = compared.count(first, setting), escape_markdown(setting.place)
        answers = [effect.answers[setting][1] for effect in compared.effects if setting in effect.answers]
        if max((answer.estimate.num_seeds for answer in answers), default=2) < 2:
            yield f"**Nothing is decided {where} yet:** one seed has no interval."
        if not found:
            continue
        yield (
            f"**{found['same']} of {count(found.total(), 'decision')}** made {escape_markdown(first.place)} are the "
            f"same {where}. Other decisions: {found['other']}. Inconclusive: {found['moved'] + found['undecided']}."
        )
        for words, kind in (
            (f"Other decisions {where}", "other"),
            (f"Inconclusive {where}, and the interval excludes the number {escape_markdown(first.place)}", "moved"),
            (f"Inconclusive {where}, and the interval holds that number", "undecided"),
        ):
            changed = [
                f"{escape_markdown(effect.name)} {decided_text(effect.answers[first][1])} → "
                f"{decided_text(effect.answers[setting][1])}"
                for effect in compared.effects
                if effect.lasts(first, setting) == kind
            ]
            if changed:
                yield f"{words}: {'; '.join(changed)}."
