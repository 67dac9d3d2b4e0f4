"""The store: plans and records of runs in a results folder, and an index of the runs."""

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
from gan_ablate.errors import UserError, option
from gan_ablate.execution.records import Record, RunSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from gan_ablate.design.external import AnyConfig

RECORD_FILE = "record.json"
"""In a run's folder: its record, the last file to be written."""

GENERATOR_FILE = "generator.safetensors"
"""In a run's folder: the generator's weights after the last step."""

AVERAGE_FILE = "generator-ema.safetensors"
"""In a run's folder: the moving average of the generator's weights, where the run keeps one."""

BEST_FILE = "generator-best.safetensors"
"""In a run's folder: the generator's weights with the lowest FID along training, where the run keeps them."""

INTERPOLATION_FILE, FILTERS_FILE = "interpolation.png", "filters.png"
"""Beside a run's sample grids: interpolations between latents, and the discriminator's filters, where configured."""

UNTIL_SETTLED = 0
"""Stands for the number of seeds of a plan that adds seeds until its answers are settled."""


@dataclass(frozen=True)
class ResultsFolder:
    """The files of a results folder: ``runs/``, ``plans/``, ``checkpoints/``, ``cache/``, and the report beside them.

    An archived folder has ``records/`` and ``sheets/`` instead of ``runs/``: records and sample grids alone.
    """

    root: Path

    @property
    def cache_dir(self) -> Path:
        """The folder of what is computed again when it is deleted, such as the real images' features."""
        return self.root / "cache"

    def run_dir(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self.root / "runs" / run_id

    def checkpoint_path(self, config: AnyConfig) -> Path:
        """Return the file of a run's checkpoint; runs that differ in the number of steps alone share a folder."""
        training = config.model_copy(update={"steps": 1}).run_id
        return self.root / "checkpoints" / training / f"{config.run_id}.checkpoint"

    def lease_path(self, run_id: str) -> Path:
        """Return the file that is locked while a process computes a run."""
        return self.run_dir(run_id) / ".lease"

    def archived_record(self, run_id: str) -> Path:
        """Return the file of a run's compressed record."""
        return self.root / "records" / f"{run_id}.json.gz"

    def archived_sample_grid(self, run_id: str, name: str) -> Path:
        """Return the file of a run's archived sample grid, or of a picture beside it."""
        return self.root / "sheets" / run_id / name

    def sample_grids(self, run_id: str) -> list[Path]:
        """List a run's sample grids, in the order of training."""
        places = (self.run_dir(run_id) / "samples", self.root / "sheets" / run_id)
        return next((found for place in places if (found := sorted(place.glob("step-*.png"), key=_step_of))), [])

    def picture(self, run_id: str, name: str) -> Path | None:
        """Return a picture beside a run's sample grids, or None where there is none of that name."""
        places = (self.run_dir(run_id) / "samples" / name, self.archived_sample_grid(run_id, name))
        return next((place for place in places if place.is_file()), None)

    def plan_path(self, grid: str) -> Path:
        """Return the file of a grid's plan."""
        return self.root / "plans" / f"{grid}.json"

    def seeds_path(self, plan: Plan) -> Path:
        """Return the file of the numbers of seeds that a plan's variants were run with."""
        run_ids = " ".join(variant.config.run_id for variant in plan.variants)
        return self.root / "plans" / "seeds" / f"{hashlib.sha256(run_ids.encode()).hexdigest()[:12]}.json"


class Store(ResultsFolder):
    """Reads and writes plans and records in a results folder."""

    def check_writable(self) -> None:
        """Try to write where the folder is or will be; leave no file there.

        Raises:
            UserError: if that is not possible.
        """
        place = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=place):
                return
        except OSError as refused:
            raise UserError(f"{option('out', self.root)}: cannot be written to ({refused.strerror})") from None

    def save_record(self, record: Record) -> None:
        """Write a run's ``record.json``."""
        content = seal_json(record.model_dump_json(indent=1) + "\n")
        write_atomically(self.run_dir(record.run_id) / RECORD_FILE, content)

    def save_failure(self, config: AnyConfig, message: str) -> Record:
        """Write the record of a run that failed with a message, and return it."""
        record = Record(run_id=config.run_id, status="failed", message=message, config=config)
        self.save_record(record)
        return record

    def load_record(self, run_id: str) -> Record | None:
        """Read a run's record; None where the run is not over.

        Raises:
            UserError: if the file is no record, or the record of another run: a copy, or one of a version in which a
                field had another default.
        """
        path, advice = self.run_dir(run_id) / RECORD_FILE, "delete its folder to run it again"
        record = _load(Record, path, advice)
        if record is None:
            path, advice = self.archived_record(run_id), "delete it to run it again"
            record = _load(Record, path, advice)
        # A record that was written before a revision has the run id of that time.
        if record is not None and not (record.run_id == run_id and run_id in record.config.known_run_ids):
            raise UserError(f"{path}: its configuration is that of run {record.config.run_id}; {advice}")
        return record

    def find_record(self, config: AnyConfig) -> Record | None:
        """Read the record of a run, under its run id or else under one that it had before a revision."""
        record = self.load_record(config.run_id)
        if record is None and config.revisions:
            earlier = (self.load_record(run_id) for run_id in sorted(config.known_run_ids - {config.run_id}))
            record = next((found for found in earlier if found is not None), None)
        return record

    def is_done(self, run_id: str) -> bool:
        """Whether a run has a result. A failed run has none: it is computed again."""
        record = self.load_record(run_id)
        return record is not None and record.status != "failed"

    def records(self, plan: Plan, *, with_earlier: bool = False) -> Iterator[tuple[dict[str, str], str, Record]]:
        """Yield the levels, the variant's label and the record of every run of a plan that is over.

        Args:
            plan: the plan.
            with_earlier: also yield records under the run ids that runs had before a revision, as reports do; they do
                not keep a run from being computed.
        """
        for variant, seed in plan.seeded_variants:
            run_id = variant.run_id(seed)
            record = self.find_record(variant.with_seed(seed)) if with_earlier else self.load_record(run_id)
            if record is not None:
                yield variant.levels, variant.label, record

    def save_plan(self, plan: Plan) -> None:
        """Write a grid's plan, from which a report finds the records."""
        try:
            write_atomically(self.plan_path(plan.name), seal_json(plan.model_dump_json(indent=1) + "\n"))
        except OSError as refused:
            raise UserError(f"{option('out', self.root)}: cannot be written to ({refused.strerror})") from None

    def note_seeds(self, plan: Plan) -> None:
        """Add a plan's number of seeds to the known ones: ``UNTIL_SETTLED`` where the answers decide it."""
        self.adopt_seeds(plan, {UNTIL_SETTLED if plan.until_settled else len(plan.seeds)})

    def adopt_seeds(self, plan: Plan, numbers: set[int]) -> None:
        """Add numbers of seeds to the known ones of a plan's variants."""
        known = self.known_seeds(plan)
        if not numbers <= known:
            write_atomically(self.seeds_path(plan), json.dumps(sorted(known | numbers)) + "\n")

    def known_seeds(self, plan: Plan) -> set[int]:
        """Return the numbers of seeds that plans of the same variants had, ``UNTIL_SETTLED`` among them."""
        path = self.seeds_path(plan)
        try:
            return set(json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, TypeError) as broken:
            raise UserError(f"{path}: cannot be read ({broken}); delete it") from None

    def load_plan(self, grid: str) -> Plan:
        """Read the plan of a grid's last run.

        Raises:
            UserError: if the grid was never run into this folder.
        """
        plan = self.find_plan(grid)
        if plan is None:
            known = self.list_plans()
            advice = choices(grid, known) if known else "nothing was run into this folder yet"
            raise UserError(f"{self.root}: no grid {grid}; {advice}")
        return plan

    def find_plan(self, grid: str) -> Plan | None:
        """Read the plan of a grid's last run; None where the grid was never run."""
        return _load(Plan, self.plan_path(grid), "delete it and run the grid again")

    def list_plans(self) -> list[str]:
        """List the names of the grids that were run into this folder.

        Raises:
            UserError: if there is a file in the folder's place.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"{option('out', self.root)}: not a folder")
        return sorted(path.stem for path in (self.root / "plans").glob("*.json"))


def _step_of(sample_grid: Path) -> tuple[int, str]:
    """Return a sample grid's step, which is not always the order of names: they have 6 digits or more."""
    digits = sample_grid.stem.removeprefix("step-")
    return (int(digits) if digits.isdecimal() else -1), sample_grid.name


def _load(model: type[ModelT], path: Path, advice: str) -> ModelT | None:
    """Read a JSON file; None where there is none. An error ends with the advice."""
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
"""In the cache: what ``summarise_runs`` read, so that it reads each record once."""

LAYOUT = 1
"""The version of the index's layout."""


def record_stamp(store: Store, run_id: str) -> tuple[int, int] | None:
    """Return a record file's time of change in nanoseconds and its size in bytes; None where the run is not over."""
    # Without pathlib, which is slow for a hundred thousand runs.
    for path in (f"{store.root}/runs/{run_id}/{RECORD_FILE}", f"{store.root}/records/{run_id}.json.gz"):
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116
            return status.st_mtime_ns, status.st_size
    return None


def summarise_runs(store: Store, run_ids: Iterable[str]) -> dict[str, RunSummary]:
    """Return the summaries of those runs that are over, by run id.

    Records that the index does not have, or that have changed, are read and added to it.

    Raises:
        UserError: if a record cannot be read.
    """
    path = store.cache_dir / INDEX_FILE
    known, found, is_new = _read_index(path), dict[str, RunSummary](), False
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
        found[run_id] = RunSummary(entry[2], entry[3])
    if is_new:
        with suppress(OSError):  # the next call reads the records again
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
