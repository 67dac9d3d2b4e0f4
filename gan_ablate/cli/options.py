"""Options of ``run`` and ``plan``: declare, check and resolve them into plans."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from gan_ablate.design.grid import MAX_SEEDS, BudgetName, load_grids
from gan_ablate.design.plan import Plan
from gan_ablate.design.plan import plan as resolve_plan
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.execution.context import CHECKPOINT_SEC, check_context
from gan_ablate.execution.executors import ExecutorName, check_settings, choose_executor
from gan_ablate.execution.executors.local import resolve_jobs
from gan_ablate.reporting.exports import check_tensorboard

if TYPE_CHECKING:
    from collections.abc import Callable

    from gan_ablate.execution.executors import Executor


def expand_home(path: Path | None) -> Path | None:
    """Put a user's home in the place of ``~``, as a shell does not in ``--out=~/results``.

    Raises:
        UserError: if there is no such home.
    """
    try:
        return None if path is None else path.expanduser()
    except RuntimeError:
        raise UserError(f"{shorten(str(path))}: there is no such home folder; valid: a path without ~") from None


OutOption = Annotated[Path, typer.Option(help="The results folder.", callback=expand_home)]
DataDir = Annotated[
    Path, typer.Option(help="Where torchvision's data sets lie or are downloaded to.", callback=expand_home)
]

RESULTS = Path("results")
DATA = Path("data")
MAX_SEEDS_UNTIL_SETTLED = 30


@dataclass(frozen=True)
class RunOptions:
    """What ``run`` and ``plan`` are asked for: a run's command line can be planned by changing one word."""

    grids: Annotated[
        list[str],
        typer.Option(
            "--grid", "-g", help="A shipped grid's or study's name, or the path of your own .toml; repeatable."
        ),
    ]
    budget: Annotated[BudgetName, typer.Option(help="How much to spend: steps, seeds and samples.")] = "standard"
    seeds: Annotated[int | None, typer.Option(help="How many seeds, instead of the budget's number.")] = None
    until: Annotated[
        Literal["settled"] | None, typer.Option(help="Add seeds, one by one, until every main effect has an answer.")
    ] = None
    max_seeds: Annotated[int | None, typer.Option(help="At most so many, with --until settled.  [default: 30]")] = None
    max_hours: Annotated[
        float | None, typer.Option(help="With --until settled: after so many hours, begin no other seed.")
    ] = None
    steps: Annotated[int | None, typer.Option(help="Generator steps of a run, instead of the budget's number.")] = None
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="mnist-10k, mnist, fashion-mnist, cifar10 or folder:PATH; twice: a block each."),
    ] = None
    bases: Annotated[
        list[str] | None, typer.Option("--base", help="Instead of the grid's base preset; twice: a block each.")
    ] = None
    data_dir: DataDir = DATA
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="path=value for every variant, such as batch_size=128; repeatable."),
    ] = None
    out: OutOption = RESULTS
    jobs: Annotated[int | None, typer.Option(help="Runs at once; by default one per core, or one on a GPU.")] = None
    checkpoint_sec: Annotated[
        float,
        typer.Option("--checkpoint-every", help="Seconds of training between two checkpoints of a run."),
    ] = CHECKPOINT_SEC
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep each run's last one: with more --steps it goes on there.")
    ] = False
    executor: Annotated[
        ExecutorName, typer.Option(help="Who computes: this machine, a Ray cluster (extra ray), Slurm (extra slurm).")
    ] = "local"
    ray_address: Annotated[str | None, typer.Option(help="Of a Ray cluster, with --executor ray.")] = None
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", help="With --executor slurm: sbatch's key=value; repeatable.")
    ] = None
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files, too, to tensorboard/ (extra tensorboard).")
    ] = False
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the user code, scripts and modules, that the grid names.")
    ] = False
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu"
    features: Annotated[
        Literal["inception"] | None, typer.Option(help="Score with Inception instead of the data set's own classifier.")
    ] = None
    inception_weights: Annotated[
        Path | None,
        typer.Option(
            help="A copy of Inception's weights, to score with them (implies --features inception).",
            callback=expand_home,
        ),
    ] = None

    def resolve(self) -> tuple[list[Plan], int]:
        """Return a plan for each grid, and how many runs go on at once.

        Raises:
            UserError: if an option, or the grid, is not valid.
        """
        check_context(self.device, self.inception_weights, self.checkpoint_sec)
        resolve_jobs(self.jobs, self.device)  # wrong options first
        self._check_until()
        check_settings(self.executor, self.ray_address, self._slurm_settings())
        if self.tensorboard:
            check_tensorboard()
        plans = [
            resolve_plan(
                grid,
                budget=self.budget,
                seeds=self.seeds if self.until is None else self.max_seeds or MAX_SEEDS_UNTIL_SETTLED,
                steps=self.steps,
                dataset=self.datasets,
                base=self.bases,
                features=self.features if self.inception_weights is None else "inception",
                overrides=self.overrides or (),
                allow_code=self.allow_code,
            )
            for grid in load_grids(self.grids)
        ]
        return plans, resolve_jobs(self.jobs, self.device, plans)

    def choose_executor(self) -> Executor | None:
        """Return who computes; None stands for this machine.

        Raises:
            UserError: if a setting is not ``key=value``, or the executor's package is not there.
        """
        return choose_executor(self.executor, ray_address=self.ray_address, slurm=self._slurm_settings())

    def _slurm_settings(self) -> dict[str, str]:
        settings = {}
        for setting in self.slurm or ():
            key, equals, value = setting.partition("=")
            if not (key.isidentifier() and equals and value):
                raise UserError(f"--slurm {shorten(setting)}: valid: key=value, such as partition=gpu")
            settings[key] = value
        return settings

    def _check_until(self) -> None:
        if self.until is None:
            for option, value in (("--max-seeds", self.max_seeds), ("--max-hours", self.max_hours)):
                if value is not None:
                    raise UserError(f"{option} {value}: valid: with --until settled")
            return
        if self.seeds is not None:
            raise UserError(f"--seeds {self.seeds}: with --until settled, the answers say how many; valid: --max-seeds")
        if self.max_seeds is not None and not 2 <= self.max_seeds <= MAX_SEEDS:
            raise UserError(f"--max-seeds {self.max_seeds}: valid: a whole number from 2 to {MAX_SEEDS}")
        if self.max_hours is not None and not self.max_hours > 0:
            raise UserError(f"--max-hours {self.max_hours}: valid: a number above 0")


def takes_run_options(command: Callable[[RunOptions], None]) -> Callable[..., None]:
    """Give a command an option for each field of ``RunOptions``: Typer reads a signature, not a dataclass."""

    @functools.wraps(command)
    def call(**given: Any) -> None:
        command(RunOptions(**given))

    hints = get_type_hints(RunOptions, include_extras=True)
    parameters = inspect.signature(RunOptions).parameters.values()
    signature = inspect.Signature([parameter.replace(annotation=hints[parameter.name]) for parameter in parameters])
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.__annotations__ = hints
    return call
