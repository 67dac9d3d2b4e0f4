"""Sentences of the page on a user's table: the headline of an outcome, and its blank values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_ablate.reporting.formats import count, escape_markdown
from gan_ablate.reporting.sentences import adjusted_text, leaning, margin_words, rates_words, simple_effect_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.pooling import BlockedEffect
    from gan_ablate.design.outcomes import Outcome

MAX_LISTED = 5
"""The most effects that a line of a headline names."""

MAX_VARIANTS_LISTED = 10
"""The most variants whose blank values are counted one by one."""


def headline(effects: Sequence[Effect], simple: Sequence[Effect]) -> list[str]:
    """Say in a few lines what helps, what depends on another factor, and what is not known yet.

    Args:
        effects: on one outcome, main effects and interactions.
        simple: the simple effects of a design.
    """
    if not effects:
        return []
    outcome = effects[0].outcome
    main = [effect for effect in effects if not effect.is_interaction]
    found = [effect for effect in effects if effect.is_interaction and effect.is_found and not effect.is_too_small]
    lists: dict[str, list[Effect]] = {"helps": [], "harms": [], "depends": [], "matters not": [], "unknown": []}
    for effect in main:
        lists[_list_of(effect, found)].append(effect)
    for of_list in lists.values():
        of_list.sort(key=lambda effect: -abs(effect.estimate.value))
    better, worse = ("lowers", "raises") if outcome.better == "lower" else ("raises", "lowers")
    title = escape_markdown(outcome.title)
    fails = ", or more runs fail" if any(effect.failure_change == "higher" for effect in lists["harms"]) else ""
    return [
        *_line(f"Helps ({better} {title})", [_size_words(effect) for effect in lists["helps"]]),
        *_line(f"Harms ({worse} {title}{fails})", [_size_words(effect) for effect in lists["harms"]]),
        *_line("Depends on another factor", _depends_words(found, simple)),
        *_line("Does not matter", [_size_words(effect) for effect in lists["matters not"]]),
        *_unknown_lines(lists["unknown"], effects),
    ]


def _list_of(effect: Effect, interactions: Sequence[Effect]) -> str:
    if any(effect.levels.items() <= other.levels.items() for other in interactions):
        return "depends"
    is_better = effect.decision == effect.outcome.better
    if effect.failure_change == "higher":
        return "harms"
    if effect.compares_failures or (effect.decision == "inconclusive" and effect.failure_change is None):
        return "unknown"
    if effect.failure_change == "lower":
        return "helps" if is_better or not effect.is_found else "unknown"
    if not effect.is_found or effect.is_too_small:
        return "matters not"
    return "helps" if is_better else "harms"


def _size_words(effect: Effect) -> str:
    rates = rates_words(effect.rates) if effect.failure_change else ""
    return f"**{effect.name}** {adjusted_text(effect)}{rates}"


def _depends_words(interactions: Sequence[Effect], simple: Sequence[Effect]) -> list[str]:
    """Describe each interaction: by the simple effects of its first level where there is one other factor."""
    words = []
    for effect in sorted(interactions, key=lambda effect: -abs(effect.estimate.value)):
        (factor, level), (other, _) = effect.levels.items()
        at = [one for one in simple if one.levels == {factor: level} and one.within.keys() == {other}]
        if at:
            words.append(f"**{at[0].name}** {' and '.join(map(simple_effect_words, at))}")
        else:
            words.append(f"**{effect.name}** {adjusted_text(effect)} beyond what each does")
    return list(dict.fromkeys(words))


def _unknown_lines(unknown: Sequence[Effect], effects: Sequence[Effect]) -> list[str]:
    """Name the main effects that are not known, and count the interactions."""
    interactions = [effect for effect in effects if effect.is_interaction]
    num_open = sum(effect.decision == "inconclusive" for effect in interactions)
    parts = []
    if unknown:
        named = []
        for effect in unknown[:MAX_LISTED]:
            side = leaning(effect)
            named.append(f"{_size_words(effect)}{f', leaning {side}' if side else ''}")
        more = f" and {len(unknown) - MAX_LISTED} more" if len(unknown) > MAX_LISTED else ""
        parts.append(f"{'; '.join(named)}{more}{_seeds_words(unknown)}.")
    if num_open:
        are = "is" if num_open == 1 else "are"
        of_all = f"{num_open} of {len(interactions)} interactions {are} open."
        parts.append("The interaction is open." if len(interactions) == 1 else of_all)
    return [f"**Not known yet**: {' '.join(parts)}"] if parts else []


def _seeds_words(effects: Sequence[Effect]) -> str:
    """Say how many seeds in all would tell these effects, where that is known of any."""
    likely = [effect.likely_seeds for effect in effects]
    known = [seeds for seeds in likely if seeds is not None]
    if not known:
        return ""
    fewest, ends = min(seeds[0] for seeds in known), [seeds[1] for seeds in known]
    most = None if None in ends or len(known) < len(likely) else max(end for end in ends if end is not None)
    if most is None:
        return f"; {fewest:,} or more seeds in all would tell"
    return f"; {f'{fewest:,} to {most:,}' if most > fewest else f'{fewest:,}'} seeds in all would tell"


def _line(heading: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    more = f"; and {len(items) - MAX_LISTED} more, smaller" if len(items) > MAX_LISTED else ""
    return [f"**{heading}**: {'; '.join(items[:MAX_LISTED])}{more}."]


def blocks_headline(effects: Sequence[BlockedEffect]) -> list[str]:
    """Say in a few lines which effects differ between blocks, which are alike, and which may differ.

    Args:
        effects: on one outcome, block by block.
    """
    by_decision: dict[str, list[BlockedEffect]] = {"differs": [], "alike": [], "inconclusive": []}
    for effect in sorted(effects, key=lambda effect: -abs(effect.pooled.estimate.value)):
        if effect.decision == "differs" or not effect.pooled.is_interaction:
            by_decision[effect.decision].append(effect)
    differing, unknown = (
        [
            f"**{effect.pooled.name}** "
            + ", ".join(f"{escape_markdown(name)} {adjusted_text(at)}" for name, at in effect.within.items())
            for effect in by_decision[decision]
        ]
        for decision in ("differs", "inconclusive")
    )
    alike = [_size_words(effect.pooled) for effect in by_decision["alike"]]
    return [
        *_line("Differs between blocks", differing),
        *_line("The same in all blocks, within the margin", alike),
        *_line("May or may not differ between blocks", unknown),
    ]


def interactions_sentence(effects: Sequence[Effect]) -> str:
    """Count the interactions that have no sentence of their own; empty where there are none."""
    num_small = sum(effect.decision == "negligible" for effect in effects)
    num_open = sum(effect.decision == "inconclusive" for effect in effects)
    parts = [
        f"{num_small} {'is' if num_small == 1 else 'are'} negligible, {margin_words(effects[0])}" if num_small else "",
        f"{num_open} {'is' if num_open == 1 else 'are'} inconclusive" if num_open else "",
    ]
    told = "; ".join(part for part in parts if part)
    return f"{count(num_small + num_open, 'other interaction')}: {told}. The table has them." if told else ""


def blank_sentence(runs: pd.DataFrame, outcome: Outcome) -> str:
    """Count the completed runs that have no value of an outcome, variant by variant; empty where there are none.

    Args:
        runs: columns variant, status and the outcome's.
        outcome: the outcome.
    """
    completed = runs.loc[runs["status"] == "completed"]
    is_blank = completed[outcome.name].isna()
    if not is_blank.any():
        return ""
    by_variant = is_blank.groupby(completed["variant"], sort=False).agg(["sum", "size"])
    blank = by_variant.loc[by_variant["sum"] > 0].sort_values("sum", ascending=False, kind="stable")
    counts = [f"{escape_markdown(str(name))} ({num} of {of})" for name, num, of in blank.itertuples(name=None)]
    more = f", and {len(counts) - MAX_VARIANTS_LISTED} more variants" if len(counts) > MAX_VARIANTS_LISTED else ""
    title = escape_markdown(outcome.title)
    return (
        f"{title} is blank in {int(is_blank.sum())} of {count(len(completed), 'completed run')}: "
        f"{', '.join(counts[:MAX_VARIANTS_LISTED])}{more}. Effects rest on the others. "
        "If blank runs diverged or failed, a column status has to say so: it decides what is compared."
    )
