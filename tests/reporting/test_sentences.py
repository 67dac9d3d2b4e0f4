from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from gan_ablate.analysis.claims import ClaimVerdict, Finding, Verdict
from gan_ablate.analysis.effects import Effect
from gan_ablate.analysis.estimates import Estimate, Interval
from gan_ablate.analysis.tests import HolmTest, RateComparison
from gan_ablate.design.claims import Claim, Factor
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.reporting.formats import change_text
from gan_ablate.reporting.sentences import (
    allowed_rate_words,
    cost_words,
    decision_sentence,
    evidence_words,
    pairing_sentence,
    simple_effects_sentence,
    time_text,
    verdict_words,
)


def of_percent(value: float, low: float, high: float) -> Estimate:
    return Estimate(math.log1p(value / 100), math.log1p(low / 100), math.log1p(high / 100), num_seeds=5, std=0.1)


def make_effect(
    estimate: Estimate, *, is_rejected: bool, levels: dict[str, str] | None = None, outcome: str = "fid"
) -> Effect:
    margin = math.log(1.1) if OUTCOMES[outcome].scale == "ratio" else None
    return Effect(
        levels=levels or {"bn": "on"},
        within={},
        is_fixed=True,
        outcome=OUTCOMES[outcome],
        margin=margin,
        estimate=estimate,
        test=HolmTest(0.012, 0.983, is_rejected=is_rejected),
        adjusted=Interval(estimate.low, estimate.high),
        strictest=Interval(estimate.low, estimate.high),
        needed_seeds=None if is_rejected else 12,
        with_diverged=None,
        sides=np.zeros((5, 2)),
        equivalence=HolmTest(0.01, 0.983, is_rejected=estimate.interval.lies_within(margin)),
    )


SAME_TIME = make_effect(Estimate(0.001, -0.01, 0.012, 5), is_rejected=False, outcome="step_ms_median")


@pytest.mark.parametrize(
    ("percents", "is_rejected", "sentence"),
    [
        (
            (-45, -58, -27),
            True,
            "**bn on** lowers FID: -45.0 % [-58.0, -27.0], 5 seeds, Holm's p = 0.012; ",
        ),
        (
            (71, 46, 100),
            True,
            "**bn on** raises FID: +71.0 % [+46.0, +100], 5 seeds, Holm's p = 0.012; ",
        ),
        (
            (3, 1, 5),
            True,
            (
                "**bn on** raises FID: +3.0 % [+1.0, +5.0], 5 seeds, Holm's p = 0.012; too small to matter, "
                "within the margin of -9.1 % to +10 %; "
            ),
        ),
        (
            (-0.2, -3, 3),
            False,
            (
                "**bn on** does not matter: FID -0.2 % [-3.0, +3.0], 5 seeds, Holm's p = 0.012; "
                "within the margin of -9.1 % to +10 %; "
            ),
        ),
        # Its own interval excludes zero, but the family of tests does not allow to call it an effect.
        (
            (-9, -16, -1),
            False,
            (
                "**bn on** is inconclusive, leaning lower: FID -9.0 % [-16.0, -1.0], 5 seeds, Holm's p = 0.012; "
                "without the adjustment it is lower; 6 to 74 seeds in all would tell; "
            ),
        ),
    ],
)
def test_a_sentence_says_no_more_than_its_test(
    percents: tuple[float, float, float], is_rejected: bool, sentence: str
) -> None:
    effect = make_effect(of_percent(*percents), is_rejected=is_rejected)
    assert decision_sentence(effect, SAME_TIME) == (
        f"{sentence}step time +0.1 % [-1.0, +1.2], no certain change{allowed_rate_words(effect)}."
    )
    is_small = effect.decision == "negligible" or effect.is_too_small
    assert allowed_rate_words(effect) == (
        "; 5 seeds cannot exclude that up to 45 % of its runs collapse" if is_small else ""
    )


def test_a_cost_is_claimed_outside_its_interval_only() -> None:
    effect = make_effect(of_percent(-45, -58, -27), is_rejected=True)
    for is_rejected, words in (
        (True, "step time +14.0 % [+9.0, +19.0]."),
        (False, "[+9.0, +19.0], no certain change."),
    ):
        slower = make_effect(of_percent(14, 9, 19), is_rejected=is_rejected, outcome="step_ms_median")
        assert decision_sentence(effect, slower).endswith(words)
    assert decision_sentence(effect, None).endswith("its cost is not known.")


