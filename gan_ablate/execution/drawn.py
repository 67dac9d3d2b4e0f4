"""What a program of one's own left behind in, the images that are scored out."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gan_ablate.errors import UserError
from gan_ablate.execution.listening import ProgramError
from gan_ablate.scoring.score import quantise
from gan_ablate.scoring.sets import ARRAY_SUFFIXES, load_files, load_images
from gan_ablate.seeding import SCORING_SEED, stream_seed

if TYPE_CHECKING:
    from torch import Tensor

    from gan_ablate.design.external import ExternalConfig

DRAW_BATCH = 250


def load_samples(config: ExternalConfig, work: Path) -> Tensor:
    """Read the images that a program left, or draw them with the generator that it left.

    Returns:
        (num_samples, C, S, S) uint8; what there is more of is left out.

    Raises:
        ProgramError: if there are too few, or they are not images of the size that was agreed.
    """
    num, channels, size = config.scoring.num_samples, config.num_channels, config.image_size
    suffix = Path(config.samples).suffix.lower()
    found = sorted(path for path in work.glob(config.samples) if path.is_file())
    if not found:
        raise ProgramError(f"the program ended, and left no {config.samples} in {work.name}/ (external.samples)")
    try:
        if config.latent_shape is not None:
            images = _draw(config, found[0])
        elif suffix in ARRAY_SUFFIXES:
            images = load_images(found[0], num_channels=channels, size=size)
        else:
            images = load_files(found[:num], num_channels=channels, size=size)
    except UserError as unreadable:
        raise ProgramError(str(unreadable).replace(f"{work}{os.sep}", "")) from None
    if len(images) < num:
        advice = f"valid: scoring.num_samples, {num:,}, or more"
        raise ProgramError(f"the program left {len(images):,} images in {config.samples}; {advice}")
    return images[:num]


def _draw(config: ExternalConfig, path: Path) -> Tensor:
    """Draw images with a saved generator, from the same latents in every run."""
    assert config.latent_shape is not None
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "latent"))
    latents = torch.randn(config.scoring.num_samples, *config.latent_shape, generator=stream)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is on its way out is no news to whoever uses it
            generator = torch.export.load(path).module() if path.suffix == ".pt2" else torch.jit.load(path).eval()
            drawn = torch.cat([generator(z) for z in latents.split(DRAW_BATCH)])
        images = quantise(drawn.float())
    except Exception as broken:  # whatever somebody's saved program raises
        reason = str(broken).strip().partition("\n")[0][:300] or type(broken).__name__
        raise UserError(f"{path}: the saved generator does not draw ({reason})") from None
    wanted = (len(latents), config.num_channels, config.image_size, config.image_size)
    if images.shape != wanted:
        shapes = (" × ".join(map(str, shape)) for shape in (tuple(images.shape), wanted))
        raise UserError("{}: the saved generator draws {}; valid: {}".format(path, *shapes))
    return images
