"""Runs of a user's script: start it, read its log, and score its images."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gan_ablate.design.external import fill_word
from gan_ablate.design.outcomes import Throughput
from gan_ablate.design.resolve_external import complete_path, is_unchanged, list_links, patch_files, path_exists
from gan_ablate.design.user_code import find_script
from gan_ablate.errors import UserError
from gan_ablate.execution import saved_generator as saved
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
    describe_class,
    find_samples,
    load_samples,
    pack_samples,
    read_sampled,
    sample_generator,
    write_order,
)
from gan_ablate.execution.recorder import save_sample_grid
from gan_ablate.execution.records import Record, ScoringRecord
from gan_ablate.execution.script import Script, ScriptError, ScriptExit, ScriptLog, run_script
from gan_ablate.execution.store import RECORD_FILE
from gan_ablate.scoring.image_sets import order_by_content
from gan_ablate.scoring.oddities import describe_copies, describe_range
from gan_ablate.scoring.scorer import NUM_SAMPLE_GRID_IMAGES, NonFiniteImagesError
from gan_ablate.training.runtime import find_device

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping, Sequence

    from gan_ablate.design.external import ExternalConfig
    from gan_ablate.execution.context import RunContext
    from gan_ablate.execution.store import Store
    from gan_ablate.scoring.scorer import Scorer
    from gan_ablate.training.data import ImageDataset

OUTPUT_FILE = "output.txt"
"""In a run's folder: what the script printed."""

WORK_FOLDER = "work"
"""In a run's folder: ``{out}``, the script's working folder."""

CODE_FOLDER = "code"
"""In a run's folder: the patched copy of the script's files, and links to all that lies beside them."""

SAMPLED_FILE = ".sampled.npy"
"""In ``{out}``: what a script's own process sampled of ``external.generator``."""

_SEEDED = "random, NumPy and PyTorch were seeded before the script began (external.seed_globals)"

_QUOTED = re.compile(r"(?<!\w)['\"]([^'\"]+)['\"]")


@dataclass(frozen=True)
class _Trained:
    """A script that ended: its exit, its log, and either its samples or the reason why it diverged."""

    exit: ScriptExit
    log: ScriptLog
    divergence: str = ""
    samples: Samples | None = None


def execute_script(
    config: ExternalConfig,
    context: RunContext,
    store: Store,
    log: logging.Logger,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Record:
    """Run a script and score its images.

    Args:
        config: the run.
        context: where and how the run is computed.
        store: the results folder.
        log: the run's log.
        on_progress: called a few times a second, once the script's log has named a step or a loss.
        should_stop: asked a few times a second whether to stop here; a stopped run begins anew the next time.

    Raises:
        RunStoppedError: if it was asked to stop.
        ScriptError: if the script failed, took too long, or left no images as agreed.
        OSError: if the disk is full.
    """
    started, folder = time.perf_counter(), store.run_dir(config.run_id)
    device, dataset, scorer = find_device(context.device), find_dataset(config, context), find_scorer(config, context)
    trained = _train(config, context, folder, log, on_progress, should_stop)
    samples, output = trained.samples, trained.log
    notes = [*output.notes, *([_SEEDED] if config.seed_globals else [])]
    if samples is not None:
        picture = folder / "samples" / f"step-{config.steps:06d}.png"
        save_sample_grid(samples.images[:NUM_SAMPLE_GRID_IMAGES], 8, picture)
        notes += [*samples.notes, *_describe_oddities(samples, dataset)]
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
        throughput=_throughput(output.step_ms(), config, trained.exit.peak_bytes),
        train_sec=trained.exit.seconds,
        total_sec=time.perf_counter() - started,
        device=str(device),
        environment={**describe_environment(device), "program": config.code},
        notes=tuple(notes),
    )


