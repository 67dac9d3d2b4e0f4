"""The page of a grid across its blocks: which effects are equal in all blocks, and which differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gan_ablate.atomic_io import write_atomically
from gan_ablate.reporting.exports import table_as_csv
from gan_ablate.reporting.formats import PAGE_NAME, Page, Picture, count, escape_markdown, p_text
from gan_ablate.reporting.plots import quality
from gan_ablate.reporting.plots.effects import FOREST_NOTE
from gan_ablate.reporting.plots.style import Style
from gan_ablate.reporting.plots.training import CURVES_NOTE
from gan_ablate.reporting.run_sentences import warning_sentences
from gan_ablate.reporting.sentences import adjusted_text, decided_text, effect_name
from gan_ablate.reporting.tables import lay_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.pooling import BlockedEffect, Blocks
    from gan_ablate.reporting.plots.style import FigurePath

_DIFFERS = {"differs": "yes", "alike": "no", "inconclusive": "inconclusive"}


@dataclass(frozen=True, kw_only=True)
class BlocksPage(Page):
    """The model of the page of a grid across its blocks.

    Attributes:
        answers: a sentence for every effect.
        seeds: the number of seeds of each block.
        shared_seeds: how many seeds all blocks have.
        block_warnings: reasons for not believing the answers, block by block.
        effects: a table of the effects in every block, as Markdown.
        pictures: the figures.
    """

    template: ClassVar[str] = "blocks_page.md.j2"

    answers: list[str]
    seeds: str
    shared_seeds: str
    block_warnings: list[str]
    effects: str
    pictures: list[Picture]


def write_blocks_page(blocks: Blocks, name: str, folder: FigurePath) -> BlocksPage:
    """Write the figures and the table of a grid across its blocks, and make the page that shows them.

    Args:
        blocks: of one grid.
        name: of the page's folder.
        folder: the page's folder in the results folder.
    """
    by_name = dict(zip(blocks.names, blocks.results, strict=True))
    write_atomically(folder.path / "blocks.csv", table_as_csv(blocks.tabulate()))
    order = {"differs": 0, "alike": 1, "inconclusive": 2}
    first = sorted(blocks.effects, key=lambda effect: (order[effect.decision], -abs(effect.pooled.estimate.value)))
    shared = max(effect.pooled.estimate.num_seeds for effect in blocks.effects)
    return BlocksPage(
        title=f"{blocks.results[0].plan.grid.title}, across {', '.join(blocks.names)}",
        path=f"{name}/{PAGE_NAME}",
        sentences=[block_sentence(effect) for effect in first[:3]],
        answers=[block_sentence(effect) for effect in blocks.effects],
        seeds=", ".join(f"{escape_markdown(block)} {len(of.plan.seeds)}" for block, of in by_name.items()),
        shared_seeds=count(shared, "seed"),
        block_warnings=[
            f"{escape_markdown(block)}: {warning}"
            for block, results in by_name.items()
            for warning in warning_sentences(results)
        ],
        effects=block_effects_table(blocks.effects, blocks.names),
        pictures=draw_blocks(blocks, folder),
    )


def draw_blocks(blocks: Blocks, folder: FigurePath) -> list[Picture]:
    """Draw the figures of a grid's blocks side by side.

    Args:
        blocks: of one grid.
        folder: of the comparison.
    """
    by_name = dict(zip(blocks.names, blocks.results, strict=True))
    style = Style(blocks.results[0].labels)
    panels: dict[str, list[Effect | None]] = {
        name: [effect.within[name] for effect in blocks.effects] for name in blocks.names
    }
    if blocks.pooled:
        panels["average"] = [None if effect.decision == "differs" else effect.pooled for effect in blocks.effects]
    folder.draw("effects.png", quality.plot_block_effects, panels)
    runs = {name: results.comparable.runs for name, results in by_name.items()}
    folder.draw("quality.png", quality.plot_block_quality, runs, style)
    curves = {name: results.curves for name, results in by_name.items()}
    folder.draw("curves.png", quality.plot_block_curves, curves, style)
    return [
        Picture("All effects on FID, block by block", "effects.png", FOREST_NOTE),
        Picture(
            "FID of every run, block by block",
            "quality.png",
            f"{quality.RUNS_NOTE} FIDs do not compare across blocks.",
        ),
        Picture("FID along training, block by block", "curves.png", CURVES_NOTE),
    ]


def block_sentence(effect: BlockedEffect) -> str:
    """Say whether an effect differs between blocks, and how large it is in each."""
    name = effect.pooled.name
    within = "; ".join(f"{escape_markdown(block)} {decided_text(at)}" for block, at in effect.within.items())
    found = [f"{_pair(pair)} {_difference_text(by)}" for pair, by in effect.differences.items() if by.is_found]
    match effect.decision:
        case "differs":
            return f"**{name}** differs between blocks: {within}. The difference: {'; '.join(found)}."
        case "alike":
            common = "is the same in all blocks, within the margin"
        case "inconclusive":
            common = "may or may not differ between blocks"
    return f"**{name}** {common}: {within}. On average {decided_text(effect.pooled)}."


def block_effects_table(effects: Sequence[BlockedEffect], names: Sequence[str]) -> str:
    """Tabulate effects on one outcome: in every block, their differences, and their average.

    Args:
        effects: at least one.
        names: of the blocks.
    """
    rows = []
    for effect in effects:
        differences = (
            f"{_pair(pair) + ': ' if len(effect.differences) > 1 else ''}{_difference_text(by)}"
            for pair, by in effect.differences.items()
        )
        rows.append(
            [
                effect_name(effect.pooled),
                *map(decided_text, effect.within.values()),
                _DIFFERS[effect.decision],
                "; ".join(differences),
                "–" if effect.decision == "differs" else adjusted_text(effect.pooled),
            ]
        )
    pairs = list(effects[0].differences)
    over = f"difference, {_pair(pairs[0])}" if len(pairs) == 1 else "differences"
    return lay_out(rows, ["effect", *map(escape_markdown, names), "differs?", over, "average"])


def _pair(pair: tuple[str, str]) -> str:
    return escape_markdown(f"{pair[0]} against {pair[1]}")


def _difference_text(effect: Effect) -> str:
    return f"{adjusted_text(effect)}, p {p_text(effect.test.p)}"
