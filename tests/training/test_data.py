from __future__ import annotations

import hashlib
import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from gan_ablate.atomic_io import read_asset
from gan_ablate.design.datasets import KnownFolders, count_channels, folder_identity
from gan_ablate.errors import UserError
from gan_ablate.training import data as data_module
from gan_ablate.training.data import BatchOrder, load_dataset, resize, take_batch
from gan_ablate.training.images import ReadingNotes, fit_picture, read_picture


def write_images(folder: Path, num: int, size: tuple[int, int] = (40, 32)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        Image.new("RGB", size, (10 * i, 0, 255)).save(folder / f"{i:03d}.png")


def test_the_embedded_digits_need_nothing_else() -> None:
    dataset = load_dataset("mnist-10k", 28, Path("/nowhere"))
    assert dataset.images.shape == (10_000, 1, 28, 28)
    assert dataset.reference.shape == (10_000, 1, 28, 28)
    assert dataset.images.dtype == torch.uint8
    assert len(dataset.sha256) == 64


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_embedded_digits_have_the_checksum_they_were_made_with(part: str) -> None:
    content, _ = read_asset(f"mnist-10k-{part}.npz")
    assert len(content) < 3_000_000


def test_the_embedded_digits_are_mnists_own(shared_data: Path) -> None:
    embedded, full = (load_dataset(name, 28, shared_data) for name in ("mnist-10k", "mnist"))
    assert full.images.shape == (60_000, 1, 28, 28)
    assert torch.equal(embedded.images, full.images[:10_000])
    assert torch.equal(embedded.reference, full.reference)


def test_fashion_is_read_from_torchvisions_layout(shared_data: Path) -> None:
    dataset = load_dataset("fashion-mnist", 28, shared_data)
    assert dataset.images.shape == (60_000, 1, 28, 28)
    assert dataset.reference.shape == (10_000, 1, 28, 28)


def test_missing_data_set_is_refused_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets.FashionMNIST, "download", offline)
    with pytest.raises(UserError, match=r"dataset='fashion-mnist': not readable under data_dir='absent'.*no network"):
        load_dataset("fashion-mnist", 28, Path("absent"))


def test_a_folder_is_resized_cropped_and_split(tmp_path: Path) -> None:
    write_images(tmp_path / "pictures", 12)
    dataset = load_dataset("folder:x@0", 16, Path(), tmp_path / "pictures")
    assert dataset.images.shape == (10, 3, 16, 16)
    assert dataset.reference.shape == (2, 3, 16, 16)
    in_order = sorted(range(12), key=lambda i: hashlib.sha256(_content(tmp_path / "pictures", i)).digest())
    assert dataset.reference[:, 0, 0, 0].tolist() == [10 * i for i in in_order[5::6]]
    assert dataset.images[:, 2].unique().tolist() == [255]


def _content(folder: Path, i: int) -> bytes:
    return (folder / f"{i:03d}.png").read_bytes()


def test_names_of_files_do_not_change_the_images(tmp_path: Path) -> None:
    """Every sixth by name could always be the same view of a thing."""
    write_images(tmp_path / "by-name", 24)
    shuffled = np.random.default_rng(0).permutation(24)
    (tmp_path / "renamed").mkdir()
    for i in range(24):
        (tmp_path / "renamed" / f"{shuffled[i]}.png").write_bytes(_content(tmp_path / "by-name", i))
    first, second = (load_dataset("folder:x@0", 8, Path(), tmp_path / name) for name in ("by-name", "renamed"))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.reference, second.reference)
    assert first.sha256 == second.sha256


def test_labels_follow_their_images_into_that_order(tmp_path: Path) -> None:
    for i in range(12):
        folder = tmp_path / ("dark" if i < 6 else "bright")
        folder.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 20 * i + 2).save(folder / f"{i}.png")
    dataset = load_dataset("folder:x@0", 4, Path(), tmp_path)
    assert dataset.labels is not None
    is_dark = dataset.images[:, 0, 0, 0] < 120
    assert torch.equal(dataset.labels, is_dark.long())  # "bright" comes before "dark"
    assert dataset.labels.tolist() not in (sorted(dataset.labels.tolist()), sorted(dataset.labels.tolist())[::-1])


