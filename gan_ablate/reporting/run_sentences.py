"""Sentences on the runs of a grid: warnings and remarks, their time, and how many seeds answers took."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from gan_ablate.analysis.comparability import machine_of, name_machine
from gan_ablate.analysis.estimates import split_grid_variance
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.tests import POWER, seeds_needed
from gan_ablate.design.outcomes import percent_change
from gan_ablate.reporting.formats import escape_markdown, seed_text
from gan_ablate.reporting.sentences import adjusted_text, decision_words, verdict_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gan_ablate.analysis.allocation import InterimAnalysis, SequentialState
    from gan_ablate.analysis.comparability import Machine
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.design.grid import Grid
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.store import Store


SMOKE_WARNING = "The smoke budget shows that everything works; its runs are too short to answer anything."


def warning_sentences(results: GridResults) -> list[str]:
    """Say why answers may be wrong: a smoke run, or runs that are missing, failed, not scored or not comparable."""
    plan, runs = results.plan, results.runs
    planned, warnings = plan.num_runs, [SMOKE_WARNING] if plan.budget == "smoke" else []
    if len(runs) < planned:
        warnings.append(f"{len(runs)} of {planned} runs are finished; the same command computes the others.")
    warnings += _count_runs(results, runs["status"] == "failed", "failed with an error, and will be tried again")
    unscored = {record.unscored_reason for _, record in results.records if record.unscored_reason}
    warnings += [f"Not scored: {reason}." for reason in sorted(unscored)]
    if len({record.dataset_sha256 for _, record in results.records if record.dataset_sha256}) > 1:
        warnings.append("The runs were trained on different images.")
    known = runs.loc[runs["collapsed"].notna(), "collapsed"]
    if len(known) > 1 and known.eq(True).all():
        warnings.append(f"All {len(known)} scored runs collapsed: what failures have in common is no answer.")
    if len(results.comparable.protocols) > 1:
        warnings.append(
            "The runs were scored in different ways (data, extractor or sample count): nothing is compared."
        )
    return warnings


def remark_sentences(results: GridResults) -> list[str]:
    """Say what else is unusual: runs that diverged or collapsed, times that do not compare, several machines."""
    runs = results.runs
    remarks = _count_runs(results, runs["status"] == "diverged", "diverged")
    remarks += _count_runs(results, runs["collapsed"] == True, "collapsed")  # noqa: E712 (None is not False)
    if results.comparable.unsteady:
        remarks.append(
            f"Something else used the machine during {len(results.comparable.unsteady)} of {len(runs)} runs: their "
            "step times varied by more than half, and their times are left out."
        )
    return remarks + _earlier_sentences(results) + _note_sentences(results) + _machine_sentences(results)


def _earlier_sentences(results: GridResults) -> list[str]:
    """Say which runs were computed before a correction that changed their numbers."""
    earlier = [label for label, record in results.records if record.run_id != record.config.run_id]
    if not earlier:
        return []
    revised = (record.config.revisions for _, record in results.records if record.run_id != record.config.run_id)
    names = ", ".join(sorted({name for of_run in revised for name in of_run}))
    where = "; ".join(f"{num}× {escape_markdown(label)}" for label, num in Counter(earlier).items())
    size = f"{len(earlier)} of {results.plan.num_runs} runs"
    return [f"{size} were computed before a correction ({names}): {where}. Running the grid again computes them anew."]


def _note_sentences(results: GridResults) -> list[str]:
    """Repeat the notes of a user's script, and say where its runs are not paired."""
    external = results.plan.grid.external
    notes = Counter(note for _, record in results.records for note in record.notes)
    said = [f"{num} of {results.plan.num_runs} runs: {escape_markdown(note)}." for note, num in notes.items()]
    if external is not None and not external.paired:
        said.append(
            "Runs of one seed share nothing (external.paired is false): their differences are those of unpaired runs, "
            "and so are the intervals."
        )
    return said


def _machine_sentences(results: GridResults) -> list[str]:
    """Say from which machine the times are, and which seeds have runs of several machines."""
    untimed, machine = results.comparable.elsewhere, results.comparable.timed_machine
    sentences = []
    if untimed and machine is not None:
        left_out = f"{len(untimed)} of {len(results.runs)} runs were computed on another machine or version"
        sentences.append(f"Times are those of {name_machine(machine)}: {left_out}, and theirs are left out.")
    machines: dict[int, set[Machine]] = {}
    for _, record in results.records:
        if record.status != "failed":
            machines.setdefault(record.config.seed, set()).add(machine_of(record))
    mixed = [seed for seed, of_seed in machines.items() if len(of_seed) > 1]
    if mixed:
        shared = "start from the same and see the same, but even equal ones would differ by rounding"
        if any(len({device for device, *_ in machines[seed]}) > 1 for seed in mixed):
            shared = (
                "start from the same weights and see images in the same order, but each device draws its own latents"
            )
        sentences.append(f"Within {seed_text(mixed)}, runs of more than one machine are paired: they {shared}.")
    return sentences


def _count_runs(results: GridResults, is_one: pd.Series[bool], words: str) -> list[str]:
    variants = results.runs.loc[is_one, "variant"]
    if not len(variants):
        return []
    where = "; ".join(f"{count}× {label}" for label, count in variants.value_counts(sort=False).items())
    return [f"{len(variants)} of {results.plan.num_runs} runs {words}: {where}."]


