from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from gan_ablate.analysis.effects import Effect
from gan_ablate.analysis.estimates import Interval
from gan_ablate.analysis.questions import Setting, compare_answers, compare_effects, find_same, question_of
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.tests import NOT_TESTED
from tests.synthetic import gains, results_of


def effect_named(results: GridResults, name: str) -> Effect:
    return next(effect for effect in results.verdicts.effects("fid") if effect.name == name)


def test_same_question_is_found_after_any_number_of_steps() -> None:
    short, long = (results_of("beta1", gains(beta1={"0.9": 0.5}), steps=steps) for steps in (99, 999))
    found = find_same([results_of("dropout", gains(), steps=999), long], short, effect_named(short, "beta1 0.9"))
    assert found is not None
    assert (found.results.plan.baseline.config.steps, found.there.name) == (999, "beta1 0.9")
    assert find_same([results_of("learning_rate", gains())], short, effect_named(short, "beta1 0.9")) is None


def test_same_question_is_a_simple_effect_rather_than_an_average() -> None:
    """One change at a time is the simple effect at the baseline of the other factor; that grid has more seeds."""
    alone, factorial = (
        results_of("essentials", gains(), seeds=4, steps=99),
        results_of("bn_label_smooth", gains(), steps=9),
    )
    like = results_of("essentials", gains(), steps=999)
    for results in ([alone, factorial], [factorial, alone]):
        asked = effect_named(like, "label smoothing on")
        found = find_same(results, like, asked)
        assert found is not None
        assert found.here is asked
        assert (found.results.name, found.there.within) == ("bn_label_smooth", {"batch_norm": "on"})


def test_average_is_rather_found_whole_and_else_in_part_at_the_baseline() -> None:
    whole, part = results_of("bn_label_smooth", gains(), steps=9), results_of("essentials", gains(), steps=99)
    like = results_of("bn_label_smooth", gains())
    asked = effect_named(like, "label smoothing on")
    found = find_same([part, whole], like, asked)
    assert found is not None
    assert found.here is asked
    assert found.results.name == "bn_label_smooth"
    found = find_same([part], like, asked)
    assert found is not None
    assert (found.here.within, found.there.within) == ({"batch_norm": "on"}, {})


def test_part_is_found_by_its_trainings_whatever_the_other_grid_varies(tmp_path: Path) -> None:
    """Elsewhere the initial weights alone are varied, and the grid does not know of batch norm."""
    text = 'base = "dcgan-28"\n[factors.start]\nbaseline = "usual"\nlevels.usual = {}\n'
    (tmp_path / "start.toml").write_text(f'{text}levels.torch = {{ init = "default" }}\n', "utf-8")
    there, like = results_of(tmp_path / "start.toml", gains()), results_of("init", gains())
    found = find_same([there], like, effect_named(like, "init default"))
    assert found is not None
    assert (found.here.within, found.there.name) == ({"batch_norm": "on"}, "start torch")


def test_same_trainings_are_one_question_under_other_names() -> None:
    """Grids call the lack of batch norm ``off`` and ``none``."""
    usual, placed = results_of("essentials", gains()), results_of("normalisation", gains(), steps=999)
    off, none = effect_named(usual, "batch norm off"), effect_named(placed, "batch norm layers none")
    assert question_of(usual, off) == question_of(placed, none)
    found = find_same([placed], usual, off)
    assert found is not None
    assert found.there.name == none.name


def test_levels_of_one_name_on_other_bases_are_two_questions(tmp_path: Path) -> None:
    text = '[factors.beta1]\nbaseline = "0.5"\nlevels."0.5" = {}\nlevels."0.9" = { beta1 = 0.9 }\n'
    for name, base in (("one", ""), ("two", "[set]\nbatch_size = 128\n")):
        (tmp_path / f"{name}.toml").write_text(f'base = "dcgan-28"\n{base}{text}', "utf-8")
    one, two = (results_of(tmp_path / f"{name}.toml", gains()) for name in ("one", "two"))
    assert find_same([two], one, effect_named(one, "beta1 0.9")) is None


