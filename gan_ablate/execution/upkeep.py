"""A results folder in, what is damaged in it and what nothing refers to out. Nothing is computed, nothing trusted."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gan_ablate.errors import UserError
from gan_ablate.execution.lease import lease
from gan_ablate.files import read_sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gan_ablate.execution.store import Store


ABANDONED_SEC = 3_600.0
"""Age from which an unfinished write is taken for one that was killed."""


@dataclass(frozen=True)
class Findings:
    """What ``verify`` has seen.

    Attributes:
        num_files: that were checked.
        problems: a line for each that is damaged: file, reason, what to do.
    """

    num_files: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Waste:
    """Something that nothing refers to.

    Attributes:
        path: a file or a folder.
        reason: why it may go, in words.
        num_bytes: that it takes.
    """

    path: Path
    reason: str
    num_bytes: int


def verify(store: Store) -> Findings:
    """Check every plan, record, weight file, checkpoint and cached file of a results folder against its checksum.

    Records are checked for being those of their run besides; pictures, logs and pages are not checked, as no answer
    rests on them.

    Raises:
        UserError: if there is no such folder.
    """
    if not store.root.is_dir():
        raise UserError(f"--out {store.root}: no such folder")
    damaged = "it will be made anew"
    checks: list[Callable[[], object]] = [
        *(partial(store.find_plan, name) for name in store.list_plans()),
        *(partial(_check_run, store, run_id) for run_id in _list_run_ids(store)),
        *(partial(_check_sealed, path, "its run will begin anew") for path in _list_checkpoints(store)),
        *(partial(_check_sealed, path, damaged) for path in sorted(store.cache_dir.glob("*.safetensors"))),
        *(partial(_check_images, path, damaged) for path in sorted((store.cache_dir / "images").glob("[!.]*"))),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except (OSError, ValueError, UserError) as broken:
            problems.append(str(broken))
    return Findings(len(checks), tuple(problems))


def _list_run_ids(store: Store) -> list[str]:
    """Runs that are over, in their folders or archived."""
    own = {path.parent.name for path in (store.root / "runs").glob("*/record.json")}
    archived = {path.name.removesuffix(".json.gz") for path in (store.root / "records").glob("*.json.gz")}
    return sorted(own | archived)


def _list_checkpoints(store: Store) -> list[Path]:
    return sorted((store.root / "checkpoints").rglob("*.checkpoint"))


def _check_run(store: Store, run_id: str) -> None:
    record = store.load_record(run_id)
    if record is None:
        return
    for name, sha256 in record.weights_sha256.items():
        path = store.run_dir(run_id) / name
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(
                f"{path}: it does not match its record's checksum; delete the run's folder to run it again"
            )


def _check_sealed(path: Path, advice: str) -> None:
    try:
        read_sealed(path)
    except ValueError as broken:
        raise ValueError(f"{path}: {broken}; {advice}") from None


def _check_images(folder: Path, advice: str) -> None:
    from gan_ablate.training.decoded import read_decoded

    if read_decoded(folder) is None:
        raise ValueError(f"{folder}: it does not match its checksum; {advice}")


def find_waste(store: Store, *, with_runs: bool) -> list[Waste]:
    """List what nothing refers to, and no command is at work on.

    That are files that a write has left behind when it was killed, checkpoints of runs that are over or belong to no
    grid, and folders of runs that belong to no grid and have no result.

    Args:
        store: of a results folder.
        with_runs: finished runs that belong to no grid of the folder besides, those of ``train`` among them.

    Raises:
        UserError: if there is no such folder, or a plan in it cannot be read.
    """
    if not store.root.is_dir():
        raise UserError(f"--out {store.root}: no such folder")
    wanted = {run_id for name in store.list_plans() for run_id in store.load_plan(name).run_ids}
    found = []
    for path in sorted((store.root / "runs").glob("*")):
        has_record = (path / "record.json").exists()
        if not path.is_dir() or path.name in wanted or (has_record and not with_runs) or _is_held(store, path.name):
            continue
        reason = "a finished run of no grid" if has_record else "an unfinished run of no grid"
        found.append(Waste(path, reason, _size(path)))
    gone = {waste.path for waste in found}
    for path in _list_checkpoints(store):
        run_id = path.name.removesuffix(".checkpoint")
        is_over = store.is_done(run_id)
        if (is_over or run_id not in wanted) and not _is_held(store, run_id):
            reason = "a checkpoint of a finished run" if is_over else "a checkpoint of a run of no grid"
            found.append(Waste(path, reason, _size(path)))
    left = [path for path in _list_temporary(store) if not gone & set(path.parents)]
    return found + [Waste(path, "left behind by a write that did not end", _size(path)) for path in left]


def remove(waste: Waste) -> None:
    """Delete what was found, and the folder that this leaves empty."""
    if waste.path.is_dir():
        shutil.rmtree(waste.path)
    else:
        waste.path.unlink(missing_ok=True)
        if not any(waste.path.parent.iterdir()):
            waste.path.parent.rmdir()


def _is_held(store: Store, run_id: str) -> bool:
    """Whether a command is at work on a run."""
    path = store.lease_path(run_id)
    if not path.exists():
        return False
    with lease(path) as is_ours:
        return not is_ours


def _list_temporary(store: Store) -> Iterator[Path]:
    """Files as ``write_atomically`` names them while it writes, which never takes as long."""
    for path in sorted(store.root.rglob(".*.????????")):
        if path.is_file() and time.time() - path.stat().st_mtime > ABANDONED_SEC:
            yield path


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
