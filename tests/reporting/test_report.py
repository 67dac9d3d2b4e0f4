from __future__ import annotations

import math
import re
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from gan_ablate.analysis.allocation import settle
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import load_results, tabulate_runs
from gan_ablate.design.claims import Claim
from gan_ablate.design.grid import BudgetName, load_grid
from gan_ablate.design.planning import Cell, Plan, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Record, Store
from gan_ablate.reporting import page, plots, report
from gan_ablate.reporting.front import draw_front
from gan_ablate.reporting.report import write_report
from tests.reporting.conftest import PIXEL
from tests.synthetic import make_record, save_runs


def batch_norm_halves(cell: Cell, seed: int) -> float:
    noise = math.sin(7 * seed + 3 * len(cell.label))
    return (20.0 if cell.levels["batch_norm"] == "on" else 40.0) * math.exp(0.1 * seed + 0.005 * noise)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a whole report, figures included."""
    out = tmp_path_factory.mktemp("whole")
    write(out)
    return out


def write(out: Path, fid: object = batch_norm_halves, grid: str = "bn_label_smooth", seeds: int = 5) -> str:
    save_runs(Store(out), plan(load_grid(grid), seeds=seeds), fid)  # type: ignore[arg-type]
    return read(write_report(out))


def read(front: Path) -> str:
    """The front page, and below it the pages of all grids."""
    return "\n".join(path.read_text("utf-8") for path in (front, *sorted(front.parent.glob("*/report.md"))))


def save_equal_runs(out: Path) -> tuple[Store, Plan]:
    """Two seeds of three variants that score nearly the same."""
    store, planned = Store(out), plan(load_grid("beta1"), seeds=2)
    save_runs(store, planned, lambda cell, seed: 20.0 + 0.01 * math.sin(7 * seed + sum(map(ord, cell.label))))
    return store, planned


def test_its_first_screen_says_what_to_use_and_what_is_sure(tmp_path: Path, no_figures: None) -> None:
    write(tmp_path)
    front = (tmp_path / "report.md").read_text("utf-8")
    assert re.findall(r"^## (.+)$", front, re.MULTILINE) == ["Which to use", "Verdicts", "Grids"]
    assert "- **Use**\n  - batch norm on rather than off: -50.0 % [" in front
    assert "- **Avoid**: nothing\n" in front
    assert "- **Does not matter**\n  - label smoothing on rather than off: " in front
    assert "Changes to `dcgan-28` on mnist-10k, after 1,500 steps. The baseline (batch norm off, " in front
    assert "label smoothing off) comes to FID " in front
    assert "FID was still falling at the end in 4 of 4" in front
    (row,) = [line for line in front.splitlines() if line.startswith("| C2")]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[0] == "C2: Batch norm steadies training so that samples get better"
    assert cells[1] == "**supported**"
    assert cells[2].startswith("FID -50.0 % [")
    assert cells[3:] == ["5 seeds", "[see](bn_label_smooth/report.md)"]
    assert "- Lowers FID: **batch norm on** -50.0 % [" in front


def test_a_front_page_of_all_shipped_reports_is_short_and_its_tables_narrow(tmp_path: Path, no_figures: None) -> None:
    for grid in ("activation", "architecture", "beta1", "bn_label_smooth", "dropout", "essentials", "precision"):
        save_runs(Store(tmp_path), plan(load_grid(grid)), lambda cell, seed: 20 + seed + len(cell.label) / 9)
    front = write_report(tmp_path).read_text("utf-8")
    assert len(front.splitlines()) <= 150
    assert all(line.count("|") <= 6 for line in front.splitlines())
    assert front.count("[see]") == 6


def test_what_two_grids_share_is_ranked_once(tmp_path: Path, no_figures: None) -> None:
    """Both have β1 0.9, of the same runs; the one with fewer effects beside it is surer."""
    for grid in ("beta1", "essentials"):
        save_runs(Store(tmp_path), plan(load_grid(grid)), steep)
    front = write_report(tmp_path).read_text("utf-8")
    ranking = front[: front.index("![")]
    assert ranking.count("beta1 0.9 rather than 0.5") == 1
    alone = (tmp_path / "beta1" / "report.md").read_text("utf-8")
    told = re.findall(r"beta1 0.9 rather than 0.5: .+? (\[.+?\])", ranking)[0]
    assert f"| {told} %" in alone


def steep(cell: Cell, seed: int) -> float:
    error = 0.01 * math.sin(7 * seed + sum(map(ord, str(cell.config.run_id))))
    return 20 * math.exp(0.1 * seed + error + 0.4 * (cell.trained.beta1 == 0.9))


def test_a_level_whose_effect_turns_with_another_factor_says_so(tmp_path: Path, no_figures: None) -> None:
    def fid(cell: Cell, seed: int) -> float:
        change = {"off": 0.5, "on": -0.9}[cell.levels["label_smoothing"]] * (cell.levels["batch_norm"] == "on")
        return 20 * math.exp(change + 0.01 * math.sin(7 * seed + 3 * len(cell.label)))

    write(tmp_path, fid)
    front = (tmp_path / "report.md").read_text("utf-8")
    depends = front[front.index("- **Depends**") : front.index("- **Does not matter**")]
    (told,) = re.findall(r"batch norm on rather than off: (.+)", depends)
    assert re.search(
        r"on average, 5 seeds; with label smoothing off \+.+, higher; with label smoothing on -.+, lower", told
    )


def test_what_is_open_on_average_and_known_in_a_place_is_told_with_the_place(tmp_path: Path, no_figures: None) -> None:
    """Without batch norm smoothing may do anything, beside it nothing."""

    def fid(cell: Cell, seed: int) -> float:
        spread = {"on": 0.005, "off": 0.4}[cell.levels["batch_norm"]]
        return 20 * math.exp(np.random.default_rng([seed, *map(ord, cell.label)]).normal(0, spread))

    write(tmp_path, fid)
    front = (tmp_path / "report.md").read_text("utf-8")
    (told,) = re.findall(r"label smoothing on rather than off: (.+)", front[: front.index("## Verdicts")])
    assert " on average, 5 seeds" in told
    assert re.search(r"with batch norm on .+, it does not matter$", told)
    sentences = [line for line in front.splitlines() if "level by level" in line]
    assert [line.split("**")[1] for line in sentences] == ["label smoothing on"]


def test_its_numbers_are_those_of_runs_csv_and_of_the_records(tmp_path: Path, no_figures: None) -> None:
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
    line = rows[0]
    shown = float(line.split("|")[2].split("[")[0])
    assert shown == pytest.approx(mean, rel=5e-3)


def test_every_link_leads_to_a_file(whole: Path) -> None:
    for path in (whole / "report.md", whole / "bn_label_smooth" / "report.md"):
        targets = re.findall(r"\]\(([^)]+)\)", path.read_text("utf-8"))
        assert len(targets) >= 5
        for target in targets:
            assert (path.parent / target).is_file(), target
            if target.endswith((".png", ".webp")):
                with Image.open(path.parent / target) as picture:
                    assert picture.width <= 1000


def test_the_page_shows_the_same_figures_and_sections(whole: Path) -> None:
    text = read(whole / "report.md") + (whole / "methods.md").read_text("utf-8")
    shown = (whole / "report.html").read_text("utf-8")
    assert shown.count("<img ") == text.count("![")
    assert shown.count("<h2 ") == text.count("\n## ")
    assert shown.count("<h1>") == 3
    assert shown.count('src="data:image/') == shown.count("<img ")


def test_figures_are_also_drawn_as_pdf_for_papers(tmp_path: Path) -> None:
    save_equal_runs(tmp_path)
    write_report(tmp_path, figures_as_pdf=True)
    drawn = [tmp_path / "effects.png", *(tmp_path / "beta1").glob("*.png")]
    assert len(drawn) >= 8
    for picture in drawn:
        assert picture.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_it_is_restored_byte_for_byte_from_the_records(whole: Path) -> None:
    made = [*whole.glob("*.*"), *(whole / "bn_label_smooth").iterdir()]
    before = {path: path.read_bytes() for path in made}
    assert len(before) == 4 + 1 + 5 + 9 + 4  # of all; a page, tables, figures and animations of the grid
    for path in made:
        path.unlink()
    write_report(whole)
    assert {path: path.read_bytes() for path in made} == before


def test_a_grid_whose_seeds_were_added_one_by_one_says_what_its_answers_took(tmp_path: Path) -> None:
    """Of three levels one is settled at once; the others, and the baseline, go on."""
    asked = plan(load_grid("dropout"), seeds=12)
    errors = {cell.label: np.random.default_rng(i).normal(0, 0.04, 12) for i, cell in enumerate(asked.cells)}

    def fid(cell: Cell, seed: int) -> float:
        gain = 1.0 if cell.levels["dropout"] == "channels-25" else 0.0
        return 20 * math.exp(gain + errors[cell.label][seed])

    store = Store(tmp_path)
    save_runs(store, asked, fid)
    settling = settle(asked, tabulate_runs(asked, list(store.records(asked))))
    store.save_plan(settling.plan)
    text = read(write_report(tmp_path))
    first, last = settling.looks[0].num_seeds, settling.looks[-1].num_seeds
    assert first < last
    table = text[text.index("## Effects on FID") :].split("\n\n")[1].splitlines()
    assert table[0].split("|")[-2].strip() == "settled at"
    rows = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in table}
    assert rows["dropout channels-25"] == str(first)
    assert rows["dropout elements-30"] in {str(number) for number in range(first, last + 1)}
    num_runs = settling.plan.num_runs
    assert num_runs < 4 * last
    assert f"These answers took {num_runs} runs, of at most {last} seeds a variant." in text
    assert "runs are finished" not in text  # none is missing
    assert "valid at every look, as seeds were added after looking" in text
    for figure in ("settling", "courses"):
        with Image.open(tmp_path / "dropout" / f"{figure}.png") as picture:
            assert picture.width > 500


def test_an_animation_shows_every_sheet_of_a_run(whole: Path) -> None:
    with Image.open(whole / "bn_label_smooth" / "training-0.webp") as animation:
        assert getattr(animation, "n_frames", 1) == 2


def test_a_sheet_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store, planned = save_equal_runs(tmp_path)
    (sheet, *_) = (store.run_dir(planned.baseline.config.run_id) / "samples").iterdir()
    sheet.write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"step-.*png: cannot be read .* delete .* to run it again"):
        write_report(tmp_path)


def test_an_effect_within_its_interval_is_not_called_one(tmp_path: Path, no_figures: None) -> None:
    text = write(tmp_path, lambda cell, seed: 30.0 * math.exp(0.3 * math.sin(5 * seed + 3 * len(cell.label))))
    assert "**batch norm on** does not matter: FID 0 %" in text
    assert "**batch norm on × label smoothing on**: whether they interact is open" in text
    assert "lowers FID" not in text


@pytest.mark.parametrize(("budget", "is_warned"), [("smoke", True), ("standard", False)])
def test_a_smoke_run_is_not_taken_for_an_answer(
    tmp_path: Path, budget: BudgetName, is_warned: bool, no_figures: None
) -> None:
    save_runs(Store(tmp_path), plan(load_grid("bn_label_smooth"), budget=budget), batch_norm_halves)
    text = read(write_report(tmp_path))
    front = text[: text.index("![")]
    assert ("too short to answer anything" in front) is is_warned
    assert ("**Use**" in front) is not is_warned


def test_one_seed_is_not_taken_for_an_answer(tmp_path: Path, no_figures: None) -> None:
    text = write(tmp_path, seeds=1)
    assert "in the only seed; one seed says nothing about the next" in text
    assert "95 % interval nan" not in text


def test_divergences_are_said_and_counted(tmp_path: Path, no_figures: None) -> None:
    def fid(cell: Cell, seed: int) -> float | None:
        is_victim = cell.levels == {"batch_norm": "off", "label_smoothing": "off"} and seed < 2
        return None if is_victim else batch_norm_halves(cell, seed)

    text = write(tmp_path, fid)
    assert "2 of 20 runs diverged: 2× batch norm off, label smoothing off." in text
    assert "| 2/5 " in text
    assert "| 2/5 [5%, 85%] " in text  # the rate, with its exact interval
    assert "3 seeds" in text  # the effect rests on the seeds that every variant survived
    assert "counting diverged runs as the worst that finished" in text
    assert "diverged as worst" in text


def test_a_variant_without_any_score_leaves_the_others_standing(tmp_path: Path, no_figures: None) -> None:
    text = write(tmp_path, lambda cell, seed: None if "smoothing on" in cell.label else batch_norm_halves(cell, seed))
    assert "no seed has a score for every variant that this compares" in text
    assert "10 of 20 runs diverged" in text


def test_failures_and_missing_runs_are_said(tmp_path: Path, no_figures: None) -> None:
    store, planned = save_equal_runs(tmp_path)
    configs = [config for _, config in planned.runs]
    store.save_record(Record(run_id=configs[0].run_id, status="failed", message="why", config=configs[0]))
    (store.run_dir(configs[1].run_id) / "record.json").unlink()
    text = read(write_report(tmp_path))
    assert "5 of 6 runs are finished" in text
    assert "1 of 6 runs failed with an error" in text


def test_runs_without_scores_say_why(tmp_path: Path, no_figures: None) -> None:
    store, planned = save_equal_runs(tmp_path)
    for _, config in planned.runs:
        record = store.load_record(config.run_id)
        assert record is not None
        store.save_record(record.model_copy(update={"scoring": None, "unscored_reason": "no extractor"}))
    text = read(write_report(tmp_path))
    assert "Not scored: no extractor." in text
    assert "FID |" not in text


def test_scores_of_different_extractors_are_never_compared(tmp_path: Path, no_figures: None) -> None:
    store, planned = save_equal_runs(tmp_path)
    _, config = next(iter(planned.runs))
    record = store.load_record(config.run_id)
    assert record is not None
    assert record.scoring is not None
    other = record.scoring.model_copy(update={"extractor_sha256": "f" * 64})
    store.save_record(record.model_copy(update={"scoring": other}))
    text = read(write_report(tmp_path))
    section = text[text.index("## Answers") :]
    assert "scored in different ways" in section
    for words in ("FID |", "KID |", "change of FID", "precision", "lowers", "target is"):
        assert words not in section, words
    summary = pd.read_csv(tmp_path / "beta1" / "summary.csv")
    assert summary[["fid", "kid", "oscillation", "precision"]].isna().all(axis=None)


def test_times_of_different_machines_are_never_compared(tmp_path: Path, no_figures: None) -> None:
    store, planned = save_equal_runs(tmp_path)
    record = store.load_record(planned.baseline.config.run_id)
    assert record is not None
    assert record.throughput is not None
    faster = record.throughput.model_copy(update={"step_ms_median": 0.001})
    elsewhere = {"device": "cuda", "environment": {**record.environment, "gpu": "A100"}, "throughput": faster}
    store.save_record(record.model_copy(update=elsewhere))
    text = read(write_report(tmp_path))
    assert (
        f": 1 of {planned.num_runs} runs were computed on another machine or version, and theirs are left out" in text
    )
    assert "Within seed 0, runs of more than one machine are paired: they start from the same weights" in text
    assert re.search(r"\| computed on +\| A100[^;]*: seed 0; [^;]+: seeds 0 to 1 +\|", text)
    runs = pd.read_csv(tmp_path / "beta1" / "runs.csv")
    assert runs.loc[~runs["has_comparable_times"], "run_id"].tolist() == [record.run_id]
    summary = pd.read_csv(tmp_path / "beta1" / "summary.csv")
    assert summary["step_ms_median"].nunique() == 1
    assert summary["fid"].notna().all()


def test_times_of_a_run_that_shared_the_machine_are_left_out(tmp_path: Path, no_figures: None) -> None:
    store, planned = save_equal_runs(tmp_path)
    slow = planned.cells[1].with_seed(0)
    record = store.load_record(slow.run_id)
    assert record is not None
    assert record.throughput is not None
    busy = record.throughput.model_copy(update={"step_ms_median": 90.0, "step_ms_p90": 200.0})
    store.save_record(record.model_copy(update={"throughput": busy}))
    text = read(write_report(tmp_path))
    assert "Something else used the machine during 1 of 6 runs" in text
    summary = pd.read_csv(tmp_path / "beta1" / "summary.csv")
    assert summary["step_ms_median"].tolist() == [20.0, 20.0, 20.0]
    assert summary["fid"].notna().all()


def test_a_variant_covers_as_many_classes_as_its_worst_seed(tmp_path: Path, no_figures: None) -> None:
    store, planned = save_equal_runs(tmp_path)
    record = store.load_record(planned.baseline.with_seed(1).run_id)
    assert record is not None
    assert record.scoring is not None
    assert record.scoring.final is not None
    final = record.scoring.final.model_copy(update={"class_counts": (1_400,) * 6 + (1_600, 0, 0, 0)})
    store.save_record(record.model_copy(update={"scoring": record.scoring.model_copy(update={"final": final})}))
    write_report(tmp_path)
    assert pd.read_csv(tmp_path / "beta1" / "summary.csv")["classes_covered_fewest"].tolist() == [7, 10, 10]


def test_two_grids_are_two_sections(tmp_path: Path, no_figures: None) -> None:
    write(tmp_path)
    text = write(tmp_path, lambda *_: 20.0, grid="essentials", seeds=2)
    assert text.count("\n# ") == 2
    assert set(load_results(tmp_path, "essentials")["beta1"]) == {"0.0", "0.5", "0.9"}


def test_blocks_have_a_section_each_and_one_that_compares_them(tmp_path: Path) -> None:
    grid, store = load_grid("beta1"), Store(tmp_path)

    def fid(dataset: str, cell: Cell, seed: int) -> float:
        turned = {"mnist-10k": 0.5, "fashion-mnist": -0.5}[dataset]
        error = 0.004 * math.sin(7 * seed + sum(map(ord, cell.label + dataset)))
        return 20 * math.exp(error + turned * (cell.levels["beta1"] == "0.9") + 0.3 * (cell.levels["beta1"] == "0.0"))

    for dataset in ("mnist-10k", "fashion-mnist"):
        planned = plan(grid, dataset=dataset)
        save_runs(store, planned, lambda cell, seed, dataset=dataset: fid(dataset, cell, seed))  # type: ignore[misc]
    text = read(write_report(tmp_path))
    titles = re.findall(r"^# (.+)$", text, re.MULTILINE)
    places = ("mnist-10k", "fashion-mnist")
    across = f"{grid.title}, across {', '.join(places)}"
    assert set(titles[1:]) == {across, *(f"{grid.title} ({place})" for place in places)}
    front = (tmp_path / "report.md").read_text("utf-8")
    assert "beta1 0.9 rather than 0.5, fashion-mnist: -39" in front
    section = (tmp_path / "beta1@blocks" / "report.md").read_text("utf-8")
    answers = section[section.index("## Answers") :].split("\n## ")[0]
    assert "**beta1 0.9** differs between blocks: mnist-10k +6" in answers
    assert "**beta1 0.0** is the same in all blocks, within the margin: mnist-10k +3" in answers
    assert "On average +35" in answers
    table = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| beta1")]
    assert {row[0].strip(): (row[3].strip(), row[5].strip() == "–") for row in table} == {
        "beta1 0.9": ("yes", True),
        "beta1 0.0": ("no", False),
    }
    rows = pd.read_csv(tmp_path / "beta1@blocks" / "blocks.csv", keep_default_na=False)
    assert set(rows["block"]) == {"mnist-10k", "fashion-mnist", "all"}
    assert list(rows.loc[rows["block"] == "all", "effect"]) == ["beta1 0.0"]
    for figure in ("effects", "quality", "curves"):
        with Image.open(tmp_path / "beta1@blocks" / f"{figure}.png") as picture:
            assert picture.width > 500
    assert (tmp_path / "beta1@fashion-mnist" / "effects.png").exists()


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gan-ablate run --grid NAME"):
        write_report(tmp_path)


def test_numbers_that_do_not_compare_share_no_table(tmp_path: Path, no_figures: None) -> None:
    """Two grids, scored on different sample counts: two tables of verdicts, none of which has both."""
    store = Store(tmp_path)
    save_runs(store, plan(load_grid("bn_label_smooth")), batch_norm_halves)
    other = plan(load_grid("beta1"), overrides=["batch_size=32"])  # so that they share no run
    save_runs(store, other, lambda *_: 20.0)
    for _, config in other.runs:
        record = store.load_record(config.run_id)
        assert record is not None
        assert record.scoring is not None
        assert record.scoring.final is not None
        final = record.scoring.final.model_copy(update={"num_samples": 5_000})
        scoring = record.scoring.model_copy(update={"final": final})
        store.save_record(record.model_copy(update={"scoring": scoring}))
    text = read(write_report(tmp_path))
    verdicts = text[text.index("## Verdicts") : text.index("## Grids")]
    tables = verdicts.split("Scored with ")[1:]
    assert sorted(("| C2" in table, "5,000 images" in table) for table in tables) == [(False, True), (True, False)]
    assert sorted(("| C6" in table, "10,000 images" in table) for table in tables) == [(False, True), (True, False)]


def test_a_grid_with_a_diverged_and_a_failed_run_says_so_everywhere(tmp_path: Path) -> None:
    def fid(cell: Cell, seed: int) -> float | None:
        is_victim = cell.label == "batch norm off, label smoothing on" and seed == 0
        return None if is_victim else batch_norm_halves(cell, seed)

    store, planned = Store(tmp_path), plan(load_grid("bn_label_smooth"))
    save_runs(store, planned, fid)
    broken = planned.cells[0].with_seed(3)
    store.save_record(Record(run_id=broken.run_id, status="failed", message="planted", config=broken))
    text = read(write_report(tmp_path))
    assert "1 of 20 runs diverged: 1× batch norm off, label smoothing on." in text
    assert "1 of 20 runs failed with an error, and will be tried again: 1× batch norm off, label smoothing off." in text
    runs = pd.read_csv(tmp_path / "bn_label_smooth" / "runs.csv")
    assert runs["status"].value_counts().to_dict() == {"completed": 18, "diverged": 1, "failed": 1}
    for figure in ("quality", "effects", "interactions", "curves", "cost", "stability", "losses", "samples"):
        assert (tmp_path / "bn_label_smooth" / f"{figure}.png").is_file()


def test_a_report_of_runs_that_compare_nothing_yet_is_written(tmp_path: Path) -> None:
    """One run of the baseline, and nothing else: no effect is finite, and nothing can be drawn of any."""
    store, planned = Store(tmp_path), plan(load_grid("beta1"))
    store.save_plan(planned)
    (tmp_path / "effects.png").write_bytes(PIXEL)  # of an earlier report
    store.save_record(make_record(planned.baseline, 0, 20.0))
    front = write_report(tmp_path).read_text("utf-8")
    assert "![" not in front
    assert not (tmp_path / "effects.png").exists()
    assert "1 of 15 runs are finished" in front


@pytest.mark.parametrize("is_scored", [True, False])
def test_a_claim_on_what_needs_no_scores_is_judged_without_them(
    tmp_path: Path, no_figures: None, is_scored: bool
) -> None:
    grid = load_grid("beta1")
    claim = Claim(sentence="It is slow", levels=[{"beta1": "0.9"}], outcome="step_ms_median", direction="higher")
    planned = plan(grid.model_copy(update={"claims": [claim]}))
    store = Store(tmp_path)
    save_runs(store, planned, lambda _, seed: 20.0 + seed)
    for cell, config in planned.runs:
        record = store.load_record(config.run_id)
        assert record is not None
        assert record.throughput is not None
        slow = 1.48 + config.seed / 100 if cell.levels["beta1"] == "0.9" else 1.0
        steps = record.throughput.model_copy(
            update={key: slow * getattr(record.throughput, key) for key in
                    ("step_ms_median", "step_ms_p10", "step_ms_p90")}
        )  # fmt: skip
        changes = {"throughput": steps, **({} if is_scored else {"scoring": None})}
        store.save_record(record.model_copy(update=changes))
    front = write_report(tmp_path).read_text("utf-8")
    assert "| It is slow | **supported** | step time +50.0 %" in re.sub(" +", " ", front)
    assert ("Without scores" in front) is not is_scored


HOSTILE = ["![x](../../secret.png)", "a ] b", "[u](https://evil.example) x", "is $_$ <b>safe</b> | or `not`"]


@pytest.mark.parametrize("title", HOSTILE)
def test_a_title_is_text_whatever_it_holds(tmp_path: Path, title: str) -> None:
    grid = load_grid("beta1").model_copy(update={"title": title, "question": title})
    planned = plan(grid, seeds=2)
    store = Store(tmp_path / "out")
    save_runs(store, planned, lambda cell, seed: 20.0 + seed + len(cell.label) / 9)
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    write_report(tmp_path / "out")
    for path in (tmp_path / "out" / "report.md", tmp_path / "out" / "beta1" / "report.md"):
        html = MarkdownIt("commonmark").render(path.read_text("utf-8"))
        assert 'evil.example"' not in html
        assert 'secret.png"' not in html
        assert "<b>" not in html
        assert escape(title, quote=False) in html.replace("&quot;", '"')
    front = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "](beta1/report.md)**" in front


def test_the_front_page_tells_the_blocks_of_a_claim_apart(tmp_path: Path, no_figures: None) -> None:
    for dataset in ("mnist-10k", "fashion-mnist"):
        save_runs(Store(tmp_path), plan(load_grid("dropout"), dataset=dataset), lambda _, seed: 20.0 + seed)
    front = write_report(tmp_path).read_text("utf-8")
    assert "makes better samples (mnist-10k)" in front
    assert "makes better samples (fashion-mnist)" in front


def test_smoke_runs_are_no_blocks_and_not_in_the_front_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(plots, "plot_front", lambda groups, _: drawn.extend(title for title, _ in groups))
    monkeypatch.setattr(page, "_draw_figures", lambda *_, **__: [])
    monkeypatch.setattr(page, "_draw_animations", lambda *_: [])
    monkeypatch.setattr(report, "render_html", lambda *_: "")
    save_runs(Store(tmp_path), plan(load_grid("beta1")), lambda cell, seed: 20.0 + seed + len(cell.label) / 9)
    smoke = plan(load_grid("beta1"), dataset="fashion-mnist", budget="smoke", steps=1_500)
    save_runs(Store(tmp_path), smoke, lambda cell, seed: 20.0 + seed + len(cell.label) / 9)
    write_report(tmp_path)
    assert drawn == ["Adam's β1 (mnist-10k)"]
    assert not (tmp_path / "beta1@blocks").exists()


def test_levels_of_one_factor_share_a_line_and_rows_say_what_they_compare(
    tmp_path: Path, no_figures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(load_grid("dropout"))
    worse = {"elements-30": 0.4, "elements-50": 0.6}
    save_runs(
        Store(tmp_path), planned, lambda cell, seed: 20 * math.exp(worse.get(cell.levels["dropout"], 0) + seed / 99)
    )
    front = write_report(tmp_path).read_text("utf-8")
    (line,) = (line for line in front.splitlines() if line.startswith("  - dropout rather than none: elements-50"))
    assert line.index("elements-50 +82") < line.index(" · elements-30 +49")
    rows: list[str] = []
    monkeypatch.setattr(plots, "plot_front", lambda groups, _: rows.extend(name for name, _, _ in groups[0][1]))
    draw_front({"dropout": GridResults.load(Store(tmp_path), "dropout")}, {"dropout": "Dropout"}, tmp_path / "x.png")
    assert rows == ["dropout channels-25 (vs none)", "dropout elements-30 (vs none)", "dropout elements-50 (vs none)"]


def save_script(tmp_path: Path, name: str, fid: float, *, recall: float) -> None:
    """Save a grid of a user's script: batch norm off is 30 % better, and all images are of so much recall."""
    command = f'command = ["{name}", "{{norm}}", "{{seed}}"]\nsamples = "*.png"'
    path = tmp_path / f"{name}.toml"
    factor = 'baseline = "on"\nlevels.on = {}\nlevels.off = {}'
    path.write_text(f"[external]\n{command}\n[factors.norm]\n{factor}", "utf-8")
    store, planned = Store(tmp_path / "out"), plan(load_grid(path), allow_code=True)

    def score(cell: Cell, seed: int) -> float:
        return fid * (0.7 if cell.levels["norm"] == "off" else 1.0) * (1 + 0.01 * math.sin(seed + len(cell.label)))

    save_runs(store, planned, score)
    for _, _, record in list(store.records(planned)):
        assert record.scoring is not None
        assert record.scoring.final is not None
        final = record.scoring.final.model_copy(update={"recall": recall})
        scoring = record.scoring.model_copy(update={"final": final})
        store.save_record(record.model_copy(update={"scoring": scoring}))


def test_two_scripts_with_the_same_factors_are_told_apart(tmp_path: Path, no_figures: None) -> None:
    save_script(tmp_path, "mine", 20.0, recall=0.5)
    save_script(tmp_path, "other", 90.0, recall=0.5)
    front = write_report(tmp_path / "out").read_text("utf-8")
    ranked = front.split("## Grids")[0]
    assert ranked.count("norm off rather than on") == 2
    assert "Changes to `mine` and `other`" in front
    assert re.search(r"The baseline of `mine` \(norm on\) comes to FID 20", front)


def test_collapsed_runs_are_neither_to_be_used_nor_without_effect(tmp_path: Path, no_figures: None) -> None:
    save_script(tmp_path, "mine", 200.0, recall=0.01)
    text = read(write_report(tmp_path / "out"))
    assert "- **Use**: nothing" in text
    assert "- **Does not matter**: nothing" in text
    assert re.search(r"\*\*Not known yet\*\*\n  - norm off .* seeds; most of the runs that it compares collapsed", text)
    assert "No answer, as most runs collapsed on both sides: **norm off**." in text
    assert "Lowers FID" not in text
