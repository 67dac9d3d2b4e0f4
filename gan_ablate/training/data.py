"""A data set's name in, its images in memory out, with checksum and origin; and the order training meets them in."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional

from gan_ablate.assets import read_asset
from gan_ablate.design.folders import HELD_OUT_SHARE, PREFIX, class_of, list_classes, list_images
from gan_ablate.errors import UserError
from gan_ablate.seeding import stream_seed
from gan_ablate.training.decoded import find_decoded, keep_decoded

if TYPE_CHECKING:
    from pathlib import Path

_TORCHVISION_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "cifar-10-batches-py"}

_FOLDER_ORIGIN = f"image folder, every {HELD_OUT_SHARE}th image held out, in an order by content"

DARKEST = 16
"""Images without a brighter pixel are black to the eye. 12-bit values in 16-bit pictures, as cameras and microscopes
write them, come to this, and values in [0, 1] to 1."""

IMAGE_FORMATS = ("BMP", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may take a file for, whatever its name: other formats hand it to programs outside."""


@dataclass(frozen=True)
class ImageDataset:
    """A whole data set.

    Attributes:
        name: as in ``RunConfig.dataset``.
        images: (N, C, S, S) uint8, what training sees, S being the run's image size.
        labels: (N,) int64, the classes of ``images`` from 0, or None where they have none.
        reference: (M, C, H, W) uint8, held out, what scores compare with, at its own size.
        sha256: of both, shapes included.
        origin: where the bytes came from, in words.
    """

    name: str
    images: Tensor
    labels: Tensor | None
    reference: Tensor
    sha256: str
    origin: str


@dataclass
class ReadingNotes:
    """What reading pictures has made of them, counted.

    Attributes:
        num_transparent: laid on white.
        num_turned: turned upright.
        num_deep: of 16 bits, scaled to 8.
        num_of_several: of several frames or pages, the first of which is read.
    """

    num_transparent: int = 0
    num_turned: int = 0
    num_deep: int = 0
    num_of_several: int = 0

    def describe(self) -> list[str]:
        """Say what was done, to how many."""
        done = {
            "with transparent pixels, laid on white": self.num_transparent,
            "turned upright, as their EXIF data say": self.num_turned,
            "of 16 bits, scaled to 8 bits": self.num_deep,
            "of several frames or pages, of which the first is read": self.num_of_several,
        }
        return [f"{num:,} {'picture' if num == 1 else 'pictures'} {what}" for what, num in done.items() if num]


class BatchOrder:
    """Which images make the next batch, in an order that depends on the seed alone, not on the batch size.

    The images are shuffled anew for every epoch and epochs follow each other without a gap.

    Args:
        images: (N, C, S, S) uint8, on the device that trains.
        batch_size: images per batch.
        seed: the run's seed.

    Attributes:
        stream: what shuffles, on the CPU.
        left: (…) int64, what no batch has had yet of the epochs that were drawn, on the images' device.
    """

    def __init__(self, images: Tensor, batch_size: int, seed: int) -> None:
        self._num_images = len(images)
        self._batch_size = batch_size
        self.stream = torch.Generator().manual_seed(stream_seed(seed, "data order"))
        self.left = torch.empty(0, dtype=torch.int64, device=images.device)

    def next(self) -> Tensor:
        """Return the next batch's indices, (B,) int64, on the images' device."""
        while len(self.left) < self._batch_size:
            # Drawn on the CPU, so that every device sees the same order; a whole epoch at once, because a copy waits.
            epoch = torch.randperm(self._num_images, generator=self.stream)
            self.left = torch.cat((self.left, epoch.to(self.left.device)))
        indices, self.left = self.left[: self._batch_size], self.left[self._batch_size :]
        return indices


def take_batch(images: Tensor, indices: Tensor) -> Tensor:
    """Return images as networks see them: (…, C, S, S) in [-1, 1], of PyTorch's default dtype.

    Args:
        images: (N, C, S, S) uint8.
        indices: (…) int64, on their device.
    """
    return images[indices].to(torch.get_default_dtype()).div_(127.5).sub_(1)


