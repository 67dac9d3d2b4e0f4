"""Where and how runs are computed, and the observer of their progress."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from gan_ablate.design.validation import Model, check_device_name
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.records import Record


ExecutorName = Literal["local", "ray", "slurm"]

MAX_JOBS = 1_024
"""More processes than any one machine has cores, and fewer than its process table has room for."""

AbsolutePath = Annotated[str, BeforeValidator(lambda path: str(Path(path).absolute()))]
"""Workers, nodes of a cluster and jobs of a scheduler start in other folders than the command."""


class Compute(Model):
    """Where and how runs are computed: nothing in here changes their results.

    >>> from gan_ablate import Compute
    >>> Compute(device="cuda:1", jobs=2).jobs
    2

    Raises:
        UserError: if a value is one that no machine could compute with.
    """

    data_dir: str | Path = "data"
    """The folder where torchvision's data sets lie or are downloaded to."""
    device: str = "cpu"
    """``cpu``; ``cuda`` for all GPUs of this machine that are visible, a run each; ``cuda:1``, ``cuda:0,cuda:2``."""
    jobs: int | None = None
    """How many runs at once; by default one per core, or one per GPU, which users' scripts take by themselves."""
    inception_weights: str | Path | None = None
    """A copy of the weights for runs that are scored with Inception."""
    checkpoint_sec: Annotated[float, Field(allow_inf_nan=True)] = 60.0
    """Seconds of training between two checkpoints, from which a run that was stopped resumes."""
    keep_checkpoints: bool = False
    """Whether to keep the last checkpoint of every run, from which the same run of more steps resumes."""
    executor: ExecutorName = "local"
    """Worker processes on this machine, tasks on a Ray cluster, or jobs of Slurm."""
    ray_address: str | None = None
    """The address of a Ray cluster; by default Ray starts one on this machine."""
    slurm: dict[str, str] = {}
    """Settings of sbatch, such as ``{"partition": "gpu"}``."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what no machine could compute with, without loading PyTorch; a worker checks what this one has."""
        if not 0 <= self.checkpoint_sec < math.inf:
            raise UserError(f"{option('checkpoint_sec', self.checkpoint_sec)}: valid: a number of seconds from 0")
        check_device_name(self.device, may_be_several=self.executor == "local")
        if self.inception_weights is not None and not Path(self.inception_weights).is_file():
            raise UserError(f"{option('inception_weights', self.inception_weights)}: no such file")
        if self.jobs is not None and not 1 <= self.jobs <= MAX_JOBS:
            raise UserError(f"{option('jobs', self.jobs)}: valid: a whole number from 1 to {MAX_JOBS:,}")
        if self.ray_address is not None and self.executor != "ray":
            raise UserError(f"{option('ray_address', self.ray_address)}: valid: with {option('executor', 'ray')}")
        if self.slurm and self.executor != "slurm":
            raise UserError(f"{option('slurm', next(iter(self.slurm)))}: valid: with {option('executor', 'slurm')}")
        return self


class RunContext(Compute):
    """What a worker has to know besides a run's configuration."""

    data_dir: AbsolutePath
    inception_weights: AbsolutePath | None = None
    out: AbsolutePath
    """The results folder."""
    folders: dict[str, str] = {}
    """``NAME@HASH`` of an image folder or of user code → where it lies."""
    trained: dict[str, str] = {}
    """Run id → the folder of a finished run whose generator is scored, instead of training; see ``find_trained``."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        run_id: the run.
        step: generator steps so far.
        steps_per_sec: since the last report.
        loss_d: the discriminator's last loss.
        loss_g: the generator's last loss.
        fid: the last FID along training, or None before the first.
        fid_step: the step at which it was taken.
    """

    run_id: str
    step: int
    steps_per_sec: float
    loss_d: float
    loss_g: float
    fid: float | None
    fid_step: int | None


class RunObserver:
    """An observer of runs: its methods are called as things happen. A subclass overrides those that it needs.

    >>> from gan_ablate import RunObserver
    >>> class Counter(RunObserver):
    ...     num_finished = 0
    ...
    ...     def finished(self, record):
    ...         self.num_finished += 1
    """

    def preparing(self, what: str, done: int, total: int) -> None:
        """Called before the first run, with what is measured or loaded, how much of it is done, and how much it is."""

    def advised(self, notes: Sequence[str]) -> None:
        """Called before the first run, with sentences on what would save time on this machine."""

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Called with the ids of runs that will be computed, and about how many seconds each takes."""

    def started(self, config: AnyConfig) -> None:
        """Called when a worker starts a run."""

    def progressed(self, progress: Progress) -> None:
        """Called a few times a second for every run under way."""

    def noted(self, config: AnyConfig, words: str) -> None:
        """Called when a run waits for another command, or is tried again; ``words`` say which and why."""

    def finished(self, record: Record) -> None:
        """Called when a run is over."""

    def analysed(self, block: Plan, analysis: Any) -> None:
        """Called after each interim analysis, with its block's plan and an ``analysis.allocation.InterimAnalysis``."""

    def tick(self) -> None:
        """Called several times a second, whatever happens."""
