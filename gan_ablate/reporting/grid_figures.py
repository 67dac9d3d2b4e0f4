"""The figures of a grid's page, in the order of a reader's doubts about its answers."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from gan_ablate.analysis.trajectories import tabulate_histories
from gan_ablate.execution.store import FILTERS_FILE, INTERPOLATION_FILE
from gan_ablate.reporting.formats import Picture
from gan_ablate.reporting.plots import effects, quality, training
from gan_ablate.reporting.plots.style import MAX_LINES, Style

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from gan_ablate.analysis.results import GridResults
    from gan_ablate.reporting.plots.style import FigurePath

PROBES_FILE = "probes.png"

_FORMER_NAMES = ("courses", "settling")
"""Names that figures had in results folders of earlier versions."""

_SHOWN_ROWS = 4
"""Rows of images that a page shows of a sample grid."""

_RUN_PICTURES = {
    INTERPOLATION_FILE: "Ways between two latents, a row each",
    FILTERS_FILE: "Filters of D's last map that know a class best, a row each: images that activate it most, and what "
    "in them does (guided gradients)",
}


def draw_figures(results: GridResults, folder: FigurePath) -> list[Picture]:
    """Draw every figure for which there are records.

    Args:
        results: of a grid with at least one finished run.
        folder: of the grid.
    """
    for name, suffix in itertools.product(_FORMER_NAMES, (".png", ".pdf")):
        (folder.path / f"{name}{suffix}").unlink(missing_ok=True)
    style = style_of(results)
    drawn = _draw_scores(results, style, folder) if results.verdicts.effects("fid") else []
    grids = find_sample_grids(results)
    if grids:
        titles = _sample_titles(results)
        last = {titles.get(label, label): files[-1] for label, files in grids.items()}
        folder.draw("samples.png", training.plot_samples, last, _SHOWN_ROWS)
        shares = "Equal places have equal latents. " if results.plan.grid.external is None else ""
        note = f"{shares}Look for images that repeat, and for shapes that are no class."
        drawn.insert(2, Picture(f"Samples at the end of training, seed {results.plan.seeds[0]}", "samples.png", note))
    return drawn + _draw_training(results, style, folder)


def style_of(results: GridResults) -> Style:
    """Group variants that are too many for one panel: by their factor, or by the levels of all factors but the last."""
    plan, labels = results.plan, results.labels
    if len(labels) <= MAX_LINES:
        return Style(labels)
    groups: dict[str, list[str]] = {}
    for variant in plan.variants[1:]:
        levels = variant.levels
        if plan.grid.design == "one-at-a-time":
            title = next(name for name, level in levels.items() if level != plan.baseline.levels[name])
        else:
            title = ", ".join(f"{name} {level}" for name, level in list(levels.items())[:-1])
        groups.setdefault(title.replace("_", " "), []).append(variant.label)
    most = MAX_LINES - 1  # and the baseline
    parts = {
        f"{title} ({i // most + 1})" if len(of_group) > most else title: of_group[i : i + most]
        for title, of_group in groups.items()
        for i in range(0, len(of_group), most)
    }
    return Style(labels, parts)


def _draw_scores(results: GridResults, style: Style, folder: FigurePath) -> list[Picture]:
    drawn = []
    scoring, runs = results.scored[0], results.comparable.runs
    is_smoke = results.plan.budget == "smoke"  # what it shows is that everything works
    effects_on_fid = [] if is_smoke else results.verdicts.effects("fid")
    known = [effect for effect in effects_on_fid if math.isfinite(effect.estimate.value)]
    if known:
        folder.draw("effects.png", effects.plot_effects, known)
        drawn.append(Picture("All effects on FID", "effects.png", effects.FOREST_NOTE))
    floor = f"FID of {scoring.floor.num_samples:,} real images: {scoring.floor.fid:.2g}"
    folder.draw("quality.png", quality.plot_quality, runs, style, floor)
    drawn.append(Picture("FID of every run", "quality.png", quality.RUNS_NOTE))
    if results.trajectories and not is_smoke:
        folder.draw("trajectories.png", effects.plot_trajectories, results.trajectories)
        drawn.append(Picture("Effects along training", "trajectories.png", effects.TRAJECTORIES_NOTE))
    if not results.curves.empty:
        target = results.yardsticks.target_fid
        folder.draw("curves.png", training.plot_curves, results.curves, style, target, scoring.curve_samples)
        notes = [training.CURVES_NOTE] + [training.SECONDS_NOTE] * (len(style.panels) == 1)
        drawn.append(Picture("FID along training", "curves.png", " ".join(notes)))
    looks = results.looks
    if len(looks) > 1:
        folder.draw("looks.png", effects.plot_looks, looks)
        drawn.append(Picture("Effects as seeds were added", "looks.png", effects.LOOKS_NOTE))
    if any(effect.is_interaction for effect in known):
        folder.draw("interactions.png", effects.plot_interactions, runs, results.plan.grid.factors, known)
        drawn.append(Picture(effects.INTERACTIONS_CAPTION, "interactions.png", effects.INTERACTIONS_NOTE))
    if len(quality.list_timed(runs)) > 1 and not is_smoke:
        folder.draw("cost.png", quality.plot_cost, runs, style)
        drawn.append(Picture("FID against training time", "cost.png", quality.COST_NOTE))
    return drawn


def _draw_training(results: GridResults, style: Style, folder: FigurePath) -> list[Picture]:
    histories = tabulate_histories(results.records)
    if histories.empty:
        return []
    drawn = []
    if results.plan.grid.external is None and results.plan.budget != "smoke":
        folder.draw("stability.png", training.plot_stability, results.comparable.runs, style)
        drawn.append(Picture("Stability", "stability.png", training.STABILITY_NOTE))
    if {"loss_d", "loss_g"} & {*histories.columns}:
        folder.draw("losses.png", training.plot_losses, histories, style)
        over = "50 steps" if results.plan.grid.external is None else "five lines of the script's log"
        note = f"{training.LOSSES_NOTE} Lines are means over seeds and {over}; no intervals are drawn."
        drawn.append(Picture("Losses and D's outputs along training", "losses.png", note))
    return drawn


def draw_animations(results: GridResults, folder: FigurePath) -> list[tuple[str, str]]:
    """Write an animation of the training of each variant's first run, and return its label and Markdown for each."""
    animations = []
    for i, (label, files) in enumerate(find_sample_grids(results).items()):
        if len(files) == 1:  # all that was archived
            continue
        file = f"training-{i}.webp"
        path = folder.path / file
        folder.pool.submit(path, training.write_animation, files, _SHOWN_ROWS, path)
        animations.append((label, f"![Training of {label}]({file})"))
    return animations


