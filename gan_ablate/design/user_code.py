"""User code: a class or a function by its import path, a TorchScript file, a checkpoint, and patches of a script."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from gan_ablate.design.source_files import is_installed, list_module_files, name_file, name_files, refuse_shadows
from gan_ablate.design.validation import Model, shorten
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("generator", "discriminator", "loss", "penalty")
"""Fields of a run that may be user code."""

_NAME = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
ImportPath = Annotated[str, Field(pattern=f"^{_NAME}:{_NAME}$", max_length=200)]

MAX_WORD = 10_000
Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD)]


class UserPart(Model):
    """A user's class or function; all other fields that are set go to it as keyword arguments."""

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


class UserGenerator(UserPart):
    """A user's generator: it maps latents to images in [-1, 1]."""

    latents: Literal["vectors", "maps"] = "vectors"
    """How it takes latents: (B, N), or as maps of 1×1 pixels, (B, N, 1, 1)."""
    initialised: Literal["by_init", "by_itself"] = "by_init"
    """Whether ``init`` draws its linear, convolutional and batch norm layers anew, or they stay as it made them."""


class UserDiscriminator(UserPart):
    """A user's discriminator: it maps images in [-1, 1] to a logit each, without a sigmoid at its end."""

    initialised: Literal["by_init", "by_itself"] = "by_init"
    """Whether ``init`` draws its linear, convolutional and batch norm layers anew, or they stay as it made them."""
    spectral_norm: bool = False
    """Divides each layer's weight by its largest singular value (arXiv:1802.05957, equation 8)."""


class UserLoss(UserPart):
    """A user's adversarial loss, with two methods.

    ``discriminator(logits_real, logits_fake)`` and ``generator(logits_fake)``, each of (B,) logits, give () losses.
    """


class UserPenalty(UserPart):
    """A user's penalty: called with D as a function, real images and fake ones, it returns a () number."""


class Checkpoint(Model):
    """A generator whose weights the script saves: a checkpoint, and the class that it belongs to."""

    checkpoint: Word
    """What ``torch.save`` wrote below ``{out}``; of several files that match, the last one: epoch_10 after epoch_9."""
    module: Word
    """The class or function that makes the generator: ``main:Generator`` is in main.py, beside the grid or the script.
    Of the file only the statements that it needs are run."""
    arguments: dict[str, Any] = {}
    """What it is called with; a text may be a name in braces."""
    key: str = ""
    """Which weights of the file, where several fit: ``netG``, ``generator_ema``."""


class Patch(Model):
    """A change of a file, for a factor that the script has no option for."""

    file: Word
    """The file, beside the grid."""
    find: Word
    """A text that stands in the file exactly once."""
    replace: Annotated[str, Field(max_length=MAX_WORD)]
    """What the run's copy of the file has there; names in braces are filled in, and {{ stands for a brace."""


Side = Annotated[int, Field(gt=0, le=1024)]


class ModuleExtractor(UserPart):
    """A user's extractor: a function of images, or a class whose objects are called with images."""

    size: Side | None = None
    """Side to which images are resized before, in pixels; by default they keep their size."""


class ScriptExtractor(Model):
    """An extractor in a TorchScript file, as ``torch.jit.save`` writes it."""

    kind: Literal["torchscript"]
    path: Annotated[str, Field(min_length=1, max_length=1_000)]
    """The file, beside the grid's file. Planning keeps its name alone: a run is named by the content."""
    size: Side | None = None
    """Side to which images are resized before, in pixels; by default they keep their size."""
    code: str = ""
    """A name of the file by its content; planning takes it from the file."""


UserExtractor: TypeAlias = ModuleExtractor | ScriptExtractor

SCRIPT_SUFFIXES = (".pt", ".pth", ".ts", ".torchscript")
"""Suffixes of TorchScript files in ``--features``."""


def read_features(text: str, size: int | None = None) -> str | dict[str, Any]:
    """Read the option ``features``: the name of a shipped extractor, ``MODULE:NAME``, or a TorchScript file.

    Args:
        text: the option's value.
        size: side to which images are resized for a user's extractor; None leaves them as they are.

    Returns:
        What ``scoring.features`` is in a grid file; a file's path is absolute.

    Raises:
        UserError: if a size is given for a shipped extractor.
    """
    found: dict[str, Any]
    if re.fullmatch(f"{_NAME}:{_NAME}", text):
        found = {"kind": "module", "path": text}
    elif Path(text).suffix in SCRIPT_SUFFIXES:
        found = {"kind": "torchscript", "path": str(Path(text).absolute())}
    elif size is None:
        return text
    else:
        raise UserError(f"{option('features_size', size)}: valid: with {option('features')} MODULE:NAME or FILE.pt")
    return found if size is None else {**found, "size": size}


