"""One run: load data, train, score, and write its record. Only this module catches the errors of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gan_ablate.atomic_io import is_disk_failure, write_atomically
from gan_ablate.design.config import RunConfig
from gan_ablate.design.external import ExternalConfig
from gan_ablate.errors import UserError, describe_out_of_memory, is_out_of_memory
from gan_ablate.execution.checkpoint import RunCheckpoints, RunStoppedError
from gan_ablate.execution.environment import (
    describe_environment,
    find_dataset,
    find_scorer,
    score_floor,
    unscored_reason,
)
from gan_ablate.execution.external import execute_script
from gan_ablate.execution.recorder import OSCILLATION_SAMPLES, TrainingObserver, load_generator, save_sample_grid
from gan_ablate.execution.records import Record, ScoringRecord
from gan_ablate.execution.script import ScriptError
from gan_ablate.execution.store import AVERAGE_FILE, FILTERS_FILE, GENERATOR_FILE, INTERPOLATION_FILE, Store
from gan_ablate.scoring.scorer import NonFiniteImagesError, Scorer, sample_images, scoring_latents
from gan_ablate.training.loop import TrainResult, train
from gan_ablate.training.runtime import check_precision, find_device, reproducible_float32
from gan_ablate.training.trainer import Measurement, pack_weights

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.context import Progress, RunContext
    from gan_ablate.scoring.scores import RepresentationScores, Scores
    from gan_ablate.training.data import ImageDataset


def execute(
    config: AnyConfig,
    context: RunContext,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Train and score one run, or resume it, and write its folder; ``record.json`` comes last.

    Args:
        config: the run.
        context: where and how.
        on_progress: receives the progress a few times a second.
        should_stop: called after every step; True stops the run at a checkpoint.

    Returns:
        The record, also of a run that diverged or failed.

    Raises:
        RunStoppedError: if the run stopped at a checkpoint.
        OSError: if the disk is full or refuses to write.
    """
    store = Store(Path(context.out))
    folder = store.run_dir(config.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    log = _open_log(folder / "log.txt", config.run_id)
    checkpoints, started = None, time.perf_counter()
    try:
        write_atomically(folder / "config.json", config.model_dump_json(indent=1) + "\n")
        with reproducible_float32():
            if isinstance(config, ExternalConfig):
                record = execute_script(config, context, store, log, on_progress, should_stop)
            elif config.run_id in context.trained:
                record = _rescore(config, context, store, log)
            else:
                record, checkpoints = _execute(config, context, store, log, on_progress, should_stop)
    except RunStoppedError:
        raise
    except ScriptError as failure:  # of a user's script: one line
        log.info("failed: %s", failure)
        record = _failure(config, context, str(failure), time.perf_counter() - started)
    except Exception as failure:  # a run that fails must not take the grid with it
        if is_disk_failure(failure):  # all other runs would fail, too
            raise
        log.exception("failed")
        is_short = is_out_of_memory(failure)
        message = describe_out_of_memory(failure) if is_short else f"{type(failure).__name__}: {failure}"
        record = _failure(config, context, message)
    finally:
        for handler in log.handlers[:]:
            log.removeHandler(handler)
            handler.close()
    store.save_record(record)
    if checkpoints is not None and not context.keep_checkpoints:
        checkpoints.remove()
    return record


def _failure(config: AnyConfig, context: RunContext, message: str, total_sec: float = 0.0) -> Record:
    return Record(
        run_id=config.run_id,
        status="failed",
        message=message,
        config=config,
        device=context.device,
        total_sec=total_sec,
    )


def _execute(
    config: RunConfig,
    context: RunContext,
    store: Store,
    log: logging.Logger,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> tuple[Record, RunCheckpoints]:
    started, folder = time.perf_counter(), store.run_dir(config.run_id)
    device = find_device(context.device)
    check_precision(config.precision, device)
    dataset, scorer = find_dataset(config, context), find_scorer(config, context)
    log.info("%s, seed %d, on %s: %d steps", config.run_id, config.seed, device, config.steps)
    observer = TrainingObserver(config, folder, log, scorer, dataset.labels, device, on_progress)
    checkpoints = RunCheckpoints(
        config,
        store=store,
        observer=observer,
        origin=_origin(dataset, scorer, device),
        is_scored=scorer is not None,
        every_sec=context.checkpoint_sec,
        keeps_last=context.keep_checkpoints,
        should_stop=should_stop,
        log=log,
    )
    labels = None if dataset.labels is None else dataset.labels.to(device)
    result = train(
        config, dataset.images.to(device), observer.on_measurement, observer.on_snapshot, labels, checkpoints
    )
    is_finite, final, representation = result.diverged_at is None, None, None
    if is_finite and scorer is not None:
        final = _final_scores(scorer, result.generator, result.average, config, dataset.labels, device)
        is_finite = final is not None
    if final is not None and scorer is not None and config.scoring.representation:
        representation = _study_representation(config, result, dataset, scorer, folder)
    message = "" if is_finite else f"not a finite number at step {observer.last_step}"
    weights = _save_generators(result, folder) if is_finite else {}
    throughput = result.timer.summarise(config.batch_size * config.d_steps_per_g_step / config.g_steps_per_d_step)
    log.info("%s", message or "completed")
    record = Record(
        run_id=config.run_id,
        status="completed" if is_finite else "diverged",
        message=message,
        diverged_at=None if is_finite else observer.last_step,
        config=config,
        dataset_sha256=dataset.sha256,
        dataset_origin=dataset.origin,
        history=_columns(result.history),
        scoring=None if scorer is None else _scoring_record(config, scorer, _curves(observer), final, representation),
        unscored_reason="" if scorer is not None else unscored_reason(config),
        throughput=throughput,
        num_parameters_g=_num_parameters(result.generator),
        num_parameters_d=_num_parameters(result.discriminator),
        weights_sha256=weights,
        train_sec=result.timer.total_sec(),
        total_sec=checkpoints.earlier_sec + time.perf_counter() - started,
        device=str(device),
        environment=describe_environment(device),
    )
    return record, checkpoints


def _origin(dataset: ImageDataset, scorer: Scorer | None, device: torch.device) -> dict[str, str]:
    """Name what a run's numbers depend on besides its configuration."""
    return {
        "data": dataset.sha256,
        "classifier": "" if scorer is None else scorer.extractor.sha256,
        "torch": torch.__version__,
        "processor": torch.backends.cpu.get_cpu_capability()
        if device.type == "cpu"
        else torch.cuda.get_device_name(device),
    }


@dataclasses.dataclass(frozen=True)
class _FinalScores:
    """The scores of a trained generator.

    Attributes:
        scores: of its images.
        fid_batch_stats: with each batch's own statistics in batch norm, instead of running averages.
        fid_ema: of the moving average of its weights, or None where the run keeps none.
        sampling_sec: seconds to sample the images.
    """

    scores: Scores
    fid_batch_stats: float
    fid_ema: float | None
    sampling_sec: float


def _final_scores(
    scorer: Scorer,
    generator: nn.Module,
    average: nn.Module | None,
    config: RunConfig,
    labels: Tensor | None,
    device: torch.device,
) -> _FinalScores | None:
    """Score a trained generator; return None if a pixel is not a finite number."""
    latents, classes = scoring_latents(config, config.scoring.num_samples, labels)
    started = time.perf_counter()
    try:
        images = sample_images(generator, latents, device)
        sampling_sec = time.perf_counter() - started
        scores = scorer.score(images, classes)
        fid_batch_stats = scores.fid
        if any(isinstance(module, BATCH_NORMS) for module in generator.modules()):
            fid_batch_stats = scorer.fid(sample_images(generator, latents, device, batch_stats=True))
        fid_ema = None if average is None else scorer.fid(sample_images(average, latents, device))
    except NonFiniteImagesError:
        return None
    return _FinalScores(scores, fid_batch_stats, fid_ema, sampling_sec)


def _scoring_record(
    config: RunConfig,
    scorer: Scorer,
    curves: dict[str, Any],
    final: _FinalScores | None,
    representation: RepresentationScores | None = None,
) -> ScoringRecord:
    return ScoringRecord(
        extractor=scorer.extractor.name,
        extractor_sha256=scorer.extractor.sha256,
        num_reference=scorer.num_reference,
        resolution=config.image_size,
        final=None if final is None else final.scores,
        fid_batch_stats=None if final is None else final.fid_batch_stats,
        fid_ema=None if final is None else final.fid_ema,
        floor=score_floor(scorer, config.scoring.num_samples),
        sampling_sec=0.0 if final is None else final.sampling_sec,
        representation=representation,
        **curves,
    )


def _curves(observer: TrainingObserver) -> dict[str, Any]:
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


RESCORED = "its kept generator was scored, without training it again"
WITHOUT_CURVES = f"{RESCORED}; FID along training was not measured with this extractor and number of images"

_CURVES = (
    "curve_sec", "curve_samples", "curve_steps", "curve_train_sec", "curve_fid", "oscillation_samples",
    "oscillation_steps", "oscillation_fid",
)  # fmt: skip


def _rescore(config: RunConfig, context: RunContext, store: Store, log: logging.Logger) -> Record:
    """Score the kept generator of a finished run that differs in its scoring alone, and record it as this run's.

    FID along training is the finished run's where it would be measured in the same way, and left out otherwise.
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
    final, average, status, message = None, None, trained.status, trained.message
    if trained.status == "completed":
        generator = load_generator(trained, trained.config, origin / GENERATOR_FILE).to(device)
        if config.ema_decay:
            average = load_generator(trained, trained.config, origin / AVERAGE_FILE).to(device)
        final = _final_scores(scorer, generator, average, config, dataset.labels, device)
        if final is None:
            status, message = "diverged", f"not a finite number at step {config.steps}"
    before, curves = trained.scoring, dict[str, Any]()
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
            "scoring": _scoring_record(config, scorer, curves, final),
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


def _study_representation(
    config: RunConfig, result: TrainResult, dataset: ImageDataset, scorer: Scorer, folder: Path
) -> RepresentationScores:
    from gan_ablate.scoring.representation import NUM_IMAGES_PER_FILTER, NUM_PATH_STEPS, study_representation

    generator, discriminator = result.generator.cpu(), result.discriminator.cpu()
    found = study_representation(config, generator, discriminator, dataset, scorer.extractor)
    save_sample_grid(found.interpolation, NUM_PATH_STEPS, folder / "samples" / INTERPOLATION_FILE)
    save_sample_grid(found.filters, 2 * NUM_IMAGES_PER_FILTER, folder / "samples" / FILTERS_FILE)
    return found.scores


def _save_generators(result: TrainResult, folder: Path) -> dict[str, str]:
    """Write the weights of G and of their moving average; return file name → SHA-256."""
    generators = {GENERATOR_FILE: result.generator, AVERAGE_FILE: result.average}
    hashes = {}
    for name, generator in generators.items():
        if generator is not None:
            content = pack_weights(generator)
            write_atomically(folder / name, content)
            hashes[name] = hashlib.sha256(content).hexdigest()
    return hashes


def _columns(history: list[Measurement]) -> dict[str, list[float]]:
    names = [field.name for field in dataclasses.fields(Measurement)]
    # JSON has no NaN; the last row of a diverged run is left out.
    rows = [row for row in history if all(math.isfinite(value) for value in dataclasses.astuple(row))]
    return {name: [float(getattr(row, name)) for row in rows] for name in names}


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class _FileHandler(logging.FileHandler):
    """Drops lines that the disk refuses: a log is no reason to end a run, nor to fill the screen."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its base class calls it so)
        """Ignore."""


def _open_log(path: Path, run_id: str) -> logging.Logger:
    log = logging.getLogger(f"gan_ablate.execution.run.{run_id}")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = _FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    return log
