"""Pages of grids in, the front page out: what to do, every effect in one figure, verdicts, three sentences a grid."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from gan_ablate.analysis.ranking import rank_effects, surest_effects
from gan_ablate.reporting import caveats, plots, tables
from gan_ablate.reporting.formats import count, escape_markdown, number, percent_text
from gan_ablate.reporting.page import PAGE_NAME
from gan_ablate.reporting.wording import adjusted_estimate, leaning, place_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from gan_ablate.analysis.claims import Judgement
    from gan_ablate.analysis.family import Effect
    from gan_ablate.analysis.ranking import Ranking
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.planning import Plan
    from gan_ablate.reporting.page import Page

    Ranked: TypeAlias = tuple[GridResults, Effect]

TITLE = "What helps a GAN, by how much, how surely, at what cost"

FIGURE = "effects.png"

MAX_RANKED = 8
"""Factors that a list of the ranking names."""

BRACKETS = (
    "Below: changes of FID at equal steps, lower is better, sorted by ratio: halving (-50 %) counts as much as "
    "doubling (+100 %). In brackets 95 % intervals, adjusted for all effects of a grid. Do not compare these FIDs with "
    "published ones."
)

HOW_TO_READ = (
    "FID is the distance of generated images from real ones. All words rest on the thin bars, 95 % intervals adjusted "
    "for all effects of a grid; thick bars are an effect's own. *Better* or *worse*, use or avoid: the thin bar "
    "excludes zero. *Does not matter*: it lies within the margin of {margin}, the grey band. *Open*, or not known yet: "
    "neither. An interaction is what two levels do together beyond what each does. "
    "[Definitions and methods](methods.md)."
)


def front_lines(
    results: Mapping[str, GridResults],
    places: Mapping[str, str],
    pages: Sequence[Page],
    documents: Sequence[Page] = (),
    *,
    has_figure: bool,
) -> list[str]:
    """Make the front page, but for its figure.

    Args:
        results: of every grid, by its folder's name.
        places: words for the block of each, by the same names; empty where nothing sets it apart.
        pages: in order; those of several blocks together have no results of their own.
        documents: the pages on documents.
        has_figure: whether there was anything to draw.
    """
    every = list(results.values())
    lines = [f"# {TITLE}", "", "## Which to use", "", f"{_setting_sentence(every)} {BRACKETS}", ""]
    lines += [*_ranking_lines(rank_effects(every), results, places), ""]
    if has_figure:
        caption = "Main effects on FID, interactions that were found, and the time of a step"
        margins = sorted({of_grid.plan.grid.margin for of_grid in every})
        margin = " or ".join(f"±{100 * of_grid:.3g} %" for of_grid in margins)
        lines += [f"![{caption}]({FIGURE})", "", HOW_TO_READ.format(margin=margin), ""]
    lines += [*_verdict_lines(every, places), "## Grids", ""]
    for page in pages:
        lines += [f"- **{_link(page)}**", *(f"  - {line}" for line in page.sentences)]
    lines.append("")
    if documents:
        lines += [f"Document by document: {', '.join(map(_link, documents))}.", ""]
    warnings = [
        f"- {_link(page)}: {warning}"
        for page in pages
        if page.folder in results
        for warning in caveats.warning_sentences(results[page.folder])
    ]
    if warnings:
        lines += ["## Before you believe this", "", *warnings, ""]
    return lines


def _link(page: Page) -> str:
    return f"[{escape_markdown(page.title)}]({quote(page.folder)}/{PAGE_NAME})"


def draw_front(results: Mapping[str, GridResults], titles: Mapping[str, str], path: Path) -> bool:
    """Draw the effects of all grids, each comparison once; say whether there was any.

    Smoke runs are left out where there are others, and of interactions those that were not found.

    Args:
        results: of every grid.
        titles: of their pages, by the same names.
        path: the PNG to write.
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
        plots.plot_front(groups, path)
    else:
        path.unlink(missing_ok=True)
    return bool(groups)


def _row_name(results: GridResults, effect: Effect) -> str:
    """Name an effect with what it is compared with."""
    if effect.is_interaction:
        return f"{effect.name}, beyond each"
    ((factor, _),) = effect.levels.items()
    return f"{effect.name} (vs {results.plan.grid.factors[factor].baseline})"


def _ranking_lines(ranking: Ranking, results: Mapping[str, GridResults], places: Mapping[str, str]) -> list[str]:
    if all(of_grid.plan.budget == "smoke" for of_grid in results.values()):
        return [caveats.SMOKE_WARNING]
    lines = []
    usual = Counter(_base_of(of_grid.plan) for of_grid in results.values()).most_common(1)[0][0]
    for words, pairs in (
        ("Use", ranking.use),
        ("Avoid", ranking.avoid),
        ("Depends", ranking.depends),
        ("Does not matter", ranking.indifferent),
        ("Not known yet", ranking.unknown),
    ):
        of_factors: dict[tuple[str, str], list[Ranked]] = {}
        for of_grid, effect in pairs:
            of_factors.setdefault((of_grid.name, next(iter(effect.levels))), []).append((of_grid, effect))
        named = [
            _ranked_words(same, places[same[0][0].name], of_other_base=_base_of(same[0][0].plan) != usual)
            for same in of_factors.values()
        ]
        if len(named) > MAX_RANKED:
            named[MAX_RANKED:] = [f"{len(named) - MAX_RANKED} more, smaller: see the grids"]
        lines += [f"- **{words}**{'' if named else ': nothing'}", *(f"  - {name}" for name in named)]
    return lines


