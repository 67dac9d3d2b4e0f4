"""A TOML grid file in, a Plan out: the cells of the design and the RunConfig of every cell and seed."""

from __future__ import annotations

import itertools
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

from pydantic import Field, PositiveInt

from gan_ablate.config import RunConfig, default_features
from gan_ablate.errors import UserError
from gan_ablate.folders import PREFIX, folder_identity
from gan_ablate.validation import Model, choices, validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BudgetName = Literal["smoke", "standard", "full"]


class Budget(Model):
    """How much a grid may spend; what a grid file leaves out comes from ``DEFAULT_BUDGETS``."""

    steps: PositiveInt | None = None
    seeds: PositiveInt | None = None
    num_samples: PositiveInt | None = None
    curve_samples: PositiveInt | None = None
    curve_points: PositiveInt | None = None


# 1,280 samples are twenty times the 64 features, the fewest that scoring accepts.
DEFAULT_BUDGETS: dict[BudgetName, Budget] = {
    "smoke": Budget(steps=120, seeds=2, num_samples=2_000, curve_samples=1_280, curve_points=2),
    "standard": Budget(steps=1_500, seeds=5, num_samples=10_000, curve_samples=2_000, curve_points=10),
    "full": Budget(steps=10_000, seeds=10, num_samples=10_000, curve_samples=2_000, curve_points=20),
}


class Factor(Model):
    """One thing that a grid varies: its levels, each a name and the fields it sets, and which one is the baseline."""

    baseline: str
    levels: Annotated[dict[str, dict[str, Any]], Field(min_length=2)]


class Grid(Model):
    """A grid file, read: what is asked, the preset it starts from, the factors and how they are combined.

    ``name`` and ``source`` come from the file's place, all else from its text.
    """

    name: str
    source: str
    title: str
    question: str = ""
    base: str
    design: Literal["factorial", "one-at-a-time"] = "factorial"
    factors: Annotated[dict[str, Factor], Field(min_length=1)]
    set: dict[str, Any] = {}
    budget: dict[BudgetName, Budget] = {}


class Cell(Model):
    """One variant: a level for every factor, and the configuration it stands for (with the plan's first seed)."""

    label: str
    levels: dict[str, str]
    config: RunConfig

    def with_seed(self, seed: int) -> RunConfig:
        """Return this variant's configuration for one seed."""
        return self.config.model_copy(update={"seed": seed})


class Plan(Model):
    """Everything a grid will train: its cells, the baseline first, times its seeds."""

    grid: Grid
    budget: BudgetName
    seeds: Annotated[tuple[int, ...], Field(strict=False)]
    cells: Annotated[tuple[Cell, ...], Field(strict=False)]
    folders: dict[str, str] = {}
    """Where each ``folder:NAME@HASH`` lies on this machine."""

    @property
    def runs(self) -> Iterator[tuple[Cell, RunConfig]]:
        """Every run: seeds outermost, so that an unfinished grid has whole seeds to compare."""
        return ((cell, cell.with_seed(seed)) for seed in self.seeds for cell in self.cells)

    @property
    def baseline(self) -> Cell:
        """The cell in which every factor is at its baseline."""
        return self.cells[0]


def list_grids() -> list[str]:
    """Names of the shipped grids."""
    return _shipped("grids")


def list_presets() -> list[str]:
    """Names of the shipped presets."""
    return _shipped("presets")


def load_preset(name: str, source: str) -> dict[str, Any]:
    """Read a shipped preset as plain data, its description left out.

    Raises:
        UserError: if there is no such preset; ``source`` says who asked for it.
    """
    if name not in list_presets():
        raise UserError(f"{source} = {name!r}: no such preset; {choices(name, list_presets())}")
    data = _read_toml(resources.files("gan_ablate.presets").joinpath(f"{name}.toml").read_text("utf-8"), name)
    return {field: value for field, value in data.items() if field != "description"}


