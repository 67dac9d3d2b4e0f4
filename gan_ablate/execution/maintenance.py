"""Maintenance of a results folder: archive it, verify it, and delete what nothing refers to."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gan_ablate.atomic_io import check_seal, lease, read_sealed, write_atomically
from gan_ablate.errors import UserError
from gan_ablate.execution.schedule import grow_plan
from gan_ablate.execution.store import (
    FILTERS_FILE,
    INDEX_FILE,
    INTERPOLATION_FILE,
    RECORD_FILE,
    record_stamp,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.store import Store


def archive(store: Store, to: Store) -> int:
    """Copy plans, records and pictures to another results folder, so that its report says the same.

    Records that are there already stay. An archive is a results folder: seeds can be added to it. Weights and logs are
    not copied; of sample grids only the last one of each variant's first seed is.

    Args:
        store: the results folder to copy from.
        to: the results folder to copy to, which need not exist.

    Returns:
        The number of records that were added.

    Raises:
        UserError: if there is nothing to archive, or the folder cannot be written to.
    """
    names = store.list_plans()
    if not names:
        raise UserError(f"--out {store.root}: no grid was run into this folder yet; nothing to archive")
    if to.root.resolve() == store.root.resolve():
        raise UserError(f"{to.root}: valid: another folder than the one to be archived")
    to.check_writable()
    plans = {name: store.load_plan(name) for name in names}
    kept = {name: _larger(to, plan) for name, plan in plans.items()}
    num_added = 0
    for name, plan in plans.items():
        for _, config in plan.runs:
            record = store.load_record(config.run_id)
            if record is None or record.status == "failed" or to.is_done(config.run_id):
                continue
            # Without a date, so that the same record gives the same file.
            packed = gzip.compress(record.model_dump_json().encode("utf-8"), mtime=0)
            write_atomically(to.archived_record(config.run_id), packed)
            num_added += 1
        for variant in plan.variants:
            _archive_pictures(store, to, variant.with_seed(plan.seeds[0]).run_id)
        to.adopt_seeds(plan, store.known_seeds(plan))
        to.note_seeds(plan)
        to.save_plan(grow_plan(kept[name].model_copy(update={"folders": {}}), to))  # paths of this machine
    return num_added


def _archive_pictures(store: Store, to: Store, run_id: str) -> None:
    """Copy a run's last sample grid and the pictures beside it, where the archive has none."""
    pictures = [] if to.sample_grids(run_id) else store.sample_grids(run_id)[-1:]
    for name in (INTERPOLATION_FILE, FILTERS_FILE):
        picture = store.picture(run_id, name)
        if picture is not None and to.picture(run_id, name) is None:
            pictures.append(picture)
    for picture in pictures:
        write_atomically(to.archived_sample_grid(run_id, picture.name), picture.read_bytes())


def _larger(to: Store, plan: Plan) -> Plan:
    """Return a plan or the archived one of the same name, whichever has all runs of the other.

    Runs that were not needed because answers were settled early count as runs of a plan.

    Raises:
        UserError: if each has runs that the other has not.
    """
    previous = to.find_plan(plan.name)
    if previous is None:
        return plan
    mine, theirs = (
        {variant.run_id(seed) for variant in one.variants for seed in one.seeds} for one in (plan, previous)
    )
    if mine >= theirs:
        return plan
    if mine < theirs:
        return previous
    raise UserError(f"{to.root}: {plan.name} was archived there with other runs; valid: another folder")


_UNFINISHED = re.compile(r"\..+\.(json|gz|safetensors|scores|checkpoint|png|webp|csv|tex|md|html|pdf)\.[a-z0-9_]{8}")
"""Names that ``write_atomically`` gives files while it writes them."""

ABANDONED_SEC = 3_600.0
"""Age from which an unfinished file counts as abandoned."""


@dataclass(frozen=True)
class Verification:
    """The result of ``verify``.

    Attributes:
        num_checked: the number of plans, runs, checkpoints and cached files.
        problems: a line for each damaged file: the file, the reason, and what to do.
    """

    num_checked: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Waste:
    """A file or folder that nothing refers to.

    Attributes:
        path: the file or folder.
        reason: why it may be deleted, in words.
        num_bytes: its size.
        run_id: the run that it belongs to; None if it belongs to no run.
    """

    path: Path
    reason: str
    num_bytes: int
    run_id: str | None = None


def verify(store: Store) -> Verification:
    """Check every plan, record, weight file, checkpoint and cached file of a results folder against its checksum.

    A record must also be that of its run. Pictures, logs and pages have no checksum.

    Raises:
        UserError: if there is no such folder.
    """
    if not store.root.is_dir():
        raise UserError(f"--out {store.root}: no such folder")
    damaged = "it will be made anew"
    sealed = sorted([*store.cache_dir.glob("*.safetensors"), *store.cache_dir.glob("*.scores")])
    checks: list[Callable[[], object]] = [
        *(partial(store.find_plan, name) for name in store.list_plans()),
        *(partial(_check_run, store, run_id) for run_id in _list_run_ids(store)),
        *(partial(_check_file, read_sealed, path, "its run will begin anew") for path in _list_checkpoints(store)),
        *(partial(_check_file, read_sealed, path, damaged) for path in sealed),
        *(partial(_check_file, _read_index, path, damaged) for path in store.cache_dir.glob(INDEX_FILE)),
        *(partial(_check_images, path, damaged) for path in sorted((store.cache_dir / "images").glob("[!.]*"))),
    ]
    problems = []
    for check in checks:
        try:
            check()
        except (OSError, ValueError, UserError) as broken:
            problems.append(str(broken))
    return Verification(len(checks), tuple(problems))


