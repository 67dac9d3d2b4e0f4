"""The forecast: time this machine, order missing runs by their time, and say how long they take."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.config import RunConfig
from gan_ablate.design.external import ExternalConfig
from gan_ablate.execution.context import RunContext, RunObserver
from gan_ablate.execution.executors.gpus import choose_gpus
from gan_ablate.execution.executors.local import measure_steps
from gan_ablate.execution.schedule import find_missing_ids
from gan_ablate.execution.store import summarise_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.store import Store

MAX_MEASURING_SEC = 15.0
"""After so many seconds measuring ends; the steps of variants that were not timed count as the median of the others."""

KEPT_SEC = 24 * 3600
"""How long a measurement is used: the machine may have been busy."""

UNKNOWN_RUN_SEC = 60.0
"""Seconds of a run of a user's script, which nothing tells before it is over."""

EMULATED_BF16_SLOWDOWN = 1.2
"""How many times as long as in float32 a step takes in bfloat16 on a CPU that has to emulate it."""

SETTINGS_OF_NO_COST = ("seed", "steps", "scoring", "dataset", "holdout", "fit")
"""Fields that leave a step's time as it is."""

# Measured on one core of an AMD EPYC with AVX2, in float32, with its other core busy. ``Speed.slowness`` scales them.
_STEP_MS = 40.0  # of ``dcgan-28``, where no step was measured
_CLASSIFIER_MS_PER_IMAGE = 0.09
_INCEPTION_MS_PER_IMAGE = 170.0  # also a user's extractor, where neither was measured
_METRICS_SEC = 2.5  # of FID, KID, precision, recall, density and coverage
_RUN_SEC = 0.3  # networks, sample grids and files
_WORKER_SEC = 3.0  # of a worker's first run: data and the floor's scores
_REPORT_SEC, _REPORT_SEC_PER_VARIANT = 6.0, 0.3
_REPRESENTATION_SEC = 15.0
_SAMPLING_SHARE = 0.1  # of the time to train with an image, that it takes to sample one, where neither was measured


@dataclass(frozen=True)
class Speed:
    """The measured speed of a machine.

    Attributes:
        step_ms: ``step_key`` of a variant → milliseconds of one of its training steps, as many runs at once as there
            will be.
        sample_ms: the same key → milliseconds to sample an image.
        start_sec: seconds until a worker process is ready.
        classifier_ms: milliseconds of one image in the digits' classifier.
        extractor_ms: ``extractor_key`` of a large extractor → milliseconds of one image.
        failed: ``step_key`` of variants whose steps failed, so that they are not tried again.
    """

    step_ms: Mapping[str, float] = field(default_factory=dict)
    sample_ms: Mapping[str, float] = field(default_factory=dict)
    start_sec: float = 5.0
    classifier_ms: float = _CLASSIFIER_MS_PER_IMAGE
    extractor_ms: Mapping[str, float] = field(default_factory=dict)
    failed: Sequence[str] = ()

    @property
    def slowness(self) -> float:
        """How many times as long as the machine of this module's constants this machine takes."""
        return self.classifier_ms / _CLASSIFIER_MS_PER_IMAGE

    def step_sec(self, config: RunConfig) -> float:
        """Return the seconds of a training step: as measured, or the median of what was measured."""
        usual = statistics.median(self.step_ms.values()) if self.step_ms else _STEP_MS * self.slowness
        return self.step_ms.get(step_key(config), usual) / 1e3

    def extract_sec(self, config: RunConfig) -> float:
        """Return the seconds of an image in a run's extractor: as measured, or scaled from another machine."""
        if not _has_large_extractor(config):
            return self.classifier_ms / 1e3
        usual = _INCEPTION_MS_PER_IMAGE * self.slowness
        return self.extractor_ms.get(extractor_key(config), usual) / 1e3

    def sample_sec(self, config: RunConfig) -> float:
        """Return the seconds to sample an image: as measured, or a share of a training step."""
        measured = self.sample_ms.get(step_key(config))
        share = _SAMPLING_SHARE / config.batch_size / config.d_steps_per_g_step
        return self.step_sec(config) * share if measured is None else measured / 1e3


