from __future__ import annotations

import math

import pytest

from gan_ablate.effects import Effect
from gan_ablate.stats import Estimate
from gan_ablate.wording import answer_sentence, effects_table

SAME_TIME = Estimate(0.001, -0.01, 0.012, 5)


def of_percent(value: float, low: float, high: float) -> Estimate:
    return Estimate(math.log1p(value / 100), math.log1p(low / 100), math.log1p(high / 100), num_seeds=5)


@pytest.mark.parametrize(
    ("percents", "sentence"),
    [
        ((-45, -58, -27), "**bn on** lowers FID by 45 % (95 % interval -58 to -27 %, 5 seeds); "),
        ((71, 46, 100), "**bn on** raises FID by 71 % (95 % interval +46 to +100 %, 5 seeds); "),
        ((-0.2, -3, 3), "**bn on** shows no clear effect on FID: 0 % (95 % interval -3 to +3 %, 5 seeds); "),
    ],
)
def test_a_sentence_says_no_more_than_its_interval(percents: tuple[float, float, float], sentence: str) -> None:
    effect = Effect({"bn": "on"}, of_percent(*percents), SAME_TIME)
    assert answer_sentence(effect) == sentence + "no clear change of the step's time."


def test_a_cost_is_claimed_outside_its_interval_only() -> None:
    fid = of_percent(-45, -58, -27)
    slower = Effect({"bn": "on"}, fid, of_percent(14, 9, 19))
    assert answer_sentence(slower).endswith("a step takes 14 % longer.")
    unknown = Effect({"bn": "on"}, fid, Estimate(math.nan, math.nan, math.nan, 0))
    assert answer_sentence(unknown).endswith("its cost is not known.")


def test_an_interaction_is_told_as_one() -> None:
    effect = Effect({"bn": "on", "ls": "on"}, of_percent(59, 29, 96), SAME_TIME)
    assert "with both, FID is 59 % higher than their separate effects" in answer_sentence(effect)
    assert "| bn on × ls on (interaction) | +59.0 % [+29.0, +96.0] |" in effects_table([effect])[2].replace("  ", " ")
