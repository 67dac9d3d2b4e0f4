"""Trackers: write finished runs to W&B and MLflow, one tracker run each, beside the records.

Nothing that a tracker does changes a run or stops one: what fails is a line at the end.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, Protocol, assert_never

from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.records import Record
    from gan_ablate.execution.store import Store

TrackerName = Literal["wandb", "mlflow"]

PROJECT = "gan-ablate"
"""The project of W&B and the experiment of MLflow, unless their environment variables name another."""

FOLDER = "trackers"
"""In the results folder: tracker, then a file for each run that it has, which says how the run ended, and where."""

RUN_ID_TAG = "gan_ablate.run_id"

MAX_FAILURES = 3
"""Writes that fail one after the other, after which a command leaves the tracker alone."""

MAX_REASON = 300
"""Characters of a tracker's error message that are shown."""

METRICS_PER_BATCH, PARAMS_PER_BATCH = 1_000, 100
"""What MLflow takes in one call."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a finished run.

    Attributes:
        run_id: of the record; it names the tracker's run, too, so that a run that is computed again stays one.
        name: the variant and the seed, in words.
        group: the grids that have it.
        columns: what ``judge`` needs: a level for every factor, the seed, data set, grid and variant.
        settings: the whole configuration, nested.
        curves: name → (step, value): losses and the like, and FID along training.
        scores: final scores, by the names of their columns.
        status: ``completed``, ``diverged`` or ``failed``.
        message: why it is not completed.
    """

    run_id: str
    name: str
    group: str
    columns: dict[str, str | int]
    settings: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]]
    scores: dict[str, float]
    status: str
    message: str

    @classmethod
    def of(cls, record: Record, places: Sequence[tuple[Plan, str, Mapping[str, str]]]) -> TrackedRun:
        """Collect what a tracker is told.

        Args:
            record: of the run.
            places: the plans that have the run, each with the variant's label and levels; at least one.
        """
        grids = dict.fromkeys(plan.name for plan, _, _ in places)
        label = places[0][1]
        seed = record.config.seed
        columns: dict[str, str | int] = {"dataset": record.config.dataset, "grid": "+".join(grids), "variant": label}
        for _, _, levels in reversed(places):
            columns |= levels
        scoring = record.scoring
        steps = [int(step) for step in record.history.get("step", [])]
        curves = {
            f"training/{name}": list(zip(steps, values, strict=True))
            for name, values in record.history.items()
            if name != "step"
        }
        scores: dict[str, float] = {}
        if scoring is not None:
            curves["training/fid"] = list(zip(scoring.curve_steps, scoring.curve_fid, strict=True))
            if scoring.final is not None:
                scores = {name: float(score) for name, score in scoring.final.as_row().items() if score is not None}
        return cls(
            run_id=record.run_id,
            name=f"{label}, seed {seed}",
            group="+".join(grids),
            columns={**columns, "seed": seed},
            settings=record.config.model_dump(mode="json"),
            curves={name: points for name, points in curves.items() if points},
            scores=scores,
            status=record.status,
            message=record.message,
        )

    @property
    def last_step(self) -> int:
        """The last step of all curves; 0 without any."""
        return max((step for points in self.curves.values() for step, _ in points), default=0)


class Tracker(Protocol):
    """A tracker: where runs are written to."""

    name: TrackerName
    title: str

    @property
    def place(self) -> str:
        """Where the runs are, in words."""

    def write(self, run: TrackedRun) -> None:
        """Write a run, or write the run of the same id anew."""


