"""What is said of a data set before anything is trained: how many images it holds out, for how many features."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gan_ablate.design import datasets
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
    monkeypatch.setattr(datasets, "list_images", lambda _: [Path()] * (6 * num))
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


def test_a_users_extractor_is_part_of_a_runs_id_by_its_content(tmp_path: Path) -> None:
    grid = tmp_path / "mine.toml"
    grid.write_text(
        'title = "Mine"\nbase = "mlp"\n[factors.beta1]\nbaseline = "a"\nlevels.a = {}\nlevels.b.beta1 = 0.1'
    )
    (tmp_path / "my_eyes.py").write_text("def embed(images): ...")
    ids = set()
    for features in (None, "my_eyes:embed", {"kind": "module", "path": "my_eyes:embed", "size": 64}):
        planned = plan(load_grid(str(grid)), features=features, allow_code=True)
        assert planned.sources == ({} if features is None else {planned_code(planned): ("my_eyes.py",)})
        ids.add(planned.variants[0].config.run_id)
    assert len(ids) == 3
    (tmp_path / "my_eyes.py").write_text("def embed(images): pass")
    ids.add(plan(load_grid(str(grid)), features="my_eyes:embed", allow_code=True).variants[0].config.run_id)
    assert len(ids) == 4


def planned_code(planned: Plan) -> str:
    features = planned.baseline.config.scoring.features
    assert not isinstance(features, str)
    return features.code


def test_a_torchscript_file_is_found_beside_the_grid_or_from_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.pt").write_bytes(b"weights")
    text = (
        'title = "Mine"\nbase = "mlp"\nset.scoring.features = FEATURES\n[factors.beta1]\nbaseline = "a"\nlevels.a = {}'
    )
    (tmp_path / "mine.toml").write_text(
        text.replace("FEATURES", '{ kind = "torchscript", path = "net.pt" }') + "\nlevels.b.beta1 = 0.1"
    )
    beside = plan(load_grid(str(tmp_path / "mine.toml")), allow_code=True)
    given = plan(load_grid("beta1"), features=str(tmp_path / "net.pt"), allow_code=True)
    assert planned_code(beside) == planned_code(given)
    assert beside.folders == {planned_code(beside): str(tmp_path / "net.pt")}
    assert beside.baseline.config.scoring.features == given.baseline.config.scoring.features


@pytest.mark.parametrize(
    ("features", "is_allowed", "message"),
    [
        ("my_eyes:embed", False, "scoring.features.path = 'my_eyes:embed': code of yours; valid: with allow_code"),
        ("no_eyes:embed", True, "scoring.features.path = 'no_eyes': no such module"),
        ("none.pt", True, "no such file; valid: a TorchScript file"),
        (
            "resnet",
            True,
            'scoring.features = "resnet": valid: digits, fashion, objects, inception, none; of yours, kind = "module',
        ),
        (
            {"kind": "modul", "path": "a:b"},
            True,
            'valid: digits, fashion, objects, inception, none; of yours, kind = "module"',
        ),
        ({"kind": "module"}, True, "scoring.features.path is missing"),
        ({"kind": "module", "path": "my_eyes"}, True, 'scoring.features.path = "my_eyes": '),
        ({"kind": "module", "path": "my_eyes:embed", "size": 0}, True, "scoring.features.size = 0: "),
        ({"kind": "module", "path": "my_eyes:embed", "code": "x"}, True, "code: planning sets it; valid: leave it out"),
        ({"kind": "torchscript", "path": "net.pt", "width": 3}, True, "no such field"),
    ],
)
def test_an_extractor_that_cannot_be_had_is_one_line(
    tmp_path: Path, features: str | dict[str, object], is_allowed: bool, message: str
) -> None:
    (tmp_path / "my_eyes.py").write_text("def embed(images): ...")
    (tmp_path / "net.pt").write_bytes(b"weights")
    with pytest.raises(UserError, match=re.escape(message)):
        plan(load_grid("beta1"), features=features, allow_code=is_allowed)
