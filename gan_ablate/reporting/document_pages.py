"""The pages on documents: the model of each document, its command, its claims, and what was measured of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gan_ablate.design.grid import describe_preset, list_presets
from gan_ablate.design.shipped import load_document, load_study
from gan_ablate.design.single_run import plan_run
from gan_ablate.reporting.page import PAGE_NAME, Page
from gan_ablate.reporting.tables import verdicts_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.shipped import Document

STUDY = "documents"
FOLDER = "documents"


@dataclass(frozen=True, kw_only=True)
class DocumentPage(Page):
    """The model of the page on a document.

    Attributes:
        preset: the name of the document's model.
        description: of the preset.
        document: its command, and what was repaired.
        config: of the preset.
        score: the columns of a summary, ``steps`` and ``dataset`` of the model at its own settings; None where no grid
            has it.
        verdicts: a table of the document's claims, as Markdown; empty where none was judged.
    """

    template: ClassVar[str] = "document_page.md.j2"

    preset: str
    description: str
    document: Document
    config: RunConfig
    score: Mapping[str, object] | None
    verdicts: str


def make_document_pages(results: Mapping[str, GridResults]) -> list[DocumentPage]:
    """Make the pages; none where not every grid of the documents' study was run into the folder.

    Args:
        results: of every grid, by its folder's name.
    """
    if not set(load_study(STUDY).grids) <= results.keys():
        return []
    documents = ((name, document) for name in list_presets() if (document := load_document(name)) is not None)
    return [_make_page(name, document, results) for name, document in documents]


def _make_page(preset: str, document: Document, results: Mapping[str, GridResults]) -> DocumentPage:
    return DocumentPage(
        title=document.title,
        path=f"{FOLDER}/{preset}/{PAGE_NAME}",
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
        for place, cell in enumerate(plan.cells):
            row = of_grid.summary.iloc[place]
            if cell.config.run_id == run_id and math.isfinite(row["fid"]):
                return {**row, "steps": cell.config.steps, "dataset": cell.config.dataset}
    return None


def _tabulate_verdicts(document: Document, results: Mapping[str, GridResults]) -> str:
    judgements = [
        (of_grid, judgement)
        for of_grid in results.values()
        for judgement in of_grid.verdicts.judgements()
        if judgement.claim.id in document.claims and not of_grid.plan.baseline.block
    ]
    judgements.sort(key=lambda pair: pair[1].claim.order)
    return verdicts_table(judgements, {}, to_root="../../") if judgements else ""
