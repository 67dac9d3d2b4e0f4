"""Code of one's own as part of a model: a class or a function by its import path, and what it is called with."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from gan_ablate.design.sources import list_source_files, name_files
from gan_ablate.design.validation import Model, shorten
from gan_ablate.errors import UserError

PARTS = ("generator", "discriminator", "loss", "penalty")
"""Fields of a run that may be code of one's own."""

_NAME = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
ImportPath = Annotated[str, Field(pattern=f"^{_NAME}:{_NAME}$", max_length=200)]


class OwnPart(Model):
    """A class or a function of one's own; whatever else is set goes to it as keyword arguments."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["module"]
    path: ImportPath
    """Where it is: ``mynets:Generator`` is Generator in mynets.py, beside the grid's file or installed."""
    code: str = ""
    """A name of its source by its content; planning takes it from the file."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, data: Any) -> Any:
        return data

    @property
    def arguments(self) -> dict[str, Any]:
        """What it is called with."""
        return dict(self.model_extra or {})


class OwnGenerator(OwnPart):
    """A generator of one's own: latents in, images in [-1, 1] out."""

    latents: Literal["vectors", "maps"] = "vectors"
    """How it takes latents: (B, N), or as maps of 1×1 pixels, (B, N, 1, 1)."""
    initialised: Literal["by_init", "by_itself"] = "by_init"
    """Whether ``init`` draws its linear, convolutional and batch norm layers anew, or they stay as it made them."""


class OwnDiscriminator(OwnPart):
    """A discriminator of one's own: images in [-1, 1] in, a logit each out; no sigmoid at its end."""

    initialised: Literal["by_init", "by_itself"] = "by_init"
    """Whether ``init`` draws its linear, convolutional and batch norm layers anew, or they stay as it made them."""
    spectral_norm: bool = False
    """Divides each layer's weight by its largest singular value (arXiv:1802.05957, equation 8)."""


class OwnLoss(OwnPart):
    """An adversarial loss of one's own, with two methods.

    ``discriminator(logits_real, logits_fake)`` and ``generator(logits_fake)``, each of (B,) logits, give () losses.
    """


class OwnPenalty(OwnPart):
    """A penalty of one's own: called with D as a function, real images and fake ones, it gives a () number."""


@dataclass
class OwnCode:
    """Where the code of a plan's runs lies.

    Attributes:
        folder: beside which modules are looked for first.
        is_allowed: whether they may be run.
        places: ``NAME@HASH`` → the folder of the module, or nothing where it is installed.
    """

    folder: Path | None = None
    is_allowed: bool = False
    places: dict[str, str] = field(default_factory=dict)

    def complete(self, data: dict[str, Any], source: str) -> dict[str, Any]:
        """Name the source of every part that is code of one's own.

        Args:
            data: of a run, not checked yet.
            source: where it comes from, for the message.

        Raises:
            UserError: if such code is not allowed, or there is no such module.
        """
        for part in PARTS:
            given = data.get(part)
            if not (isinstance(given, dict) and given.get("kind") == "module"):
                continue
            path = given.get("path")
            if "code" in given:
                raise UserError(f"{source}: {part}.code: planning sets it; valid: leave it out")
            if not isinstance(path, str) or ":" not in path:
                continue  # what is wrong with it is said with all else
            if not self.is_allowed:
                what = f"{part}.path = {shorten(repr(path))}"
                raise UserError(f"{source}: {what}: code of yours; valid: with --allow-code")
            data = {**data, part: {**given, "code": self._name(path.partition(":")[0], f"{source}: {part}.path")}}
        return data

    def _name(self, module: str, source: str) -> str:
        files, folder = self._find(module, source)
        code = name_files(Path(folder) if folder else files[0].parent, files, module)
        self.places[code] = folder
        return code

    def _find(self, module: str, source: str) -> tuple[list[Path], str]:
        """Find a module's files without running it: all of its package's, where it is in one."""
        first, *_ = module.split(".")
        for folder in [self.folder] if self.folder is not None else []:
            for origin in (folder / first / "__init__.py", folder / f"{first}.py"):  # as Python looks
                if origin.is_file():
                    return list_source_files(origin), str(folder)
        try:
            found = importlib.util.find_spec(first)
        except (ImportError, ValueError):
            found = None
        if found is None or found.origin is None or first in sys.builtin_module_names:
            where = "" if self.folder is None else f" in {self.folder}, nor installed"
            raise UserError(f"{source} = {shorten(repr(module))}: no such module{where}")
        return list_source_files(Path(found.origin)), ""
