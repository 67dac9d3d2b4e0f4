"""A grid's effects, its claims, and the verdict on each claim."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gan_ablate.analysis.design import Design
from gan_ablate.analysis.effects import Effect
from gan_ablate.analysis.families import estimate_against, estimate_effects, estimate_simple_effects
from gan_ablate.analysis.table import tabulate_effects
from gan_ablate.design.outcomes import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd

    from gan_ablate.design.claims import Claim, Expectation
    from gan_ablate.design.plan import Plan


Verdict = Literal["supported", "refuted", "negligible", "depends", "inconclusive"]
Basis = Literal["mean", "typical run", "failure rate"]
"""What a finding rests on: the mean over seeds, the median over seeds, or how often runs collapse or diverge."""
Effects = Callable[[str], Sequence[Effect]]
"""Returns the effects on an outcome, given its name."""
Against = Callable[[str, float, float | None], Effect | None]
"""Compares the baseline's outcome with a value, given the outcome's name, the value and a margin."""


@dataclass(frozen=True)
class Finding:
    """An expectation, its effect, the verdict on the expectation alone, and what that rests on."""

    expectation: Expectation
    effect: Effect
    verdict: Verdict
    basis: Basis = "mean"


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim's verdict and its evidence.

    Attributes:
        claim: the claim.
        verdict: the verdict by the claim's rule; ``depends`` where ``simple`` has effects.
        decisive: primary evidence: a finding per expectation that decides the claim.
        beside: secondary evidence: a finding per expectation that is only shown.
        simple: the simple effects behind the primary evidence, where that is an average of effects that differ.
    """

    claim: Claim
    verdict: Verdict
    decisive: tuple[Finding, ...]
    beside: tuple[Finding, ...]
    simple: tuple[Effect, ...] = ()

    @property
    def is_too_small(self) -> bool:
        """Whether every primary effect with a direction is too small to matter."""
        found = [finding.effect for finding in self.decisive if finding.effect.is_found]
        return bool(found) and all(effect.is_too_small for effect in found)

    @property
    def needed_seeds(self) -> int | None:
        """Number of seeds in all that would decide the claim if its effects stay as estimated; None if unknown.

        One effect decides a claim of a direction; a claim that nothing matters needs all of them.
        """
        effect = self._last_open_effect
        return None if effect is None else effect.needed_seeds

    @property
    def likely_seeds(self) -> tuple[int, int | None] | None:
        """The fewest and the most seeds, in all, that are likely to decide the claim; see ``Effect.likely_seeds``."""
        effect = self._last_open_effect
        return None if effect is None else effect.likely_seeds

    @property
    def _last_open_effect(self) -> Effect | None:
        """The effect whose seeds decide the claim; None where some needed number is not known."""
        open_effects = [finding.effect for finding in self.decisive if finding.verdict == "inconclusive"]
        known = [(effect.needed_seeds, i) for i, effect in enumerate(open_effects) if effect.needed_seeds is not None]
        if self.claim.direction == "none":
            return open_effects[max(known)[1]] if known and len(known) == len(open_effects) else None
        return open_effects[min(known)[1]] if known else None


def list_claims(plan: Plan) -> list[Claim]:
    """List the claims that a plan decides; a smoke run decides none."""
    return [] if plan.budget == "smoke" else plan.grid.claims


def judge(claim: Claim, effects: Effects, against: Against = lambda *_: None) -> ClaimVerdict | None:
    """Give the verdict on a claim, or None where part of its primary evidence was not measured.

    Args:
        claim: the claim.
        effects: returns the effects of its grid.
        against: compares the grid's baseline with a value.
    """
    decisive, beside = (
        tuple(
            Finding(expectation, effect, *_verdict(expectation, effect))
            for expectation in expectations
            if (effect := measure(expectation, effects, against)) is not None
        )
        for expectations in (claim.decisive, claim.beside)
    )
    if len(decisive) < len(claim.decisive):
        return None
    verdicts = {finding.verdict for finding in decisive}
    verdict: Verdict = "inconclusive"
    if claim.direction == "none":  # all levels have to be negligible
        if verdicts == {"supported"} or "refuted" in verdicts:
            verdict = "refuted" if "refuted" in verdicts else "supported"
    elif "supported" in verdicts and "refuted" not in verdicts:
        verdict = "supported"
    elif verdicts <= {"refuted", "negligible"}:
        verdict = "refuted" if "refuted" in verdicts else "negligible"
    return ClaimVerdict(claim, verdict, decisive, beside)


def measure(expectation: Expectation, effects: Effects, against: Against) -> Effect | None:
    """Return the effect of an expectation, or None where it was not measured."""
    if expectation.against is not None:
        return against(expectation.outcome, expectation.against, expectation.margin)
    return next((effect for effect in effects(expectation.outcome) if effect.levels == expectation.levels), None)


