"""Shipped studies and documents: what their TOML files say."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import TYPE_CHECKING

from gan_ablate.design.grid import list_studies, load_grid, read_preset
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
    """Load shipped grids by name, all grids of shipped studies, and other grids by path; each once.

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


class Document(Model):
    """The document that a preset's model comes from: how it trains it, and what its choices claim."""

    title: str
    dataset: str
    """What it learns; ``folder:PATH`` where that is a user's folder."""
    epochs: int
    seed: int = 0
    claims: list[str]
    """Ids of claims in shipped grids, on what the model does or leaves."""
    repaired: str
    """What was repaired, or is of our choice; empty where nothing is."""

    def command(self, preset: str) -> str:
        """Write what trains it at its own settings."""
        seed = f" --seed {self.seed}" if self.seed else ""
        return f"gan-ablate train {preset} --dataset {self.dataset} --epochs {self.epochs}{seed}"


def load_document(preset: str) -> Document | None:
    """Read what is known of a preset's document; None of the preset that is our own."""
    data = read_preset(preset).get("document")
    return None if data is None else validate(Document, data, f"preset {preset}, [document]")
