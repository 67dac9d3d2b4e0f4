from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from gan_ablate.design.claims import Claim
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, Variant, plan
from gan_ablate.execution.records import Record
from gan_ablate.reporting.formats import Page
from gan_ablate.reporting.front_page import draw_front, make_front_page
from gan_ablate.reporting.plots import effects as effect_plots
from gan_ablate.reporting.plots.style import FigurePath
from gan_ablate.reporting.run_sentences import SMOKE_WARNING
from tests.reporting.example import change_records, check_golden, make_front, scoring_of
from tests.synthetic import batch_norm_halves, make_factorial, make_results, planted


def alike(variant: Variant, seed: int) -> float:
    return 20 + seed + len(variant.label) / 9


def test_front_page_of_the_example_is_golden(example: Path) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden files anew."""
    check_golden("front_page.md", (example / "report.md").read_text("utf-8"))


def test_ranking_and_verdicts_say_what_to_use_and_what_is_sure() -> None:
    page = make_front(make_factorial(batch_norm_halves))
    (avoided,) = page.ranking["Avoid"]
    assert avoided.startswith("**batch norm in G and D** off rather than on: +99.9 % [")
    assert avoided.endswith("] on average over label smoothing, 5 seeds")
    assert page.ranking["Use"] == []
    (indifferent,) = page.ranking["Does not matter"]
    assert indifferent.startswith("**label smoothing (real labels of 0.9)** on rather than off: ")
    assert (page.default, page.datasets, page.steps) == ("`dcgan-28`", "mnist-10k", "after 1,500 steps")
    assert page.baseline is not None
    assert page.baseline[0] == "The default (batch norm on, label smoothing off)"
    assert page.baseline[1] == pytest.approx(math.exp(sum(math.log(batch_norm_on(s)) for s in range(5)) / 5))
    assert page.falling == "4 of 4"
    ((scoring, table),) = page.verdicts
    assert scoring == "Scored with digits features of 10,000 images of mnist-10k at 28×28, after 1,500 steps"
    (row,) = [line for line in table.splitlines() if line.startswith("| C2")]
    variants = [variant.strip() for variant in row.split("|")[1:-1]]
    claim = "C2: Batch norm steadies training so that samples get better (on average over label smoothing)"
    assert variants[:2] == [claim, "**supported**"]
    assert variants[2] == "FID"
    assert re.fullmatch(r"batch norm in G and D off \+99\.9 % \[.+\]", variants[3])
    assert variants[4:] == ["5 seeds", "1,500 steps; 81 %, 67 %", "[grid](bn_label_smooth/report.md)"]


def batch_norm_on(seed: int) -> float:
    return 20 * math.exp(0.1 * seed + 0.005 * math.sin(7 * seed + 3 * len("batch norm on, label smoothing off")))


def test_sections_are_which_to_use_verdicts_and_grids() -> None:
    text = make_front(make_factorial(batch_norm_halves)).markdown
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Which to use", "Verdicts"]
    assert "- **Use** (the interval lies below zero): nothing\n" in text


def test_front_page_of_seven_grids_is_short_and_its_tables_narrow() -> None:
    grids = ("activation", "architecture", "beta1", "bn_label_smooth", "dropout", "essentials", "precision")
    text = make_front(*(make_results(plan(load_grid(grid)), alike) for grid in grids)).markdown
    assert len(text.splitlines()) <= 150
    assert all(line.count("|") <= 8 for line in text.splitlines())
    assert text.count("[grid]") == 6


def test_effect_that_two_grids_share_is_ranked_once_where_a_claim_rests_on_it() -> None:
    """Both grids have β1 0.9, of the same runs; the interval is that of the grid whose claim rests on it."""

    def steep(variant: Variant, seed: int) -> float:
        error = 0.01 * math.sin(7 * seed + sum(map(ord, str(variant.config.run_id))))
        return 20 * math.exp(0.1 * seed + error + 0.4 * (variant.trained.beta1 == 0.9))

    claim = Claim(sentence="It is worse", levels=[{"beta1": "0.9"}], direction="higher")
    grid = load_grid("beta1")
    alone = make_results(plan(grid.model_copy(update={"claims": []})), steep)
    claimed = make_results(plan(load_grid("essentials").model_copy(update={"claims": [claim]})), steep)
    for shown, grids in (
        (alone, (alone, make_results(plan(load_grid("essentials")), steep))),
        (claimed, (alone, claimed)),
    ):
        lines = [line for lines in make_front(*grids).ranking.values() for line in lines]
        (line,) = [line for line in lines if line.startswith("**Adam's β1** 0.9 rather than 0.5")]
        (effect,) = [effect for effect in shown.verdicts.effects("fid") if effect.name == "beta1 0.9"]
        low, high = (f"{100 * math.expm1(end):+.1f}" for end in (effect.adjusted.low, effect.adjusted.high))
        assert f"[{low}, {high}]" in line


def test_effect_that_turns_with_another_factor_is_told_at_each_of_its_levels() -> None:
    def fid(variant: Variant, seed: int) -> float:
        change = {"off": 0.5, "on": -0.9}[variant.levels["label_smoothing"]] * (variant.levels["batch_norm"] == "off")
        return 20 * math.exp(change + 0.01 * math.sin(7 * seed + 3 * len(variant.label)))

    page = make_front(make_factorial(fid))
    (told,) = [
        line for line in page.ranking["Depends"] if line.startswith("**batch norm in G and D** off rather than on: ")
    ]
    assert re.search(
        r": with label smoothing off \+.+, higher; with label smoothing on -.+, lower; .+ on average over label "
        r"smoothing, 5 seeds",
        told,
    )


def test_effect_inconclusive_on_average_does_not_depend_without_an_interaction() -> None:
    """Without batch norm smoothing may do anything, beside it nothing: two labels that differ are no difference."""

    def fid(variant: Variant, seed: int) -> float:
        spread = {"on": 0.005, "off": 0.4}[variant.levels["batch_norm"]]
        return 20 * math.exp(np.random.default_rng([seed, *map(ord, variant.label)]).normal(0, spread))

    ranking = make_front(make_factorial(fid)).ranking
    assert ranking["Depends"] == []
    (told,) = [line for line in ranking["Not known yet"] if line.startswith("**label smoothing (")]
    assert " on average over batch norm, 5 seeds" in told
    assert "with batch norm on" not in told


def test_smoke_runs_alone_rank_nothing() -> None:
    page = make_front(make_factorial(batch_norm_halves, budget="smoke"), has_figure=False)
    assert (page.ranking, page.verdicts, page.unjudged, page.falling, page.baseline) == ({}, [], "", "", None)
    assert re.fullmatch(rf"# .+\n\n\*\*{SMOKE_WARNING}\*\*\n", page.markdown)
    assert not re.search(r"\*\*Use|would settle|collapsed", page.markdown)


def test_levels_of_one_factor_share_a_line_and_rows_of_the_figure_name_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = {"elements-30": 0.4, "elements-50": 0.6}
    results = make_results(
        plan(load_grid("dropout")),
        lambda variant, seed: 20 * math.exp(worse.get(variant.levels["dropout"], 0) + seed / 99),
    )
    lines = [line for lines in make_front(results).ranking.values() for line in lines]
    (line,) = [line for line in lines if line.startswith("**dropout in D** rather than none: 50 % of elements")]
    assert line.index("50 % of elements +82") < line.index(" · 30 % of elements +49")
    rows: list[str] = []
    monkeypatch.setattr(effect_plots, "plot_front", lambda groups, _: rows.extend(row.name for row in groups[0][1]))
    draw_front({"dropout": results}, {"dropout": "Dropout"}, FigurePath(tmp_path / "x.png"))
    assert rows == [
        f"dropout {words} (vs none)" for words in ("25 % of channels", "30 % of elements", "50 % of elements")
    ]


def test_figure_leaves_smoke_runs_out_where_there_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(effect_plots, "plot_front", lambda groups, _: titles.extend(title for title, _ in groups))
    results = {
        "beta1": make_results(plan(load_grid("beta1")), alike),
        "dropout": make_results(plan(load_grid("dropout"), budget="smoke"), alike),
    }
    assert draw_front(results, {"beta1": "Long", "dropout": "Smoke"}, FigurePath(tmp_path / "x.png"))
    assert titles == ["Long"]
    assert not draw_front({"dropout": results["dropout"]}, {"dropout": "Smoke"}, FigurePath(tmp_path / "x.png"))


def lose_all_classes(record: Record) -> dict[str, object]:
    scoring, final = scoring_of(record)
    final = final.model_copy(update={"class_counts": (final.num_samples, *[0] * 9)})
    return {"scoring": scoring.model_copy(update={"final": final})}


def test_smoke_page_is_linked_without_saying_so_twice() -> None:
    class Stub(Page):
        template = "unfinished_grid_page.md.j2"

    pages = [Stub(title=f"Grid {n}", path=f"{n}/report.md", sentences=[SMOKE_WARNING]) for n in (1, 2)]
    results = make_factorial(batch_norm_halves, budget="smoke")
    text = make_front_page({results.name: results}, {results.name: ""}, pages, [], has_figure=False).markdown
    assert text.count(SMOKE_WARNING) == 1
    assert text.endswith("[Grid 1](1/report.md), [Grid 2](2/report.md).\n")


def test_row_of_the_figure_that_compares_collapsed_runs_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[effect_plots.FrontRow] = []
    monkeypatch.setattr(effect_plots, "plot_front", lambda groups, _: rows.extend(groups[0][1]))
    worse = planted("collapse", {"mode-seeking": 0.5, "lr-5e-5": 0.5})
    for results, words in ((worse, ""), (change_records(worse, lose_all_classes), ", collapsed")):
        rows.clear()
        draw_front({"collapse": results}, {"collapse": "Collapse"}, FigurePath(tmp_path / "x.png"))
        (seeking,) = [row for row in rows if row.name.startswith("remedy for collapse mode seeking (vs none)")]
        assert (seeking.effect.decision, seeking.name.split(")")[1]) == ("higher", words)
        assert seeking.decides_nothing == bool(words)


def test_verdict_on_collapsed_runs_says_that_they_still_collapse() -> None:
    page = make_front(change_records(planted("collapse", {"WGAN": 0.5}), lose_all_classes))
    ((_, table),) = page.verdicts
    (row,) = [line for line in table.splitlines() if line.startswith("| C13")]
    assert row.count("; 5 of 5 runs still collapsed") == 5
    assert page.ranking["Not known yet"][0].endswith("; C13 rests on class divergence instead")


def test_a_line_says_how_many_runs_collapsed() -> None:
    def lose_without(record: Record) -> dict[str, object]:
        assert isinstance(record.config, RunConfig)
        return lose_all_classes(record) if record.config.model_dump()["generator"]["norm"] == "none" else {}

    (avoided,) = make_front(change_records(make_factorial(batch_norm_halves), lose_without)).ranking["Avoid"]
    assert avoided.endswith(", 5 seeds; 10 of 10 runs collapsed (baseline: 0 of 10)")


def test_a_line_rests_on_the_grid_with_the_most_seeds_of_the_same_comparison() -> None:
    """``essentials`` has smoothing with batch norm in 3 seeds; the factorial grid, which is open on average, in 12."""

    def fid(variant: Variant, seed: int) -> float:
        noise = math.sin(7 * seed + 3 * len(variant.label))
        is_wild = variant.levels["batch_norm"] == "off" and variant.levels["label_smoothing"] == "on"
        return 20 * math.exp(0.1 * seed + (2 if is_wild else 0.005) * noise)

    few = make_results(plan(load_grid("essentials"), seeds=3), fid)
    many = make_results(plan(load_grid("bn_label_smooth"), seeds=12), fid)
    otherwise = change_records(
        many, lambda record: {"scoring": scoring_of(record)[0].model_copy(update={"extractor_sha256": "f" * 64})}
    )
    for grids, num_seeds in (((few,), 3), ((few, many), 12), ((few, otherwise), 3)):
        lines = make_front(*grids).ranking["Does not matter"]
        (smoothing,) = [line for line in lines if line.startswith("**label smoothing")]
        assert f", {num_seeds} seeds; {num_seeds} seeds cannot" in smoothing
        assert ("; with batch norm off " in smoothing) == (len(grids) == 2)


def test_verdicts_scored_differently_share_no_table() -> None:
    """Two grids, scored on different sample counts: two tables of verdicts, none of which has both."""

    def score_fewer(record: Record) -> dict[str, object]:
        scoring, final = scoring_of(record)
        return {"scoring": scoring.model_copy(update={"final": final.model_copy(update={"num_samples": 5_000})})}

    other = plan(load_grid("beta1"), overrides=["batch_size=32"])  # so that they share no run
    fewer = change_records(make_results(other, lambda *_: 20.0), score_fewer)
    verdicts = make_front(make_factorial(batch_norm_halves), fewer).verdicts
    assert [("10,000 images" in scoring, "5,000 images" in scoring) for scoring, _ in verdicts] == [
        (True, False),
        (False, True),
    ]
    assert [("| C2" in table, "| C6" in table) for _, table in verdicts] == [(True, False), (False, True)]


def test_ways_of_scoring_told_in_the_same_words_have_a_table_each() -> None:
    """Two extractors of one name: the words above the tables are alike, and no table replaces the other."""
    first = make_factorial(batch_norm_halves)
    second = change_records(
        make_results(plan(load_grid("beta1"), overrides=["batch_size=32"]), alike),
        lambda record: {"scoring": scoring_of(record)[0].model_copy(update={"extractor_sha256": "f" * 64})},
    )
    verdicts = make_front(first, second).verdicts
    assert len(verdicts) == 2
    assert verdicts[0][0] == verdicts[1][0]


@pytest.mark.parametrize("is_scored", [True, False])
def test_claim_on_what_needs_no_scores_is_judged_without_them(is_scored: bool) -> None:
    claim = Claim(sentence="It is slow", levels=[{"beta1": "0.9"}], outcome="step_ms_median", direction="higher")
    planned = plan(load_grid("beta1").model_copy(update={"claims": [claim]}))
    results = make_results(planned, lambda _, seed: 20.0 + seed)

    def slow_down(record: Record) -> dict[str, object]:
        assert isinstance(record.config, RunConfig)
        factor = 1.48 + record.config.seed / 100 if record.config.beta1 == 0.9 else 1.0
        steps = record.throughput
        assert steps is not None
        times = {key: factor * getattr(steps, key) for key in ("step_ms_median", "step_ms_p10", "step_ms_p90")}
        return {"throughput": steps.model_copy(update=times), **({} if is_scored else {"scoring": None})}

    ((scoring, table),) = make_front(change_records(results, slow_down)).verdicts
    assert "| It is slow | **supported** | step time | Adam's β1 0.9 +50.0 %" in re.sub(" +", " ", table)
    assert scoring.startswith("Scored with" if is_scored else "Without scores")


def test_blocks_of_a_claim_are_told_apart() -> None:
    def planned(dataset: str) -> Plan:
        return plan(load_grid("dropout"), dataset=dataset)

    results = {
        name: make_results(planned(name), lambda _, seed: 20.0 + seed) for name in ("mnist-10k", "fashion-mnist")
    }
    by_name = {of_grid.name: of_grid for of_grid in results.values()}
    blocks = {of_grid.name: dataset for dataset, of_grid in results.items()}
    text = make_front_page(by_name, blocks, [], [], has_figure=False).markdown
    assert text.count("makes better samples (fashion-mnist)") == text.count("makes better samples (mnist-10k)") > 0
    assert "![" not in text


def test_pages_are_linked_with_what_they_found_and_their_warnings() -> None:
    class Stub(Page):
        template = "unfinished_grid_page.md.j2"

    pages = [
        Stub(title="a ] b", path="a@b/report.md", sentences=["Found."], warnings=["Careful."]),
        Stub(title="Whole", path="whole/report.md", sentences=["Also found."]),
    ]
    results = make_factorial(batch_norm_halves)
    page = make_front_page({results.name: results}, {results.name: ""}, pages, [pages[1]], has_figure=False)
    assert "- **[a \\] b](a%40b/report.md)**: Found.\n" in page.markdown
    assert "Document by document: [Whole](whole/report.md).\n" in page.markdown
    assert "## Before you believe this\n\n- [a \\] b](a%40b/report.md): Careful.\n" in page.markdown


def test_remedy_that_only_repairs_its_own_start_is_not_to_be_used() -> None:
    """Without batch norm in D FID is 30; R1 brings it to the default's 20, spectral norm to 15."""
    penalties = planted("penalties", {"R1": math.log(20 / 30), "spectral-norm": math.log(15 / 30)}, fid=30.0)
    page = make_front(planted("beta1", {}), planted("dropout", {}), penalties)
    assert "Helps a weaker start" not in page.ranking
    (used,) = page.ranking["Use"]  # all that helped, in one place
    assert used.startswith("**R1, spectral norm or a gradient penalty** rather than none, from `discriminator.norm = ")
    assert "(FID 33.1): spectral norm " in used
    assert re.search(r"R1 \(.+\) -33\.. % \[.+\] to FID 22, not shown to beat the default, 5 seeds", used)
    repaired = planted("penalties", {"R1": math.log(20 / 30)}, fid=30.0)
    page = make_front(planted("beta1", {}), planted("dropout", {}), repaired)
    assert page.ranking["Use"] == []
    (line,) = page.ranking["Helps a weaker start"]
    assert "not shown" not in line
    assert page.baseline is not None
    assert page.baseline[0] == "The default (which most grids share)"
    assert "A line that starts elsewhere says so." in page.markdown


