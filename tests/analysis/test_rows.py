from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from gan_ablate.analysis.rows import choose_rows, differing_words, find_steps
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.errors import UserError


def rows(*, status: str = "completed", **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(columns, dtype=object)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame if "status" in frame else frame.assign(status=status)


LONG = rows(
    bn=["on"] * 3 + ["off"] * 3,
    seed=["0"] * 6,
    epoch=["1", "2", "10", "1", "2", "10"],
    fid=["30", "20", "25", "40", "35", "36"],
    loss=["1"] * 6,
)


def choose(frame: pd.DataFrame, **options: Any) -> tuple[pd.DataFrame, list[str]]:
    arguments: dict[str, Any] = {"step": None, "best": None, **options}
    return choose_rows(frame, ["bn", "seed"], ["fid"], "t", **arguments)


def test_the_last_row_is_that_of_the_largest_step_not_of_the_last_text() -> None:
    found, notes = choose(LONG.iloc[::-1])
    assert list(found["fid"]) == ["36", "25"]
    assert notes == ["Each run is taken at its last epoch: 10"]


def test_the_best_row_is_taken_with_a_word_on_its_bias() -> None:
    found, notes = choose(LONG, best=OUTCOMES["fid"])
    assert list(found["fid"]) == ["20", "35"]
    assert notes[0] == "Each run is taken at its lowest fid, the best of its 3 rows: epoch 2"
    assert notes[1].startswith("A best fid is biased: it is too low by chance")
    accuracy = OUTCOMES["fid"].__class__("fid", "A", "higher", "ratio", "")
    found, notes = choose(LONG, best=accuracy)
    assert list(found["fid"]) == ["30", "40"]
    assert "too high by chance" in notes[1]


def test_a_blank_last_row_yields_to_the_last_result_and_is_said() -> None:
    frame = LONG.assign(fid=["30", "20", "", "40", "35", "36"])
    found, notes = choose(frame)
    assert list(found["fid"]) == ["20", "36"]
    assert notes[1] == (
        "1 of 2 runs have no result at their last epoch, and are taken earlier, such as bn on, seed 0 at epoch 2 of 10"
    )


def test_a_last_row_that_is_not_a_number_is_no_blank() -> None:
    """A run whose FID became NaN diverged: its last finite number is no result."""
    found, _ = choose(LONG.assign(fid=["30", "20", "nan", "40", "35", "36"]))
    assert list(found["fid"]) == ["nan", "36"]


def test_runs_that_end_at_different_steps_are_said() -> None:
    _, notes = choose(LONG.drop(index=6))
    assert notes[-1] == "Runs end at different epoch: 2 to 10, such as bn off, seed 0 at 2"


def test_a_run_ended_as_its_last_row_says() -> None:
    frame = LONG.assign(status=["completed"] * 5 + ["diverged"])
    found, _ = choose(frame, best=OUTCOMES["fid"])
    assert list(found["status"]) == ["completed", "diverged"]


def test_rows_of_a_failed_attempt_yield_to_its_repetition() -> None:
    attempt = LONG.iloc[:2].assign(status="failed", fid="1")
    frame = pd.concat([attempt, LONG], ignore_index=True)
    found, _ = choose(frame.set_axis(range(1, 9), axis="index"), best=OUTCOMES["fid"])
    assert list(found["fid"]) == ["20", "35"]


@pytest.mark.parametrize(
    ("columns", "step"),
    [
        (["lr", "epoch", "_step"], "_step"),
        (["train/Epoch", "fid"], "train/Epoch"),
        (["trainer/global_step", "epoch"], "trainer/global_step"),
        (["steps_per_epoch"], None),
    ],
)
def test_the_column_of_steps_is_found_by_its_name(columns: list[str], step: str | None) -> None:
    assert find_steps(columns) == step


@pytest.mark.parametrize(
    ("frame", "step", "message"),
    [
        (LONG.drop(columns="epoch"), None, "--at: t has no column that is called step, epoch or the like; valid: --st"),
        (LONG, "epochs", "--step epochs: t has no such column; did you mean epoch?"),
        (LONG.assign(epoch=["1", "2", "", "1", "2", "3"]), None, "t: row 3: epoch is empty; valid: a number in"),
        (LONG.assign(epoch=["1", "2", "x", "1", "2", "3"]), None, "t: row 3, epoch = 'x': valid: a number"),
        (
            LONG.assign(epoch="1", host=["a", "b", "c"] * 2),
            None,
            "t: row 2: another row of bn on, seed 0, epoch 1. Rows of one run differ in host; valid: --factor host if",
        ),
    ],
)
def test_rows_without_an_order_are_refused(frame: pd.DataFrame, step: str | None, message: str) -> None:
    with pytest.raises(UserError) as refused:
        choose(frame, step=step)
    assert refused.value.with_options.startswith(message)


def words(frame: pd.DataFrame) -> str:
    return UserError(differing_words(frame, ["bn", "seed"], ["fid"])).with_options


def test_columns_in_which_rows_of_a_run_differ_are_named_with_a_way_out() -> None:
    assert words(LONG).startswith("Rows of one run differ in epoch; valid: --at last, which")
    two = rows(bn=["on", "on", "off", "off"], seed=["0"] * 4, data=["a", "b"] * 2, fid=["1", "2", "3", "4"])
    two = two.assign(took=["1.5", "2.5", "3.5", "4.5"], name=["p", "q", "r", "s"])
    assert words(two) == (
        "Rows of one run differ in data; valid: --factor data if it was varied, --block data to compare within each of "
        "its values, such as data sets"
    )
    assert words(two.drop(columns="data")).startswith("Nothing but results tells these rows apart; valid: one row")