def step_key(config: RunConfig) -> str:
    """Hash all settings that a step's time depends on."""
    plain = config.model_copy(update=dict.fromkeys(SETTINGS_OF_NO_COST))
    return hashlib.sha256(plain.model_dump_json(warnings=False).encode()).hexdigest()[:12]


def extractor_key(config: RunConfig) -> str:
    """Name an extractor that is timed: ``inception``, or a user's by its settings and the hash of its code.

    Inception's images are always 299×299. A user's may be of the runs' size.
    """
    features = config.scoring.features
    return features if isinstance(features, str) else f"{features.model_dump_json()} {config.image_size}"


def _has_large_extractor(config: RunConfig) -> bool:
    return config.scoring.features not in ("digits", "fashion", "none")


CPU_FLAGS = Path("/proc/cpuinfo")

PRECISIONS = {"bf16": "bfloat16", "tf32": "TF32"}
"""Precisions that round more than float32, with their names in words."""
WORTH_SAYING = 0.9
"""The share of a step's time below which another precision is worth a line."""
LONG_SEC = 600.0
"""From so many seconds on, a grid's runs take long enough to measure another precision, which takes ten."""
MANY_STEPS = 100_000
"""The same on a GPU, where the time of a step is not known before: minutes of small models, hours of large ones."""


def find_roundings(plans: Sequence[Plan], device: str) -> list[tuple[RunConfig, RunConfig]]:
    """Pair each baseline in float32 with the same run in a precision that rounds more, where this machine may have it.

    Grids that vary the precision are left out. A processor says itself whether it multiplies bfloat16; PyTorch would
    tell, too, but its import takes seconds. A GPU shows it when it is timed.
    """
    precisions = list(PRECISIONS)
    if device == "cpu":
        try:
            flags = set(CPU_FLAGS.read_text("utf-8").split())
        except OSError:  # not Linux
            return []
        precisions = ["bf16"] if flags & {"avx512_bf16", "amx_bf16", "bf16"} else []
    exact = [plan.baseline.trained for plan in plans if _set_precisions(plan) == {"fp32"}]
    return [(config, config.model_copy(update={"precision": other})) for config in exact for other in precisions]


def _set_precisions(plan: Plan) -> set[str]:
    """List the precisions of a plan's variants; a script has none."""
    configs = [variant.config for variant in plan.variants]
    return {config.precision if isinstance(config, RunConfig) else "" for config in configs}


def calibrate(
    plans: Sequence[Plan], store: Store, num_jobs: int, device: str, observer: RunObserver | None = None
) -> Speed | None:
    """Time some steps of every variant that was not timed before, as many at once as there will be runs.

    Args:
        plans: only their variants with missing runs are timed.
        store: the results folder; its cache keeps the measurements.
        num_jobs: how many runs go on at once.
        device: of the runs. On a GPU nothing is measured: the first runs show what it takes.
        observer: is told how many variants are timed.

    Returns:
        The speed; None on a GPU, for users' scripts, and where the measurement fails.
    """
    if device != "cpu" or any(
        isinstance(variant.config, ExternalConfig) for plan in plans for variant in plan.variants
    ):
        return None
    variants = {id(variant): variant.trained for variant, _ in find_missing_ids(plans, store).values()}
    # In the order of their hashes: where time is short, those that are timed come from everywhere in the plans.
    by_key = {step_key(config): config for config in variants.values()}
    steps = {key: by_key[key] for key in sorted(by_key)}
    extractors = {extractor_key(config): config for config in variants.values() if _has_large_extractor(config)}
    return _measure(plans, steps, extractors, store.cache_dir / "speed.json", num_jobs, device, observer)


