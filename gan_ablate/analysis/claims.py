"""The claims of a grid and its effects in, the verdict on each out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gan_ablate.analysis.family import Effect

if TYPE_CHECKING:
    from gan_ablate.design.claims import Claim, Expectation
    from gan_ablate.design.planning import Plan

Verdict = Literal["supported", "refuted", "negligible", "open"]
Effects = Callable[[str], Sequence[Effect]]
"""An outcome's name in, the grid's effects on it out."""
Against = Callable[[str, float, float | None], Effect | None]
"""An outcome's name, a value and a margin in, how far the baseline's outcome lies from the value out."""


@dataclass(frozen=True)
class Finding:
    """An expectation, the effect that was measured for it, and what that says of the claim."""

    expectation: Expectation
    effect: Effect
    verdict: Verdict


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict and what it rests on.

    Attributes:
        claim: what was judged.
        verdict: by the claim's rule.
        decisive: a finding per decisive expectation.
        beside: a finding per other expectation.
    """

    claim: Claim
    verdict: Verdict
    decisive: tuple[Finding, ...]
    beside: tuple[Finding, ...]

    @property
    def is_too_small(self) -> bool:
        """Whether every effect that decides it is real, and certainly too small to matter."""
        found = [finding.effect for finding in self.decisive if finding.effect.is_found]
        return bool(found) and all(effect.is_too_small for effect in found)

    @property
    def needed_seeds(self) -> int | None:
        """How many seeds in all would settle it, were its effects as they seem, or None where that is not known.

        The nearest of its open effects settles it; that nothing matters takes all of them.
        """
        open_effects = [finding.effect for finding in self.decisive if finding.verdict == "open"]
        if self.claim.direction == "none":
            needed = [effect.needed_seeds for effect in open_effects]
            return None if None in needed else max((number for number in needed if number is not None), default=None)
        return min((e.needed_seeds for e in open_effects if e.needed_seeds is not None), default=None)


def list_claims(plan: Plan) -> list[Claim]:
    """List the claims that a plan decides; none where it is only a smoke run."""
    return [] if plan.budget == "smoke" else plan.grid.claims


def judge(claim: Claim, effects: Effects, against: Against = lambda *_: None) -> Judgement | None:
    """Give the verdict on a claim, or None where its grid did not measure all that decides it.

    Args:
        claim: to be judged.
        effects: of its grid.
        against: its baseline, compared with values.
    """
    decisive, beside = (
        tuple(
            Finding(expectation, effect, _verdict(expectation, effect))
            for expectation in expectations
            if (effect := measure(expectation, effects, against)) is not None
        )
        for expectations in (claim.decisive, claim.beside)
    )
    if len(decisive) < len(claim.decisive):
        return None
    verdicts = {finding.verdict for finding in decisive}
    verdict: Verdict = "open"
    if claim.direction == "none":  # of all its levels
        if verdicts == {"supported"} or "refuted" in verdicts:
            verdict = "refuted" if "refuted" in verdicts else "supported"
    elif "supported" in verdicts and "refuted" not in verdicts:
        verdict = "supported"
    elif verdicts <= {"refuted", "negligible"}:
        verdict = "refuted" if "refuted" in verdicts else "negligible"
    return Judgement(claim, verdict, decisive, beside)


def measure(expectation: Expectation, effects: Effects, against: Against) -> Effect | None:
    """Return the effect that decides an expectation, or None where it was not measured."""
    if expectation.against is not None:
        return against(expectation.outcome, expectation.against, expectation.margin)
    return next((effect for effect in effects(expectation.outcome) if effect.levels == expectation.levels), None)


def _verdict(expectation: Expectation, effect: Effect) -> Verdict:
    answer = effect.answer
    if expectation.direction == "none":
        if answer == "negligible" or effect.is_too_small:
            return "supported"
        return "refuted" if effect.is_beyond_margin else "open"
    if answer in ("negligible", "open"):
        return answer
    return "supported" if answer == expectation.direction else "refuted"
