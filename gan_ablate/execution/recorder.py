"""Record a training's curves and sample grids, and sample the generators of finished runs."""

from __future__ import annotations

import hashlib
import io
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load

from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.execution.context import Progress
from gan_ablate.execution.store import AVERAGE_FILE, BEST_FILE, GENERATOR_FILE
from gan_ablate.scoring.scorer import NonFiniteImagesError, sample_grid_latents, sample_images, scoring_latents
from gan_ablate.seeding import stream_seed
from gan_ablate.training.data import ask_for, sample_latents
from gan_ablate.training.models import build_generator
from gan_ablate.training.trainer import pack_weights

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from gan_ablate.design.config import RunConfig
    from gan_ablate.execution.records import Record
    from gan_ablate.execution.store import Store
    from gan_ablate.scoring.scorer import Scorer
    from gan_ablate.training.trainer import Measurement, StepTimer


PROGRESS_EVERY_SEC = 0.5

SAMPLE_GRID_COLUMNS = 8

OSCILLATION_SAMPLES = 256
"""Images of each FID whose oscillation is measured: few, because there are many points."""


@dataclass(frozen=True)
class BestWeights:
    """The generator with the lowest FID along training so far.

    Attributes:
        step: of the first point with that FID.
        fid: on the curve's latents.
        weights: a safetensors file.
    """

    step: int
    fid: float
    weights: bytes