def _measure(
    plans: Sequence[Plan],
    steps: Mapping[str, RunConfig],
    extractors: Mapping[str, RunConfig],
    path: Path,
    num_jobs: int,
    device: str,
    observer: RunObserver | None,
) -> Speed | None:
    """Time what a file of a results folder's cache does not have; None where that fails."""
    machine: list[object] = [platform.node(), platform.machine(), os.cpu_count(), num_jobs, *choose_gpus(device)]
    known = _load(path, machine)
    if known is not None:
        steps = {key: config for key, config in steps.items() if key not in {*known.step_ms, *known.failed}}
        extractors = {key: config for key, config in extractors.items() if key not in known.extractor_ms}
    if not steps and not extractors:
        return known or Speed()
    folders = {name: folder for plan in plans for name, folder in plan.folders.items()}
    context = RunContext(out=str(path.parents[1]), data_dir="data", device=device, folders=folders)
    try:
        observer = observer or RunObserver()
        measured = measure_steps(steps, extractors, context, num_jobs, MAX_MEASURING_SEC, observer)
    except (EOFError, OSError):  # a worker died, mostly for want of memory: the runs will say so; or none was ready
        return known
    known = known or Speed()
    timed = {key: times for key, times in measured.steps.items() if times is not None}
    speed = Speed(
        step_ms={**known.step_ms, **{key: step for key, (step, _) in timed.items()}},
        sample_ms={**known.sample_ms, **{key: sample for key, (_, sample) in timed.items()}},
        start_sec=measured.start_sec,
        classifier_ms=measured.classifier_ms,
        extractor_ms={**known.extractor_ms, **measured.extractor_ms},
        failed=[*known.failed, *(measured.steps.keys() - timed.keys())],
    )
    with suppress(OSError):  # without a cache it is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"machine": machine, **asdict(speed)}, indent=1))
    return speed


def _load(path: Path, machine: list[object]) -> Speed | None:
    try:
        if time.time() - path.stat().st_mtime > KEPT_SEC:
            return None
        data = json.loads(path.read_text("utf-8"))
        if data.pop("machine") != machine:
            return None
        speed = Speed(**data)
        times = (*speed.step_ms.values(), *speed.sample_ms.values(), *speed.extractor_ms.values())
        is_sound = all(value > 0 for value in (*times, speed.start_sec, speed.classifier_ms))
    except Exception:  # a damaged file is written anew
        return None
    return speed if is_sound else None


def advise_precision(
    plans: Sequence[Plan],
    store: Store,
    speed: Speed | None,
    num_jobs: int,
    device: str,
    observer: RunObserver | None = None,
    *,
    is_asked: bool = False,
) -> list[str]:
    """Say what other precisions would save of a step's time on this machine, by measurement.

    Args:
        plans: of the runs.
        store: the results folder; its cache keeps what is measured.
        speed: as measured in the runs' own precision; None where it is not known.
        num_jobs: how many runs go on at once.
        device: of the runs.
        observer: is told how many steps are timed.
        is_asked: whether to measure even where the missing runs take little time.
    """
    pairs, missing = find_roundings(plans, device), find_missing_ids(plans, store)
    if not pairs or not missing or not (is_asked or _take_long(plans, store, speed, num_jobs, device)):
        return []
    configs = {step_key(config): config for pair in pairs for config in pair}
    # One by one in one worker: times under other loads, or on other GPUs, do not compare.
    measured = _measure(plans, configs, {}, store.cache_dir / "precisions.json", 1, device, observer)
    return [] if measured is None else precision_notes(pairs, measured)


def _take_long(plans: Sequence[Plan], store: Store, speed: Speed | None, num_jobs: int, device: str) -> bool:
    missing = find_missing_ids(plans, store)
    if device != "cpu":
        configs = [variant.config for variant, _ in missing.values()]
        return sum(config.steps for config in configs if isinstance(config, RunConfig)) >= MANY_STEPS
    if speed is None:
        return False
    seconds = estimate_seconds(plans, store, speed)
    return estimate_total_sec([seconds[run_id] for run_id in missing], num_jobs, len(plans), speed) >= LONG_SEC


