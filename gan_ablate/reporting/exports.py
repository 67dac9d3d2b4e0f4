"""Exports: pages as HTML, tables as CSV and LaTeX, runs as TensorBoard event files."""

from __future__ import annotations

import base64
import io
import itertools
import posixpath
import re
import shutil
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.outcomes import margin_text
from gan_ablate.errors import UserError
from gan_ablate.reporting.formats import count, escape_latex, fill_template, heading_anchor, number, p_text
from gan_ablate.reporting.sentences import adjusted_text, effect_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    import pandas as pd

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.records import Record
    from gan_ablate.execution.store import Store
    from gan_ablate.reporting.formats import Page


def write_tables(results: GridResults) -> None:
    """Write the runs, variants and effects of a grid into its folder as CSV, and the last two as LaTeX for papers.

    ``runs.csv`` has one column more than ``load_results``: whether the times of a run compare with the others'.
    """
    untimed = results.runs["run_id"].isin(results.comparable.untimed)
    runs = results.runs.assign(has_comparable_times=~untimed)
    for name, table in (("runs", runs), ("summary", results.summary)):
        write_atomically(results.folder / f"{name}.csv", table_as_csv(table))
    write_atomically(results.folder / "effects.csv", effects_as_csv(results.verdicts.all_effects()))
    write_atomically(results.folder / "summary.tex", variants_as_latex(results))
    effects = results.verdicts.effects("fid")
    if effects:
        write_atomically(results.folder / "effects.tex", effects_as_latex(effects, results.name, _describe(results)))
    else:
        (results.folder / "effects.tex").unlink(missing_ok=True)


def _describe(results: GridResults) -> str:
    """Say for a caption what was trained: ``Dropout in D (mnist-10k, 1,500 generator steps, 5 to 7 seeds)``."""
    config = results.plan.baseline.config
    steps = [f"{config.steps:,} generator steps"] if config.steps else []
    seeds = results.runs.groupby("variant")["seed"].nunique()
    facts = [config.dataset, *steps, seeds_text(seeds)]
    return f"{results.plan.grid.title} ({', '.join(facts)})"


def seeds_text(numbers: Iterable[int]) -> str:
    """Write ``5 seeds``, or ``5 to 7 seeds``."""
    fewest, *_, most = sorted([*numbers] * 2)
    return count(most, "seed") if fewest == most else f"{fewest} to {most} seeds"


def table_as_csv(table: pd.DataFrame, float_format: str | None = None) -> str:
    """Write a table as CSV without its index, with the same line ends on every system."""
    return table.to_csv(index=False, lineterminator="\n", float_format=float_format)


def effects_as_csv(effects: pd.DataFrame) -> str:
    """Write effects, a row each, to twelve digits: processors differ in the last digits of a root or a p-value."""
    return table_as_csv(effects, "%.12g")


def effects_as_latex(effects: Sequence[Effect], name: str, runs: str) -> str:
    """Tabulate the effects on one outcome for a column of a paper; the label is ``tab:NAME-effects``.

    Args:
        effects: at least one.
        name: for the label.
        runs: what was trained, in words for the caption.
    """
    outcome, margin = effects[0].outcome, effects[0].margin
    numbers = [effect.estimate.num_seeds for effect in effects]
    has_numbers = len(set(numbers)) > 1
    is_ratio = outcome.scale == "ratio"
    rows = []
    for effect, num_seeds in zip(effects, numbers, strict=True):
        change = adjusted_text(effect).replace(" %", "").replace("-", "−")  # a minus sign, no hyphen
        row = [effect_name(effect), change, p_text(effect.test.p).removeprefix("= "), effect.decision]
        rows.append(row + [str(num_seeds)] * has_numbers)
    headers = ["effect", f"{outcome.title}{', %' if is_ratio else ''}", "p", "decision"] + ["seeds"] * has_numbers
    caption = [
        f"{runs}: effects on {outcome.title}.",
        f"The second column is the change of {outcome.title}{' in percent' if is_ratio else ''} against the baseline.",
        f"Brackets are 95 % intervals, adjusted for all {count(len(effects), 'effect')}"
        + ("." if effects[0].is_fixed else "; they stay valid at every look."),
        "p is adjusted by Holm's procedure.",
    ]
    if margin is not None:
        change_of_margin = margin_text(margin) if is_ratio else f"{margin:.3g}"
        caption.append(f"Negligible: within the margin of {change_of_margin}.")
    return _to_latex(rows, headers, "lrl" + "r" * has_numbers, " ".join(caption), f"{name}-effects")


