from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from gan_ablate.analysis.questions import compare_effects
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting.comparison_page import make_comparison_page, write_comparison
from tests.synthetic import gains, results_of, save_runs


def test_page_names_the_decisions_that_changed() -> None:
    compared = compare_effects(
        [
            results_of("beta1", gains(beta1={"0.0": 0.3, "0.9": 0.9}), steps=99),
            results_of("beta1", gains(beta1={"0.0": -0.3, "0.9": 0.8}), steps=1_999),
        ]
    )
    page = make_comparison_page(compared)
    assert page.title == "The same changes after 99 steps of mnist-10k and after 1,999 steps of mnist-10k"
    counted, changed = page.sentences
    assert counted.startswith("**1 of 2 decisions** made after 99 steps of mnist-10k are the same after 1,999 steps")
    assert "Other decisions: 1. Inconclusive: 0." in counted
    assert "Adam's β1: 0.0 (from 0.5) +3" in changed
    assert ", higher → -2" in changed
    assert "+122" not in changed  # the same decision
    rows = page.effects.splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["Adam's β1: 0.9 (from 0.5)", "Adam's β1: 0.0 (from 0.5)"]


def test_one_seed_is_no_other_answer() -> None:
    effects = gains(beta1={"0.0": 0.3, "0.9": 0.9})
    compared = compare_effects(
        [results_of("beta1", effects, steps=99), results_of("beta1", effects, steps=1_999, seeds=1)]
    )
    (said,) = make_comparison_page(compared).sentences
    assert said == "**Nothing is decided after 1,999 steps of mnist-10k yet:** one seed has no interval."


def test_page_tells_what_moved_from_what_lacks_seeds() -> None:
    before = gains(dropout={"channels-25": 0.4, "elements-30": 0.4, "elements-50": 0.4})
    after = gains(dropout={"channels-25": 0.3, "elements-30": -0.3, "elements-50": 0.3})
    short, long = results_of("dropout", before, steps=99), results_of("dropout", after, 0.1, seeds=3, steps=1_999)
    counted, moved, unsure = make_comparison_page(compare_effects([short, long])).sentences
    assert counted.endswith("Other decisions: 0. Inconclusive: 3.")
    assert moved.startswith("Inconclusive after 1,999 steps of mnist-10k, and the interval excludes the number after")
    assert re.findall(r"\d\d % of \w+", moved) == ["30 % of elements"]
    assert unsure.startswith("Inconclusive after 1,999 steps of mnist-10k, and the interval holds that number: dropout")
    assert sorted(re.findall(r"\d\d % of \w+", unsure)) == ["25 % of channels", "50 % of elements"]


@pytest.mark.slow
def test_folders_are_compared_in_a_page_a_figure_and_a_table(tmp_path: Path) -> None:
    for steps in (99, 999):
        planned = plan(load_grid("beta1"), seeds=4, steps=steps)
        save_runs(Store(tmp_path / str(steps)), planned, lambda variant, seed: 20.0 + seed + len(variant.label))
    path = write_comparison([tmp_path / "99", tmp_path / "999"], tmp_path / "both")
    assert {file.name for file in path.parent.iterdir()} == {"comparison.md", "comparison.png", "comparison.csv"}
    table = pd.read_csv(path.parent / "comparison.csv")
    assert table.groupby("change")["steps"].apply(list).to_dict() == {
        "Adam's β1: 0.0 (from 0.5)": [99, 999],
        "Adam's β1: 0.9 (from 0.5)": [99, 999],
    }


def test_folder_without_results_and_folders_with_nothing_in_common_are_refused(tmp_path: Path) -> None:
    save_runs(Store(tmp_path / "a"), plan(load_grid("beta1"), seeds=2), lambda *_: 20.0)
    with pytest.raises(UserError, match=r"folders=.*empty.*: no grid was run into this folder"):
        write_comparison([tmp_path / "a", tmp_path / "empty"], tmp_path / "both")
    with pytest.raises(UserError, match="they have no change of FID in common"):
        write_comparison([tmp_path / "a"], tmp_path / "both")
    assert not (tmp_path / "both").exists()
