"""The command line ``gan-ablate``: its commands, exit codes and signals."""

from __future__ import annotations

import io
import signal
import sys
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from gan_ablate.api import check_rescoring, rescore, run_single
from gan_ablate.atomic_io import is_disk_failure
from gan_ablate.cli import external, inspect
from gan_ablate.cli.options import (
    DATA,
    DATA_DIR_HELP,
    DATASETS_HELP,
    DEVICE_HELP,
    FEATURES_HELP,
    FEATURES_SIZE_HELP,
    FIGURES_HELP,
    KEEP_HELP,
    RESULTS,
    WEIGHTS_HELP,
    OutOption,
    RunOptions,
    choose_features,
    expand_home,
    takes_run_options,
)
from gan_ablate.cli.run import (
    RunDisplay,
    check_code,
    clean,
    compute_plans,
    describe,
    show_forecast,
    status,
    verify,
    write_pages,
)
from gan_ablate.design.resolve import plan_run
from gan_ablate.design.validation import printable, shorten
from gan_ablate.errors import RunFailedError, UserError, describe_out_of_memory, is_out_of_memory
from gan_ablate.execution.context import Compute
from gan_ablate.execution.image_sizes import describe_sizes
from gan_ablate.execution.progress import Display, name_runs, open_console
from gan_ablate.execution.schedule import find_missing_ids, place_plans
from gan_ablate.execution.store import Store, summarise_runs
from gan_ablate.execution.trackers import TrackerWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


app = typer.Typer(
    name="gan-ablate",
    help="Ablate GANs: train every variant of a grid over several seeds, score them, and report what helps.",
    epilog="Start with: gan-ablate run --grid bn_label_smooth --budget smoke",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"gan-ablate {metadata.version('gan-ablate')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda wanted: _show_version(wanted=wanted), is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Options of the program itself, which are read before any command runs."""


MAX_LINE = 2_000
"""Characters of an error message; a longer one is cut."""


@app.command(
    "run",
    epilog="Examples: gan-ablate run --grid bn_label_smooth · gan-ablate run --grid my.toml --seeds 8 · "
    "gan-ablate run --grid dropout --dataset fashion-mnist --set batch_size=128",
)
@takes_run_options
def run(options: RunOptions) -> None:
    """Train and score what is missing of a grid, then write the report. Run it again to go on where it stopped."""
    console = open_console()
    store = Store(options.out)
    store.check_writable()
    labels = name_runs(options.plans)
    num_missing = len(find_missing_ids(options.plans, store))
    header = describe(options, num_missing)
    placed = [block for plan in options.plans for block in place_plans(plan, store)]
    for block in placed:
        previous = store.find_plan(block.name)
        if previous is not None and set(previous.run_ids) - labels.keys():
            header += f"\nThis takes the place of another plan of {block.name} in the report; its runs are kept."
    num_done = 0 if options.until_settled else len(labels) - num_missing
    writer = TrackerWriter(options.trackers, store, placed)
    with stoppable(console), RunDisplay(console, header, labels, num_done, options, writer) as display:
        computed, endings = compute_plans(options, display)
    for ending in endings:
        console.print(ending, highlight=False, soft_wrap=True)
    blocks = [block for plan in computed for block in place_plans(plan, store)]
    write_pages(options.out, console, blocks)
    if options.tensorboard:
        from gan_ablate.reporting.exports import write_events

        console.print(f"TensorBoard: tensorboard --logdir {write_events(store, blocks)}", soft_wrap=True)
    finish_tracking(writer, console)
    ended = summarise_runs(store, (run_id for plan in computed for run_id in plan.run_ids))
    num_failed = sum(run.status == "failed" for run in ended.values())
    if num_failed:
        raise RunFailedError(f"{num_failed} of {len(ended)} runs failed; {options.out}/runs/*/log.txt says why")


@app.command(
    "rescore",
    epilog="Examples: gan-ablate rescore --grid beta1 --features inception · "
    "gan-ablate rescore --grid beta1 --features mine:embed --features-size 224 --allow-code",
)
@takes_run_options
def rescore_command(options: RunOptions) -> None:
    """Score the kept generators of finished runs in another way, without training again, then write the report."""
    if options.until_settled:
        raise UserError("--until settled: valid: with run, which trains more seeds")
    console, store = open_console(), Store(options.out)
    trained = check_rescoring(options.plans, store, options.compute)
    labels, missing = name_runs(options.plans), find_missing_ids(options.plans, store)
    placed = [block for plan in options.plans for block in place_plans(plan, store)]
    header = f"{len(trained)} of {len(missing)} missing runs are scored without training them again"
    writer = TrackerWriter(options.trackers, store, placed)
    with (
        stoppable(console),
        RunDisplay(console, header, labels, len(labels) - len(missing), options, writer) as display,
    ):
        blocks = rescore(options.plans, options.out, options.compute, observer=display)
    num_left = len(find_missing_ids(options.plans, store))
    if num_left:
        console.print(f"{num_left} runs have no kept generator or failed: gan-ablate run trains them.", soft_wrap=True)
    write_pages(options.out, console, blocks)
    finish_tracking(writer, console)


@app.command("plan")
@takes_run_options
def plan_command(options: RunOptions) -> None:
    """Show the variants of grids, what is done already and about how long the rest will take."""
    if options.compute.executor != "local":  # what this machine can check of what its nodes will
        check_code(options.plans)
    show_forecast(open_console(), options)


@app.command(epilog="Example: gan-ablate train mlp --dataset mnist --epochs 10")
def train(
    preset: Annotated[str, typer.Argument(help="A shipped preset: one of the tutorials' models, at its own settings.")],
    dataset: Annotated[str | None, typer.Option(help=f"{DATASETS_HELP}; by default the preset's.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Generator steps, not epochs; 1,500 by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the run.")] = 0,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE, a setting of the run: batch_size=128; repeatable.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help=DATA_DIR_HELP, callback=expand_home)] = DATA,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "cpu",
    features: Annotated[str | None, typer.Option(metavar="NAME", help=FEATURES_HELP)] = None,
    features_size: Annotated[int | None, typer.Option(metavar="N", help=FEATURES_SIZE_HELP)] = None,
    inception_weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP, callback=expand_home)] = None,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run your extractor and modules.")] = False,
    keep_checkpoints: Annotated[bool, typer.Option("--keep-checkpoints", help=KEEP_HELP)] = False,
    out: OutOption = RESULTS,
) -> None:
    """Train and score one preset as a document has it, once: no grid, no comparison, no place in the report."""
    compute = Compute(
        data_dir=data_dir, device=device, inception_weights=inception_weights, keep_checkpoints=keep_checkpoints
    )
    single = plan_run(
        preset,
        dataset=dataset,
        epochs=epochs,
        steps=steps,
        seed=seed,
        features=choose_features(features, features_size, inception_weights),
        overrides=overrides or (),
        allow_code=allow_code,
    )
    console = open_console()
    config = single.config
    sizes = describe_sizes([config], single.folders, is_brief=True)
    header = "\n".join([f"{preset}: {config.steps:,} steps, run {config.run_id}", *single.notes, *sizes])
    with (
        stoppable(console),
        Display(console, header, {config.run_id: preset}, 0, 1, is_calibrated=False) as display,
    ):
        record = run_single(single, out, compute, observer=display)
    folder = out / "runs" / config.run_id
    final = record.scoring.final if record.scoring else None
    if final is not None and record.scoring is not None:
        console.print(f"FID {final.fid:.3g}, KID {final.kid:.3g}; real images: FID {record.scoring.floor.fid:.3g}")
    if record.scoring is not None and record.scoring.best is not None:
        console.print(f"FID {record.scoring.best.fid:.3g} with the best weights, of step {record.scoring.best_step:,}")
    if record.status == "failed":
        raise RunFailedError(f"the run failed; {folder}/log.txt says why")
    console.print(f"Samples, weights and record: {folder}", soft_wrap=True)