class WandbTracker:
    """Weights & Biases. Its environment variables hold: ``WANDB_PROJECT``, ``WANDB_MODE=offline`` and others.

    Args:
        root: the results folder; files of runs go to its folder ``wandb``.

    Raises:
        UserError: if the package is missing, or nobody is logged in.
    """

    name: TrackerName = "wandb"
    title = "W&B"

    def __init__(self, root: Path) -> None:
        try:
            from wandb import Settings, login
        except ImportError:  # a folder wandb where the command runs is none of it
            raise UserError("--wandb: needs the package wandb; valid: pip install 'gan-ablate[wandb]'") from None
        self._root = root
        self._project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._mode = str(os.environ.get("WANDB_MODE") or Settings().mode)
        # A prompt for the key would wait behind the progress display.
        if self._mode == "online" and not login(prompt=False, verify=False):
            raise UserError(
                "--wandb: nobody is logged in; valid: wandb login, or WANDB_MODE=offline before the command"
            )

    @property
    def place(self) -> str:
        """The project; for runs that are not online yet, the command that sends them."""
        if self._mode == "online":
            return f"project {self._project}"
        return f"project {self._project}, {self._mode}; wandb sync {self._root / 'wandb' / 'offline-run-*'} sends them"

    def write(self, run: TrackedRun) -> None:
        """Write a run; one of the same id goes on in the same run of W&B."""
        import wandb

        self._root.mkdir(parents=True, exist_ok=True)
        opened = wandb.init(
            project=self._project,
            id=run.run_id,
            name=run.name,
            group=run.group,
            config={**run.columns, "settings": run.settings},
            dir=str(self._root),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
        )
        try:
            opened.define_metric("training/*", step_metric="step")
            for step, values in _by_step(run.curves):
                opened.log({"step": step, **values})
            opened.summary.update({**run.scores, "status": run.status, "message": run.message})
        finally:
            opened.finish(exit_code=int(run.status == "failed"))


class MlflowTracker:
    """MLflow: the server or store of ``MLFLOW_TRACKING_URI``, by default an SQLite file in the results folder.

    Args:
        root: the results folder.

    Raises:
        UserError: if the package is missing.
    """

    name: TrackerName = "mlflow"
    title = "MLflow"

    def __init__(self, root: Path) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise UserError("--mlflow: needs the package mlflow; valid: pip install 'gan-ablate[mlflow]'") from None
        self._root = root
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"
        self._open_client = MlflowClient
        self._client: Any = None
        self._experiment_id = ""

    @property
    def place(self) -> str:
        """The address of the server or store."""
        return self._uri

    def write(self, run: TrackedRun) -> None:
        """Write a run; one of the same id goes on in the same run of MLflow."""
        from mlflow.entities import Metric, Param, RunTag

        client = self._connect()
        found = client.search_runs([self._experiment_id], f"tags.`{RUN_ID_TAG}` = '{run.run_id}'", max_results=1)
        opened = found[0] if found else client.create_run(self._experiment_id, run_name=run.name)
        flat = {**dict(_flatten(run.settings, "settings.")), **{name: str(at) for name, at in run.columns.items()}}
        # A parameter that is there already cannot change.
        params = [Param(name, text) for name, text in flat.items() if name not in opened.data.params]
        tags = {RUN_ID_TAG: run.run_id, "grid": run.group, "status": run.status, "message": run.message}
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, points in run.curves.items() for step, value in points]
        metrics += [Metric(name, value, now, run.last_step) for name, value in run.scores.items()]
        tracked_id = opened.info.run_id
        client.log_batch(tracked_id, tags=[RunTag(name, text) for name, text in tags.items() if text])
        for start in range(0, len(params), PARAMS_PER_BATCH):
            client.log_batch(tracked_id, params=params[start : start + PARAMS_PER_BATCH])
        for start in range(0, len(metrics), METRICS_PER_BATCH):
            client.log_batch(tracked_id, metrics=metrics[start : start + METRICS_PER_BATCH])
        client.set_terminated(tracked_id, "FAILED" if run.status == "failed" else "FINISHED")

    def _connect(self) -> Any:
        """Open the store, and its experiment."""
        if self._client is None:
            logging.getLogger("mlflow").setLevel(logging.WARNING)  # that tables are made is no news
            self._root.mkdir(parents=True, exist_ok=True)
            client = self._open_client(tracking_uri=self._uri)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            known = client.get_experiment_by_name(name)
            self._experiment_id = client.create_experiment(name) if known is None else known.experiment_id
            self._client = client
        return self._client


def _count(num: int) -> str:
    return f"{num} run{'' if num == 1 else 's'}"