@dataclass
class UserCode:
    """The user code of a plan's runs.

    Attributes:
        folder: the folder in which modules and files are looked for first.
        is_allowed: whether user code may be run.
        paths: ``NAME@HASH`` → the folder of the module, empty where it is installed; or the TorchScript file.
        files: ``NAME@HASH`` → the files that the hash is made of.
    """

    folder: Path | None = None
    is_allowed: bool = False
    paths: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def complete(self, data: dict[str, Any], source: str) -> dict[str, Any]:
        """Return the settings of a run with the field ``code`` set in every part that is user code.

        Args:
            data: the settings of a run, not checked yet.
            source: their origin, for the message.

        Raises:
            UserError: if user code is not allowed, or there is no such module.
        """
        for part in PARTS:
            given = data.get(part)
            if not (isinstance(given, dict) and given.get("kind") == "module"):
                continue
            path = self._check(given, part, source)
            if ":" in path:
                data = {**data, part: {**given, "code": self._name(path.partition(":")[0], f"{source}: {part}.path")}}
        return data

    def complete_extractor(self, features: Any, source: str) -> Any:
        """Return ``scoring.features`` with the field ``code`` set if it is a user's; see ``complete``."""
        field = "scoring.features"
        if not isinstance(features, dict) or features.get("kind") not in ("module", "torchscript"):
            return features
        path = self._check(features, field, source)
        if features["kind"] == "module" and ":" in path:
            return {**features, "code": self._name(path.partition(":")[0], f"{source}: {field}.path")}
        if features["kind"] == "module" or not path:
            return features
        file = (self.folder or Path()) / path
        if not file.is_file():
            raise UserError(f"{source}: {field}.path = {shorten(repr(path))}: no such file; valid: a TorchScript file")
        code = name_file(file)
        self.paths[code], self.files[code] = str(file.resolve()), (file.name,)
        return {**features, "path": file.name, "code": code}

    def _check(self, given: dict[str, Any], field: str, source: str) -> str:
        """Check that user code may be named here; return its path, empty where that is none."""
        path = given.get("path")
        if "code" in given:
            raise UserError(f"{source}: {field}.code: planning sets it; valid: leave it out")
        if not isinstance(path, str):
            return ""  # refused when the whole is checked
        if not self.is_allowed:
            what = f"{field}.path = {shorten(repr(path))}"
            raise UserError(f"{source}: {what}: code of yours; valid: with {option('allow_code')}")
        return path

    def _name(self, module: str, source: str) -> str:
        found = find_source(module, self.folder)
        if found is None:
            where = "" if self.folder is None else f" in {self.folder}, nor installed"
            raise UserError(f"{source} = {shorten(repr(module))}: no such module{where}")
        if not found.is_installed:
            refuse_shadows(found.files, found.root, f"{source} = {shorten(repr(module))}")
        code = name_files(found.root, found.files, module)
        self.paths[code] = str(found.root) if found.root == self.folder else ""
        self.files[code] = tuple(path.relative_to(found.root).as_posix() for path in found.files)
        return code


@dataclass(frozen=True)
class Source:
    """The files of a module.

    Attributes:
        root: the folder that the module is imported from.
        files: the module's files, and the files below the root that it imports; of an installed one, its package's.
        is_installed: whether it is an installed package.
    """

    root: Path
    files: list[Path]
    is_installed: bool = False


def find_source(module: str, folder: Path | None) -> Source | None:
    """Find a module's files without running it.

    Args:
        module: its dotted name.
        folder: the folder in which it is looked for first, before Python's path.
    """
    if folder is not None and (files := list_module_files(module, folder)):
        return Source(folder, files)
    first = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not (origin := Path(spec.origin)).is_file():
        return None
    is_package = origin.name == "__init__.py"
    root = origin.parents[1] if is_package else origin.parent
    if is_installed(origin):
        return Source(root, sorted(origin.parent.rglob("*.py")) if is_package else [origin], is_installed=True)
    files = list_module_files(module, root)
    return Source(root, files) if files else None


def find_script(command: Sequence[str]) -> int | None:
    """Find the script in a command of Python: the index of its file, or of ``-m``; None in other commands."""
    if not (command[0] == "{python}" or re.match(r"python[0-9.]*$", Path(command[0]).name)):
        return None
    number = 1
    while number < len(command):
        word = command[number]
        if word == "-m":
            return number if number + 1 < len(command) else None
        if not word.startswith("-"):
            return number
        if word in ("-", "-c"):
            return None
        number += 2 if word in ("-W", "-X") else 1
    return None
