"""Sizes of images: say which a data set has, and how they become the squares that are trained on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import ARRAY_PREFIX, DATASET_FILES, list_images, read_array_header
from gan_ablate.design.validation import validate
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gan_ablate.design.external import AnyConfig

MAX_PICTURES = 1_000
"""Files of a folder whose sizes are read, evenly spread over their names: it takes half a second."""

MAX_ADVISED_SIDE = 128
"""The largest side that is advised: training on larger images takes hours."""

Sizes = Counter[tuple[int, int]]
"""(width, height) → how many images have it."""


def describe_sizes(configs: Iterable[AnyConfig], folders: Mapping[str, str], *, is_brief: bool = False) -> list[str]:
    """Describe the images of every data set and how they become those that are trained on, a line each.

    Args:
        configs: the runs.
        folders: the path of each ``folder:NAME@HASH`` and ``array:NAME@HASH`` on this machine.
        is_brief: leave out data sets whose images keep their shape, unless their own size is near to the runs'.

    Returns:
        Such as ``folder:faces: images 178×218 → 64×64, centre crop: it cuts off 18 % of each; --set fit=pad …``.
    """
    lines = dict[str, None]()
    for config in configs:
        for dataset in filter(None, (config.dataset, getattr(config, "holdout", ""))):
            sizes = _read_sizes(dataset, folders)
            line = "" if sizes is None else _describe(config, dataset, sizes, is_brief=is_brief)
            if line:
                lines[line] = None
    return list(lines)


def _read_sizes(dataset: str, folders: Mapping[str, str]) -> Sizes | None:
    """Count the sizes of a data set's images, of many by some; None where they cannot be read."""
    if dataset in DATASET_FILES:
        side = int(DATASET_FILES[dataset][0].partition("×")[0])
        return Counter([(side, side)])
    place = folders.get(dataset)
    if place is None:
        return None
    try:
        if dataset.startswith(ARRAY_PREFIX):
            side = read_array_header(Path(place)).side
            return Counter([(side, side)])
        return _read_headers(list_images(Path(place)))
    except (OSError, ValueError, KeyError, UserError):  # loading it will say what is wrong
        return None


def _read_headers(paths: list[Path]) -> Sizes | None:
    from PIL import ExifTags, Image

    sizes = Sizes()
    for path in paths[:: -(-len(paths) // MAX_PICTURES)]:
        try:
            with Image.open(path) as picture:
                is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
                sizes[picture.size[::-1] if is_turned else picture.size] += 1
        except Exception:
            continue
    return sizes or None


def _describe(config: AnyConfig, dataset: str, sizes: Sizes, *, is_brief: bool) -> str:
    size, num = config.image_size, sizes.total()
    (first, *others), target = sorted(sizes), f"{config.image_size}×{config.image_size}"
    sides = f"{first[0]}×{first[1]}" if not others else f"{_range(sizes, 0)}×{_range(sizes, 1)}"
    images, losses = f"{dataset.partition('@')[0]}: images {sides}", {one: _lost(*one) for one in sizes}
    mean = 100 * sum(losses[one] * count for one, count in sizes.items()) / num
    if mean > 0:
        varied = f"{mean:.0f} % of them on average, {100 * max(losses.values()):.0f} % at most"
        share = varied if others else f"{mean:.0f} % of each"
        if getattr(config, "fit", "crop") == "pad":
            return f"{images} → {target}, padded with black: {share}"
        advice = "; --set fit=pad keeps all of it" if isinstance(config, RunConfig) else ""
        return f"{images} → {target}, centre crop: it cuts off {share}{advice}"
    if not others and first == (size, size):
        return "" if is_brief else images
    advice = "" if others or dataset in DATASET_FILES else _advise(config, first[0])
    if is_brief and not advice:
        return ""
    return f"{images} → {target}, {'enlarged' if max(sizes)[0] < size else 'resized'}{advice}"


def _range(sizes: Sizes, side: int) -> str:
    values = {size[side] for size in sizes}
    return f"{min(values)}…{max(values)}" if len(values) > 1 else str(values.pop())


def _lost(width: int, height: int) -> float:
    """Return the share of a picture outside the largest square, which is that of a padded image outside the picture."""
    return 1 - min(width, height) / max(width, height)


def _advise(config: AnyConfig, side: int) -> str:
    """Advise the images' own side, where networks of that size can be built."""
    if not isinstance(config, RunConfig) or side > MAX_ADVISED_SIDE:
        return ""
    try:
        validate(RunConfig, {**config.model_dump(), "image_size": side}, "")
    except UserError:
        return ""
    return f"; --set image_size={side} keeps them as they are"
