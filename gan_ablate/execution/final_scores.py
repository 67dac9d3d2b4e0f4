"""Final scores of a run: of its last, averaged and best weights, also those of a finished run that is scored again."""

from __future__ import annotations

import copy
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load
from torch import nn

from gan_ablate.design.config import RunConfig
from gan_ablate.errors import UserError
from gan_ablate.execution.environment import find_dataset, find_scorer, score_floor
from gan_ablate.execution.recorder import OSCILLATION_SAMPLES, load_generator
from gan_ablate.execution.records import Record, ScoringRecord
from gan_ablate.execution.store import AVERAGE_FILE, BEST_FILE, GENERATOR_FILE, Store
from gan_ablate.scoring.scorer import NonFiniteImagesError, sample_images, scoring_latents
from gan_ablate.training.runtime import find_device

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable

    import torch
    from torch import Tensor

    from gan_ablate.execution.context import RunContext
    from gan_ablate.execution.recorder import BestWeights, TrainingObserver
    from gan_ablate.scoring.scorer import Scorer
    from gan_ablate.scoring.scores import Scores

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

RESCORED = "its kept generator was scored, without training it again"
WITHOUT_CURVES = f"{RESCORED}; FID along training was not measured with this extractor and number of images"

_CURVES = (
    "curve_sec", "curve_samples", "curve_steps", "curve_train_sec", "curve_fid", "oscillation_samples",
    "oscillation_steps", "oscillation_fid",
)  # fmt: skip


@dataclass(frozen=True)
class FinalScores:
    """The scores of a trained generator.

    Attributes:
        scores: of its images.
        fid_batch_stats: with each batch's own statistics in batch norm, instead of running averages.
        fid_ema: of the moving average of its weights, or None where the run keeps none.
        sampling_sec: seconds to sample the images.
        best: of its weights at the lowest point of FID along training, or None where the run does not keep them.
        best_step: the step of that point.
    """

    scores: Scores
    fid_batch_stats: float
    fid_ema: float | None
    sampling_sec: float
    best: Scores | None
    best_step: int | None


@dataclass(frozen=True)
class Judge:
    """What scores the generators of one run.

    Attributes:
        scorer: compares images.
        config: of the run.
        labels: (N,) int64 class of each training image, or None without classes.
        device: where the generators lie.
        has_time: whether FID is extrapolated also where that takes long, with many features.
    """

    scorer: Scorer
    config: RunConfig
    labels: Tensor | None
    device: torch.device
    has_time: bool = False

    def score(
        self, generator: nn.Module, average: nn.Module | None, best: tuple[int, nn.Module] | None
    ) -> FinalScores | None:
        """Score the last weights, their moving average and the best ones; None if a pixel is not a finite number.

        The best weights have the lowest FID of the curve's latents, some of which the last weights are scored on. So
        their own latents are others: luck with those of the curve does not come back.

        Args:
            generator: after the last step.
            average: with the moving average of its weights.
            best: step and generator of the lowest point of FID along training.
        """
        scorer, num = self.scorer, self.config.scoring.num_samples
        latents, classes = scoring_latents(self.config, num, self.labels)
        started = time.perf_counter()
        try:
            images = sample_images(generator, latents, self.device)
            sampling_sec = time.perf_counter() - started
            scores = scorer.score(images, classes, has_time=self.has_time)
            fid_batch_stats = scores.fid
            if any(isinstance(module, BATCH_NORMS) for module in generator.modules()):
                fid_batch_stats = scorer.fid(sample_images(generator, latents, self.device, batch_stats=True))
            fid_ema = None if average is None else scorer.fid(sample_images(average, latents, self.device))
            best_scores, best_step = None, None
            if best is not None:
                best_step, best_generator = best
                latents, classes = scoring_latents(self.config, num, self.labels, "latent/best")
                best_images = sample_images(best_generator, latents, self.device)
                best_scores = scorer.score(best_images, classes, has_time=self.has_time)
        except NonFiniteImagesError:
            return None
        return FinalScores(scores, fid_batch_stats, fid_ema, sampling_sec, best_scores, best_step)


def restore_best(generator: nn.Module, best: BestWeights | None) -> tuple[int, nn.Module] | None:
    """Return the step of the best weights, and a copy of a generator with these weights; None without any."""
    if best is None:
        return None
    restored = copy.deepcopy(generator)
    restored.load_state_dict(load(best.weights))
    return best.step, restored


