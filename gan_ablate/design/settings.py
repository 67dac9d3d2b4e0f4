"""Settings: parse options, merge layers of settings, and list the blocks and variants of a grid."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, assert_never

from gan_ablate.design.grid import MAX_NAME, list_grids, load_grid, load_preset
from gan_ablate.design.validation import Model, check_depth, shorten, write_toml
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gan_ablate.design.external import AnyConfig
    from gan_ablate.design.grid import Grid


Layer: TypeAlias = tuple[str, dict[str, Any]]
"""The name of a layer, for messages, and its settings."""


def find_origin(fields: list[str], layers: list[Layer]) -> str | None:
    """Name the last layer that sets one of the fields, or else the last one that sets a table of the first field."""
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
    """Parse one ``--set path=value``, the value in TOML's notation or a bare word.

    Raises:
        UserError: if the text is not of that form.
    """
    source = option("overrides", shorten(text))
    if not text.isprintable():
        raise UserError(
            f"{source}: one line with one value that can be printed; for more, repeat {option('overrides')}"
        )
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"{source}: valid: path=value, such as loss.real_label=0.9")
    try:
        parsed, *others = tomllib.loads(f"value = {value}").values()
    except (ValueError, RecursionError):  # not TOML, or of more digits than Python converts: a bare word
        parsed, others = value.strip(), []
    if others:
        raise UserError(f"{source}: one line with one value; for more, repeat {option('overrides')}")
    check_depth({path.strip(): parsed}, source)
    return merge({}, {path.strip(): parsed})


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``change`` into ``base``, tables recursively; a table of another ``kind`` replaces the old one whole."""
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


def write_settings(change: Mapping[str, Any], *, is_flat: bool = False) -> list[str]:
    """Write settings as a grid file has them: ``["loss.real_label = 0.9"]``.

    Args:
        change: the settings.
        is_flat: whether the fields of a table with a ``kind`` are written one by one, too.
    """
    return [f"{path} = {write_toml(value)}" for path, value in _flatten(merge({}, change), is_flat=is_flat)]


def _flatten(change: Mapping[str, Any], *, is_flat: bool) -> Iterator[tuple[str, Any]]:
    for name, value in change.items():
        if isinstance(value, dict) and value and (is_flat or "kind" not in value):
            yield from ((f"{name}.{path}", inner) for path, inner in _flatten(value, is_flat=is_flat))
        else:
            yield name, value


class LevelHelp(NamedTuple):
    """A level of a shipped grid, and the value of a field in it, in TOML."""

    grid: str
    factor: str
    level: str
    value: str


def find_levels(path: str) -> Iterator[LevelHelp]:
    """Yield the levels of shipped grids that set a field."""
    for name in list_grids():
        for factor_name, factor in load_grid(name).factors.items():
            for level_name, change in factor.levels.items():
                value: Any = merge({}, change)
                for part in path.split("."):
                    value = value.get(part) if isinstance(value, dict) else None
                if value is not None:
                    yield LevelHelp(name, factor_name, level_name, write_toml(value))


def count_variants(grid: Grid) -> int:
    """Count the variants of a grid's design."""
    counts = [len(factor.levels) for factor in grid.factors.values()]
    return math.prod(counts) if grid.design == "factorial" else 1 + sum(count - 1 for count in counts)


def list_combinations(grid: Grid) -> Iterator[dict[str, str]]:
    """Yield a level for every factor, the variant with all baselines first."""
    baseline = {name: factor.baseline for name, factor in grid.factors.items()}
    others = {
        name: [level for level in factor.levels if level != factor.baseline] for name, factor in grid.factors.items()
    }
    match grid.design:
        case "factorial":
            ordered = ([baseline[name], *others[name]] for name in grid.factors)
            yield from (dict(zip(grid.factors, levels, strict=True)) for levels in itertools.product(*ordered))
        case "one-at-a-time":
            yield baseline
            yield from ({**baseline, name: level} for name, levels in others.items() for level in levels)
        case _:
            assert_never(grid.design)


SELF_EXPLAINING = ("dataset", "preset")
"""Fields whose values are understood without the field's name."""


@dataclass(frozen=True)
class Block:
    """One block: settings within which a grid's variants are compared.

    Attributes:
        preset: the preset that every variant starts from.
        below: settings of the grid's ``[blocks]``, which levels replace.
        above: settings of options, which replace those of levels.
        fields: field → value, as the grid or the options give them.
    """

    preset: str
    below: tuple[Layer, ...]
    above: tuple[Layer, ...]
    fields: dict[str, str]


def count_blocks(grid: Grid, datasets: Sequence[str] = (), bases: Sequence[str] = ()) -> int:
    """Count the blocks that ``list_blocks`` lists."""
    return math.prod(len(values) for values in _values(grid, datasets, bases).values())


def list_blocks(grid: Grid, datasets: Sequence[str] = (), bases: Sequence[str] = ()) -> list[Block]:
    """List every combination of the values of a grid's ``[blocks]``.

    Args:
        grid: the grid.
        datasets: replace its data sets.
        bases: replace its base presets.

    Raises:
        UserError: if a preset does not exist.
    """
    values = _values(grid, datasets, bases)
    for preset in values.get("preset", ()):
        load_preset(str(preset), option("base") if bases else f"{grid.source}: blocks.preset")
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
            above.append((option("dataset", shorten(settings["dataset"])), {"dataset": settings["dataset"]}))
        blocks.append(Block(str(settings.get("preset", grid.base)), tuple(below), tuple(above), texts))
    return blocks


def _values(grid: Grid, datasets: Sequence[str], bases: Sequence[str]) -> dict[str, Sequence[Any]]:
    given = {field: chosen for field, chosen in (("preset", bases), ("dataset", datasets)) if chosen}
    return {**grid.blocks, **given}


def tell_apart(grid: Grid, block: Block, config: AnyConfig, resolve: Callable[[Block], AnyConfig]) -> dict[str, str]:
    """Return field → value where the baseline of a block differs from that of the grid without blocks.

    Args:
        grid: the grid.
        block: one of its blocks.
        config: the configuration of the block's baseline.
        resolve: returns the configuration of a block's baseline.
    """
    try:
        plain = resolve(Block(grid.base, (), (), {}))
    except UserError:  # the grid is not valid without the block's values
        plain = None
    apart = {}
    for field in block.fields:
        value, other = (block.preset, grid.base) if field == "preset" else (
            look_up(config, field), None if plain is None else look_up(plain, field)
        )  # fmt: skip
        if value != other:
            apart[field] = config.dataset if field == "dataset" else block.fields[field]  # a folder by its content
    return order_block(apart)


def order_block(apart: Mapping[str, str]) -> dict[str, str]:
    """Sort the fields that set a block apart: the preset, the data set, then the others by name."""
    first = ("preset", "dataset")
    known = {field: apart[field] for field in first if field in apart}
    return known | {field: apart[field] for field in sorted(apart.keys() - known.keys())}


def look_up(config: AnyConfig, path: str) -> object:
    """Return a field of a configuration by its dotted path, the kind of a table; ``none`` where there is no field."""
    node: object = config
    for part in path.split("."):
        node = getattr(node, part, "none")
    return getattr(node, "kind", node) if isinstance(node, Model) else node


def file_name(words: str) -> str:
    """Turn words into a file's name that any system takes; a long one is cut and ends in a hash."""
    name = re.sub(r"[^\w.+-]+", "-", words)
    return name if len(name) <= MAX_NAME else f"{name[:60]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
