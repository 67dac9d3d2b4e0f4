from __future__ import annotations

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Variant, plan
from gan_ablate.reporting.tables import claims_table, effects_table, lay_out, picture_table
from tests.synthetic import make_results


def fields_of(row: str) -> list[str]:
    return [field.strip() for field in row.strip("|").split(" |")]


def test_bars_and_line_ends_in_cells_end_neither_cell_nor_row() -> None:
    header, _, row = lay_out([["p(y|x)", "two\nlines"]], ["a", "b"]).splitlines()
    assert header.count("|") == 3
    assert fields_of(row) == [r"p(y\|x)", "two lines"]


def test_four_pictures_fill_two_rows_of_three() -> None:
    table = picture_table([(f"caption {i}", f"picture {i}") for i in range(4)])
    captions, _, pictures, more_captions, more_pictures = table.splitlines()
    assert fields_of(captions) == ["caption 0", "caption 1", "caption 2"]
    assert fields_of(pictures) == ["picture 0", "picture 1", "picture 2"]
    assert fields_of(more_captions) == ["caption 3", "", ""]
    assert fields_of(more_pictures) == ["picture 3", "", ""]


def test_two_pictures_take_two_columns() -> None:
    assert fields_of(picture_table([("a", "1"), ("b", "2")]).splitlines()[0]) == ["a", "b"]


def test_a_doubled_fid_is_a_row_of_plus_100_percent_without_columns_of_sequential_grids() -> None:
    fids = {"0.0": 20.0, "0.5": 20.0, "0.9": 40.0}
    results = make_results(plan(load_grid("beta1"), seeds=4), lambda variant, _: fids[variant.levels["beta1"]])
    header, _, *rows = effects_table(results.verdicts.effects("fid")).splitlines()
    assert fields_of(header) == ["effect", "change of FID [95 %]", "adjusted interval", "decision", "seeds"]
    (doubled,) = [fields_of(row) for row in rows if "0.9" in row]
    assert doubled[1].startswith("+100 %")
    assert doubled[-1] == "4"


def test_verdicts_of_an_unfinished_grid_are_provisional() -> None:
    noisy = {0: 1.00, 1: 1.01, 2: 0.98, 3: 1.03}

    def fid(variant: Variant, seed: int) -> float:
        return 20.0 * noisy[seed] if variant.levels["batch_norm"] == "on" else 40.0

    results = make_results(plan(load_grid("bn_label_smooth"), seeds=4), fid)
    fewer = GridResults(results.store, results.plan, results.records[:-1], results.runs.iloc[:-1])
    for of_grid, is_provisional in ((results, False), (fewer, True)):
        table = claims_table(of_grid, of_grid.verdicts.claim_verdicts)
        assert "refuted" in table or "supported" in table
        assert ("provisionally: runs are missing" in table) is is_provisional
