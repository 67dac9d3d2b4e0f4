"""One run of a program of one's own in, its record out: started without a shell, listened to, ended, and scored."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import re
import selectors
import shutil
import signal
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch

from gan_ablate.design.external import fill_word
from gan_ablate.errors import UserError
from gan_ablate.execution.checkpoint import RunStoppedError
from gan_ablate.execution.environment import describe_environment
from gan_ablate.execution.events import Progress
from gan_ablate.execution.inputs import find_dataset, find_device, find_scorer, score_floor
from gan_ablate.execution.sheets import save_sheet
from gan_ablate.execution.store import Record, ScoringRecord, Store
from gan_ablate.scoring.score import NUM_SHEET_IMAGES, quantise
from gan_ablate.scoring.sets import ARRAY_SUFFIXES, load_files, load_images
from gan_ablate.seeding import SCORING_SEED, stream_seed
from gan_ablate.training.throughput import Throughput

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from torch import Tensor

    from gan_ablate.design.external import ExternalConfig
    from gan_ablate.execution.context import RunContext
    from gan_ablate.scoring.score import Scorer

OUTPUT_FILE = "output.txt"
"""In a run's folder: what the program printed."""

WORK_FOLDER = "work"
"""Beside it: ``{out}``, where the program runs and writes."""

MAX_OUTPUT_BYTES = 50_000_000
MAX_LINE_BYTES = 10_000
MAX_HISTORY = 10_000
"""Rows of a history; of a longer one every second is kept, or every fourth and so on."""

POLL_SEC, PROGRESS_SEC, GRACE_SEC = 0.1, 0.25, 5.0
DRAW_BATCH = 250
_PR_SET_PDEATHSIG = 1


class ProgramError(Exception):
    """A program did not do what was agreed: its run has failed, with this line as the reason."""


