"""Sentences on the runs of a grid: warnings and remarks, their time, and how many seeds answers took."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from gan_ablate.analysis.comparability import machine_of, name_machine
from gan_ablate.analysis.estimates import split_grid_variance
from gan_ablate.analysis.questions import averaged_factors
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.tests import POWER, seeds_needed
from gan_ablate.design.outcomes import OUTCOMES, percent_change
from gan_ablate.reporting.formats import escape_markdown, seed_text, value_text
from gan_ablate.reporting.sentences import adjusted_text, decision_words, is_timed, verdict_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from gan_ablate.analysis.allocation import InterimAnalysis, SequentialState
    from gan_ablate.analysis.comparability import Machine
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.ranking import Default
    from gan_ablate.design.grid import Grid
    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.store import Store


SMOKE_WARNING = "These runs are too short to answer anything: the smoke budget only shows that everything works."


def warning_sentences(results: GridResults) -> list[str]:
    """Say why answers may be wrong: a smoke run, or runs that are missing, failed, not scored or not comparable."""
    plan, runs = results.plan, results.runs
    is_smoke = plan.budget == "smoke"
    planned, warnings = plan.num_runs, [SMOKE_WARNING] if is_smoke else []
    if len(runs) < planned:
        warnings.append(f"{len(runs)} of {planned} runs are finished; the same command computes the others.")
    warnings += _count_runs(results, runs["status"] == "failed", "failed with an error, and will be tried again")
    unscored = {record.unscored_reason for _, record in results.records if record.unscored_reason}
    warnings += [f"Not scored: {reason}." for reason in sorted(unscored)]
    if len({record.dataset_sha256 for _, record in results.records if record.dataset_sha256}) > 1:
        warnings.append("The runs were trained on different images.")
    known = runs.loc[runs["collapsed"].notna(), "collapsed"]
    if len(known) > 1 and known.eq(True).all() and not is_smoke:
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
    remarks += _best_sentences(results)
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


def _best_sentences(results: GridResults) -> list[str]:
    """Say which weights the page shows where runs have kept the best ones beside the last."""
    steps = results.runs["best_step"].dropna()
    if not len(steps):
        return []
    first, last = f"{int(steps.min()):,}", f"{int(steps.max()):,}"
    when = f"step {first}" if first == last else f"steps {first} to {last}"
    num_last = int((steps == results.runs.loc[steps.index, "steps"]).sum())
    column, where = OUTCOMES["fid_best"].title, f"in {len(steps)} of {results.plan.num_runs} runs"
    kept = f"the weights with the lowest FID along training, {where}: of {when}; in {num_last} that is the last step"
    return ["FID and all other scores are those of the last weights.", f"The column *{column}* is of {kept}."]


def _note_sentences(results: GridResults) -> list[str]:
    """Repeat the notes of a user's script, and say where its runs are not paired."""
    notes = Counter(note for _, record in results.records for note in record.notes)
    said = [f"{num} of {results.plan.num_runs} runs: {escape_markdown(note)}." for note, num in notes.items()]
    if not results.design.is_paired:
        how = "means of runs are compared, by Welch's t test"
        if results.plan.intervals == "sequential":
            how = "they are compared in pairs, by their numbers"
        said.append(f"Runs of one seed share nothing (external.paired is false), so {how}.")
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
        f"Within a variant, {100 * shares.seed:.1f} % of the variance of log FID lies between training seeds and "
        f"{100 * shares.sampling:.1f} % in which images were drawn for scoring."
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
        f"Of the time of all runs, {100 * steps:.1f} % went into training steps, {100 * curve:.1f} % into FID along "
        f"training and the sample grids, and {100 * final:.1f} % into sampling and scoring the final images. The rest "
        "went into starting, FID with batch statistics and the FID of real images."
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
    return f"Inconclusive after {look.num_seeds} seeds: {', '.join(still)}; {why}{given_up}."


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
        if effect.decision != "inconclusive" and math.isfinite(effect.test.confidence)
    ]
    known = [number for number in fixed if number is not None]
    sentence = (
        f"These answers took {num_runs:,} runs, of at most {look.num_seeds} seeds a variant{given_up_words(look)}."
    )
    if look.open_effects:
        sentence += f" Inconclusive: {', '.join(dict.fromkeys(effect.name for effect in look.open_effects))}."
    if known and len(known) == len(look.effects):
        runs = max(known) * len(plan.variants)
        sentence += (
            f" Had one known beforehand how large the effects are, {max(known):,} seeds of every variant, {runs:,} "
            f"runs, would have settled each with a chance of {100 * POWER:.0f} %."
        )
    return sentence


