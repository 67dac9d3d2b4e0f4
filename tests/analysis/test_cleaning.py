"""Rows of users' tables: left out where they are no runs, read where only one reading is possible."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gan_ablate.analysis.cleaning import drop_non_runs, drop_repeated, left_out_words, read_numbers, read_statuses
from gan_ablate.errors import UserError


def test_rows_that_are_no_runs_are_left_out_and_counted() -> None:
    rows = [["on", 0, 1.0], [None, np.nan, None], ["bn", "seed", "fid"], ["# old", None, None], ["off", 0, 2.0]]
    runs, counts = drop_non_runs(pd.DataFrame(rows, columns=["bn", "seed", "fid"]))
    assert runs["bn"].to_list() == ["on", "off"]
    assert runs.index.to_list() == [1, 5]  # rows of the table, for messages
    assert left_out_words(counts) == "1 empty row, 1 repeated header, 1 comment"


@pytest.mark.parametrize(
    ("column", "words", "statuses"),
    [
        ("State", ["finished", "crashed", "killed", "running"], ["completed", "failed", "failed", "unfinished"]),  # W&B
        ("status", ["FINISHED", "FAILED", "KILLED", "SCHEDULED"], ["completed", "failed", "failed", "unfinished"]),
        ("state", ["COMPLETE", "PRUNED", "State.FAIL", "WAITING"], ["completed", "failed", "failed", "unfinished"]),
        ("Status", ["diverged", "Completed", "failed", "RUNNING"], ["diverged", "completed", "failed", "unfinished"]),
        ("state", ["CA", "NY", "TX", "CA"], ["completed"] * 4),  # where it was run
        ("other", ["crashed"] * 4, ["completed"] * 4),
    ],
)  # fmt: skip
def test_statuses_are_those_of_the_tools(column: str, words: list[str], statuses: list[str]) -> None:
    assert read_statuses(pd.DataFrame({column: words}), (), "t").to_list() == statuses


def test_unknown_status_is_refused() -> None:
    frame = pd.DataFrame({"State": ["finished", "perhaps"]}, index=[1, 2])
    with pytest.raises(
        UserError, match=r"t: row 2, State = 'perhaps': valid: completed, diverged, failed, unfinished, or"
    ):
        read_statuses(frame, (), "t")
    assert read_statuses(frame, ("State",), "t").to_list() == ["completed"] * 2  # a factor


def test_attempts_without_a_result_yield_to_their_repetition() -> None:
    frame = pd.DataFrame(
        {
            "bn": ["on", "on", "off", "off", "off"],
            "seed": ["0", "0", "0", "0", "1"],
            "status": ["failed", "completed", "failed", "unfinished", "failed"],
        }
    )
    kept, num = drop_repeated(frame, ["bn", "seed"])
    assert (kept.index.to_list(), num) == ([1, 2, 4], 2)


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["20.5", "1e-3", "", "n/a", "inf"], [20.5, 0.001, np.nan, np.nan, np.inf]),
        (["20,5", "1,25", "3"], [20.5, 1.25, 3]),
        (["1.234,5", "0,5", "1,5e-3"], [1234.5, 0.5, 0.0015]),
        (["1,234.5", "2,000", "7"], [1234.5, 2000, 7]),
        (["0,123", "0,456"], [0.123, 0.456]),
        (["93.5 %", "10%", "-"], [0.935, 0.1, np.nan]),
        (["93,5 %"], [0.935]),
    ],
)
def test_numbers_are_read_where_there_is_one_reading(texts: list[str], numbers: list[float]) -> None:
    np.testing.assert_allclose(read_numbers(pd.DataFrame({"m": texts}), "m", "t"), numbers)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1,234", "56"], r"row 1, m = '1,234': a decimal comma, or one of thousands\? valid: 1.234 or 1234"),
        (["0,5", "1.234"], r"row 1, m = '0,5': valid: a number"),
        (["0.5", "50 %"], r"row 2, m = '50 %': valid: percent signs behind all numbers of the column, or behind none"),
        (["20.5 ± 0.3"], r"row 1, m = '20.5 ± 0.3': a mean over runs, and judge compares runs; valid: a row for each"),
        (["20.5(3)"], r"row 1, m = '20.5\(3\)': a mean over runs"),
        (["1_000"], r"row 1, m = '1_000': valid: a number"),
    ],
)
def test_what_may_be_two_numbers_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_numbers(pd.DataFrame({"m": texts}, index=range(1, len(texts) + 1)), "m", "t")