def precision_notes(pairs: Sequence[tuple[RunConfig, RunConfig]], speed: Speed) -> list[str]:
    """Say what another precision saves of a step's time, where that is a tenth or more.

    Args:
        pairs: runs in float32, and the same in another precision.
        speed: as measured.
    """
    notes = []
    for exact, rounded in pairs:
        before, after = (speed.step_ms.get(step_key(config)) for config in (exact, rounded))
        if before is not None and after is not None and (share := after / before) <= WORTH_SAYING:
            name = f"{exact.dataset}, batches of {exact.batch_size}"
            notes.append(
                f"In {PRECISIONS[rounded.precision]} a step of the baseline ({name}) takes {share:.2f} of its time on "
                f"this machine: --set precision={rounded.precision}, which makes other runs."
            )
    return list(dict.fromkeys(notes))


def missing_runs(plans: Sequence[Plan], store: Store, speed: Speed | None = None) -> list[AnyConfig]:
    """List the runs of plans that have no result yet, seed by seed, the longest of a seed first.

    A run that several plans share is listed once. Runs whose time is unknown keep the plans' order.
    """
    seconds = estimate_seconds(plans, store, speed)
    missing = [variant.with_seed(seed) for variant, seed in find_missing_ids(plans, store).values()]
    return sorted(missing, key=lambda config: (config.seed, -seconds[config.run_id]))


def estimate_seconds(plans: Sequence[Plan], store: Store, speed: Speed | None = None) -> dict[str, float]:
    """Estimate the seconds of every run of some plans.

    Args:
        plans: of the runs.
        store: its runs of the same variants give the times of steps where ``speed`` is None.
        speed: from ``calibrate``.
    """
    known = speed or Speed(_recorded_step_ms(plans, store))
    return {
        variant.run_id(seed): seconds
        for plan in plans
        for variant in plan.variants
        for seconds in (estimate_run_sec(variant.config, known),)
        for seed in plan.seeds_of(variant)
    }


def _recorded_step_ms(plans: Sequence[Plan], store: Store) -> dict[str, float]:
    """Return the median milliseconds of a step of every variant that has runs, by its ``step_key``."""
    runs = summarise_runs(store, (run_id for plan in plans for run_id in plan.run_ids))
    recorded = {}
    for one, variant in ((plan, variant) for plan in plans for variant in plan.variants):
        if isinstance(variant.config, ExternalConfig):
            continue
        ended = [runs[run_id] for seed in one.seeds_of(variant) if (run_id := variant.run_id(seed)) in runs]
        times = [run.step_ms for run in ended if run.step_ms is not None]
        if times:
            recorded[step_key(variant.config)] = statistics.median(times)
    return recorded


def estimate_run_sec(config: AnyConfig, speed: Speed) -> float:
    """Estimate the seconds of one run on one core, scoring included."""
    if isinstance(config, ExternalConfig):
        return UNKNOWN_RUN_SEC
    return _RUN_SEC * speed.slowness + config.steps * speed.step_sec(config) + _scoring_sec(config, speed)


def _scoring_sec(config: RunConfig, speed: Speed) -> float:
    scoring = config.scoring
    if scoring.features == "none":
        return 0.0
    # The final images are scored twice where G has batch norm: with running averages and with batch statistics.
    has_norm = config.generator.kind == "module" or config.generator.norm != "none"
    num_final = scoring.num_samples * ((2 if has_norm else 1) + scoring.keep_best)
    num_images = num_final + scoring.curve_points * scoring.curve_samples
    fixed_sec = _METRICS_SEC * (1 + scoring.keep_best) + (_REPRESENTATION_SEC if scoring.representation else 0.0)
    return num_images * (speed.sample_sec(config) + speed.extract_sec(config)) + fixed_sec * speed.slowness


def estimate_total_sec(run_secs: Sequence[float], num_jobs: int, num_variants: int, speed: Speed) -> float:
    """Estimate the seconds of a grid from its start to its report.

    Args:
        run_secs: seconds of each missing run, in the order in which they begin.
        num_jobs: how many runs go on at once.
        num_variants: how many variants the report has.
        speed: of the machine.
    """
    ends = [_WORKER_SEC * speed.slowness if run_secs else 0.0] * num_jobs
    for seconds in run_secs:
        ends[ends.index(min(ends))] += seconds
    report_sec = (_REPORT_SEC + _REPORT_SEC_PER_VARIANT * num_variants) * speed.slowness
    return (speed.start_sec if run_secs else 0.0) + max(ends) + report_sec
