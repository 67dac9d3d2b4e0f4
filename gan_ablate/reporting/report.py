"""Records in, the report and each grid's tables and figures out; nothing but the run folders is read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.analysis.blocks import Blocks, compare_blocks
from gan_ablate.analysis.courses import find_unlevelled
from gan_ablate.analysis.curves import tabulate_histories
from gan_ablate.analysis.results import GridResults
from gan_ablate.design.planning import name_blocks
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store, write_atomically
from gan_ablate.reporting import blocks, caveats, formats, methods, plots, settling, tables, wording
from gan_ablate.reporting.html import render_html
from gan_ablate.reporting.sheets import sample_sheets, sheet_titles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.analysis.claims import Judgement
    from gan_ablate.analysis.effects import Effect

TITLE = "What helps a GAN, by how much, how surely, at what cost"

INTRODUCTION = (
    "FID measures how far generated images are from held-out real ones: lower is better; "
    "a variant's FID is the geometric mean over its seeds. "
    "These FIDs rest on the features that each table names, and do not compare with FIDs on others. "
    "An effect is a paired difference: the variants of a seed share data order, latents and, layer by layer, the "
    "random numbers that initial weights are made of. Where a grid crosses several factors, an effect is an average "
    "over the levels of the others. Intervals are 95 % over seeds. What an effect is called rests on the interval that "
    "is adjusted for all effects of its grid on the same outcome: it *lowers* or *raises* FID where that excludes "
    "zero, *does not matter* where it lies within the grid's margin, and is *open* otherwise. "
    "The words are defined at the [end](#definitions-and-methods)."
)

VERDICT_RULE = (
    "All verdicts rest on intervals adjusted for all effects of a grid on the same outcome. *Supported* and *refuted* "
    "need one that excludes zero, *negligible* one that lies within the grid's margin; all else is *open*, with the "
    "seeds that would settle it. What stands *beside it* decides nothing."
)

_BESIDE_FID = (
    "kid", "precision", "recall", "coverage", "oscillation", "steps_to_fid", "fid_equal_time", "grad_norm_g",
    "confidence_d",
)  # fmt: skip
_FIGURE_OF = {"fid": "effects.png", "fid_equal_time": "curves.png"}
_SHEET_ROWS = 4


@dataclass(frozen=True)
class _Section:
    """One grid's part of the report: its verdicts, what it answers in a list, and everything behind the answers."""

    results: GridResults
    title: str
    judgements: list[Judgement] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The title as a forge turns it into a link target."""
        return "".join(c for c in self.title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def write_report(out: str | Path) -> Path:
    """Rebuild ``report.md``, ``report.html`` and the files of every grid that was run into a results folder.

    Args:
        out: the results folder.

    Returns:
        The path of ``report.md``.

    Raises:
        UserError: if nothing was run into that folder yet, or it cannot be written to.
    """
    store = Store(Path(out))
    grids = store.list_plans()
    if not grids:
        raise UserError(f"--out {out}: no grid was run into this folder yet; gan-ablate run --grid NAME does that")
    store.check_writable()
    every = [GridResults.load(store, name) for name in grids]
    titles = _titles(every)
    sections = [
        _Section(of_blocks.results[0], _blocks_title(of_blocks), [], blocks.block_answers(of_blocks), body)
        for of_blocks in compare_blocks(every)
        for body in [blocks.block_lines(of_blocks)]
    ]
    sections += [_section(results, titles[results.name]) for results in every]
    lines = [f"# {TITLE}", "", INTRODUCTION, ""]
    lines += _verdicts(sections)
    lines += ["## Answers", ""]
    for section in sections:
        lines += [f"**[{section.title}](#{section.anchor})**", "", *(f"- {answer}" for answer in section.answers), ""]
    for section in sections:
        lines += [f"## {section.title}", "", *section.body]
    lines += ["## Definitions and methods", "", methods.METHODS]
    lines += [*tables.definitions_table(), ""]
    path = store.root / "report.md"
    text = "\n".join(lines).rstrip() + "\n"
    write_atomically(path, text)
    write_atomically(store.root / "report.html", render_html(text, TITLE, store.root))
    return path


def _verdicts(sections: Sequence[_Section]) -> list[str]:
    """A table of verdicts for every way of scoring: numbers that do not compare share no table."""
    judged = [(section.results, judgement) for section in sections for judgement in section.judgements]
    lines = ["## Verdicts", ""]
    by_protocol: dict[tuple[object, ...], list[tuple[GridResults, Judgement]]] = {}
    for results, judgement in judged:
        (protocol,) = results.comparable.protocols
        by_protocol.setdefault(protocol, []).append((results, judgement))
    for of_protocol in by_protocol.values():
        words = _protocol_words(of_protocol[0][0])
        in_order = sorted(of_protocol, key=lambda pair: _natural(pair[1].claim.id))
        lines += [f"Scored with {words}:", "", *tables.claims_table(in_order, _figure_link), ""]
    if judged:
        lines += [VERDICT_RULE, ""]
    return lines


def _natural(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sort C2 before C10, and what has no name last."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return not name, [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _protocol_words(results: GridResults) -> str:
    scoring = results.scored[0]
    assert scoring.final is not None
    record = next(record for _, record in results.records if record.dataset_sha256)
    return (
        f"{scoring.extractor} features of {scoring.final.num_samples:,} images of {record.config.dataset} at "
        f"{scoring.resolution}×{scoring.resolution}"
    )


def _figure_link(grid: str, outcome: str) -> str:
    return f"{grid}/{_FIGURE_OF.get(outcome, 'stability.png')}"


def _titles(every: Sequence[GridResults]) -> dict[str, str]:
    """Name every plan of a folder: by its grid's title, and by its block where it is not the only one."""
    titles = {}
    for results in every:
        of_grid = [other.plan for other in every if other.plan.grid.name == results.plan.grid.name]
        words = dict(zip((plan.name for plan in of_grid), name_blocks(of_grid), strict=True))[results.name]
        titles[results.name] = results.plan.grid.title + (f" ({words})" if words else "")
    return titles


