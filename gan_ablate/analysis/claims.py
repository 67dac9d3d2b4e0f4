"""A grid's effects, its claims, and the verdict on each claim."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gan_ablate.analysis.design import Design
from gan_ablate.analysis.effects import (
    Effect,
    estimate_against,
    estimate_effects,
    estimate_simple_effects,
)
from gan_ablate.analysis.table import tabulate_effects
from gan_ablate.analysis.tests import compare_event_rates
from gan_ablate.design.outcomes import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd

    from gan_ablate.analysis.tests import RateComparison
    from gan_ablate.design.claims import Claim, Expectation
    from gan_ablate.design.plan import Plan


Verdict = Literal["supported", "refuted", "negligible", "open"]
Effects = Callable[[str], Sequence[Effect]]
"""Returns the grid's effects on an outcome, given its name."""
Against = Callable[[str, float, float | None], Effect | None]
"""Compares the baseline's outcome with a value, given the outcome's name, the value and a margin."""


@dataclass(frozen=True)
class Finding:
    """An expectation, the effect that was measured for it, and what that says of the claim."""

    expectation: Expectation
    effect: Effect
    verdict: Verdict


@dataclass(frozen=True)
class ClaimVerdict:
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


def judge(claim: Claim, effects: Effects, against: Against = lambda *_: None) -> ClaimVerdict | None:
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
    return ClaimVerdict(claim, verdict, decisive, beside)


def measure(expectation: Expectation, effects: Effects, against: Against) -> Effect | None:
    """Return the effect that decides an expectation, or None where it was not measured."""
    if expectation.against is not None:
        return against(expectation.outcome, expectation.against, expectation.margin)
    return next((effect for effect in effects(expectation.outcome) if effect.levels == expectation.levels), None)


def _verdict(expectation: Expectation, effect: Effect) -> Verdict:
    answer = effect.decision
    if expectation.direction == "none":
        if answer == "negligible" or effect.is_too_small:
            return "supported"
        return "refuted" if effect.is_beyond_margin else "open"
    if answer in ("negligible", "open"):
        return answer
    return "supported" if answer == expectation.direction else "refuted"


@dataclass(frozen=True)
class Verdicts:
    """What a grid's runs say of its factors.

    Attributes:
        plan: the grid's.
        runs: its comparable runs.
        first_point: the step of the first point of FID along training.
    """

    plan: Plan
    runs: pd.DataFrame
    first_point: int

    @functools.cached_property
    def design(self) -> Design:
        """The design of the plan."""
        return Design.of(self.plan)

    def effects(self, outcome: str) -> list[Effect]:
        """Estimate the design's effects on an outcome, once.

        None where no run has a comparable value, and for the seconds to the target where not every run's are known.
        """
        known = self._effects.get(outcome)
        if known is None:
            is_hidden = outcome == "sec_to_fid" and self._has_unknown_convergence()
            is_hidden |= bool(self.runs[outcome].isna().all())
            known = [] if is_hidden else estimate_effects(self.design, self.runs, outcome)
            self._effects[outcome] = known
        return known

    @functools.cached_property
    def simple_effects(self) -> list[Effect]:
        """Estimate each level's effect on FID at every combination of the other factors' levels."""
        return estimate_simple_effects(self.design, self.runs) if self.effects("fid") else []

    def simple_effects_of(self, effect: Effect) -> list[Effect]:
        """List the same level's effects at every combination of the other factors' levels."""
        return [simple for simple in self.simple_effects if simple.levels == effect.levels]

    def varies(self, effect: Effect) -> bool:
        """Whether one answer is given at some level of the other factors, or on average, and another elsewhere."""
        answers = {effect.decision, *(simple.decision for simple in self.simple_effects_of(effect))}
        return len(answers - {"open"}) > 1

    @functools.cached_property
    def _effects(self) -> dict[str, list[Effect]]:
        return {}

    def _has_unknown_convergence(self) -> bool:
        """Whether a run never reached the target, or had done so before its first point."""
        steps = self.runs["steps_to_fid"].astype(float)
        return bool((~self.runs["fid_reached"].eq(True) | (steps <= self.first_point)).any())

    def rates(self, effect: Effect) -> dict[str, RateComparison]:
        """Compare how often runs diverged and collapsed with an effect's level and without; only what happened."""
        if effect.against is not None:
            return {}
        compared = {
            event: compare_event_rates(self.design, self.runs, effect.levels, event)
            for event in ("diverged", "collapsed")
        }
        return {event: rates for event, rates in compared.items() if rates.count or rates.baseline_count}

    def compares_failures(self, effect: Effect) -> bool:
        """Whether most runs collapsed, with an effect's level and without: such a comparison answers nothing."""
        rates = self.rates(effect).get("collapsed")
        return (
            rates is not None
            and min(rates.count / max(rates.total, 1), rates.baseline_count / max(rates.baseline_total, 1)) > 0.5
        )

    def claim_verdicts(self) -> list[ClaimVerdict]:
        """Judge the claims that this grid decides, once; none where it is only a smoke run."""
        return self._judgements

    @functools.cached_property
    def _judgements(self) -> list[ClaimVerdict]:
        against = functools.partial(estimate_against, self.design, self.runs)
        judged = (judge(claim, self.effects, against) for claim in list_claims(self.plan))
        return [claim_verdict for claim_verdict in judged if claim_verdict is not None]

    def unjudged(self) -> list[tuple[Claim, str]]:
        """List the other claims of this grid, and why they have no verdict."""
        reason = "smoke runs judge nothing" if self.plan.budget == "smoke" else "no run has what would decide it"
        judged = [claim_verdict.claim for claim_verdict in self.claim_verdicts()]
        return [(claim, reason) for claim in self.plan.grid.claims if claim not in judged]

    def all_effects(self) -> pd.DataFrame:
        """Tabulate every effect on every outcome, with all its intervals and tests."""
        return tabulate_effects(
            [effect for outcome in OUTCOMES for effect in (*self.effects(outcome), *self._simple(outcome))]
        )

    def _simple(self, outcome: str) -> list[Effect]:
        return self.simple_effects if outcome == "fid" else []
