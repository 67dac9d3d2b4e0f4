"""What is said of a data set before anything is trained: how many images it holds out, for how many features."""

from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.design import resolve as resolving
from gan_ablate.design.datasets import MIN_REFERENCE, NUM_FEATURES, KnownFolders
from gan_ablate.design.grid import load_document, load_grid, load_grids
from gan_ablate.design.plan import Plan, plan
from gan_ablate.design.resolve import plan_run
from gan_ablate.errors import UserError
from gan_ablate.scoring.extractors import ClassifierExtractor, InceptionExtractor
from gan_ablate.scoring.metrics import NUM_NEIGHBOURS


def plan_folder(folder: Path, num: int) -> Plan:
    """Plan runs on as many images, of no content: planning decodes none."""
    folder.mkdir()
    for i in range(num):
        (folder / f"{i}.png").write_bytes(b"%d" % i)
    return plan(load_grid("beta1"), dataset=f"folder:{folder}", features="inception")


def test_few_held_out_images_give_a_note_in_the_plan(tmp_path: Path) -> None:
    (note,) = plan_folder(tmp_path / "few", 600).notes
    assert note == (
        f"folder:{tmp_path}/few: 600 images, of which 100 are held out to compare with: they are too few for 2,048 "
        "features of inception, so FID is too high and compares only with FIDs against the same images; better: "
        "24,576 images, 4,096 of them held out"
    )
    single = plan_run("dcgan-28", dataset=f"folder:{tmp_path}/few", features="inception")
    assert note in single.notes


def test_too_few_held_out_images_for_any_score_are_refused_at_planning(tmp_path: Path) -> None:
    assert len(plan_folder(tmp_path / "enough", 36).notes) == 1
    with pytest.raises(UserError) as wrong:
        plan_folder(tmp_path / "few", 35)
    assert str(wrong.value) == (
        f"folder:{tmp_path}/few: 35 images, of which 5 are held out to compare with; scores need 6; "
        'valid: at least 36 images, or scoring.features = "none"'
    )
    assert len(plan(load_grid("beta1"), dataset=f"folder:{tmp_path}/few").notes) == 1  # that they are not scored


@pytest.mark.parametrize(("num", "words"), [(4_095, "are few for"), (2_048, "are too few for"), (4_096, "")])
def test_the_smallest_reference_is_twice_the_features(num: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "list_images", lambda _: [Path()] * (6 * num))
    note = resolving.describe_reference("folder:x@0", "inception", KnownFolders({"folder:x@0": "x"}))
    assert words in note
    assert bool(note) is bool(words)


def test_a_ball_needs_as_many_neighbours_as_metrics_look_at() -> None:
    assert MIN_REFERENCE == NUM_NEIGHBOURS + 1
    assert NUM_FEATURES["digits"] == ClassifierExtractor.num_features
    assert NUM_FEATURES["inception"] == InceptionExtractor.num_features


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
    assert plan_run("mlp", seed=3).config.run_id == planned.variants[1].with_seed(3).run_id
    with pytest.raises(UserError, match="epochs=1: valid: epochs or steps, not both"):
        plan_run("mlp", epochs=1, steps=1)


def test_a_folder_is_counted_without_what_is_held_out(shared_data: Path) -> None:
    folder = next(path for path in shared_data.iterdir() if any(path.rglob("*.jpg")) or any(path.rglob("*.png")))
    images = sum(len(list(folder.rglob(f"*.{suffix}"))) for suffix in ("jpg", "png"))
    single = plan_run("dcgan-faces", dataset=f"folder:{folder}", epochs=1, overrides=["batch_size=2"])
    assert single.config.steps == (images - images // 6) // 2
    assert single.notes