def _list_run_ids(store: Store) -> list[str]:
    """List the runs that are over, in their folders or archived."""
    in_folders = {path.parent.name for path in (store.root / "runs").glob(f"[!.]*/{RECORD_FILE}")}
    archived = {path.name.removesuffix(".json.gz") for path in (store.root / "records").glob("*.json.gz")}
    return sorted(in_folders | archived)


def _list_checkpoints(store: Store) -> list[Path]:
    return sorted((store.root / "checkpoints").rglob("*.checkpoint"))


def _check_run(store: Store, run_id: str) -> None:
    record, folder = store.load_record(run_id), store.run_dir(run_id)
    if record is None or not (folder / RECORD_FILE).exists():  # archived, without weights
        return
    advice = "delete the run's folder to run it again"
    for name, sha256 in record.weights_sha256.items():
        path = folder / name
        if not path.exists():
            raise ValueError(f"{path}: it is missing; {advice}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(f"{path}: it does not match its record's checksum; {advice}")


def _check_file(read: Callable[[Path], object], path: Path, advice: str) -> None:
    try:
        read(path)
    except FileNotFoundError:  # its run has just ended
        return
    except ValueError as broken:
        raise ValueError(f"{path}: {broken}; {advice}") from None


def _read_index(path: Path) -> None:
    check_seal(path.read_bytes(), is_due=True)


def _check_images(folder: Path, advice: str) -> None:
    from gan_ablate.training.data import read_decoded

    if read_decoded(folder) is None:
        raise ValueError(f"{folder}: it does not match its checksum; {advice}")


def find_waste(store: Store, *, with_runs: bool = False, with_checkpoints: bool = False) -> list[Waste]:
    """List files and folders that nothing refers to and that no command works on.

    These are unfinished files of killed writes, and folders of runs that belong to no grid and have neither a record
    nor a checkpoint.

    Args:
        store: the results folder.
        with_runs: also list all other runs that belong to no grid, those of ``train`` among them.
        with_checkpoints: also list checkpoints of finished runs, from which runs of more steps would go on.

    Raises:
        UserError: if there is no such folder, or a plan in it cannot be read.
    """
    if not store.root.is_dir():
        raise UserError(f"--out {store.root}: no such folder")
    wanted = {run_id for name in store.list_plans() for run_id in store.load_plan(name).run_ids}
    checkpoints = {path.name.removesuffix(".checkpoint"): path for path in _list_checkpoints(store)}
    found = []
    for path in sorted((store.root / "runs").glob("[!.]*")):
        if not path.is_dir() or path.name in wanted or _is_held(store, path.name):
            continue
        has_record = (path / RECORD_FILE).exists()
        if with_runs or not (has_record or path.name in checkpoints):
            reason = "a finished run of no grid" if has_record else "an unfinished run of no grid"
            found.append(Waste(path, reason, _size(path), path.name))
    for run_id, path in sorted(checkpoints.items()):
        is_over = record_stamp(store, run_id) is not None
        is_waste = with_checkpoints if is_over else with_runs and run_id not in wanted
        if is_waste and not _is_held(store, run_id):
            reason = "a checkpoint of a finished run" if is_over else "a checkpoint of a run of no grid"
            found.append(Waste(path, reason, _size(path), run_id))
    listed = {waste.path for waste in found}
    abandoned = [path for path in _list_abandoned(store) if not listed & set(path.parents)]
    return found + [Waste(path, "left behind by a write that did not end", _size(path)) for path in abandoned]


def remove(store: Store, waste: Waste) -> bool:
    """Delete a file or folder, unless a command has begun to work on it.

    Returns:
        Whether it was deleted.
    """
    if waste.run_id is None or not store.run_dir(waste.run_id).exists():  # a run that is computed has a folder
        return _delete(waste.path)
    with lease(store.lease_path(waste.run_id)) as is_ours:
        return is_ours and _delete(waste.path)


def _delete(path: Path) -> bool:
    """Rename and then delete a file or folder, so that a process that begins meanwhile makes a new one."""
    trash = path.with_name(f".trash.{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):
        path.rename(trash)
        if trash.is_dir():
            shutil.rmtree(trash)
        else:
            trash.unlink()
            with suppress(OSError):  # the folder is not empty
                path.parent.rmdir()
    return True


def _is_held(store: Store, run_id: str) -> bool:
    """Whether a command works on a run."""
    path = store.lease_path(run_id)
    if not path.exists():
        return False
    with lease(path) as is_ours:
        return not is_ours


def _list_abandoned(store: Store) -> Iterator[Path]:
    """Yield old unfinished files and folders, in the folders that belong to a store."""
    names = ("runs", "plans", "checkpoints", "cache", "records", "sheets", *store.list_plans())
    owned = [store.root / name for name in names]
    inside = (path for place in owned for path in sorted(place.rglob(".*")))
    for path in (*sorted(store.root.glob(".*")), *inside):
        is_ours = _UNFINISHED.fullmatch(path.name) or (path.parent in owned[:1] and path.name.startswith(".trash."))
        is_ours = is_ours or (path.parent.name == "images" and path.is_dir())
        with suppress(FileNotFoundError):
            if is_ours and time.time() - path.stat().st_mtime > ABANDONED_SEC:
                yield path


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