def _train(
    config: ExternalConfig,
    context: RunContext,
    folder: Path,
    log: logging.Logger,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> _Trained:
    """Let the script train, and collect its samples.

    Raises:
        RunStoppedError: if it was asked to stop.
        ScriptError: if the script failed, took too long, or left no images as agreed.
    """
    work, here = folder / WORK_FOLDER, _find_here(config, context)
    if not is_unchanged(config, here):
        raise ScriptError("its files have changed since this run was planned; run the same command again")
    shutil.rmtree(work, ignore_errors=True)  # of an attempt that did not end
    work.mkdir(parents=True)
    values = _name_values(config, context, work, here)
    here = _lay_out_code(config, here, folder, values)
    words = fill_command(config, context, work, here)
    links = list_links(config, words, here)
    for name in links:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(here / name)
    log.info("%s, seed %d: %s", config.run_id, config.seed, words)
    output = ScriptLog(config.log)

    def report_progress(seconds: float) -> None:
        row = output.rows[-1]
        loss_d, loss_g = (row.losses.get(name, math.nan) for name in ("loss_d", "loss_g"))
        on_progress(Progress(config.run_id, row.step, row.step / seconds, loss_d, loss_g, fid=None, fid_step=None))

    environment = make_environment(context, here, words)
    if config.seed_globals:
        environment["PYTHONHASHSEED"] = str(config.seed % 2**32)
    launched = add_launcher(config, words, work)
    script = Script(launched, work, folder / OUTPUT_FILE, environment, config.timeout_sec)
    ended = run_script(script, output, should_stop, report_progress)
    log.info("the program ended after %.1f s with %s", ended.seconds, ended.reason)
    if (folder / RECORD_FILE).is_dir():  # the record's place
        shutil.rmtree(folder / RECORD_FILE)
        raise ScriptError(f"the program made a folder {RECORD_FILE} above its own; valid: files below {{out}}")
    reason = ended.reason + (f": {output.last_line}" if output.last_line else "")
    if ended.status > 0 and output.shows_divergence:
        return _Trained(ended, output, f"the program ended with {reason}")
    if ended.status != 0:
        advice = _advise(output.last_line, here, work)
        raise ScriptError(f"the program ended with {reason}; {advice}all of its output is in {OUTPUT_FILE}")
    if not output.is_finite:
        return _Trained(ended, output, "its last loss is not a finite number")
    try:
        samples = _collect(config, context, folder, here, words, should_stop)
    except NonFiniteImagesError:
        return _Trained(ended, output, "its generator gives pixels that are not finite numbers")
    return _Trained(ended, output, samples=samples)


def _collect(
    config: ExternalConfig,
    context: RunContext,
    folder: Path,
    here: Path,
    words: Sequence[str],
    should_stop: Callable[[], bool],
) -> Samples:
    """Collect the samples of a script that has ended.

    Raises:
        RunStoppedError: if it was asked to stop.
        ScriptError: if there are none as agreed.
        NonFiniteImagesError: if a generator gives pixels that are no numbers.
    """
    work = folder / WORK_FOLDER
    if config.generator:
        sampled = work / SAMPLED_FILE
        if not sampled.is_file():
            raise ScriptError("the program ended the process, so its external.generator was not sampled")
        samples = read_sampled(config, sampled, f"external.generator = {config.generator}:")
        sampled.unlink()
        return samples
    found = find_samples(config, work, list_links(config, words, here))
    if config.latent_shape is None:
        samples = load_samples(config, work, found)
        if not config.keep_samples:
            pack_samples(samples, found, work, folder / SAMPLES_FILE)
        return samples
    if config.checkpoint is None:
        return sample_generator(config, found[0], folder, context.device, should_stop)
    index = find_script(words)
    values = _name_values(config, context, work, here)
    code = describe_class(config, here, () if index is None else words[index:], values)
    samples = sample_generator(config, found[0], folder, context.device, should_stop, code)
    note = f"sampled with the weights of {found[0].relative_to(work)}, the last file that matches"
    return Samples(samples.images, (note, *samples.notes))


def _lay_out_code(config: ExternalConfig, here: Path, folder: Path, values: Mapping[str, str]) -> Path:
    """Copy a script's files to its run's folder and patch them there; beside them lie links to all else.

    Args:
        config: the run.
        here: the grid's folder.
        folder: the run's folder.
        values: of the names in braces.

    Returns:
        The copy that stands for the grid's folder; that folder itself where nothing is patched.
    """
    if not config.patches:
        return here
    code = (folder / CODE_FOLDER).resolve()
    shutil.rmtree(code, ignore_errors=True)
    code.mkdir(parents=True)
    patched = patch_files(config, here, {**values, "here": str(code)})
    for name in [name for name in config.files if Path(name).suffix == ".py" and not Path(name).is_absolute()]:
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(here / name, code / name)
    for name, text in patched.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_bytes(text.encode())
    for copied in [code, *(path for path in code.rglob("*") if path.is_dir())]:
        for entry in (here / copied.relative_to(code)).iterdir():
            holds_run = code.is_relative_to(entry.resolve())
            if not (holds_run or entry.name == "__pycache__" or os.path.lexists(copied / entry.name)):
                (copied / entry.name).symlink_to(entry.resolve())
    return code


def add_launcher(config: ExternalConfig, words: Sequence[str], work: Path) -> list[str]:
    """Let a launcher run a Python script, where its globals are seeded or sampled; see ``saved_generator.launch``.

    Args:
        config: the run.
        words: the command, from ``fill_command``.
        work: the script's working folder.
    """
    if not (config.generator or config.seed_globals):
        return list(words)
    index = find_script(words)
    assert index is not None, "external checks it"
    seed = config.seed if config.seed_globals else None
    order = {"seed": seed, "generator": config.generator, **write_order(config, work.resolve() / SAMPLED_FILE)}
    return [*words[:index], saved.__file__, json.dumps(order), *words[index:]]


def _find_here(config: ExternalConfig, context: RunContext) -> Path:
    """Return the folder of the grid's file.

    Raises:
        UserError: if the folder is not on this machine.
    """
    here = context.folders.get(config.code)
    if here is None or not Path(here).is_dir():
        raise UserError(f"{config.code}: the folder of this program is not on this machine; valid: run its grid there")
    return Path(here)


def _name_values(config: ExternalConfig, context: RunContext, work: Path, here: Path) -> dict[str, str]:
    """Return the value of every name in braces."""
    return {
        **config.parameters,
        "seed": str(config.seed),
        "out": str(work.resolve()),
        "steps": str(config.steps),
        "num_samples": str(config.scoring.num_samples),
        "dataset": config.dataset,
        "image_size": str(config.image_size),
        "data_dir": str(Path(context.data_dir).resolve()),
        # ``make_environment`` shows a script one GPU, as the first.
        "device": "cuda:0" if context.device.startswith("cuda") else context.device,
        "python": sys.executable,
        "here": str(here),
    }


def fill_command(config: ExternalConfig, context: RunContext, work: Path, here: Path | None = None) -> list[str]:
    """Fill in a command's placeholders word by word, and make paths to files beside the grid absolute.

    Args:
        config: the run.
        context: where and how the run is computed.
        work: the script's working folder, ``{out}``.
        here: the grid's folder, or its patched copy; by default the folder that the context names.

    Raises:
        UserError: if the grid's folder is not on this machine.
    """
    here = _find_here(config, context) if here is None else here
    values = _name_values(config, context, work, here)
    words = (fill_word(word, values) for word in config.command)
    filled = ["=".join(complete_path(part, config, here) for part in word.split("=")) for word in words]
    if filled[0] in ("python", "python3"):  # this process's Python has the packages
        filled[0] = sys.executable
    return filled


def make_environment(context: RunContext, here: Path, words: Sequence[str]) -> dict[str, str]:
    """Return a script's environment variables: number of threads, visible GPU, and Python path.

    Args:
        context: its device; ``cuda:1`` is the second GPU of ``CUDA_VISIBLE_DEVICES``, where a scheduler set that.
        here: the grid's folder, from which ``python -m`` imports modules.
        words: the command.
    """
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(torch.get_num_threads()))}
    environment["PYTHONUNBUFFERED"] = "1"  # otherwise lines come at the end only
    if context.device.startswith("cuda:"):
        index = context.device.removeprefix("cuda:")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[int(index)].strip() if visible != [""] else index
    if "-m" in words:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    return environment


