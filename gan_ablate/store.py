"""Run folders and plans on disk: written atomically, read back as records, or as one tidy DataFrame."""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gan_ablate.config import RunConfig
from gan_ablate.errors import UserError
from gan_ablate.grid import RESULT_COLUMNS
from gan_ablate.outcomes import first_reached, oscillation, summarise_history
from gan_ablate.planning import Plan
from gan_ablate.validation import Model, ModelT, choices, validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

Status = Literal["completed", "diverged", "failed"]


class ScoreRecord(Model):
    """The scores of one set of images; see ``gan_ablate.score.Scores``."""

    num_samples: int
    fid: float
    fid_sampling_error: float | None
    kid: float
    precision: float
    recall: float
    density: float
    coverage: float
    classifier_score: float | None
    class_counts: list[int] | None
    classes_covered: int | None
    class_divergence: float | None
    nearest_ratio: float | None
    seconds: float


class ThroughputRecord(Model):
    """What a training step cost; see ``gan_ablate.throughput.Throughput``."""

    step_ms_median: float
    step_ms_p10: float
    step_ms_p90: float
    steps_per_sec: float
    images_per_sec: float
    num_timed_steps: int
    peak_memory_bytes: int


class ScoringRecord(Model):
    """All scores of a run and the protocol they were made with.

    ``final`` judges the generator with batch norm's running averages, ``fid_batch_stats`` with each batch's own
    statistics, and ``floor`` real training images. ``curve_steps`` and ``curve_fid`` are FID along training, on fewer
    samples, so they compare with each other but not with the final score. ``resolution`` is what the images had when
    they were drawn. ``sampling_sec`` is what drawing the images of ``final`` took, ``curve_sec`` all that FID along
    training took.
    """

    extractor: str
    extractor_sha256: str
    num_reference: int
    resolution: int
    final: ScoreRecord | None
    fid_batch_stats: float | None
    floor: ScoreRecord
    sampling_sec: float
    curve_sec: float
    curve_samples: int
    curve_steps: list[int]
    curve_train_sec: list[float]
    curve_fid: list[float]


class Record(Model):
    """Everything that one run leaves behind, ``runs/<run_id>/record.json``: its presence means that the run is over.

    Attributes:
        status: ``completed``, ``diverged`` (a result: a loss, weight or pixel stopped being a number) or ``failed``.
        message: why, where it is not completed.
        diverged_at: the step at which divergence was found.
        history: column name → values, a row every few steps; see ``gan_ablate.train.Measurement``.
        throughput: what a step cost, or None where none was taken.
        num_parameters_g: trainable parameters of the generator.
        num_parameters_d: trainable parameters of the discriminator.
        train_sec: seconds in training steps, warm-up included.
        total_sec: seconds of the whole run, scoring included.
        unscored_reason: why there are no scores, where there are none.
    """

    run_id: str
    status: Status
    message: str = ""
    diverged_at: int | None = None
    config: RunConfig
    dataset_sha256: str = ""
    dataset_origin: str = ""
    history: dict[str, list[float]] = {}
    scoring: ScoringRecord | None = None
    unscored_reason: str = ""
    throughput: ThroughputRecord | None = None
    num_parameters_g: int = 0
    num_parameters_d: int = 0
    train_sec: float = 0.0
    total_sec: float = 0.0
    device: str = "cpu"
    environment: dict[str, str] = {}


@dataclass(frozen=True)
class Store:
    """A results folder: ``runs/``, ``plans/`` and ``cache/``, which it owns, and the report's files beside them."""

    root: Path

    def run_dir(self, run_id: str) -> Path:
        """Return the folder of one run."""
        return self.root / "runs" / run_id

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
        write_atomically(self.run_dir(record.run_id) / "record.json", record.model_dump_json(indent=1) + "\n")

    def load_record(self, run_id: str) -> Record | None:
        """Read a run's record, or None where the run is not over.

        Raises:
            UserError: if the file is there but is not a record.
        """
        return _load(Record, self.run_dir(run_id) / "record.json", "delete its folder to run it again")

    def is_done(self, run_id: str) -> bool:
        """Whether a run has a result. A failed one has none: it will be tried again."""
        record = self.load_record(run_id)
        return record is not None and record.status != "failed"

    def save_plan(self, plan: Plan) -> None:
        """Remember a grid's plan, so that its report can be made from the records alone."""
        try:
            write_atomically(self._plan_path(plan.grid.name), plan.model_dump_json(indent=1) + "\n")
        except OSError as refused:
            raise UserError(f"--out {self.root}: cannot be written to ({refused.strerror})") from None

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

    def records(self, plan: Plan) -> Iterator[tuple[dict[str, str], str, Record]]:
        """Yield the levels, the cell's label and the record of every run of a plan that is over."""
        for cell, config in plan.runs:
            record = self.load_record(config.run_id)
            if record is not None:
                yield cell.levels, cell.label, record

    def _plan_path(self, grid: str) -> Path:
        return self.root / "plans" / f"{grid}.json"


