"""Judgements of claims in, words out: verdicts, what open ones would take, and what they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_ablate.reporting.formats import change_text, p_text
from gan_ablate.reporting.wording import adjusted_estimate, settling_words, with_diverged_words

if TYPE_CHECKING:
    from gan_ablate.analysis.claims import Judgement
    from gan_ablate.analysis.effects import Effect


def verdict_words(judgement: Judgement, *, is_complete: bool) -> str:
    """Say a verdict, and what an open one would take."""
    if judgement.verdict != "open":
        small = ", by an effect too small to matter" if judgement.is_too_small else ""
        return (
            f"**{judgement.verdict}**{_which_words(judgement)}{small}"
            if is_complete
            else f"{judgement.verdict}{small}, provisionally: runs are missing"
        )
    verdicts = {finding.verdict for finding in judgement.decisive}
    if judgement.claim.direction == "none" and any(finding.effect.is_found for finding in judgement.decisive):
        return "open: it changes something, not certainly by more than the margin"
    if max(finding.effect.estimate.num_seeds for finding in judgement.decisive) < 2:
        return "open: too few seeds have a score to compare"
    if {"supported", "refuted"} <= verdicts:
        found = (f"**{verdict}** for {_levels_with(judgement, verdict)}" for verdict in ("supported", "refuted"))
        return f"{', '.join(found)}{'' if is_complete else ', provisionally: runs are missing'}"
    return f"open: {settling_words(judgement.needed_seeds)}"


def _which_words(judgement: Judgement) -> str:
    """Name the levels that bear a verdict, where a claim is of several and the others are open."""
    if judgement.claim.direction == "none":
        return ""
    bearing = [finding.effect for finding in judgement.decisive if finding.verdict == judgement.verdict]
    if len(bearing) == len(judgement.decisive) or any(len(effect.levels) != 1 for effect in bearing):
        return ""
    return f" for {_levels_with(judgement, judgement.verdict)}"


def _levels_with(judgement: Judgement, verdict: str) -> str:
    """Name the levels that a claim is right or wrong about."""
    effects = [finding.effect for finding in judgement.decisive if finding.verdict == verdict]
    return " and ".join(" ".join(effect.levels.values()) or effect.name for effect in effects)


def evidence_words(effect: Effect) -> str:
    """Name an effect with its adjusted interval and p: ``FID, batch norm on: -45.0 % [-68.3, -4.4], p = 0.004``."""
    change = change_text(effect, adjusted_estimate(effect))
    return f"{effect.outcome.title}, {effect.name}: {change}, p {p_text(effect.test.p)}{with_diverged_words(effect)}"