def describe_preset(name: str) -> str:
    """Return the one-line description of a shipped preset."""
    text = resources.files("gan_ablate.presets").joinpath(f"{name}.toml").read_text("utf-8")
    return str(tomllib.loads(text)["description"])


def load_grid(name: str | Path) -> Grid:
    """Load a shipped grid by name, or one's own by the path of its TOML file.

    Args:
        name: one of ``list_grids()``, or a path that ends in ``.toml``.

    Raises:
        UserError: if there is no such grid, or its file is not a grid.
    """
    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        if str(name) not in list_grids():
            raise UserError(
                f"--grid {name}: no such grid; {choices(str(name), list_grids())}, or the path of a .toml file"
            )
        source, stem = f"grid {name}", str(name)
        text = resources.files("gan_ablate.grids").joinpath(f"{name}.toml").read_text("utf-8")
    else:
        source, stem = str(path), path.stem
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as unreadable:
            raise UserError(f"--grid {path}: {getattr(unreadable, 'strerror', None) or unreadable}") from None
        if not re.fullmatch(r"[\w-]+", stem):
            raise UserError(f"--grid {path}: the file's name becomes a folder; use letters, digits, - and _")
    data = {"title": stem, **_read_toml(text, source)}
    if {"name", "source"} & data.keys():
        raise UserError(f"{source}: name and source: a grid is named by its file, {stem}")
    grid = validate(Grid, {**data, "name": stem, "source": source}, source)
    for factor_name, factor in grid.factors.items():
        if factor.baseline not in factor.levels:
            advice = choices(factor.baseline, list(factor.levels))
            raise UserError(f"{source}: factors.{factor_name}.baseline = {factor.baseline!r}: no such level; {advice}")
    load_preset(grid.base, f"{source}: base")
    return grid