@pytest.mark.parametrize("bits", [8, 12])
def test_sixteen_bit_pictures_of_fewer_bits_are_refused_before_they_become_black(tmp_path: Path, bits: int) -> None:
    for i in range(6):
        Image.fromarray(np.array([[0, i], [7, 2**bits - 1]], np.uint16)).save(tmp_path / f"{i}.png")
    brightest = round((2**bits - 1) / 257)
    with pytest.raises(
        UserError, match=f"brighter than {brightest} of 255: the 16-bit pictures among them use 12 bits"
    ):
        load_dataset("folder:x@1", 2, tmp_path, tmp_path)


def test_what_reading_does_to_pictures_is_counted(tmp_path: Path) -> None:
    upright, exif = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10, Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a quarter to the right mends it
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.rot90(upright.astype(np.uint16) * 257)).save(tmp_path / "deep.png", exif=exif)
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "turned.tif", exif=exif)
    clear = Image.new("RGBA", (6, 4), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    Image.new("RGBA", (6, 4), (255, 0, 0, 255)).save(tmp_path / "opaque.png")
    clear.convert("RGB").save(tmp_path / "pages.tif", save_all=True, append_images=[clear.convert("RGB")])
    notes = ReadingNotes()
    pictures = {path.name: np.asarray(read_picture(path, notes)) for path in tmp_path.iterdir()}
    for name in ("turned.png", "turned.tif", "deep.png"):
        assert np.array_equal(pictures[name][..., 0], upright)
    assert pictures["clear.png"].min() == 255
    assert pictures["opaque.png"][..., 1].max() == 0
    assert notes.describe() == [
        "1 picture with transparent pixels, laid on white",
        "3 pictures turned upright, as their EXIF data say",
        "1 picture of 16 bits, scaled to 8 bits",
        "1 picture of several frames or pages, of which the first is read",
    ]


@pytest.mark.parametrize("shape", [(48, 64), (65, 37), (16, 16), (200, 16), (9, 30)])
def test_pictures_are_fitted_as_the_documents_do(shape: tuple[int, int]) -> None:
    """The tutorials' Compose([Resize(16), CenterCrop(16), …]), pixel by pixel."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8))
    documents = v2.Compose([v2.Resize(16), v2.CenterCrop(16), v2.PILToTensor()])(noise)
    fitted = fit_picture(noise, 16)
    assert torch.equal(torch.from_numpy(np.array(fitted)).permute(2, 0, 1), documents)
    # Spelt out: whole pixels are cropped, half ones rounded to the even neighbour.
    height, width = shape
    ratio = 16 / min(shape)
    size = (16, int(16 * height / width)) if width <= height else (int(16 * width / height), 16)
    left, top = (round((side - 16) / 2) for side in size)
    resized = noise.resize(size, Image.Resampling.BILINEAR) if ratio != 1 else noise
    assert np.array_equal(np.asarray(fitted), np.asarray(resized.crop((left, top, left + 16, top + 16))))


def test_all_broken_images_are_named_in_one_pass(tmp_path: Path) -> None:
    write_images(tmp_path / "pictures", 20)
    for number in range(3, 10):
        (tmp_path / "pictures" / f"{number:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\nnot an image")
    with pytest.raises(UserError, match=r"7 of 20 files not readable as images: 003\.png \(") as wrong:
        load_dataset("folder:x@0", 16, Path(), tmp_path / "pictures")
    assert "007.png" in str(wrong.value)
    assert "008.png" not in str(wrong.value)
    assert "\n" not in str(wrong.value)


def with_exif(exif: bytes) -> bytes:
    """A JPEG, 8 high and 4 wide, red above and blue below, with these EXIF bytes."""
    picture = Image.new("RGB", (4, 8), "red")
    picture.paste("blue", (0, 4, 4, 8))
    content = io.BytesIO()
    picture.save(content, "JPEG", exif=exif, quality=100, subsampling=0)
    return content.getvalue()


def test_exif_turns_a_picture_even_where_other_entries_are_damaged(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"  # to be turned by 90 degrees clockwise
    whole = exif.tobytes()
    damaged = whole.replace(bytes.fromhex("010f"), bytes.fromhex("0100"))  # a width that is a text
    for number, content in enumerate((whole, damaged)):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(with_exif(content))
        picture = read_picture(path)
        assert picture.size == (8, 4)
        (red, _, _), (_, _, blue) = (picture.getpixel((x, 2)) for x in (7, 0))  # type: ignore[misc]
        assert red > 240
        assert blue > 240


def test_exif_that_cannot_be_parsed_names_the_file(tmp_path: Path) -> None:
    write_images(tmp_path, 7)
    content = (tmp_path / "003.png").read_bytes()
    place, exif = content.index(b"IDAT") - 4, b"eXIfno TIFF header at all"
    chunk = (len(exif) - 4).to_bytes(4) + exif + zlib.crc32(exif).to_bytes(4)
    (tmp_path / "003.png").write_bytes(content[:place] + chunk + content[place:])
    with pytest.raises(
        UserError, match=r"1 of 7 files .*: 003\.png \(EXIF that cannot be parsed, remove it .*not a TIFF"
    ):
        load_dataset("folder:x@0", 16, Path(), tmp_path)


def test_sixteen_bits_are_turned_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    grey = np.array([[0, 0], [65_535, 65_535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif)
    assert np.asarray(read_picture(tmp_path / "a.png"))[:, 0, 0].tolist() == [255, 0]


def test_folder_of_black_images_is_refused(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(np.full((4, 4), 4_095, np.uint16)).save(tmp_path / f"{i}.png")
    with pytest.raises(UserError, match=r"no pixel is brighter than 16 of 255: the 16-bit pictures among them use 12"):
        load_dataset("folder:x@0", 4, Path(), tmp_path)


def test_grey_maps_are_read(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("L", (4, 4), 100 + i).save(tmp_path / f"{i}.pgm")
    dataset = load_dataset("folder:x@0", 4, Path(), tmp_path)
    assert torch.cat((dataset.images, dataset.reference)).unique().tolist() == list(range(100, 106))


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    grey = np.array([[0, 257], [32_768, 65_535]], np.uint16)
    for i in range(6):
        Image.fromarray(grey).resize((2, 2)).save(tmp_path / f"{i}.png")
    images = load_dataset("folder:x@1", 2, tmp_path, tmp_path).images
    assert images[0, 0].tolist() == [[0, 1], [128, 255]]  # 32,768 / 257 = 127.5
    assert torch.equal(images[0, 0], images[0, 2])


def test_numbers_without_a_scale_are_refused(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / f"{i}.tif")
    with pytest.raises(UserError, match=r"6 of 6 files .*0\.tif \(pixels of mode F: numbers without a scale"):
        load_dataset("folder:x@1", 4, tmp_path, tmp_path)


def test_a_file_is_not_handed_to_a_program_outside_whatever_its_name(tmp_path: Path) -> None:
    """Pillow has Ghostscript draw what is PostScript inside."""
    for i in range(6):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    (tmp_path / "6.tif").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
    with pytest.raises(UserError, match=r"not readable as images: 6\.tif"):
        load_dataset("folder:x@1", 4, tmp_path, tmp_path)


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("RGB", (4, 4), (40 * i, i, i)).save(os.fsdecode(os.fsencode(tmp_path) + b"/\xff%d.png" % i))
    assert folder_identity(tmp_path).startswith("folder:")
    assert len(load_dataset("folder:x@1", 4, tmp_path, tmp_path).images) == 5


def test_folders_in_a_folder_are_its_classes(tmp_path: Path) -> None:
    for name, num in (("cats", 7), ("dogs", 5)):
        (tmp_path / name).mkdir()
        for i in range(num):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{i}.png")
    labels = load_dataset("folder:x@1", 4, tmp_path, tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [0] * 6 + [1] * 4  # the sixth and the twelfth are held out
    Image.new("RGB", (4, 4)).save(tmp_path / "stray.png")
    assert load_dataset("folder:x@1", 4, tmp_path, tmp_path).labels is None


def test_labels_are_those_of_the_embedded_digits() -> None:
    labels = load_dataset("mnist-10k", 28, Path()).labels
    assert labels is not None
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # as MNIST is known to begin


def test_decoded_images_are_kept_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets, cache = tmp_path / "pets", tmp_path / "cache"
    pets.mkdir()
    for i in range(12):
        Image.new("RGB", (5, 4), (20 * i, i, 0)).save(pets / f"{i:02}.png")
    first = load_dataset("folder:x@1", 4, tmp_path, pets, cache)
    monkeypatch.setattr(data_module, "_read_folder", None)  # nothing is decoded again
    second = load_dataset("folder:x@1", 4, tmp_path, pets, cache)
    for mine, theirs in ((first.images, second.images), (first.reference, second.reference)):
        assert torch.equal(mine, theirs)
    assert (first.sha256, first.origin) == (second.sha256, second.origin)
    (file,) = cache.glob("images/*/images.npy")
    assert str(file) in Path("/proc/self/maps").read_text("utf-8")


def test_a_cache_that_was_damaged_is_made_anew(tmp_path: Path) -> None:
    for i in range(12):
        Image.new("RGB", (4, 4), (20 * i, i, 0)).save(tmp_path / f"{i:02}.png")
    cache = tmp_path / "cache"
    first = load_dataset("folder:x@1", 4, tmp_path, tmp_path, cache).images.clone()
    (file,) = cache.glob("images/*/images.npy")
    whole = file.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (flipped, whole[:200], b"", whole.replace(b"(", b"[", 1), b"\x93NUMPY\x01\x00v\x00((((("):
        file.write_bytes(damaged)
        assert torch.equal(load_dataset("folder:x@1", 4, tmp_path, tmp_path, cache).images, first)
        assert file.read_bytes() == whole


def test_without_room_for_a_cache_images_are_read_all_the_same(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    (tmp_path / "file").write_text("no folder")
    assert len(load_dataset("folder:x@1", 4, tmp_path, tmp_path, tmp_path / "file" / "cache").images) == 5


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("RGBA", (16, 16), (200, 0, 0, 0)).save(tmp_path / f"{i}.png")
    assert load_dataset("folder:x@0", 16, Path(), tmp_path).images.unique().tolist() == [255]


def test_batches_come_in_the_same_order_at_every_batch_size() -> None:
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1)
    small, large = (BatchOrder(images, size, seed=3) for size in (8, 24))
    three_small = torch.cat([small.next() for _ in range(30)])
    assert torch.equal(three_small, torch.cat([large.next() for _ in range(10)]))


def test_an_epoch_shows_every_image_once_in_another_order_each_time() -> None:
    images = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1)
    order = BatchOrder(images, 50, seed=0)
    epochs = [torch.cat((order.next(), order.next())) for _ in range(2)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(100))
    assert not torch.equal(*epochs)


def test_pixels_are_scaled_to_minus_one_and_one() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    assert take_batch(images, torch.tensor([1, 0])).flatten().tolist() == [1.0, -1.0]


def test_resizing_gives_whole_pixels_near_pillows(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    ours = resize(torch.from_numpy(image).view(1, 1, 32, 32), 28)[0, 0].numpy()
    pillows = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - pillows.astype(int)).max() <= 1


def pretend(name: str, shape: tuple[int, ...]) -> type:
    """A class of torchvision's, with as many images as classes asked for, in its own layout."""

    class Pretended:
        def __init__(self, root: Path, train: bool = True, split: str = "", download: bool = False) -> None:
            assert root.is_dir()
            assert not download
            assert bool(split) is (name == "SVHN")
            is_training = split == "train" if split else train
            self.data = np.full(shape, 7 if is_training else 9, np.uint8)
            setattr(self, "labels" if name == "SVHN" else "targets", np.arange(shape[0]) % 10)

    return Pretended


@pytest.mark.parametrize(
    ("name", "stored", "shape"),
    [
        ("KMNIST", (20, 28, 28), (20, 1, 28, 28)),
        ("SVHN", (20, 3, 32, 32), (20, 3, 28, 28)),
        ("CIFAR100", (20, 32, 32, 3), (20, 3, 28, 28)),
    ],
)
def test_torchvisions_data_sets_are_read_in_their_layouts(
    name: str, stored: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, name, pretend(name, stored))
    found = load_dataset(f"torchvision:{name}", 28, tmp_path)
    assert found.images.shape == shape
    assert found.images.unique().tolist() == [7]
    assert found.reference.unique().tolist() == [9]
    assert found.labels is not None
    assert (found.labels == torch.arange(20) % 10).all()
    assert (found.origin, shape[1]) == ("torchvision", count_channels(f"torchvision:{name}"))
    assert found.reference.shape[-1] == stored[2]


@pytest.mark.parametrize("layout", ["(N, S, S)", "(N, S, S, 3)", "(N, 3, S, S)"])
def test_an_array_is_read_with_its_labels_in_an_order_by_content(tmp_path: Path, layout: str) -> None:
    rng = np.random.default_rng(0)
    channels = () if layout == "(N, S, S)" else (3,)
    images = rng.integers(0, 256, (60, 8, 8, *channels), np.uint8)
    images[:, 0, 0] = np.arange(60).reshape(60, *(1 for _ in channels))  # the first pixel is the label
    stored = images.transpose(0, 3, 1, 2) if layout == "(N, 3, S, S)" else images
    for folder, order in (("a", np.arange(60)), ("b", rng.permutation(60))):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "images.npy", np.ascontiguousarray(stored[order]))
        np.save(tmp_path / folder / "labels.npy", order)
    name = KnownFolders().name(f"array:{tmp_path / 'a' / 'images.npy'}", "test")
    a, b = (load_dataset(name, 8, tmp_path, tmp_path / folder / "images.npy") for folder in ("a", "b"))
    assert a.images.shape == (50, len(channels) * 3 or 1, 8, 8)
    assert a.reference.shape[0] == 10
    assert a.labels is not None
    assert torch.equal(a.images[:, 0, 0, 0].long(), a.labels)
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.reference, b.reference)
    assert a.origin == "array, every 6th image held out, in an order by content"


