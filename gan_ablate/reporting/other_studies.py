"""Other studies: what other results folders found of the same changes, after other steps or on other data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gan_ablate.analysis.claims import judge
from gan_ablate.analysis.questions import compare_answers, find_same, setting_of
from gan_ablate.reporting.formats import escape_markdown, value_text
from gan_ablate.reporting.run_sentences import average_words, collapsed_words
from gan_ablate.reporting.sentences import adjusted_text, verdict_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gan_ablate.analysis.claims import ClaimVerdict
    from gan_ablate.analysis.effects import Decision, Effect
    from gan_ablate.analysis.questions import Lasting, Same, Setting
    from gan_ablate.analysis.results import GridResults


@dataclass(frozen=True)
class OtherStudy:
    """Grids of another results folder that were trained equally long on the same data; its front page is linked.

    Attributes:
        title: the name of its folder.
        path: of its front page, from this one.
        setting: the data set, and the steps of training.
        results: of its grids.
    """

    title: str
    path: str
    setting: Setting
    results: Sequence[GridResults]

    @property
    def heading(self) -> str:
        """Where its grids were measured: ``After 6,000 steps of mnist-10k``."""
        place = self.setting.place
        return escape_markdown(place[0].upper() + place[1:])


def split_settings(title: str, path: str, results: Iterable[GridResults]) -> list[OtherStudy]:
    """Make a study of each setting of a results folder, without smoke runs.

    The shortest training comes first; of one length, the data set with the most runs.

    Args:
        title: the name of the folder.
        path: of its front page, from the one that links it.
        results: of its grids.
    """
    by_setting: dict[Setting, list[GridResults]] = {}
    for of_grid in results:
        if of_grid.plan.budget != "smoke":
            by_setting.setdefault(setting_of(of_grid), []).append(of_grid)
    num_runs = {at: sum(of_grid.plan.num_runs for of_grid in of_setting) for at, of_setting in by_setting.items()}
    order = sorted(by_setting, key=lambda at: (at.steps, -num_runs[at], at.dataset))
    return [OtherStudy(title, path, setting, by_setting[setting]) for setting in order]


class Compared(NamedTuple):
    """What became of an answer in another study.

    Attributes:
        lasting: whether it lasts.
        before: the answer here.
        after: the answer there.
        words: ``: higher (+21 %) → lower (-15 %)``, the shorter training first; the two numbers where the answer is the
            same or still open.
    """

    lasting: Lasting
    before: Decision
    after: Decision
    words: str

    @property
    def is_changed(self) -> bool:
        """Whether the answer there is another one, or the interval there excludes the number here."""
        return self.lasting in ("other", "moved")

    @property
    def turns(self) -> bool:
        """Whether a direction has become the other one."""
        return {self.before, self.after} == {"lower", "higher"}


def compare_elsewhere(
    other: OtherStudy, results: GridResults, effect: Effect, surest: Effect | None = None
) -> Compared | None:
    """Say what became of an answer in another study; None where it is not measured there, or not decided here.

    Where the other study has only a part of an average, it is compared with that part.

    Args:
        other: the other study.
        results: of the grid that has the effect.
        effect: a main effect on FID.
        surest: the same effect of another grid, with more seeds.
    """
    same = find_same(other.results, results, effect)
    if same is None:
        return None
    here, there = surest if surest is not None and same.here is effect else same.here, same.there
    lasting = compare_answers(here, there)
    if lasting is None:
        return None
    numbers = [f"{one.value_bound}{value_text(one, one.estimate.value)}" for one in (here, there)]
    if lasting in ("other", "moved"):
        numbers = [f"{_answer_words(one)} ({number})" for one, number in zip((here, there), numbers, strict=True)]
    if other.setting.steps < setting_of(results).steps:
        numbers.reverse()  # the shorter training first, on every page
    where = average_words(results, effect) if same.here is effect else f", with {same.here.place}"
    return Compared(lasting, here.answer, there.answer, f"{where}: {' → '.join(numbers)}")


def _answer_words(effect: Effect) -> str:
    """Write an answer that may rest on the rate of collapse."""
    is_by_rate = effect.answer == "higher" != effect.decision
    return "more runs fail" if is_by_rate else effect.answer


def elsewhere_words(others: Sequence[OtherStudy], results: GridResults, effect: Effect) -> str:
    """Say what other studies found of the same change: ``; -15.0 % [-21.0, -8.0] at 6,000 steps``."""
    words = ""
    for other in others:
        same = find_same(other.results, results, effect)
        if same is not None:
            unsure = ", inconclusive" if same.there.answer == "inconclusive" else ""
            failed = collapsed_words(same.there).replace(";", ",")
            held = _held_words(same, effect)
            compared = compare_elsewhere(other, results, effect)
            but = "but " if compared is not None and compared.is_changed and not held else ""
            words += f"; {but}{adjusted_text(same.there)} {_where_words(other, results)}{held}{unsure}{failed}"
    return words


def _where_words(other: OtherStudy, results: GridResults) -> str:
    """Say after how many steps and on which data another study measured, or its folder where that is no difference."""
    ours, theirs = setting_of(results), other.setting
    steps = [f"at {theirs.steps:,} steps"] if theirs.steps != ours.steps else []
    data = [f"on {escape_markdown(theirs.dataset)}"] if theirs.dataset != ours.dataset else []
    return " ".join([*steps, *data]) or f"in {other.title}"


def verdict_elsewhere_words(others: Sequence[OtherStudy], results: GridResults, claim_verdict: ClaimVerdict) -> str:
    """Say other verdicts of other studies on a claim on FID: ``; **refuted** at 6,000 steps``.

    An inconclusive one is told only where an effect that it rests on has changed.
    """
    effects = [finding.effect for finding in claim_verdict.decisive]
    if claim_verdict.verdict == "depends" or not all(e.outcome.name == "fid" and len(e.levels) == 1 for e in effects):
        return ""
    words = ""
    for other in others:
        same = [one for effect in effects if (one := find_same(other.results, results, effect)) is not None]
        there = _judge_same(claim_verdict, same)
        if there is None or there.verdict == claim_verdict.verdict:
            continue
        if there.verdict != "inconclusive" or is_changed_elsewhere([other], results, effects):
            told = verdict_words(there, is_complete=True, factors=results.plan.grid.factors).split(":")[0]
            words += f"; {told} {_where_words(other, results)}{_held_words(same[0], effects[0])}"
    return words


def is_changed_elsewhere(others: Sequence[OtherStudy], results: GridResults, effects: Sequence[Effect]) -> bool:
    """Whether another study has another answer on any of the effects."""
    compared = (compare_elsewhere(other, results, effect) for other in others for effect in effects)
    return any(one is not None and one.is_changed for one in compared)


def _judge_same(claim_verdict: ClaimVerdict, same: Sequence[Same]) -> ClaimVerdict | None:
    """Judge a claim by the same effects elsewhere; None where one is missing or depends on another factor."""
    if any(one.results.verdicts.varies(one.there) for one in same):
        return None
    return judge(claim_verdict.claim, lambda _: [one.there for one in same])


def _held_words(same: Same, effect: Effect) -> str:
    """Say at which levels another study holds the factors of this one's average."""
    return "" if same.here is effect else f" with {same.here.place}"