def plan(
    grid: Grid,
    *,
    budget: BudgetName = "standard",
    seeds: int | None = None,
    steps: int | None = None,
    dataset: str | None = None,
    features: Literal["inception"] | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """Resolve every cell of a grid into RunConfigs.

    Args:
        grid: what to resolve.
        budget: how much to spend.
        seeds: how many seeds, instead of the budget's number; they count from 0.
        steps: generator steps of a run, instead of the budget's number.
        dataset: instead of the base preset's data set.
        features: score with this extractor instead of the data set's own.
        overrides: ``path=value`` settings for every cell, the value in TOML's notation or a bare word.

    Raises:
        UserError: if any cell is not a valid configuration, or two cells are the same.
    """
    resolved = _resolve_budget(grid, budget, seeds, steps)
    scoring = {key: getattr(resolved, key) for key in ("num_samples", "curve_samples", "curve_points")}
    if features is not None:
        scoring["features"] = features
    common: dict[str, Any] = {"steps": resolved.steps, "scoring": scoring}
    if dataset is not None:
        common["dataset"] = dataset
    last: dict[str, Any] = {}
    for override in overrides:
        last = _merge(last, _parse_override(override))
    if "seed" in last:
        raise UserError("--set seed: the seeds of a grid are counted from 0; set their number with --seeds")

    folders: dict[str, str] = {}
    cells = []
    for levels in _combinations(grid):
        config = _resolve_cell(grid, levels, common, last, folders)
        cells.append(Cell(label=_label(grid, levels), levels=levels, config=config))
    _refuse_equal_cells(grid, cells)
    num_seeds = resolved.seeds or 1
    return Plan(grid=grid, budget=budget, seeds=tuple(range(num_seeds)), cells=tuple(cells), folders=folders)


def _resolve_budget(grid: Grid, name: BudgetName, seeds: int | None, steps: int | None) -> Budget:
    if name not in DEFAULT_BUDGETS:
        raise UserError(f"--budget {name}: no such budget; {choices(name, list(DEFAULT_BUDGETS))}")
    for option, number in (("--seeds", seeds), ("--steps", steps)):
        if number is not None and number < 1:
            raise UserError(f"{option} {number}: valid: a whole number from 1")
    asked = {"seeds": seeds, "steps": steps}
    own = grid.budget[name].model_dump(exclude_none=True) if name in grid.budget else {}
    given = {key: value for key, value in asked.items() if value is not None}
    return DEFAULT_BUDGETS[name].model_copy(update={**own, **given})


def _combinations(grid: Grid) -> Iterator[dict[str, str]]:
    """Yield a level for every factor, the all-baseline cell first."""
    baseline = {name: factor.baseline for name, factor in grid.factors.items()}
    others = {
        name: [level for level in factor.levels if level != factor.baseline] for name, factor in grid.factors.items()
    }
    match grid.design:
        case "factorial":
            ordered = ([baseline[name], *others[name]] for name in grid.factors)
            yield from (dict(zip(grid.factors, levels, strict=True)) for levels in itertools.product(*ordered))
        case "one-at-a-time":
            yield baseline
            yield from ({**baseline, name: level} for name, levels in others.items() for level in levels)
        case _:
            assert_never(grid.design)


def _resolve_cell(
    grid: Grid, levels: Mapping[str, str], common: dict[str, Any], last: dict[str, Any], folders: dict[str, str]
) -> RunConfig:
    where = ", ".join(f"{factor}.{level}" for factor, level in levels.items())
    source = f"{grid.source}, level {where}"
    preset, changes = grid.base, _merge({}, grid.set)
    for factor_name, level in levels.items():
        change = dict(grid.factors[factor_name].levels[level])
        preset = change.pop("preset", preset)
        if {"seed", "steps"} & change.keys():
            raise UserError(f"{source}: a level cannot set seed or steps: every run of a grid has the same")
        changes = _merge(changes, change)
    data = _merge(_merge(load_preset(preset, f"{source}: preset"), common), _merge(changes, last))
    dataset = str(data.get("dataset", RunConfig.model_fields["dataset"].default))
    if dataset.startswith(PREFIX):
        folder = Path(dataset.removeprefix(PREFIX)).expanduser()
        dataset = folder_identity(folder)
        folders[dataset] = str(folder.resolve())
    data = {**data, "dataset": dataset, "seed": 0}
    data["scoring"] = {"features": default_features(dataset), **data["scoring"]}
    return validate(RunConfig, data, source)


def _refuse_equal_cells(grid: Grid, cells: list[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.config.run_id, cell)
        if twin is not cell:
            raise UserError(
                f"{grid.source}: {twin.label!r} and {cell.label!r} are the same configuration: "
                "do the levels set different values, and does --set override what they set?"
            )


def _label(grid: Grid, levels: Mapping[str, str]) -> str:
    """Name a cell: every level of a factorial design, the one changed level of a one-at-a-time design."""
    if grid.design == "factorial":
        shown = dict(levels)
    else:
        shown = {name: level for name, level in levels.items() if level != grid.factors[name].baseline}
    return ", ".join(f"{name.replace('_', ' ')} {level}" for name, level in shown.items()) or "baseline"


def _parse_override(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"--set {text}: valid: path=value, such as loss.real_label=0.9")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return _merge({}, {path.strip(): parsed})


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``change`` over ``base``, tables into tables; a table of another ``kind`` replaces the old one whole."""
    merged = dict(base)
    for dotted, given in change.items():
        name, _, rest = dotted.partition(".")
        value = {rest: given} if rest else given
        old = merged.get(name)
        if isinstance(value, dict):
            if isinstance(old, str):  # the short form of a table, as in init = "normal"
                old = {"kind": old}
            same_kind = isinstance(old, dict) and value.get("kind", old.get("kind")) == old.get("kind")
            merged[name] = _merge(old if same_kind and isinstance(old, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def _read_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as invalid:
        raise UserError(f"{source}: not TOML: {invalid}") from None


def _shipped(folder: str) -> list[str]:
    files = resources.files(f"gan_ablate.{folder}").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))
