"""The commands ``judge`` and ``score``: a table of runs, and sets of images, from any program."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from gan_ablate.atomic_io import write_atomically
from gan_ablate.cli.options import (
    DATA,
    DATA_DIR_HELP,
    DATASETS_HELP,
    DEVICE_HELP,
    FEATURES_HELP,
    FEATURES_SIZE_HELP,
    FIGURES_HELP,
    HOLDOUT_HELP,
    WEIGHTS_HELP,
    choose_features,
    expand_home,
    read_holdout,
)
from gan_ablate.design.grid import read_percent
from gan_ablate.design.outcomes import percent_change
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError
from gan_ablate.execution.context import Compute
from gan_ablate.execution.progress import open_console
from gan_ablate.reporting.judge import TableWarning
from gan_ablate.reporting.judge import judge as judge_table

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pandas as pd

    from gan_ablate.scoring.image_scores import FewImageScores, ImageScores

SCORE_TITLES = {
    "fid": "FID",
    "fid_infinity": "FID, infinite N",
    "kid": "KID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "classifier_score": "classifier score",
    "classes_covered": "classes",
    "nearest_ratio": "nearest ratio",
}
"""Scores that the terminal shows; the CSV file has all."""


def judge(
    table: Annotated[Path, typer.Argument(help="A CSV file with a row per run; any program may have trained them.")],
    factors: Annotated[list[str], typer.Option("--factor", help="A column of what was varied; repeatable.")],
    outcomes: Annotated[
        list[str] | None,
        typer.Option(
            "--outcome",
            help="COLUMN:lower or COLUMN:higher, whichever is better; :ratio or :difference behind it says how to "
            "compare; repeatable; fid:lower by default.",
        ),
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help='The column that says which runs share a seed; "seed", if there is one.')
    ] = None,
    paired: Annotated[
        bool | None,
        typer.Option(
            "--paired/--unpaired",
            help="Compare runs of one seed, or all as independent ones; by default by whether the seeds match.",
        ),
    ] = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option("--baseline", help="FACTOR=LEVEL that others are compared with; by default the first row's."),
    ] = None,
    blocks: Annotated[
        list[str] | None,
        typer.Option(
            "--block",
            help="A column within whose values runs are compared, such as the data set; then whether effects differ "
            "between them; repeatable.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="For a row an epoch or step: last takes the last row of each run, best:fid:lower its best, which is "
            "biased.",
        ),
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="With --at: the column of steps or epochs; by default found by its name.")
    ] = None,
    margin: Annotated[
        str | None, typer.Option(help='The change of a ratio that does not matter; "10 %" by default.')
    ] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Seeds were added after looking at the answers: wider intervals.")
    ] = False,
    title: Annotated[str, typer.Option(help="The title of the page.")] = "",
    figures: Annotated[Literal["pdf"] | None, typer.Option(help=FIGURES_HELP)] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.", callback=expand_home)] = Path("judged"),
) -> None:
    """Judge a table of runs: effects, verdicts, figures and a page, for any outcome."""
    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always", TableWarning)
        page = judge_table(
            table,
            factors=factors,
            seed=seed,
            paired=paired,
            outcomes=outcomes or ["fid:lower"],
            baselines=dict(_read_baseline(text) for text in baselines or ()),
            margin=None if margin is None else _read_margin(margin),
            intervals="sequential" if sequential else "fixed",
            blocks=blocks or (),
            at=at,
            step=step,
            out=out,
            title=title,
            figures_as_pdf=figures == "pdf",
        )
    for warning in left_out:
        print(warning.message)
    print(f"Report: {page}" if figures is None else f"Figures for papers: {out}/*.pdf")


def _read_baseline(text: str) -> tuple[str, str]:
    name, equals, level = text.partition("=")
    if not (name and equals and level):
        raise UserError(f"--baseline {shorten(text)}: valid: FACTOR=LEVEL")
    return name, level


def _read_margin(text: str) -> float:
    """Read a margin such as ``10 %`` or ``0.1``."""
    try:
        return float(read_percent(text.strip()))
    except ValueError:
        raise UserError(f'--margin {shorten(text)}: valid: a share such as "5 %" or 0.05') from None


def score(
    images: Annotated[
        list[Path], typer.Argument(help="Folders of pictures, one image a file, or .npy or .npz files; each is a set.")
    ],
    dataset: Annotated[
        str, typer.Option(help=f"Whose held-out images to compare with: {DATASETS_HELP}.")
    ] = "mnist-10k",
    data_dir: Annotated[Path, typer.Option(help=DATA_DIR_HELP, callback=expand_home)] = DATA,
    holdout: Annotated[str | None, typer.Option(metavar="PATH", help=HOLDOUT_HELP)] = None,
    fit: Annotated[
        Literal["crop", "pad"], typer.Option(help="How a folder's pictures become squares; pad: on black.")
    ] = "crop",
    features: Annotated[str | None, typer.Option(metavar="NAME", help=FEATURES_HELP)] = None,
    features_size: Annotated[int | None, typer.Option(help=FEATURES_SIZE_HELP)] = None,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the extractor that --features names.")] = False,
    inception_weights: Annotated[Path | None, typer.Option(help=WEIGHTS_HELP, callback=expand_home)] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "cpu",
    statistics: Annotated[
        Path | None,
        typer.Option(help="An .npz file with mu and sigma to compare with instead: FID alone.", callback=expand_home),
    ] = None,
    to: Annotated[Path, typer.Option(help="The CSV file to write.", callback=expand_home)] = Path("scores.csv"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="A results folder whose cache keeps real features; the user's own cache by default.",
            callback=expand_home,
        ),
    ] = None,
) -> None:
    """Score sets of images that any program sampled: against real images, and against the first set."""
    import pandas as pd

    Compute(device=device, inception_weights=inception_weights)  # refuses wrong options before PyTorch is loaded

    from gan_ablate.scoring.image_scores import SetScorer
    from gan_ablate.training.runtime import keep_memory

    keep_memory()  # KID takes half of its time to ask for memory
    chosen = choose_features(features, features_size, inception_weights)
    if statistics is not None:
        _score_against(images, statistics, chosen, inception_weights, device, to, allow_code=allow_code)
        return
    scorer = SetScorer(
        dataset,
        data_dir=data_dir,
        holdout=read_holdout(holdout),
        fit=fit,
        features=chosen,
        inception_weights=inception_weights,
        device=device,
        out=out,
        allow_code=allow_code,
    )
    # Each set is read twice, since all together may not fit into memory.
    num = min(len(scorer.read(path).images) for path in images) if len(images) > 1 else None
    rows: list[dict[str, object]] = []
    floors: dict[int, dict[str, object]] = {}  # image size → the row of real images
    scored: list[ImageScores | FewImageScores] = []
    for path in images:
        scores = scorer.score(scorer.read(path), num)
        scored.append(scores)
        size = scores.image_size
        of_set = {"set": _printable(path), "image_size": size, "num_images": scores.num_images}
        rows.append({**of_set, **_compare(scores, scored[0]), **scores.as_row()})
        of_real = {"set": f"real images, {size}×{size}", "image_size": size, "num_images": scores.floor.num_samples}
        floors.setdefault(size, {**of_real, **scores.floor.as_row()})
    frame = pd.DataFrame([*rows, *floors.values()])
    _write(frame, to)
    console = open_console()
    console.print(_lay_out(frame.to_dict("records")))
    for line in _describe(scorer.notes, images, scored):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(f"All scores: {to}", soft_wrap=True)


def _score_against(
    images: Sequence[Path],
    statistics: Path,
    features: str | dict[str, Any] | None,
    inception_weights: Path | None,
    device: str,
    to: Path,
    *,
    allow_code: bool,
) -> None:
    """Score sets by their FID to saved statistics."""
    import pandas as pd

    from gan_ablate.scoring.saved_statistics import score_against_statistics

    extractor = "inception" if features is None else features
    where: dict[str, Any] = {"inception_weights": inception_weights, "device": device, "allow_code": allow_code}
    scored = [score_against_statistics(path, statistics, extractor, **where) for path in images]
    rows = [
        {"set": _printable(path), **scores.model_dump(include={"num_samples", "fid", "fid_infinity"})}
        for path, scores in zip(images, scored, strict=True)
    ]
    _write(pd.DataFrame(rows), to)
    console, table = open_console(), Table("set", "images", "FID", "FID, infinite N")
    for row in rows:
        fids = row["fid"], row["fid_infinity"]
        table.add_row(str(row["set"]), f"{row['num_samples']:,}", *map(_number, fids))
    console.print(table)
    lines = [
        f"{_printable(path)}: {note}" for path, scores in zip(images, scored, strict=True) for note in scores.notes
    ]
    lines.append(f"FID alone: {statistics} has a mean and a covariance, and no images.")
    lines.append(
        f"It compares with FIDs whose statistics were made in the same way as with {scored[0].extractor} here."
    )
    for line in (*lines, f"All scores: {to}"):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _write(frame: pd.DataFrame, to: Path) -> None:
    try:
        write_atomically(to, frame.to_csv(index=False, lineterminator="\n"))
    except OSError as refused:
        raise UserError(f"--to {to}: cannot be written ({refused.strerror})") from None


def _printable(path: Path) -> str:
    """Return a path as text, with bytes that are not UTF-8 escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _describe(
    dataset_notes: Sequence[str], paths: Sequence[Path], scored: Sequence[ImageScores | FewImageScores]
) -> list[str]:
    """Return a line for each note on the data set and the sets of images."""
    lines = list(dataset_notes)
    for path, scores in zip(paths, scored, strict=True):
        name = shorten(_printable(path))
        if scores.num_samples < scores.num_images:
            counts = f"{scores.num_samples:,} of {scores.num_images:,} images scored"
            lines.append(f"{name}: {counts}, as many as of the smallest set: FID depends on the number")
        lines += [f"{name}: {note}" for note in scores.notes]
        reason = _incomparable(scores, scored[0])
        if reason:
            lines.append(f"{name}: not compared with the first: {reason}")
    if any(_compare(scores, scored[0]) for scores in scored):
        lines.append("Brackets: 95 % intervals of which images were drawn; another training seed moves FID by more.")
    return lines


