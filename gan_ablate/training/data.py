"""What a step is fed: batches of real images in a fixed order, latents and classes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gan_ablate.atomic_io import read_asset
from gan_ablate.design.datasets import (
    ARRAY_PREFIX,
    HELD_OUT_SHARE,
    PREFIX,
    class_of,
    list_classes,
    list_images,
    read_array_header,
)
from gan_ablate.errors import UserError, option
from gan_ablate.seeding import stream_seed
from gan_ablate.training.images import (
    DARKEST,
    ReadingNotes,
    describe_darkness,
    fit_picture,
    read_picture,
    refuse_broken,
)

if TYPE_CHECKING:
    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.datasets import Fit


LAYOUT = 2
"""Raised when files are written, or images decoded, in another way."""

Arrays = dict[str, "Tensor"]


def find_decoded(cache: Path, key: str) -> Arrays | None:
    """Map what was kept under a key, or return None where nothing was, or not what was written.

    Args:
        cache: the results folder's cache.
        key: what the images depend on.
    """
    return read_decoded(_folder(cache, key))


def read_decoded(folder: Path) -> Arrays | None:
    """Map what was kept in a folder, or return None where nothing was, or not what was written."""
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        # Copy on write: processes share the pages as long as nobody writes to them, and nobody does.
        arrays = {name: torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in meta["arrays"]}
    except Exception:  # whatever NumPy and JSON raise on a damaged file: it is made anew
        return None
    return arrays if meta.get("sha256") == checksum(arrays) else None


def keep_decoded(cache: Path, key: str, arrays: Arrays) -> Arrays:
    """Write arrays under a key, whole or not at all, and map them; on a disk that takes none, return them as they are.

    Args:
        cache: the results folder's cache.
        key: what they depend on.
        arrays: name → tensor.
    """
    folder = _folder(cache, key)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
            for name, tensor in arrays.items():
                np.save(Path(temporary) / f"{name}.npy", tensor.contiguous().numpy())
            meta = {"arrays": list(arrays), "sha256": checksum(arrays), "key": key}
            (Path(temporary) / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")
            if folder.exists():  # damaged, or another process was faster
                known = find_decoded(cache, key)
                if known is not None:
                    return known
                shutil.rmtree(folder, ignore_errors=True)
            Path(temporary).replace(folder)
            Path(temporary).mkdir()  # which the context wants to remove
    except OSError:
        return find_decoded(cache, key) or arrays
    return find_decoded(cache, key) or arrays


def checksum(arrays: Arrays) -> str:
    """SHA-256 of all arrays, shapes included."""
    digest = hashlib.sha256()
    for name, tensor in arrays.items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _folder(cache: Path, key: str) -> Path:
    return cache / "images" / hashlib.sha256(f"{LAYOUT}/{key}".encode("utf-8", "backslashreplace")).hexdigest()[:16]


_TORCHVISION = {
    "mnist": ("MNIST", "MNIST/**/*"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/**/*"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py/**/*"),
    "torchvision:KMNIST": ("KMNIST", "KMNIST/**/*"),
    "torchvision:SVHN": ("SVHN", "*_32x32.mat"),
    "torchvision:CIFAR100": ("CIFAR100", "cifar-100-python/**/*"),
}
"""Data set → its class in ``torchvision.datasets``, and a pattern of its files."""

_FOLDER_ORIGIN = f"image folder, every {HELD_OUT_SHARE}th image held out, in an order by content"


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
    name: str,
    image_size: int,
    data_dir: Path,
    folder: Path | None = None,
    cache: Path | None = None,
    holdout: tuple[str, Path] | None = None,
    fit: Fit = "crop",
) -> ImageDataset:
    """Load a data set into memory, decoded once for all processes of a machine if there is a cache.

    Args:
        name: as in ``RunConfig.dataset``.
        image_size: side of the training images, in pixels.
        data_dir: torchvision's root, where a data set lies or is downloaded to.
        folder: where a ``folder:NAME@HASH`` lies; other data sets have none.
        cache: the results folder's, where decoded images are kept.
        holdout: name and place of the held-out images, where they are no part of a folder or an array.
        fit: how a folder's pictures become squares.

    Raises:
        UserError: if the data set is not there and cannot be downloaded, or a file of it cannot be read.
    """
    files: str | None = None
    if folder is not None:
        files = "named and ordered by their content"
    elif name in _TORCHVISION:
        files = _describe_files(name, data_dir)
    if cache is None or files is None:  # the embedded digits are read faster than any cache
        arrays = _decode(name, image_size, data_dir, folder, holdout, fit)
    else:
        key = (
            f"{name}, {image_size}, {files}"
            + (f", {holdout[0]}" if holdout else "")
            + (", padded" if fit == "pad" else "")
        )
        known = find_decoded(cache, key)
        arrays = known or keep_decoded(cache, key, _decode(name, image_size, data_dir, folder, holdout, fit))
    origin = f"array{_FOLDER_ORIGIN.removeprefix('image folder')}" if name.startswith(ARRAY_PREFIX) else _FOLDER_ORIGIN
    if holdout is not None:
        origin = f"{origin.partition(',')[0]}, held out: {holdout[0]}"
    origin += ", padded to squares" if fit == "pad" else ""
    origins = {"mnist-10k": "embedded in the package", **dict.fromkeys(_TORCHVISION, "torchvision")}
    sha256 = bytes(arrays["sha256"].tolist()).decode("ascii")
    return ImageDataset(
        name, arrays["images"], arrays.get("labels"), arrays["reference"], sha256, origins.get(name, origin)
    )


def _decode(
    name: str, image_size: int, data_dir: Path, folder: Path | None, holdout: tuple[str, Path] | None, fit: Fit
) -> dict[str, Tensor]:
    """Read images, labels if there are any, and reference; with them, the checksum before images are resized."""
    labels: Tensor | None
    match name:
        case "mnist-10k":
            (images, labels), (reference, _) = (_embedded_digits(part) for part in ("train", "test"))
        case _ if name in _TORCHVISION:
            (images, labels), (reference, _) = (_from_torchvision(name, data_dir, train=part) for part in (True, False))
        case _ if folder is not None:
            images, labels = _read_whole(name, folder, image_size, fit)
            if holdout is None:
                held_out = torch.arange(len(images)) % HELD_OUT_SHARE == HELD_OUT_SHARE - 1
                images, reference = images[~held_out], images[held_out]
                labels = None if labels is None else labels[~held_out]
            else:
                reference, _ = _read_whole(*holdout, image_size, fit)
        case _:
            raise UserError(f"{option('dataset', name)}: its folder on this machine is not known")
    digest = hashlib.sha256()
    for tensor in (images, reference):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().tobytes())
    sha256 = torch.tensor(list(digest.hexdigest().encode("ascii")), dtype=torch.uint8)
    arrays = {"images": resize(images, image_size), "reference": reference, "sha256": sha256}
    return arrays if labels is None else {**arrays, "labels": labels}


def _describe_files(name: str, data_dir: Path) -> str | None:
    """Name a data set's files with sizes and times, as a cache of others is not theirs; None before they exist."""
    _, pattern = _TORCHVISION[name]
    files = sorted(path for path in data_dir.glob(pattern) if path.is_file())
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

    kind = getattr(datasets, _TORCHVISION[name][0])
    part = {"train": train} if name != "torchvision:SVHN" else {"split": "train" if train else "test"}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torchvision says there which mirrors it tried
            try:
                dataset = kind(data_dir, **part, download=False)
            except RuntimeError:  # torchvision's word for "not there"
                dataset = kind(data_dir, **part, download=True)
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError, IndexError, struct.error) as failure:
        is_absent = isinstance(failure, OSError) or "not found" in str(failure)
        reason = str(failure).partition("\n")[0] if is_absent else "a file of it is empty, cut short or of another kind"
        raise UserError(
            f"{option('dataset', name)}: not readable under {option('data_dir', data_dir)}, "
            f"and not to be downloaded there "
            f"({reason}); "
            f"name the folder that holds it with {option('data_dir')}, or use the embedded mnist-10k"
        ) from None
    images = torch.as_tensor(dataset.data)
    labels = torch.as_tensor(dataset.labels if name == "torchvision:SVHN" else dataset.targets).long()
    if images.ndim == 3:
        return images.unsqueeze(1), labels
    return images if images.shape[1] == 3 else images.permute(0, 3, 1, 2).contiguous(), labels


