"""The recorder: keep the curves of one training, save its sample grids, and report its progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gan_ablate.execution.observer import Progress
from gan_ablate.execution.pictures import save_sheet
from gan_ablate.scoring.scorer import NonFiniteImagesError, sample_images, scoring_latents, sheet_latents

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from gan_ablate.design.config import RunConfig
    from gan_ablate.scoring.scorer import Scorer
    from gan_ablate.training.timer import StepTimer
    from gan_ablate.training.trainer import Measurement

PROGRESS_EVERY_SEC = 0.5

SHEET_COLUMNS = 8


class TrainingObserver:
    """Listens to one training: keeps its curves, draws its sample sheets, writes its log, reports its progress.

    Attributes:
        last_step: up to which the training has come.
        curve_steps: where FID was taken.
        curve_train_sec: the training seconds until there.
        curve_fid: what it was.
        curve_sec: what all of that took.
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
        self._sheet_latents = sheet_latents(config)
        self._reported_at = (time.perf_counter(), 0)
        self.last_step = 0
        self.curve_steps: list[int] = []
        self.curve_train_sec: list[float] = []
        self.curve_fid: list[float] = []
        self.curve_sec = 0.0

    def restore(self, curve: Sequence[tuple[int, float, float]], curve_sec: float, step: int) -> None:
        """Go on where another process stopped.

        Args:
            curve: step, training seconds until there, FID.
            curve_sec: what it took.
            step: up to which the training has come.
        """
        self.curve_steps = [at for at, _, _ in curve]
        self.curve_train_sec = [seconds for _, seconds, _ in curve]
        self.curve_fid = [fid for _, _, fid in curve]
        self.curve_sec = curve_sec
        self.last_step = step
        self._reported_at = (time.perf_counter(), step)

    def on_measurement(self, row: Measurement) -> None:
        """Report a row of the history, a few times a second."""
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
        """Draw a sheet, and where it is due take FID; return whether what was drawn was finite."""
        self.last_step = step
        started = time.perf_counter()
        try:
            sheet = sample_images(generator, self._sheet_latents, self._device)
            # What an untrained generator scores says nothing and would stretch every axis.
            if self._scorer is not None and step in self._config.curve_steps:
                latents, _ = scoring_latents(self._config, self._config.scoring.curve_samples, self._labels)
                fid = self._scorer.fid(sample_images(generator, latents, self._device))
                self.curve_steps.append(step)
                self.curve_train_sec.append(timer.total_sec())
                self.curve_fid.append(fid)
                self._log.info("step %d: FID %.3f on %d samples", step, fid, len(latents))
        except NonFiniteImagesError:
            return False
        samples = self._folder / "samples"
        samples.mkdir(exist_ok=True)
        save_sheet(sheet, SHEET_COLUMNS, samples / f"step-{step:06d}.png")
        # The pause for scoring is not the training's speed.
        self._reported_at = (time.perf_counter(), step)
        self.curve_sec += time.perf_counter() - started
        return True
