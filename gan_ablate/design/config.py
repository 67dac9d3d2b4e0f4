"""RunConfig: every setting that affects the result of a run, checked field by field and as a whole."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from gan_ablate.design.checks import check_combinations
from gan_ablate.design.run_fields import RunFields


class RunConfig(RunFields):
    """One training run, complete: the same RunConfig gives the same bits on the same machine and library versions."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        check_combinations(self)
        return self
