"""The schedule: list missing runs, order them, and estimate how long they take on this machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.cost import Speed, estimate_run_sec, gflop_per_step, step_key
from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.settings import order_block
from gan_ablate.errors import UserError
from gan_ablate.execution.executors.local import MULTIPROCESSING, kill_server, start_server
from gan_ablate.execution.executors.worker import follow_parent, prepare
from gan_ablate.execution.store import summarise_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gan_ablate.design.config import RunConfig
    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.plan import Plan, Variant
    from gan_ablate.execution.store import Store


WARM_UP_STEPS, TIMED_STEPS, TIMED_SEC = 2, 4, 0.4
"""A variant takes so many steps beforehand, then so many at least, and more until so many seconds are over."""

MAX_TIMED_VARIANTS = 24
"""Of a plan; the time of any further ones is estimated from their arithmetic."""

KEPT_SEC = 24 * 3600
"""A machine that was busy when it was measured is not called slow for ever."""


def calibrate(plans: Sequence[Plan], store: Store, num_jobs: int, device: str) -> Speed | None:
    """Time some steps of every variant that was not timed before, as many at once as there will be runs.

    Args:
        plans: of which only variants with runs that are still missing are timed.
        store: where they are missing, and whose cache keeps the measurements.
        num_jobs: how many runs go on at once.
        device: where they will be trained. On a GPU nothing is measured: what it takes shows with the first runs.

    Returns:
        What is known; None on a GPU, where users' scripts are run, and where the measurement failed.
    """
    if device != "cpu" or any(
        isinstance(variant.config, ExternalConfig) for plan in plans for variant in plan.variants
    ):
        return None
    place = store.cache_dir / "speed.json"
    machine: list[object] = [platform.node(), platform.machine(), os.cpu_count(), num_jobs]
    known = _load(place, machine)
    variants = {id(variant): variant.trained for variant, _ in find_missing_ids(plans, store).values()}
    untimed = {step_key(config): config for config in variants.values()}
    if known is not None:
        untimed = {key: config for key, config in untimed.items() if key not in known.step_ms}
    if not untimed:
        return known or Speed()
    folders = {name: place for plan in plans for name, place in plan.folders.items()}
    try:
        speed = _measure(list(untimed.values())[:MAX_TIMED_VARIANTS], known or Speed(), num_jobs, folders)
    except (BrokenProcessPool, OSError):  # too little memory for a step: the runs will say so
        return known
    with suppress(OSError):  # a cache that cannot be written is measured again
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps({"machine": machine, **asdict(speed)}, indent=1))
    return speed


def _load(place: Path, machine: list[object]) -> Speed | None:
    try:
        if time.time() - place.stat().st_mtime > KEPT_SEC:
            return None
        data = json.loads(place.read_text("utf-8"))
        if data.pop("machine") != machine:
            return None
        speed = Speed(**data)
        is_sound = all(value > 0 for value in (*speed.step_ms.values(), speed.start_sec, speed.classifier_ms))
    except Exception:  # whatever a damaged file brings about: it is made anew
        return None
    return speed if is_sound else None


def _measure(configs: Sequence[RunConfig], known: Speed, num_jobs: int, folders: dict[str, str]) -> Speed:
    started = time.perf_counter()
    start_server()
    with (
        ProcessPoolExecutor(num_jobs, MULTIPROCESSING, initializer=_prepare_to_time, initargs=(folders,)) as pool,
        _ended_at_once(pool),
    ):
        classifier_ms = pool.submit(_time_classifier).result()
        start_sec = time.perf_counter() - started
        # The longest first, so that all workers are at work until nearly the end.
        configs = sorted(configs, key=gflop_per_step, reverse=True)
        times = list(pool.map(_time_step, configs))
    timed = {step_key(config): ms for config, ms in zip(configs, times, strict=True) if ms is not None}
    return Speed(step_ms={**known.step_ms, **timed}, start_sec=start_sec, classifier_ms=classifier_ms)


def _prepare_to_time(folders: dict[str, str]) -> None:
    """Prepare a process of the pool, which would wait for ever where this one is killed."""
    from gan_ablate.training.user_code import allow_code

    allow_code(folders)
    follow_parent()
    prepare(1, None)


@contextmanager
def _ended_at_once(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Kill the processes of a pool where this one is interrupted: it would wait for all that they have begun.

    The caller's other child processes go on.
    """
    try:
        yield
    except KeyboardInterrupt:
        kill_server()
        for process in list((pool._processes or {}).values()):  # noqa: SLF001 (there is no other way before Python 3.14)
            process.kill()
        raise


