"""Results of many grids in, a page for each document out: its model, its command, its claims, what was measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gan_ablate.design.document import load_document
from gan_ablate.design.grid import describe_preset, list_presets
from gan_ablate.design.single import plan_run
from gan_ablate.design.study import load_study
from gan_ablate.reporting import tables
from gan_ablate.reporting.formats import count, number
from gan_ablate.reporting.page import PAGE_NAME, Page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.document import Document

STUDY = "documents"
FOLDER = "documents"


def document_pages(results: Mapping[str, GridResults]) -> list[Page]:
    """Make the pages; none where not every grid of the documents' study was run into the folder.

    Args:
        results: of every grid, by its folder's name.
    """
    if not set(load_study(STUDY).grids) <= results.keys():
        return []
    documents = ((name, document) for name in list_presets() if (document := load_document(name)) is not None)
    return [
        Page(document.title, f"{FOLDER}/{name}", [], _lines(name, document, results)) for name, document in documents
    ]


def _lines(name: str, document: Document, results: Mapping[str, GridResults]) -> list[str]:
    config = plan_run(name).config
    lines = [f"# {document.title}", "", f"*{describe_preset(name)}*", ""]
    lines += ["## Train it as the document does", "", f"    {document.command(name)}", ""]
    side = config.image_size
    settings = (
        f"{count(document.epochs, 'epoch')}, batches of {config.batch_size}, Adam at {config.lr_g:g} with β1 = "
        f"{config.beta1:g}, images of {side}×{side}. In a checkout, `python -m bench.printed {name}` runs the loop as "
        "it is printed beside the loop as it is meant."
    )
    lines += [settings, ""]
    lines += ["## What was repaired", "", document.repaired or "Nothing.", ""]
    own = _own_sentence(name, results)
    if own:
        lines += ["## What it comes to here", "", own, ""]
    judged = [
        (of_grid, judgement)
        for of_grid in results.values()
        for judgement in of_grid.verdicts.judgements()
        if judgement.claim.id in document.claims and not of_grid.plan.baseline.block
    ]
    if judged:
        judged.sort(key=lambda pair: pair[1].claim.order)
        table = tables.verdicts_table(judged, dict.fromkeys(results, ""), lambda grid: f"../../{grid}/{PAGE_NAME}")
        lines += ["## What its choices claim, and what was measured", "", *table, ""]
        lines += ["Measured on the study's own base and data set, not on this document's.", ""]
    return lines


def _own_sentence(name: str, results: Mapping[str, GridResults]) -> str | None:
    """Say what this very model scored, where a grid has it at its own settings."""
    for of_grid in results.values():
        plan = of_grid.plan
        own = plan_run(name, steps=plan.baseline.config.steps).config.run_id
        for place, cell in enumerate(plan.cells):
            if cell.config.run_id == own:
                row = of_grid.summary.iloc[place]
                if math.isfinite(row["fid"]):
                    return (
                        f"FID {number(row['fid'])} [{number(row['fid_low'])}, {number(row['fid_high'])}] after "
                        f"{cell.config.steps:,} steps on {cell.config.dataset}, {count(row['completed'], 'seed')}."
                    )
    return None
