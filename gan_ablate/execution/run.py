"""One RunConfig in, one record out: data, training and scoring. The only place that catches what they raise."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors.torch import save_file

from gan_ablate.design.datasets import default_features
from gan_ablate.errors import UserError
from gan_ablate.execution.environment import describe_environment
from gan_ablate.execution.observer import TrainingObserver
from gan_ablate.execution.sheets import save_sheet
from gan_ablate.execution.store import (
    AVERAGE_FILE,
    FILTERS_FILE,
    GENERATOR_FILE,
    INTERPOLATION_FILE,
    Record,
    ScoringRecord,
    Store,
)
from gan_ablate.scoring.features import build_extractor
from gan_ablate.scoring.score import NonFiniteImagesError, Scorer, sample_images, scoring_latents
from gan_ablate.training.data import ImageDataset, load_dataset
from gan_ablate.training.precision import reproducible_float32
from gan_ablate.training.train import Measurement, TrainResult, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from gan_ablate.design.config import RunConfig
    from gan_ablate.execution.context import RunContext
    from gan_ablate.execution.events import Progress
    from gan_ablate.scoring.scores import RepresentationScores, Scores


def check_inputs(config: RunConfig, context: RunContext) -> None:
    """Load what a run will need, so that what is missing is said before anything is trained.

    Raises:
        UserError: if the data set, the extractor or the device cannot be had.
    """
    _device(context)
    _dataset(config, context)
    _scorer(config, context)


def execute(config: RunConfig, context: RunContext, on_progress: Callable[[Progress], None]) -> Record:
    """Train and score one run and write its folder; ``record.json`` comes last.

    Args:
        config: the run.
        context: where and how.
        on_progress: called a few times a second.

    Returns:
        The record, also of a run that diverged or failed.
    """
    store = Store(Path(context.out))
    folder = store.run_dir(config.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    log = _open_log(folder / "log.txt", config.run_id)
    try:
        (folder / "config.json").write_text(config.model_dump_json(indent=1) + "\n", "utf-8")
        with reproducible_float32():
            record = _execute(config, context, folder, log, on_progress)
    except Exception as failure:  # a run that fails must not take the grid with it
        log.exception("failed")
        message = f"{type(failure).__name__}: {failure}"
        record = Record(run_id=config.run_id, status="failed", message=message, config=config, device=context.device)
    finally:
        for handler in log.handlers[:]:
            log.removeHandler(handler)
            handler.close()
    store.save_record(record)
    return record


def _execute(
    config: RunConfig,
    context: RunContext,
    folder: Path,
    log: logging.Logger,
    on_progress: Callable[[Progress], None],
) -> Record:
    started = time.perf_counter()
    device = _device(context)
    dataset = _dataset(config, context)
    scorer = _scorer(config, context)
    log.info("%s, seed %d, on %s: %d steps", config.run_id, config.seed, device, config.steps)
    observer = TrainingObserver(config, folder, log, scorer, dataset.labels, device, on_progress)
    labels = None if dataset.labels is None else dataset.labels.to(device)
    result = train(config, dataset.images.to(device), observer.on_measurement, observer.on_snapshot, labels)
    final = None
    is_finite = result.diverged_at is None
    if is_finite and scorer is not None:
        try:
            final = _final_scores(scorer, result, config, dataset.labels, device)
        except NonFiniteImagesError:
            is_finite = False
    representation = None
    if final is not None and scorer is not None and config.scoring.representation:
        representation = _study_representation(config, result, dataset, scorer, folder)
    message = "" if is_finite else f"not a finite number at step {observer.last_step}"
    if is_finite:
        _save_generator(result.generator, folder / GENERATOR_FILE)
        if result.average is not None:
            _save_generator(result.average, folder / AVERAGE_FILE)
    throughput = result.timer.summarise(config.batch_size * config.d_steps_per_g_step / config.g_steps_per_d_step)
    log.info("%s", message or "completed")
    return Record(
        run_id=config.run_id,
        status="completed" if is_finite else "diverged",
        message=message,
        diverged_at=None if is_finite else observer.last_step,
        config=config,
        dataset_sha256=dataset.sha256,
        dataset_origin=dataset.origin,
        history=_columns(result.history),
        scoring=None if scorer is None else _scoring_record(config, scorer, observer, final, representation),
        unscored_reason="" if scorer is not None else _unscored_reason(config),
        throughput=throughput,
        num_parameters_g=_num_parameters(result.generator),
        num_parameters_d=_num_parameters(result.discriminator),
        train_sec=result.timer.total_sec(),
        total_sec=time.perf_counter() - started,
        device=str(device),
        environment=describe_environment(device),
    )


@dataclasses.dataclass(frozen=True)
class _FinalScores:
    """What the trained generator comes to, with batch norm's running averages and with each batch's own statistics.

    And the moving average of its weights, where there is one.
    """

    scores: Scores
    fid_batch_stats: float
    fid_ema: float | None
    sampling_sec: float


def _final_scores(
    scorer: Scorer, result: TrainResult, config: RunConfig, labels: Tensor | None, device: torch.device
) -> _FinalScores:
    latents, classes = scoring_latents(config, config.scoring.num_samples, labels)
    started = time.perf_counter()
    images = sample_images(result.generator, latents, device)
    sampling_sec = time.perf_counter() - started
    scores = scorer.score(images, classes)
    fid_batch_stats = scores.fid
    if config.generator.norm != "none":
        fid_batch_stats = scorer.fid(sample_images(result.generator, latents, device, batch_stats=True))
    fid_ema = None if result.average is None else scorer.fid(sample_images(result.average, latents, device))
    return _FinalScores(scores, fid_batch_stats, fid_ema, sampling_sec)


def _scoring_record(
    config: RunConfig,
    scorer: Scorer,
    observer: TrainingObserver,
    final: _FinalScores | None,
    representation: RepresentationScores | None,
) -> ScoringRecord:
    return ScoringRecord(
        extractor=scorer.extractor.name,
        extractor_sha256=scorer.extractor.sha256,
        num_reference=scorer.num_reference,
        resolution=config.image_size,
        final=None if final is None else final.scores,
        fid_batch_stats=None if final is None else final.fid_batch_stats,
        fid_ema=None if final is None else final.fid_ema,
        floor=_floor(scorer, config.scoring.num_samples),
        sampling_sec=0.0 if final is None else final.sampling_sec,
        curve_sec=observer.curve_sec,
        curve_samples=config.scoring.curve_samples,
        curve_steps=observer.curve_steps,
        curve_train_sec=observer.curve_train_sec,
        curve_fid=observer.curve_fid,
        representation=representation,
    )


def _study_representation(
    config: RunConfig, result: TrainResult, dataset: ImageDataset, scorer: Scorer, folder: Path
) -> RepresentationScores:
    from gan_ablate.scoring.representation import NUM_IMAGES_PER_FILTER, NUM_PATH_STEPS, study_representation

    generator, discriminator = result.generator.cpu(), result.discriminator.cpu()
    found = study_representation(config, generator, discriminator, dataset, scorer.extractor)
    save_sheet(found.interpolation, NUM_PATH_STEPS, folder / "samples" / INTERPOLATION_FILE)
    save_sheet(found.filters, 2 * NUM_IMAGES_PER_FILTER, folder / "samples" / FILTERS_FILE)
    return found.scores


def _save_generator(generator: nn.Module, path: Path) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in generator.state_dict().items()}, path)


def _columns(history: list[Measurement]) -> dict[str, list[float]]:
    names = [field.name for field in dataclasses.fields(Measurement)]
    # JSON has no NaN; a diverged run's last row is left to its message.
    rows = [row for row in history if all(math.isfinite(value) for value in dataclasses.astuple(row))]
    return {name: [float(getattr(row, name)) for row in rows] for name in names}


def _unscored_reason(config: RunConfig) -> str:
    if default_features(config.dataset) == "none":
        return f"{config.dataset} has no classifier of its own; --inception-weights PATH scores it with Inception"
    return "scoring.features is none"


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _open_log(path: Path, run_id: str) -> logging.Logger:
    log = logging.getLogger(f"gan_ablate.execution.run.{run_id}")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    return log


def _device(context: RunContext) -> torch.device:
    try:
        device = torch.device(context.device)
    except RuntimeError:
        raise UserError(f"--device {context.device}: no such device; valid: cpu, cuda, cuda:0, …") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {context.device}: not supported; valid: cpu, cuda, cuda:0, …")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {context.device}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # where events are recorded
    return device


def _dataset(config: RunConfig, context: RunContext) -> ImageDataset:
    folder = context.folders.get(config.dataset)
    return _load_dataset_once(config.dataset, config.image_size, context.data_dir, folder, context.out)


def _scorer(config: RunConfig, context: RunContext) -> Scorer | None:
    if config.scoring.features == "none":
        return None
    dataset, device = _dataset(config, context), _device(context)
    return _build_scorer_once(dataset, config.scoring.features, context.inception_weights, device, context.out)


# A worker serves many runs of the same grid: what they share is prepared once.
@functools.lru_cache(maxsize=2)
def _load_dataset_once(name: str, image_size: int, data_dir: str, folder: str | None, out: str) -> ImageDataset:
    place = None if folder is None else Path(folder)
    return load_dataset(name, image_size, Path(data_dir), place, Store(Path(out)).cache_dir)


@functools.lru_cache(maxsize=2)
def _build_scorer_once(
    dataset: ImageDataset,
    features: Literal["digits", "fashion", "inception"],
    inception_weights: str | None,
    device: torch.device,
    out: str,
) -> Scorer:
    weights = None if inception_weights is None else Path(inception_weights)
    return Scorer(dataset, build_extractor(features, device, weights), device, Store(Path(out)).cache_dir)


@functools.lru_cache(maxsize=8)
def _floor(scorer: Scorer, num_samples: int) -> Scores:
    return scorer.floor(num_samples)
