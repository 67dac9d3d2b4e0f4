"""External runs: a grid's ``[external]`` table for a user's script, and the configuration of one run of it."""

from __future__ import annotations

import re
import string
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias, TypeGuard

from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, PositiveInt, Tag, model_validator

from gan_ablate.design.config import RunConfig, check_dataset, check_features
from gan_ablate.design.datasets import count_channels, folder_revisions
from gan_ablate.design.run_fields import Features, HashedConfig, LatentDistribution
from gan_ablate.design.script_logs import PRINTED, LogFile, check_log, check_log_file
from gan_ablate.design.user_code import MAX_WORD, Checkpoint, Patch, Word, find_script
from gan_ablate.design.validation import Model, Size, refusal, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


GIVEN = ("seed", "out", "steps", "num_samples", "dataset", "image_size", "data_dir", "device", "python", "here")
"""Names that the command may have in braces, besides factors and what levels set."""

LINK_NAMES = ("data_dir", "here")
"""Names that the place of a link may have in braces."""

GENERATOR_SUFFIXES = (".pt", ".pt2")
"""Suffixes of saved generators: TorchScript, torch.export."""

_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"

MAX_FILE_NAME = 255
"""Bytes of a file's name, as file systems limit it."""


class SamplesGrid(Model):
    """Pictures of many samples, side by side, as ``torchvision.utils.save_image`` writes them."""

    rows: PositiveInt
    """Samples in a column of the picture."""
    columns: PositiveInt | None = None
    """Samples in a row of the picture, ``nrow`` of ``save_image``; by default as many as ``rows``."""
    padding: NonNegativeInt = 2
    """Pixels around each sample."""
    pictures: PositiveInt = 1
    """How many pictures are cut, the last ones by name."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns or self.rows

    def side(self, size: int) -> tuple[int, int]:
        """Return the width and height of a picture of samples of a size."""
        height, width = (num * (size + self.padding) + self.padding for num in self.shape)
        return width, height


def _samples_tag(data: Any) -> str:
    return "of weights" if isinstance(data, (dict, Checkpoint)) else "of images"


def _log_tag(data: Any) -> str:
    return "written" if isinstance(data, (dict, LogFile)) else "printed"


def _links_tag(data: Any) -> str:
    return "table" if isinstance(data, dict) else "list"


Log: TypeAlias = Annotated[
    Annotated[str, Field(max_length=MAX_WORD), Tag("printed")] | Annotated[LogFile, Tag("written")],
    Discriminator(_log_tag),
]


class External(Model):
    """A grid's ``[external]``: the command that trains, and the samples that it writes."""

    command: Annotated[list[Word], Field(min_length=1)]
    """The program and its arguments, a string each; names in braces are filled in, and no shell runs."""
    samples: Annotated[
        Annotated[str, Field(max_length=MAX_WORD), Tag("of images")] | Annotated[Checkpoint, Tag("of weights")],
        Discriminator(_samples_tag),
    ] = ""
    """What the script writes below ``{out}``: pictures by a pattern, one image a file, a .npy or .npz file, a saved
    generator (.pt of TorchScript, .pt2 of torch.export), or a checkpoint."""
    generator: Annotated[str, Field(max_length=MAX_WORD)] = ""
    """Instead of samples: the generator's global name in the Python script, such as ``netG``; it is sampled in the
    script's process when the script ends."""
    samples_grid: SamplesGrid | None = None
    """How many samples a picture holds, where it is no single image."""
    latent_shape: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)] | None = None
    """The shape of one latent of a generator, without the batch: ``[100]``, or ``[100, 1, 1]``."""
    latent_distribution: LatentDistribution = "normal"
    """Its numbers: N(0, 1), or uniform in [-1, 1]."""
    seed_globals: bool = False
    """Whether random, NumPy and PyTorch are seeded before the Python script begins, which sets no seed by itself."""
    patches: list[Patch] = []
    """Changes of the script's files, made in a copy of every run."""
    log: Log = ""
    """A regular expression for lines of the script's output, with some of the groups epoch, step, steps_per_epoch,
    loss_d and loss_g; the name of such a pattern; or a file of numbers that the script writes."""
    files: list[Word] = []
    """Patterns of files beside the grid's file that are part of every run's id, besides those that the command names
    and those that Python scripts among them import."""
    links: Annotated[
        Annotated[list[Word], Tag("list")] | Annotated[dict[Word, Word], Tag("table")], Discriminator(_links_tag)
    ] = []
    """Files and folders that the script opens by itself: a list of those beside the grid's file, or a table of a path
    as the script opens it → where that lies. ``{out}`` contains links to them."""
    cwd: Annotated[str, Field(max_length=MAX_WORD)] = ""
    """Folders above ``{out}`` in the run's own folder, such as ``implementations/gan``: a script's ``../..`` then stays
    in the run's folder."""
    env: dict[str, Annotated[str, Field(max_length=MAX_WORD)]] = {}
    """Environment variables of the script; names in braces are filled in."""
    paired: bool = True
    """Whether runs of one seed share random numbers; false for a command without ``{seed}``."""
    keep_samples: bool = False
    """Whether scored samples stay as the script wrote them, instead of in one compressed file."""
    timeout_sec: PositiveFloat | None = None
    """Seconds after which a run is stopped and counts as failed."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for number, word in enumerate(self.command):
            if "\0" in word:
                raise refusal(f"external.command.{number}", word, "valid: a word without the character NUL")
        for number, patch in enumerate(self.patches):
            check_pattern(f"external.patches.{number}.file", patch.file, "beside the grid")
        self._check_samples()
        self._check_launcher()
        for number, pattern in enumerate(self.files):
            check_pattern(f"external.files.{number}", pattern, "beside the grid")
        self._check_surroundings()
        if isinstance(self.log, LogFile):
            check_log_file(self.log)
            if self.log.pattern != PRINTED:
                check_pattern("external.log", self.log.pattern, "below {out}")
        else:
            check_log(self.log)
        return self

    def _check_surroundings(self) -> None:
        """Check the working folder, what is linked into it, and environment variables."""
        if self.cwd:
            check_pattern("external.cwd", self.cwd, "of folders, such as implementations/gan")
        for number, name in enumerate(self.links):
            field = "external.links" if isinstance(self.links, dict) else f"external.links.{number}"
            if isinstance(self.links, dict):
                self._check_linked(field, name)
            else:
                check_pattern(field, name, "beside the grid")
            if self.pattern and Path(name).parts[0] == Path(self.pattern).parts[0]:
                advice = f"what the program leaves would be written beside the grid (samples = {shorten(self.pattern)})"
                raise refusal(field, name, f"{advice}; valid: what it only reads")
        for target in self.links.values() if isinstance(self.links, dict) else ():
            for placeholder in list_placeholders(target, "external.links"):
                if placeholder not in LINK_NAMES:
                    advice = f"valid: a path, ~/…, or {' and '.join(f'{{{known}}}' for known in LINK_NAMES)} in it"
                    raise refusal("external.links", target, advice)
        for name, value in self.env.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", name) or "\0" in value:
                raise refusal(f"external.env.{name}", value, 'valid: NAME = "value", without the character NUL')

    def _check_linked(self, field: str, name: str) -> None:
        """Check that a path as the script opens it lies in the run's folder, and not above one that is linked."""
        parts = PurePosixPath(name).parts
        num_up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
        depth = len(PurePosixPath(self.cwd).parts)
        if num_up > depth:
            steps = "/".join("abcdefgh"[:num_up]) if num_up <= 8 else "a/b/…"
            advice = f"it leads out of the run's folder, to other runs; valid: with external.cwd = '{steps}', or deeper"
            raise refusal(field, name, advice, "external.cwd")
        where = "as the script opens it, below {out} or above it"
        if PurePosixPath(name).is_absolute() or not parts[num_up:]:
            raise refusal(field, name, f"valid: a path {where}")
        check_pattern(field, "/".join(parts[num_up:]), where)
        places = {other: self._place(other) for other in self.links if other != name}
        place, out = self._place(name), PurePosixPath(self.cwd)
        if out.is_relative_to(place):
            raise refusal(field, name, "the working folder itself; valid: another folder", "external.cwd")
        for other, above in places.items():
            if place.is_relative_to(above):
                raise refusal(field, name, f"it lies in {shorten(other)}, which is a link; valid: one of the two")

    def _place(self, name: str) -> PurePosixPath:
        """Return the place of a link, as the script opens it, in the folder of which ``cwd`` is below."""
        parts = list(PurePosixPath(self.cwd).parts)
        for part in PurePosixPath(name).parts:
            if part != "..":
                parts.append(part)
            elif parts:
                parts.pop()
        return PurePosixPath(*parts)

    def _check_samples(self) -> None:
        """Check that samples come from one place, with what that place needs."""
        if bool(self.pattern) == bool(self.generator):
            advice = "valid: what the script saves: images, generator or checkpoint; or else external.generator"
            raise refusal("external.samples", self.pattern, advice, "external.generator")
        if self.pattern:
            check_pattern("external.samples", self.pattern, "below {out}")
        if self.checkpoint is not None and not re.fullmatch(f"{_NAME}:{_NAME}", self.checkpoint.module):
            advice = "valid: FILE:CLASS, such as main:Generator"
            raise refusal("external.samples.module", self.checkpoint.module, advice)
        if self.generator and not re.fullmatch(_NAME, self.generator):
            advice = "valid: a global's name, such as netG, or that of an attribute, such as trainer.netG"
            raise refusal("external.generator", self.generator, advice)
        if self.is_generator and self.latent_shape is None:
            advice = "a generator needs it; valid: the shape of one latent, such as [100]"
            raise refusal("external.latent_shape", self.latent_shape, advice, "external.samples", "external.generator")
        if not self.is_generator and (self.latent_shape is not None or self.latent_distribution != "normal"):
            field = "latent_distribution" if self.latent_shape is None else "latent_shape"
            value = self.latent_distribution if self.latent_shape is None else list(self.latent_shape)
            advice = f"valid with generator, a checkpoint, or samples that end in {' or '.join(GENERATOR_SUFFIXES)}"
            raise refusal(f"external.{field}", value, advice, "external.samples")
        if self.samples_grid is not None and (self.is_generator or Path(self.pattern).suffix in (".npy", ".npz")):
            raise refusal("external.samples_grid", self.samples_grid.rows, "valid with pictures", "external.samples")

    def _check_launcher(self) -> None:
        """Check that a script can be launched where that is asked for, and that paired runs have a seed."""
        if (self.generator or self.seed_globals) and find_script(self.command) is None:
            field, value = ("generator", self.generator) if self.generator else ("seed_globals", True)
            advice = 'a launcher runs Python scripts; valid with command = ["python", "train.py", …]'
            raise refusal(f"external.{field}", value, advice, "external.command")
        if self.paired and "seed" not in self.names and not self.seed_globals:
            advice = (
                "{seed} is not in it, so runs of one seed share nothing; "
                "valid: {seed} in it, seed_globals = true, or paired = false"
            )
            raise refusal("external.command", " ".join(self.command), advice, "external.paired")

    @property
    def pattern(self) -> str:
        """The pattern of the files that the script saves; empty with ``generator``."""
        return self.samples if isinstance(self.samples, str) else self.samples.checkpoint

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that the script saves, if it does."""
        return self.samples if isinstance(self.samples, Checkpoint) else None

    @property
    def is_generator(self) -> bool:
        """Whether a generator is sampled, instead of reading the script's images."""
        return bool(self.generator or self.checkpoint) or Path(self.pattern).suffix in GENERATOR_SUFFIXES

    @property
    def names(self) -> dict[str, str]:
        """The names in braces → the field that has them first: command, patches, arguments of a checkpoint's class."""
        arguments = self.checkpoint.arguments if self.checkpoint else {}
        words = [
            *((f"external.command.{number}", word) for number, word in enumerate(self.command)),
            *((f"external.patches.{number}.replace", patch.replace) for number, patch in enumerate(self.patches)),
            *((f"external.env.{name}", value) for name, value in self.env.items()),
            *((f"external.samples.arguments.{key}", value) for key, value in arguments.items() if is_text(value)),
        ]
        names: dict[str, str] = {}
        for field, word in words:
            for name in list_placeholders(word, field):
                names.setdefault(name, field)
        return names


