"""Options of ``run`` and ``plan``: declare and check them, and resolve them into plans; and how lists are printed."""

from __future__ import annotations

import functools
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gan_ablate.design.datasets import ARRAY_PREFIX, PREFIX
from gan_ablate.design.grid import DEFAULT_BUDGETS, MAX_SEEDS, BudgetName, load_grid, load_grids
from gan_ablate.design.plan import Plan
from gan_ablate.design.plan import plan as resolve_plan
from gan_ablate.design.user_code import read_features
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.execution.context import Compute, ExecutorName
from gan_ablate.execution.executors.local import resolve_jobs
from gan_ablate.execution.forecast import Speed, estimate_run_sec, estimate_total_sec
from gan_ablate.execution.progress import format_duration
from gan_ablate.execution.trackers import load_trackers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

    from gan_ablate.execution.trackers import Tracker, TrackerName


def expand_home(path: Path | None) -> Path | None:
    """Replace ``~`` by a user's home: a shell does not in ``--out=~/results``.

    Raises:
        UserError: if there is no such home.
    """
    try:
        return None if path is None else path.expanduser()
    except RuntimeError:
        raise UserError(f"{shorten(str(path))}: there is no such home folder; valid: a path without ~") from None


def describe_budgets(*, is_long: bool = False) -> Iterator[tuple[str, str]]:
    """Yield each budget with its numbers, and the time of a grid of four variants on this program's usual machine."""
    speed, grid = Speed(), load_grid("bn_label_smooth")
    for name, budget in DEFAULT_BUDGETS.items():
        planned = resolve_plan(grid, budget=name)
        run_sec = estimate_run_sec(planned.baseline.config, speed)
        num_variants = len(planned.variants)
        total = format_duration(estimate_total_sec([run_sec] * planned.num_runs, 2, num_variants, speed))
        size = f"{budget.steps:,} steps × {budget.seeds} seeds, {budget.num_samples:,} images scored"
        time = f"about {total} for {num_variants} variants on 2 cores"
        if is_long:
            curve = f"FID along training at {budget.curve_points} points, of {budget.curve_samples:,} images"
            run = f"a run of dcgan-28 takes about {format_duration(run_sec)} of one core"
            short = "\nToo short to answer a question: it shows that everything works." if name == "smoke" else ""
            yield name, f"{size}\n{curve}\n{run}; {time}{short}"
        else:
            yield name, f"{size}: {time}"


def study_hint() -> str:
    """Say where the study lies that the repository ships."""
    study = Path(__file__).parents[2] / "results" / "study"
    if not (study / "plans").is_dir():
        return "the repository of this program has a finished study, results/study"
    shown = study.relative_to(Path.cwd()) if study.is_relative_to(Path.cwd()) else study
    return f"see the finished study: --out {shown}"


NO_BREAK = "\N{NO-BREAK SPACE}"

MAX_COLUMN = 26
"""The longest name that stands beside its text; a longer one has a line of its own."""


def print_entries(console: Console, entries: Iterable[tuple[str, str]], indent: int = 2) -> None:
    """Print names and texts. Texts are wrapped to the console's width, names are never cut.

    Args:
        console: where to print.
        entries: name and text; each line of a text begins on a line of its own.
        indent: spaces before each name.
    """
    entries = list(entries)
    column = min(MAX_COLUMN, max((len(name) for name, _ in entries), default=0))
    margin = " " * (indent + column + 2)
    for name, text in entries:
        lines: list[str] = []
        for line in text.split("\n"):
            lines += textwrap.wrap(
                line, max(20, console.width - len(margin)), break_long_words=False, break_on_hyphens=False
            )
        beside = lines.pop(0) if lines and len(name) <= column else ""
        first = f"{' ' * indent}{name.ljust(column)}  {beside}".rstrip()
        for line in (first, *(margin + line for line in lines)):
            console.print(line.replace(NO_BREAK, " "), highlight=False, soft_wrap=True)


