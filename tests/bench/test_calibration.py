from __future__ import annotations

import re

import numpy as np
import pytest

from bench import stopping
from bench.calibration import SECTIONS, _decide_nominally, _keep_by_e_bh, page, sample_families
from bench.populations import Population
from bench.sequential_simulations import decide


def shares(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


@pytest.mark.slow
def test_error_of_a_level_is_spent_by_the_hundredth_look() -> None:
    """Every level has 5 %, of two sides and of one, and less by earlier looks; and a little more by the 300th."""
    rows = [shares(line) for line in page(100, "levels") if line.startswith("| ")][1:]
    assert len(rows) == 9
    for by_12, by_30, by_100, by_300, *of_one_side in rows:
        assert by_12 <= by_30 <= by_100 <= by_300
        assert by_100 == pytest.approx(5.0, abs=3.5)
        assert of_one_side[2] == pytest.approx(5.0, abs=3.5)


@pytest.mark.parametrize("name", ["cost", "inflation", "depends"])
def test_a_section_has_its_title_and_its_command(name: str) -> None:
    lines = page(40, name)
    assert lines[0] == f"## {SECTIONS[name][0]}"
    assert lines[2] == f"Command: `python -m bench.calibration --only {name}`."
    assert max(map(len, (line for line in lines if not line.startswith("|")))) <= 120


def test_calibrated_levels_settle_no_later_than_nominal_ones() -> None:
    truths = np.array([0.0, 1.0, 3.0])
    values = sample_families(np.random.default_rng(0), Population.NORMAL, (50, 30, 3), truths)
    before, ours = _decide_nominally(values, 1.0), decide(values, 1.0)
    assert (before.is_settled <= ours.is_settled | before.is_settled).all()
    assert before.is_settled.sum() < ours.is_settled.sum()


def test_effects_of_a_family_correlate_by_one_half() -> None:
    (family,) = sample_families(np.random.default_rng(0), Population.NORMAL, (1, 20_000, 2), np.array([1.0, 2.0]))
    assert family.mean(axis=0) == pytest.approx([1, 2], abs=0.05)
    assert np.cov(family.T) == pytest.approx(np.array([[1, 0.5], [0.5, 1]]), abs=0.05)


def test_e_bh_keeps_the_largest_k_of_which_the_smallest_is_enough() -> None:
    # Of three, the first needs 60, two need 30 each, three need 20 each.
    e_values = np.array([[70.0, 31.0, 1.0], [59.0, 1.0, 31.0], [59.0, 1.0, 1.0], [21.0, 20.0, 22.0]])
    kept = [[True, True, False], [True, False, True], [False] * 3, [True] * 3]
    assert _keep_by_e_bh(e_values).tolist() == kept


def test_half_a_deviation_that_is_found_within_twelve_seeds_is_told_twice_as_large() -> None:
    lines = [line for line in stopping.inflation(4_000) if line.startswith("| 0.5 ")]
    factor = float(lines[0].split("|")[3])
    assert factor == pytest.approx(2.1, abs=0.15)
