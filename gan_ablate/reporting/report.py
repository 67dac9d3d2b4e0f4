"""The report of a results folder: its pages, the models of document pages and methods, and a paragraph for papers."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from urllib.parse import quote

from gan_ablate.analysis.pooling import compare_blocks
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.trajectories import tabulate_probes
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.grid import describe_preset, list_presets, load_document, load_study
from gan_ablate.design.plan import name_blocks
from gan_ablate.design.resolve import plan_run
from gan_ablate.design.run_fields import PROTOCOL_VERSION
from gan_ablate.errors import UserError, option
from gan_ablate.execution.executors.local import resolve_jobs
from gan_ablate.execution.store import Store
from gan_ablate.reporting.blocks_page import draw_blocks, write_blocks_page
from gan_ablate.reporting.comparison_page import COMPARISON
from gan_ablate.reporting.exports import render_html, seeds_text
from gan_ablate.reporting.formats import PAGE_NAME, MethodsPage, Page, count, fill_template, listed
from gan_ablate.reporting.front_page import FIGURE, draw_comparison, draw_front, make_front_page
from gan_ablate.reporting.grid_figures import PROBES_FILE, draw_figures
from gan_ablate.reporting.grid_page import write_grid_page
from gan_ablate.reporting.other_studies import OtherStudy, split_settings
from gan_ablate.reporting.plots import FigurePool
from gan_ablate.reporting.plots.style import FigurePath
from gan_ablate.reporting.plots.training import plot_probes
from gan_ablate.reporting.tables import verdicts_table
from gan_ablate.reporting.variant_tables import list_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gan_ablate.analysis.pooling import Blocks
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.grid import Document


DOCUMENTS = "documents"
"""The study of the documents' grids, and the folder of the documents' pages."""


def write_report(
    out: str | Path,
    *,
    figures_as_pdf: bool = False,
    beside: Sequence[str | Path] = (),
    progress: Callable[[str], None] | None = None,
    jobs: int | None = None,
) -> Path:
    """Rebuild ``report.md``, ``report.html`` and the pages of every grid in a results folder.

    >>> from gan_ablate import load_grid, plan, run_grid, write_report
    >>> runs = run_grid(plan(load_grid("beta1"), budget="smoke", seeds=1, steps=5, base="mlp"), "results")
    >>> write_report("results").as_posix()
    'results/report.md'

    Args:
        out: the results folder.
        figures_as_pdf: whether every figure is drawn as PDF for papers, and nothing else is written: 3.25 inches wide
            for a column, or 6.75 where there are several panels, with text of 7 and 8 points.
        beside: other results folders with the same questions, such as after other numbers of steps. The front page
            links them and says what they found. The folder remembers them; none keeps those of the last time.
        progress: called with the name of each page and figure that is finished: ``beta1``, ``beta1/effects.png``.
        jobs: how many processes draw figures; by default one per core. What they write does not depend on it.

    Returns:
        The path of ``report.md``, the front page.

    Raises:
        UserError: if the folder has no grid yet, or cannot be written to.
    """
    store = Store(Path(out))
    names = store.list_plans()
    if not names:
        raise UserError(
            f"{option('out', out)}: no grid was run into this folder yet; gan-ablate run --grid NAME does that"
        )
    store.check_writable()
    others = _load_others(store, beside)
    results = {name: GridResults.load(store, name) for name in names}
    block_of = _name_blocks(results)
    titles = {
        name: f"{of_grid.plan.grid.title} ({block_of[name]})" if block_of[name] else of_grid.plan.grid.title
        for name, of_grid in results.items()
    }
    say = progress or (lambda _: None)
    num_processes = resolve_jobs(jobs, "cpu")
    with FigurePool(num_processes, lambda path: say(path.relative_to(store.root).as_posix())) as pool:
        root = FigurePath(store.root, figures_as_pdf, pool)
        if figures_as_pdf:
            _draw_for_papers(results, titles, others, root)
            return store.root / PAGE_NAME
        pages: list[Page] = []
        for blocks, folder in _name_folders(compare_blocks(results.values())):
            pages.append(write_blocks_page(blocks, folder, root / folder))
            say(folder)
        has_figure = draw_front(results, titles, root / FIGURE)
        compared = draw_comparison(results, others, root / f"{COMPARISON}.png")
        for name in names:
            pages.append(write_grid_page(results[name], titles[name], root / name))
            say(name)
        documents = make_document_pages(results)
        front = make_front_page(
            results, block_of, pages, documents, has_figure=has_figure, others=others, compared=compared
        )
    written = [front, *pages, *documents, MethodsPage()]
    for page in written:
        write_atomically(store.root / page.path, page.markdown)
    write_atomically(store.root / "report.html", render_html(written, store.root))
    return store.root / front.path


BESIDE = "beside.json"
"""In a results folder: the paths, from there, of other folders with the same questions."""


def _load_others(store: Store, beside: Sequence[str | Path]) -> list[OtherStudy]:
    """Read other results folders, and remember where they are; those that are gone are left out unless named anew."""
    remembered = store.root / BESIDE
    for folder in beside:
        if Path(folder).resolve() == store.root.resolve():
            raise UserError(f"--beside {folder}: the same folder as --out; valid: another results folder")
        if not Store(Path(folder)).list_plans():
            raise UserError(f"--beside {folder}: no grid was run into this folder; valid: another results folder")
    if beside:
        places = [Path(os.path.relpath(folder, store.root)).as_posix() for folder in beside]
        write_atomically(remembered, json.dumps(list(dict.fromkeys(places))) + "\n")
    if not remembered.is_file():
        return []
    others: list[OtherStudy] = []
    for place in _read_places(remembered):
        other = Store(store.root / place)
        names = other.list_plans()
        if names:
            results = [GridResults.load(other, name) for name in names]
            others += split_settings(other.root.resolve().name, f"{quote(place)}/{PAGE_NAME}", results)
    return others


def _read_places(path: Path) -> list[str]:
    try:
        places = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as broken:
        raise UserError(f"{path}: cannot be read ({broken}); delete it, and name the folders with --beside") from None
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise UserError(f"{path}: valid: a list of paths of folders; delete it, and name the folders with --beside")
    return places


def _draw_for_papers(
    results: Mapping[str, GridResults], titles: Mapping[str, str], others: Sequence[OtherStudy], root: FigurePath
) -> None:
    for blocks, folder in _name_folders(compare_blocks(results.values())):
        draw_blocks(blocks, root / folder)
    draw_front(results, titles, root / FIGURE)
    draw_comparison(results, others, root / f"{COMPARISON}.png")
    for name, of_grid in results.items():
        if of_grid.records:
            draw_figures(of_grid, root / name)
            probes = tabulate_probes(of_grid.records)
            if not probes.empty:
                plot_probes(probes, root / name / PROBES_FILE)


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
    return verdicts_table(claim_verdicts, {}, {}, to_root="../../") if claim_verdicts else ""


class Citation(NamedTuple):
    """What a paper's methods section says of a results folder, and the BibTeX of what it cites, each a file's text."""

    methods: str
    references: str


def write_citation(out: str | Path, to: str | Path | None = None) -> tuple[Path, Path]:
    """Write how the runs of a results folder were made, scored and compared: ``methods.tex`` and ``references.bib``.

    >>> from gan_ablate import load_grid, plan, run_grid, write_citation
    >>> runs = run_grid(plan(load_grid("beta1"), budget="standard", seeds=1, steps=5, base="mlp"), "results")
    >>> [path.as_posix() for path in write_citation("results", "paper")]
    ['paper/methods.tex', 'paper/references.bib']

    Args:
        out: the results folder.
        to: the folder to write to; by default the results folder.

    Returns:
        The paths of both files.

    Raises:
        UserError: if the folder has no finished run that is more than a smoke run, or cannot be written to.
    """
    texts, folder = cite(out), Path(out if to is None else to)
    paths = folder / "methods.tex", folder / "references.bib"
    for path, text in zip(paths, texts, strict=True):
        try:
            write_atomically(path, text)
        except OSError as refused:
            raise UserError(f"{option('to', folder)}: cannot be written to ({refused.strerror})") from None
    return paths


def cite(out: str | Path) -> Citation:
    """Describe the runs of a results folder in LaTeX, with BibTeX for what it cites; smoke runs are left out."""
    store = Store(Path(out))
    every = [GridResults.load(store, name) for name in store.list_plans()]
    finished = [results for results in every if results.records]
    if not finished:
        raise UserError(
            f"{option('out', out)}: no run is finished in this folder yet; gan-ablate run --grid NAME does that"
        )
    cited = [results for results in finished if results.plan.budget != "smoke"]
    left_out = ", ".join(results.name for results in finished if results.plan.budget == "smoke")
    if not cited:
        raise UserError(
            f"{option('out', out)}: only smoke runs, which answer nothing ({left_out}); valid: runs of "
            f"{option('budget', 'standard')}"
        )
    notes = [r"% Written by gan-ablate cite. \input this file in the text; \bibliography needs references.bib."]
    notes += [f"% Left out, as smoke runs answer nothing: {left_out}."] if left_out else []
    # Checksums and names of settings do not break; a sloppy paragraph keeps them within a narrow column.
    text = "\n".join([r"\begin{sloppypar}", " ".join(_write_paragraph(cited).split()), r"\end{sloppypar}"])
    bib = resources.files("gan_ablate.reporting").joinpath("references.bib").read_text("utf-8")
    known = {key: entry.strip() for entry in bib.split("\n\n") for key in re.findall(r"^@\w+\{(.+?),", entry.strip())}
    keys = dict.fromkeys(key for found in re.findall(r"\\cite\{(.+?)\}", text) for key in found.split(","))
    references = "\n\n".join(known[key] for key in keys).replace("VERSION", metadata.version("gan-ablate"))
    return Citation("\n".join([*notes, text]) + "\n", references + "\n")


def _write_paragraph(every: list[GridResults]) -> str:
    environments = [record.environment for results in every for _, record in results.records]
    known = {
        name: listed(value for environment in environments if (value := environment.get(name)))
        for name in ("torch", "torchmetrics", "python", "cpu", "gpu", "revision")
    }
    commits = {environment.get("revision") for environment in environments} - {None, ""}
    settings = [list_settings(results) for results in every]
    shared = {name: Counter(one[name] for one in settings).most_common(1)[0][0] for name in settings[0]}
    grids = [
        {
            "title": results.plan.grid.title,
            "factors": ", ".join(results.plan.grid.factors).replace("_", " "),
            "size": f"{count(len(results.labels), 'variant')}, {count(len(results.runs), 'run')}, "
            + seeds_text(results.runs.groupby("variant")["seed"].nunique()),
            "differing": [text for name, text in of_grid.items() if text != shared[name] and text],
        }
        for results, of_grid in zip(every, settings, strict=True)
    ]
    return fill_template(
        "citation.tex.j2",
        version=metadata.version("gan-ablate"),
        protocol=PROTOCOL_VERSION,
        known=known,
        commits=f"{count(len(commits), 'commit')}, named in the records"
        if len(commits) > 2
        else f"commit{'s' * (len(commits) > 1)} {known['revision']}",
        machine=known["gpu"] or known["cpu"],
        shared=shared,
        grids=grids,
        is_scored=any(results.scored for results in every),
        intervals={results.plan.intervals for results in every},
        pairings={"paired" if results.design.is_paired else "unpaired" for results in every},
    )