def _read_whole(name: str, place: Path, image_size: int, fit: Fit) -> tuple[Tensor, Tensor | None]:
    """Read all images of a folder or an array, and their classes where they have some."""
    return _read_array(place) if name.startswith(ARRAY_PREFIX) else _read_folder(place, image_size, fit)


def _read_array(path: Path) -> tuple[Tensor, Tensor | None]:
    """Read an array of images, (N, C, S, S) uint8, and their labels, in an order that depends on their content alone.

    Every sixth one is held out, and in the file's order it might always be of the same class.
    """
    found = read_array_header(path)
    if found.num_images < HELD_OUT_SHARE:
        named = f"{option('dataset', ARRAY_PREFIX)}{path}"
        raise UserError(f"{named}: {found.num_images} images; valid: at least {HELD_OUT_SHARE}")
    stored = np.load(path, allow_pickle=False)
    images = stored["images"] if path.suffix == ".npz" else stored
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    images = np.ascontiguousarray(images)
    order = sorted(range(len(images)), key=lambda row: hashlib.sha256(images[row].data).digest())
    labels = None
    if found.num_classes:
        given = stored["labels"] if path.suffix == ".npz" else np.load(found.files[-1], allow_pickle=False)
        labels = torch.from_numpy(given.astype(np.int64)[order])
    return torch.from_numpy(images[order]), labels


