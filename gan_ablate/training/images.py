"""Images: read files as 8-bit colour, crop them to a square, and augment batches."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch.nn import functional

from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from gan_ablate.design.datasets import Fit
    from gan_ablate.design.run_fields import Augmentation


DARKEST = 16
"""Images without a brighter pixel are black to the eye. 12-bit values in 16-bit pictures, as cameras and microscopes
write them, come to this, and values in [0, 1] to 1."""

MAX_BROKEN = 5
"""Files that a message names."""
_EXIF_KEYS = ("exif", "Raw profile type exif")

IMAGE_FORMATS = ("BMP", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may take a file for, whatever its name: other formats hand it to programs outside."""


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


def refuse_broken(source: str, broken: Mapping[str, str], num_files: int) -> None:
    """Name the files that cannot be read, all at once.

    Args:
        source: what the files belong to.
        broken: name → reason.
        num_files: how many were read in all.

    Raises:
        UserError: if there is any.
    """
    if not broken:
        return
    shown = [f"{shorten(name)} ({shorten(reason)})" for name, reason in sorted(broken.items())[:MAX_BROKEN]]
    shown += ["…"] * (len(broken) > MAX_BROKEN)
    raise UserError(
        f"{source}: {len(broken):,} of {num_files:,} files not readable as images: {'; '.join(shown)}; valid: mend "
        "them or take them out"
    )


def fit_picture(picture: Image.Image, size: int, fit: Fit = "crop") -> Image.Image:
    """Make a square of side ``size`` of a picture, resized bilinearly and antialiased.

    Args:
        picture: in 8-bit colour.
        size: in pixels.
        fit: ``crop`` resizes the shorter side and crops the centre of the longer one, as torchvision's ``Resize`` and
            ``CenterCrop``, with which DCGAN's tutorials prepare pictures. ``pad`` resizes the longer side and lays the
            picture on the middle of a black square.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    if fit == "pad":
        scale = size / max(picture.size)
        width, height = (max(1, round(scale * side)) for side in picture.size)
        square = Image.new(picture.mode, (size, size))
        shrunk = transforms.resize(picture, [height, width], InterpolationMode.BILINEAR)
        square.paste(shrunk, ((size - width) // 2, (size - height) // 2))
        return square
    resized = transforms.resize(picture, [size], InterpolationMode.BILINEAR)
    fitted: Image.Image = transforms.center_crop(resized, [size, size])
    return fitted


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
        # Pillow warns of EXIF that says nothing of which side is up, and of pictures that are large. The file is open
        # already: of a grey TIFF that it maps by itself, Pillow 13.0 mixes the pixels up if EXIF turns it.
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            Image.open(file, formats=formats) as image,
        ):
            return _to_rgb(image, notes or ReadingNotes())
    except (ValueError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ValueError(f"cut short, or none of {', '.join(formats)}") from None
    except Exception as broken:  # what Pillow's parsers raise on a damaged file is not documented
        raise ValueError(str(broken) or type(broken).__name__) from None


def _to_rgb(image: Image.Image, notes: ReadingNotes) -> Image.Image:
    """Turn a picture upright, lay what is transparent on white, and make it 8-bit colour; 16-bit grey is scaled to it.

    Raises:
        ValueError: if its pixels have more than 16 bits, whose white is not known.
    """
    notes.num_of_several += getattr(image, "n_frames", 1) > 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)  # loading a TIFF turns it
    except Exception as broken:
        image.load()  # of a file that is cut short, EXIF is not the trouble
        raise _unparsed_exif(broken) from None
    image.load()  # so that what fails next is the EXIF
    try:
        # Pillow keeps what it has read; what it would write into the copy fails more often.
        image.info = {key: value for key, value in image.info.items() if key not in _EXIF_KEYS}
        upright = ImageOps.exif_transpose(image)
    except Exception as broken:
        raise _unparsed_exif(broken) from None
    notes.num_turned += orientation != 1
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


def _unparsed_exif(broken: Exception) -> ValueError:
    reason = str(broken) or type(broken).__name__
    return ValueError(f"EXIF that cannot be parsed, remove it (exiftool -all= FILE): {reason}")


SHIFT_SHARE = 1 / 8
"""Images move by up to this share of their side."""

CUT_SHARE = 1 / 2
"""Side of the square that is cut out, over the image's."""


def augment(x: Tensor, kinds: Sequence[Augmentation], stream: torch.Generator) -> Tensor:
    """Augment images.

    Args:
        x: (B, C, S, S) in [-1, 1].
        kinds: what is done, in this order.
        stream: what is drawn from, on the images' device.

    Returns:
        (B, C, S, S), after ``colour`` also beyond [-1, 1].
    """
    for kind in kinds:
        match kind:
            case "colour":
                x = _jitter(x, stream)
            case "translation":
                x = _translate(x, stream)
            case "cutout":
                x = _cut_out(x, stream)
            case _:
                assert_never(kind)
    return x


def _jitter(x: Tensor, stream: torch.Generator) -> Tensor:
    """Brightness by up to ±0.5, saturation by a factor in [0, 2], contrast by one in [0.5, 1.5]."""
    brightness, saturation, contrast = (
        torch.rand((len(x), 1, 1, 1), generator=stream, device=x.device, dtype=x.dtype) for _ in range(3)
    )
    x = x + (brightness - 0.5)
    if x.shape[1] > 1:  # one channel is its own mean
        grey = x.mean(1, keepdim=True)
        x = torch.lerp(grey, x, 2 * saturation)
    mean = x.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, x, contrast + 0.5)


def _translate(x: Tensor, stream: torch.Generator) -> Tensor:
    """Shift by whole pixels, with zeros behind."""
    side = x.shape[-1]
    most = _round_half_up(side * SHIFT_SHARE)
    shifts = torch.randint(-most, most + 1, (2, len(x)), generator=stream, device=x.device)
    place = torch.arange(side, device=x.device)
    rows, columns = (place + shift[:, None] + most for shift in shifts)  # (B, S) each, in the padded image
    padded: Tensor = functional.pad(x, (most, most, most, most)).permute(0, 2, 3, 1)
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    shifted: Tensor = padded[batch, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2)


def _cut_out(x: Tensor, stream: torch.Generator) -> Tensor:
    """Set a square to zero, whose centre lies anywhere in the image."""
    side = x.shape[-1]
    cut = _round_half_up(side * CUT_SHARE)
    first = torch.randint(0, side + (1 - cut % 2), (2, len(x)), generator=stream, device=x.device) - cut // 2
    place = torch.arange(side, device=x.device)
    rows, columns = ((place >= start[:, None]) & (place < start[:, None] + cut) for start in first)
    cut_out: Tensor = rows[:, None, :, None] & columns[:, None, None, :]
    return x * ~cut_out


def _round_half_up(pixels: float) -> int:
    """Round as the authors' code does, and to one pixel at least."""
    return max(1, int(pixels + 0.5))