def test_held_out_images_may_lie_elsewhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, num in (("train.npy", 12), ("test.npy", 7)):
        np.save(tmp_path / name, rng.integers(0, 256, (num, 8, 8), np.uint8))
    folders = KnownFolders()
    dataset, holdout = (folders.name(f"array:{tmp_path / name}", "test") for name in ("train.npy", "test.npy"))
    cache = tmp_path / "cache"
    place = tmp_path / "train.npy"
    apart = [load_dataset(dataset, 8, tmp_path, place, cache, (holdout, tmp_path / "test.npy")) for _ in range(2)]
    shared = load_dataset(dataset, 8, tmp_path, place, cache)
    assert [len(apart[0].images), len(apart[0].reference)] == [12, 7]
    assert [len(shared.images), len(shared.reference)] == [10, 2]
    assert torch.equal(apart[0].reference, apart[1].reference)
    assert apart[0].sha256 != shared.sha256
    assert apart[0].origin == f"array, held out: {holdout}"


def test_pictures_are_padded_to_squares_where_asked(tmp_path: Path) -> None:
    folder, cache = tmp_path / "wide", tmp_path / "cache"
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (16, 8), (100 + i, 200, 50)).save(folder / f"{i}.png")
    cropped, padded = (load_dataset("folder:x@0", 8, tmp_path, folder, cache, fit=fit) for fit in ("crop", "pad"))
    assert (cropped.images[:, 1] == 200).all()
    assert padded.images.shape == cropped.images.shape
    for part in (padded.images, padded.reference):
        assert (part[:, 1, 2:6] == 200).all()
        assert (part[:, :, [0, 1, 6, 7]] == 0).all()
    assert padded.sha256 != cropped.sha256
    assert padded.origin == f"{cropped.origin}, padded to squares"
    again = load_dataset("folder:x@0", 8, tmp_path, folder, cache, fit="pad")
    assert torch.equal(again.images, padded.images)
