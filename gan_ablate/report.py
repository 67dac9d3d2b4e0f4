"""Records in, ``report.md`` and each grid's tables and figures out; nothing but the run folders is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate import plots, wording
from gan_ablate.errors import UserError
from gan_ablate.results import GridResults
from gan_ablate.store import Store, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.effects import Effect

INTRODUCTION = (
    "FID measures how far generated images are from held-out real ones: lower is better; "
    "a variant's FID is the geometric mean over its seeds. "
    "An effect is a paired difference: the variants of a seed share data order, latents and initial weights. "
    "Intervals are 95 %, Student's t over seeds."
)


@dataclass(frozen=True)
class _Section:
    """One grid's part of the report: what it answers, in a list, and everything behind the answers."""

    title: str
    answers: list[str]
    body: list[str]

    @property
    def anchor(self) -> str:
        """The title as a forge turns it into a link target."""
        return "".join(c for c in self.title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def write_report(out: str | Path) -> Path:
    """Rebuild ``report.md`` and the files of every grid that was run into a results folder.

    Args:
        out: the results folder.

    Returns:
        The report's path.

    Raises:
        UserError: if nothing was run into that folder yet, or it cannot be written to.
    """
    store = Store(Path(out))
    grids = store.list_plans()
    if not grids:
        raise UserError(f"--out {out}: no grid was run into this folder yet; gan-ablate run --grid NAME does that")
    store.check_writable()
    sections = [_section(GridResults.load(store, name)) for name in grids]
    lines = ["# What helps a GAN, by how much, how surely, at what cost", "", INTRODUCTION, ""]
    for section in sections:
        lines += [f"**[{section.title}](#{section.anchor})**", "", *(f"- {answer}" for answer in section.answers), ""]
    for section in sections:
        lines += [f"## {section.title}", "", *section.body]
    path = store.root / "report.md"
    write_atomically(path, "\n".join(lines).rstrip() + "\n")
    return path


def _section(results: GridResults) -> _Section:
    grid, name = results.plan.grid, results.name
    body = [f"*{grid.question}*", ""] if grid.question else []
    if not results.records:
        return _Section(grid.title, ["No run is finished yet."], body)

    summary = results.summary()
    for file, table in (("runs.csv", results.runs), ("summary.csv", summary)):
        write_atomically(results.folder / file, table.to_csv(index=False, lineterminator="\n"))
    effects = results.effects()
    answers = [wording.answer_sentence(effect) for effect in effects] + wording.caveat_sentences(results)
    if results.plan.budget == "smoke":
        answers.insert(0, wording.SMOKE_WARNING)
    body += [*wording.variants_table(summary), ""]
    if effects:
        body += [*wording.effects_table(effects), ""]
    for caption, file in _draw_figures(results, effects):
        body += [f"### {caption}", "", f"![{caption}]({name}/{file})", ""]
    body += ["### What a step costs", "", *wording.cost_table(summary), ""]
    body += ["### Setup", "", *wording.setup_table(results), ""]
    body += [f"Every run: [runs.csv]({name}/runs.csv). Every variant: [summary.csv]({name}/summary.csv).", ""]
    return _Section(grid.title, answers, body)


def _draw_figures(results: GridResults, effects: Sequence[Effect]) -> list[tuple[str, str]]:
    """Draw what the records allow and return captions and file names, in the order of reading."""
    folder, style = results.folder, plots.Style(results.labels)
    drawn = []
    sheets = results.sample_sheets()
    if sheets:
        plots.plot_samples(sheets, 4, folder / "samples.png")
        seed = results.plan.seeds[0]
        drawn.append((f"Samples at the end of training, seed {seed}, the same latents everywhere", "samples.png"))
    if effects:
        scoring = results.scored[0]
        floor = f"FID of {scoring.floor.num_samples:,} real images: {scoring.floor.fid:.2g}"
        plots.plot_quality(results.runs, style, floor, folder / "quality.png")
        drawn.append(("Quality of every variant", "quality.png"))
        known = [effect for effect in effects if math.isfinite(effect.fid.value)]
        if known:
            plots.plot_effects(known, folder / "effects.png")
            drawn.append(("Effects against the baseline", "effects.png"))
        plots.plot_curves(results.curves(), style, floor, scoring.curve_samples, folder / "curves.png")
        drawn.append(("FID along training: mean over seeds, band from the best to the worst seed", "curves.png"))
        plots.plot_cost(results.runs, style, folder / "cost.png")
        drawn.append(("Quality against cost", "cost.png"))
    histories = results.histories()
    if not histories.empty:
        plots.plot_losses(histories, style, folder / "losses.png")
        drawn.append(("Losses and what D thinks, mean over seeds", "losses.png"))
    return drawn
