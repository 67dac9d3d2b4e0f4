"""A preset's name in, the document that its model comes from out."""

from __future__ import annotations

from gan_ablate.design.grid import read_preset
from gan_ablate.design.validation import Model, validate


class Document(Model):
    """The document that a preset's model comes from: how it trains it, and what its choices claim."""

    title: str
    dataset: str
    """What it learns; ``folder:PATH`` where that is a folder of one's own."""
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
