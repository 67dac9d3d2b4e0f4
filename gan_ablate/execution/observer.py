"""Observers: the events of runs, and the protocol of those who receive them. It does not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_ablate.design.configs import AnyConfig
    from gan_ablate.execution.store import Record


@dataclass(frozen=True)
class Progress:
    """How far a run is: what a line of the display shows.

    ``fid`` is the last one along training, taken at ``fid_step``; both are None before there is one.
    """

    run_id: str
    step: int
    steps_per_sec: float
    loss_d: float
    loss_g: float
    fid: float | None
    fid_step: int | None


class RunObserver(Protocol):
    """What the display of a grid's progress has to understand."""

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Note that these runs, by their ids, will be computed, and about how long each takes."""

    def started(self, config: AnyConfig) -> None:
        """Note that a worker has taken up a run."""

    def progressed(self, progress: Progress) -> None:
        """Note how far a run is."""

    def noted(self, config: AnyConfig, words: str) -> None:
        """Note what happened to a run that goes on, or will."""

    def finished(self, record: Record) -> None:
        """Note that a run is over."""

    def tick(self) -> None:
        """Note that time passes."""


class Silent:
    """An observer that does nothing."""

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Ignore."""

    def started(self, config: AnyConfig) -> None:
        """Ignore."""

    def progressed(self, progress: Progress) -> None:
        """Ignore."""

    def noted(self, config: AnyConfig, words: str) -> None:
        """Ignore."""

    def finished(self, record: Record) -> None:
        """Ignore."""

    def tick(self) -> None:
        """Ignore."""