def _blocks_title(of_blocks: Blocks) -> str:
    return f"{of_blocks.results[0].plan.grid.title}, across {', '.join(of_blocks.names)}"


def _section(results: GridResults, title: str) -> _Section:
    grid, name = results.plan.grid, results.name
    body = [f"*{grid.question}*", ""] if grid.question else []
    if not results.records:
        return _Section(results, title, answers=["No run is finished yet."], body=body)

    summary = results.summary
    effects, step_times = results.verdicts.effects("fid"), results.verdicts.effects("step_ms_median")
    for file, table in (("runs", results.runs), ("summary", summary), ("effects", results.verdicts.all_effects())):
        write_atomically(results.folder / f"{file}.csv", table.to_csv(index=False, lineterminator="\n"))
    answers = [
        wording.answer_sentence(effect, step_times[i] if step_times else None, results.verdicts.rates(effect))
        for i, effect in enumerate(effects)
    ]
    answers += _simple_answers(results.verdicts.simple_effects)
    turns = [wording.course_sentence(course) for course in results.courses]
    turns.append(caveats.unlevelled_sentence(results.plan, find_unlevelled(results.plan, results.whole_curves)))
    answers += [sentence for sentence in turns if sentence is not None]
    answers += caveats.caveat_sentences(results)
    if results.plan.budget == "smoke":
        answers.insert(0, caveats.SMOKE_WARNING)
    body += [*tables.variants_table(summary), ""]
    if effects:
        looks = results.verdicts.looks
        body += [*tables.effects_table(effects, step_times, looks, results.courses), ""]
        body += [settling.bill_sentence(results.plan, len(results.runs), looks), ""] if looks else []
        pairing = wording.pairing_sentence(effects)
        body += [pairing, ""] if pairing else []
        simple = results.verdicts.simple_effects
        if simple:
            body += ["### Level by level", "", *tables.effects_table(simple, ()), ""]
        variance = caveats.variance_sentence(results)
        body += [variance, ""] if variance else []
    for caption, file in _draw_figures(results, effects):
        body += [f"### {caption}", "", f"![{caption}]({name}/{file})", ""]
    body += _draw_animations(results)
    body += _more_tables(results, effects)
    overhead = caveats.overhead_sentence(results)
    body += ["### What a step costs", "", *tables.cost_table(summary), "", *([overhead, ""] if overhead else [])]
    body += ["### Setup", "", *tables.setup_table(results), ""]
    body += [
        (
            f"Every run: [runs.csv]({name}/runs.csv). Every variant: [summary.csv]({name}/summary.csv). "
            f"Every effect on every outcome: [effects.csv]({name}/effects.csv)."
        ),
        "",
    ]
    return _Section(results, title, results.verdicts.judgements(), answers, body)


def _simple_answers(effects: Sequence[Effect]) -> list[str]:
    by_level: dict[str, list[Effect]] = {}
    for effect in effects:
        by_level.setdefault(effect.name, []).append(effect)
    sentences = (wording.simple_effects_sentence(of_level) for of_level in by_level.values())
    return [sentence for sentence in sentences if sentence is not None]


