from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gan_ablate.analysis.design import Design
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.trajectories import (
    Standing,
    Trajectory,
    count_standing,
    find_unconverged,
    follow_effects,
    tabulate_curves,
    tabulate_histories,
    tabulate_probes,
)
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.execution.records import Record
from gan_ablate.execution.store import Store
from gan_ablate.reporting.run_sentences import unconverged_sentence
from gan_ablate.reporting.sentences import trajectory_sentence
from gan_ablate.scoring.scores import ProbeScores, RepresentationScores
from tests.synthetic import make_results, save_runs

NAMES = ("first", "second", "third")


@pytest.fixture
def records() -> list[tuple[str, Record]]:
    """Three runs of one variant, whose curves have other FIDs and other steps."""
    planned = plan(load_grid("beta1"), seeds=3)
    records = [record for _, record in make_results(planned, lambda _, seed: 10.0 * (1 + seed)).records]
    return list(zip(NAMES, records[::3], strict=True))


def without_scoring(record: Record) -> Record:
    return record.model_copy(update={"scoring": None, "status": "failed"})


def with_curve(record: Record, steps: list[int]) -> Record:
    """Cut to as many points, at these steps, a second each 100 steps."""
    assert record.scoring is not None
    curve = {
        "curve_steps": steps,
        "curve_train_sec": [step / 100 for step in steps],
        "curve_fid": record.scoring.curve_fid[: len(steps)],
    }
    return record.model_copy(update={"scoring": record.scoring.model_copy(update=curve)})


def test_a_curve_is_a_row_per_point_and_has_seconds_only_where_they_compare(
    records: list[tuple[str, Record]],
) -> None:
    (_, one), (_, other), (_, last) = records
    changed = [
        ("first", without_scoring(one)),  # which must not end the table
        ("second", with_curve(other, [100, 400])),
        ("third", with_curve(last, [200])),
    ]
    curves = tabulate_curves(changed, {last.run_id})
    expected = pd.DataFrame(
        {
            "variant": ["second", "second", "third"],
            "seed": [1, 1, 2],
            "step": [100, 400, 200],
            "train_sec": [1.0, 4.0, math.nan],
            "fid": [100.0, 80.0, 150.0],  # a synthetic curve begins at 5 and 4 times its end
        }
    )
    pd.testing.assert_frame_equal(curves, expected)
    assert list(tabulate_curves([], set()).columns) == list(expected.columns)


def test_histories_stand_one_below_the_other(records: list[tuple[str, Record]]) -> None:
    (_, one), (_, other), (_, last) = records
    histories = [{"step": [1.0, 2.0], "loss_g": [0.1, 0.2]}, {}, {"step": [3.0], "loss_g": [0.3]}]
    changed = [
        (label, record.model_copy(update={"history": history}))
        for label, record, history in zip(NAMES, (one, other, last), histories, strict=True)
    ]
    expected = pd.DataFrame(
        {
            "step": [1.0, 2.0, 3.0],
            "loss_g": [0.1, 0.2, 0.3],
            "variant": ["first", "first", "third"],
            "seed": [0, 0, 2],
        }
    )
    pd.testing.assert_frame_equal(tabulate_histories(changed), expected)
    assert tabulate_histories(changed[1:2]).empty


def test_probes_are_a_row_per_number_of_labels_and_features(records: list[tuple[str, Record]]) -> None:
    (_, one), (_, other), (_, last) = records
    assert last.scoring is not None
    learnt = RepresentationScores(
        probes=[
            ProbeScores(num_labels=100, trained=0.7, untrained=0.5, pixels=0.6),
            ProbeScores(num_labels=1_000, trained=0.9, untrained=0.75, pixels=0.8),
        ],
        arithmetic=None,
        arithmetic_shuffled=None,
        filter_auc=0.8,
        filter_auc_untrained=0.7,
    )
    studied = last.model_copy(update={"scoring": last.scoring.model_copy(update={"representation": learnt})})
    probes = tabulate_probes([("first", without_scoring(one)), ("second", other), ("third", studied)])
    features = ["D's features", "untrained D's", "raw pixels"]
    expected = pd.DataFrame(
        {
            "variant": ["third"] * 6,
            "seed": [2] * 6,
            "num_labels": [100] * 3 + [1_000] * 3,
            "features": features * 2,
            "accuracy": [0.7, 0.5, 0.6, 0.9, 0.75, 0.8],
        }
    )
    pd.testing.assert_frame_equal(probes, expected)
    assert list(tabulate_probes([]).columns) == list(expected.columns)


