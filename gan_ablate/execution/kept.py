"""Kept trainings: what a user's script left, so that it is read and scored again without running the script."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gan_ablate.atomic_io import check_seal, seal_json, write_atomically
from gan_ablate.design.outcomes import Throughput
from gan_ablate.design.validation import Model, validate
from gan_ablate.errors import UserError
from gan_ablate.execution.script_log import times_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gan_ablate.design.external import ExternalConfig
    from gan_ablate.execution.store import Store

OUTPUT_FILE = "output.txt"
"""In a run's folder: what the script printed."""

WORK_FOLDER = "work"
"""In a run's folder: ``{out}``, the script's working folder, or the folder above it with ``external.cwd``."""

SAMPLES_FILE = "samples.npz"
"""In a run's folder: the images that were scored."""

SAMPLED_FILE = ".sampled.npy"
"""In ``{out}``: what a script's own process sampled of ``external.generator``."""


class Packed(Model):
    """Images that were read, packed into ``SAMPLES_FILE``, and deleted.

    Attributes:
        reading: ``reading_key`` of the run that read them.
        num: how many there are.
        files: the script's files that they were read from, relative to ``{out}``.
        notes: remarks on them.
    """

    reading: str
    num: int
    files: Annotated[tuple[str, ...], Field(strict=False)] = ()
    notes: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Training(Model):
    """What a script that ended left in a run's folder, in the file ``trained-HASH.json``.

    Attributes:
        run_id: the run that ran the script.
        status: the exit code.
        has_diverged: whether it ended with an error that shows a divergence.
        seconds: how long it took.
        peak_bytes: its peak memory.
        device: what ``{device}`` stood for.
        environment: the versions of packages and the machine then.
        num_samples: what ``{num_samples}`` stood for; None where the script was not told.
        log: ``log_key`` of the run that ran the script.
        throughput: time and memory of a step, as this log had them.
        sampled: ``latent_key`` of the run that ran the script, where the script's process sampled its generator.
        packed: what became of its images.
        run_again: whether the same run, unchanged, runs the script again: nothing matched ``external.samples``.
        remarks: on the run of the script, such as files that it wrote beside its folder.
    """

    run_id: str
    status: int
    has_diverged: bool
    seconds: float
    peak_bytes: int
    device: str
    environment: dict[str, str]
    num_samples: int | None = None
    log: str = ""
    throughput: Throughput | None = None
    sampled: str = ""
    packed: Packed | None = None
    run_again: bool = False
    remarks: Annotated[tuple[str, ...], Field(strict=False)] = ()


def work_folder(config: ExternalConfig, folder: Path) -> Path:
    """Return ``{out}`` of a run: the script's working folder, below the run's folder."""
    return folder / WORK_FOLDER / config.cwd


def training_path(config: ExternalConfig, folder: Path) -> Path:
    """Return the file of a run's training, whose name has the hash of what was trained."""
    return folder / f"trained-{config.training.run_id}.json"


def log_key(config: ExternalConfig) -> str:
    """Return a name of a run's log."""
    return config.log if isinstance(config.log, str) else config.log.model_dump_json(exclude_defaults=True)


def latent_key(config: ExternalConfig) -> str:
    """Return a name of how a global of a script is sampled; empty where none is."""
    return f"{config.generator} {config.latent_shape} {config.latent_distribution}" if config.generator else ""


def reading_key(config: ExternalConfig) -> str:
    """Return a hash of how a run's images are read from what the script left, but for their number."""
    grid = None if config.samples_grid is None else config.samples_grid.model_dump()
    read = [config.samples, grid, latent_key(config), config.num_channels, config.image_size]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()[:12]


def save_training(training: Training, config: ExternalConfig, folder: Path) -> None:
    """Write what a script left, as a file of a run's folder."""
    write_atomically(training_path(config, folder), seal_json(training.model_dump_json(indent=1) + "\n"))


def load_training(path: Path) -> Training | None:
    """Read what ``save_training`` wrote; None where there is none, or where it is damaged."""
    try:
        content = path.read_bytes()
        check_seal(content, is_due=True)
        data = json.loads(content)
        data.pop("sha256")
        return validate(Training, data, str(path))
    except (OSError, ValueError, UserError):
        return None


def forget_training(folder: Path) -> None:
    """Delete what a script left in a run's folder, before the script runs there again."""
    for path in (*folder.glob("trained-*.json"), folder / SAMPLES_FILE):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)


