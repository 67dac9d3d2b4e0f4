"""Estimates and records in, sentences out: what a report says, and only as surely as its intervals allow."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from gan_ablate.analysis.significance import POWER
from gan_ablate.analysis.stats import CONFIDENCE, MIN_BOOTSTRAP_SEEDS, rate_interval
from gan_ablate.analysis.variance import split_grid_variance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gan_ablate.analysis.claims import Judgement
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.analysis.significance import RateComparison
    from gan_ablate.analysis.stats import Estimate


SMOKE_WARNING = "The smoke budget shows that everything works; its runs are too short to answer anything."

METHODS = f"""\
- **The unit is the seed.** The variants of a seed share the order of the images, the latents from which D's fakes are
  drawn and the random stream of every parameter tensor: where name, shape and initialisation agree, so do the initial
  weights. So an effect is a difference within a seed, averaged over seeds.
- **Effects** on outcomes of the ratio scale are means of log ratios, told in percent. In a factorial grid an effect is
  averaged over the levels of the other factors, and an interaction is how much one factor's effect differs between the
  levels of another; in a one-at-a-time grid each level is compared with the baseline.
- **Intervals** cover {CONFIDENCE:.0%}: Student's t on the paired differences and, from {MIN_BOOTSTRAP_SEEDS} seeds on,
  a bootstrap over seeds with expanded percentiles; with fewer seeds no resampling covers as often as it says.
- **Tests.** A grid's effects on one outcome are one family. Holm's procedure keeps the chance of any false finding
  among them at 5 %; every outcome of every grid is a family of its own, and nothing adjusts across them. Intervals
  are not adjusted unless they say so, nor is Fisher's p. The adjusted interval has the level at which Holm's procedure
  tests that effect, and excludes zero exactly where it finds one; several of them do not hold jointly at 95 %. The
  sign-flip test is exact for differences that are symmetric around zero, normal or not, but n seeds give no p below
  2/2ⁿ: with five it cannot reach 0.05, and verdicts rest on the t test, for which differences should be roughly normal.
- **Verdicts.** *Supported*: the adjusted interval of a deciding effect excludes zero on the side that the claim says,
  and none on the other. *Refuted*: that of every deciding effect excludes zero on the other side. *Inconclusive*: all
  else. The seeds needed are those with which a new study would find an effect, were its size and spread those seen
  here, with a chance of {POWER:.0%}; a few seeds know neither well. Settle their number before running them: adding
  seeds until a test succeeds makes false findings more frequent than 5 %.
- **Divergence** (a loss, a gradient, a weight or a pixel that is not a finite number) is counted, not dropped, and so
  is **collapse**: a finished run that covers fewer than half of the classes. Few images of every class, again and
  again, are no collapse by this count: recall and coverage see them. Their rates have exact (Clopper-Pearson)
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
        if effect.test.is_rejected:
            direction = "lower" if change.value < 0 else "higher"
            sentence = (
                f"**{name}** interact: with both, FID is {size} % {direction} than their separate effects would make "
                f"it ({interval})"
            )
        else:
            sentence = f"**{name}**: no clear interaction: {_whole(change.value)} % ({interval})"
    else:
        cost = cost_words(step_time)
        if effect.test.is_rejected:
            verb = "lowers" if change.value < 0 else "raises"
            sentence = f"**{name}** {verb} FID by {size} % ({interval}); {cost}"
        else:
            sentence = f"**{name}** shows no clear effect on FID: {_whole(change.value)} % ({interval}); {cost}"
    return sentence + with_diverged_words(effect) + events + "."


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
    planned, caveats = len(plan.cells) * len(plan.seeds), []
    if len(runs) < planned:
        caveats.append(f"{len(runs)} of {planned} runs are finished; the same command computes the others.")
    ended = {
        "diverged": runs["status"] == "diverged",
        "collapsed, with fewer than half of the classes": runs["collapsed"] == True,  # noqa: E712 (None is not False)
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
    """Say a verdict, and what an inconclusive one would take."""
    if judgement.verdict != "inconclusive":
        return f"**{judgement.verdict}**" if is_complete else f"{judgement.verdict}, provisionally: runs are missing"
    verdicts = {finding.verdict for finding in judgement.decisive}
    num_seeds = max(finding.effect.estimate.num_seeds for finding in judgement.decisive)
    needed = judgement.needed_seeds
    if num_seeds < 2:
        return "inconclusive: too few seeds have a score to compare"
    if {"supported", "refuted"} <= verdicts:
        return "inconclusive: its levels contradict each other"
    if needed is None:
        return "inconclusive: no number of seeds in reach would settle an effect so small"
    return f"inconclusive: a new study of about {needed:,} seeds would settle it, were the effect as large as it seems"


def evidence_words(effect: Effect) -> str:
    """Name an effect with its adjusted interval and p: ``FID, batch norm on: -45.0 % [-68.3, -4.4], p = 0.004``."""
    estimate = dataclasses.replace(effect.estimate, low=effect.adjusted.low, high=effect.adjusted.high)
    change = change_text(effect, estimate)
    return f"{effect.outcome.title}, {effect.name}: {change}, p {p_text(effect.test.p)}{with_diverged_words(effect)}"


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
