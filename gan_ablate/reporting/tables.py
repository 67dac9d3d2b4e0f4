"""Markdown tables: their layout, and the tables of effects, tests and verdicts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import quote

from tabulate import tabulate

from gan_ablate.design.outcomes import OUTCOMES, percent_change
from gan_ablate.reporting.formats import (
    PAGE_NAME,
    change_text,
    count,
    escape_markdown,
    number,
    p_text,
    percent,
    percent_text,
)
from gan_ablate.reporting.run_sentences import settled_text
from gan_ablate.reporting.sentences import (
    adjusted_text,
    decision_words,
    effect_name,
    evidence_words,
    rates_words,
    verdict_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gan_ablate.analysis.allocation import InterimAnalysis
    from gan_ablate.analysis.claims import ClaimVerdict
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.estimates import Estimate, Interval
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.analysis.tests import SignFlip
    from gan_ablate.analysis.trajectories import Trajectory
    from gan_ablate.design.claims import Claim


def lay_out(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Write a Markdown table, with all that would end a cell or a row escaped."""
    cells = [[" ".join(str(cell).replace("|", "\\|").split()) for cell in row] for row in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


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


def verdicts_table(
    claim_verdicts: Iterable[tuple[GridResults, ClaimVerdict]], blocks: Mapping[str, str], *, to_root: str = ""
) -> str:
    """Tabulate the verdicts of many grids, narrow enough for a front page.

    Args:
        claim_verdicts: each with the results of its grid.
        blocks: name of a plan → name of its block, where its grid has several.
        to_root: the path from the table's page to the results folder: ``""``, or ``"../"`` for each folder.
    """
    rows = []
    for results, claim_verdict in claim_verdicts:
        block = blocks.get(results.name)
        place = f" ({escape_markdown(block)})" if block else ""
        decisive = [finding.effect for finding in claim_verdict.decisive]
        rows.append(
            [
                claim_name(claim_verdict.claim) + place,
                verdict_words(claim_verdict, is_complete=results.is_complete),
                _decided_texts(decisive),
                _seeds_text(decisive),
                f"[see]({to_root}{_page_path(results)})",
            ]
        )
    return lay_out(rows, ["claim", "verdict", "effect [adjusted interval]", "rests on", ""])


def claims_table(results: GridResults, claim_verdicts: Iterable[ClaimVerdict]) -> str:
    """Tabulate the verdicts of one grid with their primary and secondary evidence."""
    rows = []
    steps = results.plan.baseline.config.steps
    for claim_verdict in claim_verdicts:
        decisive = [finding.effect for finding in claim_verdict.decisive]
        rows.append(
            [
                claim_name(claim_verdict.claim),
                verdict_words(claim_verdict, is_complete=results.is_complete),
                "; ".join(evidence_words(effect) + rates_words(results.verdicts.rates(effect)) for effect in decisive),
                "; ".join(evidence_words(finding.effect) for finding in claim_verdict.beside) or "–",
                _seeds_text(decisive) + (f" × {steps:,} steps" if steps else ""),
            ]
        )
    return lay_out(rows, ["claim", "verdict", "decided by [adjusted interval], Holm's p", "beside", "rests on"])


def unjudged_table(unjudged: Iterable[tuple[GridResults, Claim, str]]) -> str:
    """Tabulate the claims without a verdict, with the reasons, for the front page."""
    rows = [[claim_name(claim), reason, f"[see]({_page_path(results)})"] for results, claim, reason in unjudged]
    return lay_out(rows, ["claim", "no verdict", ""])


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
            decision_words(effect),
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
    headers = ["effect", f"change of {title} [95 %]", "adjusted interval", "answer", "seeds"]
    more = ["holds from step"] * bool(trajectories) + ["settled at"] * bool(looks)
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
            row.append(percent_text(step_times[i].estimate))
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
    *fewer, most = sorted({effect.estimate.num_seeds for effect in effects})
    return " or ".join([*map(str, fewer), count(most, "seed")])


def _decided_texts(effects: Sequence[Effect]) -> str:
    """Write the changes of an outcome after its title, with names of the effects where there are several."""
    changes = [adjusted_text(effect) for effect in effects]
    if effects[0].against is not None:
        changes[0] += f" from {effects[0].against:g}"
    if len(effects) == 1 and effects[0].is_interaction:
        changes[0] = f"interaction {changes[0]}"
    if len(effects) > 1:
        changes = [f"{effect.name} {change}" for effect, change in zip(effects, changes, strict=True)]
    return f"{effects[0].outcome.title} {'; '.join(changes)}"


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