def _by_step(curves: Mapping[str, Sequence[tuple[int, float]]]) -> list[tuple[int, dict[str, float]]]:
    rows: dict[int, dict[str, float]] = {}
    for name, points in curves.items():
        for step, value in points:
            rows.setdefault(step, {})[name] = value
    return sorted(rows.items())


def _flatten(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def load_trackers(names: Sequence[TrackerName], root: Path) -> list[Tracker]:
    """Load trackers, before anything is trained.

    Args:
        names: of the trackers.
        root: the results folder.

    Raises:
        UserError: if a package is missing, or nobody is logged in.
    """
    trackers: list[Tracker] = []
    for name in names:
        match name:
            case "wandb":
                trackers.append(WandbTracker(root))
            case "mlflow":
                trackers.append(MlflowTracker(root))
            case _:
                assert_never(name)
    return trackers


class TrackerWriter:
    """Writes finished runs to trackers, in a thread.

    Args:
        trackers: the trackers; without any it does nothing.
        store: of the results folder.
        plans: whose runs are written.
    """

    def __init__(self, trackers: Sequence[Tracker], store: Store, plans: Sequence[Plan]) -> None:
        self._trackers, self._store = trackers, store
        self._places: dict[str, list[tuple[Plan, str, Mapping[str, str]]]] = {}
        for plan in plans:
            for variant, seed in plan.seeded_variants:
                self._places.setdefault(variant.run_id(seed), []).append((plan, variant.label, variant.levels))
        self._queue: SimpleQueue[tuple[str, Record | None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._written: dict[str, set[str]] = {tracker.name: set() for tracker in trackers}
        self._missed: dict[str, set[str]] = {tracker.name: set() for tracker in trackers}
        self._in_a_row = {tracker.name: 0 for tracker in trackers}
        self._reasons: dict[str, str] = {}

    def write_finished(self) -> list[str]:
        """Write all runs that are over and that a tracker does not have yet; return lines on what was written.

        A tracker may take its time: stop the wait as any command is stopped, and the next command writes the rest.
        """
        for run_id in self._places if self._trackers else ():
            self._put(run_id, None)
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        return [line for tracker in self._trackers for line in self._describe(tracker)]

    def put(self, record: Record) -> None:
        """Have a finished run written, if it is one of the plans'."""
        if self._trackers and record.run_id in self._places:
            self._put(record.run_id, record)

    def _put(self, run_id: str, record: Record | None) -> None:
        """Have a run written; the thread ends with the process, whatever it waits for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="trackers", daemon=True)
            self._thread.start()
        self._queue.put((run_id, record))

    def _write_all(self) -> None:
        for run_id, record in iter(self._queue.get, None):
            self._write(run_id, record)

    def _describe(self, tracker: Tracker) -> Iterator[str]:
        num_written, num_missed = len(self._written[tracker.name]), len(self._missed[tracker.name])
        if num_written:
            yield f"{tracker.title}: {_count(num_written)} written to {tracker.place}"
        if num_missed:
            reason = self._reasons[tracker.name]
            yield f"{tracker.title}: {_count(num_missed)} not written ({reason}); the same command tries again"

    def _write(self, run_id: str, record: Record | None) -> None:
        """Write a run that is over to every tracker that does not have it as it is now."""
        for tracker in self._trackers:
            name, note = tracker.name, self._store.root / FOLDER / tracker.name / run_id
            try:
                record = self._store.load_record(run_id) if record is None else record
                if record is None:
                    return
                told = f"{record.status}, {tracker.place}\n"
                if note.is_file() and note.read_text("utf-8") == told:
                    continue
                self._missed[name].add(run_id)
                if self._in_a_row[name] >= MAX_FAILURES:
                    continue
                tracker.write(TrackedRun.of(record, self._places[run_id]))
                note.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(note, told)
            except Exception as failure:  # whatever a tracker does, the runs go on
                self._in_a_row[name] += 1
                self._reasons[name] = " ".join(f"{type(failure).__name__}: {failure}".split())[:MAX_REASON]
            else:
                self._in_a_row[name] = 0
                self._missed[name].discard(run_id)
                self._written[name].add(run_id)
