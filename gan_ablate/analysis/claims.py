"""What tutorials and papers claim, as data, and the verdict that a grid's effects give on each.

To add a claim is to add one entry to ``CLAIMS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gan_ablate.analysis.effects import Effect

if TYPE_CHECKING:
    from gan_ablate.design.planning import Plan

Verdict = Literal["supported", "refuted", "negligible", "open"]
Effects = Callable[[str], Sequence[Effect]]
"""An outcome's name in, the grid's effects on it out."""


@dataclass(frozen=True)
class Expectation:
    """What would be seen if the claim were true: these levels change this outcome in this direction, or not at all.

    Attributes:
        levels: factor → level, against the factor's baseline; two of them for an interaction.
        outcome: a name in ``gan_ablate.analysis.outcomes.OUTCOMES``.
        direction: of the change; ``none`` where the claim is that it does not matter.
    """

    levels: dict[str, str]
    outcome: str
    direction: Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Claim:
    """One sentence that is put to the test.

    Attributes:
        id: its number.
        sentence: the claim in our words.
        grid: the shipped grid that tests it.
        decisive: what decides it, all on one outcome, so that one family of tests bounds the chance of a false verdict.
            The claim is supported if at least one of these is seen and the opposite of none; refuted if none is seen or
            can still be, and the opposite of at least one is; negligible if all certainly lie within the margin; open
            otherwise.
        beside: what is shown with it and decides nothing.
    """

    id: str
    sentence: str
    grid: str
    decisive: tuple[Expectation, ...]
    beside: tuple[Expectation, ...] = ()


CLAIMS = (
    Claim(
        "C1",
        "A DCGAN draws better digits than an MLP GAN, as whole recipes",
        "architecture",
        (Expectation({"architecture": "dcgan"}, "fid", "lower"),),
        (
            Expectation({"architecture": "dcgan"}, "kid", "lower"),
            Expectation({"architecture": "dcgan"}, "fid_equal_time", "lower"),
        ),
    ),
    Claim(
        "C2",
        "Batch norm steadies training so that samples get better",
        "bn_label_smooth",
        (Expectation({"batch_norm": "on"}, "fid", "lower"),),
        (Expectation({"batch_norm": "on"}, "oscillation", "lower"),),
    ),
    Claim(
        "C5",
        "LeakyReLU in the discriminator makes better samples, as it keeps gradients from vanishing",
        "activation",
        (Expectation({"discriminator_activation": "leaky_relu"}, "fid", "lower"),),
        (Expectation({"discriminator_activation": "leaky_relu"}, "grad_norm_g", "higher"),),
    ),
    Claim(
        "C6",
        "With Adam's β1 at 0.9 training oscillates; at 0.5 it is steadier",
        "beta1",
        (Expectation({"beta1": "0.9"}, "oscillation", "higher"),),
        (Expectation({"beta1": "0.9"}, "fid", "higher"),),
    ),
    Claim(
        "C9",
        "Smoothing the real label to 0.9 steadies training so that samples get better",
        "bn_label_smooth",
        (Expectation({"label_smoothing": "on"}, "fid", "lower"),),
        # Not D's confidence: its best answer to a label of 0.9 is 0.9.
        (Expectation({"label_smoothing": "on"}, "oscillation", "lower"),),
    ),
    Claim(
        "C10",
        "Dropout in the discriminator makes better samples",
        "dropout",
        (
            Expectation({"dropout": "channels-25"}, "fid", "lower"),
            Expectation({"dropout": "elements-30"}, "fid", "lower"),
            Expectation({"dropout": "elements-50"}, "fid", "lower"),
        ),
    ),
)


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
        """How many seeds in all would settle the nearest of its open effects, or None where that is not known."""
        open_effects = [finding.effect for finding in self.decisive if finding.verdict == "open"]
        return min((e.needed_seeds for e in open_effects if e.needed_seeds is not None), default=None)


def list_claims(plan: Plan) -> list[Claim]:
    """List the claims that a plan decides; none if its grid is not the shipped one, or this is only a smoke run."""
    is_shipped = plan.grid.source == f"grid {plan.grid.name}"
    if not is_shipped or plan.budget == "smoke":
        return []
    return [claim for claim in CLAIMS if claim.grid == plan.grid.name]


def judge(claim: Claim, effects: Effects) -> Judgement | None:
    """Give the verdict on a claim, or None where its grid did not measure all that decides it.

    Args:
        claim: to be judged.
        effects: of its grid.
    """
    decisive, beside = (_find(expectations, effects) for expectations in (claim.decisive, claim.beside))
    if len(decisive) < len(claim.decisive):
        return None
    verdicts = {finding.verdict for finding in decisive}
    verdict: Verdict = "open"
    if "supported" in verdicts and "refuted" not in verdicts:
        verdict = "supported"
    elif verdicts <= {"refuted", "negligible"}:
        verdict = "refuted" if "refuted" in verdicts else "negligible"
    return Judgement(claim, verdict, decisive, beside)


def _find(expectations: Sequence[Expectation], effects: Effects) -> tuple[Finding, ...]:
    return tuple(
        Finding(expectation, effect, _verdict(expectation, effect))
        for expectation in expectations
        for effect in effects(expectation.outcome)
        if effect.levels == expectation.levels
    )


def _verdict(expectation: Expectation, effect: Effect) -> Verdict:
    answer = effect.answer
    if expectation.direction == "none":
        if answer == "negligible" or effect.is_too_small:
            return "supported"
        return "refuted" if effect.is_beyond_margin else "open"
    if answer in ("negligible", "open"):
        return answer
    return "supported" if answer == expectation.direction else "refuted"