def _more_tables(results: GridResults, effects: Sequence[Effect]) -> list[str]:
    """What the features and the histories tell beside FID."""
    summary, lines = results.summary, []
    if effects:
        floor = results.scored[0].floor.as_row()
        lines += ["### What else the features tell", "", *tables.scores_table(summary, floor), ""]
        others = tables.other_effects_table({name: results.verdicts.effects(name) for name in _BESIDE_FID})
        if others:
            lines += ["### Effects on the other outcomes", "", "Bold: an effect by Holm's procedure.", "", *others, ""]
    lines += ["### Stability and convergence", "", *tables.stability_table(summary), ""]
    target = results.yardsticks.target_fid
    if target is not None and effects:
        samples, seconds = results.scored[0].curve_samples, results.yardsticks.equal_sec or math.nan
        explanation = (
            f"The target is FID {formats.number(target)} on {samples:,} samples; in brackets, how many of the finished "
            f"runs reached it. Equal time is {formats.number(seconds)} seconds of training."
        )
        lines += [explanation, ""]
    return lines


def _draw_figures(results: GridResults, effects: Sequence[Effect]) -> list[tuple[str, str]]:
    """Draw what the records allow and return captions and file names, in the order of reading."""
    folder, style = results.folder, plots.Style(results.labels)
    drawn = []
    sheets = sample_sheets(results)
    if sheets:
        titles = sheet_titles(results)
        last = {titles.get(label, label): files[-1] for label, files in sheets.items()}
        plots.plot_samples(last, _SHEET_ROWS, folder / "samples.png")
        seed = results.plan.seeds[0]
        drawn.append((f"Samples at the end of training, seed {seed}, the same latents everywhere", "samples.png"))
    if effects:
        scoring, runs = results.scored[0], results.comparable.runs
        floor = f"FID of {scoring.floor.num_samples:,} real images: {scoring.floor.fid:.2g}"
        plots.plot_quality(runs, style, floor, folder / "quality.png")
        drawn.append(("Quality of every variant", "quality.png"))
        known = [effect for effect in effects if math.isfinite(effect.estimate.value)]
        if known:
            plots.plot_effects(known, folder / "effects.png")
            drawn.append(("All effects on FID", "effects.png"))
        looks = results.verdicts.looks
        if looks:
            plots.plot_settling(looks, folder / "settling.png")
            drawn.append(("Answers as seeds came in; shaded: the margin, and intervals for every look", "settling.png"))
        if any(effect.is_interaction for effect in known):
            plots.plot_interactions(runs, results.plan.grid.factors, known, folder / "interactions.png")
            drawn.append(("Interactions: factors whose lines run in parallel do not interact", "interactions.png"))
        target = results.yardsticks.target_fid
        if results.courses:
            plots.plot_courses(results.courses, folder / "courses.png")
            drawn.append(
                ("Effects along training; shaded: the margin, and intervals adjusted at each step", "courses.png")
            )
        plots.plot_curves(results.curves, style, target, scoring.curve_samples, folder / "curves.png")
        drawn.append(
            ("FID along training: geometric mean over seeds, band from the best to the worst seed", "curves.png")
        )
        if set(runs.loc[runs["fid"].notna(), "cell"]) & set(runs.loc[runs["train_sec"].notna(), "cell"]):
            plots.plot_cost(runs, style, folder / "cost.png")
            drawn.append(("Quality against cost", "cost.png"))
    histories = tabulate_histories(results.records)
    if not histories.empty:
        plots.plot_stability(results.comparable.runs, style, folder / "stability.png")
        drawn.append(("Stability: rings are seeds, bars 95 % intervals", "stability.png"))
        plots.plot_losses(histories, style, folder / "losses.png")
        caption = "Losses and what D thinks before it learns, mean over seeds and 50 steps"
        drawn.append((caption, "losses.png"))
    return drawn


def _draw_animations(results: GridResults) -> list[str]:
    """Write one animation per variant and set them side by side, three to a row."""
    cells = []
    for i, (label, files) in enumerate(sample_sheets(results).items()):
        file = f"training-{i}.webp"
        plots.write_animation(files, _SHEET_ROWS, results.folder / file)
        cells.append((label, f"![Training of {label}]({results.name}/{file})"))
    if not cells:
        return []
    return [f"### Training, seed {results.plan.seeds[0]}", "", *tables.picture_table(cells), ""]
