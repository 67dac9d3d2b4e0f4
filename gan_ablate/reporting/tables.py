"""Markdown tables: their layout, and the tables of effects, tests and verdicts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import quote

from tabulate import tabulate

from gan_ablate.analysis.trajectories import BASE_RATES, LARGE
from gan_ablate.design.outcomes import OUTCOMES, percent_change
from gan_ablate.reporting.formats import (
    METHODS_NAME,
    PAGE_NAME,
    change_text,
    count,
    escape_markdown,
    heading_anchor,
    number,
    p_text,
    percent,
)
from gan_ablate.reporting.other_studies import elsewhere_words, is_changed_elsewhere, verdict_elsewhere_words
from gan_ablate.reporting.run_sentences import average_words, collapsed_words, settled_text, start_words, steps_words
from gan_ablate.reporting.sentences import (
    adjusted_text,
    decision_words,
    earlier_words,
    effect_name,
    evidence_words,
    level_words,
    rates_words,
    simple_effect_words,
    time_text,
    verdict_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gan_ablate.analysis.allocation import InterimAnalysis
    from gan_ablate.analysis.claims import ClaimVerdict
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.estimates import Estimate, Interval
    from gan_ablate.analysis.ranking import Default
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.analysis.tests import SignFlip
    from gan_ablate.analysis.trajectories import Trajectory
    from gan_ablate.design.claims import Claim
    from gan_ablate.reporting.other_studies import OtherStudy


MAX_PADDED = 200
"""The widest table, in characters, whose columns are lined up in Markdown."""


def lay_out(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Write a Markdown table, with all that would end a cell or a row escaped."""
    cells = [[" ".join(str(cell).replace("|", "\\|").split()) for cell in row] for row in rows]
    table = tabulate(cells, headers, tablefmt="github", disable_numparse=True)
    if table.find("\n") <= MAX_PADDED:
        return table
    lines = [headers, ["---"] * len(headers), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def lay_out_known(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Write a Markdown table without columns of only dashes; empty where nothing is left beside the first column."""
    kept = [i for i in range(len(headers)) if i == 0 or any(row[i] != "–" for row in rows)]
    if len(kept) == 1:
        return ""
    return lay_out([[row[i] for i in kept] for row in rows], [headers[i] for i in kept])


def picture_table(cells: Sequence[tuple[str, str]]) -> str:
    """Tabulate captions and pictures, three pairs in a row.

    Args:
        cells: caption and picture of each, both Markdown.
    """
    width = min(3, len(cells))
    padded = [*cells, *[("", "")] * (-len(cells) % width)]
    rows: list[tuple[str, ...]] = []
    for i in range(0, len(padded), width):
        rows += zip(*padded[i : i + width], strict=True)
    return lay_out(rows[1:], rows[0])


LASTING_HEAD = "steps; same after 2 ×, 3.3 ×"


def verdict_tables(
    every: Sequence[GridResults], blocks: Mapping[str, str], default: Default | None, others: Sequence[OtherStudy]
) -> list[tuple[str, str]]:
    """Tabulate the verdicts of grids, a table for each way of scoring, with a description of it.

    Args:
        every: the results of the grids.
        blocks: name of a plan → name of its block, where its grid has several.
        default: the baseline that most grids share, if there is one.
        others: other results folders with the same questions.
    """
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
        horizons = {results.plan.baseline.config.steps for results, _ in of_protocol}
        steps = steps_words(results.plan for results, _ in of_protocol) if len(horizons) == 1 else ""
        places = {
            results.name: _place_words(results, default, has_steps=len(horizons) > 1) for results, _ in of_protocol
        }
        verdicts.append((f"{scored}{f', {steps}' if steps else ''}", verdicts_table(in_order, blocks, places, others)))
    return verdicts


def outcomes_note(every: Sequence[GridResults]) -> str:
    """Say briefly what the outcomes of verdicts are, except FID; empty without any."""
    verdicts = [claim_verdict for results in every for claim_verdict in results.verdicts.claim_verdicts]
    found = {finding.effect.outcome.name for claim_verdict in verdicts for finding in claim_verdict.decisive}
    return "; ".join(
        f"[{one.title}]({METHODS_NAME}#{heading_anchor(one.title)}): {one.brief}"
        for name, one in OUTCOMES.items()
        if name in found and one.brief
    )


def _place_words(results: GridResults, default: Default | None, *, has_steps: bool) -> str:
    """Name the baseline of a grid and its steps where they are not those of the page."""
    is_usual = default is None or default.is_baseline_of(results)
    words = "" if default is None or is_usual else start_words(results.plan, default)
    steps = steps_words([results.plan]) if has_steps else ""
    return ", ".join(filter(None, (f"from {words}" if words else "", steps)))


def _protocol_words(results: GridResults) -> str:
    scoring = results.scored[0]
    assert scoring.final is not None
    dataset = escape_markdown(results.plan.baseline.config.dataset)
    return (
        f"{scoring.extractor} features of {scoring.final.num_samples:,} images of {dataset} at "
        f"{scoring.resolution}×{scoring.resolution}"
    )


def verdicts_table(
    claim_verdicts: Iterable[tuple[GridResults, ClaimVerdict]],
    blocks: Mapping[str, str],
    places: Mapping[str, str],
    others: Sequence[OtherStudy] = (),
    *,
    to_root: str = "",
) -> str:
    """Tabulate the verdicts of many grids, narrow enough for a front page.

    Args:
        claim_verdicts: each with the results of its grid.
        blocks: name of a plan → name of its block, where its grid has several.
        places: name of a plan → its baseline and its steps, where they are not those of the page.
        others: other results folders with the same questions.
        to_root: the path from the table's page to the results folder: ``""``, or ``"../"`` for each folder.
    """
    rows = []
    for results, claim_verdict in claim_verdicts:
        block, place = blocks.get(results.name, ""), places.get(results.name, "")
        decisive = [finding.effect for finding in claim_verdict.decisive]
        averages = {_average_words(results, effect) for effect in decisive}
        average = averages.pop() if len(averages) == 1 else ""
        conditions = ", ".join(filter(None, (escape_markdown(block), average.strip(), place)))
        told = verdict_words(claim_verdict, is_complete=results.is_complete, factors=results.plan.grid.factors)
        rows.append(
            [
                claim_name(claim_verdict.claim) + (f" ({conditions})" if conditions else ""),
                told + _elsewhere_words(results, claim_verdict, others),
                decisive[0].outcome.title,
                _decided_texts(results, decisive, others, tells_average=not average),
                _seeds_text(decisive),
                _lasting_text(results, claim_verdict),
                f"[grid]({to_root}{_page_path(results)})",
            ]
        )
    return lay_out(rows, ["claim", "verdict", "outcome", "measured change", "rests on", LASTING_HEAD, "details"])


def _lasting_text(results: GridResults, claim_verdict: ClaimVerdict) -> str:
    """Write the base rates of decisions of this size on FID: ``1,500 steps; 88 %, 81 %``; steps alone elsewhere."""
    steps = results.plan.baseline.config.steps
    words = [f"{steps:,} steps"] if steps else []
    decided = [one.effect for one in claim_verdict.decisive if one.effect.decision != "inconclusive"]
    if decided and claim_verdict.verdict != "inconclusive" and all(one.outcome.name == "fid" for one in decided):
        rates = BASE_RATES[all(abs(effect.estimate.value) >= LARGE for effect in decided)]
        words.append(", ".join(f"{100 * standing.same / standing.num:.0f} %" for standing in rates))
    return "; ".join(words) or "–"


def _parts_words(results: GridResults, effect: Effect) -> str:
    """Say what is known at each level of other factors, where the average on FID is inconclusive and some of it is."""
    parts = results.verdicts.simple_effects_of(effect) if effect.outcome.name == "fid" else []
    is_known = effect.decision == "inconclusive" and any(part.decision != "inconclusive" for part in parts)
    is_told = results.verdicts.varies(effect)  # by the verdict
    return "; ".join(["", *map(simple_effect_words, parts)]) if is_known and not is_told else ""


def _average_words(results: GridResults, effect: Effect) -> str:
    return average_words(results, effect) if len(effect.levels) == 1 else ""


def _elsewhere_words(results: GridResults, claim_verdict: ClaimVerdict, others: Sequence[OtherStudy]) -> str:
    """Say after how many steps a verdict holds, and the one of another folder, where they differ."""
    words = verdict_elsewhere_words(others, results, claim_verdict)
    steps = results.plan.baseline.config.steps
    return f"{f' at {steps:,} steps' if steps else ''}{words}" if words else ""


def claims_table(results: GridResults, claim_verdicts: Iterable[ClaimVerdict]) -> str:
    """Tabulate the verdicts of one grid with their primary and secondary evidence."""
    rows = []
    steps = results.plan.baseline.config.steps
    for claim_verdict in claim_verdicts:
        decisive = [finding.effect for finding in claim_verdict.decisive]
        rows.append(
            [
                claim_name(claim_verdict.claim),
                verdict_words(claim_verdict, is_complete=results.is_complete, factors=results.plan.grid.factors),
                "; ".join(
                    evidence_words(effect, _average_words(results, effect)) + rates_words(effect.rates)
                    for effect in decisive
                ),
                "; ".join(
                    evidence_words(finding.effect, _average_words(results, finding.effect))
                    for finding in claim_verdict.beside
                )
                or "–",
                _seeds_text(decisive) + (f" × {steps:,} steps" if steps else ""),
            ]
        )
    return lay_out(rows, ["claim", "verdict", "decided by [adjusted interval], Holm's p", "beside", "rests on"])


def unjudged_table(unjudged: Iterable[tuple[GridResults, Claim, str]]) -> str:
    """Tabulate the claims without a verdict, with the reasons, for the front page."""
    rows = [[claim_name(claim), reason, f"[grid]({_page_path(results)})"] for results, claim, reason in unjudged]
    return lay_out(rows, ["claim", "no verdict", "details"])


def _page_path(results: GridResults) -> str:
    return f"{quote(results.name)}/{PAGE_NAME}"


def claim_name(claim: Claim) -> str:
    """Write a claim after its number, if it has one."""
    sentence = escape_markdown(claim.sentence)
    return f"{claim.id}: {sentence}" if claim.id else sentence


def effects_table(
    effects: Sequence[Effect], looks: Sequence[InterimAnalysis] = (), trajectories: Sequence[Trajectory] = ()
) -> str:
    """Tabulate every effect on an outcome with its intervals and its decision.

    Args:
        effects: on FID or another outcome.
        looks: the interim analyses, where seeds were added one by one.
        trajectories: of the same effects during training, in the same order.
    """
    rows = []
    for i, effect in enumerate(effects):
        row = [
            effect_name(effect),
            change_text(effect, effect.estimate),
            _interval_text(effect, effect.adjusted),
            decision_words(effect) + earlier_words(effect),
            str(effect.estimate.num_seeds),
        ]
        if trajectories:
            is_same = trajectories[i].effects[-1].decision == effect.decision  # it is estimated from other images
            holds_from = trajectories[i].holds_from if is_same else None
            row.append("–" if holds_from is None else f"{holds_from:,}")
        if looks:
            row.append(settled_text(effect, looks))
        rows.append(row)
    title = effects[0].outcome.title if effects else ""
    unit = "seeds" if all(effect.is_paired for effect in effects) else "runs"
    headers = ["effect", f"change of {title} [95 %]", "adjusted interval", "decision", unit]
    more = ["same from step"] * bool(trajectories) + ["settled at"] * bool(looks)
    return lay_out(rows, [*headers, *more])


def tests_table(effects: Sequence[Effect], step_times: Sequence[Effect]) -> str:
    """Tabulate the tests of every effect, the relative efficiency of pairing, and the change of the time of a step.

    Args:
        effects: on FID or another outcome.
        step_times: the same effects on the time of a step; empty where times do not compare.
    """
    has_bootstrap = any(effect.bootstrap is not None for effect in effects)
    has_diverged = any(effect.with_diverged is not None for effect in effects)
    rows = []
    for i, effect in enumerate(effects):
        p, adjusted = (p_text(p).removeprefix("= ") for p in (effect.estimate.p, effect.test.p))
        row = [effect_name(effect), p, adjusted, _sign_flip_text(effect.sign_flip)]
        if has_bootstrap:
            bootstrap = effect.bootstrap
            row.append("–" if bootstrap is None else _interval_text(effect, bootstrap))
        if has_diverged:
            row.append("–" if effect.with_diverged is None else change_text(effect, effect.with_diverged))
        row.append(_pairing_text(effect.pairing))
        if step_times:
            row.append(time_text(step_times[i]))
        rows.append(row)
    headers = ["effect", "p", "p, Holm", "p, sign-flip (smallest possible)"] + ["bootstrap interval"] * has_bootstrap
    headers += ["diverged as worst"] * has_diverged + ["pairing is worth"]
    return lay_out_known(rows, [*headers, *["change of step time"] * bool(step_times)])


def other_effects_table(effects: Mapping[str, Sequence[Effect]]) -> str:
    """Tabulate the effects on outcomes other than FID, in bold where Holm's procedure finds an effect.

    Args:
        effects: outcome → every effect of the design on it, in the same order.
    """
    shown = {name: of_outcome for name, of_outcome in effects.items() if any(e.estimate.num_seeds for e in of_outcome)}
    if not shown:
        return ""
    rows = []
    for same in zip(*shown.values(), strict=True):
        texts = [change_text(effect, effect.estimate) for effect in same]
        bold = [f"**{text}**" if e.is_found else text for text, e in zip(texts, same, strict=True)]
        rows.append([effect_name(same[0]), *bold])
    return lay_out(rows, ["effect", *(OUTCOMES[name].title for name in shown)])


def _seeds_text(effects: Sequence[Effect]) -> str:
    numbers = [effect.estimate.num_seeds for effect in effects]
    fewest, most = min(numbers), max(numbers)
    return f"{fewest} to {count(most, 'seed')}" if fewest < most else count(most, "seed")


def _decided_texts(
    results: GridResults, effects: Sequence[Effect], others: Sequence[OtherStudy], *, tells_average: bool
) -> str:
    """Write what was measured of an outcome: ``label smoothing on +12.2 % [+0.6, +23.5]``."""
    if effects[0].against is not None:
        return f"{adjusted_text(effects[0])} from {effects[0].against:g}"
    grid_factors = results.plan.grid.factors
    factors = list(dict.fromkeys(factor for effect in effects for factor in effect.levels))
    has_one = len(factors) == 1
    texts = []
    for effect in effects:
        is_single = not effect.is_interaction
        words = f"{level_words(effect, grid_factors)} {adjusted_text(effect)}"
        if not is_single:
            words = f"{effect_name(effect)} {adjusted_text(effect)}"
        elif not has_one:
            ((name, _),) = effect.levels.items()
            words = f"{escape_markdown(grid_factors[name].title_of(name))} {words}"
        words += _average_words(results, effect) if tells_average else ""
        words += collapsed_words(effect) if is_single else ""
        words += _parts_words(results, effect) if is_single else ""
        if is_single and effect.outcome.name == "fid" and is_changed_elsewhere(others, results, [effect]):
            words += elsewhere_words(others, results, effect)
        texts.append(words)
    colon = ":" if len(effects) > 1 else ""
    title = escape_markdown(grid_factors[factors[0]].title_of(factors[0])) if has_one else ""
    return (f"{title}{colon} " if has_one else "") + " · ".join(texts)


def _sign_flip_text(flip: SignFlip) -> str:
    """Write ``0.062 (0.062)``: p, and the smallest p that this number of seeds allows."""
    return f"{flip.p:.2g} ({flip.smallest_p:.2g})" if math.isfinite(flip.p) else "–"


def _pairing_text(gain: Estimate) -> str:
    """Write a relative efficiency and its interval: ``×2.1 [0.8, 5.5]``."""
    return f"×{number(gain.value)} [{number(gain.low)}, {number(gain.high)}]" if math.isfinite(gain.value) else "–"


def _interval_text(effect: Effect, bounds: Interval) -> str:
    if not math.isfinite(bounds.low):
        return "–"
    if effect.outcome.scale == "difference":
        return f"[{bounds.low:+.3g}, {bounds.high:+.3g}]"
    low, high = (percent(percent_change(end)) for end in (bounds.low, bounds.high))
    return f"[{low}, {high}] %"
