"""Runs of a few steps for tests."""

from __future__ import annotations

import functools
from typing import Any

import torch

from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import list_grids, load_grid, load_preset
from gan_ablate.design.plan import plan
from gan_ablate.design.validation import validate


def make_config(preset: str = "dcgan-28", /, **changes: Any) -> RunConfig:
    """Build a run of a few steps, with top-level fields changed."""
    scoring = {"features": "digits", "num_samples": 1_280, "curve_samples": 1_280, "curve_points": 1}
    data = {**load_preset(preset, "test"), "steps": 3, "seed": 0, "scoring": scoring, **changes}
    return validate(RunConfig, data, "test")


def make_images(config: RunConfig, num: int) -> torch.Tensor:
    """Sample random images of a run's size: (num, 1, S, S) uint8, the same every time."""
    shape = (num, 1, config.image_size, config.image_size)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@functools.cache
def shipped_variants() -> dict[str, RunConfig]:
    """Every variant of every shipped grid, once, by the name of its first grid and its label."""
    variants: dict[str, RunConfig] = {}
    known = set()
    for name in list_grids():
        for variant in plan(load_grid(name), budget="smoke").variants:
            if variant.config.run_id not in known:
                known.add(variant.config.run_id)
                variants[f"{name}: {variant.label}"] = variant.trained
    return variants
