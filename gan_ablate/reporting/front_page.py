"""The front page: which levels to use, a figure of all effects, the verdicts, and a few sentences on each grid."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from gan_ablate.analysis.pooling import rank_effects, surest_effects
from gan_ablate.reporting import tables
from gan_ablate.reporting.formats import PAGE_NAME, Page, count, escape_markdown, percent_text
from gan_ablate.reporting.plots import effects as effect_plots
from gan_ablate.reporting.run_sentences import SMOKE_WARNING
from gan_ablate.reporting.sentences import adjusted_text, leaning, simple_effect_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gan_ablate.analysis.claims import ClaimVerdict
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.pooling import Ranking
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.plan import Plan
    from gan_ablate.reporting.plots.style import FigurePath

    Ranked: TypeAlias = tuple[GridResults, Effect]

FIGURE = "effects.png"

MAX_RANKED = 8
"""The most factors that a list of the ranking names."""


@dataclass(frozen=True, kw_only=True)
class FrontPage(Page):
    """The model of the front page.

    Attributes:
        bases: the presets that the grids change.
        datasets: of the grids.
        steps: the length of training; empty where no run counts steps.
        baseline: its name, its FID and the FID of real images; None where scores do not compare.
        falling: ``3 of 14``, the variants that had not converged; empty without any.
        ranking: ``Use``, ``Avoid`` and so on → a line for the levels of one factor; empty if all runs are smoke runs.
        has_figure: whether there is any effect to show.
        margins: of the grids.
        verdicts: for each way of scoring, its description and a Markdown table of the verdicts.
        unjudged: a Markdown table of the claims without a verdict; empty without any.
        pages: of the grids, in order.
        documents: the pages on documents.
    """

    template: ClassVar[str] = "front_page.md.j2"
    smoke_warning: ClassVar[str] = SMOKE_WARNING

    bases: str
    datasets: str
    steps: str
    baseline: tuple[str, float, float] | None
    falling: str
    ranking: dict[str, list[str]]
    has_figure: bool
    margins: str
    verdicts: list[tuple[str, str]]
    unjudged: str
    pages: Sequence[Page]
    documents: Sequence[Page]


def make_front_page(
    results: Mapping[str, GridResults],
    blocks: Mapping[str, str],
    pages: Sequence[Page],
    documents: Sequence[Page],
    *,
    has_figure: bool,
) -> FrontPage:
    """Make the front page, without its figure.

    Args:
        results: of every grid, by the name of its folder.
        blocks: the name of its block, by the same names; empty where its grid has one block.
        pages: of the grids, and of grids across their blocks, in order.
        documents: the pages on documents.
        has_figure: whether there is any effect to show.
    """
    every = list(results.values())
    plans = [of_grid.plan for of_grid in every]
    is_smoke = all(plan.budget == "smoke" for plan in plans)
    unjudged = [(of_grid, claim, reason) for of_grid in every for claim, reason in of_grid.verdicts.unjudged()]
    return FrontPage(
        title="What helps a GAN, by how much, how surely, at what cost",
        path=PAGE_NAME,
        bases=" and ".join(f"`{base}`" for base in dict.fromkeys(map(_base_of, plans))),
        datasets=", ".join(dict.fromkeys(escape_markdown(plan.baseline.config.dataset) for plan in plans)),
        steps=_steps_words(plans),
        baseline=_find_baseline(every),
        falling=_count_falling(every),
        ranking={} if is_smoke else _name_ranked(rank_effects(every), results, blocks),
        has_figure=has_figure,
        margins=" or ".join(f"±{100 * margin:.3g} %" for margin in sorted({plan.grid.margin for plan in plans})),
        verdicts=_tabulate_verdicts(every, blocks),
        unjudged=tables.unjudged_table(sorted(unjudged, key=lambda row: row[1].order)) if unjudged else "",
        pages=pages,
        documents=documents,
    )


def draw_front(results: Mapping[str, GridResults], titles: Mapping[str, str], path: FigurePath) -> bool:
    """Draw the effects of all grids, each comparison once, and return whether there was any.

    The figure leaves out smoke runs where there are others, and interactions that were not found.

    Args:
        results: of every grid, by the name of its folder.
        titles: of their pages, by the same names.
        path: of the figure.
    """
    groups = []
    trusted = {name: of_grid for name, of_grid in results.items() if of_grid.plan.budget != "smoke"} or results
    once = {(of_grid.name, effect.name) for of_grid, effect in surest_effects(trusted.values())}
    for name, of_grid in trusted.items():
        effects, times = of_grid.verdicts.effects("fid"), of_grid.verdicts.effects("step_ms_median")
        shown = [
            (_row_name(of_grid, effect), effect, times[i] if times else None)
            for i, effect in enumerate(effects)
            if (name, effect.name) in once or (effect.is_interaction and effect.is_found)
        ]
        if shown:
            groups.append((titles[name], shown))
    if groups:
        path.pool.submit(path.path, effect_plots.plot_front, groups, path)
    else:
        path.path.unlink(missing_ok=True)
    return bool(groups)


def _row_name(results: GridResults, effect: Effect) -> str:
    """Name an effect and its baseline."""
    if effect.is_interaction:
        return f"{effect.name}, beyond each"
    ((factor, _),) = effect.levels.items()
    return f"{effect.name} (vs {results.plan.grid.factors[factor].baseline})"


def _name_ranked(
    ranking: Ranking, results: Mapping[str, GridResults], blocks: Mapping[str, str]
) -> dict[str, list[str]]:
    usual = Counter(_base_of(of_grid.plan) for of_grid in results.values()).most_common(1)[0][0]
    every = {}
    for heading, pairs in (
        ("Use", ranking.use),
        ("Avoid", ranking.avoid),
        ("Depends", ranking.depends),
        ("Does not matter", ranking.indifferent),
        ("Not known yet", ranking.unknown),
    ):
        of_factors: dict[tuple[str, str], list[Ranked]] = {}
        for of_grid, effect in pairs:
            of_factors.setdefault((of_grid.name, next(iter(effect.levels))), []).append((of_grid, effect))
        levels = [
            _ranked_words(same, blocks[same[0][0].name], of_other_base=_base_of(same[0][0].plan) != usual)
            for same in of_factors.values()
        ]
        if len(levels) > MAX_RANKED:
            levels[MAX_RANKED:] = [f"{len(levels) - MAX_RANKED} more, smaller: see the grids"]
        every[heading] = levels
    return every


def _ranked_words(same: Sequence[Ranked], block: str, *, of_other_base: bool) -> str:
    """Write the effects of a factor's levels: ``dropout elements-50 rather than none: +25.8 % […], 5 seeds``."""
    results, first = same[0]
    ((factor, _),) = first.levels.items()
    name, baseline = factor.replace("_", " "), results.plan.grid.factors[factor].baseline
    where = f", {escape_markdown(block)}" if block else f", from `{_base_of(results.plan)}`" if of_other_base else ""
    if len(same) == 1:
        return f"{name} {first.levels[factor]} rather than {baseline}{where}: {_size_words(results, first)}"
    levels = (f"{effect.levels[factor]} {_size_words(results, effect)}" for _, effect in same)
    return f"{name} rather than {baseline}{where}: {' · '.join(levels)}"


