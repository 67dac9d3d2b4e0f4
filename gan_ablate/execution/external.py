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
from gan_ablate.design.resolve_external import (
    complete_path,
    find_linked,
    is_unchanged,
    list_links,
    patch_files,
    path_exists,
)
from gan_ablate.design.user_code import find_script
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError, describe_exit
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
    NothingLeftError,
    Samples,
    describe_class,
    find_samples,
    load_samples,
    pack_samples,
    read_packed,
    read_sampled,
    remove_files,
    sample_generator,
    write_order,
)
from gan_ablate.execution.kept import (
    OUTPUT_FILE,
    SAMPLED_FILE,
    SAMPLES_FILE,
    Packed,
    Training,
    adopt_training,
    find_training,
    forget_training,
    latent_key,
    list_beside,
    log_key,
    reading_key,
    save_training,
    work_folder,
)
from gan_ablate.execution.recorder import save_sample_grid
from gan_ablate.execution.records import Record, ScoringRecord
from gan_ablate.execution.script import MAX_OUTPUT_BYTES, Script, ScriptError, read_output, run_script
from gan_ablate.execution.script_log import ScriptLog
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

CODE_FOLDER = "code"
"""In a run's folder: the patched copy of the script's files, and links to all that lies beside them."""

_SEEDED = "random, NumPy and PyTorch were seeded before the script began (external.seed_globals)"

_QUOTED = re.compile(r"(?<!\w)['\"]([^'\"]+)['\"]")


NUM_BESIDE = 3
"""Names that a note has."""


@dataclass(frozen=True)
class _Setup:
    """Where a run's script works, and with what.

    Attributes:
        folder: the run's folder.
        work: ``{out}``, the script's working folder.
        here: the grid's folder, or its patched copy.
        values: of the names in braces.
        words: the command, filled in.
    """

    folder: Path
    work: Path
    here: Path
    values: Mapping[str, str]
    words: Sequence[str]


