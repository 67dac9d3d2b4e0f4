"""A finished run's generator in, a sheet of new images out."""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.execution.sheets import save_sheet
from gan_ablate.execution.store import AVERAGE_FILE, GENERATOR_FILE
from gan_ablate.scoring.score import sample_images
from gan_ablate.seeding import stream_seed
from gan_ablate.training.latents import ask_for, draw_latents
from gan_ablate.training.models import build_generator

if TYPE_CHECKING:
    from pathlib import Path

    from gan_ablate.execution.store import Store


def draw_samples(
    store: Store, run_id: str, num: int, seed: int, to: Path, label: int | None = None, *, averaged: bool = False
) -> None:
    """Draw images with a saved generator and write them as one picture, about as wide as high.

    Args:
        store: where the run lies.
        run_id: which run.
        num: how many images.
        seed: of the latents.
        to: the picture to write.
        label: the class to draw, with a conditional generator; without it, each class in turn.
        averaged: draw with the moving average of G's weights instead of its last ones.

    Raises:
        UserError: if there is no such finished run, it knows no such class or keeps no average, or the picture cannot
            be written.
    """
    record = store.load_record(run_id) if re.fullmatch(r"[0-9a-f]{12}", run_id) else None
    weights = store.run_dir(run_id) / GENERATOR_FILE
    if record is None or not weights.is_file():
        raise UserError(
            f"{shorten(run_id)}: no finished run of that id in {store.root}; {store.root}/*/runs.csv lists them"
        )
    config = record.config
    if isinstance(config, ExternalConfig):
        raise UserError(f"{run_id}: a run of a program of its own; valid: runs that gan-ablate has trained")
    if label is not None and not 0 <= label < (config.num_classes or 0):
        known = f"valid: 0 to {config.num_classes - 1}" if config.num_classes else f"run {run_id} is not conditional"
        raise UserError(f"--label {label}: {known}")
    if averaged:
        if not config.ema_decay:
            raise UserError(f"--averaged: run {run_id} keeps no average of G's weights; valid: with ema_decay above 0")
        weights = weights.with_name(AVERAGE_FILE)
    generator = build_generator(config)
    try:
        content = weights.read_bytes()
        if record.weights_sha256.get(weights.name) not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("it does not match its record's checksum")
        generator.load_state_dict(load(content))
    except (OSError, RuntimeError, ValueError, SafetensorError) as broken:
        reason = str(broken).partition("\n")[0]
        raise UserError(f"{weights}: cannot be read ({reason}); delete the run's folder to run it again") from None
    stream = torch.Generator().manual_seed(stream_seed(seed, "latent/sample"))
    latents = draw_latents(config, num, stream)
    if config.num_classes:
        classes = torch.arange(num) % config.num_classes if label is None else torch.full((num,), label)
        latents = ask_for(config, latents, classes)
    images = sample_images(generator, latents, torch.device("cpu"))
    try:
        save_sheet(images, math.ceil(math.sqrt(num)), to)
    except (OSError, ValueError) as refused:
        raise UserError(f"--to {to}: cannot be written ({refused})") from None
