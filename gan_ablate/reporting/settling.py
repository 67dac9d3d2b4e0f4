"""Looks at a grid that grows in, what they show and what they took out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gan_ablate.analysis.tests import POWER, seeds_needed
from gan_ablate.reporting.formats import change_text
from gan_ablate.reporting.wording import adjusted_estimate, answer_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.analysis.allocation import Look, Settling
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.design.planning import Plan


def look_lines(look: Look, block: str = "") -> list[str]:
    """Say what a look at the first seeds shows: a line for every question, with its interval against the margin."""
    where = f"{block}, after" if block else "After"
    width = max(len(effect.name) for effect in look.effects)
    return [f"{where} {look.num_seeds} seeds:"] + [
        f"  {effect.name:{width}}  {evidence_text(effect)}: {answer_words(effect)}" for effect in look.effects
    ]


def evidence_text(effect: Effect) -> str:
    """Write an effect with its adjusted interval: ``FID -45.0 % [-68.3, -4.4]``."""
    return f"{effect.outcome.title} {change_text(effect, adjusted_estimate(effect))}"


def settled_sentence(settling: Settling, block: str = "") -> str:
    """Say how a grid that was to be settled ended, or a block of it."""
    if block:
        return f"{block}: {settled_sentence(settling)}"
    look = settling.looks[-1] if settling.looks else None
    if look is None:
        return "Stopped before a first look was possible. The same command goes on."
    still = [effect.name for effect in look.open_effects]
    given_up = given_up_words(look)
    if not still:
        return f"Settled after {look.num_seeds} seeds and {settling.plan.num_runs} runs{given_up}."
    why = "no seed is left" if settling.is_over else "the time is over; the same command goes on"
    return f"Still open after {look.num_seeds} seeds: {', '.join(still)}; {why}{given_up}."


def given_up_words(look: Look) -> str:
    """Name the questions that no other seed would settle; nothing where there is none."""
    names = [effect.name for effect in look.hopeless_effects]
    if not names:
        return ""
    return f"; given up, as its runs have no scores or the same ones: {', '.join(names)}"


def bill_sentence(plan: Plan, num_runs: int, looks: Sequence[Look]) -> str:
    """Say what the answers of a grid took, and what as much certainty would have taken with a fixed number of seeds.

    Args:
        plan: of the grid.
        num_runs: that are over.
        looks: that were taken, at least one.
    """
    look = looks[-1]
    fixed = [
        seeds_needed(effect.estimate, 1 - effect.test.confidence, effect.margin)
        for effect in look.effects
        if effect.answer != "open" and math.isfinite(effect.test.confidence)
    ]
    known = [number for number in fixed if number is not None]
    sentence = (
        f"These answers took {num_runs:,} runs, of at most {look.num_seeds} seeds a variant{given_up_words(look)}."
    )
    if look.open_effects:
        sentence += f" Still open: {', '.join(effect.name for effect in look.open_effects)}."
    if known and len(known) == len(look.effects):
        runs = max(known) * len(plan.cells)
        sentence += (
            f" Had one known beforehand how large the effects are, {max(known):,} seeds of every variant, {runs:,} "
            f"runs, would have settled each with a chance of {POWER:.0%}."
        )
    return sentence


def settled_text(effect: Effect, looks: Sequence[Look]) -> str:
    """Write at how many seeds an effect was settled; a dash where it is not, or was no question."""
    for look in looks:
        for seen in look.effects:
            if seen.levels == effect.levels and seen.outcome is effect.outcome and seen.answer != "open":
                return str(look.num_seeds)
    return "–"
