"""Estimates and records in, sentences out: what a report says, and only as surely as its intervals allow."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, assert_never

from gan_ablate.analysis.sequential import PRIOR_SEEDS
from gan_ablate.analysis.significance import POWER, seeds_needed
from gan_ablate.analysis.stats import CONFIDENCE, MIN_BOOTSTRAP_SEEDS, rate_interval
from gan_ablate.analysis.variance import split_grid_variance
from gan_ablate.scoring.scores import COLLAPSED_RECALL, COLLAPSED_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gan_ablate.analysis.claims import Judgement
    from gan_ablate.analysis.courses import Course
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.analysis.settling import Look, Settling
    from gan_ablate.analysis.significance import RateComparison
    from gan_ablate.analysis.stats import Estimate
    from gan_ablate.design.planning import Plan


INTERVAL_WORDS = {
    "fixed": "Student's t, for a number of seeds that was settled beforehand",
    "sequential": "valid at every look, as seeds were added after looking",
}

PAIRING_PAYS = 1.5
"""A gain that is certainly below it buys little: fewer than half as many seeds again."""

UNEVEN_SPREAD = 2.0
"""An average over levels hides something where the differences at one spread so many times as far as at another."""

_ANSWERS = {"lower": "lower", "higher": "higher", "negligible": "it does not matter", "open": "open"}

SMOKE_WARNING = "The smoke budget shows that everything works; its runs are too short to answer anything."

METHODS = f"""\
- **The unit is the seed.** The variants of a seed share the order of the images, the latents from which D's fakes are
  drawn and the random stream of every parameter tensor: where name, shape and initialisation agree, so do the initial
  weights. So an effect is a difference within a seed, averaged over seeds.
- **Effects** on outcomes of the ratio scale are means of log ratios, told in percent. In a factorial grid an effect is
  averaged over the levels of the other factors, and an interaction is how much one factor's effect differs between the
  levels of another; in a one-at-a-time grid each level is compared with the baseline.
- **Intervals** cover {CONFIDENCE:.0%}. Where the number of seeds was settled beforehand: Student's t on the paired
  differences and, from {MIN_BOOTSTRAP_SEEDS} seeds on, a bootstrap over seeds with expanded percentiles; with fewer
  seeds no resampling covers as often as it says. Where seeds were added after a look at the answers (`--until settled`,
  or the same grid with more `--seeds`): the sequential t test with a normal mixture (arXiv:2210.08589, section 3;
  g = {PRIOR_SEEDS}), whose intervals and p hold at every look and are therefore wider; a grid's setup table says which.
- **Tests.** A grid's effects on one outcome are one family. Holm's procedure keeps the chance of any false finding
  among them at 5 %; every outcome of every grid is a family of its own, and nothing adjusts across them. Intervals
  are not adjusted unless they say so, nor is Fisher's p. The adjusted interval has the level at which Holm's procedure
  tests that effect, and excludes zero exactly where it finds one; several of them do not hold jointly at 95 %. The
  sign-flip test is exact for differences that are symmetric around zero, normal or not, but n seeds give no p below
  2/2ⁿ: with five it cannot reach 0.05, and verdicts rest on the t test, for which differences should be roughly normal.
- **The margin** of a grid is the smallest change worth having, 10 % unless its file says otherwise: from 1/1.1 to 1.1
  times the outcome. Only outcomes that are compared by ratios have one.
- **Verdicts.** *Supported*: the adjusted interval of a deciding effect excludes zero on the side that the claim says,
  and none on the other. *Refuted*: that of a deciding effect excludes zero on the other side, and all others do too or
  are negligible. *Negligible*: all deciding intervals lie within the margin: it does not matter. *Open*: all else. An
  effect whose interval excludes zero and lies within the margin is real, and too small to matter. A claim that
  something makes no difference is supported by a negligible effect, and refuted by one beyond the margin. The chance
  that any effect of a family is falsely called negligible is held to 5 %, as that of a false effect is. The seeds
  that would settle an open effect are those at which its interval, valid at every look, would exclude zero or lie
  within the margin, were mean and spread those seen here; a few seeds know neither well.
- **Simple effects** are those of one factor at one level of each other factor: what stands behind a factorial grid's
  averages. They are a family of tests of their own, each with its own spread.
