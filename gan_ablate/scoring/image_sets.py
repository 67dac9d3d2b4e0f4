"""Sets of external images: read folders, files and arrays, check them, and order the images by content."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gan_ablate.design.datasets import scan_folder
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.training.images import DARKEST, ReadingNotes, describe_darkness, read_picture, refuse_broken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ARRAY_SUFFIXES = (".npy", ".npz")
MAX_SIDE = 1_024
"""Pixels of a side, as for training."""
MAX_IMAGES = 1_000_000

MAX_FEW_VALUES = 3
"""Images of no more different values than these were rounded on the way: -1, 0 and 1 become 255, 0 and 1."""

MADE_GREY = "colour made grey"

Images: TypeAlias = "NDArray[np.uint8] | Tensor | str | Path"


@dataclass(frozen=True)
class ImageSet:
    """Images from outside, as scoring takes them.

    Attributes:
        source: where they came from, for messages.
        images: (N, C, S, S) uint8, in the order of ``order_by_content``.
        notes: what was made of them on the way, and what is odd about them.
    """

    source: str
    images: Tensor
    notes: tuple[str, ...]


def read_set(images: Images, *, num_channels: int) -> ImageSet:
    """Read images from anywhere, and put them in an order that does not depend on where they lay.

    Args:
        images: an array or a tensor, or the path of a folder, of a ``.npy`` or of a ``.npz`` file.
        num_channels: of the result: 1 makes colour grey, 3 repeats grey.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    source = str(images) if isinstance(images, (str, Path)) else "images"
    tensor, notes = _read(images, num_channels, None)
    return ImageSet(source, order_by_content(tensor), tuple(notes))


def read_images(images: Images, *, num_channels: int, size: int | None = None) -> tuple[Tensor, list[str]]:
    """Read images as scoring takes them.

    Args:
        images: an array or a tensor, or the path of a folder, of a ``.npy`` or of a ``.npz`` file.
        num_channels: of the result: 1 makes colour grey, 3 repeats grey.
        size: the side that they have to have; by default, whatever they all have.

    Returns:
        (N, num_channels, S, S) uint8, and notes: what was made of them, and what is odd about their values.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    return _read(images, num_channels, size)


def read_files(files: Sequence[Path], *, num_channels: int, size: int | None = None) -> tuple[Tensor, list[str]]:
    """Read pictures, one image a file; see ``read_images``."""
    return _from_files(files, num_channels, size)


def _read(images: Images, num_channels: int, size: int | None) -> tuple[Tensor, list[str]]:
    """Read images of any form, and say what was made of them."""
    if not isinstance(images, (str, Path)):
        return _from_array(_to_array(images), "images", num_channels, size)
    path = Path(images)
    if path.suffix.lower() in ARRAY_SUFFIXES:
        named = _read_named_array(path)
        tensor, notes = _from_array(named.array, str(path), num_channels, size)
        if named.others:
            notes.append(f"scored is {named.name}; left out: {', '.join(map(shorten, named.others))}")
        return tensor, notes
    if not path.is_dir():
        reason = "not a folder, nor a .npy or .npz file" if path.exists() else "no such file or folder"
        raise UserError(f"{path}: {reason}; valid: a folder of pictures, or a .npy or .npz file")
    scan = scan_folder(path, "")
    tensor, notes = _from_files(scan.images, num_channels, size)
    return tensor, [*notes, *([f"left out: {scan.note()}"] if scan.skipped else [])]


def _to_array(images: NDArray[np.generic] | Tensor) -> NDArray[np.generic]:
    """Turn what a caller has into an array; a tensor may need a gradient, or have a type that NumPy has not.

    Raises:
        UserError: if it is neither an array nor a tensor.
    """
    if isinstance(images, Tensor):
        dense = images.detach().to_dense() if images.layout != torch.strided else images.detach()
        return (dense.float() if dense.is_floating_point() else dense).cpu().numpy()
    if not isinstance(images, np.ndarray):
        advice = "valid: an array or tensor of uint8, or the path of a folder, .npy or .npz file"
        raise UserError(f"images: of type {type(images).__name__}; {advice}")
    return images


def _from_files(files: Sequence[Path], num_channels: int, size: int | None) -> tuple[Tensor, list[str]]:
    if len(files) > MAX_IMAGES:
        raise UserError(f"{files[0].parent}: {len(files):,} pictures; valid: at most {MAX_IMAGES:,}")
    pixels: NDArray[np.uint8] | None = None
    broken: dict[str, str] = {}
    reading, is_coloured = ReadingNotes(), False
    for row, file in enumerate(files):
        try:
            picture = read_picture(file, reading)
        except ValueError as reason:
            broken[file.name] = str(reason)
            continue
        size = picture.size[0] if size is None else size
        _check_size(str(file), picture.size[::-1], size)
        array = np.asarray(picture)
        if num_channels == 1:
            is_coloured = is_coloured or bool((array.min(2) != array.max(2)).any())
            array = np.asarray(picture.convert("L"))
        if pixels is None:
            pixels = np.empty((len(files), num_channels, size, size), np.uint8)
        pixels[row] = array.reshape(size, size, num_channels).transpose(2, 0, 1)
    refuse_broken(str(files[0].parent), broken, len(files))
    assert pixels is not None, "no files"
    return torch.from_numpy(pixels), [
        *reading.describe(),
        *([MADE_GREY] if is_coloured else []),
        *_describe_values(pixels, reading),
    ]


@dataclass(frozen=True)
class _NamedArray:
    """The array of images in a file, and the names of the others in it."""

    name: str
    array: NDArray[np.generic]
    others: list[str]


def _read_named_array(path: Path) -> _NamedArray:
    """Read the images of a ``.npy`` or ``.npz`` file; none that holds Python objects.

    A ``.npz`` names them ``images``, or they are its only array of three or four dimensions: samplers write ``arr_0``
    and labels as ``arr_1`` besides.

    Raises:
        UserError: if it cannot be read, or it is not clear which array holds the images.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name} in it is no array")
    except Exception as broken:  # zip and header parsers raise what they like
        reason = str(getattr(broken, "strerror", None) or broken).partition("\n")[0] or type(broken).__name__
        raise UserError(f"{path}: not a readable array ({shorten(reason)})") from None
    likely = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    chosen = "images" if "images" in arrays else likely[0] if len(likely) == 1 else None
    if chosen is None and len(arrays) == 1:
        (chosen,) = arrays
    if chosen is not None:
        return _NamedArray(chosen, arrays[chosen], [name for name in arrays if name != chosen])
    names = shorten(", ".join(arrays)) or "none"
    if {"mu", "sigma"} <= arrays.keys():
        advice = "FID's statistics of images, without the images that the other scores need; valid: the images"
        raise UserError(f"{path}: arrays {names}: {advice}")
    raise UserError(f"{path}: arrays {names}; valid: one of images, or one called images")


