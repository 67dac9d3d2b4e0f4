"""A Grid and what options set apart in, the blocks out: settings within each of which everything is compared."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_preset
from gan_ablate.design.layers import Layer, merge
from gan_ablate.design.validation import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.design.grid import Grid


@dataclass(frozen=True)
class Block:
    """One setting within which a grid's variants are compared.

    Attributes:
        preset: what every variant starts from.
        below: what it sets below the levels, as the grid's ``[blocks]`` say.
        above: what it sets above them, as options say.
        own: field → value, of what sets the block apart from the grid as its file has it without ``[blocks]``.
    """

    preset: str
    below: tuple[Layer, ...]
    above: tuple[Layer, ...]
    own: dict[str, str]


def list_blocks(grid: Grid, datasets: Sequence[str] = (), bases: Sequence[str] = ()) -> list[Block]:
    """Cross the values of a grid's blocks.

    Args:
        grid: whose ``[blocks]``.
        datasets: instead of its data sets.
        bases: instead of its base presets.

    Raises:
        UserError: if a preset does not exist.
    """
    values: dict[str, Sequence[Any]] = dict(grid.blocks)
    given = {field: chosen for field, chosen in (("preset", bases), ("dataset", datasets)) if chosen}
    values |= given
    plain = merge(load_preset(grid.base, f"{grid.source}: base"), grid.set) | {"preset": grid.base}
    blocks = []
    for combination in itertools.product(*values.values()):
        settings = dict(zip(values, combination, strict=True))
        preset = str(settings.get("preset", grid.base))
        load_preset(preset, "--base" if bases else f"{grid.source}: blocks.preset")
        below = [
            (f"{grid.source}, [blocks]", merge({}, {field: value}))
            for field, value in settings.items()
            if field not in given and field != "preset"
        ]
        above: list[Layer] = []
        if datasets:
            above.append((f"--dataset {shorten(settings['dataset'])}", {"dataset": settings["dataset"]}))
        own = {field: _text(value) for field, value in settings.items() if value != _find(plain, field)}
        blocks.append(Block(preset, tuple(below), tuple(above), own))
    return blocks


def _find(data: dict[str, Any], path: str) -> Any:
    """Look a field up; the default data set is said nowhere."""
    node: Any = data
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return RunConfig.model_fields["dataset"].default if path == "dataset" and node is None else node


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
