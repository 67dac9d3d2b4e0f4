from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from gan_ablate.errors import UserError
from gan_ablate.grid import BudgetName, load_grid
from gan_ablate.planning import Cell, Plan, plan
from gan_ablate.report import write_report
from gan_ablate.store import Record, Store, load_results
from tests.synthetic import save_runs


def batch_norm_halves(cell: Cell, seed: int) -> float:
    return (20.0 if cell.levels["batch_norm"] == "on" else 40.0) * (1 + 0.01 * seed) * (1 + 0.002 * len(cell.label))


def write(out: Path, fid: object = batch_norm_halves, grid: str = "bn_label_smooth", seeds: int = 5) -> str:
    save_runs(Store(out), plan(load_grid(grid), seeds=seeds), fid)  # type: ignore[arg-type]
    return write_report(out).read_text("utf-8")


def save_equal_runs(out: Path) -> tuple[Store, Plan]:
    """Two seeds of three variants that all score the same."""
    store, planned = Store(out), plan(load_grid("beta1"), seeds=2)
    save_runs(store, planned, lambda *_: 20.0)
    return store, planned


def test_it_opens_with_sentences_that_answer(tmp_path: Path) -> None:
    text = write(tmp_path)
    opening = text[: text.index("\n## ")]
    assert "**batch norm on** lowers FID by 50 %" in opening
    assert "5 seeds" in opening
    assert opening.index("batch norm on") < 800


def test_its_numbers_are_those_of_runs_csv_and_of_the_records(tmp_path: Path) -> None:
    text = write(tmp_path)
    runs = pd.read_csv(tmp_path / "bn_label_smooth" / "runs.csv")
    store = Store(tmp_path)
    for row in runs.itertuples():
        record = store.load_record(str(row.run_id))
        assert record is not None
        assert record.scoring is not None
        assert record.scoring.final is not None
        assert record.scoring.final.fid == row.fid
    of_cell = runs.loc[runs["cell"] == "batch norm on, label smoothing off", "fid"]
    mean = math.exp(sum(math.log(fid) for fid in of_cell) / len(of_cell))
    rows = [line for line in text.splitlines() if line.startswith("| batch norm on, label smoothing off")]
    (line,) = [row for row in rows if "[" in row]
    shown = float(line.split("|")[2].split("[")[0])
    assert shown == pytest.approx(mean, rel=5e-3)


def test_every_link_leads_to_a_file_or_a_heading(tmp_path: Path) -> None:
    text = write(tmp_path)
    targets = re.findall(r"\]\(([^)]+)\)", text)
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    headings = {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}
    assert len(targets) >= 8
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings
        else:
            assert (tmp_path / target).is_file(), target
            if target.endswith(".png"):
                with Image.open(tmp_path / target) as picture:
                    assert picture.width <= 1000


def test_it_is_restored_byte_for_byte_from_the_records(tmp_path: Path) -> None:
    write(tmp_path)
    made = [tmp_path / "report.md", *(tmp_path / "bn_label_smooth").iterdir()]
    before = {path: path.read_bytes() for path in made}
    assert len(before) == 9
    for path in made:
        path.unlink()
    write_report(tmp_path)
    assert {path: path.read_bytes() for path in made} == before


def test_an_effect_within_its_interval_is_not_called_one(tmp_path: Path) -> None:
    text = write(tmp_path, lambda cell, seed: 30.0 * math.exp(0.3 * math.sin(5 * seed + 3 * len(cell.label))))
    assert "**batch norm on** shows no clear effect on FID" in text
    assert "lowers FID" not in text


@pytest.mark.parametrize(("budget", "is_warned"), [("smoke", True), ("standard", False)])
def test_a_smoke_run_is_not_taken_for_an_answer(tmp_path: Path, budget: BudgetName, is_warned: bool) -> None:
    save_runs(Store(tmp_path), plan(load_grid("bn_label_smooth"), budget=budget), batch_norm_halves)
    text = write_report(tmp_path).read_text("utf-8")
    opening = text[: text.index("**batch norm on**")]
    assert ("too short to answer anything" in opening) is is_warned