def _from_array(
    array: NDArray[np.generic], source: str, num_channels: int, size: int | None
) -> tuple[Tensor, list[str]]:
    shape = " × ".join(map(str, array.shape))
    if array.dtype != np.uint8:
        raise UserError(f"{source}: {_describe_numbers(array)}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not len(array):
        raise UserError(f"{source}: an array of {shape}; valid: N × H × W, N × H × W × C or N × C × H × W, C 1 or 3")
    if len(array) > MAX_IMAGES:
        raise UserError(f"{source}: {len(array):,} images; valid: at most {MAX_IMAGES:,}")
    _check_size(source, array.shape[2:], array.shape[3] if size is None else size)
    pixels = np.ascontiguousarray(array, np.uint8)
    images, notes = torch.from_numpy(pixels), _describe_values(pixels, ReadingNotes())
    if images.shape[1] == num_channels:
        return images, notes
    if num_channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous(), notes
    # As Pillow makes grey of colour, ITU-R 601-2 in whole numbers.
    red, green, blue = (images[:, i].to(torch.int32) for i in range(3))
    grey = ((19_595 * red + 38_470 * green + 7_471 * blue + 0x8000) >> 16).to(torch.uint8).unsqueeze(1)
    is_coloured = bool((pixels.min(1) != pixels.max(1)).any())
    return grey, [*([MADE_GREY] if is_coloured else []), *notes]


def _describe_numbers(array: NDArray[np.generic]) -> str:
    """Say what numbers an array holds that is not of uint8, and how they become uint8."""
    what, valid = f"numbers of type {array.dtype}", "valid: uint8 from 0 to 255"
    if array.dtype.kind not in "biuf" or not array.size:
        return f"{what}; {valid}"
    low, high = float(array.min()), float(array.max())
    if not np.isfinite((low, high)).all():
        return f"{what}, some of them not finite; {valid}"
    # A convention is told by its lowest and highest number: the formula of another one gives other pictures.
    if array.dtype.kind == "f" and -1.01 <= low < 0 and high <= 1.01:
        formula = 'from [-1, 1] by ((x + 1) * 127.5).round().clip(0, 255).astype("uint8")'
    elif array.dtype.kind in "bf" and low >= 0 and high <= 1:
        formula = 'from [0, 1] by (x * 255.0).round().astype("uint8")'
    elif low >= 0 and high <= 255:
        formula = 'from [0, 255] by x.round().astype("uint8")'
    else:
        formula = "clipped to the range they were made for, and scaled from it"
    return f"{what} from {low:g} to {high:g}; {valid}; {formula}"


def _describe_values(pixels: NDArray[np.uint8], reading: ReadingNotes) -> list[str]:
    """Say what is odd about pixels before they are made grey."""
    brightest, darkest = int(pixels.max()), int(pixels.min())
    if brightest <= DARKEST:
        return [describe_darkness(brightest, reading)]
    if darkest in (127, 128) and brightest == 255:  # no chance: what 0 and 1 become
        return [f"no pixel is darker than {darkest} of 255: were values in [0, 1] scaled as if they were in [-1, 1]?"]
    values = np.flatnonzero(np.bincount(pixels.reshape(-1), minlength=256)).tolist()
    if len(values) > MAX_FEW_VALUES:
        return []
    shown = ", ".join(map(str, values))
    return [f"pixels have no other values than {shown}: were values in [-1, 1] or [0, 1] cut to whole numbers?"]


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
    however the images came. Copies of an image are counted, so that they do not lie side by side.

    Args:
        images: (N, C, S, S) uint8.

    Returns:
        The same images, (N, C, S, S).
    """
    num_met: Counter[bytes] = Counter()
    keys = []
    for image in images.numpy():
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        keys.append(hashlib.blake2b(digest + num_met[digest].to_bytes(8), digest_size=16).digest())
        num_met[digest] += 1
    return images[sorted(range(len(keys)), key=keys.__getitem__)]
