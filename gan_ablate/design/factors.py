"""Factors: what a grid varies, and what a variant is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from gan_ablate.design.validation import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

DesignKind = Literal["factorial", "one-at-a-time"]
"""Whether all factors are crossed, or each level is compared with the one baseline."""


class Factor(Model):
    """One thing that a grid varies: its levels, each a name and the fields it sets, and which one is the baseline."""

    baseline: str
    levels: Annotated[dict[str, dict[str, Any]], Field(min_length=2)]


def label_levels(design: DesignKind, factors: Mapping[str, Factor], levels: Mapping[str, str]) -> str:
    """Name a cell: every level of a factorial design, the one changed level of a one-at-a-time design."""
    if design == "factorial":
        shown = dict(levels)
    else:
        shown = {name: level for name, level in levels.items() if level != factors[name].baseline}
    return ", ".join(f"{name.replace('_', ' ')} {level}" for name, level in shown.items()) or "baseline"
