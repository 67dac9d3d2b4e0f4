from __future__ import annotations

import math
import re

from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Variant, plan
from gan_ablate.execution.records import Record
from gan_ablate.reporting.other_studies import split_settings
from tests.reporting.example import change_records, make_front
from tests.synthetic import batch_norm_halves, gains, make_factorial, make_results, planted, results_of


def test_what_a_longer_training_found_stands_on_the_line_and_is_linked() -> None:
    """After four times the steps dropout has the other sign, and β1 0.9 the same one."""
    short = [planted("dropout", {"channels-25": 0.2, "elements-50": 0.3}), planted("beta1", {"0.9": 0.4})]
    long = [
        planted("dropout", {"channels-25": -0.2, "elements-50": 0.0}, steps=6_000),
        planted("beta1", {"0.9": 0.3}, steps=6_000),
    ]
    page = make_front(*short, others=split_settings("study-6000", "../study-6000/report.md", long))
    assert "- **After 6,000 steps of mnist-10k** ([study-6000](../study-6000/report.md))\n" in page.markdown
    ((_, (default, same, changed)),) = page.lasting
    assert re.fullmatch(r"\*\*The default\*\*: FID 2. → 2.", re.sub(r"\.\d", "", default))
    of_beta1, of_dropout = same.removeprefix("**Same decision there** (3): ").split("; ")
    assert of_beta1 == "*Adam's β1* 0.9: +49 % → +35 % · 0.0: 0 % → 0 %"
    assert of_dropout == "*dropout in D* 30 % of elements: 0 % → 0 %"
    told = changed.removeprefix("**Other decision there** (2): *dropout in D* ").split(" · ")
    assert told == [
        "50 % of elements: higher (+36 %) → negligible (+1 %)",
        "25 % of channels: higher (+22 %) → lower (-18 %)",
    ]
    (depends,) = page.ranking["Depends"]
    assert re.search(r"25 % of channels \+22\.. % \[.+?\], 5 seeds; but -18\.. % \[.+?\] at 6,000 steps", depends)
    assert "50 % of elements" in depends  # all that is known of dropout stands in one place
    (avoid,) = page.ranking["Avoid"]
    assert avoid.startswith("**Adam's β1** 0.9 rather than 0.5: +49.")
    assert re.search(r", 5 seeds; \+35\.. % \[.+\] at 6,000 steps$", avoid)
    ((_, table),) = page.verdicts
    (row,) = [line for line in table.splitlines() if line.startswith("| C10")]
    assert re.search(r"25 % of channels \+22\.. % \[[^|]+?\]; but -18\.. % \[[^|]+?\] at 6,000 steps", row)
    refuted = "**refuted** for 25 % of channels and 50 % of elements at 1,500 steps"
    assert f"| {refuted}; **supported** for 25 % of channels at 6,000 steps |" in row


def test_each_data_set_and_length_of_another_folder_is_told() -> None:
    """Dropout harms on clothes and does nothing to digits, β1 0.9 has one seed there, and longer runs come last."""
    harmful = {"channels-25": 0.4, "elements-30": 0.4, "elements-50": 0.4}
    there = [
        planted("dropout", {}, dataset="mnist", steps=9_000),
        planted("dropout", harmful, dataset="fashion-mnist", steps=6_000),
        planted("beta1", {"0.9": 0.4}, dataset="fashion-mnist", steps=6_000, seeds=1),
        planted("beta1", {}, dataset="mnist", steps=6_000),
    ]
    here = [planted("dropout", harmful), planted("beta1", {"0.9": 0.4})]
    page = make_front(*here, others=split_settings("long", "../long/report.md", there))
    told = [(other.setting.name, [line.split(":")[0] for line in lines]) for other, lines in page.lasting]
    assert told == [
        ("6,000 steps of fashion-mnist", ["**Same decision there** (3)"]),
        ("6,000 steps of mnist", ["**Same decision there** (1)", "**Other decision there** (1)"]),
        ("9,000 steps of mnist", ["**Other decision there** (3)"]),
    ]
    (dropout, beta1) = page.ranking["Avoid"]
    of_channels = dropout.split(" · ")[0]
    assert re.search(r"; \+49[^;]+ at 6,000 steps on fashion-mnist; but [^;]+ at 9,000 steps on mnist$", of_channels)
    assert re.search(r"; \+47\.\d % at 6,000 steps on fashion-mnist, inconclusive; but [^;]+ steps on mnist$", beta1)