def _lay_out(rows: Sequence[Mapping[Hashable, Any]]) -> Table:
    """Make a table with a row per score and a column per set of images."""
    table = Table("", *(str(row["set"]) for row in rows))
    table.add_row("images", *map(_count_text, rows))
    is_kid_alone = any(map(_interval_text, rows))
    for name, title in {"kid": "KID"}.items() if is_kid_alone else SCORE_TITLES.items():
        texts = [_number(row[name]) + (_interval_text(row) if name == "kid" else "") for row in rows]
        if any(texts):
            table.add_row(title, *texts)
    against = [_against_text(row) for row in rows]
    if any(against):
        table.add_row("FID against the first", *against)
    return table


def _count_text(row: Mapping[Hashable, Any]) -> str:
    num, num_images = row["num_samples"], row["num_images"]
    return f"{num:,} of {num_images:,}" if num_images > num else f"{num:,}"


def _incomparable(scores: ImageScores | FewImageScores, first: ImageScores | FewImageScores) -> str:
    """Return why a set's FID cannot be compared with the first set's; empty where it can."""
    if scores.image_size != first.image_size:
        sizes = f"{scores.image_size}×{scores.image_size}", f"{first.image_size}×{first.image_size}"
        return "{} pixels against {}; valid: sets of one size".format(*sizes)
    if 0 in (scores.fid, first.fid) and scores is not first:
        return "a FID of 0 has no ratio"
    return ""


