"""One run: load data, train, score, and write its record. Only this module catches the errors of a run."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gan_ablate.atomic_io import is_disk_failure, write_atomically
from gan_ablate.design.external import ExternalConfig
from gan_ablate.errors import describe_out_of_memory, is_out_of_memory
from gan_ablate.execution.checkpoint import RunCheckpoints, RunStoppedError
from gan_ablate.execution.environment import (
    describe_environment,
    find_dataset,
    find_scorer,
    unscored_reason,
)
from gan_ablate.execution.external import execute_script
from gan_ablate.execution.final_scores import Judge, collect_curves, collect_scores, rescore, restore_best
from gan_ablate.execution.recorder import TrainingObserver, save_sample_grid
from gan_ablate.execution.records import Record
from gan_ablate.execution.script import ScriptError
from gan_ablate.execution.store import (
    AVERAGE_FILE,
    BEST_FILE,
    FILTERS_FILE,
    GENERATOR_FILE,
    INTERPOLATION_FILE,
    Store,
)
from gan_ablate.training.loop import TrainResult, train
from gan_ablate.training.runtime import check_precision, find_device, reproducible_float32
from gan_ablate.training.trainer import Measurement, pack_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.context import Progress, RunContext
    from gan_ablate.scoring.scorer import Scorer
    from gan_ablate.scoring.scores import RepresentationScores
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
                record = rescore(config, context, store, log)
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
        judge = Judge(scorer, config, dataset.labels, device)
        final = judge.score(result.generator, result.average, restore_best(result.generator, observer.best))
        is_finite = final is not None
    if final is not None and scorer is not None and config.scoring.representation:
        representation = _study_representation(config, result, dataset, scorer, folder)
    message = "" if is_finite else f"not a finite number at step {observer.last_step}"
    best_weights = None if observer.best is None else observer.best.weights
    weights = _save_generators(result, best_weights, folder) if is_finite else {}
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
        scoring=None
        if scorer is None
        else collect_scores(config, scorer, collect_curves(observer), final, representation=representation),
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


def _study_representation(
    config: RunConfig, result: TrainResult, dataset: ImageDataset, scorer: Scorer, folder: Path
) -> RepresentationScores:
    from gan_ablate.scoring.representation import NUM_IMAGES_PER_FILTER, NUM_PATH_STEPS, study_representation

    generator, discriminator = result.generator.cpu(), result.discriminator.cpu()
    found = study_representation(config, generator, discriminator, dataset, scorer.extractor)
    save_sample_grid(found.interpolation, NUM_PATH_STEPS, folder / "samples" / INTERPOLATION_FILE)
    save_sample_grid(found.filters, 2 * NUM_IMAGES_PER_FILTER, folder / "samples" / FILTERS_FILE)
    return found.scores


def _save_generators(result: TrainResult, best: bytes | None, folder: Path) -> dict[str, str]:
    """Write the weights of G, of their moving average, and the best ones; return file name → SHA-256."""
    average = None if result.average is None else pack_weights(result.average)
    files = {GENERATOR_FILE: pack_weights(result.generator), AVERAGE_FILE: average, BEST_FILE: best}
    hashes = {}
    for name, content in files.items():
        if content is not None:
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
