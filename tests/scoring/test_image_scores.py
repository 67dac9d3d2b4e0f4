"""Sets of images from outside, scored as runs are: in any order, of any size, with what is odd about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid

import gan_ablate
from gan_ablate import score_few_images, score_images
from gan_ablate.atomic_io import user_cache
from gan_ablate.errors import UserError
from gan_ablate.scoring import image_scores as images_module
from gan_ablate.scoring import scorer as score_module
from gan_ablate.scoring.extractors import Features, build_extractor
from gan_ablate.scoring.image_scores import SetScorer
from gan_ablate.scoring.image_sets import order_by_content
from gan_ablate.scoring.metrics import build_manifold, frechet_distance, neighbour_scores
from gan_ablate.scoring.oddities import SampleGrid, describe_copies, describe_range, find_grid
from gan_ablate.scoring.scorer import Scorer, load_real_features
from gan_ablate.training.data import ImageDataset, load_dataset, resize
from tests.features import warm

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 28, 28)).astype(np.uint8)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return load_dataset("mnist-10k", 28, tmp_path_factory.mktemp("data"))


@pytest.fixture
def few_digits(digits: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with a fifth of the digits, which is quicker."""

    def load_few(name: str, size: int, *_: object) -> ImageDataset:
        training, held_out = digits.images[:2_000], digits.reference[:2_000]
        return ImageDataset(name, resize(training, size), None, held_out, "f" * 64, "")

    monkeypatch.setattr(images_module, "load_dataset", load_few)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return warm(tmp_path / "out")


