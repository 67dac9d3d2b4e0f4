"""Settings: parse options, merge layers of settings, and list the blocks within which variants are compared."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from gan_ablate.design.grid import MAX_NAME, load_preset
from gan_ablate.design.validation import Model, check_depth, shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.grid import Grid


Layer: TypeAlias = tuple[str, dict[str, Any]]
"""The name of a place, for messages, and what is set there."""


def find_origin(fields: list[str], layers: list[Layer]) -> str | None:
    """Say which layer set one of the fields, the last first; where none did, which one set the first field's table."""
    paths = [field.split(".") for field in fields]
    for alternatives in (paths, *([paths[0][:length]] for length in range(len(paths[0]) - 1, 0, -1))):
        for place, change in reversed(layers):
            if any(_sets(change, path) for path in alternatives):
                return place
    return None


def _sets(change: Mapping[str, Any], path: list[str]) -> bool:
    node: Any = change
    for part in path:
        if not isinstance(node, dict):  # the short form of a table, which sets all of it
            return True
        if part not in node:
            return False
        node = node[part]
    return True


def parse_override(text: str) -> dict[str, Any]:
    """Read one ``--set path=value``, the value in TOML's notation or a bare word, as what it sets.

    Raises:
        UserError: if it is none.
    """
    source = f"--set {shorten(text)}"
    if not text.isprintable():
        raise UserError(f"{source}: one line with one value that can be printed; repeat --set for more")
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"{source}: valid: path=value, such as loss.real_label=0.9")
    try:
        parsed, *others = tomllib.loads(f"value = {value}").values()
    except (ValueError, RecursionError):  # not TOML, or of more digits than Python converts: a bare word
        parsed, others = value.strip(), []
    if others:
        raise UserError(f"{source}: one line with one value; repeat --set for more")
    check_depth({path.strip(): parsed}, source)
    return merge({}, {path.strip(): parsed})


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``change`` over ``base``, tables into tables; a table of another ``kind`` replaces the old one whole."""
    merged = dict(base)
    for dotted, given in change.items():
        name, _, rest = dotted.partition(".")
        value = {rest: given} if rest else given
        old = merged.get(name)
        if isinstance(value, dict):
            if isinstance(old, str):  # the short form of a table, as in init = "normal"
                old = {"kind": old}
            same_kind = isinstance(old, dict) and value.get("kind", old.get("kind")) == old.get("kind")
            merged[name] = merge(old if same_kind and isinstance(old, dict) else {}, value)
        else:
            merged[name] = value
    return merged


TELLING = ("dataset", "preset")
"""Fields whose values need no name to be understood."""


@dataclass(frozen=True)
class Block:
    """One setting within which a grid's variants are compared.

    Attributes:
        preset: what every variant starts from.
        below: what it sets below the levels, as the grid's ``[blocks]`` say.
        above: what it sets above them, as options say.
        fields: that it sets → the values, as they were given.
    """

    preset: str
    below: tuple[Layer, ...]
    above: tuple[Layer, ...]
    fields: dict[str, str]


def count_blocks(grid: Grid, datasets: Sequence[str] = (), bases: Sequence[str] = ()) -> int:
    """Count the blocks that ``list_blocks`` would list."""
    return math.prod(len(values) for values in _values(grid, datasets, bases).values())


def list_blocks(grid: Grid, datasets: Sequence[str] = (), bases: Sequence[str] = ()) -> list[Block]:
    """Cross the values of a grid's blocks.

    Args:
        grid: whose ``[blocks]``.
        datasets: instead of its data sets.
        bases: instead of its base presets.

    Raises:
        UserError: if a preset does not exist.
    """
    values = _values(grid, datasets, bases)
    for preset in values.get("preset", ()):
        load_preset(str(preset), "--base" if bases else f"{grid.source}: blocks.preset")
    blocks = []
    for combination in itertools.product(*values.values()):
        settings = dict(zip(values, combination, strict=True))
        below = [
            (f"{grid.source}, [blocks]", merge({}, {field: value}))
            for field, value in settings.items()
            if field != "preset" and not (field == "dataset" and datasets)
        ]
        texts = {
            field: str(value).lower() if isinstance(value, bool) else str(value) for field, value in settings.items()
        }
        above: list[Layer] = []
        if datasets:
            above.append((f"--dataset {shorten(settings['dataset'])}", {"dataset": settings["dataset"]}))
        blocks.append(Block(str(settings.get("preset", grid.base)), tuple(below), tuple(above), texts))
    return blocks


def _values(grid: Grid, datasets: Sequence[str], bases: Sequence[str]) -> dict[str, Sequence[Any]]:
    given = {field: chosen for field, chosen in (("preset", bases), ("dataset", datasets)) if chosen}
    return {**grid.blocks, **given}


def tell_apart(grid: Grid, block: Block, config: AnyConfig, resolve: Callable[[Block], AnyConfig]) -> dict[str, str]:
    """Say in which fields the baseline of a block is another one than the grid's without blocks: field → value.

    Args:
        grid: whose block.
        block: any.
        config: of its baseline.
        resolve: a block → the configuration of its baseline.
    """
    try:
        plain = resolve(Block(grid.base, (), (), {}))
    except UserError:  # it needs the block's values
        plain = None
    own = {}
    for field in block.fields:
        value, other = (block.preset, grid.base) if field == "preset" else (
            look_up(config, field), None if plain is None else look_up(plain, field)
        )  # fmt: skip
        if value != other:
            own[field] = config.dataset if field == "dataset" else block.fields[field]  # a folder by its content
    return order_block(own)


def order_block(own: Mapping[str, str]) -> dict[str, str]:
    """Put what sets a block apart in an order that depends on nothing else."""
    first = {field: place for place, field in enumerate(("preset", "dataset"))}
    return dict(sorted(own.items(), key=lambda pair: (first.get(pair[0], len(first)), pair[0])))


def look_up(config: AnyConfig, path: str) -> object:
    """Find a field of a configuration by its dotted path, a table by its kind; ``none`` where there is none."""
    node: object = config
    for part in path.split("."):
        node = getattr(node, part, "none")
    return getattr(node, "kind", node) if isinstance(node, Model) else node


def file_name(words: str) -> str:
    """Write words so that any system takes them for a file's name; those that are too long end in a hash of theirs."""
    name = re.sub(r"[^\w.+-]+", "-", words)
    return name if len(name) <= MAX_NAME else f"{name[:60]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