def draw_representation(results: GridResults, probes: pd.DataFrame, folder: FigurePath) -> list[Picture]:
    """Draw the probes, and enlarge the pictures of the baseline's first run, which are returned.

    Args:
        results: of the grid.
        probes: from ``tabulate_probes``.
        folder: of the grid.
    """
    folder.draw(PROBES_FILE, training.plot_probes, probes)
    baseline, seed = results.plan.baseline, results.plan.seeds[0]
    pictures = []
    for file, words in _RUN_PICTURES.items():
        picture = results.store.picture(baseline.with_seed(seed).run_id, file)
        if picture is not None:
            path = folder.path / file
            folder.pool.submit(path, training.enlarge_picture, picture, path)
            pictures.append(Picture(f"{words}; {baseline.label}, seed {seed}", file))
    return pictures


def find_sample_grids(results: GridResults) -> dict[str, list[Path]]:
    """Find the sample grids of the first seed of each variant, in the order of training, by the variant's label."""
    grids = {}
    for variant in results.plan.variants:
        record = results.store.find_record(variant.with_seed(results.plan.seeds[0]))
        if record is None or record.status == "failed":
            continue
        files = results.store.sample_grids(record.run_id)
        note = f", diverged at step {record.diverged_at}" if record.status == "diverged" else ""
        if files:
            grids[variant.label + note] = files
    return grids


def _sample_titles(results: GridResults) -> dict[str, str]:
    """Write the FID of a sample grid's run, and the mean of its variant, after the variant's label."""
    summary = results.summary.set_index("variant")["fid"]
    seed = results.plan.seeds[0]
    own = results.comparable.runs.loc[results.comparable.runs["seed"] == seed].set_index("variant")["fid"].astype(float)
    return {
        label: f"{label}, FID {own[label]:.3g}, {summary[label]:.3g} over all seeds"
        for label in results.labels
        if len(results.plan.seeds) > 1 and math.isfinite(own.get(label, math.nan))
    }
