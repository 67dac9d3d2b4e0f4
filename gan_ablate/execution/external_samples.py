"""Samples of external runs: load the images that a user's script saved, or sample its saved generator or checkpoint."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.external import fill_word, is_text
from gan_ablate.design.resolve_external import find_module
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.execution import saved_generator as saved
from gan_ablate.execution.script import Script, ScriptError, run_script
from gan_ablate.execution.script_log import ScriptLog
from gan_ablate.scoring.image_sets import ARRAY_SUFFIXES, order_by_content, read_files, read_images
from gan_ablate.scoring.scorer import quantise
from gan_ablate.seeding import SCORING_SEED, stream_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from gan_ablate.design.external import ExternalConfig

SAMPLING_SEC = 3_600.0
"""Seconds that sampling a saved generator may take, where ``external.timeout_sec`` is not set."""

FAR_PIXEL = 3.0
"""Linear outputs exceed 1 by a little; pixels from 0 to 255 exceed this."""

NUM_LEFT = 3
"""Files that a message names."""

_NUMBER = re.compile(r"([a-zA-Z]*)[^a-zA-Z0-9/]*([0-9]+)")
_EPOCH_WORD = re.compile("e|ep|epochs?|(global)?steps?|it|iters?|iterations?|kimg|ckpt|checkpoint", re.IGNORECASE)
_ROUND = 10
"""Numbers with a common divisor of this or more are steps: classes are counted one by one."""


@dataclass(frozen=True)
class Samples:
    """The images of a run that are scored.

    Attributes:
        images: (num_samples, C, S, S) uint8.
        notes: remarks on the images and on how they were chosen.
        num_found: how many the script left, where it left images.
    """

    images: Tensor
    notes: tuple[str, ...] = ()
    num_found: int = 0


class NothingLeftError(ScriptError):
    """A script left no file that matches ``external.samples``."""


def find_samples(config: ExternalConfig, work: Path, links: Collection[str] = ()) -> list[Path]:
    """List the files that match ``external.samples``, in natural order: 9 before 10.

    Of checkpoints and of pictures of many samples, the last ones are listed.

    Args:
        config: the run.
        work: the script's working folder.
        links: names in it that are links to the grid's folder, and hold no samples.

    Raises:
        NothingLeftError: if there are no files.
        ScriptError: if there are several generators or arrays, images of several epochs, or links that lead out of the
            working folder.
    """
    linked = [work / name for name in links]
    matched = (path for path in work.glob(config.samples) if not any(map(path.is_relative_to, linked)))
    found = sorted((path for path in matched if path.is_file()), key=_natural_key)
    found = list({path.resolve(): path for path in reversed(found)}.values())[
        ::-1
    ]  # each file once, whatever links to it
    place = work.parent.resolve() / work.name
    for path in found:
        if not (real := path.resolve()).is_relative_to(place):  # scored files are deleted
            leads = f"{path.relative_to(work)} leads out of {{out}}, to {real}"
            raise ScriptError(f"external.samples = {config.samples}: {leads}; valid: files that lie below {{out}}")
    if not found:
        raise NothingLeftError(
            f"the program ended, and left no {config.samples} in {work.name}/ (external.samples); {_list_left(work)}"
        )
    if config.checkpoint is not None or config.samples_grid is not None:
        return found[-(1 if config.samples_grid is None else config.samples_grid.pictures) :]
    is_one_file = config.latent_shape is not None or Path(config.samples).suffix.lower() in ARRAY_SUFFIXES
    if is_one_file and len(found) > 1:
        first, last = found[0].relative_to(work), found[-1].relative_to(work)
        which = f"it matches {len(found):,} files, {first} to {last}; valid: one of them, such as {last}"
        raise ScriptError(f"external.samples = {config.samples}: {which}")
    _refuse_epochs(config, [path.relative_to(work).as_posix() for path in found])
    return found


def _list_left(work: Path) -> str:
    """Name some files that a script left instead of its samples."""
    left = sorted((path.relative_to(work) for path in work.rglob("*") if path.is_file()), key=_natural_key)
    names = ", ".join(shorten(path.as_posix()) for path in left[:NUM_LEFT])
    return f"it left {names}{', …' if len(left) > NUM_LEFT else ''}" if left else "it left no file there"


def _natural_key(path: Path) -> list[str | int]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", path.as_posix()))]


def _refuse_epochs(config: ExternalConfig, paths: Sequence[str]) -> None:
    """Refuse images of several epochs or steps: all but the last ones are of an unfinished generator."""
    places: dict[str, dict[int, list[tuple[str, re.Match[str]]]]] = {}
    for path in paths:
        stem = path.removesuffix(Path(path).suffix)
        for match in _NUMBER.finditer(stem):
            folder, slash, rest = stem[: match.start(2)].rpartition("/")
            place = folder + slash + re.sub(r"[0-9]+", "#", rest)
            places.setdefault(place, {}).setdefault(int(match[2]), []).append((path, match))
    for numbers in places.values():
        num_images = sum(map(len, numbers.values()))
        if len(numbers) < 2 or num_images < 2 * len(numbers):
            continue  # the numbers count images
        first, last = numbers[min(numbers)][0], numbers[max(numbers)][0]
        is_round = math.gcd(*numbers) >= _ROUND and not _count_on(numbers)
        if _EPOCH_WORD.fullmatch(last[1][1]) or is_round:
            raise ScriptError(
                f"external.samples = {config.samples}: it matches images of {len(numbers)} epochs or steps, "
                f"{first[1][0]} to {last[1][0]}; valid: those of one, such as {_narrow(*last)}"
            )


def _count_on(numbers: Mapping[int, Sequence[tuple[str, re.Match[str]]]]) -> bool:
    """Whether folders are named after their first image: 001000 holds 001000.png to 001999.png."""
    size = math.gcd(*numbers)
    return all(
        (stem := Path(path).stem).isdecimal() and "/" in path[match.end() :] and number <= int(stem) < number + size
        for number, found in numbers.items()
        for path, match in found
    )


def _narrow(path: str, match: re.Match[str]) -> str:
    """Return a pattern of the images that have the number of a match in their path."""
    head, rest = path[: match.end()], path[match.end() :]
    if "/" not in rest:
        return f"{head}*{Path(path).suffix}"
    folder, _, below = rest.partition("/")
    return f"{head}{folder}/{'**/' if '/' in below else ''}*{Path(path).suffix}"


def load_samples(config: ExternalConfig, work: Path, found: Sequence[Path]) -> Samples:
    """Read the images that a script left.

    Args:
        config: the run.
        work: the script's working folder.
        found: the files, from ``find_samples``.

    Returns:
        ``scoring.num_samples`` images; of more images a fixed random choice, which is the same in every run.

    Raises:
        ScriptError: if there are too few images, or images of another size.
    """
    num, channels, size = config.scoring.num_samples, config.num_channels, config.image_size
    try:
        if config.samples_grid is not None:
            samples, notes = _cut_pictures(config, found)
            num_found = len(samples)
            images, more = read_images(samples[_choose(num_found, num)], num_channels=channels, size=size)
            notes += more
        elif found[0].suffix.lower() in ARRAY_SUFFIXES:
            images, notes = read_images(found[0], num_channels=channels, size=size)
            num_found = len(images)
            images = images[_choose(num_found, num)]
        else:
            num_found = len(found)
            chosen = [found[i] for i in _choose(num_found, num)]
            _refuse_grid(chosen[0], size)
            images, notes = read_files(chosen, num_channels=channels, size=size)
    except UserError as unreadable:
        raise ScriptError(str(unreadable).replace(f"{work}{os.sep}", "")) from None
    _refuse_few(config, num_found)
    notes = [note.replace(f"{work}{os.sep}", "") for note in notes]
    notes += [] if num_found == num else [f"{num:,} of {num_found:,} images scored"]
    folders = list(dict.fromkeys(path.parent.relative_to(work).as_posix() for path in found))
    if len(folders) > 1:
        notes.append(f"images of {len(folders):,} folders, {folders[0]} to {folders[-1]}, scored together")
    return Samples(order_by_content(images), tuple(notes), num_found)


def _cut_pictures(config: ExternalConfig, found: Sequence[Path]) -> tuple[NDArray[np.uint8], list[str]]:
    """Cut pictures of many samples into an array of them, (N, S, S, 3), and say what that costs.

    Raises:
        UserError: if a picture has another size.
    """
    grid, size = config.samples_grid, config.image_size
    assert grid is not None
    rows, columns = grid.shape
    step, samples = size + grid.padding, []
    for path in found:
        picture = _open_picture(path)
        if picture.size != grid.side(size):
            wanted = "{}×{}".format(*grid.side(size))
            cells = f"{rows} × {columns} samples of {size}×{size} pixels, {grid.padding} between them"
            shown = "{}×{}".format(*picture.size)
            raise UserError(f"{path}: {shown} pixels; valid: {wanted}, for external.samples_grid: {cells}")
        pixels = np.asarray(picture.convert("RGB"))
        corners = [(grid.padding + i * step, grid.padding + j * step) for i in range(rows) for j in range(columns)]
        samples += [pixels[y : y + size, x : x + size] for y, x in corners]
    pictures = f"the last {len(found)} pictures" if len(found) > 1 else "the last picture"
    note = (
        f"{len(samples):,} samples cut from {pictures}, {found[-1]}: few samples make FID high and uncertain, "
        "save_image(normalize=True) stretches each picture's contrast, and pictures are often of train() mode"
    )
    return np.stack(samples), [note]


def _open_picture(path: Path) -> Image.Image:
    """Open a picture.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy()
    except Exception as broken:  # Pillow's readers raise what they like
        raise UserError(f"{path}: not readable as an image ({shorten(str(broken))})") from None