def _ranked_words(same: Sequence[Ranked], place: str, *, of_other_base: bool) -> str:
    """Say what levels of one factor come to: of one, ``dropout elements-50 rather than none: +25.8 % […], 5 seeds``."""
    results, first = same[0]
    ((factor, _),) = first.levels.items()
    name, baseline = factor.replace("_", " "), results.plan.grid.factors[factor].baseline
    where = f", {escape_markdown(place)}" if place else f", from `{_base_of(results.plan)}`" if of_other_base else ""
    if len(same) == 1:
        return f"{name} {first.levels[factor]} rather than {baseline}{where}: {_size_words(results, first)}"
    levels = (f"{effect.levels[factor]} {_size_words(results, effect)}" for _, effect in same)
    return f"{name} rather than {baseline}{where}: {' · '.join(levels)}"


def _size_words(results: GridResults, effect: Effect) -> str:
    """Say how large an effect is and what it rests on, where it varies, what would tell, and what it costs."""
    simple = results.verdicts.simple_effects_of(effect)
    says_more = any(other.answer not in ("open", effect.answer) for other in simple)
    average = " on average" if says_more else ""
    words = f"{percent_text(adjusted_estimate(effect))}{average}, {count(effect.estimate.num_seeds, 'seed')}"
    if effect.answer == "open":
        side = leaning(effect)
        words += f", leaning {side}" if side else ""
        if effect.needed_seeds is not None:
            words += f"; about {effect.needed_seeds:,} seeds in all would tell"
    if says_more:
        words += f"; {'; '.join(map(place_words, simple))}"
    return words + _course_words(results, effect) + _cost_words(results, effect)


def _course_words(results: GridResults, effect: Effect) -> str:
    """Say how large an effect was, where it shrinks: it may be about speed, and gone in a longer training."""
    peaks = [course.peak for course in results.courses if course.effects[-1].levels == effect.levels]
    peak = next((peak for peak in peaks if peak is not None), None)
    return "" if peak is None else f"; shrinking, from {percent_text(peak[1].estimate)} at step {peak[0]:,}"


def _cost_words(results: GridResults, effect: Effect) -> str:
    """Say what a level costs, where that is certain and worth a word."""
    times = [time for time in results.verdicts.effects("step_ms_median") if time.levels == effect.levels]
    is_known = bool(times) and times[0].is_found and not times[0].is_too_small
    return f"; a step takes {percent_text(adjusted_estimate(times[0]))}" if is_known else ""


def _setting_sentence(every: Sequence[GridResults]) -> str:
    """Say what the answers rest on, and that training was not over, where it was not."""
    plans = [results.plan for results in every]
    datasets = ", ".join(dict.fromkeys(escape_markdown(plan.baseline.config.dataset) for plan in plans))
    bases = " and ".join(f"`{base}`" for base in dict.fromkeys(map(_base_of, plans)))
    steps = _steps_words(plans)
    sentence = f"Changes to {bases} on {datasets}{f', {steps}' if steps else ''}.{_level_sentence(every)}"
    cells = [(results, cell) for results in every for cell in results.plan.cells]
    variants = {cell.config.run_id for _, cell in cells}  # of which grids may share some
    falling = {cell.config.run_id for results, cell in cells if cell.label in results.unlevelled}
    if falling:
        share = f"{len(falling)} of {len(variants)} variants"
        sentence += f" FID was still falling at the end in {share}: what is better may only be faster."
    return sentence


def _base_of(plan: Plan) -> str:
    return plan.baseline.block.get("preset", plan.grid.base or plan.grid.name)


def _level_sentence(every: Sequence[GridResults]) -> str:
    """Say what the baseline that most grids share comes to, and what real images would."""
    baselines = Counter(results.plan.baseline.config.run_id for results in every if results.scored)
    protocols = {protocol for results in every for protocol in results.comparable.protocols}
    if not baselines or len(protocols) > 1:
        return ""
    shared = baselines.most_common(1)[0][0]
    results = max(
        (results for results in every if results.plan.baseline.config.run_id == shared), key=lambda r: len(r.runs)
    )
    mean, floor = float(results.summary["fid"].iloc[0]), results.scored[0].floor.fid
    if not math.isfinite(mean):
        return ""
    label = results.plan.baseline.label
    named = "" if label == "baseline" else f" ({escape_markdown(label)})"
    which = "The baseline that most grids share" if baselines[shared] > 1 else f"The baseline{named}"
    return f" {which} comes to FID {number(mean)}, and real images to {number(floor)}."


def _verdict_lines(every: Sequence[GridResults], places: Mapping[str, str]) -> list[str]:
    """A table of verdicts for every way of scoring: numbers that do not compare share no table."""
    by_protocol: dict[tuple[object, ...], list[tuple[GridResults, Judgement]]] = {}
    for results in every:
        for judgement in results.verdicts.judgements():
            protocols = results.comparable.protocols  # without one, claims on what needs no scores are left
            protocol = next(iter(protocols)) if len(protocols) == 1 else ()
            by_protocol.setdefault(protocol, []).append((results, judgement))
    unjudged = [(results, claim, reason) for results in every for claim, reason in results.verdicts.unjudged()]
    if not by_protocol and not unjudged:
        return []
    lines = ["## Verdicts", ""]
    for protocol, of_protocol in by_protocol.items():
        in_order = sorted(of_protocol, key=lambda pair: pair[1].claim.order)
        table = tables.verdicts_table(in_order, places, _page_of)
        scored = f"Scored with {_protocol_words(of_protocol[0][0])}" if protocol else "Without scores"
        steps = _steps_words(results.plan for results, _ in of_protocol)
        lines += [f"{scored}{f', {steps}' if steps else ''}:", "", *table, ""]
    if unjudged:
        lines += [*tables.unjudged_table(sorted(unjudged, key=lambda row: row[1].order), _page_of), ""]
    return lines


def _page_of(name: str) -> str:
    return f"{quote(name)}/{PAGE_NAME}"


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
