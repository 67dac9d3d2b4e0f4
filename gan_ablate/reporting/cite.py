"""A paragraph on a results folder for the methods section of a paper, and the references that it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.content_hash import PROTOCOL_VERSION
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting.page import fill_template

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class CitedGrid:
    """What is said of a grid.

    Attributes:
        results: of the grid, at least one run of which is over.
        dataset_sha256: the first digits.
        num_seeds: at most of a variant.
    """

    results: GridResults
    dataset_sha256: str
    num_seeds: int


def cite(out: str | Path) -> str:
    r"""Write how the runs of a results folder were made, scored and compared, for the methods section of a paper.

    Args:
        out: the results folder.

    Returns:
        LaTeX with ``\cite`` commands, and below it the BibTeX entries that they name.

    Raises:
        UserError: if nothing was run into that folder yet.
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
    return CitedGrid(results, shas, max(results.runs.groupby("cell")["seed"].nunique()))


def _join(values: Iterable[str | None]) -> str:
    return " and ".join(dict.fromkeys(value for value in values if value))