def _refuse_grid(path: Path, size: int) -> None:
    """Refuse a picture that is several times as large as an image: it holds many samples.

    Raises:
        UserError: saying how it may be cut.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except Exception:  # all that cannot be read are named later
        return
    if width < 2 * size or height < size:
        return
    paddings = [p for p in (2, 0, 1, 3, 4) if (width - p) % (size + p) == 0 and (height - p) % (size + p) == 0]
    padding = paddings[0] if paddings else 2
    rows, columns = (max(1, round((side - padding) / (size + padding))) for side in (height, width))
    cells = f"rows = {rows}, " + (f"columns = {columns}, " if columns != rows else "") + f"padding = {padding}"
    sizes = f"{size}×{size}" + (f", or image_size = {width}" if width == height else "")
    advice = f"or, if a picture holds many samples, external.samples_grid = {{ {cells} }}"
    raise UserError(f"{path}: {width}×{height} pixels; valid: {sizes}, {advice}")


def _choose(num_found: int, num: int) -> list[int]:
    """Choose images by a fixed permutation: the first ones by name may all be of one class."""
    if num_found <= num:
        return list(range(num_found))
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "samples"))
    return torch.randperm(num_found, generator=stream)[:num].tolist()


def pack_samples(samples: Samples, path: Path) -> None:
    """Write images to one compressed file.

    Args:
        samples: the images.
        path: the ``.npz`` file to write.
    """
    content = io.BytesIO()
    np.savez_compressed(content, images=samples.images.numpy())
    write_atomically(path, content.getvalue())


def remove_files(found: Sequence[Path], work: Path) -> None:
    """Delete a script's files, and the folders of its working folder that get empty."""
    for file in found:
        file.unlink()
    for folder in sorted({parent for file in found for parent in file.parents}, reverse=True):
        if folder.is_relative_to(work) and folder != work and not any(folder.iterdir()):
            folder.rmdir()