def test_a_curve_that_lacks_a_value_is_refused(records: list[tuple[str, Record]]) -> None:
    _, record = records[0]
    assert record.scoring is not None
    torn = record.scoring.model_copy(update={"curve_fid": record.scoring.curve_fid[:-1]})
    with pytest.raises(ValueError, match="shorter"):
        tabulate_curves([("first", record.model_copy(update={"scoring": torn}))], set())


STEPS = (300, 600, 900, 1_200, 1_500)


def curves_of(planned: Plan, log_fid: Callable[[str, int], float], noise: float = 0.01) -> pd.DataFrame:
    """FID along training, of every variant's dropout level and step, with a spread over seeds."""
    rng = np.random.default_rng(0)
    rows = [
        (
            variant.label,
            seed,
            step,
            0.01 * step,
            20 * math.exp(log_fid(variant.levels["dropout"], step) + rng.normal(0, noise)),
        )
        for variant in planned.variants
        for seed in planned.seeds
        for step in STEPS
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "step", "train_sec", "fid"])


def trajectory_of(changes: dict[int, float], noise: float = 0.01) -> Trajectory:
    planned = plan(load_grid("dropout"))
    curves = curves_of(planned, lambda level, step: changes[step] if level == "channels-25" else 0.0, noise)
    trajectory, *others = follow_effects(Design.of(planned), curves)
    assert trajectory.effects[0].levels == {"dropout": "channels-25"}
    assert len(others) == 2
    return trajectory


def test_an_effect_is_estimated_at_every_point() -> None:
    changes = dict(zip(STEPS, (-0.1, -0.5, -0.6, -0.7, -0.8), strict=True))
    trajectory = trajectory_of(changes)
    assert trajectory.steps == STEPS
    for effect, change in zip(trajectory.effects, changes.values(), strict=True):
        assert effect.estimate.value == pytest.approx(change, abs=0.03)
    assert trajectory.holds_from == 300
    assert trajectory.turned_at is None
    assert trajectory.peak is None
    assert trajectory_sentence(trajectory) is None


@pytest.mark.parametrize(
    ("changes", "noise", "holds_from", "sentence"),
    [
        (
            (-0.9, -0.9, 0.0, 0.0, 0.0),
            0.01,
            900,
            "**dropout channels-25** lowers FID until step 600, and does not matter from step 900 on.",
        ),
        (
            (-0.9, -0.9, -0.2, 0.3, 0.5),
            0.01,
            1_200,
            "**dropout channels-25** lowers FID until step 900, and raises FID from step 1,200 on.",
        ),
        ((0.0, 0.0, -0.5, -0.5, -0.5), 0.01, 900, None),
        (
            (-0.9, -0.9, 0.0, 0.0, 0.0),
            0.15,
            None,
            "**dropout channels-25** lowers FID until step 600, and is inconclusive at the end.",
        ),
    ],
)
def test_change_of_sign_has_its_step(
    changes: tuple[float, ...], noise: float, holds_from: int | None, sentence: str | None
) -> None:
    trajectory = trajectory_of(dict(zip(STEPS, changes, strict=True)), noise)
    assert trajectory.holds_from == holds_from
    assert trajectory_sentence(trajectory) == sentence


def test_shrinking_effect_is_listed_with_both_sizes() -> None:
    sentence = trajectory_sentence(trajectory_of(dict(zip(STEPS, (-0.5, -0.9, -0.6, -0.4, -0.25), strict=True))))
    assert sentence is not None
    assert sentence.startswith("**dropout channels-25** shrinks: from -5")
    assert "at step 600 to -2" in sentence
    # Where intervals overlap, nobody knows that it has.
    assert (
        trajectory_sentence(trajectory_of(dict(zip(STEPS, (-0.6, -0.7, -0.6, -0.6, -0.5), strict=True)), 0.1)) is None
    )


def test_variants_that_were_still_getting_better_are_found() -> None:
    planned = plan(load_grid("dropout"))
    falling = find_unconverged(
        Design.of(planned), curves_of(planned, lambda level, step: -step / 1_500 * (level == "none"), 0.001)
    )
    assert list(falling) == [planned.baseline.label]
    assert falling[planned.baseline.label] == pytest.approx(-1 / 3, abs=0.01)
    assert unconverged_sentence(planned, falling) == (
        "FID was still falling in 1 of 4 variants, by 28 % over the last third of training: what is better at step "
        "1,500 may only be faster."
    )
    level = curves_of(planned, lambda _, step: -0.2 * step / 1_500, 0.001)
    assert find_unconverged(Design.of(planned), level) == {}
    assert unconverged_sentence(planned, {}) is None
    assert find_unconverged(Design.of(planned), level.iloc[:0]) == {}


