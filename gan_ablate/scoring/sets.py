"""Images that any program drew, in files or an array, in; what they score, and what real images would, out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gan_ablate.design.datasets import DATASETS, MIN_SAMPLES, count_channels, default_features
from gan_ablate.design.folders import IMAGE_SUFFIXES, PREFIX, KnownFolders
from gan_ablate.design.validation import choices, shorten
from gan_ablate.errors import UserError
from gan_ablate.scoring.features import build_extractor
from gan_ablate.scoring.score import Scorer
from gan_ablate.scoring.scores import Scores
from gan_ablate.training.data import load_dataset, read_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ARRAY_SUFFIXES = (".npy", ".npz")
MAX_SIDE = 1_024
"""Pixels of a side, as for training."""
MAX_IMAGES = 1_000_000

Images: TypeAlias = "NDArray[np.uint8] | Tensor | str | Path"


class ImageScores(Scores):
    """What a set of images scores, and what as many real training images of the same size do.

    Attributes:
        floor: of the real ones.
        image_size: side of the images, in pixels.
    """

    floor: Scores
    image_size: int

    def as_row(self) -> dict[str, float | int | None]:
        """Return every score of the images under its name, for a row of a table."""
        return {name: value for name, value in super().as_row().items() if name not in ("floor", "image_size")}


def score_images(
    images: Images,
    dataset: str = "mnist-10k",
    *,
    data_dir: str | Path = "data",
    features: Literal["inception"] | None = None,
    inception_weights: str | Path | None = None,
    device: str = "cpu",
    out: str | Path = "results",
) -> ImageScores:
    """Score images that any program drew against a data set's held-out images, as runs are scored.

    Args:
        images: an array or tensor, uint8, (N, H, W), (N, H, W, C) or (N, C, H, W) with one channel or three and
            H = W; or the path of a folder of pictures, one a file, or of a ``.npy`` or ``.npz`` file with such an
            array. Colour is made grey where the data set is grey, and the other way round.
        dataset: by name, or ``folder:PATH``.
        data_dir: where torchvision's data sets lie or are downloaded to.
        features: score with Inception instead of the data set's own classifier; colour images have no other.
        inception_weights: a copy of its weights (implies ``features="inception"``).
        device: ``cpu``, ``cuda``…, which extracts features.
        out: the results folder whose cache keeps the real images' features.

    Returns:
        The scores, such as ``.fid``, ``.kid``, ``.recall``, and ``.floor``.

    Raises:
        UserError: if images or data cannot be read or do not go together, or there are too few.
    """
    named = KnownFolders()
    if dataset.startswith(PREFIX):
        dataset = named.name(dataset, "--dataset")
    elif dataset not in DATASETS:
        raise UserError(f"--dataset {shorten(dataset)}: {choices(dataset, list(DATASETS))}")
    kind = "inception" if features == "inception" or inception_weights is not None else default_features(dataset)
    if kind == "none":
        advice = "--features inception (downloads 95 MB) or --inception-weights PATH"
        raise UserError(f"--dataset {shorten(dataset)}: colour images have no classifier of their own; valid: {advice}")
    tensor = load_images(images, num_channels=count_channels(dataset))
    if len(tensor) < MIN_SAMPLES[kind]:
        source = images if isinstance(images, (str, Path)) else "images"
        raise UserError(f"{source}: {len(tensor):,} images; valid: at least {MIN_SAMPLES[kind]:,} for {kind} features")
    scorer = _build_scorer(named, dataset, tensor.shape[-1], Path(data_dir), kind, inception_weights, device, Path(out))
    return ImageScores(**dict(scorer.score(tensor)), floor=scorer.floor(len(tensor)), image_size=tensor.shape[-1])


def _build_scorer(
    named: KnownFolders,
    dataset: str,
    size: int,
    data_dir: Path,
    kind: Literal["digits", "fashion", "inception"],
    weights: str | Path | None,
    device: str,
    out: Path,
) -> Scorer:
    place = named.places.get(dataset)
    cache = out / "cache"
    data = load_dataset(dataset, size, data_dir, None if place is None else Path(place), cache)
    where = torch.device(device)
    extractor = build_extractor(kind, where, None if weights is None else Path(weights))
    return Scorer(data, extractor, cache)


def load_images(images: Images, *, num_channels: int, size: int | None = None) -> Tensor:
    """Read images as scoring takes them.

    Args:
        images: as for ``score_images``.
        num_channels: of the result: 1 makes colour grey, 3 repeats grey.
        size: the side that they have to have; by default, whatever they all have.

    Returns:
        (N, num_channels, S, S) uint8.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    if not isinstance(images, (str, Path)):
        array = images.cpu().numpy() if isinstance(images, Tensor) else images
        return _from_array(array, "images", num_channels, size)
    path = Path(images)
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _from_array(read_array(path), str(path), num_channels, size)
    if not path.is_dir():
        reason = "not a folder, nor a .npy or .npz file" if path.exists() else "no such file or folder"
        raise UserError(f"{path}: {reason}; valid: a folder of pictures, or a .npy or .npz file")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not files:
        raise UserError(f"{path}: no picture in it; valid: {', '.join(IMAGE_SUFFIXES)}")
    return load_files(files, num_channels=num_channels, size=size)


