"""One grid's results in several blocks in, what they say together out: sentences, a table and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gan_ablate.files import write_atomically
from gan_ablate.reporting import caveats, plots
from gan_ablate.reporting.formats import count, escape_markdown, p_text, percent_text
from gan_ablate.reporting.page import Page
from gan_ablate.reporting.tables import lay_out
from gan_ablate.reporting.wording import adjusted_estimate, answer_words, effect_name

if TYPE_CHECKING:
    from gan_ablate.analysis.blocks import BlockedEffect, Blocks
    from gan_ablate.analysis.family import Effect

_ANSWERS = {"differs": "yes", "alike": "no", "open": "open"}

RULE = (
    "Every effect is estimated within its block, never across. Whether it differs between blocks is tested on its "
    "differences between them, seed by seed, all of them one family. Only where no difference is found is there a mean "
    "over the blocks, each counting alike; where it is open whether they differ, that is their average, and no law."
)


def write_blocks_page(blocks: Blocks, folder: str) -> Page:
    """Write the figures and the table of a grid's blocks together, and make the page that shows them.

    Args:
        blocks: of one grid.
        folder: below the results folder, for the page and all that it shows.
    """
    plan, root = blocks.results[0].plan, blocks.results[0].store.root
    title = f"{plan.grid.title}, across {', '.join(blocks.names)}"
    sentences = [_sentence(effect) for effect in blocks.effects]
    csv = blocks.tabulate().to_csv(index=False, lineterminator="\n")
    write_atomically(root / folder / "blocks.csv", csv)
    style = plots.Style(blocks.results[0].labels)
    panels: dict[str, list[Effect | None]] = {
        name: [effect.within[name] for effect in blocks.effects] for name in blocks.names
    }
    if blocks.pooled:
        panels["average"] = [None if effect.answer == "differs" else effect.pooled for effect in blocks.effects]
    by_name = dict(zip(blocks.names, blocks.results, strict=True))
    plots.plot_block_effects(panels, root / folder / "effects.png")
    runs = {name: results.comparable.runs for name, results in by_name.items()}
    plots.plot_block_quality(runs, style, root / folder / "quality.png")
    curves = {name: results.curves for name, results in by_name.items()}
    plots.plot_block_curves(curves, style, root / folder / "curves.png")
    warnings = [
        f"{escape_markdown(name)}: {warning}"
        for name, results in by_name.items()
        for warning in caveats.warning_sentences(results)
    ]
    lines = [f"# {escape_markdown(title)}", "", "## Answers", ""]
    lines += [*(f"- {sentence}" for sentence in (*sentences, _seeds_sentence(blocks), *warnings)), ""]
    lines += ["## Effects on FID", "", *_table(blocks), "", RULE, ""]
    for caption, file in (
        ("All effects on FID, block by block", "effects.png"),
        ("Quality of every variant, block by block: these FIDs do not compare across blocks", "quality.png"),
        ("FID along training, block by block", "curves.png"),
    ):
        lines += [f"### {caption}", "", f"![{caption}]({file})", ""]
    lines += ["Every effect, difference and average: [blocks.csv](blocks.csv).", ""]
    order = {"differs": 0, "alike": 1, "open": 2}
    first = sorted(blocks.effects, key=lambda effect: (order[effect.answer], -abs(effect.pooled.estimate.value)))
    return Page(title, folder, [_sentence(effect) for effect in first[:3]], lines)


def _seeds_sentence(blocks: Blocks) -> str:
    own = ", ".join(
        f"{escape_markdown(n)} {len(r.plan.seeds)}" for n, r in zip(blocks.names, blocks.results, strict=True)
    )
    shared = max(effect.pooled.estimate.num_seeds for effect in blocks.effects)
    return f"Seeds: {own}; differences and averages rest on the {count(shared, 'seed')} that all blocks have."


def _sentence(effect: BlockedEffect) -> str:
    name = effect.pooled.name
    within = "; ".join(
        f"{escape_markdown(block)} {percent_text(adjusted_estimate(at))}, {answer_words(at)}"
        for block, at in effect.within.items()
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
    return lay_out(rows, ["effect", *map(escape_markdown, blocks.names), "differs?", over, "average"])


def _pair(pair: tuple[str, str]) -> str:
    return escape_markdown(f"{pair[0]} against {pair[1]}")


def _difference_text(effect: Effect) -> str:
    return f"{percent_text(adjusted_estimate(effect))}, p {p_text(effect.test.p)}"