def test_an_interaction_is_told_as_one() -> None:
    effect = make_effect(of_percent(59, 29, 96), is_rejected=True, levels={"bn": "on", "ls": "on"})
    assert "with both, FID is higher than their separate effects would make it: +59.0 % [+29.0, +96.0], 5 seeds" in (
        decision_sentence(effect, SAME_TIME)
    )
    small = make_effect(of_percent(1, -4, 6), is_rejected=False, levels={"bn": "on", "ls": "on"})
    sentence = decision_sentence(small, SAME_TIME)
    assert ": no interaction that matters: +1.0 % [-4.0, +6.0], 5 seeds" in sentence
    assert "; within the margin of -9.1 % to +10 %; 5 seeds cannot exclude that" in sentence
    unknown = make_effect(of_percent(1, -14, 16), is_rejected=False, levels={"bn": "on", "ls": "on"})
    assert ": whether they interact is inconclusive: +1.0 % [-14.0, +16.0]" in decision_sentence(unknown, SAME_TIME)


def test_simple_effects_are_told_where_they_differ() -> None:
    def at(place: str, percents: tuple[float, float, float], std: float) -> Effect:
        estimate = dataclasses.replace(of_percent(*percents), std=std)
        return dataclasses.replace(make_effect(estimate, is_rejected=False), within={"norm": place})

    even = [at("off", (1, -4, 6), 0.04), at("on", (0, -3, 3), 0.03)]
    assert simple_effects_sentence(even, varies=False) is None
    uneven = [at("off", (1, -4, 6), 0.08), at("on", (0, -3, 3), 0.03)]
    assert simple_effects_sentence(uneven, varies=False) == (
        "**bn on**, level by level: with norm off +1.0 % [-4.0, +6.0], negligible; "
        "with norm on 0.0 % [-3.0, +3.0], negligible."
    )
    differing = [at("off", (21, -17, 75), 0.04), at("on", (0, -3, 3), 0.03)]
    assert simple_effects_sentence(differing, varies=False) is None  # two labels are no difference
    told = str(simple_effects_sentence(differing, varies=True))
    assert "with norm off +21.0 % [-17.0, +75.0], inconclusive; with norm on" in told


def test_rates_stand_beside_the_effect() -> None:
    effect = make_effect(of_percent(-45, -58, -27), is_rejected=True)
    rates = RateComparison(0, 10, 7, 10, 0.0031, 0.0062)
    sentence = decision_sentence(dataclasses.replace(effect, rates={"diverged": rates}), SAME_TIME)
    assert sentence.endswith("; diverged 0/10 runs against 7/10 (Holm's p = 0.0062).")
    nothing = make_effect(Estimate(math.nan, math.nan, math.nan, 0), is_rejected=False)
    nothing = dataclasses.replace(nothing, rates={"diverged": RateComparison(0, 5, 5, 5, 0.0079)})
    words = decision_sentence(nothing, None)
    assert words.startswith("**bn on**: no seed has a score")
    assert "5/5" in words


def test_huge_changes_are_not_told_to_the_digit() -> None:
    effect = make_effect(Estimate(20.0, 1.0, 39.0, 5), is_rejected=True)
    assert "raises FID: > +9,999 % [" in decision_sentence(effect, SAME_TIME)


def test_seeds_that_agree_to_the_last_digit_are_told_as_such() -> None:
    effect = make_effect(Estimate(0.0, math.nan, math.nan, 5), is_rejected=False)
    assert decision_sentence(effect, SAME_TIME) == (
        "**bn on**: FID 0.0 % in each of 5 seeds alike; there is nothing to test."
    )


def test_outcomes_are_told_on_their_own_scale() -> None:
    kid = make_effect(Estimate(-0.0123, -0.02, 0.5, 5), is_rejected=False, outcome="kid")
    assert change_text(kid, kid.estimate) == "-0.0123 [-0.02, +0.5]"
    fid = make_effect(of_percent(-45, -58.25, -27), is_rejected=True)
    assert evidence_words(fid) == "FID, bn on: -45.0 % [-58.2, -27.0], p = 0.012"


def claim_verdict_of(*verdicts: Verdict, estimate: Estimate, needed: int | None) -> ClaimVerdict:
    effect = dataclasses.replace(make_effect(estimate, is_rejected=False), needed_seeds=needed)
    claim = Claim(sentence="bn helps", levels=[{"bn": "on"}], direction="lower")
    findings = tuple(Finding(claim.decisive[0], effect, verdict) for verdict in verdicts)
    overall = verdicts[0] if len(set(verdicts)) == 1 else "inconclusive"
    return ClaimVerdict(claim, overall, findings, ())


FIVE, ONE = of_percent(-9, -16, 1), Estimate(-2.0, math.nan, math.nan, 1)


