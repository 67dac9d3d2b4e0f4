"""One run of a program of one's own in, its record out: called as agreed, listened to, and scored."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.design.external import fill_word, is_unchanged
from gan_ablate.errors import UserError
from gan_ablate.execution.drawn import load_samples
from gan_ablate.execution.environment import describe_environment
from gan_ablate.execution.inputs import find_dataset, find_scorer, score_floor, unscored_reason
from gan_ablate.execution.listening import Heard, ProgramError, run_command
from gan_ablate.execution.sheets import save_sheet
from gan_ablate.execution.store import RECORD_FILE, Record, ScoringRecord
from gan_ablate.scoring.score import NUM_SHEET_IMAGES
from gan_ablate.training.device import find_device
from gan_ablate.training.throughput import Throughput

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from torch import Tensor

    from gan_ablate.design.external import ExternalConfig
    from gan_ablate.execution.context import RunContext
    from gan_ablate.execution.events import Progress
    from gan_ablate.execution.store import Store
    from gan_ablate.scoring.score import Scorer

OUTPUT_FILE = "output.txt"
"""In a run's folder: what the program printed."""

WORK_FOLDER = "work"
"""Beside it: ``{out}``, where the program runs and writes."""


def execute_program(
    config: ExternalConfig,
    context: RunContext,
    store: Store,
    log: logging.Logger,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Record:
    """Run a program, and score what it drew.

    Args:
        config: the run.
        context: where and how.
        store: the results folder.
        log: of the run.
        on_progress: called a few times a second, once there is something to tell.
        should_stop: asked a few times a second whether to end here; the run then begins anew another time.

    Raises:
        RunStoppedError: if it was asked to stop.
        ProgramError: if the program failed, took too long, or left no images as agreed.
        OSError: if the disk takes no more.
    """
    started, folder = time.perf_counter(), store.run_dir(config.run_id)
    device, dataset, scorer = find_device(context.device), find_dataset(config, context), find_scorer(config, context)
    work = folder / WORK_FOLDER
    shutil.rmtree(work, ignore_errors=True)  # of an attempt that did not end
    work.mkdir(parents=True)
    arguments = fill_command(config, context, work)
    if not is_unchanged(config, Path(context.folders[config.code])):
        raise ProgramError("its files have changed since this run was planned; run the same command again")
    log.info("%s, seed %d: %s", config.run_id, config.seed, arguments)
    heard = Heard()
    seconds, peak_bytes = run_command(
        config, context, arguments, work, folder / OUTPUT_FILE, heard, on_progress, should_stop
    )
    log.info("the program ended after %.1f s", seconds)
    history = heard.history()
    diverged = not heard.is_finite
    if (folder / RECORD_FILE).is_dir():  # where the record belongs
        shutil.rmtree(folder / RECORD_FILE)
        raise ProgramError(f"the program made a folder {RECORD_FILE} above its own; valid: files below {{out}}")
    images = load_samples(config, work)
    scoring = None if scorer is None else _score(config, scorer, images)
    save_sheet(images[:NUM_SHEET_IMAGES], 8, folder / "samples" / f"step-{config.steps:06d}.png")
    step_ms = heard.step_ms()
    return Record(
        run_id=config.run_id,
        status="diverged" if diverged else "completed",
        message="its last loss is not a finite number" if diverged else "",
        diverged_at=heard.steps[-1] if diverged else None,
        config=config,
        dataset_sha256=dataset.sha256,
        dataset_origin=dataset.origin,
        history=history,
        scoring=scoring,
        unscored_reason="" if scorer is not None else unscored_reason(config),
        throughput=_throughput(step_ms, config, peak_bytes),
        train_sec=seconds,
        total_sec=time.perf_counter() - started,
        device=str(device),
        environment={**describe_environment(device), "program": config.code},
    )


def fill_command(config: ExternalConfig, context: RunContext, work: Path) -> list[str]:
    """Fill a command's names in, word by word; files beside the grid are named by their full paths.

    Raises:
        UserError: if it is not known where the program's files lie.
    """
    here = context.folders.get(config.code)
    if here is None or not Path(here).is_dir():
        raise UserError(f"{config.code}: the folder of this program is not on this machine; valid: run its grid there")
    given = {
        **config.parameters,
        "seed": str(config.seed),
        "out": str(work.resolve()),
        "steps": str(config.steps),
        "num_samples": str(config.scoring.num_samples),
        "dataset": config.dataset,
        "image_size": str(config.image_size),
        "data_dir": str(Path(context.data_dir).resolve()),
        "device": context.device,
        "python": sys.executable,
        "here": here,
    }
    words = [fill_word(word, given) for word in config.command]
    filled = [str(Path(here) / word) if (Path(here) / word).is_file() else word for word in words]
    if filled[0] in ("python", "python3"):  # the one that runs this: the one whose packages are there
        filled[0] = sys.executable
    return filled


def _score(config: ExternalConfig, scorer: Scorer, images: Tensor) -> ScoringRecord:
    return ScoringRecord(
        extractor=scorer.extractor.name,
        extractor_sha256=scorer.extractor.sha256,
        num_reference=scorer.num_reference,
        resolution=config.image_size,
        final=scorer.score(images),
        fid_batch_stats=None,
        floor=score_floor(scorer, config.scoring.num_samples),
        sampling_sec=0.0,
        curve_sec=0.0,
        curve_samples=0,
        curve_steps=[],
        curve_train_sec=[],
        curve_fid=[],
    )


def _throughput(step_ms: list[float], config: ExternalConfig, peak_bytes: int) -> Throughput:
    """Summarise what the log's clock tells of steps; without a log, memory alone is known."""
    if len(step_ms) < 3:
        return Throughput(num_timed_steps=len(step_ms), peak_memory_bytes=peak_bytes)
    median = statistics.median(step_ms)
    tenths = statistics.quantiles(step_ms, n=10, method="inclusive")
    batch = config.parameters.get("batch_size", "")
    return Throughput(
        step_ms_median=median,
        step_ms_p10=tenths[0],
        step_ms_p90=tenths[-1],
        steps_per_sec=1e3 / median if median else None,
        images_per_sec=1e3 / median * int(batch) if batch.isdecimal() and median else None,
        num_timed_steps=len(step_ms),
        peak_memory_bytes=peak_bytes,
    )