def _compare(scores: ImageScores | FewImageScores, first: ImageScores | FewImageScores) -> dict[str, float]:
    """Return the log ratio of a set's FID to the first set's, and its sampling error, as columns of the CSV file."""
    if scores is first or scores.fid is None or first.fid is None or _incomparable(scores, first):
        return {}
    ratio = math.log(scores.fid / first.fid)
    errors = scores.fid_sampling_error, first.fid_sampling_error
    if None in errors:
        return {"fid_log_ratio": ratio}
    error = math.hypot(*(error for error in errors if error is not None))
    return {"fid_log_ratio": ratio, "fid_log_ratio_error": error}


def _against_text(row: Mapping[Hashable, Any]) -> str:
    ratio, error = (float(row.get(name, math.nan)) for name in ("fid_log_ratio", "fid_log_ratio_error"))
    if not math.isfinite(ratio):
        return ""
    change, low, high = (percent_change(ratio + z * error) for z in (0.0, -1.96, 1.96))
    if not math.isfinite(error):
        return f"{percent_change(ratio):+.1f} %"
    return f"{change:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _interval_text(row: Mapping[Hashable, Any]) -> str:
    low, high = (float(row.get(name, math.nan)) for name in ("kid_low", "kid_high"))
    return f" [{low:.4g}, {high:.4g}]" if math.isfinite(low) else ""


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.4g}"
