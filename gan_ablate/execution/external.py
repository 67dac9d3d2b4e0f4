"""Runs of a user's script: start it, read its log, and score its images."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gan_ablate.design.external import fill_word
from gan_ablate.design.outcomes import Throughput
from gan_ablate.design.resolve_external import is_unchanged, list_links
from gan_ablate.design.user_code import find_script
from gan_ablate.design.validation import shorten
from gan_ablate.errors import describe_exit
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
)
from gan_ablate.execution.external_setup import Setup, add_launcher, advise, find_here, make_environment, set_up
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
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from gan_ablate.design.external import ExternalConfig
    from gan_ablate.execution.context import RunContext
    from gan_ablate.execution.store import Store
    from gan_ablate.scoring.scorer import Scorer
    from gan_ablate.training.data import ImageDataset

_SEEDED = "random, NumPy and PyTorch were seeded before the script began (external.seed_globals)"

NUM_BESIDE = 3
"""Names that a note has."""


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
    if not is_unchanged(config, find_here(config, context)):
        raise ScriptError("its files have changed since this run was planned; run the same command again")
    output = ScriptLog(config.log, work_folder(config, folder))
    known = _adopt(config, context, store, log)
    setup = set_up(config, context, folder, is_new=known is None)
    if known is None:
        training, notes = _train(config, context, setup, output, log, on_progress, should_stop), []
    else:
        training, notes = known[0], [known[1], *_read_output(setup, known[0], output)]
    divergence, samples = _judge(config, training, output, folder), None
    if not divergence:
        try:
            with _explaining(config, training, folder):
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


def _train(
    config: ExternalConfig,
    context: RunContext,
    setup: Setup,
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
        advice = advise(output.last_line, setup.here, setup.work)
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


def _read_output(setup: Setup, training: Training, output: ScriptLog) -> list[str]:
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
    setup: Setup,
    training: Training,
    should_stop: Callable[[], bool],
) -> Samples:
    """Collect the samples of a script that has ended.

    Raises:
        RunStoppedError: if it was asked to stop.
        ScriptError: if there are none as agreed.
        NonFiniteImagesError: if a generator gives pixels that are no numbers.
    """
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


@contextmanager
def _explaining(config: ExternalConfig, training: Training, folder: Path) -> Iterator[None]:
    """Where samples cannot be had, say what becomes of what a script left; where nothing is, let it run again."""
    try:
        yield
    except NothingLeftError:
        save_training(training.model_copy(update={"run_again": True}), config, folder)
        raise
    except ScriptError as wrong:
        stays = "what it left stays, and is read again after a correction"
        raise ScriptError(f"{wrong}; {stays}; to run it again, delete runs/{config.run_id}") from None


def _pack(config: ExternalConfig, training: Training, samples: Samples, found: Sequence[Path], setup: Setup) -> None:
    """Pack all images that a script left into one file, note that, and delete the script's files."""
    pack_samples(samples, setup.folder / SAMPLES_FILE)
    names = () if config.generator else tuple(path.relative_to(setup.work).as_posix() for path in found)
    packed = Packed(reading=reading_key(config), num=len(samples.images), files=names, notes=samples.notes)
    save_training(training.model_copy(update={"packed": packed}), config, setup.folder)
    remove_files(found, setup.work)


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