- **Along training**, every effect is estimated anew at each point at which FID was taken, on fewer samples; all effects
  at one point are a family of tests, and nothing adjusts across points. An answer *holds from* the first point after
  which no other one was given. A variant has not levelled off where its FID falls by more than the margin over the last
  third of training.
- **What pairing is worth** is the variance that a difference would have if either side had seeds of its own, over the
  variance that it has: 2 means that shared seeds halve the seeds needed, 1 that they buy nothing. The interval is
  Morgan's for correlated normal variances (Biometrika 31, 1939), exact for normal scores, and wide with few seeds.
- **Divergence** (a loss, a gradient, a weight or a pixel that is not a finite number) is counted, not dropped, and so
  is **collapse**: a finished run whose images are as diverse as fewer than {COLLAPSED_SHARE:.0%} of the classes, drawn
  evenly (exp of the entropy of the classes' shares: Hill, Ecology 54, 1973), or whose recall is below
  {COLLAPSED_RECALL} (arXiv:1904.06991): nineteen of twenty real images have none of its kind. Half of the classes is
  where a generator draws no longer most of them; recall sees what classes cannot, one image of each class again and
  again, and in the 98 runs of this project's first grids it was below 0.04 where one shape, or a few, filled the sample
  sheet, above 0.1 where sheets were varied, and between them nowhere. Both rates have exact (Clopper-Pearson)
  intervals and are compared by Fisher's exact test. Where runs diverged, effects are given twice: over the seeds that
  every compared variant survived, and with each diverged run scored like the worst that finished, which is the least
  that a divergence can count.
- **The floor** is what as many real training images score, sent through the same resizing: no generator can be expected
  below it. FID on a digit classifier's features has a scale of its own: it does not compare with FID on Inception's.
- **In the tables**, *spread over seeds* is the standard deviation of log FID, as a percentage; *FID, batch statistics*
  is that of images drawn with each batch's own mean and variance; *classes, fewest* is the smallest number of classes
  that a run covers; *it/s* is one over the median step, *p10* and *p90* are percentiles of its time; *process peak* is
  the largest memory of the process while it trained; brackets are 95 % intervals over seeds. The *Pareto front* joins
  the variants than which no other is both cheaper and better, by their means.
- **Runs that grids share** are computed once. Effects that rest on the same runs are one finding, not two.
- **Precision.** Runs compute in float32 unless a level says otherwise. Where bfloat16 is native it is faster; it would
  be the default if its effect on FID were known to be negligible. The grid *precision* asks for that, and as long as
  its interval leaves room for an effect that matters, it is not known.
"""


def answer_sentence(effect: Effect, step_time: Effect | None, rates: Mapping[str, RateComparison]) -> str:
    """Say what an effect on FID comes to.

    Args:
        effect: on FID.
        step_time: the same effect on the time of a step, or None where times do not compare.
        rates: of the events that happened, see ``Verdicts.rates``.
    """
    name, seeds = effect.name, effect.estimate.num_seeds
    change = effect.estimate.as_percent_change()
    events = rates_words(rates)
    if seeds == 0:
        return f"**{name}**: no seed has a score for every variant that this compares{events}."
    only = f"**{name}**: FID {percent(change.value)} %"
    if seeds == 1:
        return f"{only} in the only seed; one seed says nothing about the next{events}."
    if not math.isfinite(change.low):
        return f"{only} in each of {seeds} seeds alike; there is nothing to test{events}."
    p = f"Holm's p {p_text(effect.test.p)}"
    interval = f"95 % interval {_whole(change.low)} to {_whole(change.high)} %, {seeds} seeds, {p}"
    size = _whole(abs(change.value)).removeprefix("+")
    if effect.is_interaction:
        sentence = f"**{name}**{_interaction_words(effect, size, interval)}"
    else:
        sentence = f"**{name}** {_effect_words(effect, size, interval)}; {cost_words(step_time)}"
    return sentence + with_diverged_words(effect) + events + "."


def _effect_words(effect: Effect, size: str, interval: str) -> str:
    change = _whole(effect.estimate.as_percent_change().value)
    match effect.answer:
        case "lower" | "higher":
            verb = "lowers" if effect.answer == "lower" else "raises"
            return f"{verb} FID by {size} % ({interval}){too_small_words(effect)}"
        case "negligible":
            return f"does not matter: FID {change} %, certainly {margin_words(effect)} ({interval})"
        case "open":
            return f"is open: FID {change} % ({interval}); {settling_words(effect.needed_seeds)}"
        case _:
            assert_never(effect.answer)


def _interaction_words(effect: Effect, size: str, interval: str) -> str:
    change = _whole(effect.estimate.as_percent_change().value)
    match effect.answer:
        case "lower" | "higher":
            return (
                f" interact: with both, FID is {size} % {effect.answer} than their separate effects would make it "
                f"({interval}){too_small_words(effect)}"
            )
        case "negligible":
            return f": no interaction that matters: {change} %, certainly {margin_words(effect)} ({interval})"
        case "open":
            return f": whether they interact is open: {change} % ({interval})"
        case _:
            assert_never(effect.answer)


def answer_words(effect: Effect) -> str:
    """Say an effect's answer in a word or two."""
    return f"{_ANSWERS[effect.answer]}{', too small to matter' if effect.is_too_small else ''}"


def margin_words(effect: Effect) -> str:
    """Name the margin of an effect on the ratio scale: ``within ±10 %``."""
    return "" if effect.margin is None else f"within ±{100 * math.expm1(effect.margin):.3g} %"


def too_small_words(effect: Effect) -> str:
    """Say that an effect is real but too small to matter; nothing where it is not known to be."""
    return f": a real effect, and too small to matter, certainly {margin_words(effect)}" if effect.is_too_small else ""


def settling_words(needed_seeds: int | None) -> str:
    """Say what would settle an open effect."""
    if needed_seeds is None:
        return "no number of seeds in reach would settle it, were it as large as it seems"
    return f"about {needed_seeds:,} seeds in all would settle it, were it as large as it seems (`--until settled`)"


def look_lines(look: Look) -> list[str]:
    """Say what a look at the first seeds shows: a line for every question, with its interval against the margin."""
    width = max(len(effect.name) for effect in look.effects)
    return [f"After {look.num_seeds} seeds:"] + [
        f"  {effect.name:{width}}  {evidence_text(effect)}: {answer_words(effect)}" for effect in look.effects
    ]


def evidence_text(effect: Effect) -> str:
    """Write an effect with its adjusted interval: ``FID -45.0 % [-68.3, -4.4]``."""
    return f"{effect.outcome.title} {change_text(effect, _adjusted(effect))}"


def settled_sentence(settling: Settling) -> str:
    """Say how a grid that was to be settled ended."""
    look = settling.looks[-1] if settling.looks else None
    if look is None:
        return "Stopped before a first look was possible. The same command goes on."
    still = [effect.name for effect in look.open_effects]
    if not still:
        return f"Settled after {look.num_seeds} seeds and {settling.plan.num_runs} runs."
    why = "no seed is left" if settling.is_over else "the time is over; the same command goes on"
    return f"Still open after {look.num_seeds} seeds: {', '.join(still)}; {why}."


def pairing_sentence(effects: Sequence[Effect]) -> str | None:
    """Say where sharing seeds pays, and where it does not; None where too few seeds tell."""
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


def bill_sentence(plan: Plan, looks: Sequence[Look]) -> str:
    """Say what the answers of a grid took, and what as much certainty would have taken with a fixed number of seeds."""
    look = looks[-1]
    fixed = [
        seeds_needed(effect.estimate, 1 - effect.test.confidence, effect.margin)
        for effect in look.effects
        if effect.answer != "open" and math.isfinite(effect.test.confidence)
    ]
    known = [number for number in fixed if number is not None]
    sentence = f"These answers took {plan.num_runs:,} runs, of at most {look.num_seeds} seeds a variant."
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


def course_sentence(course: Course) -> str | None:
    """Say where an effect turns along training, or shrinks; None where its course is that of its end."""
    last, name = course.effects[-1], course.effects[-1].name
    verbs = {"lower": "lowers FID", "higher": "raises FID"}
    if course.turned_at is not None:
        turned = course.effects[course.steps.index(course.turned_at)].answer
        after = verbs.get(last.answer) or {"negligible": "does not matter", "open": "is open"}[last.answer]
        holds = "" if course.holds_from is None else f" from step {course.holds_from:,} on"
        return f"**{name}** {verbs[turned]} until step {course.turned_at:,}, and {after}{holds} at the end."
    if course.peak is not None:
        step, largest = course.peak
        return (
            f"**{name}** shrinks: from {percent_text(largest.estimate)} at step {step:,} to "
            f"{percent_text(last.estimate)} at step {course.steps[-1]:,}."
        )
    return None


def unlevelled_sentence(plan: Plan, falling: Mapping[str, float]) -> str | None:
    """Say whether variants were still getting better when training ended; None where none was."""
    if not falling:
        return None
    least, most = (f"{-100 * math.expm1(change):.0f}" for change in (max(falling.values()), min(falling.values())))
    which = "every variant" if len(falling) == len(plan.cells) else f"{len(falling)} of {len(plan.cells)} variants"
    size = f"{least} %" if least == most else f"{least} to {most} %"
    return (
        f"FID was still falling in {which}, by {size} over the last third of training: what is better at "
        f"step {plan.baseline.config.steps:,} may only be faster."
    )


def simple_effects_sentence(effects: Sequence[Effect]) -> str | None:
    """Say one level's effect at each level of the others, where their answers or their spreads differ; else None.

    Args:
        effects: the simple effects of one level.
    """
    known = [effect for effect in effects if math.isfinite(effect.estimate.low)]
    spreads = [effect.estimate.std for effect in known]
    if len(known) < 2 or (len({e.answer for e in known}) == 1 and max(spreads) < UNEVEN_SPREAD * min(spreads)):
        return None
    parts = [f"with {effect.place} {percent_text(effect.estimate)}, {answer_words(effect)}" for effect in known]
    return f"**{known[0].name}**, level by level: {'; '.join(parts)}."


def with_diverged_words(effect: Effect) -> str:
    """Say what an effect would be if diverged runs counted as the worst; nothing where none diverged."""
    if effect.with_diverged is None:
        return ""
    return f"; counting diverged runs as the worst that finished, {change_text(effect, effect.with_diverged)}"


def rates_words(rates: Mapping[str, RateComparison]) -> str:
    """Say how often runs diverged or collapsed with the level and without it; nothing where none did."""
    return "".join(
        f"; {event} {rate.count}/{rate.total} runs against {rate.baseline_count}/{rate.baseline_total} "
        f"(Fisher's p {p_text(rate.p)})"
        for event, rate in rates.items()
    )


def cost_words(step_time: Effect | None) -> str:
    """Say how a step's time changes."""
    if step_time is None or not math.isfinite(step_time.estimate.value):
        return "its cost is not known"
    if not step_time.test.is_rejected:
        return "no clear change of the step's time"
    change = step_time.estimate.as_percent_change().value
    return f"a step takes {abs(change):.0f} % {'longer' if change > 0 else 'less time'}"


def caveat_sentences(results: GridResults) -> list[str]:
    """Say what a reader must know before believing the answers: runs missing, diverged, failed or not scored."""
    plan, runs = results.plan, results.runs
    planned, caveats = plan.num_runs, []
    if len(runs) < planned:
        caveats.append(f"{len(runs)} of {planned} runs are finished; the same command computes the others.")
    ended = {
        "diverged": runs["status"] == "diverged",
        "collapsed": runs["collapsed"] == True,  # noqa: E712 (None is not False)
        "failed with an error, and will be tried again": runs["status"] == "failed",
    }
    for words, is_one in ended.items():
        cells = runs.loc[is_one, "cell"]
        if len(cells):
            where = "; ".join(f"{count}× {label}" for label, count in cells.value_counts(sort=False).items())
            caveats.append(f"{len(cells)} of {planned} runs {words}: {where}.")
    unscored = {record.unscored_reason for _, record in results.records if record.unscored_reason}
    caveats += [f"Not scored: {reason}." for reason in sorted(unscored)]
    if results.comparable.unsteady:
        caveats.append(
            f"Something else used the machine during {len(results.comparable.unsteady)} of {len(runs)} runs: their "
            "step times varied by more than half, and their times are left out."
        )
    if len(results.comparable.machines) > 1:
        caveats.append("The runs were computed on different machines or versions: their times are not compared.")
    if len({record.dataset_sha256 for _, record in results.records if record.dataset_sha256}) > 1:
        caveats.append("The runs were trained on different images.")
    if len(results.comparable.protocols) > 1:
        caveats.append("The runs were scored in different ways (data, extractor or sample count): nothing is compared.")
    return caveats


def variance_sentence(results: GridResults) -> str | None:
    """Say how much of FID's variance within a variant the training seed makes, and how much the images drawn."""
    shares = (
        split_grid_variance(results.plan, results.runs).shares()
        if len(results.comparable.protocols) == 1 and len(results.plan.seeds) > 1
        else None
    )
    if shares is None or not math.isfinite(shares.seed):
        return None
    return (
        f"Within a variant, {shares.seed:.1%} of the variance of log FID lies between training seeds and "
        f"{shares.sampling:.1%} in which images were drawn for scoring."
    )


def overhead_sentence(results: GridResults) -> str | None:
    """Say where the runs' time went: into training steps, FID along training and the final scores."""
    records = [r for _, r in results.records if r.status == "completed" and r.scoring is not None and r.total_sec > 0]
    if not records:
        return None
    total = sum(record.total_sec for record in records)
    steps = sum(record.train_sec for record in records) / total
    scorings = [record.scoring for record in records if record.scoring is not None]
    curve = sum(scoring.curve_sec for scoring in scorings) / total
    final = sum(scoring.sampling_sec + scoring.final.seconds for scoring in scorings if scoring.final) / total
    return (
        f"Of the time of all runs, {steps:.1%} went into training steps, {curve:.1%} into FID along training and the "
        f"sample sheets, {final:.1%} into drawing and scoring the final images, and the rest into starting, into FID "
        "with batch statistics and into the floor."
    )


def verdict_words(judgement: Judgement, *, is_complete: bool) -> str:
    """Say a verdict, and what an open one would take."""
    if judgement.verdict != "open":
        small = ", by an effect too small to matter" if judgement.is_too_small else ""
        return (
            f"**{judgement.verdict}**{small}"
            if is_complete
            else f"{judgement.verdict}{small}, provisionally: runs are missing"
        )
    verdicts = {finding.verdict for finding in judgement.decisive}
    if max(finding.effect.estimate.num_seeds for finding in judgement.decisive) < 2:
        return "open: too few seeds have a score to compare"
    if {"supported", "refuted"} <= verdicts:
        return "open: its levels contradict each other"
    return f"open: {settling_words(judgement.needed_seeds)}"


def evidence_words(effect: Effect) -> str:
    """Name an effect with its adjusted interval and p: ``FID, batch norm on: -45.0 % [-68.3, -4.4], p = 0.004``."""
    change = change_text(effect, _adjusted(effect))
    return f"{effect.outcome.title}, {effect.name}: {change}, p {p_text(effect.test.p)}{with_diverged_words(effect)}"


def _adjusted(effect: Effect) -> Estimate:
    return dataclasses.replace(effect.estimate, low=effect.adjusted.low, high=effect.adjusted.high)


def change_text(effect: Effect, estimate: Estimate) -> str:
    """Write ``-45 % [-58, -27]`` on the ratio scale, ``+0.12 [0.03, 0.2]`` on the other."""
    if effect.outcome.scale == "ratio":
        return percent_text(estimate)
    if not math.isfinite(estimate.value):
        return "–"
    value, low, high = (f"{x:+.3g}" for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]" if math.isfinite(estimate.low) else value


def percent_text(estimate: Estimate) -> str:
    """Write a log ratio and its interval as changes in percent: ``-45.0 % [-58.3, -27.4]``."""
    change = estimate.as_percent_change()
    if not math.isfinite(change.value):
        return "–"
    if not math.isfinite(change.low):
        return f"{percent(change.value)} %"
    return f"{percent(change.value)} % [{percent(change.low)}, {percent(change.high)}]"


def percent(change: float) -> str:
    """Write a change in percent as precisely as anyone reads it: ``-4.5``, ``+132``, ``> +9,999``."""
    if change > 9_999:
        return "> +9,999"
    return signed(change, 1 if abs(change) < 100 else 0)


def rate_text(count: int, total: int) -> str:
    """Write ``2/5 [5 %, 85 %]``, a rate with its exact interval; ``0/5 [0 %, 52 %]`` says how little five runs tell."""
    if total == 0:
        return "–"
    interval = rate_interval(count, total)
    return f"{count}/{total} [{interval.low:.0%}, {interval.high:.0%}]"


def p_text(p: float) -> str:
    """Write a p-value with its sign: ``= 0.031``, ``< 0.001``; a dash where there is none."""
    if not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def signed(value: float, num_decimals: int = 0) -> str:
    """Write a change with its sign; what rounds to zero has none."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:+,.{num_decimals}f}"
    return text if float(text.replace(",", "")) else text[1:]


def _whole(change: float) -> str:
    return percent(change) if change > 9_999 else signed(change)


def number(value: float) -> str:
    """Write three significant digits, without an exponent."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