def is_readable(training: Training, config: ExternalConfig, folder: Path) -> bool:
    """Whether a run can be had from what a script left in a folder, without running the script.

    Args:
        training: what was trained there, with the run's hash of training.
        config: the run.
        folder: the folder of a run.
    """
    num, packed = config.scoring.num_samples, training.packed
    if not ((folder / OUTPUT_FILE).is_file() and (folder / WORK_FOLDER).is_dir()):
        return False
    if training.has_diverged:
        return True
    if training.status != 0 or is_short(training, config):
        return False
    if packed is not None and packed.reading == reading_key(config):
        return (folder / SAMPLES_FILE).is_file() and (num <= packed.num or not config.generator)
    if config.generator:
        return training.sampled == latent_key(config) and (work_folder(config, folder) / SAMPLED_FILE).is_file()
    return packed is None or not any(_matches(name, config.samples) for name in packed.files)


def is_short(training: Training, config: ExternalConfig) -> bool:
    """Whether a script was told to leave fewer samples than a run needs."""
    return training.num_samples is not None and training.num_samples < config.scoring.num_samples


def _matches(name: str, pattern: str) -> bool:
    """Whether a file that was deleted may match a pattern; where that is not certain, it does."""
    return fnmatchcase(name, pattern.replace("**/", "*"))


def find_training(config: ExternalConfig, store: Store) -> tuple[Training, Path] | None:
    """Find what a script left that a run can be read from: in the run's own folder, or in that of another run.

    Args:
        config: the run.
        store: the results folder.

    Returns:
        What was trained and its folder; None where the script has to run.
    """
    own = training_path(config, store.run_dir(config.run_id))
    others = sorted(path for path in (store.root / "runs").glob(f"[!.]*/{own.name}") if path != own)
    return _choose(config, [own, *others])


def _choose(config: ExternalConfig, paths: Sequence[Path]) -> tuple[Training, Path] | None:
    for path in paths:
        training = load_training(path)
        if training is None:
            continue
        if training.run_again and path.parent.name == config.run_id:
            return None  # reading the same files in the same way leads nowhere
        if is_readable(training, config, path.parent):
            return training, path.parent
    return None


class Trainings:
    """What scripts left in a results folder, for a look before many runs.

    Args:
        store: the results folder.
    """

    def __init__(self, store: Store) -> None:
        self._paths: dict[str, list[Path]] = {}
        for path in sorted((store.root / "runs").glob("[!.]*/trained-*.json")):
            self._paths.setdefault(path.name, []).append(path)

    def find(self, config: ExternalConfig) -> tuple[Training, Path] | None:
        """Find what a run can be read from; see ``find_training``."""
        paths = self._paths.get(training_path(config, Path()).name, [])
        return _choose(config, sorted(paths, key=lambda path: path.parent.name != config.run_id))

    def has_too_few(self, config: ExternalConfig) -> bool:
        """Whether a run's script was trained, but told to leave fewer samples than the run needs."""
        paths = self._paths.get(training_path(config, Path()).name, [])
        known = [training for path in paths if (training := load_training(path)) is not None]
        return any(training.status == 0 and is_short(training, config) for training in known)


def adopt_training(config: ExternalConfig, training: Training, origin: Path, folder: Path) -> Training:
    """Bring what a script left into the folder of another run; where the file system can, as links to the same files.

    Args:
        config: the run of the folder.
        training: what was trained.
        origin: the folder of the run that ran the script, or that has read it before.
        folder: the run's own folder.

    Raises:
        OSError: if it is gone.
    """
    forget_training(folder)
    shutil.copytree(origin / WORK_FOLDER, folder / WORK_FOLDER, symlinks=True, copy_function=_link)
    for name in (OUTPUT_FILE, times_path(Path(OUTPUT_FILE)).name, SAMPLES_FILE):
        with suppress(FileNotFoundError):
            (folder / name).unlink(missing_ok=True)
            _link(origin / name, folder / name)
    adopted = training.model_copy(update={"run_again": False})
    save_training(adopted, config, folder)
    return adopted


def _link(origin: Path | str, to: Path | str) -> None:
    """Link or copy a file, links and times as they are."""
    try:
        os.link(origin, to, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(origin, to, follow_symlinks=False)


def list_beside(folder: Path) -> Iterator[str]:
    """Yield the names beside a run's folder that are no run's: what scripts wrote to ``../..``."""
    for path in folder.parent.iterdir():
        is_run = len(path.name) == len(folder.name) and not set(path.name) - set("0123456789abcdef")
        if not (is_run or path.name.startswith(".")):
            yield path.name
