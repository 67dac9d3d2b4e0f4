"""A grid's results in, the section on what its networks learn besides drawing out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gan_ablate.analysis.estimates import mean_estimate
from gan_ablate.analysis.trajectories import tabulate_probes
from gan_ablate.execution.store import FILTERS_FILE, INTERPOLATION_FILE
from gan_ablate.reporting import plots, tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gan_ablate.analysis.results import GridResults

PROBES_FILE = "probes.png"

_PICTURES = {
    INTERPOLATION_FILE: "Ways between two latents, a row each",
    FILTERS_FILE: "Filters of D's last map that know a class best, a row each: images that activate it most, and what "
    "in them does (guided gradients)",
}


def representation_lines(results: GridResults) -> list[str]:
    """Tabulate and draw what was measured; nothing where no run was asked for it."""
    probes = tabulate_probes(results.records)
    if probes.empty:
        return []
    rows = []
    for (cell, num), of_number in probes.groupby(["cell", "num_labels"], sort=False):
        means = of_number.groupby("features", sort=False)["accuracy"].agg(list)
        rows.append([str(cell), f"{num:,}", *map(_share_text, means)])
    features = list(dict.fromkeys(probes["features"]))
    lines = ["## What the networks learn besides drawing", ""]
    lines += ["Accuracy of a linear classifier on images that it was not trained on:", ""]
    lines += [*tables.lay_out(rows, ["variant", "labelled images", *features]), ""]
    plots.plot_probes(probes, results.folder / PROBES_FILE)
    caption = "A linear classifier by the number of labelled images; small: seeds"
    lines += [f"![{caption}]({PROBES_FILE})", ""]
    lines += [*tables.lay_out(_other_rows(results), ["variant", "", "measured", "control"]), ""]
    for file, words in _PICTURES.items():
        run_id = results.plan.baseline.with_seed(results.plan.seeds[0]).run_id
        picture = results.store.picture(run_id, file)
        if picture is not None:
            plots.enlarge_picture(picture, results.folder / file)
            caption = f"{words}; {results.plan.baseline.label}, seed {results.plan.seeds[0]}"
            lines += [f"### {caption}", "", f"![{caption}]({file})", ""]
    return lines


def _other_rows(results: GridResults) -> list[list[str]]:
    rows = []
    for cell in results.plan.cells:
        learnt = [
            record.scoring.representation
            for label, record in results.records
            if label == cell.label and record.scoring is not None and record.scoring.representation is not None
        ]
        runs = results.runs.loc[results.runs["cell"] == cell.label]
        rows += [
            [cell.label, "latents moved to another class: share drawn as it; control: shuffled classes",
             _share_text(of.arithmetic for of in learnt), _share_text(of.arithmetic_shuffled for of in learnt)],
            [cell.label, "area under the ROC curve of a filter for its best class; control: untrained",
             _share_text(of.filter_auc for of in learnt), _share_text(of.filter_auc_untrained for of in learnt)],
            [cell.label, "D(G(z)) at the end; control: D(x)",
             _share_text(runs["d_fake_end"]), _share_text(runs["d_real_end"])],
        ]  # fmt: skip
    return rows


def _share_text(values: Iterable[float | None]) -> str:
    """Write a mean over seeds with its 95 % interval: ``0.912 [0.905, 0.919]``."""
    estimate = mean_estimate(np.array(list(values), np.float64))  # None becomes NaN
    if not np.isfinite(estimate.value):
        return "–"
    interval = f" [{estimate.low:.3f}, {estimate.high:.3f}]" if np.isfinite(estimate.low) else ""
    return f"{estimate.value:.3f}{interval}"
