from __future__ import annotations

import itertools
import math

import pandas as pd
import pytest

from gan_ablate.analysis.families import estimate_effects, estimate_simple_effects
from gan_ablate.analysis.pooling import compare_table
from gan_ablate.analysis.user_table import read_table
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.reporting.user_sentences import blank_sentence, blocks_headline, headline, interactions_sentence


def make_frame(effects: dict[str, float], interaction: float = 0.0, num_factors: int = 2) -> pd.DataFrame:
    """Runs of factors a, b, c… of two levels each, with known log effects, and one of a and b together."""
    names = "abcd"[:num_factors]
    rows = []
    for number, levels in enumerate(itertools.product("01", repeat=num_factors)):
        for seed in range(6):
            log = 3 + sum(effects.get(name, 0) * (level == "1") for name, level in zip(names, levels, strict=True))
            log += interaction * (levels[:2] == ("1", "1")) + 0.004 * ((5 * seed + 3 * number) % 7)
            rows.append({**dict(zip(names, levels, strict=True)), "seed": seed, "fid": math.exp(log)})
    return pd.DataFrame(rows)


def headline_of(frame: pd.DataFrame) -> list[str]:
    table = read_table(frame, factors=[str(name) for name in frame if name not in ("seed", "fid")])
    effects = estimate_effects(table.design, table.runs)
    return headline(effects, estimate_simple_effects(table.design, table.runs))


def test_headline_tells_what_helps_what_harms_and_what_does_not_matter() -> None:
    lines = headline_of(make_frame({"a": -0.5, "b": 0.4}, num_factors=3))
    assert [line.partition(" ")[0] for line in lines] == ["**Helps", "**Harms", "**Does"]
    assert lines[0].startswith("**Helps (lowers FID)**: **a 1** -39")
    assert lines[1].startswith("**Harms (raises FID)**: **b 1** +4")
    assert "**c 1**" in lines[2]


def test_an_effect_that_turns_with_another_factor_is_told_at_each_level() -> None:
    (line,) = headline_of(make_frame({"a": -0.3}, interaction=0.6))
    assert line.startswith("**Depends on another factor**: **a 1** with b 0 -2")
    assert "and with b 1 +3" in line


def test_an_interaction_among_three_factors_is_told_as_one() -> None:
    lines = headline_of(make_frame({"a": -0.3}, interaction=0.6, num_factors=3))
    assert any("**a 1 × b 1** +8" in line and "beyond what each does" in line for line in lines)


def test_what_is_not_known_is_named_with_the_seeds_that_would_tell() -> None:
    frame = make_frame({"a": -0.05, "b": 0.02})
    frame["fid"] *= [math.exp(0.2 * ((7 * i) % 5)) for i in range(len(frame))]
    (line,) = headline_of(frame)
    assert line.startswith("**Not known yet**: **")
    assert "seeds in all would tell. The interaction is open." in line


def test_many_effects_are_cut_to_the_largest() -> None:
    frame = make_frame({}, num_factors=1)
    more = pd.concat([frame.query("a == '0'"), *(frame.query("a == '1'").assign(a=f"x{i}") for i in range(8))])
    more["fid"] *= [1.0 if level == "0" else 1 + int(level[1:]) for level in more["a"].str.replace("0x", "x")]
    more["a"] = more["a"].replace({"x0": "y"})
    (harms, *_) = headline_of(more)
    assert harms.startswith("**Harms (raises FID)**: **a x7** +")
    assert harms.endswith("; and 2 more, smaller.")


def test_headline_of_blocks_tells_where_an_effect_differs() -> None:
    frames = [make_frame({"a": sign * 0.5}).assign(data=name) for name, sign in (("one", 1), ("two", -1))]
    frames[1]["fid"] *= [1 + 0.003 * ((3 * i) % 7) for i in range(len(frames[1]))]  # luck of its own
    table = read_table(pd.concat(frames), factors=["a", "b"], blocks=["data"])
    lines = blocks_headline(compare_table(table, OUTCOMES["fid"]))
    assert lines[0].startswith("**Differs between blocks**: **a 1** one +6")
    assert lines[1].startswith("**The same in all blocks, within the margin**: **b 1** ")


def test_blank_values_are_counted_variant_by_variant() -> None:
    runs = pd.DataFrame(
        {"variant": ["on"] * 3 + ["off"] * 3 + ["full"], "status": ["completed"] * 5 + ["failed", "completed"]}
    )
    outcome = OUTCOMES["fid"]
    assert blank_sentence(runs.assign(fid=1.0), outcome) == ""
    sentence = blank_sentence(runs.assign(fid=[1.0, math.nan, 1.0, math.nan, math.nan, math.nan, 1.0]), outcome)
    assert sentence.startswith("FID is blank in 3 of 6 completed runs: off (2 of 2), on (1 of 3). Effects rest on")


@pytest.mark.parametrize(("scale", "words"), [(1.0, "negligible, within the margin"), (60.0, "inconclusive")])
def test_interactions_without_a_sentence_are_counted(scale: float, words: str) -> None:
    frame = make_frame({}, num_factors=3)
    frame["fid"] = [math.exp(3 + scale * (math.log(fid) - 3)) for fid in frame["fid"]]
    table = read_table(frame, factors=["a", "b", "c"])
    interactions = [effect for effect in estimate_effects(table.design, table.runs) if effect.is_interaction]
    sentence = interactions_sentence(interactions)
    assert sentence.startswith("3 other interactions: 3 are")
    assert words in sentence
