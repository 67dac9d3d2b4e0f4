"""Sets of images that any program drew: read in every form, scored like a run's, refused in a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gan_ablate
from gan_ablate import score_images
from gan_ablate.errors import UserError
from gan_ablate.scoring.features import build_extractor
from gan_ablate.scoring.score import Scorer
from gan_ablate.scoring.sets import load_images
from gan_ablate.training.data import ImageDataset, load_dataset
from tests.features import warm

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 28, 28)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (6, 28, 28, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return load_dataset("mnist-10k", 28, tmp_path_factory.mktemp("data"))


def test_every_form_of_the_same_images_is_the_same(tmp_path: Path) -> None:
    forms: list[object] = [GREY, GREY[..., None], GREY[:, None], torch.from_numpy(GREY)]
    np.save(tmp_path / "a.npy", GREY)
    np.savez(tmp_path / "one.npz", whatever=GREY)
    np.savez(tmp_path / "two.npz", images=GREY, labels=np.arange(6))
    for i, picture in enumerate(GREY):
        (tmp_path / "folder").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "folder" / f"{i}.png")
    forms += [tmp_path / name for name in ("a.npy", "one.npz", "two.npz", "folder")]
    for form in forms:
        images = load_images(form, num_channels=1)  # type: ignore[arg-type]
        assert torch.equal(images, torch.from_numpy(GREY)[:, None])
    assert torch.equal(load_images(GREY, num_channels=3)[:, 2], torch.from_numpy(GREY))


def test_colour_becomes_grey_as_pillow_makes_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, picture in enumerate(COLOUR):
        Image.fromarray(picture).save(folder / f"{i}.png")
    expected = torch.from_numpy(np.stack([np.asarray(Image.fromarray(picture).convert("L")) for picture in COLOUR]))
    for form in (COLOUR, COLOUR.transpose(0, 3, 1, 2), folder):
        assert torch.equal(load_images(form, num_channels=1)[:, 0], expected)
    assert torch.equal(load_images(COLOUR, num_channels=3), torch.from_numpy(COLOUR).permute(0, 3, 1, 2))


def test_scores_are_those_of_a_run_with_the_floor_beside_them(tmp_path: Path, digits: ImageDataset) -> None:
    images = digits.images[:1_500]
    scored = score_images(images, out=warm(tmp_path / "out"))
    scorer = Scorer(digits, build_extractor("digits", torch.device("cpu")), tmp_path / "out" / "cache")
    expected = scorer.score(images)
    assert scored.as_row() == expected.as_row()
    assert scored.floor.model_copy(update={"seconds": 0}) == scorer.floor(1_500).model_copy(update={"seconds": 0})
    assert scored.image_size == 28
    assert scored.fid < 0.5 < score_images(255 - images, out=tmp_path / "out").fid
    assert gan_ablate.score_images is score_images


def test_images_of_another_size_have_their_own_floor(tmp_path: Path, digits: ImageDataset) -> None:
    small = torch.nn.functional.avg_pool2d(digits.images[:1_280].float(), 2).byte()
    scored = score_images(small, out=tmp_path / "out")
    assert scored.image_size == 14
    assert scored.floor.fid > score_images(digits.images[:1_280], out=warm(tmp_path / "other")).floor.fid


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY / 255, "images: numbers of type float64; valid: uint8 from 0 to 255"),
        (GREY[:, :14], "images: 28×14 pixels; valid: 28×28"),
        (GREY[0], r"images: an array of 28 × 28; valid: N × H × W"),
        (GREY[:0], "images: an array of 0 × 28 × 28"),
        (COLOUR[..., :2], r"images: an array of 6 × 28 × 28 × 2"),
        (GREY, "images: 6 images; valid: at least 1,280 for digits features"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images_are_one_line(tmp_path: Path, images: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score_images(images, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "none: no such file or folder; valid: a folder of pictures, or a .npy or .npz file"),
        ("a.txt", b"x", "a.txt: not a folder, nor a .npy or .npz file"),
        ("a.npy", b"\x93NUMPY\x01", "a.npy: not a readable array"),
        ("a.npz", b"PK\x03\x04junk", r"a.npz: not a readable array \(File is not a zip file\)"),
        ("folder/a.png", b"junk", r"folder: 1 of 1 files not readable as images: a.png \(cut short, or none of BMP"),
        ("folder/a.txt", b"junk", "folder: no picture in it; valid: .bmp"),
    ],
)  # fmt: skip
def test_files_that_are_no_images_are_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as wrong:
        load_images(path if "folder" not in name else path.parent, num_channels=1)
    assert "\n" not in str(wrong.value)


def test_an_array_of_objects_or_of_several_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"objects.npy: not a readable array"):
        load_images(tmp_path / "objects.npy", num_channels=1)
    np.savez(tmp_path / "many.npz", a=GREY, b=GREY)
    with pytest.raises(UserError, match=r"many.npz: arrays a, b; valid: one, or one called images"):
        load_images(tmp_path / "many.npz", num_channels=1)


def test_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY[0]).save(tmp_path / "a.png")
    Image.fromarray(GREY[0, :14, :14]).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b.png: 14×14 pixels; valid: 28×28, one image a picture"):
        load_images(tmp_path, num_channels=1)


def test_data_that_nobody_can_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--dataset cifar10: colour images have no classifier of their own"):
        score_images(GREY, "cifar10", out=tmp_path)
    with pytest.raises(UserError, match="--dataset mnst: did you mean mnist"):
        score_images(GREY, "mnst", out=tmp_path)