def test_diverged_runs_are_plotted_and_not_compared(tmp_path: Path) -> None:
    planned, store = plan(load_grid("dropout"), seeds=2), Store(tmp_path)
    save_runs(store, planned, lambda *_: 20.0)
    record = store.load_record(planned.baseline.with_seed(1).run_id)
    assert record is not None
    store.save_record(record.model_copy(update={"status": "diverged"}))
    results = GridResults.load(store, "dropout")
    assert len(results.curves) == 4 * 2 * 10
    assert len(results.whole_curves) == len(results.curves) - 10
    assert [trajectory.effects[-1].estimate.num_seeds for trajectory in results.trajectories] == [1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "turned_at"),
    [
        ((0.0, -0.9, 0.0, 0.0, 0.0), None),  # a single point of many may be chance
        ((0.0, -0.9, -0.9, 0.0, 0.0), 900),
        ((-0.9, 0.0, -0.9, 0.0, 0.0), None),  # two that do not touch
        ((0.0, 0.0, -0.9, 0.0, -0.9), None),
        ((0.9, 0.9, -0.9, 0.9, 0.0), 600),
        ((0.0, 0.0, 0.9, 0.9, 0.0), 1_200),
    ],
)
def test_decision_of_a_single_point_is_no_change_of_sign(changes: tuple[float, ...], turned_at: int | None) -> None:
    assert trajectory_of(dict(zip(STEPS, changes, strict=True))).turned_at == turned_at


def test_the_last_point_is_not_its_own_neighbour() -> None:
    trajectory = trajectory_of(dict(zip(STEPS, (0.0, -0.9, -0.9, 0.0, 0.0), strict=True)))
    early, _, _, late, _ = trajectory.effects
    cut = dataclasses.replace(trajectory, steps=STEPS[:2], effects=(trajectory.effects[1], late))
    assert cut.turned_at is None
    whole = dataclasses.replace(trajectory, steps=STEPS[:3], effects=(*trajectory.effects[1:3], early))
    assert whole.turned_at == STEPS[1]


def test_last_point_is_not_told_where_the_final_scores_decide_otherwise() -> None:
    """FID along training is taken on fewer images: no page says of one effect that it is found and inconclusive."""
    trajectory = trajectory_of(dict(zip(STEPS, (-0.6, -0.6, 0.3, 0.3, 0.3), strict=True)))
    final = trajectory.effects[0]
    told = trajectory_sentence(trajectory, final, " (on 2,048 images)")
    assert told == f"**dropout channels-25** lowers FID until step {STEPS[1]}, but not at the end (on 2,048 images)."


def test_decisions_are_looked_at_again_after_so_many_times_as_many_steps() -> None:
    turning = trajectory_of(dict(zip(STEPS, (0.7, 0.7, 0.0, -0.3, -0.3), strict=True)), 0.002)
    assert [effect.decision for effect in turning.effects] == ["higher", "higher", "negligible", "lower", "lower"]
    # 300 → 600 and 600 → 1,200; twice 900 steps is beyond the last point.
    assert count_standing([turning], 2) == {True: Standing(2, 1, 1), False: Standing()}
    assert count_standing([turning, turning], 2)[True] == Standing(4, 2, 2)
    assert count_standing([turning], 5 / 3) == {True: Standing(1, 0, 1), False: Standing(1, 0, 1)}
    assert count_standing([turning], 7) == {True: Standing(), False: Standing()}


def test_an_inconclusive_decision_is_neither_looked_at_nor_another_one() -> None:
    steady = trajectory_of(dict.fromkeys(STEPS, 0.7), 0.002)
    test = dataclasses.replace(steady.effects[1].test, is_rejected=False)
    unsure = dataclasses.replace(steady.effects[1], margin=1e-9, test=test)
    assert unsure.decision == "inconclusive"
    fading = dataclasses.replace(steady, effects=(steady.effects[0], unsure, *steady.effects[2:]))
    assert count_standing([fading], 2)[True] == Standing(1, 0, 0)
