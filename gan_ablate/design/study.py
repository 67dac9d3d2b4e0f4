"""Names in, grids that are run together out: those of a study, and one's own."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import TYPE_CHECKING

from gan_ablate.design.grid import list_studies, load_grid
from gan_ablate.design.validation import Model, shorten, validate
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.design.grid import Grid


class Study(Model):
    """Grids that are run together and share their runs."""

    title: str
    question: str
    grids: list[str]


def load_study(name: str) -> Study:
    """Read a shipped study."""
    text = resources.files("gan_ablate.design.studies").joinpath(f"{name}.toml").read_text("utf-8")
    return validate(Study, tomllib.loads(text), f"study {name}")


def load_grids(names: Sequence[str]) -> tuple[Grid, ...]:
    """Load shipped grids by name, all grids of shipped studies, and one's own by path; each once.

    Raises:
        UserError: if one is not there or no grid, or two are named alike.
    """
    single = [part for name in names for part in (load_study(name).grids if name in list_studies() else [name])]
    grids = {name: load_grid(name) for name in single}
    for name, grid in grids.items():
        twin = next(other for other, named in grids.items() if named.name == grid.name)
        if twin != name:
            raise UserError(f"--grid {shorten(name)}: named like --grid {shorten(twin)}; rename one of the files")
    return tuple(grids.values())