def _advise(line: str, here: Path, work: Path) -> str:
    """Advise on a last line that names a missing file which lies beside the grid, or a missing folder."""
    for name in _QUOTED.findall(line.replace(f"{work.resolve()}{os.sep}", "")):
        first = Path(name).parts[0] if name and not Path(name).is_absolute() else ""
        if first in ("", ".", "..") or path_exists(work / first):
            continue
        if path_exists(here / name):
            return f'{first} lies beside the grid: valid: external.links = ["{first}"]; '
        if "No such file" in line and (parent := Path(name).parent.as_posix()) != ".":
            advice = f'os.makedirs("{parent}", exist_ok=True) in the program'
            return f"there is no folder {parent} in {{out}}: valid: {advice}; "
    return ""


def _describe_oddities(samples: Samples, dataset: ImageDataset) -> list[str]:
    """Describe copies among samples, and values whose range differs from that of a data set's images."""
    images = order_by_content(samples.images)
    return [note for note in (describe_copies(images), describe_range(images, dataset.images)) if note]


def _score(config: ExternalConfig, scorer: Scorer, samples: Samples | None) -> ScoringRecord:
    return ScoringRecord(
        extractor=scorer.extractor.name,
        extractor_sha256=scorer.extractor.sha256,
        num_reference=scorer.num_reference,
        resolution=config.image_size,
        final=None if samples is None else scorer.score(samples.images),
        floor=score_floor(scorer, config.scoring.num_samples),
    )


def _throughput(step_ms: list[float], config: ExternalConfig, peak_bytes: int) -> Throughput:
    """Summarise the milliseconds of steps; with fewer than 3 of them, only memory is known."""
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
