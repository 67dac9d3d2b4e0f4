"""Questions: find the same change in several grids, data sets and lengths of training, and compare what was found."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import pandas as pd

from gan_ablate.analysis.design import iterate_contrasts, iterate_simple_contrasts
from gan_ablate.analysis.effects import name_levels
from gan_ablate.analysis.table import tabulate_effect
from gan_ablate.analysis.tests import round_p

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults
    from gan_ablate.design.plan import Variant

Answer: TypeAlias = "tuple[GridResults, Effect]"
"""Results of a grid, and a main or simple effect on FID in them."""

Question: TypeAlias = tuple[frozenset[str], frozenset[str]]
"""The trainings on either side of a comparison, whatever their data set, steps, seeds and scoring."""


class Setting(NamedTuple):
    """Where an effect was measured: the data set, and the steps of training (0 where a script counts none)."""

    dataset: str
    steps: int

    @property
    def name(self) -> str:
        """In words: ``1,500 steps of mnist-10k``."""
        return f"{self.steps:,} steps of {self.dataset}" if self.steps else self.dataset

    @property
    def place(self) -> str:
        """Where something was measured: ``after 1,500 steps of mnist-10k``, or ``on mnist-10k``."""
        return f"{'after' if self.steps else 'on'} {self.name}"


def setting_of(results: GridResults) -> Setting:
    """Return where a grid's effects were measured."""
    config = results.plan.baseline.config
    return Setting(config.dataset, config.steps)


def question_of(results: GridResults, effect: Effect) -> Question:
    """Return the trainings that a main or simple effect compares: those with its level, and those without.

    Names of grids, factors and levels do not count: two grids may name the same change differently.
    """
    contrasts = (iterate_simple_contrasts if effect.within else iterate_contrasts)(results.design)
    (weights,) = (
        contrast.weights
        for contrast in contrasts
        if (contrast.levels, contrast.within) == (effect.levels, effect.within)
    )
    variants = results.plan.variants
    with_level, without = (
        frozenset(_training_of(variant) for variant, counts in zip(variants, side, strict=True) if counts)
        for side in (weights > 0, weights < 0)
    )
    return with_level, without


def _training_of(variant: Variant) -> str:
    config = variant.config
    return f"{type(config).__name__} {config.model_dump_json(exclude={'seed', 'scoring', 'steps', 'dataset'})}"


def averaged_factors(results: GridResults, effect: Effect) -> list[str]:
    """List the factors over whose levels an effect is averaged; none for a simple effect."""
    is_factorial = results.plan.grid.design == "factorial" and not effect.within
    return [name for name in results.plan.grid.factors if name not in effect.levels] if is_factorial else []


def list_answers(results: Iterable[GridResults]) -> list[Answer]:
    """List the main and simple effects on FID of grids, without smoke runs and those that have no estimate."""
    return [
        (of_grid, effect)
        for of_grid in results
        if of_grid.plan.budget != "smoke"
        for effect in (*of_grid.verdicts.effects("fid"), *of_grid.verdicts.simple_effects)
        if not effect.is_interaction and math.isfinite(effect.estimate.value)
    ]


def surety(results: GridResults, effect: Effect) -> tuple[bool, int, bool, float]:
    """Return what is larger the surer an effect is.

    Decided comes before inconclusive, then more seeds, then an effect on which a claim of its grid rests, then a
    smaller p.
    """
    claims = (expectation for claim in results.plan.grid.claims for expectation in claim.decisive)
    is_claimed = any((claim.outcome, claim.levels) == ("fid", effect.levels) for claim in claims)
    return effect.decision != "inconclusive", effect.estimate.num_seeds, is_claimed, -round_p(effect.test.p)


Lasting = Literal["same", "other", "moved", "undecided"]


def compare_answers(before: Effect, after: Effect) -> Lasting | None:
    """Say what became of an answer in another setting; None where there was none, or where one seed decides nothing.

    An inconclusive effect is no other answer: it may become the same one with more seeds. Where its adjusted interval
    excludes the first estimate, the effect has ``moved``. For an answer, see ``Effect.answer``.

    Args:
        before: the effect in the first setting.
        after: the effect in the other one.
    """
    if before.answer == "inconclusive" or after.estimate.num_seeds < 2:
        return None
    if after.answer != "inconclusive":
        return "same" if before.answer == after.answer else "other"
    value, interval = before.estimate.value, after.adjusted
    is_excluded = value < interval.low or value > interval.high  # no interval, NaN, excludes nothing
    return "moved" if is_excluded and not after.compares_failures else "undecided"