def test_level_that_is_the_default_itself_is_no_change_to_use() -> None:
    """From 3×3 strides the usual 4×4 ones are better; that is the default."""
    page = make_front(
        planted("beta1", {}), planted("dropout", {}), planted("downsampling", {"strided-4x4": -0.3}, 27.0)
    )
    assert page.ranking["Use"] == []
    (line,) = page.ranking["Helps a weaker start"]
    assert "to FID 22.2, that of the default" in line


def test_verdict_names_outcome_start_and_average() -> None:
    collapse = planted("collapse", {"WGAN": 0.5}, fid=100.0)
    page = make_front(planted("beta1", {}), planted("dropout", {}), make_factorial(batch_norm_halves), collapse)
    ((_, table),) = page.verdicts
    cells = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    header, rows = cells[0], {row[1].split(":")[0]: row for row in cells[2:]}
    outcome, change = header.index("outcome"), header.index("measured change")
    assert rows["C13"][outcome] == "class divergence"
    assert rows["C13"][change].startswith("remedy for collapse: a batch of 256 ")
    assert rows["C13"][1].endswith("cure collapse (from `mlp`)")
    assert rows["C2"][outcome] == "FID"
    assert "from" not in rows["C2"][1]
    assert rows["C9"][1].endswith("(on average over batch norm)")
    assert "[class divergence](methods.md#class-divergence): how unevenly" in page.outcomes_note
    assert "[FID]" not in page.outcomes_note


