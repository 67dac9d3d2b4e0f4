"""The context of runs: where and how they are computed, and who is told of their progress."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import AfterValidator

from gan_ablate.design.validation import Model, check_device_name
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.execution.records import Record


CHECKPOINT_SEC = 60.0
"""Seconds of training between two checkpoints, unless it is said otherwise."""


AbsolutePath = Annotated[str, AfterValidator(lambda path: str(Path(path).absolute()))]
"""Workers, nodes of a cluster and jobs of a scheduler start in folders of their own."""


class RunContext(Model):
    """Where and how a run is computed: nothing in here changes its answer.

    Paths are made absolute. ``folders`` says where each ``folder:NAME@HASH`` data set lies; ``checkpoint_sec`` how many
    seconds of training lie between two checkpoints, and ``keeps_checkpoints`` whether the last one stays when the run
    is over.
    """

    out: AbsolutePath
    data_dir: AbsolutePath
    device: str = "cpu"
    inception_weights: AbsolutePath | None = None
    folders: dict[str, str] = {}
    checkpoint_sec: float = CHECKPOINT_SEC
    keeps_checkpoints: bool = False


def check_context(device: str, inception_weights: str | Path | None, checkpoint_sec: float = CHECKPOINT_SEC) -> None:
    """Refuse what no machine could run with, without loading PyTorch; a worker checks what this one has.

    Raises:
        UserError: if the device is of no kind that training supports, the weights' file is not there, or the seconds
            are below none.
    """
    if not 0 <= checkpoint_sec < math.inf:
        raise UserError(f"--checkpoint-every {checkpoint_sec:g}: valid: a number of seconds from 0")
    check_device_name(device)
    if inception_weights is not None and not Path(inception_weights).is_file():
        raise UserError(f"--inception-weights {inception_weights}: no such file")


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
