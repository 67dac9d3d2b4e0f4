"""The report of a results folder: its pages, the models of document pages and methods, and a paragraph for papers."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gan_ablate.analysis.estimates import CONFIDENCE, MIN_BOOTSTRAP_SEEDS
from gan_ablate.analysis.pooling import compare_blocks
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.sequential import PRIOR_SEEDS
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.grid import describe_preset, list_presets, load_document, load_study
from gan_ablate.design.plan import name_blocks
from gan_ablate.design.resolve import plan_run
from gan_ablate.design.run_fields import PROTOCOL_VERSION
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting.blocks_page import write_blocks_page
from gan_ablate.reporting.exports import render_html
from gan_ablate.reporting.formats import PAGE_NAME, Page, fill_template
from gan_ablate.reporting.front_page import FIGURE, draw_front, make_front_page
from gan_ablate.reporting.grid_page import write_grid_page
from gan_ablate.reporting.plots.style import FigurePath
from gan_ablate.reporting.tables import verdicts_table
from gan_ablate.reporting.variant_tables import definitions_table
from gan_ablate.scoring.scores import COLLAPSED_RECALL, COLLAPSED_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gan_ablate.analysis.pooling import Blocks
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.grid import Document


DOCUMENTS = "documents"
"""The study of the documents' grids, and the folder of the documents' pages."""


def write_report(
    out: str | Path, *, figures_as_pdf: bool = False, progress: Callable[[str], None] | None = None
) -> Path:
    """Rebuild ``report.md``, ``report.html`` and the pages of every grid in a results folder.

    >>> from gan_ablate import load_grid, plan, run_grid, write_report
    >>> runs = run_grid(plan(load_grid("beta1"), budget="smoke", seeds=1, steps=5, base="mlp"), "results")
    >>> write_report("results").as_posix()
    'results/report.md'

    Args:
        out: the results folder.
        figures_as_pdf: whether each figure is also written as PDF, for papers.
        progress: called with the name of each page that is finished: ``beta1``.

    Returns:
        The path of ``report.md``, the front page.

    Raises:
        UserError: if the folder has no grid yet, or cannot be written to.
    """
    store = Store(Path(out))
    names = store.list_plans()
    if not names:
        raise UserError(f"--out {out}: no grid was run into this folder yet; gan-ablate run --grid NAME does that")
    store.check_writable()
    results = {name: GridResults.load(store, name) for name in names}
    block_of = _name_blocks(results)
    titles = {
        name: f"{of_grid.plan.grid.title} ({block_of[name]})" if block_of[name] else of_grid.plan.grid.title
        for name, of_grid in results.items()
    }
    root = FigurePath(store.root, as_pdf=figures_as_pdf)
    pages: list[Page] = [
        write_blocks_page(blocks, folder, root / folder)
        for blocks, folder in _name_folders(compare_blocks(results.values()))
    ]
    has_figure = draw_front(results, titles, root / FIGURE)
    for name in names:
        pages.append(write_grid_page(results[name], titles[name], root / name))
        if progress is not None:
            progress(name)
    documents = make_document_pages(results)
    front = make_front_page(results, block_of, pages, documents, has_figure=has_figure)
    methods = MethodsPage(title="Definitions and methods", path="methods.md", definitions=definitions_table())
    written = [front, *pages, *documents, methods]
    for page in written:
        write_atomically(store.root / page.path, page.markdown)
    write_atomically(store.root / "report.html", render_html(written, store.root))
    return store.root / front.path


def _name_folders(comparisons: Sequence[Blocks]) -> list[tuple[Blocks, str]]:
    """Name a folder for every comparison of a grid's blocks: ``GRID@blocks``, ``GRID@blocks-2`` and so on."""
    seen = Counter[str]()
    named = []
    for blocks in comparisons:
        grid = blocks.results[0].plan.grid.name
        seen[grid] += 1
        named.append((blocks, f"{grid}@blocks" if seen[grid] == 1 else f"{grid}@blocks-{seen[grid]}"))
    return named


def _name_blocks(results: Mapping[str, GridResults]) -> dict[str, str]:
    """Name the block of every plan; empty for the only block of a grid."""
    block_of = {}
    for name, of_grid in results.items():
        plans = [other.plan for other in results.values() if other.plan.grid.name == of_grid.plan.grid.name]
        block_of[name] = dict(zip((plan.name for plan in plans), name_blocks(plans), strict=True))[name]
    return block_of


@dataclass(frozen=True, kw_only=True)
class MethodsPage(Page):
    """The model of the page on definitions and methods.

    Attributes:
        definitions: a Markdown table of the outcomes.
    """

    template: ClassVar[str] = "methods_page.md.j2"
    confidence: ClassVar[str] = f"{CONFIDENCE:.0%}"
    min_bootstrap_seeds: ClassVar[int] = MIN_BOOTSTRAP_SEEDS
    prior_seeds: ClassVar[float] = PRIOR_SEEDS
    collapsed_share: ClassVar[str] = f"{COLLAPSED_SHARE:.0%}"
    collapsed_recall: ClassVar[float] = COLLAPSED_RECALL

    definitions: str