def settled_text(effect: Effect, looks: Sequence[InterimAnalysis]) -> str:
    """Write after how many seeds an effect was settled; a dash where it is inconclusive or was not asked for."""
    for look in looks:
        for seen in look.effects:
            if seen.levels == effect.levels and seen.outcome is effect.outcome and seen.decision != "inconclusive":
                return str(look.num_seeds)
    return "–"


def base_of(plan: Plan) -> str:
    """Name the preset of a plan, or the grid whose script it runs."""
    return plan.baseline.block.get("preset", plan.grid.base or plan.grid.name)


def steps_words(plans: Iterable[Plan]) -> str:
    """Say after how many steps grids were scored: ``after 1,500 steps``; empty where no run counts steps."""
    steps = sorted({plan.baseline.config.steps for plan in plans} - {0})
    return f"after {' or '.join(f'{number:,}' for number in steps)} steps" if steps else ""


def start_words(plan: Plan, default: Default) -> str:
    """Name the baseline of a grid that does not start from the default; empty where only its levels differ."""
    words = [f"`{base_of(plan)}`"] if base_of(plan) != base_of(default.results.plan) else []
    settings = ", ".join(_list_settings(plan.grid.set))
    return " with ".join([*words, *([f"`{settings}`"] if settings else [])])


def _list_settings(settings: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Write settings of training as ``generator.norm = none``."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _list_settings(value, f"{within}{name}.")
        elif not f"{within}{name}".startswith("scoring."):
            yield f"{within}{name} = {value}"


def average_words(results: GridResults, effect: Effect) -> str:
    """Name the factors over whose levels a main effect is averaged; empty without any."""
    others = [name.replace("_", " ") for name in averaged_factors(results, effect)]
    return f" on average over {' and '.join(others)}" if others else ""


def images_words(results: GridResults) -> str:
    """Say on how many images FID along training is taken, where the final scores have another number."""
    scored = results.scored[:1]
    differs = any(of.final is not None and of.final.num_samples != of.curve_samples for of in scored)
    return f" (FID of {scored[0].curve_samples:,} images)" if differs else ""


def shrinking_words(results: GridResults, effect: Effect) -> str:
    """Say how large an effect was during training, where it shrinks: ``; it was larger before: +204 % at step 450``."""
    trajectories = [one for one in results.trajectories if one.effects[-1].levels == effect.levels]
    if not trajectories or trajectories[0].peak is None:
        return ""
    step, largest = trajectories[0].peak
    return f"; it was larger before: {value_text(largest, largest.estimate.value)} at step {step:,}"


def collapsed_words(effect: Effect) -> str:
    """Say how many runs collapsed: ``; 15 of 44 runs collapsed (baseline: 0 of 44)``; empty where none did.

    Where most did on both sides: ``; 8 of 8 runs still collapsed``.
    """
    rates = effect.rates.get("collapsed")
    if rates is None or not rates.count + rates.baseline_count:
        return ""
    if effect.compares_failures:
        return f"; {rates.count} of {rates.total} runs still collapsed"
    baseline = f"baseline: {rates.baseline_count} of {rates.baseline_total}"
    return f"; {rates.count} of {rates.total} runs collapsed ({baseline})"


def step_time_words(results: GridResults, effect: Effect) -> str:
    """Say how a level changes the time of a step, where that is certain and not too small to matter."""
    times = [time for time in results.verdicts.effects("step_ms_median") if time.levels == effect.levels]
    is_known = bool(times) and is_timed(times[0]) and times[0].is_found and not times[0].is_too_small
    return f"; a step takes {adjusted_text(times[0])}" if is_known else ""


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
        one.claim.sentence: re.sub(
            r"\*\*|`|\\", "", verdict_words(one, is_complete=results.is_complete, factors=grid.factors)
        )
        for one in results.verdicts.claim_verdicts
    }
    return {sentence: verdicts.get(sentence, missing) for sentence in sentences}