def _read_folder(folder: Path, size: int, fit: Fit) -> tuple[Tensor, Tensor | None]:
    """Decode every image of a folder: (N, 3, size, size) uint8, see ``fit_picture``. All broken ones are named at once.

    They are in an order that depends on the files' content alone: every sixth one is held out, and by name it might
    always be the same kind of image.

    Their classes, (N,) int64, are the folders that they lie in, by name, where there are some.
    """
    paths = list_images(folder)
    if len(paths) < HELD_OUT_SHARE:
        raise UserError(f"{option('dataset', PREFIX)}{folder}: {len(paths)} images; valid: at least {HELD_OUT_SHARE}")
    paths.sort(key=lambda path: hashlib.sha256(path.read_bytes()).digest())
    notes = ReadingNotes()
    images = np.empty((len(paths), size, size, 3), np.uint8)
    broken: dict[str, str] = {}
    for row, path in enumerate(paths):
        try:
            images[row] = np.asarray(fit_picture(read_picture(path, notes), size, fit))
        except ValueError as reason:
            broken[str(path.relative_to(folder))] = str(reason)
    refuse_broken(f"{PREFIX}{folder}", broken, len(paths))
    if 0 < images.max() <= (DARKEST if notes.num_deep else 1):
        raise UserError(f"{PREFIX}{folder}: {describe_darkness(int(images.max()), notes)}")
    names = list_classes(folder, paths)
    labels = torch.tensor([names.index(class_of(folder, path)) for path in paths]) if names else None
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def sample_latents(config: RunConfig, num: int, stream: torch.Generator) -> Tensor:
    """Draw latents from a run's own distribution: (num, latent_dim), on the stream's device."""
    shape = (num, config.latent_dim)
    match config.latent_distribution:
        case "normal":
            return torch.randn(shape, generator=stream, device=stream.device)
        case "uniform":
            return torch.rand(shape, generator=stream, device=stream.device).mul_(2).sub_(1)
        case _:
            assert_never(config.latent_distribution)


def one_hot(config: RunConfig, classes: Tensor) -> Tensor:
    """Turn (B,) int64 classes into (B, num_classes) of PyTorch's default dtype."""
    known = torch.arange(config.num_classes or 0, device=classes.device)
    return (classes[:, None] == known).to(torch.get_default_dtype())


def ask_for(config: RunConfig, z: Tensor, classes: Tensor) -> Tensor:
    """Put behind (B, latent_dim) latents the classes, (B,) int64, that G is to draw: (B, num_inputs_g)."""
    return torch.cat((z, one_hot(config, classes)), 1)


def classes_in(config: RunConfig, latents: Tensor) -> Tensor | None:
    """Read back the one-hot classes, (B, num_classes), that (B, num_inputs_g) latents ask for, if they ask for any."""
    return latents[:, config.latent_dim :] if config.num_classes else None


def select_logits(outputs: Tensor, classes: Tensor | None) -> Tensor:
    """Return the logits of images, of the classes they are said to be of.

    This is D(x, y) = ψ(φ(x)) + vᵧᵀφ(x) (arXiv:1802.05637, equation 3): D's last layer gives ψ first, then a term for
    each class.

    Args:
        outputs: (B,) of a D without classes, or (B, 1 + num_classes).
        classes: (B, num_classes) one-hot, or None.

    Returns:
        (B,) logits.
    """
    return outputs if classes is None else outputs[:, 0] + (outputs[:, 1:] * classes).sum(1)
