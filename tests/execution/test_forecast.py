from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.design.settings import look_up
from gan_ablate.execution import forecast
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.executors.local import Measured
from gan_ablate.execution.executors.worker import measure
from gan_ablate.execution.forecast import (
    Speed,
    advise_precision,
    calibrate,
    estimate_run_sec,
    estimate_seconds,
    estimate_total_sec,
    find_roundings,
    missing_runs,
    precision_notes,
    step_key,
)
from gan_ablate.execution.store import Store
from tests.configs import make_config
from tests.synthetic import save_runs


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the keys of what would be timed in worker processes; every step takes 100 ms more than its batch size."""
    keys: list[str] = []

    def measure_them(configs: Mapping[str, RunConfig], extractors: Mapping[str, RunConfig], *_: object) -> Measured:
        keys.extend([*configs, *extractors])
        steps = {key: (100.0 + config.batch_size, 0.5) for key, config in configs.items()}
        return Measured(3.0, 0.1, steps, dict.fromkeys(extractors, 20.0))

    monkeypatch.setattr(forecast, "measure_steps", measure_them)
    return keys


@pytest.fixture
def planned(tiny_grid: Path) -> Plan:
    return plan(load_grid(str(tiny_grid)), budget="smoke")


def test_real_steps_of_every_variant_are_timed(planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "MAX_MEASURING_SEC", 120)  # other tests run beside it
    speed = calibrate([planned], Store(tmp_path), 2, "cpu")
    assert speed is not None
    assert {step_key(variant.trained) for variant in planned.variants} == set(speed.step_ms) == set(speed.sample_ms)
    # Nothing that this small takes as long as one of the default model's steps, or no time at all.
    assert all(0.1 < ms < 1_000 for ms in speed.step_ms.values())
    assert all(0 < ms < 10 for ms in speed.sample_ms.values())
    assert 0 < speed.classifier_ms < 100
    assert 0 < speed.start_sec < 300
    assert multiprocessing.active_children() == []


def test_what_was_timed_is_kept(planned: Plan, tmp_path: Path, timed: list[str]) -> None:
    first = calibrate([planned], Store(tmp_path), 2, "cpu")
    assert len(timed) == 2
    assert calibrate([planned, planned.model_copy()], Store(tmp_path), 2, "cpu") == first
    assert len(timed) == 2
    wider = plan(load_grid("batch_size"), budget="smoke")
    speed = calibrate([wider], Store(tmp_path), 2, "cpu")
    assert speed is not None
    assert first is not None
    assert {**first.step_ms, **speed.step_ms} == speed.step_ms
    assert {**first.sample_ms, **speed.sample_ms} == speed.sample_ms
    assert len(timed) == 2 + 4


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"machine": 1}', "machine", "negative", "old", "jobs"])
def test_a_cache_that_does_not_hold_is_measured_anew(
    damage: str, planned: Plan, tmp_path: Path, timed: list[str]
) -> None:
    calibrate([planned], Store(tmp_path), 2, "cpu")
    file = tmp_path / "cache" / "speed.json"
    data = json.loads(file.read_text("utf-8"))
    if damage == "machine":
        data["machine"][0] = "another"
        file.write_text(json.dumps(data), "utf-8")
    elif damage == "negative":
        data["step_ms"] = dict.fromkeys(data["step_ms"], -1)
        file.write_text(json.dumps(data), "utf-8")
    elif damage == "old":
        os.utime(file, (time.time() - 2 * 24 * 3600,) * 2)
    elif damage != "jobs":
        file.write_text(damage, "utf-8")
    speed = calibrate([planned], Store(tmp_path), 3 if damage == "jobs" else 2, "cpu")
    assert len(timed) == 4
    assert speed is not None
    assert min(speed.step_ms.values()) > 0


def test_variants_that_grids_share_are_timed_once_in_the_order_of_their_keys(tmp_path: Path, timed: list[str]) -> None:
    plans = [plan(load_grid(name), budget="smoke") for name in ("beta1", "essentials", "beta1")]
    calibrate(plans, Store(tmp_path), 2, "cpu")
    assert timed == sorted(set(timed))
    assert len(timed) == len({step_key(variant.trained) for one in plans for variant in one.variants})


def test_a_large_extractor_is_timed_once_and_its_time_is_that_of_every_scored_image(
    planned: Plan, tmp_path: Path, timed: list[str], tiny_grid: Path
) -> None:
    counts = ["scoring.num_samples=5000", "scoring.curve_samples=4096", "scoring.curve_points=2"]
    by_inception = plan(load_grid(tiny_grid), budget="smoke", features="inception", overrides=counts)
    assert calibrate([planned], Store(tmp_path), 2, "cpu") is not None
    del timed[:]
    speeds = [calibrate([by_inception], Store(tmp_path), 2, "cpu") for _ in range(2)]
    assert timed == ["inception"]  # the steps were timed before
    assert speeds[0] == speeds[1]
    assert speeds[0] is not None
    assert speeds[0].extractor_ms == {"inception": 20.0}
    twice = Speed(speeds[0].step_ms, speeds[0].sample_ms, 3.0, 0.1, {"inception": 40.0})
    once_sec, twice_sec = (estimate_run_sec(by_inception.baseline.config, speed) for speed in (speeds[0], twice))
    assert twice_sec - once_sec == pytest.approx(0.02 * (5_000 + 2 * 4_096))


def test_only_variants_with_missing_runs_are_timed(planned: Plan, tmp_path: Path, timed: list[str]) -> None:
    store = Store(tmp_path)
    save_runs(store, planned, lambda *_: 1.0)
    assert calibrate([planned], store, 2, "cpu") == Speed()
    assert timed == []


def test_without_time_to_measure_a_step_counts_as_usual(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "measure_steps", lambda *_: Measured(3.0, 0.1, {}))
    speed = calibrate([planned], Store(tmp_path), 2, "cpu")
    assert speed is not None
    assert speed.step_ms == {}
    assert all(seconds > 0 for seconds in estimate_seconds([planned], Store(tmp_path), speed).values())


def test_an_unmeasured_step_takes_the_median_of_the_measured_ones() -> None:
    assert Speed({"a": 10.0, "b": 20.0, "c": 90.0}).step_sec(make_config()) == pytest.approx(0.02)


@pytest.mark.parametrize("failure", [EOFError(), ConnectionResetError(), TimeoutError()])
def test_workers_that_die_leave_the_time_unknown(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def die(*_: object) -> Any:
        raise failure

    monkeypatch.setattr(forecast, "measure_steps", die)
    assert calibrate([planned], Store(tmp_path), 2, "cpu") is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("flags", "precision", "has"),
    [
        ("flags : sse avx512_bf16 amx_tile", "fp32", True),
        ("Features : fp asimd bf16", "fp32", True),
        ("flags : sse avx2", "fp32", False),
        ("flags : amx_bf16", "bf16", False),
        (None, "fp32", False),
    ],
)
def test_baselines_are_timed_in_bfloat16_where_the_processor_has_it(
    flags: str | None, precision: str, has: bool, tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(forecast, "CPU_FLAGS", tmp_path / "cpuinfo")
    planned = plan(load_grid("beta1"), budget="smoke", overrides=[f"precision={precision}"])
    pairs = find_roundings([planned], "cpu")
    assert [(exact.precision, rounded.precision) for exact, rounded in pairs] == [("fp32", "bf16")] * has
    speed = calibrate([planned], Store(tmp_path), 2, "cpu")
    advise_precision([planned], Store(tmp_path), speed, 2, "cpu", is_asked=True)
    assert timed[len(planned.variants) :] == [step_key(config) for pair in pairs for config in pair]


@pytest.mark.parametrize(("share", "is_said"), [(0.68, True), (0.95, False), (None, False)])
def test_it_is_said_what_bfloat16_saves_where_it_saves_a_tenth(share: float | None, is_said: bool) -> None:
    exact = make_config()
    rounded = exact.model_copy(update={"precision": "bf16"})
    times = {step_key(exact): 50.0} | ({} if share is None else {step_key(rounded): 50 * share})
    notes = precision_notes([(exact, rounded)] * 2, Speed(times))
    words = "takes 0.68 of its time on this machine: --set precision=bf16, which makes other runs."
    assert [note.endswith(words) for note in notes] == [True] * is_said


@pytest.mark.parametrize(("steps", "is_said"), [(100, False), (20_000, True)])
def test_bfloat16_is_timed_and_told_of_where_runs_take_long(
    steps: int, is_said: bool, tmp_path: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text("flags : amx_bf16")
    monkeypatch.setattr(forecast, "CPU_FLAGS", tmp_path / "cpuinfo")
    monkeypatch.setattr(forecast, "WORTH_SAYING", 100.0)  # whatever is measured, it is worth saying
    planned = plan(load_grid("beta1"), budget="smoke", seeds=1, steps=steps)
    store = Store(tmp_path)
    speed = calibrate([planned], store, 2, "cpu")
    assert speed is not None
    before = len(timed)
    notes = advise_precision([planned], store, speed, 2, "cpu")
    assert len(timed) - before == 2 * is_said  # the baseline, too: under the same load
    assert [note.split(" takes ")[0] for note in notes] == [
        "In bfloat16 a step of the baseline (mnist-10k, batches of 64)"
    ] * is_said


def test_variants_are_not_timed_for_a_gpu(planned: Plan, tmp_path: Path, timed: list[str]) -> None:
    assert calibrate([planned], Store(tmp_path), 1, "cuda") is None
    assert timed == []


@pytest.mark.parametrize(("steps", "is_asked", "is_timed"), [(9, False, False), (9, True, True), (50_000, False, True)])
def test_a_gpu_shows_what_each_precision_takes(
    steps: int, is_asked: bool, is_timed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other in one worker. A GPU without TF32 has no time of it, and is not asked again."""
    asked: list[tuple[list[str], str, int]] = []
    times = {"fp32": (4.0, 0.1), "bf16": (1.0, 0.1), "tf32": None}

    def measure_them(
        configs: Mapping[str, RunConfig], _: object, context: RunContext, num_jobs: int, *rest: object
    ) -> Measured:
        asked.append(([config.precision for config in configs.values()], context.device, num_jobs))
        return Measured(3.0, 0.1, {key: times[config.precision] for key, config in configs.items()})

    monkeypatch.setattr(forecast, "measure_steps", measure_them)
    planned, store = plan(load_grid("beta1"), budget="smoke", seeds=1, steps=steps), Store(tmp_path)

    def advise() -> list[str]:
        return advise_precision([planned], store, None, 4, "cuda", is_asked=is_asked)

    monkeypatch.setattr(forecast, "choose_gpus", lambda _: ["GPU-1", "GPU-2"])
    first, again = advise(), advise()
    assert first == again
    words = "In bfloat16 a step of the baseline (mnist-10k, batches of 64) takes 0.25 of its time on this machine: "
    assert [note.startswith(words) for note in first] == [True] * is_timed
    assert asked == [(["fp32", "bf16", "tf32"], "cuda", 1)] * is_timed
    monkeypatch.setattr(forecast, "choose_gpus", lambda _: ["GPU-3"])
    advise()
    assert len(asked) == 2 * is_timed


