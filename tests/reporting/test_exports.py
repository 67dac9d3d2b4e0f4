import math
import re
from pathlib import Path

import pandas as pd
import pytest

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.store import Store
from gan_ablate.reporting.exports import write_tables
from tests.synthetic import save_runs


@pytest.fixture
def results(tmp_path: Path) -> GridResults:
    store, planned = Store(tmp_path), plan(load_grid("beta1"))
    save_runs(store, planned, lambda cell, seed: 20 * math.exp(0.1 * math.sin(7 * seed + sum(map(ord, cell.label)))))
    return GridResults.load(store, "beta1")


def test_percent_columns_are_the_log_ratios_and_nobody_mistakes_one_for_the_other(results: GridResults) -> None:
    write_tables(results)
    effects = pd.read_csv(results.folder / "effects.csv")
    ratios = effects["scale"] == "log ratio"
    for end in ("", "_low", "_high"):
        column = "value" if not end else end.removeprefix("_")
        expected = 100 * (effects.loc[ratios, column].map(math.exp) - 1)
        assert effects.loc[ratios, f"percent_change{end}"].to_numpy() == pytest.approx(expected.to_numpy(), nan_ok=True)
    assert effects.loc[~ratios, "percent_change"].isna().all()


def test_runs_say_whose_times_count(results: GridResults) -> None:
    _, config = next(iter(results.plan.runs))
    record = results.store.load_record(config.run_id)
    assert record is not None
    assert record.throughput is not None
    busy = record.throughput.model_copy(update={"step_ms_p90": 200.0})
    results.store.save_record(record.model_copy(update={"throughput": busy}))
    write_tables(GridResults.load(results.store, "beta1"))
    runs = pd.read_csv(results.folder / "runs.csv")
    assert runs.loc[~runs["has_comparable_times"], "run_id"].tolist() == [config.run_id]


def test_a_table_for_papers_has_the_numbers_and_no_character_that_latex_takes_for_a_command(
    results: GridResults,
) -> None:
    write_tables(results)
    text = (results.folder / "effects.tex").read_text("utf-8")
    assert all(
        rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption", r"\label{tab:beta1-effects}")
    )
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3
    effect = results.verdicts.effects("fid")[0]
    change = f"{100 * math.expm1(effect.estimate.value):+.1f}"
    assert f"& {change}".replace("-", "$-$") in rows[1]
    assert not re.search(r"(?<!\\)[%#]", "".join(rows))
    assert all(row.count("&") == rows[0].count("&") for row in rows)