def variance_sentence(results: GridResults) -> str | None:
    """Say which shares of FID's variance within a variant come from the training seed and from the sampled images."""
    if len(results.comparable.protocols) != 1 or len(results.plan.seeds) < 2:
        return None
    shares = split_grid_variance(results.plan, results.runs).shares()
    if not math.isfinite(shares.seed):
        return None
    return (
        f"Within a variant, {shares.seed:.1%} of the variance of log FID lies between training seeds and "
        f"{shares.sampling:.1%} in which images were drawn for scoring."
    )


def overhead_sentence(results: GridResults) -> str | None:
    """Say which shares of the runs' time training steps, FID along training and the final scores took."""
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


def unconverged_sentence(plan: Plan, falling: Mapping[str, float]) -> str | None:
    """Say how many variants had not converged, and how fast their FID fell; None without any.

    Args:
        plan: of the grid.
        falling: variant → log ratio of FID over the last third of training, below zero.
    """
    if not falling:
        return None
    least, most = (f"{-percent_change(change):.0f}" for change in (max(falling.values()), min(falling.values())))
    num = len(plan.variants)
    which = "every variant" if len(falling) == num else f"{len(falling)} of {num} variants"
    size = f"{least} %" if least == most else f"{least} to {most} %"
    return (
        f"FID was still falling in {which}, by {size} over the last third of training: what is better at "
        f"step {plan.baseline.config.steps:,} may only be faster."
    )


def look_lines(look: InterimAnalysis, block: str = "") -> list[str]:
    """Say what an interim analysis shows: a line for every effect, with its adjusted interval and its decision."""
    where = f"{block}, after" if block else "After"
    width = max(len(effect.name) for effect in look.effects)
    return [f"{where} {look.num_seeds} seeds:"] + [
        f"  {effect.name:{width}}  {effect.outcome.title} {adjusted_text(effect)}: {decision_words(effect)}"
        for effect in look.effects
    ]


def settled_sentence(state: SequentialState, block: str = "") -> str:
    """Say how a sequential grid, or a block of it, ended."""
    if block:
        return f"{block}: {settled_sentence(state)}"
    look = state.looks[-1] if state.looks else None
    if look is None:
        return "Stopped before a first look was possible. The same command goes on."
    still = [effect.name for effect in look.open_effects]
    given_up = given_up_words(look)
    if not still:
        return f"Settled after {look.num_seeds} seeds and {state.plan.num_runs} runs{given_up}."
    why = "no seed is left" if state.is_over else "the time is over; the same command goes on"
    return f"Still open after {look.num_seeds} seeds: {', '.join(still)}; {why}{given_up}."


def given_up_words(look: InterimAnalysis) -> str:
    """Name the effects that no other seed would settle; empty without any."""
    names = [effect.name for effect in look.futile_effects]
    if not names:
        return ""
    return f"; given up, as its runs have no scores or the same ones: {', '.join(names)}"


def bill_sentence(plan: Plan, num_runs: int, looks: Sequence[InterimAnalysis]) -> str:
    """Say how many runs the answers of a grid took, and how many a fixed number of seeds would have taken.

    Args:
        plan: of the grid.
        num_runs: finished runs.
        looks: the interim analyses, at least one.
    """
    look = looks[-1]
    fixed = [
        seeds_needed(effect.estimate, 1 - effect.test.confidence, effect.margin)
        for effect in look.effects
        if effect.decision != "open" and math.isfinite(effect.test.confidence)
    ]
    known = [number for number in fixed if number is not None]
    sentence = (
        f"These answers took {num_runs:,} runs, of at most {look.num_seeds} seeds a variant{given_up_words(look)}."
    )
    if look.open_effects:
        sentence += f" Still open: {', '.join(effect.name for effect in look.open_effects)}."
    if known and len(known) == len(look.effects):
        runs = max(known) * len(plan.variants)
        sentence += (
            f" Had one known beforehand how large the effects are, {max(known):,} seeds of every variant, {runs:,} "
            f"runs, would have settled each with a chance of {POWER:.0%}."
        )
    return sentence


def settled_text(effect: Effect, looks: Sequence[InterimAnalysis]) -> str:
    """Write after how many seeds an effect was settled; a dash where it is open or was not asked for."""
    for look in looks:
        for seen in look.effects:
            if seen.levels == effect.levels and seen.outcome is effect.outcome and seen.decision != "open":
                return str(look.num_seeds)
    return "–"


def judge_grid(store: Store, shipped: Grid) -> dict[str, str]:
    """Return the verdict of every claim of a shipped grid in a results folder, or what is missing for it."""
    sentences = [claim.sentence for claim in shipped.claims]
    plan_there = store.find_plan(shipped.name)
    if plan_there is None:
        return dict.fromkeys(sentences, "not run yet")
    if plan_there.budget == "smoke":
        return dict.fromkeys(sentences, "only a smoke run")
    # A plan of an older version knows no claims.
    grid = plan_there.grid.model_copy(update={"claims": shipped.claims})
    results = GridResults.of(store, plan_there.model_copy(update={"grid": grid}))
    left = plan_there.num_runs - len(results.runs)
    missing = f"{left} of {plan_there.num_runs} runs are missing" if left else "no scores to judge it by"
    verdicts = {
        one.claim.sentence: verdict_words(one, is_complete=results.is_complete).replace("**", "").replace("`", "")
        for one in results.verdicts.claim_verdicts
    }
    return {sentence: verdicts.get(sentence, missing) for sentence in sentences}
