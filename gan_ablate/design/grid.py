"""Grids, presets, studies and documents: read their TOML files and check every field."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, StrictBool, StrictFloat, StrictInt
from pydantic_core import PydanticCustomError

from gan_ablate.design.claims import Claim, DesignKind, Factor, check_claims, name_levels
from gan_ablate.design.datasets import ARRAY_PREFIX, PREFIX
from gan_ablate.design.external import External
from gan_ablate.design.outcomes import RESULT_COLUMNS
from gan_ablate.design.run_fields import MAX_POINTS, MAX_STEPS
from gan_ablate.design.validation import Model, check_depth, choices, look_of, refuse_lookalikes, shorten, validate
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Sequence


BudgetName = Literal["smoke", "standard", "full"]

MAX_SEEDS = 10_000
MAX_CHARACTERS = 1_000_000
MAX_SENTENCE = 1_000
MAX_NAME = 80
"""The most characters of a factor's or a level's name: figures and tables have room for no more."""

_OTHER_COLUMNS = ("block", "completed", "diverged", "failed", "planned")
_RESERVED_GRIDS = (
    "runs", "plans", "cache", "checkpoints", "report", "records", "sheets", "study", "documents",
)  # fmt: skip


class Budget(Model):
    """How much a grid may spend; fields that a grid file leaves out come from ``DEFAULT_BUDGETS``."""

    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)] | None = None
    seeds: Annotated[int, Field(gt=0, le=MAX_SEEDS)] | None = None
    num_samples: PositiveInt | None = None
    curve_samples: PositiveInt | None = None
    curve_points: Annotated[int, Field(gt=0, le=MAX_POINTS)] | None = None


# 1,280 samples are twenty times the 64 features, the fewest that scoring accepts. Seeds of dcgan-28 spread by 1.6 % to
# 3.7 % of FID; at 2,048 samples the choice of images adds less than a tenth, in less than 5 % of a run's time.
DEFAULT_BUDGETS: dict[BudgetName, Budget] = {
    "smoke": Budget(steps=120, seeds=2, num_samples=2_000, curve_samples=1_280, curve_points=2),
    "standard": Budget(steps=1_500, seeds=5, num_samples=10_000, curve_samples=2_048, curve_points=10),
    "full": Budget(steps=10_000, seeds=10, num_samples=10_000, curve_samples=2_000, curve_points=20),
}


def read_percent(value: Any) -> Any:
    """Let ``"10 %"`` stand for 0.1."""
    if isinstance(value, str) and (number := re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?) ?%", value)):
        return float(number[1]) / 100
    return value


Share = Annotated[float, BeforeValidator(read_percent), Field(ge=0.001, le=1)]


def _name_by_path(value: Any) -> Any:
    """Flatten nested tables into one with dotted names: ``{"loss.kind": […]}``."""
    if not isinstance(value, dict):
        return value
    paths: dict[str, Any] = {}
    for name, inner in value.items():
        deeper = _name_by_path(inner)
        added = {f"{name}.{path}": at for path, at in deeper.items()} if isinstance(deeper, dict) and deeper else None
        for path, at in (added or {name: inner}).items():
            if path in paths:
                raise PydanticCustomError("twice", "it is set twice", {"field": path})
            paths[path] = at
    return paths


BlockValue = StrictBool | StrictInt | StrictFloat | Annotated[str, Field(min_length=1, max_length=MAX_SENTENCE)]


class Grid(Model):
    """A grid file: the question, the preset, the factors and how they are combined.

    ``name`` and ``source`` come from the path of the file, all other fields from its text.
    """

    name: str
    source: str
    title: str
    question: str = ""
    base: str = ""
    external: External | None = None
    """A user's script that trains instead of this program; such a grid has no ``base``."""
    design: DesignKind = "factorial"
    margin: Share = 0.1
    """The smallest change that matters, of an outcome that is compared by ratios: with "10 %", a ratio between 1 / 1.1
    and 1.1 is negligible."""
    factors: Annotated[dict[str, Factor], Field(min_length=1)]
    blocks: Annotated[dict[str, Annotated[list[BlockValue], Field(min_length=1)]], BeforeValidator(_name_by_path)] = {}
    """Field, or ``preset`` → its values, each a block within which variants are compared."""
    set: dict[str, Any] = {}
    budget: dict[BudgetName, Budget] = {}
    claims: list[Claim] = []

    @property
    def log_margin(self) -> float:
        """The margin on the log scale: a log ratio within ± this is negligible."""
        return math.log1p(self.margin)

    @property
    def folder(self) -> Path:
        """The folder of the grid's file, where user code is looked for."""
        return Path(self.source).parent.resolve()


