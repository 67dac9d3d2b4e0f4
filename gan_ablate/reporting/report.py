"""Records in, the front page, each grid's page and all that they show out; nothing but the run folders is read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.analysis.blocks import compare_blocks
from gan_ablate.analysis.results import GridResults
from gan_ablate.design.blocks import name_blocks
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.files import write_atomically
from gan_ablate.reporting import blocks, plots, tables
from gan_ablate.reporting.documents import document_pages
from gan_ablate.reporting.front import FIGURE, TITLE, draw_front, front_lines
from gan_ablate.reporting.html import Sheet, render_html
from gan_ablate.reporting.methods import METHODS
from gan_ablate.reporting.page import PAGE_NAME, write_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.analysis.blocks import Blocks

METHODS_TITLE = "Definitions and methods"


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
    places = _places(results)
    titles = {
        name: of_grid.plan.grid.title + (f" ({places[name]})" if places[name] else "")
        for name, of_grid in results.items()
    }
    with plots.also_as_pdf(wanted=figures_as_pdf):
        pages = [
            blocks.write_blocks_page(of_blocks, f"{of_blocks.results[0].plan.grid.name}@{place}")
            for of_blocks, place in _number_blocks(compare_blocks(results.values()))
        ]
        has_figure = draw_front(results, titles, store.root / FIGURE)
    of_documents = document_pages(results)
    pages += [write_page(results[name], titles[name], figures_as_pdf=figures_as_pdf) for name in names]
    front = "\n".join(front_lines(results, places, pages, of_documents, has_figure=has_figure)).rstrip() + "\n"
    methods = "\n".join([f"# {METHODS_TITLE}", "", METHODS, *tables.definitions_table()]).rstrip() + "\n"
    texts = {page.folder: "\n".join(page.lines).rstrip() + "\n" for page in (*pages, *of_documents)}
    for folder, text in texts.items():
        write_atomically(store.root / folder / PAGE_NAME, text)
    write_atomically(store.root / "methods.md", methods)
    write_atomically(store.root / "report.md", front)
    sheets = [Sheet(TITLE, "report.md", front)]
    sheets += [Sheet(page.title, f"{page.folder}/{PAGE_NAME}", texts[page.folder]) for page in (*pages, *of_documents)]
    sheets.append(Sheet(METHODS_TITLE, "methods.md", methods))
    write_atomically(store.root / "report.html", render_html(sheets, store.root))
    return store.root / "report.md"


def _number_blocks(comparisons: Sequence[Blocks]) -> list[tuple[Blocks, str]]:
    """Give every comparison of a grid's blocks a folder of its own: ``blocks``, ``blocks-2`` and so on."""
    seen = Counter[str]()
    numbered = []
    for of_blocks in comparisons:
        name = of_blocks.results[0].plan.grid.name
        seen[name] += 1
        numbered.append((of_blocks, "blocks" if seen[name] == 1 else f"blocks-{seen[name]}"))
    return numbered


def _places(results: Mapping[str, GridResults]) -> dict[str, str]:
    """Name the block of every plan of a folder, where it is not its grid's only one."""
    places = {}
    for name, of_grid in results.items():
        plans = [other.plan for other in results.values() if other.plan.grid.name == of_grid.plan.grid.name]
        places[name] = dict(zip((plan.name for plan in plans), name_blocks(plans), strict=True))[name]
    return places
