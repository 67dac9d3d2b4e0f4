"""The models that benchmarks time: every preset, and a copy of the best-known DCGAN, each with its plain twin."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from bench import plain
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import list_presets, load_preset
from gan_ablate.design.validation import choices, validate
from gan_ablate.errors import UserError
from gan_ablate.training.data import load_dataset
from gan_ablate.training.step import StepTerms
from gan_ablate.training.trainer import MEASURE_EVERY, Trainer

Step = Callable[[], object]
"""A function that takes one iteration."""

_GREY_64: dict[str, Any] = {
    "batch_size": 64,
    "generator": {"kind": "dcgan", "base_channels": 64, "stem": "conv", "bias": "none"},
    "discriminator": {"kind": "dcgan", "base_channels": 64, "head": "conv", "bias": "none"},
}


@dataclass(frozen=True)
class Timed:
    """A model, as this package trains it.

    Attributes:
        name: of the model.
        preset: the name of its preset.
        changes: fields of the preset that it sets.
    """

    name: str
    preset: str
    changes: dict[str, Any]

    def config(self, **changes: Any) -> RunConfig:
        """Build a run that is not scored, with top-level fields changed."""
        run = {"steps": 1, "seed": 0, "scoring": {"features": "none"}}
        return validate(RunConfig, {**load_preset(self.preset, "bench"), **self.changes, **run, **changes}, self.name)

    def trainer(self, device: str = "cpu", **changes: Any) -> Trainer:
        """Build the trainer of such a run, on the embedded digits."""
        config = self.config(**changes)
        return Trainer(config, _load_images(config).to(device))


@dataclass(frozen=True)
class Subject(Timed):
    """A model, as this package and as tutorials train it.

    Attributes:
        build_plain: builds the networks of the plain loop.
    """

    build_plain: Callable[[], plain.Networks]

    def plain_step(self, root: Path, device: str = "cpu") -> Step:
        """Return an iteration of the plain loop, on the digits that ``write_mnist`` wrote to ``root``."""
        config = self.config()
        batches = plain.load_batches(root, config.image_size, config.batch_size)
        loop = plain.train_plainly(self.build_plain(), batches, config, io.StringIO(), device=device)
        return lambda: next(loop)


def as_in_a_run(trainer: Trainer, take_step: Callable[[], StepTerms]) -> Step:
    """Return a step that also measures a row of the history as often as a run does."""
    count = itertools.count(1)

    def step() -> None:
        terms, number = take_step(), next(count)
        if number % MEASURE_EVERY == 0:
            trainer.measure(number, terms)

    return step


def _load_images(config: RunConfig) -> Tensor:
    return load_dataset(config.dataset, config.image_size, Path()).images


SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("mlp", "mlp", {}, plain.mlp),
        Subject("dcgan-28", "dcgan-28", {}, plain.dcgan_28),
        Subject("dcgan-upsample", "dcgan-upsample", {}, plain.dcgan_upsample),
        Subject("dcgan-64", "dcgan-64", {}, plain.dcgan_64),
        Subject("mlp-dropout", "mlp-dropout", {}, plain.mlp_dropout),
        Subject("dcgan-fc", "dcgan-fc", {}, plain.dcgan_fc),
        Subject("dcgan-faces", "dcgan-faces", {}, partial(plain.dcgan_faces, 100)),
        Subject("dcgan-paper", "dcgan-paper", {}, plain.dcgan_paper),
        Subject("dcgan-faces, 64 channels, batch 64", "dcgan-faces", _GREY_64, partial(plain.dcgan_faces, 64)),
    )
}


MODELS: dict[str, Timed] = {name: SUBJECTS.get(name, Timed(name, name, {})) for name in list_presets()}
"""Every preset; those of papers have no loop that a tutorial prints."""


def choose_subjects(names: Sequence[str] | None) -> list[str]:
    """Return the names of the chosen subjects, or of all without a choice.

    Raises:
        UserError: if there is no such subject.
    """
    for name in names or ():
        if name not in SUBJECTS:
            raise UserError(f"--subject {name}: no such subject; {choices(name, list(SUBJECTS))}")
    return list(names or SUBJECTS)
