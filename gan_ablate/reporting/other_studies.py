"""Other studies: what other results folders found of the same changes, after other steps or on other data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gan_ablate.analysis.claims import judge
from gan_ablate.analysis.effects import name_levels
from gan_ablate.analysis.questions import averaged_factors, compare_answers, find_same, setting_of
from gan_ablate.reporting.formats import escape_markdown, value_text
from gan_ablate.reporting.run_sentences import average_words
from gan_ablate.reporting.sentences import adjusted_text, verdict_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gan_ablate.analysis.claims import ClaimVerdict
    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.questions import Answer, Lasting, Setting
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
        return f"{'After' if self.setting.steps else 'On'} {escape_markdown(self.setting.name)}"


def split_settings(title: str, path: str, results: Iterable[GridResults]) -> list[OtherStudy]:
    """Make a study of each setting of a results folder, the shortest training first.

    Args:
        title: the name of the folder.
        path: of its front page, from the one that links it.
        results: of its grids.
    """
    by_setting: dict[Setting, list[GridResults]] = {}
    for of_grid in results:
        by_setting.setdefault(setting_of(of_grid), []).append(of_grid)
    # Of one length, the data set of the most grids or of the largest grid comes first.
    order = sorted(by_setting, key=lambda at: (at.steps, -sum(of.plan.num_runs for of in by_setting[at]), at.dataset))
    return [OtherStudy(title, path, setting, by_setting[setting]) for setting in order]


class Compared(NamedTuple):
    """What became of an effect elsewhere.

    Attributes:
        lasting: whether it lasts.
        words: ``: higher (+21 %) → lower (-15 %)``; the two numbers where the decision is the same or still open.
    """

    lasting: Lasting
    words: str

    @property
    def is_changed(self) -> bool:
        """Whether the answer there is another one."""
        return self.lasting in ("other", "moved")


def compare_elsewhere(other: OtherStudy, results: GridResults, effect: Effect) -> Compared | None:
    """Say what became of a decision elsewhere; None where it is not measured or not decided.

    Where the other folder holds the factors of an average, it is compared with the effect at those levels. It is the
    same, too, if it is decided like the average.
    """
    same = find_same(other.results, results, effect)
    if same is None:
        return None
    there, held = same[1], _held_levels(same, results, effect)
    here = next((one for one in results.verdicts.simple_effects_of(effect) if held and one.within == held), effect)
    here = effect if effect.decision == there.decision else here
    lasting = compare_answers(here, there)
    if lasting is None:
        return None
    before, after = (value_text(one, one.estimate.value) for one in (here, there))
    if lasting in ("other", "moved"):
        before, after = f"{here.decision} ({before})", f"{there.decision} ({after})"
    if here is effect:
        words = f"{average_words(results, effect)}: {before} → {after}{_held_words(same, results, effect)}"
    else:
        words = f", with {here.place}: {before} → {after}"
    return Compared(lasting, words)


def elsewhere_words(others: Sequence[OtherStudy], results: GridResults, effect: Effect) -> str:
    """Say what other folders found of the same change: ``; -15.0 % [-21.0, -8.0] at 6,000 steps``."""
    words = ""
    for other in others:
        same = find_same(other.results, results, effect)
        if same is not None:
            unsure = ", inconclusive" if same[1].decision == "inconclusive" else ""
            held = _held_words(same, results, effect)
            compared = compare_elsewhere(other, results, effect)
            but = "but " if compared is not None and compared.is_changed and not held else ""
            words += f"; {but}{adjusted_text(same[1])} {_where_words(other, results)}{held}{unsure}"
    return words


def _where_words(other: OtherStudy, results: GridResults) -> str:
    """Say after how many steps and on which data another folder measured, or its name where that is no difference."""
    ours, theirs = setting_of(results), other.setting
    steps = [f"at {theirs.steps:,} steps"] if theirs.steps != ours.steps else []
    data = [f"on {escape_markdown(theirs.dataset)}"] if theirs.dataset != ours.dataset else []
    return " ".join([*steps, *data]) or f"in {other.title}"


def verdict_elsewhere_words(others: Sequence[OtherStudy], results: GridResults, claim_verdict: ClaimVerdict) -> str:
    """Say other verdicts of other folders on a claim on FID: ``; **refuted** at 6,000 steps``.

    An inconclusive one is told only where an effect that it rests on has changed: else it lacks seeds.
    """
    effects = [finding.effect for finding in claim_verdict.decisive]
    if claim_verdict.verdict == "depends" or not all(e.outcome.name == "fid" and len(e.levels) == 1 for e in effects):
        return ""
    words = ""
    for other in others:
        same = [pair for effect in effects if (pair := find_same(other.results, results, effect)) is not None]
        there = _judge_same(claim_verdict, same)
        if there is None or there.verdict == claim_verdict.verdict:
            continue
        if there.verdict != "inconclusive" or is_changed_elsewhere([other], results, effects):
            told = verdict_words(there, is_complete=True, factors=results.plan.grid.factors).split(":")[0]
            words += f"; {told} {_where_words(other, results)}{_held_words(same[0], results, effects[0])}"
    return words


def is_changed_elsewhere(others: Sequence[OtherStudy], results: GridResults, effects: Sequence[Effect]) -> bool:
    """Whether another folder has another answer on any of the effects."""
    compared = (compare_elsewhere(other, results, effect) for other in others for effect in effects)
    return any(one is not None and one.is_changed for one in compared)


def _judge_same(claim_verdict: ClaimVerdict, same: Sequence[Answer]) -> ClaimVerdict | None:
    """Judge a claim by the same effects elsewhere; None where one is missing or depends on another factor."""
    if any(of_grid.verdicts.varies(effect) for of_grid, effect in same):
        return None
    return judge(claim_verdict.claim, lambda _: [effect for _, effect in same])


def _held_words(same: Answer, results: GridResults, effect: Effect) -> str:
    """Say over which factors another effect is averaged, or at which levels it holds those of this one's average."""
    ours, theirs = averaged_factors(results, effect), averaged_factors(*same)
    if theirs != ours and theirs:
        return average_words(*same)
    held = _held_levels(same, results, effect)
    return f" with {name_levels(held, ' and ')}" if held else ""


def _held_levels(same: Answer, results: GridResults, effect: Effect) -> dict[str, str]:
    """Return the levels at which another effect, that is no average, holds the factors of this one's average."""
    ours, factors = averaged_factors(results, effect), same[0].plan.grid.factors
    return {name: factors[name].baseline for name in ours if name in factors and not averaged_factors(*same)}
