"""A Ray cluster of two nodes on this host, as Ray's own tests make one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError
from gan_ablate.execution.context import Progress, RunContext, RunObserver
from gan_ablate.execution.store import Store
from tests.configs import make_config
from tests.execution.observers import Killer, Recorder
from tests.execution.untimed import compute_alone, untimed_by_id

ray = pytest.importorskip("ray", reason="needs the extra: pip install gan-ablate[ray]")
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings

STEPS = 300


@pytest.fixture(autouse=True)
def quick_kid() -> None:
    """Compute KID over all subsets: the cluster's processes do."""


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()
    logging.getLogger("ray").handlers.clear()


def test_a_node_that_dies_midway_costs_nothing(cluster: Any, tmp_path: Path) -> None:
    from gan_ablate.execution.executors.ray import run_ray

    configs = [make_config("mlp", seed=seed, steps=STEPS) for seed in range(4)]

    def remove_node(_: Progress) -> bool:
        if len(list((tmp_path / "ray").rglob("*.checkpoint"))) < 2:  # each node has a run under way
            return False
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        return True

    observer = Killer(remove_node)
    context = RunContext(out=str(tmp_path / "ray"), data_dir="d", checkpoint_sec=0.2)
    records = list(run_ray(configs, context, None, observer, address=cluster.address))
    assert not cluster.worker_nodes
    assert sorted(event for event in observer.events if "finished" in event) == [f"finished {n}" for n in range(4)]
    assert untimed_by_id(records) == compute_alone(configs, tmp_path / "local")
    store = Store(tmp_path / "ray")
    logs = [(store.run_dir(config.run_id) / "log.txt").read_text() for config in configs]
    assert [log.count(" completed\n") for log in logs] == [1] * 4
    assert sum("goes on from step" in log for log in logs) == 1


def test_nodes_that_do_not_share_the_folder_send_what_they_wrote(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gan_ablate.execution.executors import ray as executor

    # The token by which a node knows the folder is written where no node looks.
    monkeypatch.setattr(executor, "write_atomically", unless_token(write_atomically))
    configs = [make_config(seed=seed) for seed in range(2)]
    context = RunContext(out=str(tmp_path / "ray"), data_dir="d")
    records = list(executor.run_ray(configs, context, None, Recorder(), address=cluster.address))
    assert [record.status for record in records] == ["completed"] * 2
    store = Store(tmp_path / "ray")
    for record in records:
        assert store.load_record(record.run_id) == record
        names = {path.name for path in store.run_dir(record.run_id).rglob("*") if path.is_file()}
        assert names == {
            "config.json", "generator.safetensors", "log.txt", "record.json", "step-000000.png", "step-000003.png",
        }  # fmt: skip
    assert not list(Path(tmp_path / "ray").rglob("*.checkpoint"))


def unless_token(write: Any) -> Any:
    def writing(path: Path, content: Any) -> None:
        if not path.name.startswith(".shared-"):
            write(path, content)

    return writing


def test_closing_stops_tasks_at_checkpoints(cluster: Any, tmp_path: Path) -> None:
    from gan_ablate.execution.executors.ray import run_ray

    class Stopper(Recorder):
        def tick(self) -> None:
            if max(self.steps, default=0) > 100:
                raise KeyboardInterrupt

    context = RunContext(out=str(tmp_path), data_dir="d")
    records = run_ray([make_config("mlp", steps=100_000)], context, 1, Stopper(), address=cluster.address)
    with pytest.raises(KeyboardInterrupt):
        next(records)
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    assert not list(tmp_path.rglob("record.json"))


def test_what_is_missing_is_said_before_anything_runs(cluster: Any, tmp_path: Path) -> None:
    from gan_ablate.execution.executors.ray import run_ray

    context = RunContext(out=str(tmp_path / "out"), data_dir="d")
    config = make_config(dataset="folder:gone@0", scoring={"features": "none"})
    with pytest.raises(UserError, match="folder:gone@0"):
        run_ray([config], context, None, RunObserver(), address=cluster.address)
    with pytest.raises(UserError, match="device='cuda': the Ray cluster has no GPU"):
        run_ray(
            [make_config()], context.model_copy(update={"device": "cuda"}), None, RunObserver(), address=cluster.address
        )
    assert not (tmp_path / "out").exists()


def test_an_address_where_nobody_is_is_one_line(tmp_path: Path) -> None:
    from gan_ablate.execution.executors.ray import run_ray

    context = RunContext(out=str(tmp_path / "out"), data_dir="d")
    with pytest.raises(UserError, match=r"ray_address='127\.0\.0\.1:1': no Ray cluster there"):
        run_ray([make_config()], context, None, RunObserver(), address="127.0.0.1:1")