def _load(model: type[ModelT], path: Path, advice: str) -> ModelT | None:
    """Read a file of ours, or None where there is none; say what to do about one that is not as we write it."""
    try:
        return validate(model, json.loads(path.read_text("utf-8")), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as broken:
        raise UserError(f"{path}: cannot be read ({broken}); {advice}") from None
    except UserError as other_layout:
        raise UserError(f"{other_layout}; {advice}") from None


def load_results(out: str | Path, grid: str) -> pd.DataFrame:
    """Read the runs of a grid as a tidy table.

    Args:
        out: the results folder.
        grid: the grid's name.

    Returns:
        One row per run that is over: a column per factor, ``cell``, ``seed``, ``status``, the scores, the costs.
        Scores are missing where a run diverged, failed or was not scored.

    Raises:
        UserError: if that grid was never run into this folder.
    """
    import pandas as pd  # a second that plan, list and status need not pay

    store = Store(Path(out))
    plan = store.load_plan(grid)
    records = list(store.records(plan))
    target = convergence_target(plan, [(label, record) for _, label, record in records])
    rows = [_row(levels, label, record, target) for levels, label, record in records]
    return pd.DataFrame(rows, columns=[*plan.grid.factors, *RESULT_COLUMNS])


def convergence_target(plan: Plan, records: Iterable[tuple[str, Record]]) -> float | None:
    """Find the FID whose reaching is timed: the baseline's geometric mean half-way through training, if it has one.

    Args:
        plan: whose baseline.
        records: of the plan's runs, with their cells' labels.
    """
    middles = []
    for label, record in records:
        if label == plan.baseline.label and record.scoring is not None and record.scoring.curve_steps:
            scoring = record.scoring
            middle = min(scoring.curve_steps, key=lambda step: (abs(2 * step - record.config.steps), step))
            middles.append(math.log(scoring.curve_fid[scoring.curve_steps.index(middle)]))
    return math.exp(sum(middles) / len(middles)) if middles else None


def _row(levels: dict[str, str], label: str, record: Record, target: float | None) -> dict[str, Any]:
    """Flatten a record; what it does not have is None."""
    scoring, throughput = record.scoring, record.throughput
    final = scoring.final if scoring else None
    row: dict[str, Any] = {
        **levels,
        "cell": label,
        "seed": record.config.seed,
        "run_id": record.run_id,
        "status": record.status,
        "steps": record.config.steps,
        "train_sec": record.train_sec,
        "total_sec": record.total_sec,
        "diverged_at": record.diverged_at,
        **summarise_history(record.history),
    }
    if final is not None:
        row |= final.model_dump(exclude={"class_counts", "seconds"})
        if final.classes_covered is not None and final.class_counts is not None:
            row["collapsed"] = final.classes_covered < len(final.class_counts) / 2
    if scoring is not None:
        row |= {
            "fid_batch_stats": scoring.fid_batch_stats,
            "fid_floor": scoring.floor.fid,
            "kid_floor": scoring.floor.kid,
            "extractor": scoring.extractor_sha256[:12],
            "scoring_sec": final.seconds if final else None,
            "oscillation": oscillation(scoring.curve_steps, scoring.curve_fid),
            "best_curve_fid": min(scoring.curve_fid, default=None),
        }
        if target is not None:
            row["steps_to_fid"] = first_reached(target, scoring.curve_steps, scoring.curve_fid)
            row["sec_to_fid"] = first_reached(target, scoring.curve_train_sec, scoring.curve_fid)
    if throughput is not None:
        row |= throughput.model_dump(exclude={"num_timed_steps", "peak_memory_bytes"})
        row["peak_memory_mib"] = throughput.peak_memory_bytes / 2**20
    return row


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing: to a temporary neighbour, synced, then renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
