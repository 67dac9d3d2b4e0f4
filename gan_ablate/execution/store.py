"""The store: run folders and plans on disk, written atomically, read back as records, and summarised in an index."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gan_ablate.atomic_io import check_seal, seal_json, write_atomically
from gan_ablate.design.plan import Plan
from gan_ablate.design.validation import ModelT, choices, validate
from gan_ablate.errors import UserError
from gan_ablate.execution.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.records import Status


RECORD_FILE = "record.json"
"""In a run's folder, written last."""

GENERATOR_FILE = "generator.safetensors"
"""In a run's folder: G's last weights."""

AVERAGE_FILE = "generator-ema.safetensors"
"""Beside them: their moving average, where the run keeps one."""

INTERPOLATION_FILE, FILTERS_FILE = "interpolation.png", "filters.png"
"""Beside a run's sample grids: ways between latents, and what D's filters see, where that was asked for."""

UNTIL_SETTLED = 0
"""Stands for a number of seeds that answers say."""


@dataclass(frozen=True)
class Store:
    """A results folder: ``runs/``, ``plans/`` and ``cache/``, which it owns, and the report's files beside them.

    One that was archived has ``records/`` and ``sheets/`` besides, of runs whose folders stayed behind.
    """

    root: Path

    def run_dir(self, run_id: str) -> Path:
        """Return the folder of one run."""
        return self.root / "runs" / run_id

    def checkpoint_path(self, config: AnyConfig) -> Path:
        """Return the file of one run's checkpoint, beside those of the same run of other lengths."""
        training = config.model_copy(update={"steps": 1}).run_id
        return self.root / "checkpoints" / training / f"{config.run_id}.checkpoint"

    def lease_path(self, run_id: str) -> Path:
        """Return the file that the process which computes a run holds locked."""
        return self.run_dir(run_id) / ".lease"

    def archived_record(self, run_id: str) -> Path:
        """Return the file of one run's compressed record."""
        return self.root / "records" / f"{run_id}.json.gz"

    def archived_sample_grid(self, run_id: str, name: str) -> Path:
        """Return the file of one run's sample grid that was kept."""
        return self.root / "sheets" / run_id / name

    def sample_grids(self, run_id: str) -> list[Path]:
        """List a run's sample grids, in the order of training."""
        places = (self.run_dir(run_id) / "samples", self.root / "sheets" / run_id)
        return next((found for place in places if (found := sorted(place.glob("step-*.png"), key=_step_of))), [])

    def picture(self, run_id: str, name: str) -> Path | None:
        """Return a picture beside a run's sample grids, or None where it has none of that name."""
        places = (self.run_dir(run_id) / "samples" / name, self.archived_sample_grid(run_id, name))
        return next((place for place in places if place.is_file()), None)

    @property
    def cache_dir(self) -> Path:
        """Folder of what may be deleted at any time, because it is computed anew: the real images' features."""
        return self.root / "cache"

    def check_writable(self) -> None:
        """Try to write where the folder is or will be, and leave nothing behind.

        Raises:
            UserError: if that is not possible.
        """
        place = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=place):
                return
        except OSError as refused:
            raise UserError(f"--out {self.root}: cannot be written to ({refused.strerror})") from None

    def save_record(self, record: Record) -> None:
        """Write ``record.json``, last of a run's files."""
        content = seal_json(record.model_dump_json(indent=1) + "\n")
        write_atomically(self.run_dir(record.run_id) / RECORD_FILE, content)

    def save_failure(self, config: AnyConfig, message: str) -> Record:
        """Record that a run failed, and why."""
        record = Record(run_id=config.run_id, status="failed", message=message, config=config)
        self.save_record(record)
        return record

    def load_record(self, run_id: str) -> Record | None:
        """Read a run's record, or None where the run is not over.

        A record under the name that its run had before a revision is read; no plan names it.

        Raises:
            UserError: if the file is there but is not a record, or is another run's: copied here, or of a version in
                which a field had another default.
        """
        path, advice = self.run_dir(run_id) / RECORD_FILE, "delete its folder to run it again"
        record = _load(Record, path, advice)
        if record is None:
            path, advice = self.archived_record(run_id), "delete it to run it again"
            record = _load(Record, path, advice)
        if record is not None and not (record.run_id == run_id and run_id in record.config.known_run_ids):
            raise UserError(f"{path}: its configuration is that of run {record.config.run_id}; {advice}")
        return record

    def find_record(self, config: AnyConfig) -> Record | None:
        """Read a run's record under its name, or else under one that it had before a revision."""
        record = self.load_record(config.run_id)
        if record is not None or not config.revisions:
            return record
        earlier = (self.load_record(run_id) for run_id in sorted(config.known_run_ids - {config.run_id}))
        return next((found for found in earlier if found is not None), None)

    def is_done(self, run_id: str) -> bool:
        """Whether a run has a result. A failed one has none: it will be tried again."""
        record = self.load_record(run_id)
        return record is not None and record.status != "failed"

    def save_plan(self, plan: Plan) -> None:
        """Remember a grid's plan, so that its report can be made from the records alone."""
        try:
            write_atomically(self._plan_path(plan.name), seal_json(plan.model_dump_json(indent=1) + "\n"))
        except OSError as refused:
            raise UserError(f"--out {self.root}: cannot be written to ({refused.strerror})") from None

    def note_seeds(self, plan: Plan) -> None:
        """Remember with how many seeds a plan's variants are run, and whether the answers say how many."""
        self.adopt_seeds(plan, {UNTIL_SETTLED if plan.until_settled else len(plan.seeds)})

    def adopt_seeds(self, plan: Plan, numbers: set[int]) -> None:
        """Remember numbers of seeds with which a plan's variants were run, here or elsewhere."""
        known = self.known_seeds(plan)
        if not numbers <= known:
            write_atomically(self._seeds_path(plan), json.dumps(sorted(known | numbers)) + "\n")

    def known_seeds(self, plan: Plan) -> set[int]:
        """With how many seeds the same variants were run, ``UNTIL_SETTLED`` where the answers said how many."""
        path = self._seeds_path(plan)
        try:
            return set(json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, TypeError) as broken:
            raise UserError(f"{path}: cannot be read ({broken}); delete it") from None

    def _seeds_path(self, plan: Plan) -> Path:
        run_ids = " ".join(variant.config.run_id for variant in plan.variants)
        return self.root / "plans" / "seeds" / f"{hashlib.sha256(run_ids.encode()).hexdigest()[:12]}.json"

    def load_plan(self, grid: str) -> Plan:
        """Read the plan that a grid was last run with.

        Raises:
            UserError: if that grid was never run into this folder.
        """
        plan = self.find_plan(grid)
        if plan is None:
            known = self.list_plans()
            advice = choices(grid, known) if known else "nothing was run into this folder yet"
            raise UserError(f"{self.root}: no grid {grid}; {advice}")
        return plan

    def find_plan(self, grid: str) -> Plan | None:
        """Read the plan that a grid was last run with, or None where it never was."""
        return _load(Plan, self._plan_path(grid), "delete it and run the grid again")

    def list_plans(self) -> list[str]:
        """Names of the grids that were run into this folder.

        Raises:
            UserError: if it is no folder.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"--out {self.root}: not a folder")
        return sorted(path.stem for path in (self.root / "plans").glob("*.json"))

    def records(self, plan: Plan, *, with_earlier: bool = False) -> Iterator[tuple[dict[str, str], str, Record]]:
        """Yield the levels, the variant's label and the record of every run of a plan that is over.

        Args:
            plan: whose runs.
            with_earlier: also read a record that its run left under an earlier name, before a revision, where there is
                none under its present one. A report shows it; nothing that computes takes it for the run.
        """
        for variant, seed in plan.seeded_variants:
            config = variant.with_seed(seed) if with_earlier else None
            record = self.load_record(variant.run_id(seed)) if config is None else self.find_record(config)
            if record is not None:
                yield variant.levels, variant.label, record

    def _plan_path(self, grid: str) -> Path:
        return self.root / "plans" / f"{grid}.json"


def _step_of(sample_grid: Path) -> tuple[int, str]:
    """Sort sample_grids by their steps: from a million on they have another digit."""
    digits = sample_grid.stem.removeprefix("step-")
    return (int(digits) if digits.isdecimal() else -1), sample_grid.name


def _load(model: type[ModelT], path: Path, advice: str) -> ModelT | None:
    """Read a file of ours, or None where there is none; say what to do about one that is not as we write it."""
    try:
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        check_seal(text)
        data = json.loads(text.decode("utf-8"))
        if isinstance(data, dict):
            data.pop("sha256", None)
        return validate(model, data, str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as broken:
        raise UserError(f"{path}: cannot be read ({broken}); {advice}") from None
    except UserError as other_layout:
        raise UserError(f"{other_layout}; {advice}") from None


INDEX_FILE = "index.json"
"""In the cache."""

LAYOUT = 1
"""Raised when entries are written otherwise than before."""


@dataclass(frozen=True)
class Summary:
    """What an index knows of a run that is over.

    Attributes:
        status: how it ended.
        step_ms: median milliseconds of a step, or None where none was timed.
    """

    status: Status
    step_ms: float | None


def record_stamp(store: Store, run_id: str) -> tuple[int, int] | None:
    """Return the nanoseconds and the bytes of a run's record file, or None where the run is not over."""
    # Not by pathlib: there may be a hundred thousand of them.
    for path in (f"{store.root}/runs/{run_id}/{RECORD_FILE}", f"{store.root}/records/{run_id}.json.gz"):
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116
            return status.st_mtime_ns, status.st_size
    return None