def variants_as_latex(results: GridResults) -> str:
    """Tabulate the variants of a grid for a column of a paper; the label is ``tab:NAME-variants``."""
    rows = []
    for row in results.summary.to_dict("records"):
        low, high = (number(row[f"fid_{end}"]) for end in ("low", "high"))
        interval = f" [{low}, {high}]" if np.isfinite(float(row["fid_low"])) else ""
        over = row["completed"] + row["diverged"]
        collapsed = f"{row['collapsed']}/{row['completed']}" if row["is_collapse_known"] else "–"
        scores = [number(row["fid"]) + interval, number(row["kid"])] if results.scored else []
        step_ms = number(row["step_ms_median"])
        rows.append([row["variant"], *scores, step_ms, f"{row['diverged']}/{over}", collapsed])
    headers = ["variant", *(["FID", "KID"] if results.scored else []), "ms/step", "div.", "coll."]
    caption = [f"{_describe(results)}: variants."]
    if results.scored:
        caption.append("FID is the geometric mean over seeds; brackets are its 95 % intervals.")
    caption.append("div., coll.: runs that diverged, of all; runs that collapsed, of those completed.")
    return _to_latex(
        rows, headers, ("lr" if results.scored else "") + "rrr", " ".join(caption), f"{results.name}-variants"
    )