def read_packed(config: ExternalConfig, path: Path, notes: Sequence[str]) -> Samples:
    """Read images that ``pack_samples`` wrote.

    Args:
        config: the run; of more images than it needs, a fixed choice is taken.
        path: the file.
        notes: remarks on them.

    Raises:
        ScriptError: if there are too few images.
    """
    num = config.scoring.num_samples
    with np.load(path, allow_pickle=False) as kept:
        images = torch.from_numpy(kept["images"])
    _refuse_few(config, len(images))
    chosen = images if len(images) == num else images[_choose(len(images), num)]
    more = () if len(images) == num else (f"{num:,} of {len(images):,} images scored",)
    return Samples(chosen, (*notes, *more), len(images))


def _refuse_few(config: ExternalConfig, num_found: int) -> None:
    if num_found < config.scoring.num_samples:
        advice = f"valid: scoring.num_samples, {config.scoring.num_samples:,}, or more"
        raise ScriptError(f"the program left {num_found:,} images in {config.samples}; {advice}")


def write_order(config: ExternalConfig, target: Path) -> dict[str, object]:
    """Return what ``saved_generator.sample`` needs: the same latents in every run.

    Args:
        config: the run.
        target: the file to write.
    """
    return {
        "target": str(target),
        "num_images": config.scoring.num_samples,
        "latent_shape": config.latent_shape,
        "latent_distribution": config.latent_distribution,
        "latent_seed": stream_seed(SCORING_SEED, "latent"),
    }