def test_change_is_compared_by_its_surest_number() -> None:
    """Two grids have the change; the one with more seeds has another number, and the list below tells that one."""

    def fid(variant: Variant, seed: int) -> float:
        off, on = variant.levels["batch_norm"] == "off", variant.levels["label_smoothing"] == "on"
        noise = 0.03 * math.sin(7 * seed + 3 * len(variant.label)) + (off and on) * math.sin(3 * seed)
        return 20 * math.exp(noise - 0.02 * on)

    few = results_of("essentials", gains(label_smoothing={"on": 0.06}), noise=0.03)
    many = make_results(plan(load_grid("bn_label_smooth"), seeds=16), fid)
    long = results_of("essentials", gains(label_smoothing={"on": 0.01}), noise=0.03, steps=9_000)
    page = make_front(few, many, others=split_settings("long", "x", [long]))
    (line,) = [one for one in page.ranking["Does not matter"] if one.startswith("**label smoothing")]
    ((_, lines),) = page.lasting
    assert "rather than off: -1.7 % [-4.2, +0.9], 16 seeds" in line
    assert "*label smoothing (real labels of 0.9)* on: -2 % → -2 %" in " ".join(lines)
    (alone,) = [one for one in make_front(few).ranking["Does not matter"] if one.startswith("**label smoothing")]
    assert "rather than off: +2." in alone


def test_shorter_training_comes_first_on_both_pages() -> None:
    short, long = planted("beta1", {"0.9": 0.4}), planted("beta1", {"0.9": -0.2}, fid=27.0, steps=9_000)
    for here, there in ((short, long), (long, short)):
        ((_, lines),) = make_front(here, others=split_settings("other", "x", [there])).lasting
        assert lines[0] == "**The default**: FID 22.1 → 29.9"
        assert "**Other decision there** (1): *Adam's β1* 0.9: higher (+49 %) → lower (-18 %)" in lines


def test_too_few_seeds_elsewhere_are_no_change() -> None:
    """Another folder is inconclusive: of one change its interval excludes the number here, of two it does not."""
    here = planted("dropout", {"channels-25": 0.4, "elements-30": 0.4, "elements-50": 0.4})
    after = gains(dropout={"channels-25": 0.3, "elements-30": -0.3, "elements-50": 0.3})
    there = results_of("dropout", after, noise=0.1, seeds=3, steps=9_000)
    assert {effect.decision for effect in there.verdicts.effects("fid")} == {"inconclusive"}
    page = make_front(here, others=split_settings("long", "x", [there]))
    ((_, (_, changed, unsure)),) = page.lasting
    heading, words = changed.split(": *dropout in D* ")
    assert heading == "**Inconclusive there, and the interval excludes the number here** (1)"
    assert re.fullmatch(r"30 % of elements: higher \(\+\d+ %\) → inconclusive \(.+\)", words)
    assert unsure.startswith("**Inconclusive there** (2): *dropout in D* ")
    assert re.findall(r"\d\d % of \w+", unsure) == ["50 % of elements", "25 % of channels"]
    (avoid,) = page.ranking["Avoid"]
    assert avoid.count("; but ") == 1
    ((_, table),) = page.verdicts
    (row,) = [line for line in table.splitlines() if line.startswith("| C10")]
    assert "| **refuted** at 1,500 steps; inconclusive at 9,000 steps |" in re.sub(" +", " ", row)