def load_files(files: Sequence[Path], *, num_channels: int, size: int | None = None) -> Tensor:
    """Read pictures, one image a file; see ``load_images``."""
    if len(files) > MAX_IMAGES:
        raise UserError(f"{files[0].parent}: {len(files):,} pictures; valid: at most {MAX_IMAGES:,}")
    pixels: NDArray[np.uint8] | None = None
    for row, file in enumerate(files):
        try:
            picture = read_picture(file)
        except ValueError as broken:
            raise UserError(f"{file}: not a readable picture ({broken})") from None
        size = picture.size[0] if size is None else size
        _check_size(str(file), picture.size[::-1], size)
        array = np.asarray(picture.convert("L") if num_channels == 1 else picture)
        if pixels is None:
            pixels = np.empty((len(files), num_channels, size, size), np.uint8)
        pixels[row] = array.reshape(size, size, num_channels).transpose(2, 0, 1)
    assert pixels is not None, "no files"
    return torch.from_numpy(pixels)


def read_array(path: Path) -> NDArray[np.generic]:
    """Read the one array of a ``.npy`` or ``.npz`` file; none that holds Python objects.

    Raises:
        UserError: if it cannot be read, or a ``.npz`` holds several and none is called ``images``.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = list(loaded.files)
            name = "images" if "images" in names else names[0] if len(names) == 1 else None
            if name is not None:
                array: NDArray[np.generic] | bytes = loaded[name]
                if isinstance(array, np.ndarray):
                    return array
                raise ValueError(f"{name} in it is no array")
    except Exception as broken:  # zip and header parsers raise what they like
        reason = str(getattr(broken, "strerror", None) or broken).partition("\n")[0] or type(broken).__name__
        raise UserError(f"{path}: not a readable array ({shorten(reason)})") from None
    raise UserError(f"{path}: arrays {shorten(', '.join(names)) or 'none'}; valid: one, or one called images")


def _from_array(array: NDArray[np.generic], source: str, num_channels: int, size: int | None) -> Tensor:
    shape = " × ".join(map(str, array.shape))
    if array.dtype != np.uint8:
        advice = 'valid: uint8 from 0 to 255; from [-1, 1] by ((x + 1) * 127.5).round().clip(0, 255).astype("uint8")'
        raise UserError(f"{source}: numbers of type {array.dtype}; {advice}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not len(array):
        raise UserError(f"{source}: an array of {shape}; valid: N × H × W, N × H × W × C or N × C × H × W, C 1 or 3")
    if len(array) > MAX_IMAGES:
        raise UserError(f"{source}: {len(array):,} images; valid: at most {MAX_IMAGES:,}")
    _check_size(source, array.shape[2:], array.shape[3] if size is None else size)
    images = torch.from_numpy(np.ascontiguousarray(array, np.uint8))
    if images.shape[1] == num_channels:
        return images
    if num_channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    # As Pillow makes grey of colour, ITU-R 601-2 in whole numbers.
    red, green, blue = (images[:, i].to(torch.int32) for i in range(3))
    return ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16).to(torch.uint8).unsqueeze(1)


def _check_size(source: str, found: Sequence[int], side: int) -> None:
    height, width = found
    if not (1 <= side <= MAX_SIDE and height and width):
        raise UserError(f"{source}: {width}×{height} pixels; valid: from 1×1 to {MAX_SIDE}×{MAX_SIDE}")
    if (height, width) != (side, side):
        raise UserError(f"{source}: {width}×{height} pixels; valid: {side}×{side}, one image a picture")


def order_by_content(images: Tensor) -> Tensor:
    """Put images in an order that depends on their content alone.

    Precision, recall and the nearest ratio use a part of the images, and FID's interval cuts them into tenths. Files
    sorted by class would bias each. The order is that of the images' digests, so it is as good as random and the same
    however the images came.

    Args:
        images: (N, C, S, S) uint8.

    Returns:
        The same images, (N, C, S, S).
    """
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images.numpy()]
    return images[sorted(range(len(digests)), key=digests.__getitem__)]
