from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gan_ablate.analysis.allocation import replay_looks
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.table import tabulate_runs
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Variant, plan
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from gan_ablate.reporting.grid_page import GridPage, UnfinishedGridPage, write_grid_page
from gan_ablate.reporting.plots.style import FigurePath
from gan_ablate.reporting.run_sentences import SMOKE_WARNING
from tests.reporting.example import change_records, check_golden, scoring_of
from tests.synthetic import make_results

pytestmark = pytest.mark.usefixtures("no_figures")


def write_page(results: GridResults) -> GridPage:
    page = write_grid_page(results, results.plan.grid.title, FigurePath(results.folder))
    assert isinstance(page, GridPage)
    return page


def write_factorial(fid: Callable[[Variant, int], float | None], seeds: int = 5) -> GridPage:
    return write_page(make_results(plan(load_grid("bn_label_smooth"), seeds=seeds), fid))


def batch_norm_halves(variant: Variant, seed: int) -> float:
    noise = math.sin(7 * seed + 3 * len(variant.label))
    return (20.0 if variant.levels["batch_norm"] == "on" else 40.0) * math.exp(0.1 * seed + 0.005 * noise)


def make_equal_runs() -> GridResults:
    """Two seeds of three variants that score nearly the same."""
    planned = plan(load_grid("beta1"), seeds=2)
    return make_results(planned, lambda variant, seed: 20.0 + 0.01 * math.sin(7 * seed + sum(map(ord, variant.label))))


