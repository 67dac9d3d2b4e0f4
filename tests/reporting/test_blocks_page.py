from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from gan_ablate.analysis.pooling import compare_blocks
from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Variant, plan
from gan_ablate.reporting.blocks_page import BlocksPage, write_blocks_page
from gan_ablate.reporting.plots.style import FigurePath
from tests.reporting.example import check_golden
from tests.synthetic import make_results

TURNED = {"mnist-10k": 0.5, "fashion-mnist": -0.5}


def make_block(dataset: str) -> GridResults:
    def fid(variant: Variant, seed: int) -> float:
        error = 0.004 * math.sin(7 * seed + sum(map(ord, variant.label + dataset)))
        change = {"0.9": TURNED[dataset], "0.0": 0.3}.get(variant.levels["beta1"], 0.0)
        return 20 * math.exp(error + change)

    return make_results(plan(load_grid("beta1"), dataset=dataset), fid)


@pytest.fixture
def page(tmp_path: Path, no_figures: None) -> BlocksPage:
    (blocks,) = compare_blocks([make_block(dataset) for dataset in TURNED])
    return write_blocks_page(blocks, "beta1@blocks", FigurePath(tmp_path / "beta1@blocks"))


def test_page_of_the_example_is_golden(example: Path) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden files anew."""
    check_golden("blocks_page.md", (example / "beta1@blocks" / "report.md").read_text("utf-8"))


def test_effect_that_turns_between_blocks_is_told_first_and_has_no_average(page: BlocksPage) -> None:
    assert page.title == "Adam's β1, across mnist-10k, fashion-mnist"
    differs, alike = page.sentences
    # exp(0.5) - 1 = +64.9 %, exp(-0.5) - 1 = -39.3 %, exp(0.3) - 1 = +35.0 %
    assert differs.startswith("**beta1 0.9** differs between blocks: mnist-10k +6")
    assert "; fashion-mnist -39" in differs
    assert alike.startswith("**beta1 0.0** is the same in all blocks, within the margin: mnist-10k +3")
    assert "On average +35" in alike
    assert sorted(page.answers) == sorted(page.sentences)
    rows = [line.split("|")[1:-1] for line in page.effects.splitlines() if line.startswith("| beta1")]
    assert {row[0].strip(): (row[3].strip(), row[5].strip() == "–") for row in rows} == {
        "beta1 0.9": ("yes", True),
        "beta1 0.0": ("no", False),
    }


def test_words_in_table_heads_lead_to_their_definitions(page: BlocksPage) -> None:
    (head,) = [line for line in page.markdown.splitlines() if line.startswith("| [effect]")]
    for words, heading in (("effect", "effects"), ("differs?", "blocks"), ("average", "blocks")):
        assert f"[{words}](../methods.md#{heading})" in head
    assert re.search(r"\[difference, [^|]+\]\(\.\./methods\.md#blocks\)", head)


def test_seeds_of_each_block_are_told_and_those_that_all_have(page: BlocksPage) -> None:
    assert (page.seeds, page.shared_seeds) == ("mnist-10k 5, fashion-mnist 5", "5 seeds")
    assert page.block_warnings == []


def test_table_beside_the_page_has_every_block_and_the_average_of_what_is_alike(
    page: BlocksPage, tmp_path: Path
) -> None:
    rows = pd.read_csv(tmp_path / "beta1@blocks" / "blocks.csv", keep_default_na=False)
    assert set(rows["block"]) == {"mnist-10k", "fashion-mnist", "all"}
    assert list(rows.loc[rows["block"] == "all", "effect"]) == ["beta1 0.0"]
    assert [picture.file for picture in page.pictures] == ["effects.png", "quality.png", "curves.png"]
    assert all((tmp_path / "beta1@blocks" / picture.file).is_file() for picture in page.pictures)


def test_smoke_run_on_another_data_set_is_no_block() -> None:
    smoke = plan(load_grid("beta1"), dataset="fashion-mnist", budget="smoke", steps=1_500)
    assert compare_blocks([make_block("mnist-10k"), make_results(smoke, lambda _, seed: 20.0 + seed)]) == []