@app.command(
    "list",
    epilog="Examples: gan-ablate list · gan-ablate list grids · gan-ablate list normalisation",
)
def list_command(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND|NAME]",
            help="grids, presets, datasets, budgets, fields or claims; or the name of one of them, or a .toml file.",
        ),
    ] = None,
    out: OutOption = RESULTS,
) -> None:
    """Show what there is: an overview, all of one kind, or all about one grid, preset, data set, field or claim."""
    inspect.show(open_console(), what, Store(out))


@app.command(epilog="Example: gan-ablate report --figures pdf")
def report(
    out: OutOption = RESULTS,
    figures: Annotated[
        Literal["pdf"] | None,
        typer.Option(help=FIGURES_HELP),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another results folder with the same questions, to link and compare; remembered."),
    ] = None,
) -> None:
    """Rebuild the report, its tables and figures from the records, without training anything."""
    if figures is None:
        write_pages(out, open_console(), beside=beside or ())
    else:
        from gan_ablate.reporting.report import write_report

        write_report(out, figures_as_pdf=True)
        open_console().print(f"Figures for papers: {out}/*/*.pdf", soft_wrap=True)


@app.command(epilog="Example: gan-ablate compare results/study results/study-long")
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Results folders that have changes in common.")],
    to: Annotated[Path, typer.Option(help="The folder to write to.", callback=expand_home)] = Path("comparison"),
) -> None:
    """Compare what results folders found of the same changes, after other numbers of steps or on other data."""
    from gan_ablate.reporting.comparison_page import write_comparison

    path = write_comparison([folder.expanduser() for folder in folders], to)
    open_console().print(f"Comparison: {path}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: gan-ablate cite --to paper")