@pytest.mark.slow
def test_scores_are_those_of_a_run_with_the_floor_beside_them(out: Path, digits: ImageDataset) -> None:
    images = order_by_content(digits.images[:1_500])
    scored = score_images(images, out=out)
    scorer = Scorer(digits, build_extractor("digits", torch.device("cpu")), out / "cache")
    expected = scorer.score(images)
    assert scored.as_row() == expected.as_row()
    assert scored.floor.model_copy(update={"seconds": 0}) == scorer.floor(1_500).model_copy(update={"seconds": 0})
    assert scored.image_size == 28
    assert scored.num_images == 1_500
    assert scored.fid < 0.5 < score_images(digits.images[:1_500] // 2, out=out).fid
    assert gan_ablate.score_images is score_images


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_images_of_another_size_have_another_floor(tmp_path: Path, digits: ImageDataset) -> None:
    small = torch.nn.functional.avg_pool2d(digits.images[:1_280].float(), 2).byte()
    scored = score_images(small, out=tmp_path / "out")
    assert scored.image_size == 14
    assert scored.floor.fid > score_images(digits.images[:1_280], out=tmp_path / "out").floor.fid


@pytest.mark.slow
def test_a_sorted_set_scores_as_a_shuffled_one_to_the_last_digit(
    out: Path, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts that scores look at are smaller than the set, as with 10,000 images."""
    monkeypatch.setattr(score_module, "NEIGHBOUR_SAMPLES", 600)
    monkeypatch.setattr(score_module, "NEAREST_SAMPLES", 300)
    assert digits.labels is not None
    images, labels = digits.images[:1_400], digits.labels[:1_400]
    first = score_images(images[labels.argsort()], out=out)
    second = score_images(images.numpy()[RNG.permutation(1_400)], out=out)
    assert first.model_copy(update={"seconds": 0, "floor": None}) == second.model_copy(
        update={"seconds": 0, "floor": None}
    )
    # Independently: recall of a random part, as the set's own order has none, within sampling error.
    extractor = build_extractor("digits", torch.device("cpu"))
    real = load_real_features(digits, extractor, out / "cache")
    of_mixed = neighbour_scores(real.manifold, build_manifold(extractor(images[:600]).vectors))
    assert first.recall == pytest.approx(of_mixed.recall, abs=0.05)
    of_sorted = neighbour_scores(real.manifold, build_manifold(extractor(images[labels.argsort()][:600]).vectors))
    assert of_sorted.recall < 0.7 * first.recall  # the first classes alone


@pytest.mark.slow
def test_subset_of_samples_is_independent_of_order(out: Path, digits: ImageDataset) -> None:
    images = digits.images[:1_400]
    first, second = (score_images(x, num_samples=1_300, out=out) for x in (images, images.flip(0)))
    assert (first.num_samples, first.num_images, first.floor.num_samples) == (1_300, 1_400, 1_300)
    assert first.as_row() == second.as_row()
    with pytest.raises(UserError, match="num_samples 1500: valid: from 1,280 to the 1,400 images there are"):
        score_images(images, num_samples=1_500, out=out)


@pytest.mark.slow
def test_the_reference_against_itself_is_zero(out: Path, digits: ImageDataset) -> None:
    with pytest.warns(UserWarning, match="images: FID is 0 within rounding: these are the held-out images themselves"):
        scored = score_images(digits.reference.flip(0), out=out)
    assert scored.fid == 0
    assert scored.fid_sampling_error is None
    assert min(scored.precision, scored.recall) > 0.95  # of random halves


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_grids_of_samples_are_refused(out: Path, digits: ImageDataset) -> None:
    stream = torch.Generator().manual_seed(0)
    chosen = torch.randint(10_000, (1_280, 9), generator=stream)
    grids = torch.stack([make_grid(digits.images[i], nrow=3, padding=2)[:1] for i in chosen])
    with pytest.raises(UserError) as wrong:
        score_images(grids, out=out)
    what = "each picture is a grid of 3×3 samples of 28×28 pixels; valid: one image a picture"
    assert str(wrong.value) == f"images: 92×92 pixels: {what}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda x: x[:1].expand(1_280, -1, -1, -1), "1,279 of 1,280 images are exact copies of others; 1 distinct"),
        (lambda x: 255 - x, "pixel values look inverted: 255 - x would be like the real ones"),
        (
            lambda x: ((x / 127.5 - 1) * 127).to(torch.int8).view(torch.uint8),
            "pixel values look wrapped around: shifted by 128 they would be like the real ones; saved as int8?",
        ),
    ],
)
def test_what_is_odd_is_a_warning(out: Path, digits: ImageDataset, change, note: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.warns(UserWarning, match=r"^images: ") as found:
        scored = score_images(change(digits.images[:1_280]), out=out)
    assert [str(one.message) for one in found] == [f"images: {note}"]
    assert scored.notes == (note,)


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits")
def test_features_are_kept_for_the_user_and_not_where_the_caller_is(
    tmp_path: Path, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.iterdir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    score_images(digits.images[:1_280])
    assert sorted(tmp_path.iterdir()) == [*before, tmp_path / "cache-home"]
    kept = sorted(file.suffix for file in (tmp_path / "cache-home" / "gan-ablate").rglob("*") if file.is_file())
    assert kept == [".safetensors", ".scores"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert user_cache() is None
    assert score_images(digits.images[:1_280]).num_samples == 1_280


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def write_pictures(folder: Path, num: int) -> None:
    folder.mkdir()
    for i in range(num):
        Image.fromarray(RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(folder / f"{i}.png")


def test_too_small_reference_is_refused_before_scoring(tmp_path: Path) -> None:
    write_pictures(tmp_path / "few", 42)
    (tmp_path / "w.pth").touch()
    scorer = SetScorer(f"folder:{tmp_path}/few", inception_weights=tmp_path / "w.pth")
    (note,) = scorer.notes
    assert note == (
        f"folder:{tmp_path}/few: 42 images, of which 7 are held out to compare with: they are too few for 2,048 "
        "features of inception, so FID is too high and compares only with FIDs against the same images; better: "
        "24,576 images, 4,096 of them held out"
    )
    for i in range(36, 42):
        (tmp_path / "few" / f"{i}.png").unlink()
    (tmp_path / "few" / "0.png").unlink()
    with pytest.raises(UserError, match=r"35 images, of which 5 are held out .*valid: at least 36 images, or scoring"):
        SetScorer(f"folder:{tmp_path}/few", inception_weights=tmp_path / "w.pth")


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_gpu_that_is_not_there_is_one_line(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match=f"device={device!r}: this machine has 0 CUDA devices; use cpu"):
        score_images(GREY, device=device)
    with pytest.raises(UserError, match="device='tpu': not supported; valid: cpu, cuda"):
        score_images(GREY, device="tpu")


def test_too_few_images_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images: 6 images; valid: at least 200"):
        score_images(GREY, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("few_digits")
def test_few_images_have_a_kid_with_its_interval_and_no_other_score(tmp_path: Path, digits: ImageDataset) -> None:
    few = digits.images[-300:]
    need = "300 images, fewer than the 1,280 that FID needs for 64 features: KID alone"
    with pytest.raises(UserError, match=f"{need}.*score_few_images"):
        score_images(few, out=tmp_path / "out")
    real, halved = (score_few_images(images, out=tmp_path / "out") for images in (few, few // 2))
    assert (real.fid, real.num_samples, real.floor.num_samples) == (None, 300, 1_280)
    assert real.kid_low < real.kid < real.kid_high < halved.kid_low < halved.kid < halved.kid_high
    (scored,) = [SetScorer(out=tmp_path / "out").score(order) for order in [SetScorer().read(few)]]
    assert scored.as_row() == real.as_row()
    assert need in scored.notes[-1]


@pytest.mark.usefixtures("few_digits")
def test_sets_are_scored_with_a_users_extractor(tmp_path: Path, digits: ImageDataset) -> None:
    """Sixteen features need 32 images for FID."""
    (tmp_path / "my_patches.py").write_text(PATCHES)
    where = {"features": {"kind": "module", "path": "my_patches:embed"}, "out": tmp_path / "out", "allow_code": True}
    scored = score_images(digits.images[:200], **where)  # type: ignore[arg-type]
    expected = functional.adaptive_avg_pool2d(digits.images[:200] / 255, 4).flatten(1)
    reference = functional.adaptive_avg_pool2d(digits.reference[:2_000] / 255, 4).flatten(1)
    assert scored.fid == pytest.approx(frechet_distance(reference, expected), rel=1e-3)
    assert scored.num_samples == 200
    with pytest.raises(UserError, match="code of yours; valid: with allow_code"):
        score_images(digits.images[:200], features="my_patches:embed")
    with pytest.raises(UserError, match=r"features: scoring\.features\.path = 'no_patches': no such module"):
        score_images(digits.images[:200], features="no_patches:embed", allow_code=True)
    with pytest.raises(
        UserError, match='features = "resnet": valid: digits, fashion, objects, inception, none; of yours'
    ):
        score_images(digits.images[:200], features="resnet")
    with pytest.raises(UserError, match="features='fashion': it cannot judge mnist-10k"):
        score_images(digits.images[:200], features="fashion")
    with pytest.raises(UserError, match="features='objects': it takes colour images, and mnist-10k is grey"):
        score_images(digits.images[:200], features="objects")


def test_sets_are_compared_with_held_out_images_that_lie_elsewhere(tmp_path: Path, digits: ImageDataset) -> None:
    (tmp_path / "held_patches.py").write_text(PATCHES)
    for name, images in (("train", digits.images[:500]), ("test", digits.images[500:800])):
        np.save(tmp_path / f"{name}.npy", images[:, 0].numpy())
    where = {"features": "held_patches:embed", "out": tmp_path / "out", "allow_code": True}
    dataset, holdout = (f"array:{tmp_path / name}" for name in ("train.npy", "test.npy"))
    with pytest.warns(UserWarning, match="these are the held-out images themselves"):
        scored = score_images(digits.images[500:800], dataset, holdout=holdout, **where)  # type: ignore[arg-type]
    assert scored.fid == 0
    assert score_images(digits.images[500:800], dataset, **where).fid > 0  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"holdout='array:.*': mnist-10k has held-out images of its own"):
        score_images(GREY, holdout=holdout)


PATCHES = """
from torch.nn import functional
def embed(images):
    return functional.adaptive_avg_pool2d(images, 4).flatten(1)
"""


def test_data_without_an_extractor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dataset='cifar10': no classifier of it is shipped"):
        score_images(GREY, "cifar10", out=tmp_path)
    with pytest.raises(UserError, match="dataset='mnst': did you mean mnist"):
        score_images(GREY, "mnst", out=tmp_path)


STREAM = torch.Generator().manual_seed(0)


def draw_strokes(num: int, size: int = 28) -> Tensor:
    """Bright blots with soft edges, in the middle of black: (num, 1, size, size) uint8."""
    middle = torch.rand(num, 1, 4, 4, generator=STREAM)
    x = functional.interpolate(functional.pad(middle, (2, 2, 2, 2)), size=size, mode="bilinear")
    return (x * 255).byte()


class Patches:
    """Sixteen features: the brightness of each sixteenth of an image."""

    name, sha256, num_features, is_fast = "patches", "p" * 64, 16, True

    def __call__(self, images: Tensor) -> Features:
        return Features(functional.adaptive_avg_pool2d(images.float(), 4).flatten(1) / 255, None)


REAL = draw_strokes(400)


@pytest.mark.parametrize(("padding", "num"), [(0, 2), (0, 5), (2, 5), (1, 3)])
@pytest.mark.parametrize("side", [28, 32])
def test_a_grid_is_found_and_cut_into_its_samples(padding: int, num: int, side: int) -> None:
    samples = draw_strokes(300 * num**2, side)
    rows = samples.unflatten(0, (300, num**2))
    pictures = torch.stack([make_grid(row, nrow=num, padding=padding)[:1] for row in rows])
    grid = find_grid(pictures, REAL, Patches())
    assert grid == SampleGrid(num, side, padding, padding)
    assert torch.equal(grid.cut(pictures), samples)


@pytest.mark.parametrize("size", [14, 28, 32, 56, 64, 84, 112])
def test_single_images_are_no_grids_however_large(size: int) -> None:
    assert find_grid(draw_strokes(300, size), REAL, Patches()) is None


def wrap(x: Tensor) -> Tensor:
    return torch.from_numpy(((x.numpy() / 127.5 - 1) * 127).astype(np.int8).view(np.uint8))


def test_wrapped_and_inverted_values_are_named() -> None:
    images = draw_strokes(300)
    assert describe_range(images, REAL) == ""
    assert describe_range(wrap(images), REAL).startswith("pixel values look wrapped around")
    assert describe_range(255 - images, REAL).startswith("pixel values look inverted")


@pytest.mark.parametrize(
    "images",
    [
        torch.full((9, 1, 8, 8), 128, dtype=torch.uint8),  # an untrained generator's grey
        (127 + 20 * torch.randn(99, 1, 28, 28, generator=STREAM)).byte(),
        torch.randint(0, 256, (99, 1, 28, 28), generator=STREAM).byte(),
        draw_strokes(99) // 2,
        draw_strokes(99) // 2 + 64,
        torch.full((9, 1, 8, 8), 255, dtype=torch.uint8),  # a collapsed one's white
    ],
)
def test_poor_images_are_not_taken_for_a_mistake(images: Tensor) -> None:
    assert describe_range(images, REAL) == ""


def test_copies_are_counted() -> None:
    images = draw_strokes(100)
    assert describe_copies(images) == ""
    assert (
        describe_copies(images.repeat_interleave(2, 0)) == "100 of 200 images are exact copies of others; 100 distinct"
    )
    assert (
        describe_copies(images[:1].expand(100, -1, -1, -1)) == "99 of 100 images are exact copies of others; 1 distinct"
    )


def test_samples_of_padded_pictures_are_compared_with_padded_ones(tmp_path: Path) -> None:
    (tmp_path / "wide_patches.py").write_text(PATCHES)
    folder, rng = tmp_path / "wide", np.random.default_rng(0)
    folder.mkdir()
    for i in range(600):
        Image.fromarray(rng.integers(0, 256, (8, 16, 3), np.uint8)).save(folder / f"{i}.png")
    padded = load_dataset("folder:x@0", 16, tmp_path, folder, fit="pad").images
    where = {"features": "wide_patches:embed", "out": tmp_path / "out", "allow_code": True}
    dataset = f"folder:{folder}"
    apart, alike = (
        score_images(padded, dataset, fit=fit, **where).fid  # type: ignore[arg-type]
        for fit in ("crop", "pad")
    )
    assert alike < 0.1 * apart
    with pytest.raises(UserError, match="fit='pad': all images of mnist-10k are squares; valid: with folder:PATH"):
        score_images(GREY, fit="pad")
