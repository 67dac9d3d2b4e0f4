"""One grid's results in several blocks in, what they say together out: sentences, a table and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_ablate.execution.store import write_atomically
from gan_ablate.reporting import plots
from gan_ablate.reporting.formats import p_text, percent_text
from gan_ablate.reporting.tables import effect_name, lay_out
from gan_ablate.reporting.wording import adjusted_estimate, answer_words

if TYPE_CHECKING:
    from gan_ablate.analysis.blocks import BlockedEffect, Blocks
    from gan_ablate.analysis.effects import Effect

_ANSWERS = {"differs": "yes", "alike": "no", "open": "open"}

RULE = (
    "Every effect is estimated within its block, never across. Whether it differs between blocks is tested on its "
    "differences between them, seed by seed, all of them one family. Only where no difference is found is there a mean "
    "over the blocks, each counting alike; where it is open whether they differ, that is their average, and no law."
)


def block_answers(blocks: Blocks) -> list[str]:
    """Say of every effect what it is in each block, whether that differs, and what is left in common."""
    return [_sentence(effect) for effect in blocks.effects]


def block_lines(blocks: Blocks) -> list[str]:
    """Draw the figures, write the table's CSV, and return the Markdown that shows them."""
    plan, root = blocks.results[0].plan, blocks.results[0].store.root
    folder = root / plan.grid.name
    write_atomically(folder / "blocks.csv", blocks.tabulate().to_csv(index=False, lineterminator="\n"))
    style = plots.Style(blocks.results[0].labels)
    panels: dict[str, list[Effect | None]] = {
        name: [effect.within[name] for effect in blocks.effects] for name in blocks.names
    }
    if blocks.pooled:
        panels["all, where no difference is found"] = [
            None if effect.answer == "differs" else effect.pooled for effect in blocks.effects
        ]
    by_name = dict(zip(blocks.names, blocks.results, strict=True))
    plots.plot_block_effects(panels, folder / "blocks-effects.png")
    runs = {name: results.comparable.runs for name, results in by_name.items()}
    plots.plot_block_quality(runs, style, folder / "blocks-quality.png")
    curves = {name: results.curves for name, results in by_name.items()}
    plots.plot_block_curves(curves, style, folder / "blocks-curves.png")
    lines = [RULE, "", *_table(blocks), ""]
    for caption, file in (
        ("All effects on FID, block by block", "blocks-effects.png"),
        ("Quality of every variant, block by block: these FIDs do not compare across blocks", "blocks-quality.png"),
        ("FID along training, block by block", "blocks-curves.png"),
    ):
        lines += [f"### {caption}", "", f"![{caption}]({plan.grid.name}/{file})", ""]
    return [*lines, f"Every effect, difference and average: [blocks.csv]({plan.grid.name}/blocks.csv).", ""]


def _sentence(effect: BlockedEffect) -> str:
    name = effect.pooled.name
    within = "; ".join(
        f"{block} {percent_text(adjusted_estimate(at))}, {answer_words(at)}" for block, at in effect.within.items()
    )
    found = [f"{_pair(pair)} {_difference_text(by)}" for pair, by in effect.differences.items() if by.is_found]
    match effect.answer:
        case "differs":
            return f"**{name}** differs between blocks: {within}. The difference: {'; '.join(found)}."
        case "alike":
            common = "is the same in all blocks, within the margin"
        case "open":
            common = "may or may not differ between blocks"
    over_all = f"{percent_text(adjusted_estimate(effect.pooled))}, {answer_words(effect.pooled)}"
    return f"**{name}** {common}: {within}. On average {over_all}."


def _table(blocks: Blocks) -> list[str]:
    rows = []
    for effect in blocks.effects:
        differences = (
            f"{_pair(pair) + ': ' if len(effect.differences) > 1 else ''}{_difference_text(by)}"
            for pair, by in effect.differences.items()
        )
        rows.append(
            [
                effect_name(effect.pooled),
                *(f"{percent_text(adjusted_estimate(at))}, {answer_words(at)}" for at in effect.within.values()),
                _ANSWERS[effect.answer],
                "; ".join(differences),
                "–" if effect.answer == "differs" else percent_text(adjusted_estimate(effect.pooled)),
            ]
        )
    pairs = list(blocks.effects[0].differences)
    over = f"difference, {_pair(pairs[0])}" if len(pairs) == 1 else "differences"
    return lay_out(rows, ["effect", *blocks.names, "differs?", over, "average"])


def _pair(pair: tuple[str, str]) -> str:
    return f"{pair[0]} against {pair[1]}"


def _difference_text(effect: Effect) -> str:
    return f"{percent_text(adjusted_estimate(effect))}, p {p_text(effect.test.p)}"