def _size_words(results: GridResults, effect: Effect) -> str:
    """Say how large an effect is, on how many seeds it rests, where it varies, whether it lasts and what it costs."""
    simple = results.verdicts.simple_effects_of(effect)
    says_more = any(other.decision not in ("open", effect.decision) for other in simple)
    average = " on average" if says_more else ""
    words = f"{adjusted_text(effect)}{average}, {count(effect.estimate.num_seeds, 'seed')}"
    if results.verdicts.compares_failures(effect):
        return f"{words}; most of the runs that it compares collapsed"
    if effect.decision == "open":
        side = leaning(effect)
        words += f", leaning {side}" if side else ""
        if effect.needed_seeds is not None:
            words += f"; about {effect.needed_seeds:,} seeds in all would tell"
    if says_more:
        words += f"; {'; '.join(map(simple_effect_words, simple))}"
    return words + _shrinking_words(results, effect) + _cost_words(results, effect)


def _shrinking_words(results: GridResults, effect: Effect) -> str:
    """Say how large an effect was during training, where it shrinks: it may be gone in a longer training."""
    peaks = [trajectory.peak for trajectory in results.trajectories if trajectory.effects[-1].levels == effect.levels]
    peak = next((peak for peak in peaks if peak is not None), None)
    return "" if peak is None else f"; shrinking, from {percent_text(peak[1].estimate)} at step {peak[0]:,}"