@pytest.mark.parametrize(
    ("claim_verdict", "words"),
    [
        (claim_verdict_of("supported", estimate=FIVE, needed=4), "**supported**"),
        (claim_verdict_of("negligible", estimate=FIVE, needed=None), "**negligible**"),
        (
            claim_verdict_of("inconclusive", estimate=FIVE, needed=24),
            "inconclusive: 6 to 74 seeds in all would tell",
        ),
        (
            claim_verdict_of("inconclusive", estimate=FIVE, needed=None),
            "inconclusive: no number of seeds in reach would tell",
        ),
        (
            claim_verdict_of("inconclusive", estimate=ONE, needed=None),
            "inconclusive: too few seeds have a score to compare",
        ),
        (
            claim_verdict_of("supported", "refuted", "inconclusive", estimate=FIVE, needed=4),
            "**supported** for on, **refuted** for on",
        ),
    ],
)
def test_an_inconclusive_verdict_says_what_would_settle_it(claim_verdict: ClaimVerdict, words: str) -> None:
    assert verdict_words(claim_verdict, is_complete=True) == words


def test_verdict_on_an_average_of_effects_that_differ_says_depends() -> None:
    verdict = claim_verdict_of("refuted", estimate=FIVE, needed=None)
    places = {"off": of_percent(27, 1, 55), "on": of_percent(-1, -3, 1)}
    simple = tuple(
        dataclasses.replace(make_effect(estimate, is_rejected=place == "off"), within={"norm": place})
        for place, estimate in places.items()
    )
    words = verdict_words(dataclasses.replace(verdict, verdict="depends", simple=simple), is_complete=True)
    assert words == (
        "**depends**: with norm off +27.0 % [+1.0, +55.0], higher; with norm on -1.0 % [-3.0, +1.0], negligible"
    )


def test_average_says_over_what_with_its_adjusted_interval() -> None:
    effect = dataclasses.replace(
        make_effect(of_percent(20, 10, 30), is_rejected=True), adjusted=Interval(math.log(1.05), math.log(1.4))
    )
    sentence = decision_sentence(effect, None, average=" on average over norm", tells_cost=False)
    assert sentence == ("**bn on** raises FID: +20.0 % [+5.0, +40.0] on average over norm, 5 seeds, Holm's p = 0.012.")


def test_claim_of_no_difference_says_what_each_level_changes_where_the_margin_is_open() -> None:
    higher = [make_effect(of_percent(value, 3, 60), is_rejected=True) for value in (32, 26)]
    claim = Claim(sentence="Nothing matters", levels=[{"bn": "on"}], direction="none")
    findings = tuple(Finding(claim.decisive[0], effect, "inconclusive") for effect in higher)
    words = verdict_words(ClaimVerdict(claim, "inconclusive", findings, ()), is_complete=True)
    assert words == "inconclusive: FID is higher (+32 %, +26 %); whether beyond the margin of -9.1 % to +10 % is open"


def test_verdict_names_levels_by_their_labels() -> None:
    verdict = claim_verdict_of("supported", "inconclusive", estimate=FIVE, needed=4)
    factors = {"bn": Factor(baseline="off", levels={"off": {}, "on": {}}, labels={"on": "on_every layer"})}
    words = verdict_words(dataclasses.replace(verdict, verdict="supported"), is_complete=True, factors=factors)
    assert words == "**supported** for on\\_every layer"


def test_step_time_of_two_runs_is_not_measured() -> None:
    """Two seeds give an interval from -100 % to anything: it says nothing, and is not shown."""
    two = make_effect(Estimate(0.1, -8.0, 8.2, 2), is_rejected=False, outcome="step_ms_median")
    assert cost_words(two) == "step time not measured (2 runs)"
    assert time_text(two) == "not measured (2 runs)"
    wide = make_effect(Estimate(0.1, -8.0, 8.2, 3), is_rejected=False, outcome="step_ms_median")
    assert time_text(wide) == "not measured (3 runs)"
    three = make_effect(Estimate(0.1, -0.2, 0.4, 3), is_rejected=False, outcome="step_ms_median")
    assert time_text(three).startswith("+10.5 % [")


def test_a_verdict_before_the_last_run_is_provisional() -> None:
    claim_verdict = claim_verdict_of("refuted", estimate=FIVE, needed=4)
    assert verdict_words(claim_verdict, is_complete=False) == "refuted, provisionally: runs are missing"


def test_it_is_said_where_pairing_pays_and_where_it_does_not() -> None:
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(40, 1)), rng.normal(size=(40, 2))
    gains = {"alike": 3 * shared + 0.3 * own, "apart": own, "few": 0.7 * shared[:5] + own[:5]}
    effects = [
        dataclasses.replace(make_effect(FIVE, is_rejected=False, levels={name: "on"}), sides=sides)
        for name, sides in gains.items()
    ]
    assert pairing_sentence(effects) == (
        "What pairing is worth: it saves seeds for: alike on; buys little for: apart on; is not known for: few on."
    )
    assert pairing_sentence([make_effect(FIVE, is_rejected=False)]) is None
