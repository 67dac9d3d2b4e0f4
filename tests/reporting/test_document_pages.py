from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from gan_ablate.design.document import load_document
from gan_ablate.design.grid import list_presets
from gan_ablate.design.planning import Cell, plan
from gan_ablate.design.single import plan_run
from gan_ablate.design.study import load_grids
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting.report import write_report
from tests.synthetic import save_runs


def fid(cell: Cell, seed: int) -> float:
    worse = sum(level != cell.config.dataset for level in cell.levels.values()) * (len(cell.label) % 5)
    return (60.0 if cell.trained.generator.kind == "mlp" else 20.0) * math.exp(0.1 * worse + 0.01 * math.sin(seed))


@pytest.mark.usefixtures("no_figures")
def test_each_document_has_a_page_with_its_command_and_verdicts(tmp_path: Path) -> None:
    for grid in load_grids(["documents"]):
        planned = plan(grid, seeds=3)
        save_runs(Store(tmp_path), planned, fid)
        Store(tmp_path).save_plan(planned)
    front = write_report(tmp_path).read_text("utf-8")
    for preset in list_presets():
        document = load_document(preset)
        page = tmp_path / "documents" / preset / "report.md"
        assert page.exists() is (document is not None)
        if document is not None:
            text = page.read_text("utf-8")
            assert f"    {document.command(preset)}\n" in text
            assert f"(documents/{preset}/report.md)" in front
            assert all(f"{claim}: " in text for claim in document.claims if claim[:3] not in ("C16", "C17", "C18"))
    mlp = (tmp_path / "documents" / "mlp" / "report.md").read_text("utf-8")
    assert "G learns, and fakes have label 0" in mlp
    assert re.search(r"FID \d+\.\d \[\d+\.?\d*, \d+\.?\d*\] after 1,500 steps on mnist-10k, 3 seeds", mlp)
    rows = [line for line in front.splitlines() if line.startswith("| C")]
    assert len(rows) == 22  # C12 and C20 in two halves


@pytest.mark.usefixtures("no_figures")
def test_a_few_grids_have_no_pages_on_documents(tmp_path: Path) -> None:
    for grid in load_grids(["dropout", "beta1"]):
        planned = plan(grid, seeds=2)
        save_runs(Store(tmp_path), planned, fid)
    assert "Document by document" not in write_report(tmp_path).read_text("utf-8")
    assert not (tmp_path / "documents").exists()


def test_what_a_document_trains_can_be_planned() -> None:
    steps = {"mlp": 9_375, "dcgan-upsample": 187_500, "dcgan-64": 18_750}
    for preset, expected in steps.items():
        document = load_document(preset)
        assert document is not None
        single = plan_run(preset, dataset=document.dataset, epochs=document.epochs, seed=document.seed)
        assert single.config.steps == expected
        assert single.config.dataset == "mnist"


def test_a_single_run_is_that_of_a_grid() -> None:
    (grid,) = load_grids(["architecture"])
    planned = plan(grid)
    assert plan_run("mlp", seed=3).config.run_id == planned.baseline.with_seed(3).run_id
    with pytest.raises(UserError, match="--epochs 1: valid: epochs or --steps, not both"):
        plan_run("mlp", epochs=1, steps=1)


def test_a_folder_is_counted_without_what_is_held_out(shared_data: Path) -> None:
    folder = next(path for path in shared_data.iterdir() if any(path.rglob("*.jpg")) or any(path.rglob("*.png")))
    images = sum(len(list(folder.rglob(f"*.{suffix}"))) for suffix in ("jpg", "png"))
    single = plan_run("dcgan-faces", dataset=f"folder:{folder}", epochs=1, overrides=["batch_size=2"])
    assert single.config.steps == (images - images // 6) // 2
    assert single.notes