def list_grids() -> list[str]:
    """List the names of the shipped grids."""
    return [*_list_shipped("grids")]


def list_presets() -> list[str]:
    """List the names of the shipped presets."""
    return [*_list_shipped("presets")]


def list_studies() -> list[str]:
    """List the names of the shipped studies."""
    return [*_list_shipped("studies")]


def load_preset(name: str, source: str) -> dict[str, Any]:
    """Read the settings of a shipped preset.

    Args:
        name: one of ``list_presets()``.
        source: the option or field that names it, for the message.

    Raises:
        UserError: if there is no such preset.
    """
    if name not in list_presets():
        raise UserError(f"{source} = {shorten(repr(name))}: no such preset; {choices(str(name), list_presets())}")
    return {field: value for field, value in read_preset(name).items() if field not in ("description", "document")}


def describe_preset(name: str) -> str:
    """Return the one-line description of a shipped preset."""
    return str(read_preset(name)["description"])


@functools.cache  # every variant of a grid reads it
def read_preset(name: str) -> dict[str, Any]:
    """Read the file of a shipped preset, with its description; callers must not change the result."""
    return tomllib.loads(_read_shipped("presets", name))


def load_grid(name: str | Path) -> Grid:
    """Load a shipped grid by name, or another grid by the path of its TOML file.

    >>> from gan_ablate import load_grid
    >>> list(load_grid("bn_label_smooth").factors)
    ['batch_norm', 'label_smoothing']

    Args:
        name: one of ``list_grids()``, or a path that ends in ``.toml``.

    Raises:
        UserError: if there is no such grid, or its file is not a valid grid.
    """
    source, stem, text = _read_source(name)
    data = {"title": stem, **_read_toml(text, source)}
    if not {"base", "external"} & data.keys():
        raise UserError(f"{source}: base is missing")
    if {"name", "source"} & data.keys():
        raise UserError(f"{source}: name and source: a grid is named by its file, {stem}")
    grid = validate(Grid, {**name_levels(data), "name": stem, "source": source}, source)
    for field, text in (("title", grid.title), ("question", grid.question)):
        if not text.isprintable() or len(text) > MAX_SENTENCE:
            advice = f"valid: one line of at most {MAX_SENTENCE} characters that can be printed"
            raise UserError(f"{source}: {field} = {shorten(repr(text))}: {advice}")
    for factor_name, factor in grid.factors.items():
        _check_factor(source, factor_name, factor)
    _check_base(grid, source)
    _check_distinct(grid, source)
    has_interactions = grid.design == "factorial"
    check_claims(grid.claims, grid.factors, source, has_interactions=has_interactions, max_sentence=MAX_SENTENCE)
    return grid


def _read_source(name: str | Path) -> tuple[str, str, str]:
    """Read a grid's file: its name for messages, the grid's name and the text."""
    path = Path(name)
    if not str(name).isprintable():
        raise UserError(f"{option('name', shorten(str(name)))}: characters that cannot be printed")
    if path.suffix != ".toml" and not path.is_file():
        if str(name) not in list_grids():
            advice = f"{choices(str(name), [*list_grids(), *list_studies()])}, or the path of a .toml file"
            raise UserError(f"{option('name', shorten(str(name)))}: no such grid; {advice}")
        return f"grid {name}", str(name), _read_shipped("grids", str(name))
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as unreadable:
        raise UserError(f"{option('name', path)}: {getattr(unreadable, 'strerror', None) or unreadable}") from None
    if not re.fullmatch(r"[\w-]+", path.stem) or path.stem in _RESERVED_GRIDS:
        raise UserError(
            f"{option('name', path)}: the file's name becomes a folder beside {', '.join(_RESERVED_GRIDS)}: "
            "use another one, of letters, digits, - and _"
        )
    return str(path), path.stem, text


def _check_base(grid: Grid, source: str) -> None:
    """Check that a grid has either a preset or a user's script."""
    if grid.external is None:
        load_preset(grid.base, f"{source}: base")
    elif grid.base or "preset" in grid.blocks:
        raise UserError(f"{source}: base = {shorten(repr(grid.base))}: valid: a base preset, or [external], not both")


