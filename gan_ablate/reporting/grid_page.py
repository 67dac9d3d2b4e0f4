"""The page of a grid: its answers, then the tables and figures behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gan_ablate.analysis.estimates import mean_estimate
from gan_ablate.analysis.trajectories import tabulate_probes
from gan_ablate.reporting import exports, grid_figures, run_sentences, sentences, tables, variant_tables
from gan_ablate.reporting.formats import PAGE_NAME, Page, escape_markdown
from gan_ablate.reporting.run_sentences import SMOKE_WARNING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.reporting.formats import Picture
    from gan_ablate.reporting.plots.style import FigurePath

_BESIDE_FID = (
    "kid", "precision", "recall", "coverage", "oscillation", "steps_to_fid", "fid_equal_time", "grad_norm_g",
    "confidence_d",
)  # fmt: skip


@dataclass(frozen=True)
class Representation:
    """What the networks learn besides generating images.

    Attributes:
        probes: a table of linear classifiers on D's features.
        others: a table of latent arithmetic, single filters and D's outputs.
        pictures: of the baseline's first run.
    """

    probes: str
    others: str
    pictures: list[Picture]


@dataclass(frozen=True, kw_only=True)
class GridPage(Page):
    """The model of a grid's page. Tables are Markdown; an attribute is empty where there is nothing to show.

    Attributes:
        results: of the grid.
        answers: a sentence for every effect, then how they vary, whether they last, warnings and remarks.
        verdicts: a table of the claims.
        effects: a table of all effects on FID; empty where scores do not compare.
        bill: how many runs the answers took, where seeds were added one by one.
        simple_effects: a table of them.
        pictures: the figures.
        representation: what the networks learn besides generating images, or None where it was not measured.
        variants: a table of FID and KID, speed, time and divergences.
        animations: a table of the training of each variant's first run.
        tests: a table of the tests of every effect.
        test_remarks: on pairing and on variance.
        scores: a table of all other scores.
        other_effects: a table of the effects on other outcomes.
        stability: a table of rates of divergence and collapse, convergence and gradients; empty for a smoke run.
        costs: a table of the time and memory of a step.
        overhead: which shares of the runs' time training and scoring took.
        setup: a table of settings, data, scoring and software.
    """

    template: ClassVar[str] = "grid_page.md.j2"

    results: GridResults
    answers: list[str]
    verdicts: str
    effects: str
    bill: str
    simple_effects: str
    pictures: list[Picture]
    representation: Representation | None
    variants: str
    animations: str
    tests: str
    test_remarks: list[str]
    scores: str
    other_effects: str
    stability: str
    costs: str
    overhead: str
    setup: str


@dataclass(frozen=True, kw_only=True)
class UnfinishedGridPage(Page):
    """The model of the page of a grid without a finished run.

    Attributes:
        results: of the grid.
    """

    template: ClassVar[str] = "unfinished_grid_page.md.j2"

    results: GridResults


def write_grid_page(results: GridResults, title: str, folder: FigurePath) -> GridPage | UnfinishedGridPage:
    """Write the tables and figures of a grid, and make the page that shows them.

    Args:
        results: of the grid.
        title: of the page.
        folder: the grid's.
    """
    path, warnings = f"{results.name}/{PAGE_NAME}", run_sentences.warning_sentences(results)
    if not results.records:
        return UnfinishedGridPage(
            title=title, path=path, sentences=["No run is finished yet."], warnings=warnings, results=results
        )
    exports.write_tables(results)
    verdicts, summary = results.verdicts, results.summary
    is_smoke = results.plan.budget == "smoke"  # it has no effects, decisions and counts of collapse
    effects, simple = ([], []) if is_smoke else (verdicts.effects("fid"), verdicts.simple_effects)
    claim_verdicts, looks = verdicts.claim_verdicts, results.looks
    by_level, turns = _simple_effects_sentences(results, simple), _trajectory_sentences(results)
    unconverged = run_sentences.unconverged_sentence(results.plan, results.unconverged)
    remarks = run_sentences.remark_sentences(results)
    failures = [effect for effect in effects if effect.compares_failures]
    failed = sentences.failures_sentence(failures)
    lasting = [*([failed] if failed else []), *turns, *([unconverged] if unconverged else [])]
    answers = [*_answer_sentences(results), *by_level, *lasting, *warnings, *remarks, *_label_sentences(results)]
    return GridPage(
        title=title,
        path=path,
        sentences=[SMOKE_WARNING] if is_smoke else [] if effects else ["Nothing is scored yet."],
        warnings=warnings,
        results=results,
        answers=warnings if is_smoke else answers,
        verdicts=tables.claims_table(results, claim_verdicts) if claim_verdicts else "",
        effects=tables.effects_table(effects, looks, results.trajectories) if effects else "",
        bill=run_sentences.bill_sentence(results.plan, len(results.runs), looks) if looks else "",
        simple_effects=tables.effects_table(simple) if simple else "",
        pictures=grid_figures.draw_figures(results, folder),
        representation=None if is_smoke else _represent(results, folder),
        variants=variant_tables.variants_table(summary, has_intervals=not is_smoke),
        animations=_tabulate_animations(results, folder),
        tests=tables.tests_table(effects, verdicts.effects("step_ms_median")) if effects else "",
        test_remarks=_test_remarks(results, effects),
        scores=variant_tables.scores_table(summary, results.scored[0].floor.as_row()) if effects else "",
        other_effects=tables.other_effects_table({name: verdicts.effects(name) for name in _BESIDE_FID}),
        stability="" if is_smoke else variant_tables.stability_table(summary),
        costs=variant_tables.cost_table(summary),
        overhead=run_sentences.overhead_sentence(results) or "",
        setup=variant_tables.setup_table(results),
    )


def _answer_sentences(results: GridResults) -> list[str]:
    """Say how large every effect on FID is, and how the level changes the time of a step."""
    verdicts = results.verdicts
    step_times = verdicts.effects("step_ms_median")
    return [
        sentences.decision_sentence(
            effect,
            step_times[i] if step_times else None,
            average="" if effect.is_interaction else run_sentences.average_words(results, effect),
        )
        for i, effect in enumerate(verdicts.effects("fid"))
    ]


def _label_sentences(results: GridResults) -> list[str]:
    """Say what levels with a label are."""
    labels = [
        f"**{name.replace('_', ' ')} {level}**: {escape_markdown(label)}"
        for name, factor in results.plan.grid.factors.items()
        for level, label in factor.labels.items()
    ]
    return [f"Names of levels: {'; '.join(labels)}."] if labels else []


def _trajectory_sentences(results: GridResults) -> list[str]:
    """Say which effects change sign or shrink during training."""
    finals = {tuple(effect.levels.items()): effect for effect in results.verdicts.effects("fid")}
    images = run_sentences.images_words(results)
    told = (
        sentences.trajectory_sentence(one, finals.get(tuple(one.effects[-1].levels.items())), images)
        for one in results.trajectories
    )
    return [sentence for sentence in told if sentence is not None]


def _simple_effects_sentences(results: GridResults, effects: Sequence[Effect]) -> list[str]:
    """List the simple effects of each level, first those of levels with the most different decisions."""
    by_level: dict[str, list[Effect]] = {}
    for effect in effects:
        by_level.setdefault(effect.name, []).append(effect)
    in_order = sorted(by_level.values(), key=lambda of_level: -len({effect.decision for effect in of_level}))
    found = (
        sentences.simple_effects_sentence(of_level, varies=results.verdicts.varies(of_level[0]))
        for of_level in in_order
    )
    return [sentence for sentence in found if sentence is not None]


def _test_remarks(results: GridResults, effects: Sequence[Effect]) -> list[str]:
    if not effects:
        return []
    pairing = sentences.pairing_sentence(effects) if results.design.is_paired else None
    remarks = pairing, run_sentences.variance_sentence(results)
    return [remark for remark in remarks if remark is not None]


def _tabulate_animations(results: GridResults, folder: FigurePath) -> str:
    animations = grid_figures.draw_animations(results, folder)
    return tables.picture_table(animations) if animations else ""


def _represent(results: GridResults, folder: FigurePath) -> Representation | None:
    probes = tabulate_probes(results.records)
    if probes.empty:
        return None
    rows = []
    for (variant, num), of_number in probes.groupby(["variant", "num_labels"], sort=False):
        means = of_number.groupby("features", sort=False)["accuracy"].agg(list)
        rows.append([str(variant), f"{num:,}", *map(_share_text, means)])
    return Representation(
        tables.lay_out(rows, ["variant", "labelled images", *dict.fromkeys(probes["features"])]),
        tables.lay_out(_representation_rows(results), ["variant", "", "measured", "control"]),
        grid_figures.draw_representation(results, probes, folder),
    )


def _representation_rows(results: GridResults) -> list[list[str]]:
    rows = []
    for variant in results.plan.variants:
        learnt = [
            record.scoring.representation
            for label, record in results.records
            if label == variant.label and record.scoring is not None and record.scoring.representation is not None
        ]
        runs = results.runs.loc[results.runs["variant"] == variant.label]
        rows += [
            [variant.label, "latents moved to another class: share drawn as it; control: shuffled classes",
             _share_text(of.arithmetic for of in learnt), _share_text(of.arithmetic_shuffled for of in learnt)],
            [variant.label, "area under the ROC curve of a filter for its best class; control: untrained",
             _share_text(of.filter_auc for of in learnt), _share_text(of.filter_auc_untrained for of in learnt)],
            [variant.label, "D(G(z)) at the end; control: D(x)",
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