def execute_script(
    config: ExternalConfig,
    context: RunContext,
    store: Store,
    log: logging.Logger,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Record:
    """Run a script and score its images; what a script has left before is read again, without running it.

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
    dataset, scorer = find_dataset(config, context), find_scorer(config, context)
    if not is_unchanged(config, _find_here(config, context)):
        raise ScriptError("its files have changed since this run was planned; run the same command again")
    output = ScriptLog(config.log, work_folder(config, folder))
    known = _adopt(config, context, store, log)
    setup = _set_up(config, context, folder, is_new=known is None)
    if known is None:
        training, notes = _train(config, context, setup, output, log, on_progress, should_stop), []
    else:
        training, notes = known[0], [known[1], *_read_output(setup, known[0], output)]
    divergence, samples = _judge(config, training, output, folder), None
    if not divergence:
        try:
            samples = _collect(config, context, setup, training, should_stop)
        except NonFiniteImagesError:
            divergence = "its generator gives pixels that are not finite numbers"
    notes += [*output.notes, *training.remarks, *([_SEEDED] if config.seed_globals else [])]
    if samples is not None:
        picture = folder / "samples" / f"step-{config.steps:06d}.png"
        save_sample_grid(samples.images[:NUM_SAMPLE_GRID_IMAGES], 8, picture)
        notes += [*samples.notes, *_describe_oddities(samples, dataset)]
    for note in notes:
        log.info("%s", note)
    is_same_log = training.throughput is not None and training.log == log_key(config)
    return Record(
        run_id=config.run_id,
        status="diverged" if divergence else "completed",
        message=divergence,
        diverged_at=output.rows[-1].step if divergence and output.rows else None,
        config=config,
        dataset_sha256=dataset.sha256,
        dataset_origin=dataset.origin,
        history=output.history(),
        scoring=None if scorer is None else _score(config, scorer, samples),
        unscored_reason="" if scorer is not None else unscored_reason(config),
        throughput=training.throughput if is_same_log else _throughput(output.step_ms(), config, training.peak_bytes),
        train_sec=training.seconds,
        total_sec=(0.0 if known is None else training.seconds) + time.perf_counter() - started,
        device=training.device,
        environment={**training.environment, "program": config.code},
        notes=tuple(notes),
    )


def _adopt(
    config: ExternalConfig, context: RunContext, store: Store, log: logging.Logger
) -> tuple[Training, str] | None:
    """Find what a script has left that this run can be read from, and bring it into this run's folder.

    Returns:
        What was trained, and a note that says where; None where the script has to run.

    Raises:
        ScriptError: if the script must not run, and what it has left is gone.
    """
    known, folder = find_training(config, store), store.run_dir(config.run_id)
    if known is not None:
        training, origin = known
        try:
            if origin != folder:
                training = adopt_training(config, training, origin, folder)
            where = "" if training.run_id == config.run_id else f" in run {training.run_id}"
            log.info("%s: what the script has left%s is read again", config.run_id, where)
            return training, f"read again from what the script had left{where}, without running it"
        except FileNotFoundError:  # another command has begun to run it there
            forget_training(folder)
    if config.run_id in context.trained:
        raise ScriptError("what its script has left is gone; valid: gan-ablate run")
    return None


def _set_up(config: ExternalConfig, context: RunContext, folder: Path, *, is_new: bool) -> _Setup:
    """Prepare a run's folder: the patched code, the working folder and links into it.

    Args:
        config: the run.
        context: where and how the run is computed.
        folder: the run's folder.
        is_new: whether the script will run, so that the working folder begins empty.
    """
    work, here = work_folder(config, folder), _find_here(config, context)
    if is_new:
        forget_training(folder)
        work.mkdir(parents=True)
    values = _name_values(config, context, work, here)
    here = _lay_out_code(config, here, folder, values)
    words = fill_command(config, context, work, here)
    for name in list_links(config, words, here) if is_new else ():
        target = config.link_targets.get(name, name)
        linked = find_linked(target, values, here)
        if "{data_dir}" in target and not linked.exists():  # scripts download to it
            linked.mkdir(parents=True)
        place = Path(os.path.normpath(work.resolve() / name))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(linked)
    return _Setup(folder, work, here, values, words)


def _train(
    config: ExternalConfig,
    context: RunContext,
    setup: _Setup,
    output: ScriptLog,
    log: logging.Logger,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Training:
    """Let the script train, and keep what it left.

    Raises:
        RunStoppedError: if it was asked to stop.
        ScriptError: if the script failed or took too long.
    """
    folder, words, device = setup.folder, setup.words, find_device(context.device)
    log.info("%s, seed %d: %s", config.run_id, config.seed, words)

    def report_progress(seconds: float) -> None:
        row = output.rows[-1]
        loss_d, loss_g = (row.losses.get(name, math.nan) for name in ("loss_d", "loss_g"))
        on_progress(Progress(config.run_id, row.step, row.step / seconds, loss_d, loss_g, fid=None, fid_step=None))

    environment = make_environment(context, setup.here, words)
    if config.seed_globals:
        environment["PYTHONHASHSEED"] = str(config.seed % 2**32)
    environment |= {name: fill_word(value, setup.values) for name, value in config.env.items()}
    launched, beside = add_launcher(config, words, setup.work), set(list_beside(folder))
    script = Script(launched, setup.work, folder / OUTPUT_FILE, environment, config.timeout_sec)
    ended = run_script(script, output, should_stop, report_progress)
    log.info("the program ended after %.1f s with %s", ended.seconds, ended.reason)
    if (folder / RECORD_FILE).is_dir():  # the record's place
        shutil.rmtree(folder / RECORD_FILE)
        raise ScriptError(f"the program made a folder {RECORD_FILE} above its own; valid: files below {{out}}")
    has_diverged = ended.status > 0 and output.shows_divergence
    if ended.status != 0 and not has_diverged:
        reason = ended.reason + (f": {output.last_line}" if output.last_line else "")
        advice = _advise(output.last_line, setup.here, setup.work)
        raise ScriptError(f"the program ended with {reason}; {advice}all of its output is in {OUTPUT_FILE}")
    left = sorted(set(list_beside(folder)) - beside)
    training = Training(
        run_id=config.run_id,
        status=ended.status,
        has_diverged=has_diverged,
        seconds=ended.seconds,
        peak_bytes=ended.peak_bytes,
        device=str(device),
        environment=describe_environment(device),
        num_samples=config.scoring.num_samples if "num_samples" in config.training_names else None,
        log=log_key(config),
        throughput=_throughput(output.step_ms(), config, ended.peak_bytes),
        sampled=latent_key(config),
        remarks=tuple(_describe_beside(left)),
    )
    save_training(training, config, folder)
    return training


def _describe_beside(names: Sequence[str]) -> list[str]:
    """Say that a script wrote files beside the folders of the runs."""
    if not names:
        return []
    where = f"the program wrote {', '.join(map(shorten, names[:NUM_BESIDE]))} above {{out}}, beside the runs"
    return [f'{where}; external.cwd = "a/b" keeps ../.. in the run\'s folder']


def _read_output(setup: _Setup, training: Training, output: ScriptLog) -> list[str]:
    """Read the kept output of a script, and return a note where it is not whole."""
    if read_output(setup.folder / OUTPUT_FILE, output, training.seconds):
        return []
    return [f"external.log was read from the first {MAX_OUTPUT_BYTES / 1e6:.0f} MB of output, which are kept"]


def _judge(config: ExternalConfig, training: Training, output: ScriptLog, folder: Path) -> str:
    """Return why a script that ended has diverged; empty where it has not.

    Raises:
        ScriptError: if it ended with an error, and its log shows no divergence any more; the next time it runs again.
    """
    reason = describe_exit(training.status) + (f": {output.last_line}" if output.last_line else "")
    if training.status > 0 and output.shows_divergence:
        return f"the program ended with {reason}"
    if training.status != 0:
        save_training(training.model_copy(update={"run_again": True}), config, folder)
        raise ScriptError(f"the program ended with {reason}; all of its output is in {OUTPUT_FILE}")
    return "" if output.is_finite else "its last loss is not a finite number"


def _collect(
    config: ExternalConfig,
    context: RunContext,
    setup: _Setup,
    training: Training,
    should_stop: Callable[[], bool],
) -> Samples:
    """Collect the samples of a script that has ended.

    Raises:
        RunStoppedError: if it was asked to stop.
        ScriptError: if there are none as agreed; what the script left stays, and is read again after a correction.
        NonFiniteImagesError: if a generator gives pixels that are no numbers.
    """
    try:
        return _find_samples(config, context, setup, training, should_stop)
    except NothingLeftError:
        save_training(training.model_copy(update={"run_again": True}), config, setup.folder)
        raise
    except ScriptError as wrong:
        again = (
            f"what it left stays, and is read again after a correction; to run it again, delete runs/{config.run_id}"
        )
        raise ScriptError(f"{wrong}; {again}") from None


def _find_samples(
    config: ExternalConfig,
    context: RunContext,
    setup: _Setup,
    training: Training,
    should_stop: Callable[[], bool],
) -> Samples:
    work, packed = setup.work, training.packed
    if packed is not None and packed.reading == reading_key(config):
        return read_packed(config, setup.folder / SAMPLES_FILE, packed.notes)
    if config.generator:
        sampled = work / SAMPLED_FILE
        if not sampled.is_file():
            raise NothingLeftError("the program ended the process, so its external.generator was not sampled")
        samples = read_sampled(config, sampled, f"external.generator = {config.generator}:")
        _pack(config, training, samples, [sampled], setup)
        return samples
    found = find_samples(config, work, list_links(config, setup.words, setup.here))
    if config.latent_shape is None:
        samples = load_samples(config, work, found)
        is_all = samples.num_found == len(samples.images) and config.samples_grid is None
        if is_all and not config.keep_samples:
            _pack(config, training, samples, found, setup)
        return samples
    if config.checkpoint is None:
        return sample_generator(config, found[0], setup.folder, context.device, should_stop)
    index = find_script(setup.words)
    code = describe_class(config, setup.here, () if index is None else setup.words[index:], setup.values)
    samples = sample_generator(config, found[0], setup.folder, context.device, should_stop, code)
    note = f"sampled with the weights of {found[0].relative_to(work)}, the last file that matches"
    return Samples(samples.images, (note, *samples.notes))


def _pack(config: ExternalConfig, training: Training, samples: Samples, found: Sequence[Path], setup: _Setup) -> None:
    """Pack all images that a script left into one file, note that, and delete the script's files."""
    pack_samples(samples, setup.folder / SAMPLES_FILE)
    names = () if config.generator else tuple(path.relative_to(setup.work).as_posix() for path in found)
    packed = Packed(reading=reading_key(config), num=len(samples.images), files=names, notes=samples.notes)
    save_training(training.model_copy(update={"packed": packed}), config, setup.folder)
    remove_files(found, setup.work)


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
        if first == ".." and "No such file" in line:
            return f'{name} lies above {{out}}: valid: external.cwd = "a/b", external.links = {{ "{name}" = "PATH" }}; '
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
