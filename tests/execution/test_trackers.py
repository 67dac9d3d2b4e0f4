from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from gan_ablate import estimate_effects
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from gan_ablate.execution.trackers import (
    MAX_FAILURES,
    MlflowTracker,
    TrackedRun,
    TrackerWriter,
    WandbTracker,
    load_trackers,
)
from tests.synthetic import save_runs


class FakeWandbRun:
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.rows: list[dict[str, float]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("training/*", "step")

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for W&B, which keeps the runs that are written; nobody is logged in."""
    module: Any = ModuleType("wandb")
    module.runs = []
    module.is_known = False

    def init(**arguments: Any) -> FakeWandbRun:
        run = FakeWandbRun(arguments)
        module.runs.append(run)
        return run

    module.init = init
    module.Settings = lambda **_: SimpleNamespace(mode="online")

    def login(*, prompt: bool, verify: bool) -> bool:
        assert not prompt  # it would wait behind the progress display
        assert not verify  # the network may be down
        return bool(module.is_known)

    module.login = login
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return module


class FakeMlflow:
    """A stand-in for MLflow's client, which keeps runs and refuses what MLflow refuses."""

    def __init__(self) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.experiments: dict[str, SimpleNamespace] = {}

    def __call__(self, tracking_uri: str) -> FakeMlflow:
        assert tracking_uri.startswith("sqlite:///")
        return self

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return self.experiments.get(name)

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = SimpleNamespace(experiment_id="7")
        return "7"

    def search_runs(self, experiments: list[str], text: str, max_results: int) -> list[SimpleNamespace]:
        assert experiments == ["7"]
        wanted = text.split("'")[1]
        return [run for run in self.runs.values() if run.tags.get("gan_ablate.run_id") == wanted][:max_results]

    def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
        assert experiment == "7"
        key = f"{run_name}, {len(self.runs)}"
        run = SimpleNamespace(info=SimpleNamespace(run_id=key), data=SimpleNamespace(params={}), tags={}, metrics=[])
        self.runs[key] = run
        return run

    def log_batch(self, key: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        assert len(metrics) <= 1000
        assert len(params) <= 100
        run = self.runs[key]
        for name, text in params:
            assert name not in run.data.params
            run.data.params[name] = text
        run.tags |= dict(tags)
        run.metrics += metrics

    def set_terminated(self, key: str, status: str) -> None:
        self.runs[key].status = status


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    client = FakeMlflow()
    tracking, entities = ModuleType("mlflow.tracking"), ModuleType("mlflow.entities")
    tracking.MlflowClient = client  # type: ignore[attr-defined]
    entities.Metric = lambda *of: of  # type: ignore[attr-defined]
    entities.Param = entities.RunTag = lambda name, text: (name, text)  # type: ignore[attr-defined]
    for module in (ModuleType("mlflow"), tracking, entities):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return client


@pytest.fixture
def planned() -> Plan:
    return plan(load_grid("beta1"), seeds=3)


@pytest.fixture
def store(tmp_path: Path, planned: Plan) -> Store:
    """Runs of which those with β1 0.9 diverged."""
    store = Store(tmp_path / "results")

    def fid(variant: Any, seed: int) -> float | None:
        return (
            None if variant.label.endswith("0.9") else math.exp(3 + 0.1 * (variant.label.endswith("0.0")) + 0.01 * seed)
        )

    save_runs(store, planned, fid)
    return store


def records(store: Store, planned: Plan) -> list[Record]:
    return [record for _, _, record in store.records(planned)]


@pytest.mark.usefixtures("wandb")
def test_a_run_has_its_configuration_curves_scores_and_status(store: Store, planned: Plan, wandb: Any) -> None:
    (line,) = TrackerWriter([WandbTracker(store.root)], store, [planned]).write_finished()
    assert line.startswith("W&B: 9 runs written to project gan-ablate, offline; wandb sync ")
    assert len(wandb.runs) == 9
    record = store.load_record(planned.baseline.run_id(1))
    assert record is not None
    assert record.scoring is not None
    (run,) = [run for run in wandb.runs if run.arguments["id"] == record.run_id]
    assert run.arguments["name"] == f"{planned.baseline.label}, seed 1"
    assert run.arguments["group"] == "beta1"
    assert run.arguments["resume"] == "allow"
    config = run.arguments["config"]
    assert (config["beta1"], config["seed"], config["dataset"]) == ("0.5", 1, "mnist-10k")
    assert config["settings"]["beta1"] == record.config.model_dump()["beta1"]
    losses = {row["step"]: row["training/loss_d"] for row in run.rows if "training/loss_d" in row}
    assert losses == dict(zip(record.history["step"], record.history["loss_d"], strict=True))
    fids = {row["step"]: row["training/fid"] for row in run.rows if "training/fid" in row}
    assert fids == dict(zip(record.scoring.curve_steps, record.scoring.curve_fid, strict=True))
    assert [row["step"] for row in run.rows] == sorted(row["step"] for row in run.rows)
    assert run.summary["fid"] == pytest.approx(math.exp(3.01))
    assert (run.summary["status"], run.exit_code) == ("completed", 0)
    assert {run.summary["status"] for run in wandb.runs} == {"completed", "diverged"}


def test_judge_reads_the_export_of_wandb_back(store: Store, planned: Plan, wandb: Any) -> None:
    TrackerWriter([WandbTracker(store.root)], store, [planned]).write_finished()
    export = pd.DataFrame(
        {"Name": run.arguments["name"], "State": "finished", **run.arguments["config"], **run.summary}
        for run in wandb.runs
    )
    effects = estimate_effects(export, factors=["beta1"]).set_index("effect")
    assert effects.loc["beta1 0.0", "value"] == pytest.approx(0.1)
    assert effects.loc["beta1 0.9", "diverged"] == 3


def test_judge_reads_the_export_of_mlflow_back(store: Store, planned: Plan, mlflow: FakeMlflow) -> None:
    (line,) = TrackerWriter([MlflowTracker(store.root)], store, [planned]).write_finished()
    assert line == f"MLflow: 9 runs written to sqlite:///{store.root.absolute() / 'mlflow.db'}"
    export = pd.DataFrame(
        {
            "status": run.status,
            **{f"params.{name}": text for name, text in run.data.params.items()},
            **{f"tags.{name}": text for name, text in run.tags.items()},
            **{f"metrics.{name}": value for name, value, _, _ in run.metrics},
        }
        for run in mlflow.runs.values()
    )
    assert set(export["status"]) == {"FINISHED"}
    design: dict[str, Any] = {"factors": ["params.beta1"], "seed": "params.seed"}
    effects = estimate_effects(export, outcome="metrics.fid:lower", **design).set_index("effect")
    assert effects.loc["params.beta1 0.0", "value"] == pytest.approx(0.1)
    assert effects.loc["params.beta1 0.9", "diverged"] == 3
    (run, *_) = mlflow.runs.values()
    assert "settings.beta1" in run.data.params


def test_a_run_is_written_once_and_again_where_it_ended_otherwise(store: Store, planned: Plan, wandb: Any) -> None:
    store.save_failure(planned.baseline.with_seed(0), "no memory")

    def write() -> list[str]:
        return TrackerWriter([WandbTracker(store.root)], store, [planned]).write_finished()

    write()
    (failed,) = [run for run in wandb.runs if run.exit_code == 1]
    assert (failed.summary["status"], failed.summary["message"]) == ("failed", "no memory")
    assert write() == []
    assert len(wandb.runs) == 9
    save_runs(store, planned, lambda *_: 20.0)
    write()
    of_run = [run for run in wandb.runs if run.arguments["id"] == failed.arguments["id"]]
    assert [run.summary["status"] for run in of_run] == ["failed", "completed"]


def test_a_run_of_mlflow_goes_on_where_it_is_computed_again(store: Store, planned: Plan, mlflow: FakeMlflow) -> None:
    store.save_failure(planned.baseline.with_seed(0), "no memory")
    TrackerWriter([MlflowTracker(store.root)], store, [planned]).write_finished()
    assert [run.status for run in mlflow.runs.values()].count("FAILED") == 1
    save_runs(store, planned, lambda *_: 20.0)
    TrackerWriter([MlflowTracker(store.root)], store, [planned]).write_finished()
    assert len(mlflow.runs) == 9
    assert {run.status for run in mlflow.runs.values()} == {"FINISHED"}


class BrokenTracker:
    """A tracker whose first writes fail."""

    name = "wandb"
    title = "W&B"
    place = "nowhere"

    def __init__(self, num_failures: int) -> None:
        self.num_failures = num_failures
        self.num_tried = 0

    def write(self, run: TrackedRun) -> None:
        assert run.run_id
        self.num_tried += 1
        if self.num_tried <= self.num_failures:
            raise ConnectionError("the network\nis down")


def test_a_tracker_that_fails_is_a_line_and_the_next_command_tries_again(store: Store, planned: Plan) -> None:
    broken: Any = BrokenTracker(100)
    lines = TrackerWriter([broken], store, [planned]).write_finished()
    assert lines == ["W&B: 9 runs not written (ConnectionError: the network is down); the same command tries again"]
    assert broken.num_tried == MAX_FAILURES
    better: Any = BrokenTracker(1)
    lines = TrackerWriter([better], store, [planned]).write_finished()
    assert lines[0] == "W&B: 8 runs written to nowhere"
    assert lines[1].startswith("W&B: 1 run not written")
    better = BrokenTracker(0)
    assert TrackerWriter([better], store, [planned]).write_finished() == ["W&B: 1 run written to nowhere"]


def test_runs_are_written_as_they_finish_without_waiting(store: Store, planned: Plan, wandb: Any) -> None:
    writer = TrackerWriter([WandbTracker(store.root)], store, [planned])
    for record in records(store, planned):
        writer.put(record)
        writer.put(record.model_copy(update={"run_id": "another"}))  # of no plan
    for _ in range(100):
        if len(wandb.runs) == 9:
            break
        time.sleep(0.02)
    assert len(wandb.runs) == 9
    assert writer.write_finished() == [
        f"W&B: 9 runs written to project gan-ablate, offline; wandb sync {store.root}/wandb/offline-run-* sends them"
    ]
    assert len(wandb.runs) == 9


def test_a_run_of_several_grids_has_the_factors_of_all(store: Store, planned: Plan) -> None:
    other = plan(load_grid("dropout"), seeds=3)
    run_id = planned.baseline.run_id(0)
    record = store.load_record(run_id)
    assert record is not None
    places = [(one, one.baseline.label, one.baseline.levels) for one in (planned, other)]
    run = TrackedRun.of(record, places)
    assert run.group == "beta1+dropout"
    assert {"beta1", "dropout"} <= run.columns.keys()


def test_nothing_happens_without_a_tracker(store: Store, planned: Plan) -> None:
    writer = TrackerWriter([], store, [planned])
    writer.put(records(store, planned)[0])
    assert writer.write_finished() == []
    assert not (store.root / "trackers").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_not_there_is_named(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))  # as a folder of this name is one
    with pytest.raises(UserError, match=f"--{name}: needs the package {name}; valid: pip install 'gan-ablate.{name}.'"):
        load_trackers([name], tmp_path)


def test_nobody_who_is_logged_in_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Any
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(UserError, match="--wandb: nobody is logged in; valid: wandb login, or WANDB_MODE=offline"):
        load_trackers(["wandb"], tmp_path)
    wandb.is_known = True
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    (tracker,) = load_trackers(["wandb"], tmp_path)
    assert tracker.place == "project mine"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_writes_its_files_offline(store: Store, planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra: pip install gan-ablate[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (line,) = TrackerWriter([WandbTracker(store.root)], store, [planned]).write_finished()
    assert line.startswith("W&B: 9 runs written")
    files = list((store.root / "wandb").glob("offline-run-*/run-*.wandb"))
    assert {file.stem.removeprefix("run-") for file in files} == set(planned.run_ids)
    assert all(file.stat().st_size > 1000 for file in files)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_mlflow_keeps_what_the_records_do(
    store: Store, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow.tracking", reason="needs the extra: pip install gan-ablate[mlflow]")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = MlflowTracker(store.root)
    assert len(TrackerWriter([tracker], store, [planned]).write_finished()) == 1
    client = MlflowClient(tracking_uri=tracker.place)
    experiment = client.get_experiment_by_name("gan-ablate")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 9
    record = store.load_record(planned.baseline.run_id(1))
    assert record is not None
    (run,) = [run for run in runs if run.data.tags["gan_ablate.run_id"] == record.run_id]
    assert run.data.metrics["fid"] == pytest.approx(math.exp(3.01))
    assert run.data.params["beta1"] == "0.5"
    losses = client.get_metric_history(run.info.run_id, "training/loss_d")
    assert [at.value for at in losses] == record.history["loss_d"]
