from __future__ import annotations

import math

import pytest

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import list_presets
from gan_ablate.design.plan import Cell, plan
from gan_ablate.design.shipped import load_document, load_grids
from gan_ablate.reporting.document_pages import DocumentPage, make_document_pages
from gan_ablate.reporting.front_page import make_front_page
from tests.reporting.example import check_golden
from tests.synthetic import make_results


def fid(cell: Cell, seed: int) -> float:
    worse = sum(level != cell.config.dataset for level in cell.levels.values()) * (len(cell.label) % 5)
    return (60.0 if cell.trained.generator.kind == "mlp" else 20.0) * math.exp(0.1 * worse + 0.01 * math.sin(seed))


def make_results_of(grids: list[str]) -> dict[str, GridResults]:
    results = (make_results(plan(grid, seeds=2), fid) for grid in load_grids(grids))
    return {of_grid.name: of_grid for of_grid in results}


@pytest.fixture(scope="module")
def results() -> dict[str, GridResults]:
    return make_results_of(["documents"])


@pytest.fixture(scope="module")
def pages(results: dict[str, GridResults]) -> dict[str, DocumentPage]:
    return {page.preset: page for page in make_document_pages(results)}


def test_page_of_the_mlp_is_golden(pages: dict[str, DocumentPage]) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden file anew."""
    check_golden("document_page.md", pages["mlp"].markdown)


def test_each_document_has_a_page_with_its_command_and_verdicts(pages: dict[str, DocumentPage]) -> None:
    documents = {preset: document for preset in list_presets() if (document := load_document(preset)) is not None}
    assert pages.keys() == documents.keys()
    for preset, document in documents.items():
        page = pages[preset]
        assert page.path == f"documents/{preset}/report.md"
        assert f"    {document.command(preset)}\n" in page.markdown
        assert document.repaired in page.markdown
        assert all(f"{claim}: " in page.verdicts for claim in document.claims if claim[:3] not in ("C16", "C17", "C18"))


def test_pages_say_what_differs_from_the_printed_code(pages: dict[str, DocumentPage]) -> None:
    assert "`--set loss.computed_from=probabilities` computes it as printed" in pages["mlp"].markdown
    assert "`--set generator_gradient=accumulated` steps along the sum, as printed" in pages["dcgan-faces"].markdown
    assert "batches of 100, Adam at 0.0002 with β1 = 0.9" in pages["mlp-dropout"].markdown


def test_front_page_lists_every_claim_of_the_documents_and_their_pages(
    results: dict[str, GridResults], pages: dict[str, DocumentPage]
) -> None:
    front = make_front_page(results, dict.fromkeys(results, ""), [], list(pages.values()), has_figure=False).markdown
    rows = [line for line in front.splitlines() if line.startswith("| C")]
    assert len(rows) == 24  # C12 in two parts, C20 in four
    assert all(f"(documents/{preset}/report.md)" in front for preset in pages)


def test_score_is_that_of_the_model_at_its_own_settings(
    results: dict[str, GridResults], pages: dict[str, DocumentPage]
) -> None:
    score = pages["mlp"].score
    assert score is not None
    assert (score["steps"], score["dataset"], score["completed"]) == (1_500, "mnist-10k", 2)
    summary = results["architecture"].summary.set_index("cell")
    assert score["fid"] == summary.loc["architecture mlp", "fid"]


def test_few_grids_have_no_pages_on_documents() -> None:
    assert make_document_pages(make_results_of(["dropout", "beta1"])) == []
