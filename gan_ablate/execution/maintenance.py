"""Maintenance of a results folder: archive, verify and clean."""

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

from gan_ablate.atomic_io import lease, read_sealed, write_atomically
from gan_ablate.errors import UserError
from gan_ablate.execution.schedule import grow_plan
from gan_ablate.execution.store import (
    FILTERS_FILE,
    INDEX_FILE,
    INTERPOLATION_FILE,
    RECORD_FILE,
    check_index,
    record_stamp,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.store import Store


def archive(store: Store, to: Store) -> int:
    """Copy what the report of a results folder is made of to another one, whose report then says the same.

    Runs that are there already are left as they are, and seeds can be added to an archive as to any results folder.
    Weights, logs and all but the last sample grid of each variant's first seed stay behind.

    Args:
        store: to be archived.
        to: where to; made if need be.

    Returns:
        How many records were added.

    Raises:
        UserError: if there is nothing to archive, or it cannot be written.
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
            # No date in it: the same record is the same file.
            packed = gzip.compress(record.model_dump_json().encode("utf-8"), mtime=0)
            write_atomically(to.archived_record(config.run_id), packed)
            num_added += 1
        for variant in plan.variants:
            run_id = variant.with_seed(plan.seeds[0]).run_id
            sample_grids = store.sample_grids(run_id)
            if sample_grids and not to.sample_grids(run_id):
                write_atomically(to.archived_sample_grid(run_id, sample_grids[-1].name), sample_grids[-1].read_bytes())
            for file in (INTERPOLATION_FILE, FILTERS_FILE):
                picture = store.picture(run_id, file)
                if picture is not None and to.picture(run_id, file) is None:
                    write_atomically(to.archived_sample_grid(run_id, file), picture.read_bytes())
        to.adopt_seeds(plan, store.known_seeds(plan))
        to.note_seeds(plan)
        to.save_plan(grow_plan(kept[name].model_copy(update={"folders": {}}), to))  # where data lay on this machine
    return num_added


def _larger(to: Store, plan: Plan) -> Plan:
    """Choose between a plan and the one of its name that was archived before: that which has all runs of the other.

    That answers were settled before the last seed makes a plan no smaller.
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


_UNFINISHED = re.compile(r"\..+\.(json|gz|safetensors|checkpoint|png|webp|csv|tex|md|html|pdf)\.[a-z0-9_]{8}")
"""A name as ``write_atomically`` makes it."""

ABANDONED_SEC = 3_600.0
"""Age from which an unfinished write is taken for one that was killed."""


@dataclass(frozen=True)
class Findings:
    """What ``verify`` has seen.

    Attributes:
        num_checked: plans, runs, checkpoints and cached files.
        problems: a line for each that is damaged: file, reason, what to do.
    """

    num_checked: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Waste:
    """Something that nothing refers to.

    Attributes:
        path: a file or a folder.
        reason: why it may go, in words.
        num_bytes: that it takes.
        run_id: of the run whose it is, or None.
    """

    path: Path
    reason: str
    num_bytes: int
    run_id: str | None = None


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
        *(partial(check_index, path) for path in store.cache_dir.glob(INDEX_FILE)),
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
    own = {path.parent.name for path in (store.root / "runs").glob(f"[!.]*/{RECORD_FILE}")}
    archived = {path.name.removesuffix(".json.gz") for path in (store.root / "records").glob("*.json.gz")}
    return sorted(own | archived)


def _list_checkpoints(store: Store) -> list[Path]:
    return sorted((store.root / "checkpoints").rglob("*.checkpoint"))


def _check_run(store: Store, run_id: str) -> None:
    record = store.load_record(run_id)
    if record is None:
        return
    folder = store.run_dir(run_id)
    if not (folder / RECORD_FILE).exists():  # archived, without weights
        return
    for name, sha256 in record.weights_sha256.items():
        path = folder / name
        if not path.exists():
            raise ValueError(f"{path}: it is missing; delete the run's folder to run it again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(
                f"{path}: it does not match its record's checksum; delete the run's folder to run it again"
            )


def _check_sealed(path: Path, advice: str) -> None:
    try:
        read_sealed(path)
    except FileNotFoundError:  # its run has ended meanwhile
        return
    except ValueError as broken:
        raise ValueError(f"{path}: {broken}; {advice}") from None


def _check_images(folder: Path, advice: str) -> None:
    from gan_ablate.training.data import read_decoded

    if read_decoded(folder) is None:
        raise ValueError(f"{folder}: it does not match its checksum; {advice}")


def find_waste(store: Store, *, with_runs: bool = False, with_checkpoints: bool = False) -> list[Waste]:
    """List what nothing refers to, and no command is at work on.

    That are files and folders that a write has left behind when it was killed, and what is left of runs that belong to
    no grid and have neither a result nor a checkpoint.

    Args:
        store: of a results folder.
        with_runs: all runs that belong to no grid of the folder besides, those of ``train`` among them.
        with_checkpoints: checkpoints of finished runs besides, from which more steps would go on.

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
    gone = {waste.path for waste in found}
    left = [path for path in _list_abandoned(store) if not gone & set(path.parents)]
    return found + [Waste(path, "left behind by a write that did not end", _size(path)) for path in left]


def remove(store: Store, waste: Waste) -> bool:
    """Delete what was found, unless a command has begun to work on it since.

    Returns:
        Whether it is gone.
    """
    if waste.run_id is None or not store.run_dir(waste.run_id).exists():  # whoever computes a run has its folder
        return _delete(waste.path)
    with lease(store.lease_path(waste.run_id)) as is_ours:
        # A run's folder is moved out of the way at once: whoever comes meanwhile begins in one of its own.
        return is_ours and _delete(waste.path)


def _delete(path: Path) -> bool:
    trash = path.with_name(f".trash.{uuid.uuid4().hex[:8]}")
    try:
        path.rename(trash)
    except FileNotFoundError:
        return True
    if trash.is_dir():
        shutil.rmtree(trash)
        return True
    trash.unlink()
    with suppress(OSError):  # it is not empty
        path.parent.rmdir()
    return True


def _is_held(store: Store, run_id: str) -> bool:
    """Whether a command is at work on a run."""
    path = store.lease_path(run_id)
    if not path.exists():
        return False
    with lease(path) as is_ours:
        return not is_ours


def _list_abandoned(store: Store) -> Iterator[Path]:
    """Files and folders named as ``write_atomically`` names them while it writes, in the places that the store owns."""
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
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
