from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.design.plan import plan
from gan_ablate.design.shipped import load_document, load_grids
from gan_ablate.design.single_run import plan_run
from gan_ablate.errors import UserError


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