def collect_scores(
    config: RunConfig, scorer: Scorer, curves: dict[str, Any], final: FinalScores | None, **others: Any
) -> ScoringRecord:
    """Build the scoring part of a record.

    Args:
        config: the run.
        scorer: that its images were scored with.
        curves: from ``collect_curves``.
        final: from ``Judge.score``; None of a run that diverged.
        **others: further fields.
    """
    return ScoringRecord(
        extractor=scorer.extractor.name,
        extractor_sha256=scorer.extractor.sha256,
        num_reference=scorer.num_reference,
        resolution=config.image_size,
        final=None if final is None else final.scores,
        fid_batch_stats=None if final is None else final.fid_batch_stats,
        fid_ema=None if final is None else final.fid_ema,
        best=None if final is None else final.best,
        best_step=None if final is None else final.best_step,
        floor=score_floor(scorer, config.scoring.num_samples),
        sampling_sec=0.0 if final is None else final.sampling_sec,
        **others,
        **curves,
    )


def collect_curves(observer: TrainingObserver) -> dict[str, Any]:
    """Return the fields of a scoring record on FID along training."""
    return {
        "curve_sec": observer.curve_sec,
        "curve_samples": observer.curve_samples,
        "curve_steps": observer.curve_steps,
        "curve_train_sec": observer.curve_train_sec,
        "curve_fid": observer.curve_fid,
        "oscillation_samples": OSCILLATION_SAMPLES if observer.oscillation_steps else 0,
        "oscillation_steps": observer.oscillation_steps,
        "oscillation_fid": observer.oscillation_fid,
    }


def rescore(config: RunConfig, context: RunContext, store: Store, log: logging.Logger) -> Record:
    """Score the kept generator of a finished run that differs in its scoring alone, and record it as this run's.

    FID along training is the finished run's where it would be measured in the same way, and left out otherwise.

    Args:
        config: the run; ``context.trained`` has the folder of the finished one.
        context: where and how.
        store: the results folder.
        log: the run's log.

    Raises:
        UserError: if the images have changed, or a generator cannot be read.
    """
    started, device = time.perf_counter(), find_device(context.device)
    origin = Path(context.trained[config.run_id])
    trained = Store(origin.parents[1]).load_record(origin.name)
    dataset, scorer = find_dataset(config, context), find_scorer(config, context)
    assert trained is not None
    assert isinstance(trained.config, RunConfig)
    assert scorer is not None
    log.info("%s: the generator of run %s is scored", config.run_id, trained.run_id)
    if dataset.sha256 != trained.dataset_sha256:
        raise UserError(f"{config.dataset}: its images have changed since run {trained.run_id}; valid: gan-ablate run")
    final, status, message, before = None, trained.status, trained.message, trained.scoring
    if trained.status == "completed":
        wanted = {GENERATOR_FILE: True, AVERAGE_FILE: config.ema_decay > 0, BEST_FILE: config.scoring.keep_best}
        generator, average, kept = (
            load_generator(trained, trained.config, origin / name).to(device) if is_wanted else None
            for name, is_wanted in wanted.items()
        )
        assert generator is not None
        best_step = None if before is None else before.best_step
        best = None if kept is None or best_step is None else (best_step, kept)
        final = Judge(scorer, config, dataset.labels, device, has_time=True).score(generator, average, best)
        if final is None:
            status, message = "diverged", f"not a finite number at step {config.steps}"
    curves = dict[str, Any]()
    mine, theirs = config.scoring, trained.config.scoring
    if before is not None and before.extractor_sha256 == scorer.extractor.sha256:
        is_alike = (mine.curve_samples, mine.curve_points) == (theirs.curve_samples, theirs.curve_points)
        curves = {name: getattr(before, name) for name in _CURVES} if is_alike else {}
    _link_files(origin, store.run_dir(config.run_id), [*trained.weights_sha256, "samples"])
    return trained.model_copy(
        update={
            "run_id": config.run_id,
            "status": status,
            "message": message,
            "diverged_at": trained.diverged_at if status == trained.status else config.steps,
            "config": config,
            "scoring": collect_scores(config, scorer, curves, final),
            "unscored_reason": "",
            "total_sec": trained.train_sec + time.perf_counter() - started,
            "notes": (RESCORED if curves else WITHOUT_CURVES,),
        }
    )


def _link_files(origin: Path, folder: Path, names: Iterable[str]) -> None:
    """Copy files and folders of a run to another one; where the file system can, as links to the same content."""
    for path in (path for name in names for path in (origin / name, *(origin / name).glob("step-*"))):
        to = folder / path.relative_to(origin)
        if not path.is_file():
            continue
        to.parent.mkdir(exist_ok=True)
        to.unlink(missing_ok=True)
        try:
            to.hardlink_to(path)
        except OSError:
            shutil.copyfile(path, to)