def cite(
    out: OutOption = RESULTS,
    to: Annotated[
        Path | None, typer.Option(help="The folder to write to.  [default: the results folder]", callback=expand_home)
    ] = None,
) -> None:
    """Write methods.tex, a paragraph for a paper, and references.bib, the BibTeX that it cites."""
    from gan_ablate.reporting.report import write_citation

    methods, references = write_citation(out, to)
    print(f"{methods}\n{references}\n\nIn a paper that is compiled in this folder:\n")
    print(rf"    \input{{{methods.with_suffix('').as_posix()}}}")
    print(r"    \bibliographystyle{plain}")
    print(rf"    \bibliography{{{references.with_suffix('').as_posix()}}}")


app.command(epilog="Example: gan-ablate judge runs.csv --factor batch_norm --factor lr --outcome fid:lower")(
    external.judge
)
app.command(epilog="Example: gan-ablate score samples other.npz --dataset mnist --data-dir data")(external.score)


@app.command(epilog="Example: gan-ablate archive study")
def archive(
    to: Annotated[Path, typer.Argument(help="The folder to copy to; runs that are there already stay as they are.")],
    out: OutOption = RESULTS,
) -> None:
    """Copy what a report is made of, without weights and logs, and write the report there: a study to be kept."""
    from gan_ablate.execution.maintenance import archive as copy_records

    console = open_console()
    console.print(f"{copy_records(Store(out), Store(to))} records added to {to}")
    write_pages(to, console)


app.command()(status)
app.command()(verify)
app.command(epilog="Example: gan-ablate clean --yes")(clean)


@app.command(epilog="Example: gan-ablate sample RUN_ID --num 100 --to digits.png")
def sample(
    run_id: Annotated[str, typer.Argument(help="A run's id, as in runs.csv.")],
    num: Annotated[int, typer.Option(min=1, max=10_000, help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the latents.")] = 0,
    label: Annotated[int | None, typer.Option(help="The class to sample, if the run is conditional.")] = None,
    averaged: Annotated[bool, typer.Option("--averaged", help="With the average of the weights.")] = False,
    best: Annotated[bool, typer.Option("--best", help="With the weights of the lowest FID along training.")] = False,
    to: Annotated[Path, typer.Option(help="The picture to write.", callback=expand_home)] = Path("samples.png"),
    out: OutOption = RESULTS,
) -> None:
    """Sample new images with the generator of a finished run."""
    from gan_ablate.execution.recorder import draw_samples

    draw_samples(Store(out), run_id, num, seed, to, label, averaged=averaged, best=best)
    open_console().print(f"{num} images of run {run_id}: {to}")


def main() -> None:
    """Run the command line. A user's mistake is one line and exit code 2; a failed run is exit code 1."""
    for stream in (sys.stdout, sys.stderr):  # on Windows and in some containers they cannot encode Greek letters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    handle_signals()
    try:
        app()
    except UserError as wrong:
        _end(wrong.with_options, 2)
    except (MemoryError, RuntimeError) as failure:
        if not is_out_of_memory(failure):
            raise
        _end(describe_out_of_memory(failure), 2)
    except OSError as refused:  # such as a file name that is too long, or a full disk
        if is_disk_failure(refused):
            _end(f"the disk: {refused.strerror}; make room, and the same command goes on", 2)
        _end(f"{shorten(str(refused.filename or 'the system'))}: {refused.strerror or refused}", 2)
    except RunFailedError as failure:
        _end(str(failure), 1)


def _end(message: str, code: int) -> NoReturn:
    """Print one line to standard error and exit; control characters in names are escaped."""
    line = printable(message)
    print(f"gan-ablate: {line if len(line) <= MAX_LINE else line[:MAX_LINE] + '…'}", file=sys.stderr)
    sys.exit(code)


class _TerminatedError(KeyboardInterrupt):
    """A signal ended a command, as Ctrl-C does; its argument is the signal's number."""


def handle_signals() -> None:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _terminate)


def _terminate(number: int, _: object) -> NoReturn:
    raise _TerminatedError(number)


def finish_tracking(writer: TrackerWriter, console: Console) -> None:
    """Wait until trackers have what they are told, and print where it is."""
    with stoppable(console):
        for line in writer.write_finished():
            console.print(line, highlight=False, soft_wrap=True)


@contextmanager
def stoppable(console: Console) -> Iterator[None]:
    """Where a command is stopped, print that the same command goes on, and exit with 128 plus the signal's number."""
    try:
        yield
    except KeyboardInterrupt as stop:
        console.print("Stopped. The same command goes on where it was.")
        number = stop.args[0] if isinstance(stop, _TerminatedError) else signal.SIGINT
        raise typer.Exit(128 + number) from None
