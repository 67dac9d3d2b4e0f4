"""Tables of anyone's runs: judged right where the truth is known, refused in a line where they are no such tables."""

from __future__ import annotations

import io
import math
import re
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import gan_ablate
from gan_ablate import estimate_effects, judge, load_grid, load_results, plan
from gan_ablate.analysis import families as of_plans
from gan_ablate.analysis.design import Design
from gan_ablate.analysis.table import tabulate_effects
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting import user_page
from gan_ablate.reporting.judge import LeftOutWarning, TableWarning
from gan_ablate.reporting.plots.style import FigurePath
from tests.reporting.example import make_runs
from tests.synthetic import save_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gan_ablate.analysis.user_table import Table
    from gan_ablate.design.outcomes import Outcome


def test_known_effects_are_found_with_their_sizes() -> None:
    effects = estimate_effects(make_runs(), factors=["batch_norm", "lr"], seed="run").set_index("effect")
    assert dict(effects["decision"]) == {
        "batch norm off": "higher",
        "lr 0.001": "negligible",
        "batch norm off × lr 0.001": "negligible",
    }
    off = effects.loc["batch norm off"]
    assert off["percent_change_low"] < 40 < off["percent_change_high"]
    assert off["percent_change"] == pytest.approx(40, abs=4)
    assert off["num_seeds"] == 8