def load_dataset(
    name: str, image_size: int, data_dir: Path, folder: Path | None = None, cache: Path | None = None
) -> ImageDataset:
    """Load a data set into memory, decoded once for all processes of a machine if there is a cache.

    Args:
        name: as in ``RunConfig.dataset``.
        image_size: side of the training images, in pixels.
        data_dir: torchvision's root, where a data set lies or is downloaded to.
        folder: where a ``folder:NAME@HASH`` lies; other data sets have none.
        cache: the results folder's, where decoded images are kept.

    Raises:
        UserError: if the data set is not there and cannot be downloaded, or a file of it cannot be read.
    """
    files: str | None = None
    if folder is not None:
        files = "named and ordered by their content"
    elif name in _TORCHVISION_FOLDERS:
        files = _describe_files(name, data_dir)
    if cache is None or files is None:  # the embedded digits are read faster than any cache
        arrays = _decode(name, image_size, data_dir, folder)
    else:
        key = f"{name}, {image_size}, {files}"
        arrays = find_decoded(cache, key) or keep_decoded(cache, key, _decode(name, image_size, data_dir, folder))
    origins = {"mnist-10k": "embedded in the package", **dict.fromkeys(_TORCHVISION_FOLDERS, "torchvision")}
    sha256 = bytes(arrays["sha256"].tolist()).decode("ascii")
    return ImageDataset(
        name, arrays["images"], arrays.get("labels"), arrays["reference"], sha256, origins.get(name, _FOLDER_ORIGIN)
    )


def _decode(name: str, image_size: int, data_dir: Path, folder: Path | None) -> dict[str, Tensor]:
    """Read images, labels if there are any, and reference; with them, the checksum before images are resized."""
    labels: Tensor | None
    match name:
        case "mnist-10k":
            (images, labels), (reference, _) = (_embedded_digits(part) for part in ("train", "test"))
        case "mnist" | "fashion-mnist" | "cifar10":
            (images, labels), (reference, _) = (_from_torchvision(name, data_dir, train=part) for part in (True, False))
        case _ if folder is not None:
            whole, classes = _read_folder(folder, image_size)
            held_out = torch.arange(len(whole)) % HELD_OUT_SHARE == HELD_OUT_SHARE - 1
            images, reference = whole[~held_out], whole[held_out]
            labels = None if classes is None else classes[~held_out]
        case _:
            raise UserError(f"--dataset {name}: its folder on this machine is not known")
    digest = hashlib.sha256()
    for tensor in (images, reference):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().tobytes())
    sha256 = torch.tensor(list(digest.hexdigest().encode("ascii")), dtype=torch.uint8)
    arrays = {"images": resize(images, image_size), "reference": reference, "sha256": sha256}
    return arrays if labels is None else {**arrays, "labels": labels}


def _describe_files(name: str, data_dir: Path) -> str | None:
    """Name a data set's files with sizes and times, as a cache of others is not theirs; None before they exist."""
    root = data_dir / _TORCHVISION_FOLDERS[name]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return "; ".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files) or None


def resize(images: Tensor, size: int) -> Tensor:
    """Resize square images, antialiased and rounded to whole numbers as a saved picture would be.

    Args:
        images: (N, C, H, H) uint8.
        size: side of the result, in pixels.

    Returns:
        (N, C, size, size) uint8; ``images`` itself where nothing is to be done.
    """
    if images.shape[-1] == size:
        return images
    parts = (
        functional.interpolate(part.float(), size=size, mode="bilinear", antialias=True).round_().clamp_(0, 255).byte()
        for part in images.split(1_000)
    )
    return torch.cat(list(parts))


def _embedded_digits(part: str) -> tuple[Tensor, Tensor]:
    content, _ = read_asset(f"mnist-10k-{part}.npz")
    with np.load(io.BytesIO(content)) as digits:
        return torch.from_numpy(digits["images"]).unsqueeze(1), torch.from_numpy(digits["labels"]).long()