def _verdict(expectation: Expectation, effect: Effect) -> tuple[Verdict, Basis]:
    """Give the verdict on an expectation by the size of its effect, and by how often runs collapse or diverge.

    Where most runs collapsed on both sides, better images are no cure: only a lower rate is. Elsewhere the rate decides
    where the size has no direction, and the two have to agree where both have one.
    """
    by_size, by_rate = _verdict_by_size(expectation, effect), _verdict_by_rate(expectation, effect)
    basis: Basis = "mean" if effect.basis == "mean" else "typical run"
    if effect.compares_failures and effect.outcome.is_of_images and effect.decision == effect.outcome.better:
        return by_rate or "inconclusive", "failure rate"
    if by_rate is None or by_rate == by_size:
        return by_size, basis
    if by_size in ("negligible", "inconclusive") or expectation.direction == "none":
        return by_rate, "failure rate"
    return "inconclusive", basis


def _verdict_by_size(expectation: Expectation, effect: Effect) -> Verdict:
    decision = effect.decision
    if expectation.direction == "none":
        if decision == "negligible" or effect.is_too_small:
            return "supported"
        return "refuted" if effect.is_beyond_margin else "inconclusive"
    if decision in ("negligible", "inconclusive"):
        return decision
    return "supported" if decision == expectation.direction else "refuted"


def _verdict_by_rate(expectation: Expectation, effect: Effect) -> Verdict | None:
    """Give the verdict by how often runs collapse or diverge; None where that does not bear on it or is not known.

    It bears on what says how good the images are: fewer such runs are better.
    """
    if effect.failure_change is None or not effect.outcome.is_of_images:
        return None
    if expectation.direction == "none":
        return "refuted"
    is_better, is_gain = effect.failure_change == "lower", expectation.direction == effect.outcome.better
    return "supported" if is_better == is_gain else "refuted"


@dataclass(frozen=True)
class Verdicts:
    """A grid's effects, and the verdicts on its claims.

    Attributes:
        plan: the grid's plan.
        runs: its comparable runs.
    """

    plan: Plan
    runs: pd.DataFrame

    @functools.cached_property
    def design(self) -> Design:
        """The design of the plan."""
        return Design.of(self.plan)

    @functools.cached_property
    def effects(self) -> Callable[[str], list[Effect]]:
        """Returns the design's effects on an outcome given its name; each outcome is estimated once.

        There are none where no run has a comparable value.
        """
        return functools.cache(self._estimate)

    def _estimate(self, outcome: str) -> list[Effect]:
        return [] if self.runs[outcome].isna().all() else estimate_effects(self.design, self.runs, outcome)

    @functools.cached_property
    def simple_effects(self) -> list[Effect]:
        """Each level's effect on FID at every combination of the other factors' levels."""
        return estimate_simple_effects(self.design, self.runs) if self.effects("fid") else []

    def simple_effects_of(self, effect: Effect) -> list[Effect]:
        """List the simple effects of the level of a main effect."""
        return [simple for simple in self.simple_effects if simple.levels == effect.levels]

    def varies(self, effect: Effect) -> bool:
        """Whether a level's effect on FID depends on another factor.

        It does where an interaction of the two was found, its estimate is beyond the margin, and the simple effects
        have no decision in common: they differ, or all are inconclusive.
        """
        interacts = any(
            other.is_found and effect.levels.items() < other.levels.items() and abs(other.estimate.value) > other.margin
            for other in self.effects("fid")
            if other.margin is not None
        )
        decisions = {simple.decision for simple in self.simple_effects_of(effect)}
        return interacts and (len(decisions) > 1 or decisions == {"inconclusive"})

    @functools.cached_property
    def claim_verdicts(self) -> list[ClaimVerdict]:
        """The verdicts on the claims that this grid decides; none in a smoke run."""
        against = functools.partial(estimate_against, self.design, self.runs)
        verdicts = (judge(claim, self.effects, against) for claim in list_claims(self.plan))
        return [self._depending(verdict) for verdict in verdicts if verdict is not None]

    def _depending(self, claim_verdict: ClaimVerdict) -> ClaimVerdict:
        """Return a verdict, or ``depends`` where its evidence is an average of simple effects that differ."""
        simple = self._simple_behind(claim_verdict)
        return replace(claim_verdict, verdict="depends", simple=simple) if simple else claim_verdict

    def _simple_behind(self, claim_verdict: ClaimVerdict) -> tuple[Effect, ...]:
        """List the simple effects behind the primary evidence on FID that depends on another factor."""
        effects = [finding.effect for finding in claim_verdict.decisive if finding.effect.outcome.name == "fid"]
        varying = [effect for effect in effects if len(effect.levels) == 1 and self.varies(effect)]
        return tuple(simple for effect in varying for simple in self.simple_effects_of(effect))

    def unjudged(self) -> list[tuple[Claim, str]]:
        """List the other claims of this grid, each with the reason why it has no verdict."""
        reason = "smoke runs judge nothing" if self.plan.budget == "smoke" else "no run has what would decide it"
        judged = [claim_verdict.claim for claim_verdict in self.claim_verdicts]
        return [(claim, reason) for claim in self.plan.grid.claims if claim not in judged]

    def all_effects(self) -> pd.DataFrame:
        """Tabulate every effect on every outcome, with all its intervals and tests."""
        every = []
        for outcome in OUTCOMES:
            every += [*self.effects(outcome), *(self.simple_effects if outcome == "fid" else ())]
        return tabulate_effects(every)