def test_one_seed_is_not_taken_for_an_answer(tmp_path: Path) -> None:
    text = write(tmp_path, seeds=1)
    assert "in the only seed; one seed says nothing about the next" in text
    assert "95 % interval nan" not in text


def test_divergences_are_said_and_counted(tmp_path: Path) -> None:
    def fid(cell: Cell, seed: int) -> float | None:
        is_victim = cell.levels == {"batch_norm": "off", "label_smoothing": "off"} and seed < 2
        return None if is_victim else batch_norm_halves(cell, seed)

    text = write(tmp_path, fid)
    assert "2 of 20 runs diverged: 2× batch norm off, label smoothing off." in text
    assert "| 2/5 " in text
    assert "3 seeds" in text  # the effect rests on the seeds that every variant survived


def test_a_variant_without_any_score_leaves_the_others_standing(tmp_path: Path) -> None:
    text = write(tmp_path, lambda cell, seed: None if "smoothing on" in cell.label else batch_norm_halves(cell, seed))
    assert "no seed has a score for every variant that this compares" in text
    assert "10 of 20 runs diverged" in text


def test_failures_and_missing_runs_are_said(tmp_path: Path) -> None:
    store, planned = save_equal_runs(tmp_path)
    configs = [config for _, config in planned.runs]
    store.save_record(Record(run_id=configs[0].run_id, status="failed", message="why", config=configs[0]))
    (store.run_dir(configs[1].run_id) / "record.json").unlink()
    text = write_report(tmp_path).read_text("utf-8")
    assert "5 of 6 runs are finished" in text
    assert "1 of 6 runs failed with an error" in text


def test_runs_without_scores_say_why(tmp_path: Path) -> None:
    store, planned = save_equal_runs(tmp_path)
    for _, config in planned.runs:
        record = store.load_record(config.run_id)
        assert record is not None
        store.save_record(record.model_copy(update={"scoring": None, "unscored_reason": "no extractor"}))
    text = write_report(tmp_path).read_text("utf-8")
    assert "Not scored: no extractor." in text
    assert "FID |" not in text
    assert "losses.png" in text


def test_scores_of_different_extractors_are_never_compared(tmp_path: Path) -> None:
    store, planned = save_equal_runs(tmp_path)
    _, config = next(iter(planned.runs))
    record = store.load_record(config.run_id)
    assert record is not None
    assert record.scoring is not None
    other = record.scoring.model_copy(update={"extractor_sha256": "f" * 64})
    store.save_record(record.model_copy(update={"scoring": other}))
    text = write_report(tmp_path).read_text("utf-8")
    assert "scored in different ways" in text
    assert "effects.png" not in text
    assert "lowers" not in text


def test_times_of_different_machines_are_never_compared(tmp_path: Path) -> None:
    store, planned = save_equal_runs(tmp_path)
    record = store.load_record(planned.baseline.config.run_id)
    assert record is not None
    store.save_record(record.model_copy(update={"device": "cuda"}))
    text = write_report(tmp_path).read_text("utf-8")
    assert "computed on different machines or versions" in text
    assert "its cost is not known" in text


def test_a_variant_covers_as_many_classes_as_its_worst_seed(tmp_path: Path) -> None:
    store, planned = save_equal_runs(tmp_path)
    record = store.load_record(planned.baseline.with_seed(1).run_id)
    assert record is not None
    assert record.scoring is not None
    assert record.scoring.final is not None
    final = record.scoring.final.model_copy(update={"classes_covered": 7})
    store.save_record(record.model_copy(update={"scoring": record.scoring.model_copy(update={"final": final})}))
    write_report(tmp_path)
    assert pd.read_csv(tmp_path / "beta1" / "summary.csv")["classes_covered"].tolist() == [7, 10, 10]


def test_two_grids_are_two_sections(tmp_path: Path) -> None:
    write(tmp_path)
    text = write(tmp_path, lambda *_: 20.0, grid="essentials", seeds=2)
    assert text.count("\n## ") == 2
    assert set(load_results(tmp_path, "essentials")["beta1"]) == {"0.0", "0.5", "0.9"}


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gan-ablate run --grid NAME"):
        write_report(tmp_path)