def test_verdicts_after_other_numbers_of_steps_name_theirs() -> None:
    page = make_front(planted("beta1", {"0.9": 0.5}), planted("dropout", {}, steps=3_000))
    ((scoring, table),) = page.verdicts
    assert scoring.endswith("at 28×28")
    (avoid,) = page.ranking["Avoid"]
    assert avoid.startswith("**Adam's β1** 0.9 rather than 0.5, after 1,500 steps: ")
    assert page.steps == "after 1,500 or 3,000 steps"
    assert [("1,500 steps" in line, "3,000 steps" in line) for line in table.splitlines()[2:]] == [
        (True, False),
        (False, True),
    ]


def test_verdict_on_an_average_of_effects_that_differ_depends() -> None:
    """Smoothing harms without batch norm, and does nothing beside it."""

    def fid(variant: Variant, seed: int) -> float:
        is_harmed = variant.levels == {"batch_norm": "off", "label_smoothing": "on"}
        return 20 * math.exp(0.5 * is_harmed + 0.01 * math.sin(7 * seed + 3 * len(variant.label)))

    ((_, table),) = make_front(make_factorial(fid)).verdicts
    (row,) = [line for line in table.splitlines() if line.startswith("| C9")]
    assert re.search(
        r"\| \*\*depends\*\*: with batch norm on [^|]+, negligible; with batch norm off \+[^|]+, higher +\|", row
    )
    assert "refuted" not in row


def test_levels_are_told_by_their_labels() -> None:
    page = make_front(planted("normalisation", {"G-only": 0.5}))
    (line,) = page.ranking["Avoid"]
    assert line.startswith(
        "**which layers have batch norm** only in G, none in D rather than on all layers but G's last and D's first: "
    )


def test_change_says_what_another_grid_found_at_other_levels() -> None:
    """Alone, smoothing does nothing; the grid that crosses it with batch norm knows that it harms without."""

    def harm(variant: Variant, seed: int) -> float:
        is_harmed = variant.levels.get("batch_norm") == "off" and variant.levels["label_smoothing"] == "on"
        return 20 * math.exp(0.5 * is_harmed + 0.01 * math.sin(7 * seed + 3 * len(variant.label)))

    alone = make_results(plan(load_grid("essentials"), seeds=9), harm)
    ranking = make_front(alone, make_factorial(harm)).ranking
    (told,) = [line for lines in ranking.values() for line in lines if line.startswith("**label smoothing (")]
    assert re.search(r"9 seeds; .*; with batch norm off \+6\d\.\d % \[.+\], higher", told)
    assert "with batch norm on" not in told