@dataclass(frozen=True, kw_only=True)
class DocumentPage(Page):
    """The model of the page on a document.

    Attributes:
        preset: the name of the document's model.
        description: of the preset.
        document: with its command and its repairs.
        config: of the preset.
        score: the preset's row of a grid's summary, with ``steps`` and ``dataset``; None where no grid has it.
        verdicts: a Markdown table of the document's claims; empty without a verdict.
    """

    template: ClassVar[str] = "document_page.md.j2"

    preset: str
    description: str
    document: Document
    config: RunConfig
    score: Mapping[str, object] | None
    verdicts: str


def make_document_pages(results: Mapping[str, GridResults]) -> list[DocumentPage]:
    """Make the pages on documents; none unless the folder has every grid of the documents' study.

    Args:
        results: of every grid, by the name of its folder.
    """
    if not set(load_study(DOCUMENTS).grids) <= results.keys():
        return []
    documents = ((name, document) for name in list_presets() if (document := load_document(name)) is not None)
    return [_make_document_page(name, document, results) for name, document in documents]


def _make_document_page(preset: str, document: Document, results: Mapping[str, GridResults]) -> DocumentPage:
    return DocumentPage(
        title=document.title,
        path=f"{DOCUMENTS}/{preset}/{PAGE_NAME}",
        preset=preset,
        description=describe_preset(preset),
        document=document,
        config=plan_run(preset).config,
        score=_find_score(preset, results),
        verdicts=_tabulate_verdicts(document, results),
    )


def _find_score(preset: str, results: Mapping[str, GridResults]) -> Mapping[str, object] | None:
    for of_grid in results.values():
        plan = of_grid.plan
        run_id = plan_run(preset, steps=plan.baseline.config.steps).config.run_id
        for place, variant in enumerate(plan.variants):
            row = of_grid.summary.iloc[place]
            if variant.config.run_id == run_id and math.isfinite(row["fid"]):
                return {**row, "steps": variant.config.steps, "dataset": variant.config.dataset}
    return None


def _tabulate_verdicts(document: Document, results: Mapping[str, GridResults]) -> str:
    claim_verdicts = [
        (of_grid, claim_verdict)
        for of_grid in results.values()
        for claim_verdict in of_grid.verdicts.claim_verdicts
        if claim_verdict.claim.id in document.claims and not of_grid.plan.baseline.block
    ]
    claim_verdicts.sort(key=lambda pair: pair[1].claim.order)
    return verdicts_table(claim_verdicts, {}, to_root="../../") if claim_verdicts else ""


@dataclass(frozen=True)
class CitedGrid:
    """What a citation says of a grid.

    Attributes:
        results: of a grid with at least one finished run.
        dataset_sha256: the first 12 digits.
        num_seeds: the most seeds of a variant.
    """

    results: GridResults
    dataset_sha256: str
    num_seeds: int


def cite(out: str | Path) -> str:
    r"""Write how the runs of a results folder were made, scored and compared, for the methods section of a paper.

    Args:
        out: the results folder.

    Returns:
        LaTeX with ``\cite`` commands, followed by their BibTeX entries.

    Raises:
        UserError: if the folder has no finished run.
    """
    store = Store(Path(out))
    every = [GridResults.load(store, name) for name in store.list_plans()]
    every = [results for results in every if results.records]
    if not every:
        raise UserError(f"--out {out}: no run is finished in this folder yet; gan-ablate run --grid NAME does that")
    text = " ".join(_write_paragraph(every).split())
    bib = resources.files("gan_ablate.reporting").joinpath("references.bib").read_text("utf-8")
    known = {key: entry for entry in bib.split("\n\n") for key in re.findall(r"^@\w+\{(.+?),", entry)}
    cited = [key for keys in re.findall(r"\\cite\{(.+?)\}", text) for key in keys.split(",")]
    return "\n\n".join([text, *(known[key].strip() for key in dict.fromkeys(cited))]) + "\n"


def _write_paragraph(every: list[GridResults]) -> str:
    environments = [record.environment for results in every for _, record in results.records]
    known = {
        name: _join(environment.get(name) for environment in environments)
        for name in ("torch", "torchmetrics", "python", "cpu", "gpu", "revision")
    }
    return fill_template(
        "citation.tex.j2",
        version=metadata.version("gan-ablate"),
        protocol=PROTOCOL_VERSION,
        known=known,
        machine=known["gpu"] or known["cpu"],
        grids=[_describe_grid(results) for results in every],
        intervals={results.plan.intervals for results in every},
    )


def _describe_grid(results: GridResults) -> CitedGrid:
    shas = _join(record.dataset_sha256[:12] for _, record in results.records if record.dataset_sha256)
    return CitedGrid(results, shas, max(results.runs.groupby("variant")["seed"].nunique()))


def _join(values: Iterable[str | None]) -> str:
    return " and ".join(dict.fromkeys(value for value in values if value))
