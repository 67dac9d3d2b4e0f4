"""Runs of a user's script: start it, read its log, and score its images."""

from __future__ import annotations

import math
import os
import re
import shutil
import statistics
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gan_ablate.design.external import fill_word
from gan_ablate.design.outcomes import Throughput
from gan_ablate.design.resolve_external import is_unchanged
from gan_ablate.errors import UserError
from gan_ablate.execution.command import Command, Ending, Log, ProgramError, run_command
from gan_ablate.execution.context import Progress
from gan_ablate.execution.environment import (
    describe_environment,
    find_dataset,
    find_scorer,
    score_floor,
    unscored_reason,
)
from gan_ablate.execution.external_samples import (
    SAMPLES_FILE,
    Samples,
    draw_samples,
    find_samples,
    load_samples,
    pack_samples,
)
from gan_ablate.execution.recorder import save_sample_grid
from gan_ablate.execution.records import Record, ScoringRecord
from gan_ablate.execution.store import RECORD_FILE
from gan_ablate.scoring.image_scores import describe_copies, describe_range
from gan_ablate.scoring.image_sets import order_by_content
from gan_ablate.scoring.scorer import NUM_SAMPLE_GRID_IMAGES, NonFiniteImagesError
from gan_ablate.training.runtime import find_device

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

    from gan_ablate.design.external import ExternalConfig
    from gan_ablate.execution.context import RunContext
    from gan_ablate.execution.store import Store
    from gan_ablate.scoring.scorer import Scorer
    from gan_ablate.training.data import ImageDataset

OUTPUT_FILE = "output.txt"
"""In a run's folder: what the program printed."""

WORK_FOLDER = "work"
"""Beside it: ``{out}``, where the program runs and writes."""