def test_decisions_of_two_lengths_are_counted() -> None:
    short, long = Setting("mnist-10k", 99), Setting("mnist-10k", 999)
    before = gains(beta1={"0.0": 0.3, "0.9": 0.9}, dropout={"channels-25": 0.3, "elements-30": 0.12})
    after = gains(beta1={"0.0": -0.3, "0.9": 0.8}, dropout={"channels-25": 0.11, "elements-30": 0.1})
    compared = compare_effects(
        [
            results_of("essentials", before, steps=99),
            results_of("essentials", after, noise=0.05, steps=999),
        ]
    )
    assert compared.settings == [short, long]
    lasts = {effect.name: effect.lasts(short, long) for effect in compared.effects}
    assert lasts["Adam's β1: 0.0 (from 0.5)"] == "other"
    assert lasts["Adam's β1: 0.9 (from 0.5)"] == "same"
    assert lasts["dropout in D: 25 % of channels (from none)"] == "moved"
    assert lasts["dropout in D: 30 % of elements (from none)"] == "undecided"
    assert compared.effects[0].name == "Adam's β1: 0.9 (from 0.5)"
    found = compared.count(short, long)
    assert (found["other"], found.total()) == (1, 10)


def test_answers_count_what_is_too_small_to_matter_and_half_an_interval() -> None:
    nothing = results_of("beta1", gains(beta1={"0.9": -0.01}), noise=0.03, steps=99)
    small = results_of("beta1", gains(beta1={"0.9": 0.03}), steps=999)
    before, after = (effect_named(results, "beta1 0.9") for results in (nothing, small))
    assert (before.decision, after.decision, after.is_too_small) == ("negligible", "higher", True)
    assert compare_answers(before, after) == "same"
    worse = effect_named(results_of("beta1", gains(beta1={"0.9": 0.5})), "beta1 0.9")
    better = effect_named(results_of("beta1", gains(beta1={"0.9": -0.5})), "beta1 0.9")
    open_effect = replace(before, test=NOT_TESTED, equivalence=NOT_TESTED)
    for answer, interval, lasting in (
        (worse, (-math.inf, 0.17), "moved"),
        (worse, (-0.17, math.inf), "undecided"),
        (better, (-0.17, math.inf), "moved"),
        (better, (math.nan, math.nan), "undecided"),
    ):
        assert compare_answers(answer, replace(open_effect, adjusted=Interval(*interval))) == lasting
        assert compare_answers(open_effect, answer) is None


def test_settings_of_one_length_come_in_order_of_what_they_share() -> None:
    """Changes come in the order of their size after the fewest steps."""
    short = results_of("essentials", gains(beta1={"0.0": 0.6, "0.9": 0.3}), steps=99)
    few = results_of("beta1", gains(beta1={"0.9": 3.0}), dataset="fashion-mnist", steps=999)
    many = results_of("essentials", gains(), dataset="mnist", steps=999)
    compared = compare_effects([short, few, many])
    assert [at.name for at in compared.settings] == [
        "99 steps of mnist-10k",
        "999 steps of mnist",
        "999 steps of fashion-mnist",
    ]
    assert compared.effects[0].name == "Adam's β1: 0.0 (from 0.5)"


def test_surest_answer_of_a_setting_counts() -> None:
    """β1 is asked in two grids of one length; the one with more seeds says that it does nothing."""
    few, many = results_of("essentials", gains(beta1={"0.9": 0.5}), seeds=5), results_of("beta1", gains(), seeds=8)
    compared = compare_effects([few, many, results_of("beta1", gains(), steps=999)])
    (effect,) = (effect for effect in compared.effects if effect.name == "Adam's β1: 0.9 (from 0.5)")
    assert [results.name for results, _ in effect.answers.values()] == ["beta1", "beta1"]
    table = compared.tabulate()
    assert set(table.loc[table["change"] == effect.name, "steps"]) == {999, 1_500}


def test_nothing_in_common_compares_nothing() -> None:
    unlike = [results_of("beta1", gains()), results_of("dropout", gains(), steps=999)]
    assert compare_effects(unlike).effects == []
    smoke = results_of("beta1", gains(), steps=999, budget="smoke")
    assert compare_effects([unlike[0], smoke]).effects == []


def test_a_level_whose_runs_diverged_is_an_answer() -> None:
    diverged = results_of("beta1", gains(beta1={"0.9": math.nan}), steps=999)
    compared = compare_effects([results_of("beta1", gains()), diverged])
    assert {effect.name for effect in compared.effects} == {"Adam's β1: 0.0 (from 0.5)", "Adam's β1: 0.9 (from 0.5)"}