def sample_generator(
    config: ExternalConfig,
    path: Path,
    folder: Path,
    device: str,
    should_stop: Callable[[], bool],
    code: Mapping[str, object] | None = None,
) -> Samples:
    """Sample a saved generator or a checkpoint in a separate process, with the same latents in every run.

    Args:
        config: the run.
        path: the generator's file.
        folder: the run's folder.
        device: the device that samples.
        should_stop: asked a few times a second whether to stop here.
        code: of a checkpoint, from ``describe_class``.

    Raises:
        RunStoppedError: if it was asked to stop.
        ScriptError: if sampling fails, takes too long, or gives images of another size.
        NonFiniteImagesError: if a pixel is not a finite number.
    """
    what = "saved generator" if code is None else "checkpoint"
    with tempfile.TemporaryDirectory(prefix=".sampled.", dir=folder) as place:
        target = Path(place) / "images.npy"
        order = {**write_order(config, target), "path": str(path), "device": device, **(code or {})}
        script = Script(
            words=[sys.executable, "-P", saved.__file__, json.dumps(order)],
            folder=Path(place),
            output=Path(place) / "output.txt",
            environment={**os.environ, "TMPDIR": place, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            timeout_sec=config.timeout_sec or SAMPLING_SEC,
            name=f"sampling the {what}",
        )
        log = ScriptLog()
        ended = run_script(script, log, should_stop)
        if ended.status != 0:
            reason = log.last_line or ended.reason
            raise ScriptError(f"{path.name}: the {what} cannot be sampled ({reason})")
        return read_sampled(config, target, f"{path.name}: the {what}")


def read_sampled(config: ExternalConfig, target: Path, what: str) -> Samples:
    """Read the images that ``saved_generator.sample`` wrote, or the first of them where it wrote more.

    Args:
        config: the run.
        target: the ``.npy`` file.
        what: what was sampled, for messages.

    Raises:
        ScriptError: if they have another size.
        NonFiniteImagesError: if a pixel is not a finite number.
    """
    wanted = (config.scoring.num_samples, config.num_channels, config.image_size, config.image_size)
    sampled = np.load(target, mmap_mode="r", allow_pickle=False)[: wanted[0]]
    if sampled.shape != wanted:
        shapes = (" × ".join(map(str, shape)) for shape in (sampled.shape, wanted))
        raise ScriptError("{} gives {}; valid: {}".format(what, *shapes))
    parts = np.array_split(sampled, -(-len(sampled) // saved.BATCH))
    images = torch.cat([quantise(torch.from_numpy(part.copy())) for part in parts])
    return Samples(images, _describe_pixels(float(sampled.min()), float(sampled.max())))


def describe_class(
    config: ExternalConfig, here: Path, argv: Sequence[str], values: Mapping[str, str]
) -> dict[str, object]:
    """Say how a checkpoint's class is made, for ``saved_generator.build_generator``.

    Args:
        config: the run.
        here: the grid's folder, or its copy.
        argv: the script and its arguments, which the class's file may read.
        values: of the names in braces.
    """
    checkpoint = config.checkpoint
    assert checkpoint is not None
    name, _, attribute = checkpoint.module.partition(":")
    file = find_module(config, here)
    is_script = bool(argv) and Path(argv[0]).resolve() == file.resolve()
    root = file.parents[len(name.split(".")) - (file.name != "__init__.py")]
    return {
        "file": str(file),
        "name": attribute,
        "module": "__main__" if is_script else name,
        "arguments": {key: _fill_argument(value, values) for key, value in checkpoint.arguments.items()},
        "key": checkpoint.key,
        "argv": list(argv) or [str(file)],
        "roots": list(dict.fromkeys([str(root), str(here)])),
    }


def _fill_argument(value: object, values: Mapping[str, str]) -> object:
    """Fill in an argument's names in braces; a number or a truth value in a level stays one."""
    if not is_text(value) or "{" not in value:
        return value
    filled = fill_word(value, values)
    try:
        return json.loads(filled)
    except ValueError:
        return filled


def _describe_pixels(low: float, high: float) -> tuple[str, ...]:
    """Return a note where the range of a generator's pixels does not look like [-1, 1]."""
    if low >= 0 and high > low:
        advice = "images are in [-1, 1]; behind a sigmoid save one that gives 2 * x - 1"
        return (f"the generator's pixels are from {low:.3g} to {high:.3g}, none below 0; {advice}",)
    if low < -FAR_PIXEL or high > FAR_PIXEL:
        return (f"the generator's pixels are from {low:.3g} to {high:.3g}; images are in [-1, 1], so it is cut off",)
    return ()