@dataclass(frozen=True)
class ComparedEffect:
    """One change, in every setting in which it was measured.

    Attributes:
        name: of the level and its baseline, in words.
        answers: setting → the effect there.
    """

    name: str
    answers: dict[Setting, Answer]

    def lasts(self, first: Setting, last: Setting) -> Lasting | None:
        """Say what became of a decision, as ``compare_answers`` does; None where a setting has no answer, too."""
        if first not in self.answers or last not in self.answers:
            return None
        return compare_answers(self.answers[first][1], self.answers[last][1])


@dataclass(frozen=True)
class ComparedEffects:
    """The same changes in several settings.

    Attributes:
        settings: in order: fewer steps first, then more of the changes.
        effects: those that were measured in at least two settings, the largest in the shortest training first.
    """

    settings: list[Setting]
    effects: list[ComparedEffect]

    @property
    def rows(self) -> list[tuple[str, list[Effect | None]]]:
        """The name of each change, and its effect in each setting; None where it was not measured."""
        return [
            (one.name, [one.answers[at][1] if at in one.answers else None for at in self.settings])
            for one in self.effects
        ]

    def count(self, first: Setting, last: Setting) -> Counter[Lasting]:
        """Count how many decisions of one setting are the same, others, moved or undecided in another one."""
        return Counter(lasts for effect in self.effects if (lasts := effect.lasts(first, last)) is not None)

    def tabulate(self) -> pd.DataFrame:
        """Tabulate every change in every setting, a row each."""
        return pd.DataFrame(
            {
                "change": compared.name,
                "dataset": setting.dataset,
                "steps": setting.steps,
                "grid": results.name,
                **tabulate_effect(effect),
            }
            for compared in self.effects
            for setting, (results, effect) in compared.answers.items()
        )


def compare_effects(results: Iterable[GridResults]) -> ComparedEffects:
    """Compare the main and simple effects on FID that ask the same question in several settings.

    Where several grids of one setting ask it, the surest one counts.

    Args:
        results: of grids in one or several results folders.
    """
    by_question: dict[Question, dict[Setting, Answer]] = {}
    for answer in list_answers(results):
        answers = by_question.setdefault(question_of(*answer), {})
        known = answers.setdefault(setting_of(answer[0]), answer)
        if surety(*answer) > surety(*known):
            answers[setting_of(answer[0])] = answer
    shared = [answers for answers in by_question.values() if len(answers) > 1]
    found = Counter(setting for answers in shared for setting in answers)
    settings = sorted(found, key=lambda at: (at.steps, -found[at], at.dataset))
    effects = [_name({at: answers[at] for at in settings if at in answers}) for answers in shared]
    return ComparedEffects(settings, sorted(effects, key=lambda effect: -_size(effect)))


def _name(answers: dict[Setting, Answer]) -> ComparedEffect:
    results, effect = next(iter(answers.values()))
    ((name, level),) = effect.levels.items()
    factors = results.plan.grid.factors
    factor = factors[name]
    held = {other: level for other, level in effect.within.items() if level != factors[other].baseline}
    words = f"{factor.title_of(name)}: {factor.label_of(level)} (from {factor.label_of(factor.baseline)})"
    return ComparedEffect(f"{words}{f', with {name_levels(held)}' if held else ''}", answers)


def _size(compared: ComparedEffect) -> float:
    """Return the size of an effect in the first setting that has it."""
    _, effect = next(iter(compared.answers.values()))
    return abs(effect.estimate.value)


class Same(NamedTuple):
    """An effect, and another one that compares the same trainings.

    Attributes:
        here: the effect that was asked about, or a simple effect behind it.
        results: of the grid that has the other one.
        there: the other one.
    """

    here: Effect
    results: GridResults
    there: Effect


def find_same(results: Iterable[GridResults], like: GridResults, effect: Effect) -> Same | None:
    """Find an effect that asks the same question after any number of steps, on any data; None without any.

    Where no grid asks it of an average, one may ask it at some levels of the other factors: at the baselines, if there
    is a choice. Of several grids, one with the same extractor comes first, then the surest.

    Args:
        results: where to look, such as those of another folder.
        like: the results that have the effect.
        effect: a main effect on FID.
    """
    parts = [] if effect.within else like.verdicts.simple_effects_of(effect)
    asked = {question_of(like, one): one for one in (*parts, effect)}  # the effect itself comes last: it counts
    answers = [(asked.get(question_of(*answer)), *answer) for answer in list_answers(results)]
    found = [Same(here, of_grid, there) for here, of_grid, there in answers if here is not None]
    return max(found, key=lambda same: _likeness(same, like, effect), default=None)


def _likeness(same: Same, like: GridResults, effect: Effect) -> tuple[object, ...]:
    factors = like.plan.grid.factors
    ours, theirs = (of_grid.plan.baseline.config.scoring.features for of_grid in (like, same.results))
    return (
        same.here is effect,
        sum(level == factors[name].baseline for name, level in same.here.within.items()),
        ours == theirs,
        *surety(same.results, same.there),
    )
