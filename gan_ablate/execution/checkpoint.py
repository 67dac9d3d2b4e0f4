"""Checkpoints: save the state of a training in one file with a checksum, and resume from it."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from gan_ablate.atomic_io import read_sealed, write_sealed
from gan_ablate.execution.recorder import BestWeights
from gan_ablate.training.loop import TrainingState
from gan_ablate.training.trainer import MEASURE_EVERY, Measurement

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gan_ablate.design.config import RunConfig
    from gan_ablate.execution.recorder import TrainingObserver
    from gan_ablate.execution.store import Store

LAYOUT = 2
"""The version of the file's layout; checkpoints of another version are not read."""

MAX_SHARE = 0.02
"""The largest share of a run's time that checkpoints may take."""

LAST_SEC = 10.0
"""Before scoring, a checkpoint older than so many seconds is written anew."""


class RunStoppedError(Exception):
    """A run stopped on request, at a checkpoint."""


@dataclass(frozen=True)
class _Checkpoint:
    """The state of a training, with its FID curve, its seconds and its origin.

    Attributes:
        curve: (step, training seconds, FID) of each point.
        oscillation: (step, FID) of each point whose oscillation is measured.
        curve_sec: seconds that sampling and scoring took.
        total_sec: seconds of the run.
        origin: what the numbers depend on besides the configuration.
        best: the weights of the lowest point, where the run keeps them.
    """

    state: TrainingState
    curve: list[tuple[int, float, float]]
    oscillation: list[tuple[int, float]]
    curve_sec: float
    total_sec: float
    origin: dict[str, str]
    best: BestWeights | None = None