def test_verdict_that_only_lacks_seeds_elsewhere_is_not_told() -> None:
    """All three rates of dropout are inconclusive elsewhere, and no interval excludes the number here."""
    levels = ("channels-25", "elements-30", "elements-50")
    here = planted("dropout", dict.fromkeys(levels, 0.4))
    there = results_of("dropout", gains(dropout=dict.fromkeys(levels, 0.3)), noise=0.1, seeds=3, steps=9_000)
    assert {effect.decision for effect in there.verdicts.effects("fid")} == {"inconclusive"}
    ((_, table),) = make_front(here, others=split_settings("long", "x", [there])).verdicts
    (row,) = [line for line in table.splitlines() if line.startswith("| C10")]
    assert "| **refuted** |" in re.sub(" +", " ", row)
    assert "9,000 steps" not in row


def test_study_without_a_decision_in_common_says_why() -> None:
    here = [planted("beta1", {"0.9": 0.4}), planted("init", {}, seeds=1)]
    for there, words in (
        ([planted("dropout", {}, dataset="mnist")], "it measured other changes"),
        ([planted("init", {"bad": 0.4}, dataset="mnist")], "nothing is decided in both"),
    ):
        page = make_front(*here, others=split_settings("long", "x", there))
        assert f"- **After 1,500 steps of mnist** ([long](x))\n  - {words}\n" in page.markdown


def test_smoke_runs_are_no_study() -> None:
    smoke = planted("beta1", {}, budget="smoke")
    assert [one.setting.steps for one in split_settings("x", "x", [smoke, planted("beta1", {})])] == [1_500]


def test_what_collapses_elsewhere_is_no_same_decision() -> None:
    """β1 0.9 helps here; there its FID is as low, and all of its runs collapsed."""
    here, there = planted("beta1", {"0.9": -0.4}), planted("beta1", {"0.9": -0.4}, steps=9_000, seeds=8)

    def collapse(record: Record) -> dict[str, object]:
        assert record.scoring is not None
        assert record.scoring.final is not None
        has_level = isinstance(record.config, RunConfig) and record.config.beta1 == 0.9
        counts = (record.scoring.final.num_samples, *[0] * 9) if has_level else record.scoring.final.class_counts
        final = record.scoring.final.model_copy(update={"class_counts": counts})
        return {"scoring": record.scoring.model_copy(update={"final": final})}

    page = make_front(here, others=split_settings("long", "x", [change_records(there, collapse)]))
    (used,) = page.ranking["Use"]
    assert used.endswith(" at 9,000 steps, inconclusive, 8 of 8 runs collapsed (baseline: 0 of 8)")
    ((_, lines),) = page.lasting
    assert not any("-33 %" in line for line in lines if line.startswith("**Same decision there**"))


def test_part_of_an_average_is_told_by_its_own_answer() -> None:
    """Alone, leaving batch norm out helps; with smoothing it harms more. Elsewhere, alone, it harms."""

    def fid(variant: Variant, seed: int) -> float:
        off, on = variant.levels["batch_norm"] == "off", variant.levels["label_smoothing"] == "on"
        return 20 * math.exp(off * (0.9 if on else -0.3) + 0.01 * math.sin(7 * seed + 3 * len(variant.label)))

    there = results_of("essentials", gains(batch_norm={"off": 0.3}), steps=9_000)
    page = make_front(make_factorial(fid), others=split_settings("long", "x", [there]))
    ((_, lines),) = page.lasting
    (other,) = [line for line in lines if line.startswith("**Other decision there**")]
    assert "*batch norm in G and D* off, with label smoothing off: lower (-26 %) → higher (+34 %)" in other


def test_effect_elsewhere_that_is_averaged_otherwise_says_so() -> None:
    alone, averaged = planted("essentials", {}), make_factorial(batch_norm_halves)
    long = planted("essentials", {}, steps=6_000)
    for here, there, words in (
        (averaged, long, r"; [-+]0\.\d % \[[^\]]+\] at 6,000 steps with label smoothing off"),
        (alone, averaged, r"; but \+9\d\.\d % \[[^\]]+\] in other$"),
    ):
        lines = [
            line
            for of in make_front(here, others=split_settings("other", "x", [there])).ranking.values()
            for line in of
        ]
        (told,) = [line for line in lines if line.startswith("**batch norm in G and D** off")]
        assert re.search(words, told)
