"""Sets of images from outside: read in every form, in an order of their own, refused in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_ablate.errors import UserError
from gan_ablate.scoring.image_sets import Images, order_by_content, read_images, read_set

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 28, 28)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (6, 28, 28, 3)).astype(np.uint8)


def load_images(images: Images, *, num_channels: int) -> torch.Tensor:
    return read_images(images, num_channels=num_channels)[0]


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


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY / 255, "images: numbers of type float64 from 0 to 1; valid: uint8 from 0 to 255"),
        (GREY[:, :14], "images: 28×14 pixels; valid: 28×28"),
        (GREY[0], r"images: an array of 28 × 28; valid: N × H × W"),
        (GREY[:0], "images: an array of 0 × 28 × 28"),
        (COLOUR[..., :2], r"images: an array of 6 × 28 × 28 × 2"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_images_are_one_line(images: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_set(images, num_channels=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "none: no such file or folder; valid: a folder of pictures, or a .npy or .npz file"),
        ("a.txt", b"x", "a.txt: not a folder, nor a .npy or .npz file"),
        ("a.npy", b"\x93NUMPY\x01", "a.npy: not a readable array"),
        ("a.npz", b"PK\x03\x04junk", r"a.npz: not a readable array \(File is not a zip file\)"),
        ("folder/a.png", b"junk", r"folder: 1 of 1 files not readable as images: a.png \(cut short, or none of BMP"),
        ("folder/a.txt", b"junk", "folder: no image in it; valid: .bmp"),
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
    with pytest.raises(UserError, match=r"many.npz: arrays a, b; valid: one of images, or one called images"):
        load_images(tmp_path / "many.npz", num_channels=1)


def test_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY[0]).save(tmp_path / "a.png")
    Image.fromarray(GREY[0, :14, :14]).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b.png: 14×14 pixels; valid: 28×28, one image a picture"):
        load_images(tmp_path, num_channels=1)


def test_the_order_of_images_is_lost() -> None:
    for order in (range(6), [5, 3, 1, 0, 2, 4]):
        assert torch.equal(read_set(GREY[list(order)], num_channels=1).images, read_set(GREY, num_channels=1).images)
    assert not torch.equal(read_set(GREY, num_channels=1).images, torch.from_numpy(GREY)[:, None])


def test_an_order_by_content_mixes_what_was_sorted() -> None:
    """A thousand dark images, then a thousand bright ones: half of each in the first half, within chance."""
    images = torch.from_numpy(
        np.concatenate([RNG.integers(0, 99, (1_000, 1, 4, 4)), RNG.integers(99, 256, (1_000, 1, 4, 4))])
    )
    ordered = order_by_content(images.byte())
    num_dark = int((ordered[:1_000].float().mean((1, 2, 3)) < 99).sum())
    assert abs(num_dark - 500) < 4 * 16  # the standard deviation of a hypergeometric count is 16
    assert torch.equal(ordered.flatten(1).sum(1).sort().values, images.flatten(1).sum(1).sort().values)


def test_arrays_of_samplers_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "guided.npz", COLOUR, np.arange(6))
    found = read_set(tmp_path / "guided.npz", num_channels=3)
    assert torch.equal(found.images, read_set(COLOUR, num_channels=3).images)
    assert found.notes == ("scored is arr_0; left out: arr_1",)
    np.savez(tmp_path / "reference.npz", mu=np.zeros(2), sigma=np.eye(2), arr_0=GREY)
    assert len(read_set(tmp_path / "reference.npz", num_channels=1).images) == 6


def test_statistics_alone_are_no_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "stats.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(UserError) as wrong:
        read_set(tmp_path / "stats.npz", num_channels=3)
    assert str(wrong.value) == (
        f"{tmp_path}/stats.npz: arrays mu, sigma: FID's statistics of images, without the images that the other "
        "scores need; valid: the images"
    )


@pytest.mark.parametrize(
    ("images", "note"),
    [
        ((GREY / 255).astype(np.uint8), "no pixel is brighter than 1 of 255: were values in [0, 1], or of few bits"),
        (GREY // 16, "no pixel is brighter than 15 of 255"),
        ((GREY / 127.5 - 1).astype(np.int8).view(np.uint8), "pixels have no other values than 0, 1, 255: were"),
        (COLOUR, "colour made grey"),
    ],
)  # fmt: skip
def test_what_is_odd_about_values_is_a_note(images: np.ndarray, note: str) -> None:
    (found,) = read_set(images, num_channels=1).notes
    assert found.startswith(note)


@pytest.mark.parametrize("images", [GREY, GREY // 8, np.repeat(GREY[..., None], 3, 3)])
def test_ordinary_images_are_read_without_a_note(images: np.ndarray) -> None:
    assert read_set(images, num_channels=1).notes == ()


def test_conversions_and_excluded_files_are_noted(tmp_path: Path) -> None:
    Image.fromarray(COLOUR[0]).save(tmp_path / "a.png")
    Image.fromarray(GREY[0]).convert("LA").save(tmp_path / "opaque.png")
    Image.new("LA", (28, 28), (0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(GREY[1]).save(tmp_path / "b.gif")
    found = read_set(tmp_path, num_channels=1)
    assert len(found.images) == 4
    assert found.notes == (
        "1 picture with transparent pixels, laid on white",
        "1 picture of 16 bits, scaled to 8 bits",
        "colour made grey",
        "left out: 1 .gif",
    )
    assert torch.equal(load_images(tmp_path, num_channels=3)[1], torch.full((3, 28, 28), 255, dtype=torch.uint8))


def test_copies_of_an_image_do_not_lie_side_by_side() -> None:
    """A set of two images, 500 times each: every tenth of it has both."""
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(500).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    ordered = order_by_content(images)
    assert torch.equal(ordered, order_by_content(images.flip(0)))
    shares = [part.float().mean().item() / 255 for part in ordered.tensor_split(10)]
    assert 0.25 < min(shares) <= max(shares) < 0.75


@pytest.mark.parametrize(
    ("values", "formula"),
    [
        (
            [0.0, 0.25, 1.0],
            'from 0 to 1; valid: uint8 from 0 to 255; from [0, 1] by (x * 255.0).round().astype("uint8")',
        ),
        ([-1.0, 0.25, 1.0], "from [-1, 1] by ((x + 1) * 127.5)"),
        ([0.0, 12.0, 255.0], 'from [0, 255] by x.round().astype("uint8")'),
        ([-2.1, 0.0, 2.6], "from -2.1 to 2.6; valid: uint8 from 0 to 255; clipped to the range"),
        ([0.0, np.nan, 1.0], "some of them not finite"),
    ],
)
def test_the_formula_is_that_of_the_numbers_own_range(values: list[float], formula: str) -> None:
    images: Any = np.resize(np.array(values, np.float32), (6, 4, 4))

    with pytest.raises(UserError) as refused:
        read_set(images, num_channels=1)

    assert formula in str(refused.value)


def test_images_scaled_from_the_wrong_range_give_a_warning() -> None:
    x = np.linspace(0, 1, 6 * 16, dtype=np.float32).reshape(6, 4, 4)  # in [0, 1], scaled as if in [-1, 1]
    images = ((x + 1) * 127.5).round().clip(0, 255).astype(np.uint8)

    assert "scaled as if they were in [-1, 1]?" in " ".join(read_set(images, num_channels=1).notes)
    assert not read_set((x * 255).round().astype(np.uint8), num_channels=1).notes


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(6, 1, 4, 4, requires_grad=True), "numbers of type float32"),
        (torch.zeros(6, 1, 4, 4, dtype=torch.bfloat16), "numbers of type float32"),
        ([np.zeros((4, 4), np.uint8)], "images: of type list; valid: an array or tensor of uint8"),
    ],
)
def test_what_a_caller_has_at_hand_is_refused_in_words(images: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_set(images, num_channels=1)


def test_a_picture_that_is_cut_short_is_not_blamed_on_exif(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])

    with pytest.raises(UserError, match=r"a\.png \(image file is truncated") as refused:
        read_set(tmp_path, num_channels=1)

    assert "EXIF" not in str(refused.value)