@pytest.mark.parametrize("grid", ["bn_label_smooth", "dropout", "precision", "representation"])
def test_page_of_the_example_is_golden(example: Path, grid: str) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden files anew."""
    check_golden(f"grid_page-{grid}.md", (example / grid / "report.md").read_text("utf-8"))


def test_numbers_are_those_of_runs_csv_and_of_the_records() -> None:
    page = write_factorial(batch_norm_halves)
    runs = pd.read_csv(page.results.folder / "runs.csv")
    of_variant = runs.loc[runs["variant"] == "batch norm on, label smoothing off", "fid"]
    mean = math.exp(sum(math.log(fid) for fid in of_variant) / len(of_variant))
    (row,) = [line for line in page.variants.splitlines() if line.startswith("| batch norm on, label smoothing off")]
    assert float(row.split("|")[2].split("[")[0]) == pytest.approx(mean, rel=5e-3)
    of_records = {record.run_id: scoring_of(record)[1].fid for _, record in page.results.records}
    assert dict(zip(runs["run_id"], runs["fid"], strict=True)) == of_records


def test_front_page_only_links_a_grid_with_effects() -> None:
    """They stand in the ranking, once."""
    assert write_factorial(batch_norm_halves).sentences == []


def test_answers_have_the_adjusted_interval_and_say_over_what_they_average() -> None:
    page = write_factorial(batch_norm_halves)
    effect = page.results.verdicts.effects("fid")[0]
    low, high = 100 * np.expm1([effect.adjusted.low, effect.adjusted.high])
    told = re.match(
        r"\*\*batch norm off\*\* raises FID: \+99.9 % \[(.+), (.+)\] on average over label", page.answers[0]
    )
    assert told is not None
    assert [float(end) for end in told.groups()] == pytest.approx([low, high], rel=1e-3)
    assert "95 % interval" not in " ".join(page.answers)
    assert "A main effect is the average over the levels of the other factors." in page.markdown


def test_effect_that_compares_collapsed_runs_decides_nothing() -> None:
    results = make_results(plan(load_grid("beta1")), lambda variant, seed: 20.0 * (1 + len(variant.label)) + seed / 9)
    page = write_page(change_records(results, lose_all_classes))
    told = "FID decides nothing where most runs collapsed, with the level and without it: **beta1 0.0**, **beta1 0.9**."
    assert told in page.answers


def test_smoke_run_answers_nothing() -> None:
    """One sentence, alone: no effect, no verdict, no seeds that would settle it, no count of collapsed runs."""
    results = make_results(plan(load_grid("bn_label_smooth"), seeds=4, budget="smoke"), lambda _, seed: 20.0 + seed)
    collapsed = change_records(results, lose_all_classes)
    page = write_page(collapsed)
    assert page.answers == page.sentences == page.warnings == [SMOKE_WARNING]
    assert (page.verdicts, page.effects, page.simple_effects, page.tests, page.stability) == ("",) * 5
    text = page.markdown
    headings = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    assert [heading.split(",")[0] for heading in headings] == [
        "FID of every run", "FID along training", "Losses and D's outputs along training",
        "Variants", "What a step costs", "Setup",
    ]  # fmt: skip
    assert not re.search(r"would settle|settled at|collapsed|negligible|inconclusive|effects\.|spread over", text)
    table = page.variants.splitlines()
    assert all("[" not in row for row in table)
    assert float(table[2].split("|")[2]) == pytest.approx((20 * 21 * 22 * 23) ** 0.25, rel=5e-3)


def lose_all_classes(record: Record) -> dict[str, object]:
    scoring, final = scoring_of(record)
    counts = (final.num_samples, *[0] * 9)
    return {"scoring": scoring.model_copy(update={"final": final.model_copy(update={"class_counts": counts})})}


def test_levels_with_a_label_are_explained() -> None:
    page = write_page(make_results(plan(load_grid("normalisation")), lambda _, seed: 20.0 + seed))
    (names,) = [answer for answer in page.answers if answer.startswith("Names of levels")]
    assert "**batch norm layers paper**: on all layers but G's last and D's first" in names
    assert "| baseline" in page.variants


def test_sequential_grid_says_at_how_many_seeds_each_effect_was_settled_and_what_that_took() -> None:
    """Of three levels one is settled at once; the others, and the baseline, go on."""
    asked = plan(load_grid("dropout"), seeds=12)
    errors = {variant.label: np.random.default_rng(i).normal(0, 0.04, 12) for i, variant in enumerate(asked.variants)}

    def fid(variant: Variant, seed: int) -> float:
        gain = 1.0 if variant.levels["dropout"] == "channels-25" else 0.0
        return 20 * math.exp(gain + errors[variant.label][seed])

    state = replay_looks(asked, make_results(asked, fid).runs)
    page = write_page(make_results(state.plan, fid))
    first, last = state.looks[0].num_seeds, state.looks[-1].num_seeds
    assert first < last
    rows = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in page.effects.splitlines()}
    assert rows["effect"] == "settled at"
    assert rows["dropout channels-25"] == str(first)
    assert rows["dropout elements-30"] in {str(number) for number in range(first, last + 1)}
    num_runs = state.plan.num_runs
    assert num_runs < 4 * last
    assert page.bill.startswith(f"These answers took {num_runs} runs, of at most {last} seeds a variant.")
    assert page.warnings == []  # no run is missing
    assert "valid at every look, as seeds were added after looking" in page.setup
    assert {"looks.png", "trajectories.png"} <= {picture.file for picture in page.pictures}


def test_effect_within_its_interval_is_not_called_one() -> None:
    answers = write_factorial(
        lambda variant, seed: 30 * math.exp(0.3 * math.sin(5 * seed + 3 * len(variant.label)))
    ).answers
    assert any(answer.startswith("**batch norm off** does not matter: FID ") for answer in answers)
    interaction = "**batch norm off × label smoothing on**: whether they interact"
    assert any(answer.startswith(interaction) for answer in answers)
    assert not any("lowers FID" in answer for answer in answers)


def test_one_seed_is_not_taken_for_an_answer() -> None:
    page = write_factorial(batch_norm_halves, seeds=1)
    assert "in the only seed; one seed says nothing about the next" in page.answers[0]
    assert "interval nan" not in page.markdown


def test_divergences_are_counted_with_exact_intervals_and_imputed() -> None:
    def fid(variant: Variant, seed: int) -> float | None:
        is_victim = variant.levels == {"batch_norm": "off", "label_smoothing": "off"} and seed < 2
        return None if is_victim else batch_norm_halves(variant, seed)

    page = write_factorial(fid)
    assert "2 of 20 runs diverged: 2× batch norm off, label smoothing off." in page.answers
    assert "| 2/5 " in page.variants
    assert "| 2/5 [5 %, 85 %] " in page.stability  # Clopper-Pearson
    assert "of the typical run" in page.answers[0]
    assert "5 seeds" in page.answers[0]  # the effect rests on those that diverged, too
    assert "counting diverged runs as the worst that finished" in page.answers[0]
    assert "diverged as worst" in page.tests


def test_variant_without_any_score_leaves_the_others_standing() -> None:
    page = write_factorial(
        lambda variant, seed: None if "smoothing on" in variant.label else batch_norm_halves(variant, seed)
    )
    assert any("the typical run is not known" in answer for answer in page.answers)
    assert any("10 of 20 runs diverged" in answer for answer in page.answers)


def test_runs_without_scores_have_no_columns_of_scores() -> None:
    results = change_records(make_equal_runs(), lambda _: {"scoring": None, "unscored_reason": "no extractor"})
    page = write_page(results)
    assert "Not scored: no extractor." in page.answers
    assert page.sentences == ["Nothing is scored yet."]
    assert (page.effects, page.tests, page.scores) == ("", "", "")
    assert "FID |" not in page.markdown


def test_scores_of_different_extractors_are_never_compared() -> None:
    (_, first), *_ = make_equal_runs().records

    def use_another(record: Record) -> dict[str, object]:
        is_first = record.run_id == first.run_id
        return {"scoring": scoring_of(record)[0].model_copy(update={"extractor_sha256": "f" * 64})} if is_first else {}

    page = write_page(change_records(make_equal_runs(), use_another))
    section = page.markdown[page.markdown.index("## Answers") :]
    assert "scored in different ways" in section
    for words in ("FID |", "KID |", "change of FID", "precision", "lowers", "target is"):
        assert words not in section, words
    summary = pd.read_csv(page.results.folder / "summary.csv")
    assert summary[["fid", "kid", "oscillation", "precision"]].isna().all(axis=None)


def test_times_of_different_machines_are_never_compared() -> None:
    results = make_equal_runs()
    run_id = results.plan.baseline.config.run_id

    def run_elsewhere(record: Record) -> dict[str, object]:
        if record.run_id != run_id:
            return {}
        assert record.throughput is not None
        faster = record.throughput.model_copy(update={"step_ms_median": 0.001})
        return {"device": "cuda", "environment": {**record.environment, "gpu": "A100"}, "throughput": faster}

    page = write_page(change_records(results, run_elsewhere))
    assert any(
        ": 1 of 6 runs were computed on another machine or version, and theirs are left out" in a for a in page.answers
    )
    shared = "Within seed 0, runs of more than one machine are paired: they start from the same weights"
    assert any(answer.startswith(shared) for answer in page.answers)
    assert re.search(r"\| computed on +\| A100[^;]*: seed 0; [^;]+: seeds 0 to 1 +\|", page.setup)
    runs = pd.read_csv(page.results.folder / "runs.csv")
    assert runs.loc[~runs["has_comparable_times"], "run_id"].tolist() == [run_id]
    assert page.results.summary["step_ms_median"].nunique() == 1
    assert page.results.summary["fid"].notna().all()


def test_times_of_a_run_that_shared_the_machine_are_left_out() -> None:
    results = make_equal_runs()
    slow = results.plan.variants[1].with_seed(0).run_id

    def slow_down(record: Record) -> dict[str, object]:
        assert record.throughput is not None
        busy = record.throughput.model_copy(update={"step_ms_median": 90.0, "step_ms_p90": 200.0})
        return {"throughput": busy} if record.run_id == slow else {}

    page = write_page(change_records(results, slow_down))
    assert any(answer.startswith("Something else used the machine during 1 of 6 runs") for answer in page.answers)
    assert page.results.summary["step_ms_median"].tolist() == [20.0, 20.0, 20.0]
    assert page.results.summary["fid"].notna().all()


def test_variant_covers_as_many_classes_as_its_worst_seed() -> None:
    results = make_equal_runs()
    run_id = results.plan.baseline.with_seed(1).run_id

    def lose_classes(record: Record) -> dict[str, object]:
        scoring, final = scoring_of(record)
        final = final.model_copy(update={"class_counts": (1_400,) * 6 + (1_600, 0, 0, 0)})
        return {"scoring": scoring.model_copy(update={"final": final})} if record.run_id == run_id else {}

    page = write_page(change_records(results, lose_classes))
    columns = [[variant.strip() for variant in line.split("|")[1:-1]] for line in page.variants.splitlines()]
    place = columns[0].index("classes, fewest")
    assert [row[place] for row in columns[2:]] == ["7", "10", "10"]


def test_figures_stand_in_the_order_of_doubt(example: Path) -> None:
    text = (example / "bn_label_smooth" / "report.md").read_text("utf-8")
    assert re.findall(r"^!\[.+\]\((\w+)\.png\)$", text, re.MULTILINE) == [
        "effects", "quality", "samples", "trajectories", "curves", "interactions", "cost", "stability", "losses",
    ]  # fmt: skip


def test_table_of_only_dashes_is_one_sentence() -> None:
    page = dataclasses.replace(write_page(make_equal_runs()), costs="")
    assert "## What a step costs\n\nTimes and memory of these runs are not known." in page.markdown


def test_figures_of_former_names_are_removed() -> None:
    results = make_equal_runs()
    for name in ("courses.png", "settling.pdf", "mine.png"):
        results.folder.mkdir(parents=True, exist_ok=True)
        (results.folder / name).touch()
    write_page(results)
    assert {"mine.png", "trajectories.png"} <= {path.name for path in results.folder.iterdir()}
    assert not [path for path in results.folder.iterdir() if path.stem in ("courses", "settling")]


def test_every_figure_says_what_to_look_for_and_which_intervals_it_has() -> None:
    for picture in write_factorial(batch_norm_halves).pictures:
        assert "Look for" in picture.note
        assert "interval" in picture.note or picture.file == "samples.png"


def test_grid_without_a_run_has_a_page_and_a_warning() -> None:
    planned = plan(load_grid("beta1"), seeds=2)
    results = GridResults(Store(Path("nowhere")), planned, [], tabulate_runs(planned, []))
    page = write_grid_page(results, "Title", FigurePath(results.folder))
    assert isinstance(page, UnfinishedGridPage)
    assert page.sentences == ["No run is finished yet."]
    assert page.warnings == ["0 of 6 runs are finished; the same command computes the others."]
    assert not results.folder.exists()
