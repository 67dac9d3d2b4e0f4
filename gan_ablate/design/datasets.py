"""Data sets: their names and classes; image folders and arrays: list the files and hash their content."""

from __future__ import annotations

import array
import ast
import hashlib
import json
import os
import struct
import zipfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


DATASETS: dict[str, str] = {
    "mnist-10k": "10,000 MNIST digits, embedded in the package: needs no network (the default)",
    "mnist": "60,000 MNIST digits, through torchvision",
    "fashion-mnist": "60,000 grey pictures of garments, through torchvision",
    "cifar10": "50,000 colour pictures of ten kinds of things, through torchvision",
    "torchvision:KMNIST": "60,000 grey cursive Japanese characters of ten kinds, through torchvision",
    "torchvision:SVHN": "73,257 colour pictures of house numbers' digits, through torchvision",
    "torchvision:CIFAR100": "50,000 colour pictures of a hundred kinds of things, through torchvision",
    "folder:PATH": "every image below PATH, resized and centre-cropped, in colour",
    "array:PATH": "an .npy of uint8 images, with labels.npy beside it, or an .npz with images and labels",
}

NUM_TRAINING_IMAGES = {
    "mnist-10k": 10_000, "mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000, "torchvision:KMNIST": 60_000,
    "torchvision:SVHN": 73_257, "torchvision:CIFAR100": 50_000,
}  # fmt: skip
NUM_HELD_OUT = {**dict.fromkeys(NUM_TRAINING_IMAGES, 10_000), "torchvision:SVHN": 26_032}
NUM_CLASSES = {**dict.fromkeys(NUM_TRAINING_IMAGES, 10), "torchvision:CIFAR100": 100}
_GREY = ("mnist-10k", "mnist", "fashion-mnist", "torchvision:KMNIST")

DATASET_FILES = {
    "mnist-10k": ("28×28, grey", "in the package"),
    "mnist": ("28×28, grey", "under --data-dir, or downloaded there by torchvision, 12 MB"),
    "fashion-mnist": ("28×28, grey", "under --data-dir, or downloaded there by torchvision, 31 MB"),
    "cifar10": ("32×32, colour", "under --data-dir, or downloaded there by torchvision, 170 MB"),
    "torchvision:KMNIST": ("28×28, grey", "under --data-dir, or downloaded there by torchvision, 21 MB"),
    "torchvision:SVHN": ("32×32, colour", "under --data-dir, or downloaded there by torchvision, 246 MB"),
    "torchvision:CIFAR100": ("32×32, colour", "under --data-dir, or downloaded there by torchvision, 169 MB"),
}
"""Data set → its images, and where they lie."""

FeatureKind = Literal["digits", "fashion", "objects", "inception", "none"]
_FEATURES: dict[str, FeatureKind] = {"mnist-10k": "digits", "mnist": "digits", "fashion-mnist": "fashion"}

EXTRACTORS: dict[FeatureKind, str] = {
    "digits": "a classifier of MNIST digits, in the package",
    "fashion": "a classifier of Fashion-MNIST's garments, in the package",
    "objects": "a classifier of CIFAR-10's ten classes, trained on 10,000 of its images, in the package",
}
NUM_FEATURES: dict[FeatureKind, int] = {"digits": 64, "fashion": 64, "objects": 64, "inception": 2048}

IMAGES_PER_FEATURE = 2
"""Fewest images for each feature in FID, which compares covariances. With no more images than features a covariance is
singular. With twice as many its smallest eigenvalue is 0.09 of the true one, (1 - √½)² (Marchenko and Pastur, 1967).
Real against real, 64 normal features have a FID of 15 % of their variance with 2 images a feature, 1.5 % with 20."""

IMAGES_PER_CHEAP_FEATURE = 20
"""The same for the small classifiers: more images cost them little, and FID's bias is a tenth of that."""

MIN_SAMPLES: dict[FeatureKind, int] = {
    "digits": IMAGES_PER_CHEAP_FEATURE * NUM_FEATURES["digits"],
    "fashion": IMAGES_PER_CHEAP_FEATURE * NUM_FEATURES["fashion"],
    "objects": IMAGES_PER_CHEAP_FEATURE * NUM_FEATURES["objects"],
    "inception": IMAGES_PER_FEATURE * NUM_FEATURES["inception"],
    "none": 2,
}
"""Fewest images that are scored, by extractor; a user's needs ``IMAGES_PER_FEATURE`` for each of its features."""