def _from_torchvision(name: str, data_dir: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    from torchvision import datasets

    kinds = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torchvision says there which mirrors it tried
            try:
                dataset = kinds[name](data_dir, train=train, download=False)
            except RuntimeError:  # torchvision's word for "not there"
                dataset = kinds[name](data_dir, train=train, download=True)
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError, IndexError, struct.error) as failure:
        is_absent = isinstance(failure, OSError) or "not found" in str(failure)
        reason = str(failure).partition("\n")[0] if is_absent else "a file of it is empty, cut short or of another kind"
        raise UserError(
            f"--dataset {name}: not readable under --data-dir {data_dir}, and not to be downloaded there ({reason}); "
            "name the folder that holds it with --data-dir, or use the embedded mnist-10k"
        ) from None
    images, labels = torch.as_tensor(dataset.data), torch.as_tensor(dataset.targets)
    return images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images.unsqueeze(1), labels


def _read_folder(folder: Path, size: int) -> tuple[Tensor, Tensor | None]:
    """Decode every image of a folder: (N, 3, size, size) uint8, the shorter side resized, the longer one cropped.

    They are in an order that depends on the files' content alone: every sixth one is held out, and by name it might
    always be the same kind of image.

    Their classes, (N,) int64, are the folders that they lie in, by name, where there are some.
    """
    paths = list_images(folder)
    if len(paths) < HELD_OUT_SHARE:
        raise UserError(f"--dataset {PREFIX}{folder}: {len(paths)} images; valid: at least {HELD_OUT_SHARE}")
    paths.sort(key=lambda path: hashlib.sha256(path.read_bytes()).digest())
    notes = ReadingNotes()
    images = np.empty((len(paths), size, size, 3), np.uint8)
    for row, path in enumerate(paths):
        try:
            images[row] = np.asarray(ImageOps.fit(read_picture(path, notes), (size, size), Image.Resampling.BICUBIC))
        except ValueError as broken:
            raise UserError(f"{path}: not a readable image ({broken}); mend it or take it out of the folder") from None
    if 0 < images.max() <= (DARKEST if notes.num_deep else 1):
        raise UserError(f"--dataset {PREFIX}{folder}: {describe_darkness(int(images.max()), notes)}")
    names = list_classes(folder, paths)
    labels = torch.tensor([names.index(class_of(folder, path)) for path in paths]) if names else None
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def describe_darkness(brightest: int, notes: ReadingNotes) -> str:
    """Say that images are black, why that may be, and what would mend it."""
    reason = (
        "the 16-bit pictures among them use 12 bits or fewer; valid: scaled to 65,535"
        if notes.num_deep
        else "were values in [0, 1], or of few bits, saved as they are? valid: scaled to 255"
    )
    return f"no pixel is brighter than {brightest} of 255: {reason}"


def read_picture(path: Path, notes: ReadingNotes | None = None) -> Image.Image:
    """Read a picture of a format that Pillow decodes by itself, upright and in 8-bit colour.

    Args:
        path: of the picture.
        notes: where to count what is done to it.

    Raises:
        ValueError: if it cannot be read, with the reason.
    """
    Image.init()  # all of Pillow's formats, of which it otherwise loads some when they are met
    formats = [name for name in IMAGE_FORMATS if name in Image.OPEN]
    try:
        # From an open file: of a grey TIFF that it maps by itself, Pillow 13.0 mixes the pixels up if EXIF turns it.
        with path.open("rb") as file, Image.open(file, formats=formats) as image:
            return _to_rgb(image, notes or ReadingNotes())
    except (OSError, SyntaxError, Image.DecompressionBombError) as broken:
        raise ValueError(str(broken)) from None


def _to_rgb(image: Image.Image, notes: ReadingNotes) -> Image.Image:
    """Turn a picture upright, lay what is transparent on white, and make it 8-bit colour; 16-bit grey is scaled to it.

    Raises:
        ValueError: if its pixels have more than 16 bits, of which nobody knows which are white.
    """
    notes.num_of_several += getattr(image, "n_frames", 1) > 1
    notes.num_turned += image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        grey = np.asarray(upright)
        if grey.min() < 0 or grey.max() > 65_535:
            raise ValueError(f"grey values from {grey.min()} to {grey.max()}: more than 16 bits")
        notes.num_deep += 1
        upright = Image.fromarray((grey / 257).round().astype(np.uint8))
    elif upright.mode == "F":
        raise ValueError("pixels of mode F: numbers without a scale")
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layered = upright.convert("RGBA")
    notes.num_transparent += layered.getchannel("A").getextrema() != (255, 255)
    return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), layered).convert("RGB")