def _cost_words(results: GridResults, effect: Effect) -> str:
    """Say how a level changes the time of a step, where that is certain and not too small to matter."""
    times = [time for time in results.verdicts.effects("step_ms_median") if time.levels == effect.levels]
    is_known = bool(times) and times[0].is_found and not times[0].is_too_small
    return f"; a step takes {adjusted_text(times[0])}" if is_known else ""


def _count_falling(every: Sequence[GridResults]) -> str:
    """Count the variants that had not converged, each once where grids share it; empty without any."""
    variants = [(results, variant) for results in every for variant in results.plan.variants]
    falling = {variant.config.run_id for results, variant in variants if variant.label in results.unconverged}
    return f"{len(falling)} of {len({variant.config.run_id for _, variant in variants})}" if falling else ""


def _base_of(plan: Plan) -> str:
    return plan.baseline.block.get("preset", plan.grid.base or plan.grid.name)


def _find_baseline(every: Sequence[GridResults]) -> tuple[str, float, float] | None:
    """Name the baseline that most grids share, its FID and that of real images; None where scores do not compare."""
    baselines = Counter(results.plan.baseline.config.run_id for results in every if results.scored)
    protocols = {protocol for results in every for protocol in results.comparable.protocols}
    if not baselines or len(protocols) > 1:
        return None
    shared = baselines.most_common(1)[0][0]
    results = max(
        (results for results in every if results.plan.baseline.config.run_id == shared), key=lambda r: len(r.runs)
    )
    mean, floor = float(results.summary["fid"].iloc[0]), results.scored[0].floor.fid
    if not math.isfinite(mean):
        return None
    label = results.plan.baseline.label
    named = "" if label == "baseline" else f" ({escape_markdown(label)})"
    named = f" of `{_base_of(results.plan)}`{named}" if len(baselines) > 1 else named
    which = "The baseline that most grids share" if baselines[shared] > 1 else f"The baseline{named}"
    return which, mean, floor


def _tabulate_verdicts(every: Sequence[GridResults], blocks: Mapping[str, str]) -> list[tuple[str, str]]:
    by_protocol: dict[tuple[object, ...], list[tuple[GridResults, ClaimVerdict]]] = {}
    for results in every:
        for claim_verdict in results.verdicts.claim_verdicts:
            protocols = results.comparable.protocols  # empty: only claims on outcomes without scores
            protocol = next(iter(protocols)) if len(protocols) == 1 else ()
            by_protocol.setdefault(protocol, []).append((results, claim_verdict))
    verdicts = []
    for protocol, of_protocol in by_protocol.items():
        in_order = sorted(of_protocol, key=lambda pair: pair[1].claim.order)
        scored = f"Scored with {_protocol_words(of_protocol[0][0])}" if protocol else "Without scores"
        steps = _steps_words(results.plan for results, _ in of_protocol)
        verdicts.append((f"{scored}{f', {steps}' if steps else ''}", tables.verdicts_table(in_order, blocks)))
    return verdicts


def _steps_words(plans: Iterable[Plan]) -> str:
    steps = sorted({plan.baseline.config.steps for plan in plans} - {0})
    return f"after {' or '.join(f'{number:,}' for number in steps)} steps" if steps else ""


def _protocol_words(results: GridResults) -> str:
    scoring = results.scored[0]
    assert scoring.final is not None
    dataset = escape_markdown(results.plan.baseline.config.dataset)
    return (
        f"{scoring.extractor} features of {scoring.final.num_samples:,} images of {dataset} at "
        f"{scoring.resolution}×{scoring.resolution}"
    )