def test_effects_are_those_of_a_paired_t_test() -> None:
    runs = make_runs()
    effects = estimate_effects(runs, factors=["batch_norm", "lr"], seed="run").set_index("effect")
    sides = np.log(runs.pivot_table("fid", "run", "batch_norm", aggfunc=lambda fid: np.exp(np.log(fid).mean())))
    reference = stats.ttest_rel(sides["off"], sides["on"])
    interval = reference.confidence_interval(0.95)
    off = effects.loc["batch norm off"]
    assert off["p"] == pytest.approx(reference.pvalue)
    assert (off["low"], off["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_users_outcome_may_be_better_higher() -> None:
    effects = estimate_effects(make_runs(), factors=["batch_norm", "lr"], seed="run", outcome="acc:higher:difference")
    off = effects.set_index("effect").loc["batch norm off"]
    assert off["decision"] == "lower"
    assert off["value"] == pytest.approx(-0.1, abs=0.01)
    assert off["scale"] == "difference"


def test_table_of_a_grid_gives_the_grids_effects(tmp_path: Path) -> None:
    planned = plan(load_grid("bn_label_smooth"), seeds=4)
    save_runs(
        Store(tmp_path),
        planned,
        lambda variant, seed: 20 + 5 * seed + len(variant.label) + 0.1 * seed * len(variant.label),
    )
    runs = load_results(tmp_path, "bn_label_smooth")
    ours = of_plans.estimate_effects(Design.of(planned), runs)
    theirs = estimate_effects(runs, factors=["batch_norm", "label_smoothing"])
    assert list(theirs["effect"]) == [effect.name for effect in ours]
    assert list(theirs["value"]) == [effect.estimate.value for effect in ours]
    assert list(theirs["p_holm"]) == [effect.test.p for effect in ours]
    assert gan_ablate.estimate_effects is estimate_effects


def test_single_changes_of_a_baseline_are_understood() -> None:
    runs = make_runs()
    single = runs[(runs["batch_norm"] == "on") | (runs["lr"] == 0.0002)]
    effects = estimate_effects(single, factors=["batch_norm", "lr"], seed="run")
    assert list(effects["effect"]) == ["batch norm off", "lr 0.001"]
    other = estimate_effects(runs, factors=["batch_norm", "lr"], seed="run", baselines={"batch_norm": "off"})
    assert next(iter(other["effect"])) == "batch norm on"
    assert other["value"][0] == pytest.approx(-effects_of(runs)["value"][0])


def effects_of(runs: pd.DataFrame) -> pd.DataFrame:
    return estimate_effects(runs, factors=["batch_norm", "lr"], seed="run")


def test_diverged_runs_are_listed_and_imputed(tmp_path: Path) -> None:
    runs = make_runs().assign(status="completed")
    runs.loc[1, "fid"], runs.loc[1, "status"] = np.nan, "diverged"
    effects = effects_of(runs).set_index("effect")
    assert (effects["num_seeds"]["lr 0.001"], effects["basis"]["lr 0.001"]) == (8, "median")
    assert effects["with_diverged"].notna().all()
    page = judge(runs, factors=["batch_norm", "lr"], seed="run", out=tmp_path / "out")
    assert "1 of the runs diverged." in page.read_text()
    assert "diverged 1/16 runs against 0/16" in page.read_text()


def test_looks_make_intervals_wider_and_the_margin_counts() -> None:
    fixed = effects_of(make_runs())
    wide = estimate_effects(make_runs(), factors=["batch_norm", "lr"], seed="run", intervals="sequential")
    assert (wide["high"] - wide["low"] > fixed["high"] - fixed["low"]).all()
    strict = estimate_effects(make_runs(), factors=["batch_norm", "lr"], seed="run", margin=0.001)
    assert list(strict["decision"][1:]) == ["inconclusive", "inconclusive"]


@pytest.mark.slow
def test_page_has_decisions_tables_and_figures(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    make_runs().to_csv(path, index=False)
    outcomes = ["fid:lower", "acc:higher:difference"]
    page = judge(
        path, factors=["batch_norm", "lr"], seed="run", outcomes=outcomes, out=tmp_path / "out", title="*Mine*"
    )
    text = page.read_text("utf-8")
    assert text.startswith("# \\*Mine\\*\n\nFID:\n\n- **Harms (raises FID)**: **batch norm off** +")
    assert "**lr 0.001** does not matter: FID" in text
    assert "acc:\n\n- **Harms (lowers acc)**: **batch norm off** -0.1" in text
    assert "## acc (higher is better, compared as differences)" in text
    names = {file.name for file in page.parent.iterdir()}
    assert names >= {
        "report.md", "report.html", "effects.csv", "effects.tex", "variants.csv", "fid-effects.png", "fid-runs.png",
        "fid-interactions.png", "acc-1-effects.png", "acc-1-runs.png", "acc-1-interactions.png",
    }  # fmt: skip
    for picture in ("fid-effects.png", "acc-1-interactions.png"):
        assert f"]({picture})" in text
    variants = pd.read_csv(page.parent / "variants.csv")
    assert list(variants["runs"]) == [8] * 4
    of_first = make_runs().query("batch_norm == 'on' and lr == 0.0002")
    assert variants["fid"][0] == pytest.approx(stats.gmean(of_first["fid"]))
    assert variants["acc"][0] == pytest.approx(of_first["acc"].mean())
    effects = pd.read_csv(page.parent / "effects.csv", keep_default_na=False)
    assert list(effects["within"]) == 2 * [*[""] * 3, "lr 0.0002", "lr 0.001", "batch norm on", "batch norm off"]


def test_levels_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("lr,seed,fid\n" + "\n".join(f"{lr},{s},{s + 2.5}" for s in range(3) for lr in ("0.50", "0.5")))
    with pytest.warns(TableWarning, match=r"lr: '0.50' and '0.5' stay apart, as they may be versions"):
        judge(path, factors=["lr"], out=tmp_path / "out")
    assert set(pd.read_csv(tmp_path / "out" / "variants.csv", dtype=str)["lr"]) == {"0.50", "0.5"}


ROWS = """bn,lr,seed,fid,acc,status
on,1,0,20,0.5,completed
off,1,0,30,0.4,completed
on,2,0,21,0,completed
off,2,0,33,1,completed
"""


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("bn", "bn", {"factors": ["batch"]}, "--factor batch: .*runs.csv has no such column; valid: bn, lr, seed, fid"),
        ("bn", "bn", {"factors": []}, "--factor: what was varied"),
        ("bn", "bn", {"factors": ["bn", "bn"]}, "a column is named twice"),
        ("bn", "bn", {"seed": "sed"}, "--seed sed: .* did you mean seed"),
        ("bn", "bn", {"outcomes": ["kid"]}, "--outcome kid: .* has no such column"),
        ("bn", "bn", {"outcomes": ["acc"]}, "--outcome acc: which is better. valid: COLUMN:lower or COLUMN:higher"),
        ("bn", "bn", {"outcomes": ["acc:up"]}, "--outcome acc:up: 'up'; valid: COLUMN:lower"),
        ("bn", "bn", {"outcomes": ["acc:higher:ratio"]}, "row 3 has 0, and ratios need numbers above 0; valid: acc"),
        ("bn", "bn", {"outcomes": ["fid", "fid"]}, "--outcome fid: it is named twice"),
        ("bn", "bn", {"outcomes": ["lr:lower"]}, "--outcome lr:lower: it says which run it is"),
        ("bn", "bn", {"outcomes": []}, "--outcome: what was measured"),
        ("bn", "bn", {"baselines": {"lr": "3"}}, "--baseline lr=3: no such level; valid: 1, 2"),
        ("bn", "bn", {"baselines": {"beta": "3"}}, "--baseline beta: no such --factor"),
        ("bn", "bn", {"margin": 3.0}, "--margin 3: valid: from 0.1 % to 100 %"),
        ("30", "abc", {}, "row 2, fid = 'abc': valid: a number, or nothing"),
        ("off,2,0,33", "off,3,0,33", {}, "no run of bn on, lr 3; valid: every combination of levels, or the baseline"),
        ("off,2,0,33", "on,2,0,33", {}, "row 4: another run of lr 2, seed 0. Nothing but re"),
        ("off,2,0,33", ",2,0,33", {}, "row 4: bn is empty; valid: a level for every run"),
        ("off,2,0,33", "off,2,,33", {}, "row 4: seed is empty"),
        ("off,2,0,33", "<b>,2,0,33", {}, r"row 4, bn = '<b>': valid: at most 80 letters"),
        ("1,completed", "1,done", {}, "row 4, status = 'done': valid: completed, diverged, failed"),
        (",status", ",bn", {}, "two columns are called bn; rename one"),
        (ROWS, "", {}, "not a CSV table"),
        (ROWS, "bn,lr,seed,fid\n", {}, "no runs in it"),
        (ROWS, "\x00\x01", {"factors": ["bn"]}, "line 1 has a byte of zero"),
        ("fid", "<script>", {"outcomes": ["<script>:lower"]}, "--outcome <script>:lower: the column has to be renamed"),
        ("bn", "variant", {"factors": ["variant", "lr"]}, "--factor variant: the column has to be renamed"),
        ("bn", "fid_low", {"factors": ["fid_low", "lr"]}, "--factor fid_low: the column has to be renamed"),
        ("30", "1e200", {}, r"row 2, fid = 1e\+200: valid: numbers up to 1e\+100"),
        (",0,", ",{seed},", {"paired": True}, "no seed has fid for both sides of any comparison"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_runs_is_one_line(
    tmp_path: Path, old: str, new: str, options: dict[str, object], message: str
) -> None:
    path = tmp_path / "runs.csv"
    text = ROWS.replace(old, new)
    for number in range(text.count("{seed}")):
        text = text.replace("{seed}", str(number), 1)
    path.write_text(text, "utf-8")
    arguments: dict[str, object] = {"factors": ["bn", "lr"], "out": tmp_path / "out", **options}
    with pytest.raises(UserError) as wrong:
        judge(path, **arguments)  # type: ignore[arg-type]
    assert re.search(message, wrong.value.with_options)
    assert "\n" not in str(wrong.value)
    assert not (tmp_path / "out").exists()


CLEAN = """bn,lr,seed,fid
on,1,0,20
off,1,0,30
on,2,0,21
off,2,0,33
on,1,1,22
off,1,1,31
on,2,1,20
off,2,1,35
"""


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the effects estimated only: a page takes seconds."""

    def write_effects(table: Table, outcomes: Sequence[Outcome], folder: FigurePath, **_: object) -> Path:
        out = folder.path
        out.mkdir(exist_ok=True)
        effects = of_plans.estimate_effects(table.design, table.runs, outcomes[0])
        tabulate_effects(effects).to_csv(out / "effects.csv", index=False)
        return out / "report.md"

    monkeypatch.setattr(user_page, "write_user_page", write_effects)


def effects_of_text(path: Path, text: str, **options: object) -> tuple[pd.DataFrame, str]:
    """Judge a file; return its effects, and what was said to be left out."""
    path.write_bytes(text.encode())
    arguments: dict[str, object] = {"factors": ["bn", "lr"], "out": path.parent / "out", **options}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", TableWarning)
        page = judge(path, **arguments)  # type: ignore[arg-type]
    left_out = (str(warning.message) for warning in told if warning.category is LeftOutWarning)
    said = " ".join(message.partition("left out: ")[2] for message in left_out)
    return pd.read_csv(page.parent / "effects.csv"), said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text + ",,,\n,,,\n", "2 empty rows"),
        (lambda text: text.replace("on,1,1", "bn,lr,seed,fid\non,1,1"), "1 repeated header"),
        (lambda text: "# my runs, of May\n" + text.replace("on,2,0", "#on,2,0,999\non,2,0"), "2 comments"),
        (lambda text: "# " + text, ""),  # as np.savetxt writes names
        (lambda text: text.replace(",", ";"), ""),
        (lambda text: text.replace(",", "\t"), ""),
        (lambda text: "sep=;\n" + text.replace(",", ";"), ""),
        (lambda text: text.replace(",", ";").replace("20\n", "20,0\n"), ""),  # Excel, where commas are decimal
        (lambda text: text.replace("20\n", '"20,0"\n'), ""),
        (lambda text: text.replace(",1,", ",1.0,").replace("on,2.0", "on,2"), ""),
        (lambda text: "".join(f"{i},{line}\n" for i, line in zip(["", *range(8)], text.split("\n"), strict=False)), ""),
        (lambda text: text.replace("\n", "\r\n"), ""),
        (lambda text: '"' + text.replace(",", '","').replace("\n", '"\n"')[:-1], ""),
        (lambda text: text.replace("fid\n", "fid,notes\n").replace("20\n", '20,"a\n# b"\n'), ""),  # a cell of two lines
    ],
)  # fmt: skip
@pytest.mark.usefixtures("without_page")
def test_tables_are_read_as_people_have_them(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    expected, nothing = effects_of_text(tmp_path / "clean.csv", CLEAN)
    assert nothing == ""
    text = change(CLEAN)
    factors = ["bn", "lr"]
    found, told = effects_of_text(tmp_path / "other.csv", text, factors=factors)
    assert told == said
    columns = ["value", "low", "high", "p_holm", "num_seeds"]
    pd.testing.assert_frame_equal(found[columns], expected[columns])


@pytest.mark.usefixtures("without_page")
def test_a_crashed_runs_last_number_is_no_result(tmp_path: Path) -> None:
    """A W&B export: a crashed attempt beside its repetition, and one that is still running."""
    expected, _ = effects_of_text(tmp_path / "clean.csv", CLEAN)
    text = CLEAN.replace("\n", ",finished\n").replace("fid,finished", "fid,State")
    text += "on,1,0,500,crashed\noff,2,1,700,killed\non,3,,,failed\n"
    found, told = effects_of_text(tmp_path / "wandb.csv", text)
    assert told == "1 failed run without a level or a seed, 2 failed attempts beside a repetition"
    pd.testing.assert_frame_equal(found, expected)
    crashed = CLEAN.replace("\n", ",finished\n").replace("fid,finished", "fid,State")
    crashed = crashed.replace("off,2,1,35,finished", "off,2,1,35,running")
    found, told = effects_of_text(tmp_path / "running.csv", crashed)
    assert told == ""
    assert list(found["num_seeds"]) == [1, 1, 1]


def test_page_lists_excluded_and_unfinished_runs(tmp_path: Path) -> None:
    runs = pd.read_csv(io.StringIO(CLEAN)).assign(state="COMPLETE")
    runs.loc[3, "state"] = "RUNNING"
    runs.loc[2, "fid"] = np.nan
    runs.loc[len(runs)] = None
    with pytest.warns(LeftOutWarning, match="the table: left out: 1 empty row"):
        page = judge(runs, factors=["bn", "lr"], out=tmp_path / "out")
    text = page.read_text("utf-8")
    assert "Rows left out: 1 empty row." in text
    assert "1 of the runs had not finished." in text
    assert "FID is blank in 1 of 7 completed runs: bn on, lr 2 (1 of 2). Effects rest on the others." in text


@pytest.mark.usefixtures("without_page")
def test_two_results_of_one_run_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 9: another run of .*; valid: one row .*, a column status that says"):
        effects_of_text(tmp_path / "twice.csv", CLEAN + "on,1,0,25\n")


@pytest.mark.usefixtures("without_page")
def test_names_and_levels_of_tracking_tools_are_understood(tmp_path: Path) -> None:
    rows = "\n".join(f'"(0.{i}, 0.999)",{p}%,{s},{20 + s + i}' for s in range(3) for i in (0, 5) for p in (10, 20))
    text = "config/betas,params.dropout,config/seed,metrics.fid\n" + rows
    options = {"factors": ["config/betas", "params.dropout"], "seed": "config/seed", "outcomes": ["metrics.fid:lower"]}
    found, _ = effects_of_text(tmp_path / "t.csv", text, **options)
    assert list(found["effect"])[:2] == ["config/betas (0.5, 0.999)", "params.dropout 20%"]
    with pytest.raises(UserError, match=r"factors='betas': .*no such column; did you mean config/betas\?"):
        effects_of_text(tmp_path / "t.csv", text, **{**options, "factors": ["betas"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "not a CSV table: a spreadsheet or an archive; valid: the same saved as CSV, UTF-8"),
        (CLEAN.replace("off", "\xe4us").encode("latin-1"), "not a CSV table: line 3 is no UTF-8; valid: the same"),
        (CLEAN.replace(",20", ",20,5").encode(), r"row 1: 5 cells for 4 columns; valid: one cell a column; quotes"),
        (CLEAN.replace("off,1,0", '"off,1,0').encode(), "not a CSV table: row 2: unexpected end of data"),
        (CLEAN.replace("off", "<b>").encode(), "row 2, bn = '<b>': valid: at most 80 letters"),
        (b"# nothing\n\n", "no line in it but comments; valid: a line of names"),
        (b"bn,lr,seed,fid\n,,,\n#x\n", r"no runs in it \(left out: 1 empty row, 1 comment\)"),
    ],
)  # fmt: skip
def test_the_rest_is_one_line_with_the_way_out(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as wrong:
        judge(tmp_path / "t.csv", factors=["bn", "lr"], out=tmp_path / "out")
    assert "\n" not in str(wrong.value)
    assert not (tmp_path / "out").exists()


def test_data_frames_are_read_in_the_same_way() -> None:
    clean = pd.read_csv(io.StringIO(CLEAN))
    rows = [["bn", "lr", "seed", "fid", "State"], [None] * 5, ["on", 1, 0, 999.0, "crashed"]]
    frame = pd.DataFrame(
        [*clean.assign(State="finished").to_numpy().tolist(), *rows], columns=[*clean.columns, "State"]
    )
    expected = estimate_effects(clean, factors=["bn", "lr"])
    with pytest.warns(LeftOutWarning, match="left out: 1 repeated header, 1 empty row, 1 failed attempt beside a"):
        found = estimate_effects(frame, factors=["bn", "lr"])
    pd.testing.assert_frame_equal(found, expected)


def test_the_smallest_and_the_largest_numbers_have_a_page(tmp_path: Path) -> None:
    values = {"a": 1e-308, "b": 1e99, "c": 5e-324}
    rows = [{"x": x, "seed": s, "fid": value * (1 + s)} for s in range(2) for x, value in values.items()]
    rows += [{"x": "d", "seed": 0, "fid": 1e-100}, {"x": "d", "seed": 1, "fid": 1e-50}]  # an interval beyond exp(700)
    page = judge(pd.DataFrame(rows), factors=["x"], out=tmp_path / "out")
    effects = pd.read_csv(page.parent / "effects.csv").set_index("effect")
    assert effects["value"]["x b"] == pytest.approx(407 * np.log(10))
    assert effects["adjusted_high"]["x d"] > 710
    assert "> +9,999" in page.read_text("utf-8")


@pytest.mark.slow
def test_many_levels_are_all_in_the_table_and_the_clearest_on_the_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    runs = pd.DataFrame([{"x": f"l{i}", "seed": s, "fid": rng.uniform(1, 20)} for s in range(2) for i in range(100)])
    page = judge(runs, factors=["x"], out=tmp_path / "out")
    assert "Of 99 effects and 100 variants this page shows at most 60 of them" in page.read_text("utf-8")
    effects = pd.read_csv(page.parent / "effects.csv").set_index("effect")
    assert len(effects) == 99
    assert f"**{effects['p'].idxmin()}**" in page.read_text("utf-8")
    assert f"**{effects['p'].idxmax()}**" not in page.read_text("utf-8")


def test_thousands_of_levels_of_one_seed_take_seconds() -> None:
    runs = pd.DataFrame([{"x": f"l{i}", "seed": 0, "fid": 1.0 + i} for i in range(2_000)])
    began = time.process_time()
    effects = estimate_effects(runs, factors=["x"])
    np.testing.assert_allclose(effects["value"], np.log(runs["fid"][1:]))
    assert time.process_time() - began < 10  # 9,999 levels took minutes


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.csv: No such file or directory"):
        judge(tmp_path / "none.csv", factors=["a"])


def test_what_is_infinite_has_diverged_and_what_diverged_has_no_value(tmp_path: Path) -> None:
    runs = make_runs()
    runs.loc[2, "fid"] = np.inf
    infinite = effects_of(runs).set_index("effect")
    assert (infinite["num_seeds"]["batch norm off"], infinite["basis"]["batch norm off"]) == (8, "median")
    assert infinite["with_diverged"].notna().all()
    told = make_runs().assign(status="completed")
    told.loc[2, "status"] = "diverged"  # whatever its last FID was
    pd.testing.assert_frame_equal(effects_of(told), effects_of(runs))


def test_levels_may_be_called_none_and_spreadsheets_may_add_commas(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    rows = [f"{norm},{seed},{20 + seed * 1.5 + (norm == 'NA')},," for seed in range(3) for norm in ("None", "NA")]
    path.write_text("\n".join(["norm,seed,fid,,", *rows]))
    page = judge(path, factors=["norm"], out=tmp_path / "out")
    assert "**norm NA**" in page.read_text()


@pytest.mark.slow
def test_outcomes_with_similar_names_have_separate_figures(tmp_path: Path) -> None:
    runs = make_runs().assign(**{"a b": 1.0, "a-b": 2.0})
    runs[["a b", "a-b"]] *= runs[["fid"]].to_numpy()
    outcomes = ["a b:lower", "a-b:lower"]
    page = judge(runs, factors=["batch_norm", "lr"], seed="run", outcomes=outcomes, out=tmp_path / "out")
    pictures = [line for line in page.read_text().splitlines() if line.startswith("![")]
    assert len(set(pictures)) == len(pictures) == 6


def one_change(rows: list[tuple[str, str, str]]) -> str:
    return "lr,seed,fid\n" + "".join(",".join(row) + "\n" for row in rows)


def test_seeds_written_in_two_ways_are_paired(tmp_path: Path) -> None:
    rows = [("a", str(seed), str(20 + seed)) for seed in range(3)]
    rows += [("b", seed, fid) for seed, fid in (("0e0", "40"), ("01", "42"), ("2.00", "44"))]
    effects, _ = effects_of_text(tmp_path / "runs.csv", one_change(rows), factors=["lr"])

    assert effects["num_seeds"].tolist() == [3]
    assert effects["percent_change"].tolist() == pytest.approx([100])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            one_change([(level, "1", "2.5") for level in ("1e-4", "0.0001")]),
            "lr: {file} has one level of it, 1e-4; valid: at least two",
        ),
        (
            one_change([("a", "1", "950"), ("b", "1", "1.020")]),
            "row 2, fid = '1.020': a decimal point, or one of thousands? valid: 1.0200 or 1020",
        ),
        (one_change([("a", "1", "2"), ("b", "1", "3\0")]), "line 3 has a byte of zero, as UTF-16 without its mark"),
        ("fid,lr,seed\n#DIV/0!,a,1\n2,b,1\n", "row 1, fid = '#DIV/0!': valid: a number, or nothing"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "runs.csv").write_text(text)

    with pytest.raises(UserError) as refused:
        judge(tmp_path / "runs.csv", factors=["lr"], out=tmp_path / "out")

    assert message.format(file=tmp_path / "runs.csv") in refused.value.with_options
    assert not (tmp_path / "out").exists()


def test_levels_that_may_be_versions_stay_apart(tmp_path: Path) -> None:
    rows = [(level, str(seed), str(fid + seed)) for level, fid in (("1.1", 2), ("1.10", 3)) for seed in range(3)]
    effects, _ = effects_of_text(tmp_path / "runs.csv", one_change(rows), factors=["lr"])

    assert effects["effect"].tolist() == ["lr 1.10"]


def test_rows_end_where_lines_of_a_file_do(tmp_path: Path) -> None:
    rows = [
        (level, str(seed), f"{fid + seed},a\u2028b\x0cc") for level, fid in (("a", 2), ("b", 3)) for seed in range(3)
    ]
    effects, _ = effects_of_text(
        tmp_path / "runs.csv", one_change(rows).replace("fid\n", "fid,notes\n"), factors=["lr"]
    )

    assert effects["num_seeds"].tolist() == [3]


def test_a_title_that_is_no_unicode_is_written(tmp_path: Path) -> None:
    rows = [(level, str(seed), str(fid + seed)) for level, fid in (("a", 2), ("b", 3)) for seed in range(3)]
    (tmp_path / "runs.csv").write_text(one_change(rows))

    page = judge(tmp_path / "runs.csv", factors=["lr"], out=tmp_path / "out", title="r\udce9sum\u00e9")

    assert "udce9sum\u00e9" in page.read_text("utf-8")


def test_a_table_may_say_which_runs_collapsed() -> None:
    runs = make_runs()
    runs["collapsed"] = ["TRUE" if row == 3 else "" if row == 4 else 0 for row in range(len(runs))]
    effects = effects_of(runs).set_index("effect")
    assert set(effects["basis"]) == {"median"}
    assert effects["collapsed"]["batch norm off"] + effects["baseline_collapsed"]["batch norm off"] == 1
    assert effects["collapsed_of"]["batch norm off"] + effects["baseline_collapsed_of"]["batch norm off"] == 31
    assert set(effects_of(make_runs())["basis"]) == {"mean"}


def test_a_word_that_does_not_tell_collapse_is_refused() -> None:
    runs = make_runs()
    runs["collapsed"] = ["perhaps" if row == 3 else "no" for row in range(len(runs))]
    with pytest.raises(UserError, match=r"row \d+, collapsed = 'perhaps': valid: true, false, or nothing"):
        effects_of(runs)


BLOCKS = [
    {"data": data, "bn": bn, "seed": seed, "fid": base * math.exp(effect * (bn == "off") + 0.01 * luck)}
    for data, base, effect in (("CIFAR-10", 20, 0.3), ("CelebA", 8, -0.3))
    for seed in range(5)
    for bn in ("on", "off")
    for luck in [(7 * seed + 3 * len(bn) * seed**2 + base * seed) % 5]
]


def test_effects_are_estimated_within_blocks_and_compared_between_them() -> None:
    runs = pd.DataFrame(BLOCKS)
    with pytest.raises(
        UserError, match=r"row 11: another run of bn on, seed 0\. Rows of one run differ in data; valid"
    ):
        estimate_effects(runs, factors=["bn"])
    effects = estimate_effects(runs, factors=["bn"], blocks=["data"]).set_index(["block", "against"])
    of_cifar = estimate_effects(runs.query("data == 'CIFAR-10'"), factors=["bn"])
    assert effects.loc[("CIFAR-10", ""), "value"] == of_cifar["value"][0] == pytest.approx(0.3, abs=0.03)
    assert effects.loc[("CelebA", ""), "decision"] == "lower"
    logs = np.log(runs.pivot_table("fid", "seed", ["data", "bn"]))
    by_block = {name: logs[name]["off"] - logs[name]["on"] for name in ("CIFAR-10", "CelebA")}
    reference = stats.ttest_rel(by_block["CelebA"], by_block["CIFAR-10"])
    assert effects.loc[("CelebA", "CIFAR-10"), "p"] == pytest.approx(reference.pvalue)
    assert effects.loc[("CelebA", "CIFAR-10"), "value"] == pytest.approx(-0.6, abs=0.05)
    assert "all" not in effects.index.get_level_values("block")  # it differs: there is no common effect


def test_page_of_blocks_has_sections_across_and_within(tmp_path: Path) -> None:
    page = judge(pd.DataFrame(BLOCKS), factors=["bn"], blocks=["data"], out=tmp_path / "out")
    text = page.read_text("utf-8")
    assert "- **Differs between blocks**: **bn off** CIFAR-10 +3" in text
    assert "Blocks: CIFAR-10 (10 runs), CelebA (10 runs)." in text
    headings = re.findall("^## (.*) \\(lower", text, re.MULTILINE)
    assert headings == ["FID across blocks", "FID, CIFAR-10", "FID, CelebA"]
    assert list(pd.read_csv(page.parent / "variants.csv")["block"]) == ["CIFAR-10"] * 2 + ["CelebA"] * 2
    assert (page.parent / "effects.tex").read_text().count("\\begin{table}") == 2
    for picture in re.findall(r"\]\((\S+\.png)\)", text):
        assert (page.parent / picture).is_file()


def test_a_block_without_one_of_the_variants_leaves_its_effect_open() -> None:
    runs = pd.DataFrame(BLOCKS).query("data != 'CelebA' or bn == 'on'")
    effects = estimate_effects(runs, factors=["bn"], blocks=["data"]).set_index(["block", "against"])
    assert effects.loc[("CIFAR-10", ""), "decision"] == "higher"
    assert effects.loc[("CelebA", ""), "num_seeds"] == 0


def test_blocks_without_a_seed_in_common_are_compared_as_independent_ones() -> None:
    runs = pd.DataFrame(BLOCKS)
    runs["seed"] += 100 * (runs["data"] == "CelebA")
    effects = estimate_effects(runs, factors=["bn"], blocks=["data"]).set_index(["block", "against"])
    logs = runs.assign(fid=np.log(runs["fid"])).pivot(index=["data", "seed"], columns="bn", values="fid")
    gains = logs["off"] - logs["on"]
    welch = stats.ttest_ind(gains["CelebA"], gains["CIFAR-10"], equal_var=False)
    difference: Any = effects.loc[("CelebA", "CIFAR-10")]
    assert difference["value"] == pytest.approx(gains["CelebA"].mean() - gains["CIFAR-10"].mean())
    assert difference["p"] == pytest.approx(welch.pvalue)
    assert tuple(difference[["low", "high"]]) == pytest.approx(tuple(welch.confidence_interval()))


def test_unpaired_runs_in_blocks_are_compared_as_independent_ones(tmp_path: Path) -> None:
    """Four means: the difference of two differences, as one contrast."""
    runs = pd.DataFrame(BLOCKS).drop(columns="seed")
    effects = estimate_effects(runs, factors=["bn"], blocks=["data"]).set_index(["block", "against"])
    logs = runs.assign(fid=np.log(runs["fid"])).groupby(["data", "bn"])["fid"]
    signs = pd.Series({("CelebA", "off"): 1, ("CelebA", "on"): -1, ("CIFAR-10", "off"): -1, ("CIFAR-10", "on"): 1})
    signs = signs.rename_axis(["data", "bn"])
    difference: Any = effects.loc[("CelebA", "CIFAR-10")]
    assert difference["value"] == pytest.approx((logs.mean() * signs).sum())
    error = math.sqrt((logs.var() / logs.size()).sum())
    freedom = error**4 / ((logs.var() / logs.size()) ** 2 / (logs.size() - 1)).sum()
    half = stats.t.ppf(0.975, freedom) * error
    assert difference["high"] - difference["low"] == pytest.approx(2 * half)
    judge(runs, factors=["bn"], blocks=["data"], out=tmp_path / "out")
    assert "Welch" in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_several_columns_of_blocks_are_crossed() -> None:
    runs = pd.concat([pd.DataFrame(BLOCKS).assign(size=size) for size in (32, 64)])
    effects = estimate_effects(runs, factors=["bn"], blocks=["data", "size"])
    assert "data CIFAR-10, size 32" in set(effects["block"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": ["dat"]}, "--block dat: the table has no such column; did you mean data"),
        ({"blocks": ["bn"]}, "--factor bn, --block bn, --seed seed: a column is named twice"),
        ({"blocks": ["fid"]}, "--block fid: the table has 12 blocks; valid: from 2 to 10"),
        ({"blocks": ["one"]}, "--block one: the table has one block, a; valid: from 2 to"),
        ({"blocks": ["data"], "simple_effects": True}, "--simple-effects: valid: without --block"),
        ({"at": "first"}, "--at first: valid: last, or best with a column and what is better: best:fid:lower"),
        ({"at": "best:bn"}, "--outcome bn: which is better"),
        ({"step": "epoch"}, "--step epoch: valid: with --at last, or --at best:fid:lower"),
        ({"at": "last"}, "--at: the table has no column that is called step, epoch or the like; valid: --step COLUMN"),
    ],
)
def test_options_that_do_not_fit_the_table_are_one_line(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan_ablate.analysis.user_table.MAX_BLOCKS", 10)
    with pytest.raises(UserError) as refused:
        estimate_effects(pd.DataFrame(BLOCKS).assign(one="a"), factors=["bn"], **options)
    assert message in refused.value.with_options


@pytest.mark.usefixtures("without_page")
def test_spellings_of_one_level_are_merged_and_said(tmp_path: Path) -> None:
    expected, _ = effects_of_text(tmp_path / "clean.csv", CLEAN)
    other = CLEAN.replace("on,1,1", "On,1e0,1").replace("off,2,0", "OFF,2,0")
    with pytest.warns(TableWarning) as told:
        found = estimate_effects(pd.read_csv(io.StringIO(other), dtype=str), factors=["bn", "lr"])
    assert list(found["value"]) == list(expected["value"])
    assert [str(warning.message) for warning in told] == [
        "the table: bn: 'On' read as 'on': they differ in case or spaces only",
        "the table: bn: 'OFF' read as 'off': they differ in case or spaces only",
        "the table: lr: '1e0' read as '1': they are the same number",
    ]


def test_a_baseline_may_be_named_in_any_of_its_spellings() -> None:
    runs = pd.DataFrame({"lr": ["2e-4", "1e-3"] * 3, "seed": [0, 0, 1, 1, 2, 2], "fid": [2.0, 3, 2, 4, 2, 5]})
    effects = estimate_effects(runs, factors=["lr"], baselines={"lr": "0.001"})
    assert list(effects["effect"]) == ["lr 2e-4"]


def test_simple_effects_are_given_where_they_are_wanted() -> None:
    effects = estimate_effects(make_runs(), factors=["batch_norm", "lr"], seed="run", simple_effects=True)
    assert list(effects["within"])[3:] == ["lr 0.0002", "lr 0.001", "batch norm on", "batch norm off"]