def _to_latex(rows: Sequence[Sequence[str]], headers: Sequence[str], columns: str, caption: str, label: str) -> str:
    r"""Write a table that fits a column of 3.25 inches, with all special characters of its cells escaped.

    Args:
        rows: of the table.
        headers: of the columns.
        columns: the alignment of all columns but the first, whose lines break.
        caption: as plain text.
        label: without its prefix.
    """
    cells = [[escape_latex(cell) for cell in row] for row in (headers, *rows)]
    head, *body = [" & ".join([first.replace(r"\_", r"\_\allowbreak{}"), *others]) + r" \\" for first, *others in cells]
    lines = [
        r"% Needs \usepackage{booktabs,tabularx}. As wide as the column that it stands in: 3.25 inches or more.",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{2.5pt}",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{tab:{label}}}",
        # The space of no width lets TeX hyphenate the first word of a cell.
        rf"\begin{{tabularx}}{{\linewidth}}{{@{{}}>{{\raggedright\arraybackslash\hspace{{0pt}}}}X{columns}@{{}}}}",
        r"\toprule", head, r"\midrule", *body, r"\bottomrule",
        r"\end{tabularx}",
        r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


_INTERVAL = re.compile(r"((?:[+-]?[\d.,]+ (?:% )?)?\[[+-]?[\d.,]+ ?%?, [^\[\]<>]{1,30}\](?: %)?)")
"""An estimate with its interval: no line break may separate them."""

_MEDIA_TYPES = {".png": "image/png", ".webp": "image/webp"}


def render_html(pages: Sequence[Page], root: Path) -> str:
    """Render a report as one HTML page: its first page open, the others folded below it.

    Args:
        pages: the front page first.
        root: the results folder, which holds the pictures.

    Returns:
        A page with its pictures inside; only its links to tables need other files.
    """
    anchors: dict[str, str] = {}
    for page in pages:
        anchor = "".join(c if c.isalnum() else "-" for c in page.path.removesuffix(".md"))
        while anchor in anchors.values():  # a-b and a_b are two grids
            anchor += "-2"
        anchors[page.path] = anchor
    sections, contents = [], []
    for page in pages:
        body, headings = _render(page, anchors, root)
        sections.append((anchors[page.path], page.title, body))
        contents += headings if page is pages[0] else [(anchors[page.path], page.title)]
    style = resources.files("gan_ablate.reporting").joinpath("report.css").read_text("utf-8")
    return fill_template("report.html.j2", title=pages[0].title, style=style, contents=contents, sections=sections)


def _render(page: Page, anchors: Mapping[str, str], root: Path) -> tuple[str, list[tuple[str, str]]]:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(page.markdown)
    anchor, folder = anchors[page.path], posixpath.dirname(page.path)
    headings = list(_anchor_headings(tokens, anchor))
    num_figures = 0
    for before, token in itertools.pairwise(tokens):
        for child in token.children or ():
            if child.type == "image":
                _put_inside(child, posixpath.normpath(posixpath.join(folder, unquote(str(child.attrs["src"])))), root)
            elif child.type == "link_open":
                child.attrSet("href", _target(str(child.attrs["href"]), folder, anchor, anchors))
        if before.type == "paragraph_open" and [child.type for child in token.children or ()] == ["image"]:
            num_figures += 1
            _make_enlargeable(before, token, f"{anchor}-figure-{num_figures}")
    body = str(parser.renderer.render(tokens, parser.options, {}))
    body = _INTERVAL.sub(r'<span class="number">\1</span>', body)
    body = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", body)
    # A wide table scrolls in its box instead of stretching the page.
    body = body.replace("<table>", '<div class="table" tabindex="0"><table>').replace("</table>", "</table></div>")
    return body, headings


def _put_inside(image: Token, source: str, root: Path) -> None:
    """Replace the address of one of our pictures by its content, with its size: what follows must not move later."""
    kind = _MEDIA_TYPES.get(Path(source).suffix)
    if kind is None or source.startswith(("..", "/")):
        return
    content = (root / source).read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        size = {"width": str(picture.width), "height": str(picture.height)}
    text = base64.b64encode(content).decode("ascii")
    image.attrs |= {"src": f"data:{kind};base64,{text}", "loading": "lazy", **size}


def _make_enlargeable(paragraph: Token, inline: Token, anchor: str) -> None:
    """Let a click on a figure show it in full size, by its address alone: the page runs no script."""
    assert inline.children is not None
    before, behind = Token("html_inline", "", 0), Token("html_inline", "", 0)
    before.content = f'<span class="large" id="{anchor}-large"><a href="#{anchor}-large" title="Enlarge">'
    behind.content = f'</a><a class="close" href="#{anchor}">Close</a></span>'
    inline.children = [before, *inline.children, behind]
    paragraph.attrs |= {"class": "figure", "id": anchor}


def _target(link: str, folder: str, anchor: str, anchors: Mapping[str, str]) -> str:
    """Point a link of a page to its place in the HTML page, or to a file in the results folder."""
    path, _, fragment = unquote(link).partition("#")
    if "://" in path:
        return link
    if not path:
        return f"#{anchor}--{fragment}"
    path = posixpath.normpath(posixpath.join(folder, path))
    if path not in anchors:
        return path
    return f"#{anchors[path]}--{fragment}" if fragment else f"#{anchors[path]}"


def _anchor_headings(tokens: Sequence[Token], page: str) -> Iterator[tuple[str, str]]:
    """Give every heading below the title an anchor, and yield those of sections with their titles."""
    seen = Counter[str]()
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open" and opening.tag != "h1":
            slug = heading_anchor(inline.content)
            seen[slug] += 1
            if seen[slug] > 1:  # as a forge does
                slug += f"-{seen[slug] - 1}"
            opening.attrSet("id", f"{page}--{slug}")
            if opening.tag == "h2":
                yield f"{page}--{slug}", inline.content


FOLDER = "tensorboard"
"""In the results folder: grid, then variant, then seed."""


def check_tensorboard() -> None:
    """Check before training that the package tensorboard is installed.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "--tensorboard: needs the package tensorboard; valid: pip install 'gan-ablate[tensorboard]'"
        ) from None


def write_events(store: Store, plans: Sequence[Plan]) -> Path:
    """Write an event file for every finished run of the plans, and delete the earlier event files of these plans.

    Args:
        store: of the results folder.
        plans: whose runs are written.

    Returns:
        The folder to give to ``tensorboard --logdir``.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import summary_v2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    root = store.root / FOLDER
    for plan in plans:
        shutil.rmtree(root / plan.name, ignore_errors=True)
        for levels, label, record in store.records(plan):
            folder = root / plan.name / label.replace("/", "-") / f"seed-{record.config.seed}"
            writer = EventFileWriter(str(folder))
            factors = {**levels, "seed": record.config.seed}
            writer.add_event(
                Event(step=0, wall_time=0.0, summary=summary_v2.hparams_pb(factors, trial_id=record.run_id))
            )
            for step, value in _values(store, record):
                event = Event(step=step, wall_time=0.0)
                event.summary.value.append(value)
                writer.add_event(event)
            writer.close()
    return root


def _values(store: Store, record: Record) -> Iterator[tuple[int, Any]]:
    """Give every value of a run with its step."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    steps = [int(step) for step in record.history.get("step", [])]
    for name, values in record.history.items():
        if name != "step":
            for step, value in zip(steps, values, strict=True):
                yield step, Summary.Value(tag=f"training/{name}", simple_value=value)
    if record.scoring is not None:
        for step, fid in zip(record.scoring.curve_steps, record.scoring.curve_fid, strict=True):
            yield step, Summary.Value(tag="fid_along_training", simple_value=fid)
        if record.scoring.final is not None:
            for name, score in record.scoring.final.as_row().items():
                yield record.config.steps, Summary.Value(tag=f"scores/{name}", simple_value=score)
    for sample_grid in store.sample_grids(record.run_id):
        with Image.open(sample_grid) as picture:
            image = Summary.Image(
                height=picture.height,
                width=picture.width,
                colorspace=len(picture.getbands()),
                encoded_image_string=sample_grid.read_bytes(),
            )
        yield int(sample_grid.stem.removeprefix("step-")), Summary.Value(tag="samples", image=image)