def test_there_is_no_advice_without_runs_or_where_a_grid_varies_the_precision(tmp_path: Path, timed: list[str]) -> None:
    planned, store = plan(load_grid("beta1"), budget="smoke"), Store(tmp_path)
    save_runs(store, planned, lambda *_: 1.0)
    for one in (planned, plan(load_grid("precision"), budget="smoke")):
        assert advise_precision([one], store, None, 1, "cuda", is_asked=True) == []
    assert timed == []


def test_a_step_that_fails_is_not_tried_again(planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong: the run itself says so. A step that was not reached in time is."""
    calls: list[list[str]] = []

    def measure_them(configs: Mapping[str, RunConfig], *_: object) -> Measured:
        calls.append(list(configs))
        return Measured(3.0, 0.1, {next(iter(configs)): None})

    monkeypatch.setattr(forecast, "measure_steps", measure_them)
    for _ in range(3):
        calibrate([planned], Store(tmp_path), 2, "cpu")
    first, second = sorted(step_key(variant.trained) for variant in planned.variants)
    assert calls == [[first, second], [second]]


def test_where_there_is_no_gpu_a_worker_has_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert measure(make_config("mlp"), RunContext(out=str(tmp_path), data_dir="data", device="cuda")) is None


def test_a_step_of_user_code_that_fails_has_no_time(tmp_path: Path) -> None:
    """In another precision than its author tried, or on another device."""
    config = make_config("mlp", precision="bf16")

    def fail(*_: object) -> None:
        raise TypeError("Got unsupported ScalarType BFloat16")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gan_ablate.training.trainer.Trainer.step", fail)
        assert measure(config, RunContext(out=str(tmp_path), data_dir="data")) is None


def test_runs_come_seed_by_seed_and_the_longest_of_a_seed_first(tmp_path: Path) -> None:
    planned = plan(load_grid("batch_size"), seeds=2)
    sizes = [variant.trained.batch_size for variant in planned.variants]
    speed = Speed({step_key(variant.trained): variant.trained.batch_size for variant in planned.variants})
    runs = missing_runs([planned], Store(tmp_path), speed)
    assert [(run.seed, run.batch_size) for run in runs if isinstance(run, RunConfig)] == [
        (seed, size) for seed in planned.seeds for size in sorted(sizes, reverse=True)
    ]


def test_recorded_step_times_order_runs_where_nothing_was_timed(tmp_path: Path) -> None:
    planned, store = plan(load_grid("architecture"), seeds=2), Store(tmp_path)
    save_runs(store, planned, lambda *_: 1.0, step_ms=lambda c: 500.0 if c.trained.generator.kind == "mlp" else 1.0)
    more = plan(load_grid("architecture"), seeds=3)
    assert [look_up(config, "generator") for config in missing_runs([more], store)] == ["mlp", "dcgan"]


def test_a_measured_step_time_gives_the_runs_time() -> None:
    config = make_config(steps=1_000, scoring={"features": "none"})
    slow, fast = (estimate_run_sec(config, Speed({step_key(config): ms})) for ms in (100.0, 50.0))
    assert slow - fast == pytest.approx(50)
    another_seed = make_config(seed=7, steps=1_000, scoring={"features": "none"})
    assert estimate_run_sec(another_seed, Speed({step_key(config): 100.0})) == slow
    assert step_key(make_config(batch_size=128)) != step_key(make_config())


def test_a_measured_sampling_time_counts_for_each_image() -> None:
    config = make_config("mlp")  # G without batch norm: 1,280 final images and 1,280 of the curve
    key = step_key(config)
    slow, fast = (estimate_run_sec(config, Speed({key: 1.0}, {key: ms})) for ms in (3.0, 1.0))
    assert config.generator.kind == "mlp"
    assert config.generator.norm == "none"
    assert slow - fast == pytest.approx(2 * 1_280 * 2e-3)


def test_more_work_takes_longer() -> None:
    assert estimate_run_sec(make_config(steps=200), Speed()) > estimate_run_sec(make_config(steps=100), Speed())
    more_images = make_config(scoring={"features": "digits", "num_samples": 20_000})
    assert estimate_run_sec(more_images, Speed()) > estimate_run_sec(make_config(), Speed())
    learnt = make_config(scoring={"features": "digits", "representation": True})
    plain = make_config(scoring={"features": "digits"})
    assert estimate_run_sec(learnt, Speed()) > estimate_run_sec(plain, Speed()) + 9


def test_a_grid_takes_its_start_the_worker_that_ends_last_and_the_report() -> None:
    speed = Speed(start_sec=3.0)
    report_sec = estimate_total_sec([], 2, 4, speed)
    with_one = estimate_total_sec([40.0], 2, 4, speed)
    assert with_one > 3 + 40 + report_sec
    assert estimate_total_sec([40.0, 30.0, 20.0], 2, 4, speed) == pytest.approx(with_one + 10)
    assert estimate_total_sec([40.0, 30.0, 20.0], 1, 4, speed) == pytest.approx(with_one + 50)
    assert estimate_total_sec([], 2, 8, speed) > report_sec > 0
