"""The content hash of a configuration, which names its run."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gan_ablate.design.validation import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL_VERSION = 5
"""Raised whenever every configuration would give other numbers than before, or a field gets another default.

Where only some would, ``Addressed.revisions`` names them anew.
"""


class Addressed(Model):
    """What every run's configuration has: a seed, and a name made of its content."""

    if TYPE_CHECKING:
        seed: int

    unnamed_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that change nothing of the answer, and so nothing of the name."""

    @property
    def revisions(self) -> tuple[str, ...]:
        """Corrections that changed the numbers of runs like this one, and so their names; other runs keep theirs."""
        return ()

    @functools.cached_property
    def run_id(self) -> str:
        """Twelve hexadecimal digits that name this configuration: the run's folder.

        What is at its default is left out, so a field that comes later, with today's behaviour as its default, renames
        no run.
        """
        return self.run_id_of(self.seed)

    @property
    def known_run_ids(self) -> frozenset[str]:
        """The name of this configuration, and those that it had before each of its ``revisions``."""
        names = [self._name_around_seed(self.revisions[:num]) for num in range(len(self.revisions) + 1)]
        return frozenset(_shorten_digest(str(self.seed).join(name)) for name in names)

    def run_id_of(self, seed: int) -> str:
        """Name the same run with another seed, without making its configuration: grids may have 100,000 runs."""
        return _shorten_digest(str(seed).join(self._around_seed))

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
        return self._name_around_seed(self.revisions)

    def _name_around_seed(self, revisions: tuple[str, ...]) -> tuple[str, str]:
        content = self.model_dump(mode="json", exclude_defaults=True, exclude=set(self.unnamed_fields))
        del content["seed"]
        whole: dict[str, Any] = {"protocol": PROTOCOL_VERSION}
        if revisions:
            whole["revisions"] = revisions
        # As json.dumps(..., sort_keys=True) of the whole would write it, with a gap where the seed belongs: the text of
        # a value cannot be taken for that gap.
        earlier = {name: value for name, value in content.items() if name < "seed"}
        later = {name: value for name, value in content.items() if name > "seed"}
        before, after = json.dumps(earlier, sort_keys=True)[:-1], json.dumps(later, sort_keys=True)[1:]
        head, tail = f'{before}{", " if earlier else ""}"seed": ', f"{', ' if later else ''}{after}"
        return f'{{"config": {head}', f"{tail}, {json.dumps(whole, sort_keys=True)[1:]}"


def _shorten_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