def summarise_runs(store: Store, run_ids: Iterable[str]) -> dict[str, Summary]:
    """InterimAnalysis up runs, and read the records of those that the index does not know.

    Args:
        store: where they lie.
        run_ids: whatever runs; those that are not over are left out.

    Raises:
        UserError: if a record has to be read and cannot be.
    """
    path = store.cache_dir / INDEX_FILE
    known, found = _read_index(path), dict[str, Summary]()
    is_new = False
    for run_id in run_ids:
        stamp = record_stamp(store, run_id)
        if stamp is None:
            continue
        entry = known.get(run_id)
        if entry is None or entry[:2] != list(stamp):
            record = store.load_record(run_id)
            if record is None:
                continue
            entry = [*stamp, record.status, None if record.throughput is None else record.throughput.step_ms_median]
            known[run_id], is_new = entry, True
        found[run_id] = Summary(entry[2], entry[3])
    if is_new:
        with suppress(OSError):  # a cache that cannot be written is read from the records again
            write_atomically(path, seal_json(json.dumps({"layout": LAYOUT, "runs": known})))
    return found


def _read_index(path: Path) -> dict[str, list[Any]]:
    try:
        content = path.read_bytes()
        check_seal(content, is_due=True)
        index = json.loads(content)
    except (OSError, ValueError):
        return {}
    return dict(index["runs"]) if index.get("layout") == LAYOUT else {}


def check_index(path: Path) -> None:
    """Check an index against its checksum.

    Raises:
        ValueError: if it is not what was written.
    """
    try:
        check_seal(path.read_bytes(), is_due=True)
    except ValueError as broken:
        raise ValueError(f"{path}: {broken}; it will be made anew") from None