class TrainingObserver:
    """Observes one training: records its curves and sample grids, writes its log, reports its progress.

    Args:
        config: the run.
        folder: the run's folder.
        log: the run's log.
        scorer: computes FID along training, or None where the run is not scored.
        labels: (N,) int64 class of each training image, or None without classes.
        device: where the generator lies.
        on_progress: called a few times a second.

    Attributes:
        curve_samples: images of each FID along training.
        last_step: the last generator step that was taken.
        curve_steps: the steps at which FID was computed.
        curve_train_sec: the seconds of training until each.
        curve_fid: FID at each.
        oscillation_steps: the steps at which the FID was computed whose oscillation is measured.
        oscillation_fid: FID at each.
        curve_sec: the seconds that sampling and scoring along training took.
        best: the weights of the lowest point, or None before the first one and where the run does not keep them.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        log: logging.Logger,
        scorer: Scorer | None,
        labels: Tensor | None,
        device: torch.device,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._config, self._folder, self._log, self._scorer = config, folder, log, scorer
        self._device, self._on_progress = device, on_progress
        self._labels = labels
        self._sample_grid_latents = sample_grid_latents(config)
        self._reported_at = (time.perf_counter(), 0)
        self.curve_samples = config.scoring.curve_samples
        self.last_step = 0
        self.curve_steps: list[int] = []
        self.curve_train_sec: list[float] = []
        self.curve_fid: list[float] = []
        self.oscillation_steps: list[int] = []
        self.oscillation_fid: list[float] = []
        self.curve_sec = 0.0
        self.best: BestWeights | None = None

    def restore(
        self,
        curve: Sequence[tuple[int, float, float]],
        oscillation: Sequence[tuple[int, float]],
        curve_sec: float,
        step: int,
        best: BestWeights | None = None,
    ) -> None:
        """Restore what another process recorded before it stopped.

        Args:
            curve: (step, seconds of training until then, FID) of each point.
            oscillation: (step, FID) of each point whose oscillation is measured.
            curve_sec: the seconds that sampling and scoring took.
            step: the last generator step that was taken.
            best: the weights of the lowest point, if the run keeps them.
        """
        self.curve_steps = [at for at, _, _ in curve]
        self.curve_train_sec = [seconds for _, seconds, _ in curve]
        self.curve_fid = [fid for _, _, fid in curve]
        self.oscillation_steps = [at for at, _ in oscillation]
        self.oscillation_fid = [fid for _, fid in oscillation]
        self.curve_sec = curve_sec
        self.last_step = step
        self.best = best
        self._reported_at = (time.perf_counter(), step)

    def on_measurement(self, row: Measurement) -> None:
        """Log and report a row of the history, a few times a second."""
        self.last_step = row.step
        now = time.perf_counter()
        since, step = self._reported_at
        if now - since < PROGRESS_EVERY_SEC and row.step < self._config.steps:
            return
        self._reported_at = (now, row.step)
        steps_per_sec = (row.step - step) / (now - since)
        last_fid, last_step = (self.curve_fid[-1], self.curve_steps[-1]) if self.curve_fid else (None, None)
        self._on_progress(
            Progress(self._config.run_id, row.step, steps_per_sec, row.loss_d, row.loss_g, last_fid, last_step)
        )
        self._log.info(
            "step %d: %.1f it/s, Loss_D %.4f, Loss_G %.4f, D(x) %.4f, D(G(z)) %.4f / %.4f",
            *(row.step, steps_per_sec, row.loss_d, row.loss_g, row.d_real, row.d_fake_before, row.d_fake_after),
        )

    def on_snapshot(self, step: int, generator: nn.Module, timer: StepTimer) -> bool:
        """Write a sample grid and compute FID where they are due; return whether all pixels were finite."""
        self.last_step = step
        started = time.perf_counter()
        config = self._config
        try:
            if step in config.sheet_steps:
                self._save_sample_grid(step, sample_images(generator, self._sample_grid_latents, self._device))
            # The FID of an untrained generator says nothing, and would stretch every axis.
            if self._scorer is not None and step in config.curve_steps:
                fid = self._fid(self._scorer, generator, config.scoring.curve_samples)
                self.curve_steps.append(step)
                self.curve_train_sec.append(timer.total_sec())
                self.curve_fid.append(fid)
                if config.scoring.keep_best and (self.best is None or fid < self.best.fid):
                    self.best = BestWeights(step, fid, pack_weights(generator))
                self._log.info("step %d: FID %.3f on %d samples", step, fid, config.scoring.curve_samples)
            if self._scorer is not None and step in config.oscillation_steps:
                self.oscillation_steps.append(step)
                self.oscillation_fid.append(self._fid(self._scorer, generator, OSCILLATION_SAMPLES))
        except NonFiniteImagesError:
            return False
        # The pause for scoring is not the training's speed.
        self._reported_at = (time.perf_counter(), step)
        self.curve_sec += time.perf_counter() - started
        return True

    def _fid(self, scorer: Scorer, generator: nn.Module, num: int) -> float:
        latents, _ = scoring_latents(self._config, num, self._labels)
        return scorer.fid(sample_images(generator, latents, self._device))

    def _save_sample_grid(self, step: int, images: Tensor) -> None:
        samples = self._folder / "samples"
        samples.mkdir(exist_ok=True)
        save_sample_grid(images, SAMPLE_GRID_COLUMNS, samples / f"step-{step:06d}.png")


GAP = 2
"""Black pixels around every image of a sample grid."""


def save_sample_grid(images: Tensor, num_columns: int, to: Path) -> None:
    """Write images side by side, row by row.

    Args:
        images: (N, C, H, W) uint8, of one channel or three.
        num_columns: images in a row; fewer where there are fewer images.
        to: the picture's file; its suffix says the format.

    Raises:
        OSError: if it cannot be written.
        ValueError: if its suffix is no known format.
    """
    num, channels, height, width = images.shape
    num_columns = min(num_columns, num)
    num_rows = -(-num // num_columns)
    sample_grid = images.new_zeros((num_rows * (height + GAP) + GAP, num_columns * (width + GAP) + GAP, channels))
    for i, image in enumerate(images):
        top, left = (
            place * (side + GAP) + GAP for place, side in zip(divmod(i, num_columns), (height, width), strict=True)
        )
        sample_grid[top : top + height, left : left + width] = image.permute(1, 2, 0)
    pixels = sample_grid.numpy()
    Image.init()
    kind = Image.registered_extensions().get(to.suffix.lower())
    if kind is None:
        raise ValueError(f"unknown file extension: {to.suffix}")
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(content, format=kind)
    write_atomically(to, content.getvalue())


def load_generator(record: Record, config: RunConfig, weights: Path) -> nn.Module:
    """Load a generator that a run has kept.

    Args:
        record: of the run.
        config: of the run.
        weights: the file in the run's folder.

    Raises:
        UserError: if the file cannot be read, or is not the one that the run wrote.
    """
    generator = build_generator(config)
    try:
        content = weights.read_bytes()
        if record.weights_sha256.get(weights.name) not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("it does not match its record's checksum")
        generator.load_state_dict(load(content))
    except (OSError, RuntimeError, ValueError, SafetensorError) as broken:
        reason = str(broken).partition("\n")[0]
        raise UserError(f"{weights}: cannot be read ({reason}); delete the run's folder to run it again") from None
    return generator


def draw_samples(
    store: Store,
    run_id: str,
    num: int,
    seed: int,
    to: Path,
    label: int | None = None,
    *,
    averaged: bool = False,
    best: bool = False,
) -> None:
    """Sample images from a saved generator and write them as one picture, about as wide as high.

    Args:
        store: the results folder.
        run_id: the finished run.
        num: the number of images.
        seed: the seed of the latents.
        to: the picture's file.
        label: the class to sample from a conditional generator; by default each class in turn.
        averaged: whether to use the moving average of G's weights instead of the last weights.
        best: whether to use the weights with the lowest FID along training.

    Raises:
        UserError: if there is no such finished run, it has no such class or weights, or the picture cannot be written.
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
    if best:
        if averaged:
            raise UserError("--best: valid: --best or --averaged, not both")
        if not config.scoring.keep_best:
            raise UserError(f"--best: run {run_id} keeps no best weights; valid: with scoring.keep_best = true")
        weights = weights.with_name(BEST_FILE)
    if averaged:
        if not config.ema_decay:
            raise UserError(f"--averaged: run {run_id} keeps no average of G's weights; valid: with ema_decay above 0")
        weights = weights.with_name(AVERAGE_FILE)
    generator = load_generator(record, config, weights)
    stream = torch.Generator().manual_seed(stream_seed(seed, "latent/sample"))
    latents = sample_latents(config, num, stream)
    if config.num_classes:
        classes = torch.arange(num) % config.num_classes if label is None else torch.full((num,), label)
        latents = ask_for(config, latents, classes)
    images = sample_images(generator, latents, torch.device("cpu"))
    try:
        save_sample_grid(images, math.ceil(math.sqrt(num)), to)
    except (OSError, ValueError) as refused:
        raise UserError(f"--to {to}: cannot be written ({refused})") from None