def _check_factor(source: str, factor_name: str, factor: Factor) -> None:
    """Refuse names that tables, figures and files cannot show, and a baseline that is not a level."""
    taken, where = (*RESULT_COLUMNS, *_OTHER_COLUMNS), f"{source}: factors.{shorten(factor_name)}"
    if look_of(factor_name) in map(look_of, taken) or factor_name.endswith(("_low", "_high")):
        raise UserError(f"{where}: results have a column of that name; rename the factor")
    for name in (factor_name, *factor.levels):
        if not re.fullmatch(r"[\w .,:+-]+", name):
            raise UserError(f"{where}: {shorten(repr(name))}: use letters, digits, spaces and _ . , : + -")
        if len(name) > MAX_NAME:
            raise UserError(f"{where}: {shorten(name)}: valid: at most {MAX_NAME} characters")
    if factor.baseline not in factor.levels:
        advice = choices(factor.baseline, list(factor.levels))
        where = f"{source}: factors.{factor_name}.baseline"
        raise UserError(f"{where} = {shorten(repr(factor.baseline))}: no such level; {advice}")
    for level in factor.labels:
        if level not in factor.levels:
            where = f"{source}: factors.{shorten(factor_name)}.labels.{shorten(level)}"
            raise UserError(f"{where}: no such level; {choices(level, list(factor.levels))}")
    labels = {f"labels.{shorten(level)}": label for level, label in factor.labels.items()}
    if factor.label:
        labels["label"] = factor.label
    for key, label in labels.items():
        if not label.isprintable() or not 0 < len(label) <= MAX_NAME:
            where = f"{source}: factors.{shorten(factor_name)}.{key}"
            raise UserError(f"{where} = {shorten(repr(label))}: valid: one line of at most {MAX_NAME} characters")


def _check_distinct(grid: Grid, source: str) -> None:
    """Refuse names of factors, levels and blocks that look alike; image folders are compared by content later."""
    refuse_lookalikes(list(grid.factors), f"{source}: factors")
    for name, factor in grid.factors.items():
        refuse_lookalikes(list(factor.levels), f"{source}: factors.{shorten(name)}.levels")
    for field, values in grid.blocks.items():
        texts = [str(value) for value in values if not str(value).startswith((PREFIX, ARRAY_PREFIX))]
        refuse_lookalikes(texts, f"{source}: blocks.{shorten(field)}")


def _read_toml(text: str, source: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{source}: {len(text):,} characters; valid: at most {MAX_CHARACTERS:,}")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{source}: not TOML that can be read: tables too deep in one another") from None
    except ValueError as invalid:  # TOMLDecodeError, and numbers of more digits than Python converts
        hint = '; a level such as 0.2 beside a level 0 needs quotes: "0.2"' if "namespace" in str(invalid) else ""
        raise UserError(f"{source}: not TOML: {shorten(str(invalid))}{hint}") from None
    check_depth(data, source)
    return data


@functools.cache
def _list_shipped(folder: str) -> list[str]:
    files = resources.files(f"gan_ablate.design.{folder}").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def _read_shipped(folder: str, name: str) -> str:
    return resources.files(f"gan_ablate.design.{folder}").joinpath(f"{name}.toml").read_text("utf-8")


class Study(Model):
    """Grids that are computed together and share runs."""

    title: str
    question: str
    grids: list[str]


def load_study(name: str) -> Study:
    """Read a shipped study."""
    return validate(Study, tomllib.loads(_read_shipped("studies", name)), f"study {name}")


def load_grids(names: Sequence[str]) -> tuple[Grid, ...]:
    """Load shipped grids by name, all grids of shipped studies, and other grids by path, each once.

    Raises:
        UserError: if there is no such grid, one is not valid, or two have the same name.
    """
    single = [part for name in names for part in (load_study(name).grids if name in list_studies() else [name])]
    grids = {name: load_grid(name) for name in single}
    for name, grid in grids.items():
        twin = next(other for other, named in grids.items() if named.name == grid.name)
        if twin != name:
            raise UserError(
                f"{option('name', shorten(name))}: named like {option('name', shorten(twin))}; rename one of the files"
            )
    return tuple(grids.values())


class Document(Model):
    """The document that a preset's model comes from: how it trains the model, and what its choices claim."""

    title: str
    dataset: str
    """The data set; ``folder:PATH`` where it is a user's folder."""
    epochs: int
    seed: int = 0
    claims: list[str]
    """Ids of claims in shipped grids on choices of the model."""
    repaired: str
    """What the preset changes or adds; empty where it follows the document."""

    def command(self, preset: str) -> str:
        """Write the command that trains the preset as the document does."""
        seed = f" --seed {self.seed}" if self.seed else ""
        return f"gan-ablate train {preset} --dataset {self.dataset} --epochs {self.epochs}{seed}"


def load_document(preset: str) -> Document | None:
    """Read the document of a preset; None where it comes from no document."""
    data = read_preset(preset).get("document")
    return None if data is None else validate(Document, data, f"preset {preset}, [document]")