def _time_step(config: RunConfig) -> float | None:
    """Return the median milliseconds of a step on made-up images, or None where it fails: its run will tell why."""
    import torch

    from gan_ablate.training.loop import choose_step
    from gan_ablate.training.trainer import Trainer

    num_images = 2 * config.batch_size
    images = torch.randint(256, (num_images, config.num_channels, config.image_size, config.image_size)).to(torch.uint8)
    labels = torch.arange(num_images) % config.num_classes if config.num_classes else None
    times: list[float] = []
    try:
        take_step = choose_step(Trainer(config, images, labels))
        for _ in range(WARM_UP_STEPS):
            take_step()
        while len(times) < TIMED_STEPS or sum(times) < TIMED_SEC:
            started = time.perf_counter()
            take_step()
            times.append(time.perf_counter() - started)
    except (RuntimeError, MemoryError, UserError):  # PyTorch's, of memory above all, or of user code
        return None
    return statistics.median(times) * 1e3


def _time_classifier() -> float:
    """Return the milliseconds of one image in the embedded digits' classifier."""
    import torch

    from gan_ablate.scoring.extractors import build_extractor

    extractor = build_extractor("digits", torch.device("cpu"))
    images = torch.zeros(512, 1, 28, 28, dtype=torch.uint8)
    extractor(images)
    started = time.perf_counter()
    extractor(images)
    return (time.perf_counter() - started) / len(images) * 1e3


UNKNOWN_RUN_SEC = 60.0
"""Stands for the seconds of a run of which nothing is known before it is over."""


def missing_runs(plans: Sequence[Plan], store: Store, speed: Speed | None = None) -> list[AnyConfig]:
    """List the runs of plans that have no result yet, seed by seed, those of a seed that take longest first.

    A run that several plans share is listed once.
    """
    seconds = estimate_seconds(plans, store, speed)
    missing = [variant.with_seed(seed) for variant, seed in find_missing_ids(plans, store).values()]
    return sorted(missing, key=lambda config: (config.seed, -seconds[config.run_id]))


def find_missing_ids(plans: Sequence[Plan], store: Store) -> dict[str, tuple[Variant, int]]:
    """Name the same runs, in the plans' order, with the variant and the seed of each."""
    places = {variant.run_id(seed): (variant, seed) for plan in plans for variant, seed in plan.seeded_variants}
    known = summarise_runs(store, places)
    return {
        run_id: place for run_id, place in places.items() if run_id not in known or known[run_id].status == "failed"
    }


def estimate_seconds(plans: Sequence[Plan], store: Store, speed: Speed | None = None) -> dict[str, float]:
    """Estimate the seconds of every run of some plans.

    Args:
        plans: of the runs.
        store: whose runs of the same variants tell where the machine's speed is not known.
        speed: from ``calibration.calibrate``.
    """
    known = speed or Speed(step_ms=_seen_step_ms(plans, store))
    return {
        variant.run_id(seed): seconds
        for plan in plans
        for variant in plan.variants
        for seconds in (_run_sec(variant.config, known),)
        for seed in plan.seeds_of(variant)
    }


def _run_sec(config: AnyConfig, speed: Speed) -> float:
    """Estimate the seconds of a run; the cost of a user's script is unknown, so all its runs count alike."""
    return UNKNOWN_RUN_SEC if isinstance(config, ExternalConfig) else estimate_run_sec(config, speed)


def _seen_step_ms(plans: Sequence[Plan], store: Store) -> dict[str, float]:
    """InterimAnalysis up the median milliseconds of a step of every variant that has runs, by its ``step_key``."""
    runs = summarise_runs(store, (run_id for plan in plans for run_id in plan.run_ids))
    seen = {}
    for one, variant in ((plan, variant) for plan in plans for variant in plan.variants):
        if isinstance(variant.config, ExternalConfig):
            continue
        ended = [runs[run_id] for seed in one.seeds_of(variant) if (run_id := variant.run_id(seed)) in runs]
        times = [run.step_ms for run in ended if run.step_ms is not None]
        if times:
            seen[step_key(variant.config)] = statistics.median(times)
    return seen


def place_plans(plan: Plan, store: Store) -> list[Plan]:
    """Part a plan by its blocks, under names that take no other block's place.

    A grid's file may have been given another data set, or base preset, since it was run into the folder.
    """
    return [_apart_from(store.find_plan(block.name), block) for block in plan.blocks]


def _apart_from(previous: Plan | None, plan: Plan) -> Plan:
    if previous is None:
        return plan
    dataset = plan.baseline.config.dataset
    own = dict(plan.baseline.block)
    if "preset" not in own and plan.grid.base != previous.grid.base:
        own["preset"] = plan.grid.base
    if "dataset" not in own and dataset != previous.baseline.config.dataset:
        own["dataset"] = dataset
    variants = tuple(variant.model_copy(update={"block": order_block(own)}) for variant in plan.variants)
    return plan.model_copy(update={"variants": variants})


def grow_plan(plan: Plan, store: Store) -> Plan:
    """Mark a plan whose seeds are not those that the same variants were run with before: answers have been looked at.

    Its intervals then have to hold at every look. That stays so, however many seeds are asked for later.
    """
    others = store.known_seeds(plan) - {len(plan.seeds)}
    return plan.model_copy(update={"intervals": "sequential"}) if others else plan
