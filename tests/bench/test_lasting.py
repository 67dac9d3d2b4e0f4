from __future__ import annotations

from pathlib import Path

from gan_ablate.analysis.trajectories import BASE_RATES, TIMES

PAGE = Path(__file__).parents[2] / "results/lasting.md"


def test_base_rates_of_reports_are_those_of_the_page() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text("utf-8").splitlines()]
    found = [row for row in rows if row and row[0] in ("large", "smaller")]
    expected = [
        [size, f"{times:.2g}", str(standing.num), str(standing.same), str(standing.other)]
        for size, is_large in (("large", True), ("smaller", False))
        for times, standing in zip(TIMES, BASE_RATES[is_large], strict=True)
    ]
    assert [row[:5] for row in found] == expected
