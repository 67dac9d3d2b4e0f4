"""A configuration in, the name of its run out: a hash of all that is not at its default."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gan_ablate.design.validation import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL_VERSION = 5
"""Raised whenever the same configuration would give other numbers than before, or a field gets another default."""


class Addressed(Model):
    """What every run's configuration has: a seed, and a name made of its content."""

    if TYPE_CHECKING:
        seed: int

    unnamed_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that change nothing of the answer, and so nothing of the name."""

    @functools.cached_property
    def run_id(self) -> str:
        """Twelve hexadecimal digits that name this configuration: the run's folder.

        What is at its default is left out, so a field that comes later, with today's behaviour as its default, renames
        no run.
        """
        return self.run_id_of(self.seed)

    def run_id_of(self, seed: int) -> str:
        """Name the same run with another seed, without making its configuration: grids may have 100,000 runs."""
        return hashlib.sha256(str(seed).join(self._around_seed).encode()).hexdigest()[:12]

    def with_seed(self, seed: int) -> Self:
        """Return the same run with another seed."""
        other = self.model_copy(update={"seed": seed})
        other.__dict__["_around_seed"] = self._around_seed
        return other

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy as pydantic does, without what was derived from the fields that change."""
        other = super().model_copy(update=update, deep=deep)
        for name in ("run_id", "_around_seed"):
            other.__dict__.pop(name, None)
        return other

    @functools.cached_property
    def _around_seed(self) -> tuple[str, str]:
        """All that names this configuration, before its seed and behind it."""
        content = self.model_dump(mode="json", exclude_defaults=True, exclude=set(self.unnamed_fields))
        content["seed"] = "SEED"
        whole = json.dumps({"protocol": PROTOCOL_VERSION, "config": content}, sort_keys=True)
        before, after = whole.split('"seed": "SEED"')
        return before + '"seed": ', after
