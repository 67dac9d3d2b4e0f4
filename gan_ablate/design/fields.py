"""Every field that a level can set: what it means, what is valid there, and which shipped grids vary it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import list_grids, load_grid
from gan_ablate.design.layers import merge
from gan_ablate.design.validation import choices
from gan_ablate.errors import UserError

NOT_IN_LEVELS = (
    "seed", "steps", "num_classes", "generator.code", "discriminator.code", "loss.code", "penalty.code",
)  # fmt: skip
"""Options and the data set say these."""


class FieldHelp(NamedTuple):
    """What there is to know of a field.

    Attributes:
        path: as a grid writes it, such as ``generator.norm``.
        valid: its values, in words.
        default: as TOML writes it, or nothing where every preset says it.
        meaning: a sentence, with its source if it is a paper's.
        kinds: of a field that is a table: each kind with what it is.
    """

    path: str
    valid: str
    default: str
    meaning: str
    kinds: dict[str, str]


class LevelHelp(NamedTuple):
    """A level of a shipped grid, and the value that it gives a field, as TOML writes it."""

    grid: str
    factor: str
    level: str
    value: str


def list_fields() -> list[FieldHelp]:
    """List every field that a level can set, those of a network or a loss behind it."""
    schema = RunConfig.model_json_schema()
    found: dict[str, FieldHelp] = {}
    for field in _fields_of(schema, schema["$defs"], ""):
        if field.path in NOT_IN_LEVELS:
            continue
        known = found.setdefault(field.path, field)
        if field.default not in known.default.split(" or "):  # of another kind of network
            found[field.path] = known._replace(default=f"{known.default} or {field.default}")
    return list(found.values())


def find_field(path: str) -> FieldHelp:
    """Find a field by its path, or by the end of it where that names one alone.

    Raises:
        UserError: if there is none.
    """
    fields = {field.path: field for field in list_fields()}
    if path in fields:
        return fields[path]
    ends = [known for known in fields if known.endswith(f".{path}")]
    if len(ends) == 1:
        return fields[ends[0]]
    raise UserError(f"{path}: no such field; {choices(path, ends or list(fields))}")


def find_levels(path: str) -> Iterator[LevelHelp]:
    """Yield the levels of shipped grids that set a field."""
    for name in list_grids():
        for factor_name, factor in load_grid(name).factors.items():
            for level_name, change in factor.levels.items():
                value: Any = merge({}, change)
                for part in path.split("."):
                    value = value.get(part) if isinstance(value, Mapping) else None
                if value is not None:
                    yield LevelHelp(name, factor_name, level_name, _in_toml(value))


def _fields_of(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[FieldHelp]:
    for name, field in schema["properties"].items():
        path = f"{prefix}{name}"
        refs = [part["$ref"] for part in field.get("oneOf", field.get("allOf", [field])) if "$ref" in part]
        nested = [definitions[ref.rsplit("/", 1)[1]] for ref in refs]
        kinds = {
            part["properties"]["kind"]["const"]: " ".join(part.get("description", "").split())
            for part in nested
            if "kind" in part["properties"]
        }
        meaning = " ".join(field.get("description", "").split())
        default = _in_toml(field["default"]) if field.get("default") is not None else ""
        if kinds or not nested:
            yield FieldHelp(path, " | ".join(kinds) or _valid_words(field), default, meaning, kinds)
        for part in nested:
            yield from (f for f in _fields_of(part, definitions, f"{path}.") if f.path != f"{path}.kind")


def _in_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        only_kind = value.get("kind") if list(value) == ["kind"] else None
        inner = ", ".join(f"{name} = {_in_toml(item)}" for name, item in value.items())
        return json.dumps(only_kind) if only_kind else f"{{ {inner} }}"
    return json.dumps(value)


def _valid_words(field: dict[str, Any]) -> str:
    for part in field.get("anyOf", ()):
        if part.get("type") != "null":
            return _valid_words(part)
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "items" in field:
        return f"list of {_valid_words(field['items'])}"
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in field
    ]
    return " ".join([str(field.get("type", "")), ", ".join(bounds)]).strip()