_QUOTED = re.compile(r"(?<!\w)['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class _Trained:
    """How a script ended, what its log says, why it diverged if it did, and its samples if not."""

    ending: Ending
    log: Log
    divergence: str = ""
    samples: Samples | None = None


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
    trained = _train(config, context, folder, log, on_progress, should_stop)
    samples, output = trained.samples, trained.log
    if samples is not None:
        save_sample_grid(
            samples.images[:NUM_SAMPLE_GRID_IMAGES], 8, folder / "samples" / f"step-{config.steps:06d}.png"
        )
    notes = (*output.notes, *(() if samples is None else (*samples.notes, *describe_oddities(samples, dataset))))
    for note in notes:
        log.info("%s", note)
    return Record(
        run_id=config.run_id,
        status="diverged" if trained.divergence else "completed",
        message=trained.divergence,
        diverged_at=output.rows[-1].step if trained.divergence and output.rows else None,
        config=config,
        dataset_sha256=dataset.sha256,
        dataset_origin=dataset.origin,
        history=output.history(),
        scoring=None if scorer is None else _score(config, scorer, samples),
        unscored_reason="" if scorer is not None else unscored_reason(config),
        throughput=_throughput(output.step_ms(), config, trained.ending.peak_bytes),
        train_sec=trained.ending.seconds,
        total_sec=time.perf_counter() - started,
        device=str(device),
        environment={**describe_environment(device), "program": config.code},
        notes=notes,
    )


def _train(
    config: ExternalConfig,
    context: RunContext,
    folder: Path,
    log: logging.Logger,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> _Trained:
    """Let the script train, and collect its samples."""
    work, here = folder / WORK_FOLDER, _find_here(config, context)
    if not is_unchanged(config, here):
        raise ProgramError("its files have changed since this run was planned; run the same command again")
    shutil.rmtree(work, ignore_errors=True)  # of an attempt that did not end
    work.mkdir(parents=True)
    words = fill_command(config, context, work)
    links = list_links(config, words, here)
    for name in links:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(here / name)
    log.info("%s, seed %d: %s", config.run_id, config.seed, words)
    output = Log(config.log)

    def tell(seconds: float) -> None:
        row = output.rows[-1]
        loss_d, loss_g = (row.losses.get(name, math.nan) for name in ("loss_d", "loss_g"))
        on_progress(Progress(config.run_id, row.step, row.step / seconds, loss_d, loss_g, fid=None, fid_step=None))

    environment = make_environment(context, here, words)
    command = Command(words, work, folder / OUTPUT_FILE, environment, config.timeout_sec)
    ending = run_command(command, output, should_stop, tell)
    log.info("the program ended after %.1f s with %s", ending.seconds, ending.how)
    if (folder / RECORD_FILE).is_dir():  # where the record belongs
        shutil.rmtree(folder / RECORD_FILE)
        raise ProgramError(f"the program made a folder {RECORD_FILE} above its own; valid: files below {{out}}")
    how = ending.how + (f": {output.last_line}" if output.last_line else "")
    if ending.status > 0 and output.tells_divergence:
        return _Trained(ending, output, f"the program ended with {how}")
    if ending.status != 0:
        advice = _advise(output.last_line, here, work)
        raise ProgramError(f"the program ended with {how}; {advice}all of its output is in {OUTPUT_FILE}")
    if not output.is_finite:
        return _Trained(ending, output, "its last loss is not a finite number")
    found = find_samples(config, work, links)
    if config.latent_shape is not None:
        try:
            return _Trained(ending, output, "", draw_samples(config, found[0], folder, context.device, should_stop))
        except NonFiniteImagesError:
            return _Trained(ending, output, "its generator gives pixels that are not finite numbers")
    samples = load_samples(config, work, found)
    if not config.keep_samples:
        pack_samples(samples, found, work, folder / SAMPLES_FILE)
    return _Trained(ending, output, "", samples)


def _find_here(config: ExternalConfig, context: RunContext) -> Path:
    """Return the grid's folder.

    Raises:
        UserError: if it is not on this machine.
    """
    here = context.folders.get(config.code)
    if here is None or not Path(here).is_dir():
        raise UserError(f"{config.code}: the folder of this program is not on this machine; valid: run its grid there")
    return Path(here)


def fill_command(config: ExternalConfig, context: RunContext, work: Path) -> list[str]:
    """Fill a command's names in, word by word; paths to what lies beside the grid become full ones.

    Raises:
        UserError: if it is not known where the program's files lie.
    """
    here = _find_here(config, context)
    given = {
        **config.parameters,
        "seed": str(config.seed),
        "out": str(work.resolve()),
        "steps": str(config.steps),
        "num_samples": str(config.scoring.num_samples),
        "dataset": config.dataset,
        "image_size": str(config.image_size),
        "data_dir": str(Path(context.data_dir).resolve()),
        # A program is shown one GPU, its first.
        "device": "cuda:0" if context.device.startswith("cuda:") else context.device,
        "python": sys.executable,
        "here": str(here),
    }
    filled = ["=".join(_complete(part, config, here) for part in word.split("=")) for word in (
        fill_word(word, given) for word in config.command
    )]  # fmt: skip
    if filled[0] in ("python", "python3"):  # the one that runs this: the one whose packages are there
        filled[0] = sys.executable
    return filled


def _complete(part: str, config: ExternalConfig, here: Path) -> str:
    """Complete a path beside the grid: a file's, or a folder's that is written as a path.

    A folder's plain name may mean anything else, such as a data set, so it stays as it is; see ``list_links``. What
    begins as the samples do is written by the program, whatever lies beside the grid.
    """
    path = Path(part)
    if not path.parts or path.is_absolute() or path.parts[0] == Path(config.samples).parts[0]:
        return part
    is_path = _exists(here / path) and ("/" in part or (here / path).is_file())
    return str(here / path) if is_path else part


def list_links(config: ExternalConfig, words: Sequence[str], here: Path) -> list[str]:
    """List what of the grid's folder is linked in the program's: ``external.links``, and folders that words name."""
    named = [part for word in words for part in word.split("=")]
    folders = [
        name
        for name in named
        if name and "/" not in name and name not in (".", "..", Path(config.samples).parts[0])
        if _exists(here / name) and (here / name).is_dir()
    ]
    return list(dict.fromkeys([*config.links, *folders]))


def _exists(path: Path) -> bool:
    with suppress(OSError, ValueError):  # a word that is longer than any name, or none
        return path.exists()
    return False


def make_environment(context: RunContext, here: Path, words: Sequence[str]) -> dict[str, str]:
    """Make a program's environment: our threads, one GPU where one was named, and modules beside the grid for ``-m``.

    A scheduler names GPUs by ``CUDA_VISIBLE_DEVICES``; ``--device cuda:1`` is the second of those.
    """
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(torch.get_num_threads()))}
    environment["PYTHONUNBUFFERED"] = "1"  # or nothing is heard before the end
    if context.device.startswith("cuda:"):
        index = context.device.removeprefix("cuda:")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[int(index)].strip() if visible != [""] else index
    if "-m" in words:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    return environment


def _advise(line: str, here: Path, work: Path) -> str:
    """Say what would help a program that misses a file which lies beside the grid, or a folder to write to."""
    for name in _QUOTED.findall(line.replace(f"{work.resolve()}{os.sep}", "")):
        first = Path(name).parts[0] if name and not Path(name).is_absolute() else ""
        if first in ("", ".", "..") or _exists(work / first):
            continue
        if _exists(here / name):
            return f'{first} lies beside the grid: valid: external.links = ["{first}"]; '
        if "No such file" in line and (parent := Path(name).parent.as_posix()) != ".":
            advice = f'os.makedirs("{parent}", exist_ok=True) in the program'
            return f"there is no folder {parent} in {{out}}: valid: {advice}; "
    return ""


def describe_oddities(samples: Samples, dataset: ImageDataset) -> list[str]:
    """Say what is odd about samples beside a data set's images, as ``score`` does: copies, and values read wrongly."""
    images = order_by_content(samples.images)
    return [note for note in (describe_copies(images), describe_range(images, dataset.images)) if note]


def _score(config: ExternalConfig, scorer: Scorer, samples: Samples | None) -> ScoringRecord:
    return ScoringRecord(
        extractor=scorer.extractor.name,
        extractor_sha256=scorer.extractor.sha256,
        num_reference=scorer.num_reference,
        resolution=config.image_size,
        final=None if samples is None else scorer.score(samples.images),
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
