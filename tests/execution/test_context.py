from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gan_ablate.errors import UserError
from gan_ablate.execution.context import Compute, RunContext


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"jobs": 0}, "--jobs 0: valid: a whole number from 1 to 1,024"),
        ({"jobs": 1_025}, "--jobs 1025: valid: a whole number from 1 to 1,024"),
        ({"device": "tpu"}, "--device tpu: not supported; valid: cpu, cuda, cuda:0, cuda:0,cuda:2, …"),
        ({"checkpoint_sec": -1.0}, "--checkpoint-every -1: valid: a number of seconds from 0"),
        ({"checkpoint_sec": float("inf")}, "--checkpoint-every inf: valid: a number of seconds from 0"),
        ({"inception_weights": "w.pth"}, "--inception-weights w.pth: no such file"),
        ({"ray_address": "x:1"}, "--ray-address x:1: valid: with --executor ray"),
        ({"slurm": {"time": "9"}, "executor": "ray"}, "--slurm time: valid: with --executor slurm"),
    ],
)
def test_a_value_that_no_machine_could_compute_with_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        Compute(**fields)
    assert refused.value.with_options == message


def test_an_unknown_field_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValidationError, match="did you mean device"):
        Compute(devices="cpu")  # type: ignore[call-arg]


def test_settings_of_the_chosen_executor_are_taken() -> None:
    assert Compute(executor="ray", ray_address="x:1", jobs=1_024, checkpoint_sec=0).jobs == 1_024
    assert Compute(executor="slurm", slurm={"time": "9"}).slurm == {"time": "9"}


def test_paths_of_a_context_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of a cluster, or a job of a scheduler, starts in another folder."""
    (tmp_path / "weights.pth").touch()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    context = RunContext(out="results", **dict(Compute(inception_weights=Path("weights.pth"))))
    monkeypatch.chdir(tmp_path / "other")
    found = (context.out, context.data_dir, context.inception_weights)
    assert found == tuple(str(tmp_path / name) for name in ("results", "data", "weights.pth"))
