"""A grid's results in, its own page out: its answers, and behind them tables and figures in the order of doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gan_ablate.analysis.curves import tabulate_histories
from gan_ablate.reporting import caveats, exports, formats, plots, settling, tables, wording
from gan_ablate.reporting.formats import escape_markdown
from gan_ablate.reporting.representation import representation_lines
from gan_ablate.reporting.sheets import sample_sheets, sheet_titles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.analysis.family import Effect
    from gan_ablate.analysis.results import GridResults

PAGE_NAME = "report.md"

VERDICT_RULE = (
    "A verdict rests on the interval adjusted for all effects of the grid on the same outcome. *Supported* and "
    "*refuted* need one that excludes zero, *negligible* one that lies within the grid's margin; all else is *open*, "
    "with the seeds that would settle it. What stands *beside* decides nothing."
)

_BESIDE_FID = (
    "kid", "precision", "recall", "coverage", "oscillation", "steps_to_fid", "fid_equal_time", "grad_norm_g",
    "confidence_d",
)  # fmt: skip
_SHEET_ROWS = 4


@dataclass(frozen=True)
class Page:
    """One grid's page.

    Attributes:
        title: of the grid, and of its block where there are several.
        folder: below the results folder, in which the page and all that it shows lie.
        sentences: up to three for the front page: what was found, where it varies, whether it lasts.
        lines: of Markdown, all paths relative to the folder.
    """

    title: str
    folder: str
    sentences: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def write_page(results: GridResults, title: str, *, figures_as_pdf: bool = False) -> Page:
    """Write the tables and figures of a grid, and make the page that shows them.

    Args:
        results: of the grid.
        title: of the page.
        figures_as_pdf: whether each figure is also wanted as PDF.
    """
    grid = results.plan.grid
    lines = [f"# {escape_markdown(title)}", ""]
    lines += [f"*{escape_markdown(grid.question)}*", ""] if grid.question else []
    if not results.records:
        nothing = "No run is finished yet."
        return Page(title, results.name, [nothing], [*lines, nothing, ""])

    summary, effects = results.summary, results.verdicts.effects("fid")
    step_times = results.verdicts.effects("step_ms_median")
    exports.write_tables(results)
    answers = [
        wording.answer_sentence(effect, step_times[i] if step_times else None, results.verdicts.rates(effect))
        for i, effect in enumerate(effects)
    ]
    simple = _simple_answers(results.verdicts.simple_effects)
    turns = [sentence for course in results.courses if (sentence := wording.course_sentence(course)) is not None]
    unlevelled = caveats.unlevelled_sentence(results.plan, results.unlevelled)
    lasting = [*turns, *([unlevelled] if unlevelled else [])]
    found = wording.findings_sentence(effects)
    sentences = [found or "Nothing is scored yet.", *simple[:1], *turns[:1]]
    answers += [*simple, *lasting, *caveats.warning_sentences(results), *caveats.remark_sentences(results)]
    lines += ["## Answers", "", *(f"- {answer}" for answer in answers), ""]
    judgements = results.verdicts.judgements()
    if judgements:
        lines += ["## Verdicts", "", *tables.claims_table(results, judgements), "", VERDICT_RULE, ""]
    if effects:
        looks = results.verdicts.looks
        lines += ["## Effects on FID", "", *tables.effects_table(effects, looks, results.courses), ""]
        lines += [settling.bill_sentence(results.plan, len(results.runs), looks), ""] if looks else []
        if results.verdicts.simple_effects:
            lines += ["### Level by level", "", *tables.effects_table(results.verdicts.simple_effects), ""]
    for caption, file in _draw_figures(results, effects, figures_as_pdf=figures_as_pdf):
        lines += [f"### {caption}", "", f"![{caption}]({file})", ""]
    with plots.also_as_pdf(wanted=figures_as_pdf):
        lines += representation_lines(results)
    lines += ["## Variants", "", *tables.variants_table(summary), ""]
    lines += _draw_animations(results)
    lines += _more_tables(results, effects)
    overhead = caveats.overhead_sentence(results)
    lines += ["## What a step costs", "", *tables.cost_table(summary), "", *([overhead, ""] if overhead else [])]
    lines += ["## Setup", "", *tables.setup_table(results), "", exports.links(results), ""]
    return Page(title, results.name, sentences, lines)


def _simple_answers(effects: Sequence[Effect]) -> list[str]:
    """Say what each level does at each level of the others, those first that are answered differently there."""
    by_level: dict[str, list[Effect]] = {}
    for effect in effects:
        by_level.setdefault(effect.name, []).append(effect)
    in_order = sorted(by_level.values(), key=lambda of_level: -len({effect.answer for effect in of_level}))
    sentences = (wording.simple_effects_sentence(of_level) for of_level in in_order)
    return [sentence for sentence in sentences if sentence is not None]


def _more_tables(results: GridResults, effects: Sequence[Effect]) -> list[str]:
    """How sure the effects are, and what the features and the histories tell beside FID."""
    summary, lines = results.summary, []
    if effects:
        tests = tables.tests_table(effects, results.verdicts.effects("step_ms_median"))
        lines += ["## How sure", "", *tests, ""]
        remarks = (wording.pairing_sentence(effects), caveats.variance_sentence(results))
        lines += [line for remark in remarks if remark for line in (remark, "")]
        floor = results.scored[0].floor.as_row()
        lines += ["## What else the features tell", "", *tables.scores_table(summary, floor), ""]
        others = tables.other_effects_table({name: results.verdicts.effects(name) for name in _BESIDE_FID})
        if others:
            lines += ["## Effects on the other outcomes", "", "Bold: an effect by Holm's procedure.", "", *others, ""]
    lines += ["## Stability and convergence", "", *tables.stability_table(summary), ""]
    target = results.yardsticks.target_fid
    if target is not None and effects:
        samples, seconds = results.scored[0].curve_samples, results.yardsticks.equal_sec or math.nan
        explanation = (
            f"The target is FID {formats.number(target)} on {samples:,} samples; in brackets, how many of the finished "
            f"runs reached it. Equal time is {formats.number(seconds)} seconds of training."
        )
        lines += [explanation, ""]
    return lines


def _draw_figures(
    results: GridResults, effects: Sequence[Effect], *, figures_as_pdf: bool = False
) -> list[tuple[str, str]]:
    """Draw what the records allow and return captions and file names, in the order in which one doubts."""
    with plots.also_as_pdf(wanted=figures_as_pdf):
        style = style_of(results)
        drawn = _draw_scores(results, effects, style) if effects else []
        sheets = sample_sheets(results)
        if sheets:
            titles = sheet_titles(results)
            last = {titles.get(label, label): files[-1] for label, files in sheets.items()}
            plots.plot_samples(last, _SHEET_ROWS, results.folder / "samples.png")
            seed = results.plan.seeds[0]
            caption = f"Samples at the end of training, seed {seed}"
            caption += ", the same latents everywhere" if results.plan.grid.external is None else ""
            drawn.insert(2, (caption, "samples.png"))
        return drawn + _draw_training(results, style)


def style_of(results: GridResults) -> plots.Style:
    """Part variants that are too many for one panel: by their factor, or by the levels of all factors but the last."""
    plan, labels = results.plan, results.labels
    if len(labels) <= plots.MAX_LINES:
        return plots.Style(labels)
    groups: dict[str, list[str]] = {}
    for cell in plan.cells[1:]:
        levels = cell.levels
        if plan.grid.design == "one-at-a-time":
            title = next(name for name, level in levels.items() if level != plan.baseline.levels[name])
        else:
            title = ", ".join(f"{name} {level}" for name, level in list(levels.items())[:-1])
        groups.setdefault(title.replace("_", " "), []).append(cell.label)
    most = plots.MAX_LINES - 1  # and the baseline
    parts = {
        f"{title} ({i // most + 1})" if len(of_group) > most else title: of_group[i : i + most]
        for title, of_group in groups.items()
        for i in range(0, len(of_group), most)
    }
    return plots.Style(labels, parts)


def _draw_scores(results: GridResults, effects: Sequence[Effect], style: plots.Style) -> list[tuple[str, str]]:
    folder, drawn = results.folder, []
    scoring, runs = results.scored[0], results.comparable.runs
    known = [effect for effect in effects if math.isfinite(effect.estimate.value)]
    if known:
        plots.plot_effects(known, folder / "effects.png")
        drawn.append(("All effects on FID", "effects.png"))
    floor = f"FID of {scoring.floor.num_samples:,} real images: {scoring.floor.fid:.2g}"
    plots.plot_quality(runs, style, floor, folder / "quality.png")
    drawn.append(("Is it one lucky run? Quality of every variant", "quality.png"))
    if results.courses:
        plots.plot_courses(results.courses, folder / "courses.png")
        drawn.append(("Would it last? Effects along training, adjusted at each step", "courses.png"))
    if not results.curves.empty:
        target = results.yardsticks.target_fid
        plots.plot_curves(results.curves, style, target, scoring.curve_samples, folder / "curves.png")
        caption = "FID along training: geometric mean over seeds, band from the best to the worst seed"
        drawn.append((caption, "curves.png"))
    looks = results.verdicts.looks
    if looks:
        plots.plot_settling(looks, folder / "settling.png")
        drawn.append(("Answers as seeds came in; shaded: the margin, and intervals for every look", "settling.png"))
    if any(effect.is_interaction for effect in known):
        plots.plot_interactions(runs, results.plan.grid.factors, known, folder / "interactions.png")
        drawn.append(("Does it depend on the other factors? Lines in parallel do not interact", "interactions.png"))
    if set(runs.loc[runs["fid"].notna(), "cell"]) & set(runs.loc[runs["train_sec"].notna(), "cell"]):
        plots.plot_cost(runs, style, folder / "cost.png")
        drawn.append(("Quality against cost", "cost.png"))
    return drawn


def _draw_training(results: GridResults, style: plots.Style) -> list[tuple[str, str]]:
    histories = tabulate_histories(results.records)
    if histories.empty:
        return []
    folder, runs, drawn = results.folder, results.comparable.runs, []
    if results.plan.grid.external is None:
        plots.plot_stability(runs, style, folder / "stability.png")
        drawn.append(("Stability: rings are seeds, bars 95 % intervals", "stability.png"))
    if {"loss_d", "loss_g"} & {*histories.columns}:
        plots.plot_losses(histories, style, folder / "losses.png")
        told = "and what D thinks before it learns, mean over seeds and 50 steps"
        if results.plan.grid.external is not None:
            told = "from the program's log, mean over seeds and five lines"
        drawn.append((f"Losses {told}", "losses.png"))
    return drawn


def _draw_animations(results: GridResults) -> list[str]:
    """Write one animation per variant and set them side by side, three to a row."""
    cells = []
    for i, (label, files) in enumerate(sample_sheets(results).items()):
        if len(files) == 1:  # all that was archived
            continue
        file = f"training-{i}.webp"
        plots.write_animation(files, _SHEET_ROWS, results.folder / file)
        cells.append((label, f"![Training of {label}]({file})"))
    if not cells:
        return []
    return [f"## Training, seed {results.plan.seeds[0]}", "", *tables.picture_table(cells), ""]