MIN_REFERENCE = 6
"""Fewest held-out images to compare with: the ball around an image reaches its fifth nearest neighbour."""


def default_features(dataset: str) -> FeatureKind:
    """Return the shipped classifier that suits a data set; ``none`` where there is none."""
    return _FEATURES.get(dataset, "none")


def count_channels(dataset: str) -> int:
    """Return the colour channels of a data set's images: 1 or 3."""
    return 1 if dataset in _GREY or dataset.endswith(GREY_SUFFIX) else 3


Fit = Literal["crop", "pad"]
"""How a picture becomes a square: its centre, or all of it on black."""

HELD_OUT_SHARE = 6
"""Every sixth image of a folder is held out as the scoring reference, as MNIST holds out 10,000 of 60,000."""

PREFIX = "folder:"
ARRAY_PREFIX = "array:"
GREY_SUFFIX = ",grey"
"""Ends the name of an array of grey images by its content: ``array:NAME@HASH,grey``."""
LABELS_FILE = "labels.npy"
"""Beside an ``.npy`` of images: their classes."""
IMAGE_SUFFIXES = (
    ".bmp", ".jpe", ".jpeg", ".jpg", ".jfif", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
OTHER_IMAGE_SUFFIXES = (
    ".apng", ".avif", ".dcm", ".dng", ".eps", ".exr", ".gif", ".hdr", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".npy",
    ".npz", ".pdf", ".pfm", ".psd", ".svg", ".tga",
)  # fmt: skip
"""Formats that are not read: several frames or sizes, no white, or vector graphics."""
MAC_RESOURCES = "__MACOSX"
"""The folder of archives made on a Mac with metadata of each file, under the file's name."""

TRAINING_NAMES, TEST_NAMES = ("train", "training"), ("test", "testing", "val", "valid", "validation", "dev")
"""Names, in any case, of folders with the parts of a data set."""


@dataclass(frozen=True)
class FolderScan:
    """The images of a folder.

    Attributes:
        images: every image file below the folder, in an order that depends on the names alone.
        skipped: kind of file that is not read → how many there are.
    """

    images: list[Path]
    skipped: dict[str, int]

    def note(self) -> str:
        """Say which files are skipped; empty where there are none."""
        return ", ".join(f"{num} {what}" for what, num in sorted(self.skipped.items()))


def scan_folder(folder: Path, source: str = option("dataset")) -> FolderScan:
    """List the images below a folder, and count skipped files.

    Args:
        folder: the folder.
        source: the option or field that names it as a data set, for the message; empty for a folder of samples.

    Raises:
        UserError: if the folder does not exist, or holds no image.
    """
    named = f"{source} {PREFIX}{folder}" if source else str(folder)
    if not folder.is_dir():
        raise UserError(f"{named}: no such folder")
    images, skipped = [], Counter[str]()
    for path in folder.rglob("*"):
        suffix = path.suffix.lower()
        clutter = _clutter(path.relative_to(folder))
        if clutter:  # of editors, file managers and archives: .ipynb_checkpoints, ._1.png
            skipped[clutter] += suffix in IMAGE_SUFFIXES
        elif path.is_symlink() and path.is_dir():
            skipped["links to folders"] += 1
        elif suffix in IMAGE_SUFFIXES and path.is_file():
            images.append(path)
        elif suffix in IMAGE_SUFFIXES and path.is_symlink():
            skipped["links to nowhere"] += 1
        elif suffix in OTHER_IMAGE_SUFFIXES:
            skipped[suffix] += 1
    scan = FolderScan(sorted(images, key=lambda path: path.relative_to(folder).as_posix()), dict(+skipped))
    if not images:
        left_out = f" (left out: {scan.note()})" if skipped else ""
        raise UserError(f"{named}: no image in it{left_out}; valid: {', '.join(IMAGE_SUFFIXES)}")
    return scan


def _clutter(path: Path) -> str:
    """Return the kind of clutter of a path below a folder; empty for other paths."""
    if MAC_RESOURCES in path.parts:
        return f"in {MAC_RESOURCES}"
    return "hidden" if any(part.startswith(".") for part in path.parts) else ""


def list_images(folder: Path) -> list[Path]:
    """List the images below ``folder``; see ``scan_folder``."""
    return scan_folder(folder).images


def folder_identity(folder: Path, images: Sequence[Path] | None = None) -> str:
    """Name a folder by its content: ``folder:NAME@HASH``, the hash over relative paths and the files' bytes.

    A folder that moves is the same data set; other images under the same path are another one. The hash is cached until
    a file's name, size or time changes.

    Args:
        folder: the folder.
        images: its images, if they are listed already.
    """
    images = list_images(folder) if images is None else images
    signature = hashlib.sha256()
    for name, path in _named(folder, images):
        stat = path.stat()
        signature.update(name + f"\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}\n".encode())
    key, cache = str(folder.resolve()).encode("utf-8", "backslashreplace").decode(), _read_cache()
    known = cache.get(key)
    if isinstance(known, list) and len(known) == 2 and known[0] == signature.hexdigest():
        return str(known[1])
    digest = hashlib.sha256()
    for name, path in _named(folder, images):
        digest.update(name + f"\0{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    shown = folder.resolve().name.encode("utf-8", "backslashreplace").decode()
    identity = f"{PREFIX}{shown}@{digest.hexdigest()[:8]}"
    place = _cache_path()
    if place is None:
        return identity
    with suppress(OSError):  # without a cache, hashing only takes time again
        write_atomically(place, json.dumps({**cache, key: [signature.hexdigest(), identity]}))
    return identity


def folder_revisions(dataset: str) -> tuple[str, ...]:
    """Return the corrections that changed the results of runs on image folders; other data sets have none."""
    return ("folder_images_in_fixed_order", "folder_resized_bilinearly") if dataset.startswith(PREFIX) else ()


def list_classes(folder: Path, images: Sequence[Path]) -> list[str]:
    """List the classes of a folder's images: the folders directly below it, if there are at least two.

    Args:
        folder: the folder.
        images: its images, from ``scan_folder``.

    Returns:
        The names in order; empty if there is one folder, or an image lies in none.
    """
    names = {class_of(folder, path) for path in images}
    return sorted(names) if len(names) > 1 and "" not in names else []


def class_of(folder: Path, image: Path) -> str:
    """Return the name of the folder directly below ``folder`` that contains an image; empty if there is none."""
    parts = image.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


@dataclass
class KnownFolders:
    """The image folders of a plan's runs, each scanned once.

    Attributes:
        paths: ``folder:NAME@HASH`` → its path on this machine.
        notes: what a user should know about them before training.
        images: ``folder:NAME@HASH`` → its images.
    """

    paths: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    images: dict[str, list[Path]] = field(default_factory=dict)
    _num_classes: dict[str, int] = field(default_factory=dict)
    _num_images: dict[str, int] = field(default_factory=dict)

    def name(self, dataset: str, origin: str) -> str:
        """Turn ``folder:PATH`` into ``folder:NAME@HASH``, and ``array:PATH`` into ``array:NAME@HASH``.

        Args:
            dataset: ``folder:PATH`` or ``array:PATH``.
            origin: the option or field that sets it, for the message.

        Raises:
            UserError: if it is not a folder of images, or no array of images.
        """
        if dataset.startswith(ARRAY_PREFIX):
            return self._name_array(dataset, origin)
        text = dataset.removeprefix(PREFIX)
        if not text:
            raise UserError(f"{origin} {shorten(dataset)}: which folder? valid: {PREFIX}PATH")
        try:
            folder = Path(text).expanduser()
        except RuntimeError:  # ~nobody has no home
            raise UserError(f"{origin} {shorten(dataset)}: no such folder; valid: {PREFIX}PATH") from None
        place = str(folder.resolve())
        if not (text.isprintable() and place.isprintable()):  # the run's configuration contains it in UTF-8
            reason = f"its path {place!a} has a name that is no UTF-8, or cannot be printed"
            raise UserError(f"{origin} {shorten(dataset)}: {reason}; valid: {PREFIX}PATH, renamed")
        for identity, known in self.paths.items():
            if known == place:
                return identity
        scan = scan_folder(folder, origin)
        if scan.skipped:
            self.notes.append(f"{PREFIX}{folder}: {len(scan.images):,} images; left out: {scan.note()}")
        identity = folder_identity(folder, scan.images)
        self.paths[identity] = place
        # Below the resolved folder, because classes are the folders directly below it.
        self.images[identity] = [Path(place) / path.relative_to(folder) for path in scan.images]
        split = _describe_split(folder, scan.images)
        if split:
            self.notes.append(split)
        return identity

    def _name_array(self, dataset: str, origin: str) -> str:
        path = Path(dataset.removeprefix(ARRAY_PREFIX))
        place = str(path.resolve())
        for identity, known in self.paths.items():
            if known == place:
                return identity
        try:
            found = read_array_header(path)
        except (OSError, ValueError, KeyError, TypeError, SyntaxError, struct.error, zipfile.BadZipFile) as broken:
            advice = "valid: an .npy of images, or an .npz with images and, for classes, labels"
            reason = getattr(broken, "strerror", None) or str(broken).partition("\n")[0][:200]
            raise UserError(f"{origin} {shorten(dataset)}: cannot be read ({reason}); {advice}") from None
        digest = hashlib.sha256()
        for file in found.files:
            digest.update(file.name.encode() + file.read_bytes())
        stem = f"{ARRAY_PREFIX}{file_stem(path)}@{digest.hexdigest()[:8]}"
        identity = f"{stem}{GREY_SUFFIX}" if found.is_grey else stem
        self.paths[identity], self._num_images[identity] = place, found.num_images
        if found.num_classes:
            self._num_classes[identity] = found.num_classes
            words = f"{found.num_images:,} images of {found.num_classes:,} classes, by {found.files[-1].name}"
            self.notes.append(f"{ARRAY_PREFIX}{path}: {words}")
        return identity

    def count_all_images(self, dataset: str) -> int:
        """Count the images of a folder or an array, those that are held out included."""
        return self._num_images[dataset] if dataset in self._num_images else len(list_images(Path(self.paths[dataset])))

    def count_images(self, dataset: str, *, is_whole: bool = False) -> int:
        """Count the training images of a data set; all of a folder's if it ``is_whole``, without a held-out sixth."""
        if dataset not in self.paths:
            return NUM_TRAINING_IMAGES[dataset]
        num = self._num_images[dataset] if dataset in self._num_images else len(self.images[dataset])
        return num if is_whole else num - num // HELD_OUT_SHARE

    def count_classes(self, dataset: str, source: str) -> int:
        """Count the classes of a data set.

        Raises:
            UserError: if it is a folder without classes.
        """
        if dataset not in self.paths:
            return NUM_CLASSES[dataset]
        if dataset in self._num_images and dataset not in self._num_classes:
            advice = f"valid: {LABELS_FILE} beside an .npy, or labels in an .npz: whole numbers from 0"
            raise UserError(
                f"{source}: conditional = true: {ARRAY_PREFIX}{self.paths[dataset]} has no labels; {advice}"
            )
        if dataset not in self._num_classes:
            folder = Path(self.paths[dataset])
            names = list_classes(folder, self.images[dataset])
            if not names:
                advice = "valid: a folder whose images lie in at least two folders, one a class"
                raise UserError(f"{source}: conditional = true: {PREFIX}{folder} has no classes; {advice}")
            self._num_classes[dataset] = len(names)
        return self._num_classes[dataset]


@dataclass(frozen=True)
class ArrayHeader:
    """What the headers of an array data set say.

    Attributes:
        num_images: the number of images.
        side: of the images, in pixels.
        is_grey: whether they have one channel.
        num_classes: one more than the largest label, or 0 where there are no labels.
        files: the file, and that of its labels.
    """

    num_images: int
    side: int
    is_grey: bool
    num_classes: int
    files: tuple[Path, ...]


_WHOLE_NUMBERS = {"|u1": "B", "|i1": "b", "<u2": "H", "<i2": "h", "<u4": "I", "<i4": "i", "<u8": "Q", "<i8": "q"}
"""NumPy's name of a type of little-endian whole numbers → that of Python's ``array``."""


def read_array_header(path: Path) -> ArrayHeader:
    """Read how many images and classes an array data set has; the images stay where they are.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if it holds no images, or labels that do not fit.
    """
    labels: tuple[tuple[int, ...], str, bytes] | None = None
    files = [path]
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            with archive.open("images.npy") as file:
                shape, kind = _read_npy_header(file)
            if "labels.npy" in archive.namelist():
                with archive.open("labels.npy") as file:
                    labels = (*_read_npy_header(file), file.read())
    else:
        with path.open("rb") as file:
            shape, kind = _read_npy_header(file)
        beside = path.with_name(LABELS_FILE)
        if beside.is_file() and beside != path:
            files.append(beside)
            with beside.open("rb") as file:
                labels = (*_read_npy_header(file), file.read())
    height, width, channels = (shape[1], shape[2], 1) if len(shape) == 3 else _sides(shape)
    if kind != "|u1" or height != width or height == 0 or channels not in (1, 3):
        raise ValueError(f"{shape} of {kind}; valid: uint8, (N, S, S), (N, S, S, 1 or 3) or (N, 1 or 3, S, S)")
    num_classes = 0
    if labels is not None:
        num_labels, of_kind, content = labels
        if num_labels != shape[:1] or of_kind not in _WHOLE_NUMBERS:
            raise ValueError(f"labels are {num_labels} of {of_kind}; valid: {shape[:1]} whole numbers from 0")
        values = array.array(_WHOLE_NUMBERS[of_kind], content)
        if not 0 <= min(values, default=0) <= max(values, default=0) < MAX_LABEL:
            raise ValueError(f"labels from {min(values)} to {max(values)}; valid: from 0 to {MAX_LABEL - 1:,}")
        num_classes = max(values) + 1 if len(set(values)) > 1 else 0
    return ArrayHeader(shape[0], height, channels == 1, num_classes, tuple(files))


MAX_LABEL = 1_000
"""As many classes as a run may have."""


def _sides(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return height, width and channels of images, whose channels come first or last."""
    if len(shape) != 4:
        return 0, 0, 0
    return (shape[2], shape[3], shape[1]) if shape[1] in (1, 3) else (shape[1], shape[2], shape[3])


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], str]:
    """Read the shape and type of an ``.npy`` file (numpy.lib.format), and leave the file behind them."""
    start = file.read(8)
    if start[:6] != b"\x93NUMPY":
        raise ValueError("no NumPy array")
    (length,) = struct.unpack("<H", file.read(2)) if start[6] == 1 else struct.unpack("<I", file.read(4))
    header = ast.literal_eval(file.read(length).decode("latin-1"))
    if header["fortran_order"]:
        raise ValueError("in Fortran order; valid: np.ascontiguousarray(images), saved")
    return tuple(header["shape"]), str(header["descr"])


def file_stem(path: Path) -> str:
    """Return a file's name, with what is no UTF-8 escaped."""
    return path.name.encode("utf-8", "backslashreplace").decode()


def _describe_split(folder: Path, images: Sequence[Path]) -> str:
    """Say that a folder contains training and test images; empty where it does not."""
    parts = sorted({class_of(folder, path) for path in images})
    if not any(part.lower() in TRAINING_NAMES for part in parts) or not any(
        part.lower() in TEST_NAMES for part in parts
    ):
        return ""
    advice = f"all are one data set; valid: {PREFIX}{folder}/{next(p for p in parts if p.lower() in TRAINING_NAMES)}"
    return f"{PREFIX}{folder}: folders {', '.join(map(shorten, parts))} in it: {advice} for one of them"


def _named(folder: Path, images: Sequence[Path]) -> Iterator[tuple[bytes, Path]]:
    """Yield each image with its relative path in bytes: names need not be UTF-8."""
    return ((os.fsencode(path.relative_to(folder).as_posix()), path) for path in images)


def _cache_path() -> Path | None:
    """Return the path of the cache of hashes; None for a user without a home, as in some containers."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    except RuntimeError:
        return None
    return Path(home) / "gan-ablate" / "folders.json"


def _read_cache() -> dict[str, object]:
    place = _cache_path()
    if place is None:
        return {}
    try:
        cache = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cache if isinstance(cache, dict) else {}
