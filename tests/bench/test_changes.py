from __future__ import annotations

from pathlib import Path

import pytest

from bench import changes
from bench.changes import check_checkout, describe_changes, take_turns
from bench.machine import Peak
from gan_ablate.errors import UserError


def test_ratios_are_taken_turn_by_turn_and_the_peak_is_that_of_the_model() -> None:
    peaks = {"fp32": Peak(1, "fp32", 145.0, 50.0)}
    section = describe_changes({("mlp", "fp32"): [[0.02, 0.04], [0.01, 0.01]]}, peaks, 2)
    row = [cell.strip() for cell in section.splitlines()[-1].strip("|").split("|")]
    assert row[:5] == ["mlp", "fp32", "30", "10", "0.38 (0.25 to 0.50)"]
    assert row[5:] == ["72.5", "50%"]


@pytest.mark.slow
def test_a_checkout_takes_its_own_steps_in_turns(tmp_path: Path) -> None:
    """A stand-in of another checkout has a step of its own."""
    for package in ("bench", "gan_ablate/training"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package.partition("/")[0] / "__init__.py").touch()
    (tmp_path / "gan_ablate" / "training" / "runtime.py").write_text("def keep_memory(): pass\n", "utf-8")
    (tmp_path / "bench" / "subjects.py").write_text(
        """
import time

class Subject:
    def trainer(self, precision):
        return self

    def step(self):
        time.sleep(0.05)

SUBJECTS = {"mlp": Subject()}
""",
        "utf-8",
    )
    slow, fast = take_turns(("mlp", "fp32"), (tmp_path, changes.HERE), 2, 0.01)
    assert len(slow) == len(fast) == 2
    assert min(slow) >= 0.05


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="valid: a checkout of this project"):
        check_checkout(tmp_path)
