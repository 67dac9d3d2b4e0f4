"""Options of ``run`` and ``plan``: declare and check them, and resolve them into plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gan_ablate.design.grid import MAX_SEEDS, BudgetName, load_grids
from gan_ablate.design.plan import Plan
from gan_ablate.design.plan import plan as resolve_plan
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.execution.context import Compute, ExecutorName
from gan_ablate.execution.executors.local import resolve_jobs

if TYPE_CHECKING:
    from collections.abc import Callable


def expand_home(path: Path | None) -> Path | None:
    """Replace ``~`` by a user's home: a shell does not in ``--out=~/results``.

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
DEFAULTS = Compute()
DATA = Path(DEFAULTS.data_dir)
MAX_SEEDS_UNTIL_SETTLED = 30


@dataclass(frozen=True)
class RunOptions:
    """What ``run`` and ``plan`` are asked for.

    Attributes:
        plans: one a grid; with ``until_settled``, their seeds are all that may be spent.
        out: the results folder.
        compute: where and how runs are computed.
        num_jobs: how many runs are computed at once.
        until_settled: whether seeds are added until every main effect has an answer.
        max_hours: the number of hours after which no other seed is started.
        tensorboard: whether to write event files.
    """

    plans: list[Plan]
    out: Path
    compute: Compute
    num_jobs: int
    until_settled: bool
    max_hours: float | None
    tensorboard: bool


def takes_run_options(act: Callable[[RunOptions], None]) -> Callable[..., None]:
    """Make a command of a function of checked options: ``run`` and ``plan`` differ in one word on the command line."""

    def command(
        grids: Annotated[
            list[str],
            typer.Option(
                "--grid", "-g", help="A shipped grid's or study's name, or the path of your own .toml; repeatable."
            ),
        ],
        budget: Annotated[BudgetName, typer.Option(help="How much to spend: steps, seeds and samples.")] = "standard",
        seeds: Annotated[int | None, typer.Option(help="How many seeds, instead of the budget's number.")] = None,
        until: Annotated[
            Literal["settled"] | None,
            typer.Option(help="Add seeds, one by one, until every main effect has an answer."),
        ] = None,
        max_seeds: Annotated[
            int | None, typer.Option(help="At most so many, with --until settled.  [default: 30]")
        ] = None,
        max_hours: Annotated[
            float | None, typer.Option(help="With --until settled: after so many hours, begin no other seed.")
        ] = None,
        steps: Annotated[
            int | None, typer.Option(help="Generator steps of a run, instead of the budget's number.")
        ] = None,
        datasets: Annotated[
            list[str] | None,
            typer.Option(
                "--dataset", help="mnist-10k, mnist, fashion-mnist, cifar10 or folder:PATH; twice: a block each."
            ),
        ] = None,
        bases: Annotated[
            list[str] | None, typer.Option("--base", help="Instead of the grid's base preset; twice: a block each.")
        ] = None,
        data_dir: DataDir = DATA,
        overrides: Annotated[
            list[str] | None,
            typer.Option("--set", help="path=value for every variant, such as batch_size=128; repeatable."),
        ] = None,
        out: OutOption = RESULTS,
        jobs: Annotated[
            int | None, typer.Option(help="Runs at once; by default one per core, or one on a GPU.")
        ] = None,
        checkpoint_sec: Annotated[
            float, typer.Option("--checkpoint-every", help="Seconds of training between two checkpoints of a run.")
        ] = DEFAULTS.checkpoint_sec,
        keep_checkpoints: Annotated[
            bool,
            typer.Option("--keep-checkpoints", help="Keep each run's last one: with more --steps it goes on there."),
        ] = False,
        executor: Annotated[
            ExecutorName,
            typer.Option(help="Who computes: this machine, a Ray cluster (extra ray), Slurm (extra slurm)."),
        ] = DEFAULTS.executor,
        ray_address: Annotated[str | None, typer.Option(help="Of a Ray cluster, with --executor ray.")] = None,
        slurm: Annotated[
            list[str] | None, typer.Option("--slurm", help="With --executor slurm: sbatch's key=value; repeatable.")
        ] = None,
        tensorboard: Annotated[
            bool, typer.Option("--tensorboard", help="Write event files, too, to tensorboard/ (extra tensorboard).")
        ] = False,
        allow_code: Annotated[
            bool, typer.Option("--allow-code", help="Run the user code, scripts and modules, that the grid names.")
        ] = False,
        device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = DEFAULTS.device,
        features: Annotated[
            Literal["inception"] | None,
            typer.Option(help="Score with Inception instead of the data set's own classifier."),
        ] = None,
        inception_weights: Annotated[
            Path | None,
            typer.Option(
                help="A copy of Inception's weights, to score with them (implies --features inception).",
                callback=expand_home,
            ),
        ] = None,
    ) -> None:
        compute = Compute(
            data_dir=data_dir,
            device=device,
            jobs=jobs,
            inception_weights=inception_weights,
            checkpoint_sec=checkpoint_sec,
            keep_checkpoints=keep_checkpoints,
            executor=executor,
            ray_address=ray_address,
            slurm=dict(_read_setting(text) for text in slurm or ()),
        )
        _check_until(until_settled=until is not None, seeds=seeds, max_seeds=max_seeds, max_hours=max_hours)
        if tensorboard:
            from gan_ablate.reporting.exports import check_tensorboard  # pandas: a second that others need not pay

            check_tensorboard()
        plans = [
            resolve_plan(
                grid,
                budget=budget,
                seeds=seeds if until is None else max_seeds or MAX_SEEDS_UNTIL_SETTLED,
                steps=steps,
                dataset=datasets,
                base=bases,
                features=features if inception_weights is None else "inception",
                overrides=overrides or (),
                allow_code=allow_code,
            )
            for grid in load_grids(grids)
        ]
        num_jobs = resolve_jobs(jobs, device, plans)
        act(RunOptions(plans, out, compute, num_jobs, until is not None, max_hours, tensorboard))

    command.__doc__ = act.__doc__
    return command


def _read_setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals and value):
        raise UserError(f"--slurm {shorten(text)}: valid: key=value, such as partition=gpu")
    return key, value


def _check_until(*, until_settled: bool, seeds: int | None, max_seeds: int | None, max_hours: float | None) -> None:
    if not until_settled:
        for option, value in (("--max-seeds", max_seeds), ("--max-hours", max_hours)):
            if value is not None:
                raise UserError(f"{option} {value}: valid: with --until settled")
        return
    if seeds is not None:
        raise UserError(f"--seeds {seeds}: with --until settled, the answers say how many; valid: --max-seeds")
    if max_seeds is not None and not 2 <= max_seeds <= MAX_SEEDS:
        raise UserError(f"--max-seeds {max_seeds}: valid: a whole number from 2 to {MAX_SEEDS}")
    if max_hours is not None and not max_hours > 0:
        raise UserError(f"--max-hours {max_hours}: valid: a number above 0")