class ExternalScoring(Model):
    """How the samples of an external run are scored."""

    features: Features
    """The network whose features are compared: the small classifier of digits or of garments, Inception, none, or a
    network of yours."""
    num_samples: Annotated[int, Field(ge=2, le=1_000_000)] = 10_000
    """How many images are scored."""


class ExternalConfig(HashedConfig):
    """One run of a user's script."""

    unnamed_fields: ClassVar[frozenset[str]] = frozenset(
        {"timeout_sec", "files", "keep_samples", "link_targets", "training_code"}
    )

    command: Annotated[tuple[Word, ...], Field(min_length=1, strict=False)]
    """As in the grid, names in braces not filled in."""
    parameters: dict[str, str] = {}
    """Name in braces → the text that the levels set."""
    samples: str
    """The pattern of what the script saves; the other fields are as in the grid."""
    checkpoint: Checkpoint | None = None
    generator: str = ""
    samples_grid: SamplesGrid | None = None
    latent_shape: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)] | None = None
    latent_distribution: LatentDistribution = "normal"
    seed_globals: bool = False
    patches: Annotated[tuple[Patch, ...], Field(strict=False)] = ()
    log: Log = ""
    links: Annotated[tuple[Word, ...], Field(strict=False)] = ()
    link_targets: dict[str, str] = {}
    """Where that lies which is linked, if not beside the grid under the same name."""
    cwd: str = ""
    env: dict[str, str] = {}
    keep_samples: bool = False
    timeout_sec: PositiveFloat | None = None
    code: str
    """The name of the script's files with a hash of their content, ``NAME@HASH``."""
    files: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The files that the hash is made of, relative to the grid's folder."""
    training_code: str = ""
    """A hash of those files that training needs: without files that only the class of a checkpoint needs."""
    dataset: str = "mnist-10k"
    """The data set whose held-out images samples are compared with: by name, or folder:PATH."""
    image_size: Annotated[int, Field(gt=0, le=1024)] = 28
    """Side of the images, in pixels."""
    steps: Annotated[int, Field(ge=0)] = 0
    """Generator steps; 0 where the command does not name them."""
    seed: Annotated[int, Field(ge=0)]
    """The seed that the command is filled with."""
    scoring: ExternalScoring
    """How the run is scored."""

    @property
    def revisions(self) -> tuple[str, ...]:
        """Corrections that changed the results of such runs; see ``RunConfig.revisions``.

        ``samples_in_any_order``: the choice and order of scored images do not depend on the order of files.
        """
        has_files = self.latent_shape is None
        return (*(("samples_in_any_order",) if has_files else ()), *folder_revisions(self.dataset))

    @property
    def num_channels(self) -> int:
        """Colour channels of the images: 1 or 3."""
        return count_channels(self.dataset)

    @property
    def training_names(self) -> frozenset[str]:
        """The names in braces that the script is given: in its command, its patches and its environment."""
        words = [*self.command, *(patch.replace for patch in self.patches), *self.env.values()]
        return frozenset(name for word in words for name in list_placeholders(word, ""))

    @property
    def training(self) -> Self:
        """What is trained: the run without how its log and its samples are read and scored.

        Its ``run_id`` is a hash of all that the script sees. Runs that share it need the script only once. The number
        of samples is left out: more samples than a run needs are enough.
        """
        names, fields = self.training_names, type(self).model_fields
        return self.model_copy(
            update={
                **{name: fields[name].default for name in ("checkpoint", "generator", "samples_grid", "latent_shape")},
                **{name: fields[name].default for name in ("latent_distribution", "log", "dataset", "image_size")},
                **{name: getattr(self, name) for name in ("dataset", "image_size") if name in names},
                "samples": "",
                "parameters": {name: value for name, value in self.parameters.items() if name in names},
                "steps": self.steps if "steps" in names else 0,
                "code": self.training_code,
                "scoring": ExternalScoring(features="none", num_samples=2),
            }
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_dataset(self.dataset)
        check_features(self.dataset, self.scoring.features, {"num_samples": self.scoring.num_samples})
        return self


def list_placeholders(word: str, field: str) -> Iterator[str]:
    """Yield the names in braces of a word of the command; attributes and formats are refused.

    Raises:
        PydanticCustomError: if the braces contain anything but a name.
    """
    try:
        parts = list(string.Formatter().parse(word))
    except ValueError as broken:
        raise refusal(field, word, f"{broken}; valid: {{name}}, and {{{{ for a brace") from None
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not re.fullmatch(r"[\w -]+", name) or form or conversion:
            raise refusal(field, word, "valid: {name} with nothing else in the braces, and {{ for a brace")
        yield name


def fill_word(word: str, values: Mapping[str, str]) -> str:
    """Fill in the names in braces of a word with their values."""
    parts = string.Formatter().parse(word)
    return "".join(text + ("" if name is None else values[name]) for text, name, _, _ in parts)


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a text."""
    return isinstance(value, str)


def check_pattern(field: str, pattern: str, place: str) -> None:
    """Check that ``Path.glob`` takes a pattern of files, and that it stays within its folder.

    Args:
        field: the path of the field.
        pattern: its value.
        place: where the files are, for the message.

    Raises:
        PydanticCustomError: saying what is wrong.
    """
    parts = Path(pattern).parts
    if Path(pattern).is_absolute() or ".." in parts or not parts:
        raise refusal(field, pattern, f"valid: a path or pattern {place}")
    if any("**" in part and part != "**" for part in parts):
        raise refusal(field, pattern, "valid: ** as a whole folder, such as **/*.py")
    if "\0" in pattern or any(len(part.encode()) > MAX_FILE_NAME for part in parts):
        raise refusal(field, pattern, f"valid: names of at most {MAX_FILE_NAME} bytes, without the character NUL")


def write_value(value: Any) -> str:
    """Write a level's value as a word of the command: ``true``, ``0.001``, or the text itself.

    Raises:
        ValueError: if it is a table or a list.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float, str)):
        return str(value)
    raise ValueError("a table or a list")


def _kind_of(data: Any) -> str:
    is_external = "command" in data if isinstance(data, dict) else isinstance(data, ExternalConfig)
    return "external" if is_external else "trained"


AnyConfig: TypeAlias = Annotated[
    Annotated[RunConfig, Tag("trained")] | Annotated[ExternalConfig, Tag("external")], Discriminator(_kind_of)
]
