"""The report of a results folder: the front page, a page a grid, and all that they show, from the records alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gan_ablate.analysis.blocks import compare_blocks
from gan_ablate.analysis.estimates import CONFIDENCE, MIN_BOOTSTRAP_SEEDS
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.sequential import PRIOR_SEEDS
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.plan import name_blocks
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting.blocks_page import write_blocks_page
from gan_ablate.reporting.document_pages import make_document_pages
from gan_ablate.reporting.front_page import FIGURE, draw_front, make_front_page
from gan_ablate.reporting.grid_page import write_grid_page
from gan_ablate.reporting.html import MarkdownPage, render_html
from gan_ablate.reporting.page import Page
from gan_ablate.reporting.plots.style import FigurePath
from gan_ablate.reporting.variant_tables import definitions_table
from gan_ablate.scoring.scores import COLLAPSED_RECALL, COLLAPSED_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.analysis.blocks import Blocks


@dataclass(frozen=True, kw_only=True)
class MethodsPage(Page):
    """The model of the page on definitions and methods.

    Attributes:
        definitions: a table of the outcomes, as Markdown.
    """

    template: ClassVar[str] = "methods_page.md.j2"
    confidence: ClassVar[str] = f"{CONFIDENCE:.0%}"
    min_bootstrap_seeds: ClassVar[int] = MIN_BOOTSTRAP_SEEDS
    prior_seeds: ClassVar[float] = PRIOR_SEEDS
    collapsed_share: ClassVar[str] = f"{COLLAPSED_SHARE:.0%}"
    collapsed_recall: ClassVar[float] = COLLAPSED_RECALL

    definitions: str


def write_report(out: str | Path, *, figures_as_pdf: bool = False) -> Path:
    """Rebuild ``report.md``, ``report.html`` and the files of every grid that was run into a results folder.

    Args:
        out: the results folder.
        figures_as_pdf: whether each figure is also wanted as PDF, for papers.

    Returns:
        The path of ``report.md``, the front page.

    Raises:
        UserError: if nothing was run into that folder yet, or it cannot be written to.
    """
    store = Store(Path(out))
    names = store.list_plans()
    if not names:
        raise UserError(f"--out {out}: no grid was run into this folder yet; gan-ablate run --grid NAME does that")
    store.check_writable()
    results = {name: GridResults.load(store, name) for name in names}
    block_of = _name_blocks(results)
    titles = {
        name: of_grid.plan.grid.title + (f" ({block_of[name]})" if block_of[name] else "")
        for name, of_grid in results.items()
    }
    root = FigurePath(store.root, as_pdf=figures_as_pdf)
    pages: list[Page] = [
        write_blocks_page(blocks, folder, root / folder)
        for blocks, folder in _name_folders(compare_blocks(results.values()))
    ]
    has_figure = draw_front(results, titles, root / FIGURE)
    pages += [write_grid_page(results[name], titles[name], root / name) for name in names]
    documents = make_document_pages(results)
    front = make_front_page(results, block_of, pages, documents, has_figure=has_figure)
    methods = MethodsPage(title="Definitions and methods", path="methods.md", definitions=definitions_table())
    written = [MarkdownPage(page.title, page.path, page.markdown) for page in (front, *pages, *documents, methods)]
    for page in written:
        write_atomically(store.root / page.path, page.markdown)
    write_atomically(store.root / "report.html", render_html(written, store.root))
    return store.root / front.path


def _name_folders(comparisons: Sequence[Blocks]) -> list[tuple[Blocks, str]]:
    """Give every comparison of a grid's blocks a folder of its own: ``GRID@blocks``, ``GRID@blocks-2`` and so on."""
    seen = Counter[str]()
    named = []
    for blocks in comparisons:
        grid = blocks.results[0].plan.grid.name
        seen[grid] += 1
        named.append((blocks, f"{grid}@blocks" if seen[grid] == 1 else f"{grid}@blocks-{seen[grid]}"))
    return named


def _name_blocks(results: Mapping[str, GridResults]) -> dict[str, str]:
    """Name the block of every plan of a folder, where it is not its grid's only one."""
    block_of = {}
    for name, of_grid in results.items():
        plans = [other.plan for other in results.values() if other.plan.grid.name == of_grid.plan.grid.name]
        block_of[name] = dict(zip((plan.name for plan in plans), name_blocks(plans), strict=True))[name]
    return block_of