@dataclass
class _Heard:
    """What a program's output has told so far, a row each: step (or nothing), losses, and when."""

    steps: list[int] = field(default_factory=list)
    losses_d: list[float] = field(default_factory=list)
    losses_g: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    last_line: str = ""

    def add(self, match: re.Match[str], second: float) -> None:
        """Take in a line that fits; one whose numbers are none is no such line."""
        found = match.groupdict()
        try:
            step = int(found["step"]) if found.get("step") else len(self.steps) + 1
            losses = [float(found[name]) if found.get(name) else math.nan for name in ("loss_d", "loss_g")]
        except ValueError:
            return
        self.steps.append(step)
        self.losses_d.append(losses[0])
        self.losses_g.append(losses[1])
        self.seconds.append(second)

    def history(self) -> dict[str, list[float]]:
        """Columns as a record keeps them: those that were told, without what is no number."""
        columns = {"step": [float(step) for step in self.steps], "loss_d": self.losses_d, "loss_g": self.losses_g}
        told = {name: values for name, values in columns.items() if not all(map(math.isnan, values))}
        rows = [row for row in zip(*told.values(), strict=True) if all(map(math.isfinite, row))]
        rows = rows[:: -(-len(rows) // MAX_HISTORY) or 1]
        return {name: [row[i] for row in rows] for i, name in enumerate(told)} if rows else {}

    def step_ms(self) -> list[float]:
        """Milliseconds of a step between each two lines that tell of steps; of lines that come at once, the last."""
        last = dict(zip(self.seconds, self.steps, strict=True))
        pairs = itertools.pairwise(last.items())
        return [1e3 * (end - start) / (b - a) for (start, a), (end, b) in pairs if b > a]


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
    device, dataset, scorer = find_device(context), find_dataset(config, context), find_scorer(config, context)
    work = folder / WORK_FOLDER
    shutil.rmtree(work, ignore_errors=True)  # of an attempt that did not end
    work.mkdir(parents=True)
    arguments = fill_command(config, context, work)
    log.info("%s, seed %d: %s", config.run_id, config.seed, arguments)
    heard = _Heard()
    seconds, peak_bytes = _run(config, context, arguments, work, folder / OUTPUT_FILE, heard, on_progress, should_stop)
    log.info("the program ended after %.1f s", seconds)
    history = heard.history()
    last_losses = [values[-1] for values in (heard.losses_d, heard.losses_g) if values]
    diverged = any(math.isinf(loss) for loss in last_losses)
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
        unscored_reason="" if scorer is not None else "scoring.features is none, or colour images have no classifier",
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


def _run(
    config: ExternalConfig,
    context: RunContext,
    arguments: list[str],
    work: Path,
    output: Path,
    heard: _Heard,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> tuple[float, int]:
    """Run the program to its end; return its seconds and the most memory that it had, in bytes."""
    threads = str(torch.get_num_threads())
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)}
    environment["PYTHONUNBUFFERED"] = "1"  # or nothing is heard before the end
    if context.device.startswith("cuda:"):
        environment["CUDA_VISIBLE_DEVICES"] = context.device.removeprefix("cuda:")
    started = time.perf_counter()
    try:
        program = subprocess.Popen(
            arguments,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (no threads hold locks)
        )
    except OSError as refused:
        raise ProgramError(f"{arguments[0]}: cannot be started ({refused.strerror or refused})") from None
    try:
        status, usage = _listen(config, program, output, heard, started, on_progress, should_stop)
    finally:
        _end(program)
    seconds = time.perf_counter() - started
    if status != 0:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
        last = f": {heard.last_line}" if heard.last_line else ""
        raise ProgramError(f"the program ended with {how}{last}; all of its output is in {output.name}")
    # Linux counts in KiB, macOS in bytes.
    return seconds, usage * (1 if sys.platform == "darwin" else 1024)


def _listen(
    config: ExternalConfig,
    program: subprocess.Popen[bytes],
    output: Path,
    heard: _Heard,
    started: float,
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> tuple[int, int]:
    """Read what a program prints until it ends; return its exit status and its peak memory as the system counts it."""
    pattern = re.compile(config.log) if config.log else None
    assert program.stdout is not None
    os.set_blocking(program.stdout.fileno(), False)
    told_at, pending, written = 0.0, b"", 0
    with output.open("wb") as file, selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ)
        while True:
            ended, status, usage = os.wait4(program.pid, os.WNOHANG)
            selector.select(0 if ended else POLL_SEC)
            now = time.perf_counter()
            for chunk in _chunks(program.stdout):
                written = _keep(file, chunk, written)
                *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    _hear(line, pattern, heard, now - started)
                pending = pending[-MAX_LINE_BYTES:]
            file.flush()
            if ended:
                _hear(pending, pattern, heard, now - started)
                program.returncode = os.waitstatus_to_exitcode(status)
                return program.returncode, usage.ru_maxrss
            if should_stop():
                raise RunStoppedError
            if config.timeout_sec is not None and now - started > config.timeout_sec:
                raise ProgramError(f"the program had not ended after {config.timeout_sec:g} s (external.timeout_sec)")
            if heard.steps and now - told_at > PROGRESS_SEC:
                told_at = now
                on_progress(_progress(config, heard, now - started))


def _chunks(pipe: IO[bytes]) -> list[bytes]:
    """Read all that is there, without waiting."""
    found = []
    with suppress(BlockingIOError):  # nothing more for now
        while chunk := os.read(pipe.fileno(), 65_536):
            found.append(chunk)
    return found


def _keep(file: IO[bytes], chunk: bytes, written: int) -> int:
    """Write output down until there is too much of it."""
    if written < MAX_OUTPUT_BYTES:
        file.write(chunk[: MAX_OUTPUT_BYTES - written])
        if written + len(chunk) >= MAX_OUTPUT_BYTES:
            file.write(b"\n[more was printed]\n")
    return written + len(chunk)


def _hear(line: bytes, pattern: re.Pattern[str] | None, heard: _Heard, second: float) -> None:
    text = line[:MAX_LINE_BYTES].decode("utf-8", "replace").strip()
    if text:
        heard.last_line = "".join(c if c.isprintable() else " " for c in text[:300])
    match = pattern.search(text) if pattern else None
    if match is not None:
        heard.add(match, second)


def _progress(config: ExternalConfig, heard: _Heard, seconds: float) -> Progress:
    step = heard.steps[-1]
    losses = heard.losses_d[-1], heard.losses_g[-1]
    return Progress(config.run_id, step, step / seconds, *losses, fid=None, fid_step=None)


def _end_with_parent() -> None:
    """Let the program end with the process that started it, also where that one is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(program: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started: first asked, then killed."""
    for number, seconds in ((signal.SIGTERM, GRACE_SEC), (signal.SIGKILL, 0.0)):
        with suppress(ProcessLookupError, PermissionError):  # it has ended, and so have its children
            os.killpg(program.pid, number)
            deadline = time.monotonic() + seconds
            while program.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
    program.wait()
    if program.stdout is not None:
        program.stdout.close()


def load_samples(config: ExternalConfig, work: Path) -> Tensor:
    """Read the images that a program left, or draw them with the generator that it left.

    Returns:
        (num_samples, C, S, S) uint8; what there is more of is left out.

    Raises:
        ProgramError: if there are too few, or they are not images of the size that was agreed.
    """
    num, channels, size = config.scoring.num_samples, config.num_channels, config.image_size
    suffix = Path(config.samples).suffix.lower()
    found = sorted(path for path in work.glob(config.samples) if path.is_file())
    if not found:
        raise ProgramError(f"the program ended, and left no {config.samples} in {WORK_FOLDER}/ (external.samples)")
    try:
        if config.latent_shape is not None:
            images = _draw(config, found[0])
        elif suffix in ARRAY_SUFFIXES:
            images = load_images(found[0], num_channels=channels, size=size)
        else:
            images = load_files(found[:num], num_channels=channels, size=size)
    except UserError as unreadable:
        raise ProgramError(str(unreadable).replace(f"{work}{os.sep}", "")) from None
    if len(images) < num:
        advice = f"valid: scoring.num_samples, {num:,}, or more"
        raise ProgramError(f"the program left {len(images):,} images in {config.samples}; {advice}")
    return images[:num]


def _draw(config: ExternalConfig, path: Path) -> Tensor:
    """Draw images with a saved generator, from the same latents in every run."""
    assert config.latent_shape is not None
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "latent"))
    latents = torch.randn(config.scoring.num_samples, *config.latent_shape, generator=stream)
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is on its way out is no news to whoever uses it
            generator = torch.export.load(path).module() if path.suffix == ".pt2" else torch.jit.load(path).eval()
            drawn = torch.cat([generator(z) for z in latents.split(DRAW_BATCH)])
        images = quantise(drawn.float())
    except Exception as broken:  # whatever somebody's saved program raises
        reason = str(broken).strip().partition("\n")[0][:300] or type(broken).__name__
        raise UserError(f"{path}: the saved generator does not draw ({reason})") from None
    wanted = (len(latents), config.num_channels, config.image_size, config.image_size)
    if images.shape != wanted:
        shapes = (" × ".join(map(str, shape)) for shape in (tuple(images.shape), wanted))
        raise UserError("{}: the saved generator draws {}; valid: {}".format(path, *shapes))
    return images


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