class RunCheckpoints:
    """Keeps the latest state of one run on disk, and finds the state to resume from.

    A run resumes from its own state, or from the state of the same run with fewer steps, if both take the same
    measurements up to there.

    Args:
        config: the run.
        store: the results folder.
        observer: of the training; its FID curve is part of the state.
        origin: what the run's numbers depend on besides its configuration. A state of another origin is not used.
        is_scored: whether FID is measured during training.
        every_sec: seconds of training between two checkpoints; 0 for one after every step.
        keeps_last: whether the state after the last step is always kept.
        should_stop: called after every step; True stops the run at a checkpoint.
        log: receives which state was found, and which could not be written.

    Attributes:
        earlier_sec: seconds of the run before it was resumed.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        store: Store,
        observer: TrainingObserver,
        origin: Mapping[str, str],
        is_scored: bool,
        every_sec: float,
        keeps_last: bool,
        should_stop: Callable[[], bool],
        log: logging.Logger,
    ) -> None:
        self._config, self._store, self._observer, self._is_scored = config, store, observer, is_scored
        self._origin, self._every_sec, self._keeps_last = dict(origin), every_sec, keeps_last
        self._should_stop, self._log = should_stop, log
        self._started_at = self._saved_at = time.perf_counter()
        self._save_sec = 0.0
        self.earlier_sec = 0.0

    def load(self) -> TrainingState | None:
        """Return the state to resume from, and restore the observer; None if the run begins at step 0."""
        own = self._store.checkpoint_path(self._config)
        found = self._read(own)
        if found is not None and not self._has_sample_grids(found.state.step):
            self._log.warning("%s: its run's sample grids are gone; begins anew", own)
            found = None
        if found is None:
            found = self._find_shorter(own)
        if found is None:
            return None
        self._observer.restore(found.curve, found.oscillation, found.curve_sec, found.state.step, found.best)
        self.earlier_sec = found.total_sec
        self._log.info("goes on from step %d", found.state.step)
        self._started_at = self._saved_at = time.perf_counter()
        return found.state

    def is_due(self, step: int) -> bool:
        """Whether the last checkpoint is older than the limit, or the run stops here."""
        age, limit = time.perf_counter() - self._saved_at, self._every_sec
        if limit:  # large networks are saved more rarely than asked for; 0 means after every step
            limit = max(limit, self._save_sec / MAX_SHARE)
        if step == self._config.steps:
            limit = 0.0 if self._keeps_last else min(LAST_SEC, limit)
        return age >= limit or self._should_stop()

    def save(self, state: TrainingState) -> None:
        """Replace the last checkpoint atomically.

        Raises:
            RunStoppedError: if the run stops here.
        """
        observer = self._observer
        curve = zip(observer.curve_steps, observer.curve_train_sec, observer.curve_fid, strict=True)
        total_sec = self.earlier_sec + time.perf_counter() - self._started_at
        oscillation = zip(observer.oscillation_steps, observer.oscillation_fid, strict=True)
        checkpoint = _Checkpoint(
            state, list(curve), list(oscillation), observer.curve_sec, total_sec, self._origin, observer.best
        )
        started = time.perf_counter()
        try:
            write_sealed(self._store.checkpoint_path(self._config), _pack(checkpoint))
        except OSError as refused:  # the run works without one
            self._log.warning("step %d: no checkpoint could be written (%s)", state.step, refused)
        self._saved_at = time.perf_counter()
        self._save_sec = self._saved_at - started
        if self._should_stop():
            self._log.info("stopped at step %d", state.step)
            raise RunStoppedError

    def remove(self) -> None:
        """Delete the checkpoint of a run that is over."""
        path = self._store.checkpoint_path(self._config)
        path.unlink(missing_ok=True)
        with suppress(OSError):  # the same run of another length has one there
            path.parent.rmdir()

    def _has_sample_grids(self, step: int) -> bool:
        """Whether all sample grids up to a step exist."""
        known = {sample_grid.name for sample_grid in self._store.sample_grids(self._config.run_id)}
        return known >= set(self._sample_grids_until(step))

    def _sample_grids_until(self, step: int) -> list[str]:
        return [f"step-{at:06d}.png" for at in self._config.sheet_steps if at <= step]

    def _find_shorter(self, own: Path) -> _Checkpoint | None:
        """Find the furthest state of the same run with fewer steps, and copy its sample grids."""
        if self._config.lr_schedule.kind != "constant":
            self._log.info("its learning rates depend on the number of steps: no shorter run leads here")
            return None
        others = [path for path in own.parent.glob(f"*{own.suffix}") if path != own]
        usable = [
            (found, path) for path in others if (found := self._read(path)) is not None and self._leads_here(found)
        ]
        if not usable:
            return None
        found, path = max(usable, key=lambda pair: pair[0].state.step)
        sample_grids = {sample_grid.name: sample_grid for sample_grid in self._store.sample_grids(path.stem)}
        names = self._sample_grids_until(found.state.step)
        if not sample_grids.keys() >= set(names):
            return None
        samples = self._store.run_dir(self._config.run_id) / "samples"
        samples.mkdir(parents=True, exist_ok=True)
        try:
            for name in names:
                shutil.copyfile(sample_grids[name], samples / name)
        except FileNotFoundError:  # another process deletes the other run
            return None
        return replace(
            found,
            curve=[point for point in found.curve if point[0] in self._config.curve_steps],
            oscillation=[point for point in found.oscillation if point[0] in self._config.oscillation_steps],
        )

    def _leads_here(self, found: _Checkpoint) -> bool:
        """Whether this run takes the same measurements up to a state of another run."""
        step = found.state.step
        wanted, fine = (
            {at for at in steps if at <= step} for steps in (self._config.curve_steps, self._config.oscillation_steps)
        )
        has_points = not self._is_scored or (
            {at for at, _, _ in found.curve} >= wanted and {at for at, _ in found.oscillation} >= fine
        )
        # The lowest of this run's points may be a higher one of the other's, whose weights are gone.
        has_best = found.best is None or found.best.step in wanted
        return step <= self._config.steps and step % MEASURE_EVERY == 0 and has_points and has_best

    def _read(self, path: Path) -> _Checkpoint | None:
        """Read a checkpoint; log one that is damaged or of another origin, and return None."""
        try:
            found = _unpack(read_sealed(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as broken:
            self._log.warning("%s: cannot be used (%s); begins anew", path, broken)
            return None
        other = {name: value for name, value in found.origin.items() if self._origin.get(name) != value}
        if other or found.origin.keys() != self._origin.keys():
            self._log.warning("%s: made with other %s; begins anew", path, ", ".join(other) or "inputs")
            return None
        return found


def _pack(checkpoint: _Checkpoint) -> bytes:
    state = checkpoint.state
    meta = {
        "layout": LAYOUT,
        "step": state.step,
        "peak_memory_bytes": state.peak_memory_bytes,
        "curve": checkpoint.curve,
        "oscillation": checkpoint.oscillation,
        "curve_sec": checkpoint.curve_sec,
        "total_sec": checkpoint.total_sec,
        "origin": checkpoint.origin,
    }
    best, best_weights = checkpoint.best, dict[str, torch.Tensor]()
    if best is not None:
        meta["best"] = best.step, best.fid
        best_weights["best"] = torch.frombuffer(bytearray(best.weights), dtype=torch.uint8)
    return save(
        {
            **{f"state/{name}": tensor for name, tensor in state.tensors.items()},
            "history": torch.tensor([astuple(row) for row in state.history], dtype=torch.float64),
            "times_ms": torch.tensor(state.times_ms, dtype=torch.float64),
            **best_weights,
            "meta": torch.frombuffer(bytearray(json.dumps(meta).encode("utf-8")), dtype=torch.uint8),
        }
    )


def _unpack(content: bytes) -> _Checkpoint:
    tensors = load(content)
    meta: dict[str, Any] = json.loads(bytes(tensors.pop("meta").tolist()))
    if meta["layout"] != LAYOUT:
        raise ValueError(f"layout {meta['layout']}, not {LAYOUT}")
    history, times_ms, best = tensors.pop("history"), tensors.pop("times_ms"), None
    if "best" in meta:
        best_step, best_fid = meta["best"]
        best = BestWeights(best_step, best_fid, tensors.pop("best").numpy().tobytes())
    state = TrainingState(
        step=meta["step"],
        tensors={name.removeprefix("state/"): tensor for name, tensor in tensors.items()},
        history=[Measurement(int(step), *values) for step, *values in history.tolist()],
        times_ms=times_ms.tolist(),
        peak_memory_bytes=meta["peak_memory_bytes"],
    )
    curve = [(step, train_sec, fid) for step, train_sec, fid in meta["curve"]]
    oscillation = [(step, fid) for step, fid in meta["oscillation"]]
    return _Checkpoint(state, curve, oscillation, meta["curve_sec"], meta["total_sec"], meta["origin"], best)
