from __future__ import annotations

import math

import pandas as pd
import pytest

from gan_ablate.analysis.trajectories import first_point, tabulate_curves, tabulate_histories, tabulate_probes
from gan_ablate.design.grid import load_grid
from gan_ablate.design.planning import plan
from gan_ablate.execution.store import Record
from gan_ablate.scoring.scores import ProbeScores, RepresentationScores
from tests.synthetic import make_results

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


def test_the_first_point_is_the_first_of_any_run_that_has_one(records: list[tuple[str, Record]]) -> None:
    (_, one), (_, other), (_, last) = records
    changed = [("a", with_curve(one, [300, 600])), ("b", with_curve(other, [200, 700])), ("c", with_curve(last, []))]
    assert first_point(changed) == 200
    assert first_point([("a", without_scoring(one)), *changed[1:]]) == 200
    assert first_point([("a", without_scoring(one))]) == 0


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
            "cell": ["second", "second", "third"],
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
            "cell": ["first", "first", "third"],
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
            "cell": ["third"] * 6,
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
