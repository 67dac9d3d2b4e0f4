"""Layers of settings: parse options, merge layers, and find the layer that sets a field."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, TypeAlias

from gan_ablate.design.validation import check_depth, shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