def print_text(console: Console, text: str, indent: int = 0) -> None:
    """Print a text, wrapped to the console's width."""
    margin = " " * indent
    wrapped = textwrap.fill(
        text, console.width, initial_indent=margin, subsequent_indent=margin, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    console.print(wrapped.replace(NO_BREAK, " "), highlight=False, soft_wrap=True)


DATASETS_HELP = "mnist-10k, mnist, fashion-mnist, cifar10, torchvision:NAME, folder:PATH or array:PATH"
HOLDOUT_HELP = "A folder or .npy of images to compare with, not a sixth of the data set's."
FEATURES_HELP = "The extractor: objects, inception, or yours, MODULE:NAME or FILE.pt."
FEATURES_SIZE_HELP = "Side to which your extractor's images are resized."
DATA_DIR_HELP = "Where torchvision's data sets lie or are downloaded to."
WEIGHTS_HELP = "Inception's weights; implies --features inception."
DEVICE_HELP = "cpu, cuda, cuda:1, …"
DEVICES_HELP = "cpu; cuda for every visible GPU, a run each; cuda:1; cuda:0,cuda:2"
KEEP_HELP = "Keep each run's last checkpoint: with more --steps it goes on there."
FIGURES_HELP = "Only draw every figure as PDF for a paper: 3.25 or 6.75 inches wide, text of 7 points."

OutOption = Annotated[Path, typer.Option(help="The results folder.", callback=expand_home)]

RESULTS = Path("results")
DEFAULTS = Compute()
DATA = Path(DEFAULTS.data_dir)
MAX_SEEDS_UNTIL_SETTLED = 30


def _option(panel: str, metavar: str | None, words: str, *names: str, callback: Any = None) -> Any:
    return typer.Option(*names, metavar=metavar, help=words, callback=callback, rich_help_panel=panel)


# Options in groups, as ``--help`` shows them.
_what = functools.partial(_option, "What to run")
_how_much = functools.partial(_option, "How much of it")
_where = functools.partial(_option, "Where and how")
_your_code = functools.partial(_option, "Your own code")
_executors = functools.partial(_option, "Executors")

BUDGETS = "; ".join(
    f"{name}: {budget.steps:,} steps × {budget.seeds} seeds" for name, budget in DEFAULT_BUDGETS.items()
)


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
        trackers: where finished runs are written, too.
    """

    plans: list[Plan]
    out: Path
    compute: Compute
    num_jobs: int
    until_settled: bool
    max_hours: float | None
    tensorboard: bool
    trackers: list[Tracker]


def takes_run_options(act: Callable[[RunOptions], None]) -> Callable[..., None]:
    """Make a command of a function of checked options: ``run`` and ``plan`` differ in one word on the command line."""

    def command(
        grids: Annotated[
            list[str],
            _what(
                "NAME", "A grid or study of gan-ablate list, or the path of your own .toml; repeatable.", "--grid", "-g"
            ),
        ],
        datasets: Annotated[
            list[str] | None,
            _what("NAME", f"{DATASETS_HELP}; twice: a block each.", "--dataset"),
        ] = None,
        holdout: Annotated[
            str | None,
            _what("PATH", HOLDOUT_HELP, "--holdout"),
        ] = None,
        bases: Annotated[
            list[str] | None, _what("PRESET", "Another base preset than the grid's; twice: a block each.", "--base")
        ] = None,
        overrides: Annotated[
            list[str] | None, _what("FIELD=VALUE", "A setting of every variant: batch_size=128; repeatable.", "--set")
        ] = None,
        features: Annotated[
            str | None,
            _what("NAME", FEATURES_HELP, "--features"),
        ] = None,
        features_size: Annotated[
            int | None,
            _what("N", FEATURES_SIZE_HELP, "--features-size"),
        ] = None,
        budget: Annotated[BudgetName, _how_much("NAME", BUDGETS)] = "standard",
        steps: Annotated[int | None, _how_much("N", "Generator steps of a run, instead of the budget's.")] = None,
        seeds: Annotated[int | None, _how_much("N", "Seeds of a variant, instead of the budget's.")] = None,
        until: Annotated[
            Literal["settled"] | None, _how_much("settled", "Add seeds until every main effect is decided.")
        ] = None,
        max_seeds: Annotated[
            int | None, _how_much("N", "With --until settled: at most so many seeds, 30 by default.")
        ] = None,
        max_hours: Annotated[
            float | None, _how_much("H", "With --until settled: after so many hours, start no other seed.")
        ] = None,
        out: Annotated[Path, _where("PATH", "The results folder.", callback=expand_home)] = RESULTS,
        data_dir: Annotated[Path, _where("PATH", DATA_DIR_HELP, callback=expand_home)] = DATA,
        inception_weights: Annotated[Path | None, _where("PATH", WEIGHTS_HELP, callback=expand_home)] = None,
        device: Annotated[str, _where("NAME", DEVICES_HELP)] = DEFAULTS.device,
        jobs: Annotated[int | None, _where("N", "Runs at once; by default one a core, or one on a GPU.")] = None,
        checkpoint_sec: Annotated[
            float, _where("SEC", "Seconds of training between two checkpoints of a run.", "--checkpoint-every")
        ] = DEFAULTS.checkpoint_sec,
        keep_checkpoints: Annotated[
            bool,
            _where(None, KEEP_HELP, "--keep-checkpoints"),
        ] = False,
        tensorboard: Annotated[
            bool, _where(None, "Also write event files to tensorboard/ (extra tensorboard).", "--tensorboard")
        ] = False,
        wandb: Annotated[
            bool, _where(None, "Also write each run to Weights & Biases (extra wandb).", "--wandb")
        ] = False,
        mlflow: Annotated[bool, _where(None, "Also write each run to MLflow (extra mlflow).", "--mlflow")] = False,
        allow_code: Annotated[
            bool, _your_code(None, "Run the scripts and modules that the grid names.", "--allow-code")
        ] = False,
        executor: Annotated[
            ExecutorName,
            _executors("NAME", "Who computes: local (this machine), ray (extra ray), slurm (extra slurm)."),
        ] = DEFAULTS.executor,
        ray_address: Annotated[str | None, _executors("ADDRESS", "With --executor ray: the cluster's address.")] = None,
        slurm: Annotated[
            list[str] | None,
            _executors("KEY=VALUE", "With --executor slurm: an option of sbatch; repeatable.", "--slurm"),
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
        wanted: dict[TrackerName, bool] = {"wandb": wandb, "mlflow": mlflow}
        trackers = load_trackers([name for name, is_wanted in wanted.items() if is_wanted], out)
        plans = [
            resolve_plan(
                grid,
                budget=budget,
                seeds=seeds if until is None else max_seeds or MAX_SEEDS_UNTIL_SETTLED,
                steps=steps,
                dataset=datasets,
                base=bases,
                holdout=read_holdout(holdout),
                features=choose_features(features, features_size, inception_weights),
                overrides=overrides or (),
                allow_code=allow_code,
            )
            for grid in load_grids(grids)
        ]
        num_jobs = resolve_jobs(jobs, device, plans)
        act(RunOptions(plans, out, compute, num_jobs, until is not None, max_hours, tensorboard, trackers))

    command.__doc__ = act.__doc__
    return command


def read_holdout(path: str | None) -> str | None:
    """Turn ``--holdout PATH`` into ``folder:PATH`` or ``array:PATH``, which may be given as well."""
    if path is None or path.startswith((PREFIX, ARRAY_PREFIX)):
        return path
    return f"{ARRAY_PREFIX if Path(path).suffix in ('.npy', '.npz') else PREFIX}{path}"


def choose_features(features: str | None, size: int | None, weights: Path | None) -> str | dict[str, Any] | None:
    """Read ``--features`` and ``--features-size``; ``--inception-weights`` implies Inception.

    Raises:
        UserError: if they do not go together.
    """
    if features is None and size is not None:
        raise UserError(f"--features-size {size}: valid: with --features MODULE:NAME or FILE.pt")
    if weights is not None and features not in (None, "inception"):
        raise UserError(f"--inception-weights {weights}: valid: with --features inception, not {features}")
    return "inception" if weights is not None else None if features is None else read_features(features, size)


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
