"""Sentences on effects and verdicts, which say no more than the intervals allow."""

from __future__ import annotations

import dataclasses
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, assert_never

from gan_ablate.design.outcomes import margin_text
from gan_ablate.reporting.formats import (
    change_text,
    count,
    escape_markdown,
    excludes_nothing,
    p_text,
    percent_text,
    value_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.analysis.claims import ClaimVerdict
    from gan_ablate.analysis.design import Event
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.tests import RateComparison
    from gan_ablate.analysis.trajectories import Trajectory
    from gan_ablate.design.claims import Factor


INTERVAL_WORDS = {
    "fixed": "Student's t, for a number of seeds that was settled beforehand",
    "sequential": "valid at every look, as seeds were added after looking",
    "unpaired": "Welch's t, for a number of runs that was settled beforehand",
}

PAIRING_PAYS = 1.5
"""The relative efficiency below which pairing buys little."""

FEWEST_TIMED = 3
"""The number of seeds below which a change of the time of a step counts as not measured."""

UNEVEN_SPREAD = 2.0
"""The ratio of the spreads of simple effects from which on their average hides something."""


def decision_sentence(
    effect: Effect,
    step_time: Effect | None,
    *,
    average: str = "",
    tells_cost: bool = True,
) -> str:
    """Say how large an effect is, and what is decided of it.

    Args:
        effect: on FID or another outcome.
        step_time: the same effect on the time of a step, or None where times do not compare.
        average: over which factors the effect is averaged, in words; see ``run_sentences.average_words``.
        tells_cost: whether the sentence ends with the change of the time of a step.
    """
    name, seeds = effect.name, effect.estimate.num_seeds
    events = rates_words(effect.rates)
    one = "seed" if effect.is_paired else "run"
    if seeds == 0:
        where = "no seed has a score for every variant that this compares"
        return f"**{name}**: {where if effect.is_paired else 'a variant that this compares has no score'}{events}."
    if math.isnan(effect.estimate.value):
        return f"**{name}**: the typical run is not known, as in most seeds runs on both sides have no value{events}."
    alone = dataclasses.replace(effect.estimate, low=math.nan, high=math.nan)
    only = f"**{name}**: {effect.outcome.title} {change_text(effect, alone)}"
    if seeds == 1:
        return f"{only} in the only {one}; one {one} says nothing about the next{events}."
    if math.isnan(effect.estimate.low):
        return f"{only} in each of {seeds} {one}s alike; there is nothing to test{events}."
    size = f"{adjusted_text(effect)}{average}, {num_seeds_text(effect)}, Holm's p {p_text(effect.test.p)}"
    size += earlier_words(effect)
    if _is_unbounded(effect):
        size = f"{change_text(effect, alone)}{average}: {seeds_words(effect)}"
    if effect.is_interaction:
        sentence = f"**{name}**{_interaction_words(effect, size)}"
    else:
        cost = f"; {cost_words(step_time)}" if tells_cost else ""
        sentence = f"**{name}** {_effect_words(effect, size)}{cost}"
    return sentence + allowed_rate_words(effect) + with_diverged_words(effect) + events + "."


def _title(effect: Effect) -> str:
    """Name the outcome, and whose it is where the median over seeds is told."""
    return f"{effect.outcome.title}{' of the typical run' if effect.basis == 'median' else ''}"


def _effect_words(effect: Effect, size: str) -> str:
    title = _title(effect)
    match effect.decision:
        case "lower" | "higher":
            verb = "lowers" if effect.decision == "lower" else "raises"
            return f"{verb} {title}: {size}{inflated_words(effect)}{too_small_words(effect)}"
        case "negligible":
            return f"does not matter: {title} {size}; {margin_words(effect)}"
        case "inconclusive":
            state = "" if _is_unbounded(effect) else f"; {settling_words(effect.likely_seeds)}"
            side = leaning(effect)
            if side is not None:
                return f"is inconclusive, leaning {side}: {title} {size}; without the adjustment it is {side}{state}"
            return f"is inconclusive: {title} {size}{state}"
        case _:
            assert_never(effect.decision)


def _interaction_words(effect: Effect, size: str) -> str:
    title = _title(effect)
    match effect.decision:
        case "lower" | "higher":
            both = f"with both, {title} is {effect.decision} than their separate effects would make it"
            return f" interact: {both}: {size}{too_small_words(effect)}"
        case "negligible":
            return f": no interaction that matters: {size}; {margin_words(effect)}"
        case "inconclusive":
            return f": whether they interact is inconclusive: {size}"
        case _:
            assert_never(effect.decision)


def findings_sentence(effects: Sequence[Effect]) -> str | None:
    """List the effects on an outcome by decision, the largest first; None where nothing is compared.

    Args:
        effects: on one outcome; interactions that were not found are left out.
    """
    parts = []
    title = effects[0].outcome.title if effects else ""
    shown = [e for e in effects if (e.is_found or not e.is_interaction) and e.estimate.num_seeds]
    shown.sort(key=lambda effect: -abs(effect.estimate.value))
    for decision, words in (
        ("lower", f"Lowers {title}"), ("higher", f"Raises {title}"), ("negligible", "Does not matter"),
        ("inconclusive", "Inconclusive"),
    ):  # fmt: skip
        findings = ", ".join(_finding_words(effect) for effect in shown if effect.decision == decision)
        if findings:
            parts.append(f"{words}: {findings}.")
    return " ".join(parts) or None


def failures_sentence(effects: Sequence[Effect]) -> str | None:
    """Name the effects that compare mostly collapsed runs; None without any."""
    if not effects:
        return None
    names = ", ".join(f"**{effect.name}**" for effect in effects)
    return f"FID decides nothing where most runs collapsed, with the level and without it: {names}."


def _finding_words(effect: Effect) -> str:
    side = leaning(effect)
    more = f", leaning {side}" if side else ", too small to matter" if effect.is_too_small else ""
    beyond = " beyond what each does" if effect.is_interaction else ""
    return f"**{effect.name}** {adjusted_text(effect)}{beyond}{more}"


def leaning(effect: Effect) -> Literal["lower", "higher"] | None:
    """Say to which side an inconclusive effect leans: its interval excludes zero, its adjusted interval does not."""
    if effect.decision != "inconclusive":
        return None
    if effect.estimate.high < 0:
        return "lower"
    return "higher" if effect.estimate.low > 0 else None


def decision_words(effect: Effect) -> str:
    """Say the decision of an effect: ``lower``, ``negligible``, ``inconclusive, leaning higher``."""
    side = leaning(effect)
    if side is not None:
        return f"inconclusive, leaning {side}"
    return f"{effect.decision}{', too small to matter' if effect.is_too_small else ''}"


def earlier_words(effect: Effect) -> str:
    """Say at how many seeds an effect was decided, where its interval no longer shows it: ``, found at 9 seeds``."""
    if effect.earlier_seeds is None:
        return ""
    return f", {'found' if effect.is_found else 'negligible'} at {effect.earlier_seeds} seeds"


def margin_words(effect: Effect) -> str:
    """Name the margin of an effect: ``within the margin of -9.1 % to +10 %``."""
    if effect.margin is None:
        return ""
    if effect.outcome.scale == "difference":
        return f"within the margin of {effect.margin:.3g}"
    return f"within the margin of {margin_text(effect.margin)}"


def seeds_words(effect: Effect) -> str:
    """Say that the seeds of an effect are too few for an interval."""
    seeds = num_seeds_text(effect)
    return f"{seeds} exclude nothing yet{' by their signs' if effect.basis == 'median' else ''}"


def num_seeds_text(effect: Effect) -> str:
    """Write how many seeds an effect rests on: ``5 seeds``, or ``at least 5 runs a variant`` if they do not pair."""
    num = effect.estimate.num_seeds
    return count(num, "seed") if effect.is_paired else f"at least {count(num, 'run')} a variant"


def _is_unbounded(effect: Effect) -> bool:
    return not math.isfinite(effect.estimate.low)


def too_small_words(effect: Effect) -> str:
    """Say that an effect is real but too small to matter; empty where that is not known."""
    return f"; too small to matter, {margin_words(effect)}" if effect.is_too_small else ""


def allowed_rate_words(effect: Effect) -> str:
    """Say which rate of collapse the seeds of an effect that does not matter still allow; empty for other effects."""
    if effect.outcome.is_cost or (effect.decision != "negligible" and not effect.is_too_small):
        return ""
    seeds = num_seeds_text(effect)
    return f"; {seeds} cannot exclude that up to {100 * effect.allowed_collapse_rate:.0f} % of its runs collapse"


def settling_words(likely_seeds: tuple[int, int | None] | None) -> str:
    """Say how many seeds in all are likely to settle an inconclusive effect: ``12 to 70 seeds in all would tell``."""
    if likely_seeds is None:
        return "no number of seeds in reach would tell"
    fewest, most = likely_seeds
    if most is None:
        return f"{fewest:,} or more seeds in all would tell"
    return f"{f'{fewest:,} to {most:,}' if most > fewest else f'{fewest:,}'} seeds in all would tell"


def inflated_words(effect: Effect) -> str:
    """Say that an effect is probably smaller, where seeds were added until it was found."""
    return ", probably smaller, as seeds were added until it was found" if effect.is_inflated else ""


def pairing_sentence(effects: Sequence[Effect]) -> str | None:
    """Say for which effects sharing seeds pays; None where there are too few seeds to know."""
    known = [effect for effect in effects if math.isfinite(effect.pairing.value)]
    if not known:
        return None
    pays = [effect.name for effect in known if effect.pairing.low > 1]
    not_known = [effect.name for effect in known if effect.pairing.low <= 1 and effect.pairing.high >= PAIRING_PAYS]
    pays_not = [effect.name for effect in known if effect.pairing.low <= 1 and effect.pairing.high < PAIRING_PAYS]
    parts = [
        f"{words}: {', '.join(names)}"
        for words, names in (("saves seeds for", pays), ("buys little for", pays_not), ("is not known for", not_known))
        if names
    ]
    return f"What pairing is worth: it {'; '.join(parts)}."


def trajectory_sentence(trajectory: Trajectory, final: Effect | None = None, images: str = "") -> str | None:
    """Say when an effect changes sign or shrinks during training; None where it does neither.

    Args:
        trajectory: of the effect.
        final: the same effect on the final scores. Where it has another decision, that on the last point is not told.
        images: on how many images FID along training is taken, where the final scores have another number.
    """
    last, name = trajectory.effects[-1], trajectory.effects[-1].name
    verbs = {"lower": "lowers FID", "higher": "raises FID"}
    if trajectory.turned_at is not None:
        turned = trajectory.effects[trajectory.steps.index(trajectory.turned_at)].decision
        until = f"**{name}** {verbs[turned]} until step {trajectory.turned_at:,}"
        if final is not None and final.decision != last.decision:
            return f"{until}, but not at the end{images}."
        others = {"negligible": "does not matter", "inconclusive": "is inconclusive"}
        after = verbs.get(last.decision) or others[last.decision]
        holds = "at the end" if trajectory.holds_from is None else f"from step {trajectory.holds_from:,} on"
        return f"{until}, and {after} {holds}{images}."
    if trajectory.peak is not None:
        step, largest = trajectory.peak
        return (
            f"**{name}** shrinks: from {percent_text(largest.estimate)} at step {step:,} to "
            f"{percent_text(last.estimate)} at step {trajectory.steps[-1]:,}{images}."
        )
    return None


def simple_effects_sentence(effects: Sequence[Effect], *, varies: bool) -> str | None:
    """List the simple effects of a level where they or their spreads differ; else None.

    Args:
        effects: the simple effects of one level.
        varies: whether they differ, by ``Verdicts.varies``.
    """
    known = [effect for effect in effects if math.isfinite(effect.estimate.low)]
    spreads = [effect.estimate.std for effect in known]
    if len(known) < 2 or (not varies and max(spreads) < UNEVEN_SPREAD * min(spreads)):
        return None
    return f"**{known[0].name}**, level by level: {'; '.join(map(simple_effect_words, known))}."


def simple_effect_words(effect: Effect) -> str:
    """Write a simple effect: ``with batch norm on -1.3 % [-3.1, +1.1], negligible``."""
    return f"with {effect.place} {decided_text(effect)}"


def effect_name(effect: Effect) -> str:
    """Name an effect, the level at which a simple effect is measured, and an interaction as such."""
    place = f", with {effect.place}" if effect.within else ""
    return effect.name + place + (" (interaction)" if effect.is_interaction else "")


def with_diverged_words(effect: Effect) -> str:
    """Say how large an effect is if diverged runs count as the worst; empty where none diverged."""
    if effect.with_diverged is None:
        return ""
    return f"; counting diverged runs as the worst that finished, {change_text(effect, effect.with_diverged)}"


def rates_words(rates: Mapping[Event, RateComparison]) -> str:
    """Say how often runs diverged or collapsed with the level and without it; empty where none did."""
    return "".join(
        f"; {event} {rate.count}/{rate.total} runs against {rate.baseline_count}/{rate.baseline_total} "
        f"(Holm's p {p_text(rate.p_holm)})"
        for event, rate in rates.items()
    )


def cost_words(step_time: Effect | None) -> str:
    """Say how the time of a step changes."""
    if step_time is None or not math.isfinite(step_time.estimate.value):
        return "its cost is not known"
    unsure = ", no certain change" if is_timed(step_time) and not step_time.is_found else ""
    return f"step time {time_text(step_time)}{unsure}"


def is_timed(step_time: Effect) -> bool:
    """Whether enough seeds were timed on both sides to tell a change of the time of a step."""
    return step_time.estimate.num_seeds >= FEWEST_TIMED and not excludes_nothing(step_time.estimate)


def time_text(step_time: Effect) -> str:
    """Write a change of the time of a step, or that too few runs measured it: ``not measured (2 runs)``."""
    num = step_time.estimate.num_seeds
    return percent_text(step_time.estimate) if is_timed(step_time) or not num else f"not measured ({count(num, 'run')})"


def adjusted_text(effect: Effect) -> str:
    """Write an effect with its adjusted interval, ``-45.0 % [-68.3, -4.4]``, and when it was decided if not by that."""
    bounds = effect.adjusted
    adjusted = dataclasses.replace(effect.estimate, low=bounds.low, high=bounds.high)
    return change_text(effect, adjusted) + earlier_words(effect)


def decided_text(effect: Effect) -> str:
    """Write an effect with its adjusted interval and its decision: ``-1.3 % [-3.1, +1.1], negligible``."""
    return f"{adjusted_text(effect)}, {decision_words(effect)}"


def verdict_words(
    claim_verdict: ClaimVerdict, *, is_complete: bool, factors: Mapping[str, Factor] = MappingProxyType({})
) -> str:
    """Say a verdict, what it depends on, and what would settle an inconclusive one.

    Args:
        claim_verdict: of one claim in one grid.
        is_complete: whether all runs of the grid are finished.
        factors: of the grid, whose labels name levels.
    """
    if claim_verdict.verdict != "inconclusive":
        return _decided_words(claim_verdict, is_complete=is_complete, factors=factors)
    effects = [finding.effect for finding in claim_verdict.decisive]
    verdicts = {finding.verdict for finding in claim_verdict.decisive}
    if claim_verdict.claim.direction == "none" and any(effect.is_found for effect in effects):
        return _beyond_words(effects)
    if max(effect.estimate.num_seeds for effect in effects) < 2:
        return "inconclusive: too few seeds have a score to compare"
    if {"supported", "refuted"} <= verdicts:
        found = (
            f"**{verdict}** for {_levels_with(claim_verdict, verdict, factors)}" for verdict in ("supported", "refuted")
        )
        return f"{', '.join(found)}{'' if is_complete else ', provisionally: runs are missing'}"
    if all(effect.compares_failures for effect in effects):
        return "inconclusive: most runs collapse with it, as without it"
    return f"inconclusive: {settling_words(claim_verdict.likely_seeds)}"


def _beyond_words(effects: Sequence[Effect]) -> str:
    """Say which effects a claim of no difference meets, where none is certainly beyond the margin."""
    title = effects[0].outcome.title
    found = {
        decision: ", ".join(value_text(e, e.estimate.value) for e in effects if e.decision == decision)
        for decision in ("higher", "lower")
    }
    told = " and ".join(f"{decision} ({sizes})" for decision, sizes in found.items() if sizes)
    within = next(effect for effect in effects if effect.is_found)
    return f"inconclusive: {title} is {told}; whether beyond {margin_words(within).removeprefix('within ')} is open"


def _decided_words(claim_verdict: ClaimVerdict, *, is_complete: bool, factors: Mapping[str, Factor]) -> str:
    """Say a verdict that is decided, or on which simple effects it depends."""
    if claim_verdict.verdict == "depends":
        depends = "**depends**" if is_complete else "depends, provisionally, as runs are missing"
        return f"{depends}: {'; '.join(map(simple_effect_words, claim_verdict.simple))}"
    small = ", by an effect too small to matter" if claim_verdict.is_too_small else ""
    basis = _basis_words(claim_verdict)
    if is_complete:
        return f"**{claim_verdict.verdict}**{_which_words(claim_verdict, factors)}{basis}{small}"
    return f"{claim_verdict.verdict}{basis}{small}, provisionally: runs are missing"


def _basis_words(claim_verdict: ClaimVerdict) -> str:
    """Say on what a verdict rests where that is not a mean over seeds: the typical run, or how often runs fail."""
    bases = {finding.basis for finding in claim_verdict.decisive if finding.verdict == claim_verdict.verdict}
    words = {"typical run": "the typical run", "failure rate": "how often runs collapse or diverge"}
    told = [words[basis] for basis in sorted(bases, reverse=True) if basis != "mean"]
    return f", by {' and '.join(told)}" if told else ""


def _which_words(claim_verdict: ClaimVerdict, factors: Mapping[str, Factor]) -> str:
    """Name the levels that a verdict rests on, where other levels of the claim are inconclusive."""
    if claim_verdict.claim.direction == "none":
        return ""
    bearing = [finding.effect for finding in claim_verdict.decisive if finding.verdict == claim_verdict.verdict]
    if len(bearing) == len(claim_verdict.decisive) or any(len(effect.levels) != 1 for effect in bearing):
        return ""
    return f" for {_levels_with(claim_verdict, claim_verdict.verdict, factors)}"


def _levels_with(claim_verdict: ClaimVerdict, verdict: str, factors: Mapping[str, Factor]) -> str:
    """Name the levels whose findings have a verdict."""
    effects = (finding.effect for finding in claim_verdict.decisive if finding.verdict == verdict)
    return " and ".join(level_words(effect, factors) or effect.name for effect in effects)


def level_words(effect: Effect, factors: Mapping[str, Factor]) -> str:
    """Name the levels of an effect in words: ``on every layer``."""
    labels = (factors[name].label_of(level) if name in factors else level for name, level in effect.levels.items())
    return " ".join(map(escape_markdown, labels))


def evidence_words(effect: Effect, average: str = "") -> str:
    """Name an effect with its adjusted interval and p: ``FID, batch norm on: -45.0 % [-68.3, -4.4], p = 0.004``."""
    p = p_text(effect.test.p)
    return (
        f"{effect.outcome.title}, {effect.name}: {adjusted_text(effect)}{average}, p {p}{with_diverged_words(effect)}"
    )
