"""Runs of a few steps for tests."""

from __future__ import annotations

from typing import Any

from gan_ablate.config import RunConfig
from gan_ablate.grid import load_preset
from gan_ablate.validation import validate


def make_config(preset: str = "dcgan-28", /, **changes: Any) -> RunConfig:
    """Build a run of a few steps, with top-level fields changed."""
    scoring = {"features": "digits", "num_samples": 1_280, "curve_samples": 1_280, "curve_points": 1}
    data = {**load_preset(preset, "test"), "steps": 3, "seed": 0, "scoring": scoring, **changes}
    return validate(RunConfig, data, "test")
