"""A Grid and the options of a run in, a Plan out: the cells of the design and the RunConfig of every cell and seed."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_never

from pydantic import Field

from gan_ablate.design.config import MAX_STEPS, MIN_SAMPLES, RunConfig, default_features
from gan_ablate.design.folders import PREFIX, folder_identity, list_classes, list_images
from gan_ablate.design.grid import DEFAULT_BUDGETS, MAX_SEEDS, Budget, BudgetName, Grid, check_depth, load_preset
from gan_ablate.design.validation import Model, choices, shorten, validate
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_Layer = tuple[str, dict[str, Any]]
"""What some place sets, and the place's name for messages."""

_BUDGET_COUNTS = ("num_samples", "curve_samples")


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
        dataset: instead of the grid's and its preset's data set.
        features: score with this extractor instead of the data set's own.
        overrides: ``path=value`` settings for every cell, the value in TOML's notation or a bare word.

    What lies over what, from the bottom: the preset, the budget, the grid's ``[set]``, the levels, the options.

    Raises:
        UserError: if any cell is not a valid configuration, or two cells are the same or have the same name.
    """
    resolved = _resolve_budget(grid, budget, seeds, steps)
    scoring = {key: getattr(resolved, key) for key in ("num_samples", "curve_samples", "curve_points")}
    common: dict[str, Any] = {"steps": resolved.steps, "scoring": scoring}
    options: list[_Layer] = []
    if dataset is not None:
        options.append((f"--dataset {shorten(dataset)}", {"dataset": dataset}))
    if features is not None:
        options.append((f"--features {features}", {"scoring": {"features": features}}))
    options += [(f"--set {shorten(override)}", _parse_override(override)) for override in overrides]
    if any({"seed", "steps"} & change.keys() for _, change in options):
        raise UserError("--set seed or steps: use --seeds, which counts from 0, and --steps")

    folders: dict[str, str] = {}
    cells: list[Cell] = []
    for levels in _combinations(grid):
        config = _resolve_cell(grid, levels, common, options, folders)
        cells.append(Cell(label=_label(grid, levels), levels=levels, config=config))
    _refuse_equal_cells(grid, cells)
    num_seeds = resolved.seeds or 1
    return Plan(grid=grid, budget=budget, seeds=tuple(range(num_seeds)), cells=tuple(cells), folders=folders)


def _resolve_budget(grid: Grid, name: BudgetName, seeds: int | None, steps: int | None) -> Budget:
    if name not in DEFAULT_BUDGETS:
        raise UserError(f"--budget {name}: no such budget; {choices(name, list(DEFAULT_BUDGETS))}")
    for option, number, most in (("--seeds", seeds, MAX_SEEDS), ("--steps", steps, MAX_STEPS)):
        if number is not None and not 1 <= number <= most:
            raise UserError(f"{option} {number}: valid: a whole number from 1 to {most}")
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
    grid: Grid, levels: Mapping[str, str], common: dict[str, Any], options: list[_Layer], folders: dict[str, str]
) -> RunConfig:
    where = ", ".join(f"{factor}.{level}" for factor, level in levels.items())
    source = f"{grid.source}, level {where}"
    preset = grid.base
    layers: list[_Layer] = [(f"{grid.source}, [set]", _merge({}, grid.set))]
    for factor_name, level in levels.items():
        change = dict(grid.factors[factor_name].levels[level])
        preset = change.pop("preset", preset)
        layers.append((source, _merge({}, change)))
    for place, change in layers:
        if {"seed", "steps"} & change.keys():
            advice = "seed and steps are the same in every run of a grid; set them in [budget.standard]"
            raise UserError(f"{place}: {advice}")
    layers += options
    data = _merge(load_preset(preset, f"{source}: preset"), common)
    for _, change in layers:
        data = _merge(data, change)
    dataset = data.get("dataset", RunConfig.model_fields["dataset"].default)
    if isinstance(dataset, str) and dataset.startswith(PREFIX):
        folder = _find_folder(dataset)
        known = {place: identity for identity, place in folders.items()}
        place = str(folder.resolve())
        dataset = known.get(place) or folder_identity(folder)
        folders[dataset] = place
    data = {**data, "dataset": dataset, "seed": 0}
    if data.get("conditional") is True and isinstance(dataset, str):
        data["num_classes"] = _count_classes(dataset, folders, source)
    if isinstance(data["scoring"], dict) and isinstance(dataset, str):
        data["scoring"] = {"features": default_features(dataset), **data["scoring"]}
        if data["scoring"]["features"] == "inception":  # a budget's counts are for the small classifiers
            for name in _BUDGET_COUNTS:
                if data["scoring"][name] == common["scoring"][name]:
                    data["scoring"][name] = max(common["scoring"][name], MIN_SAMPLES["inception"])
    return validate(RunConfig, data, lambda field: _find_origin(field, layers) or source)


def _count_classes(dataset: str, folders: Mapping[str, str], source: str) -> int:
    if dataset not in folders:
        return 10  # all that are known by name have ten
    folder = Path(folders[dataset])
    names = list_classes(folder, list_images(folder))
    if not names:
        advice = "valid: a folder whose images lie in at least two folders, one a class"
        raise UserError(f"{source}: conditional = true: {PREFIX}{folder} has no classes; {advice}")
    return len(names)


def _find_origin(field: str, layers: list[_Layer]) -> str | None:
    """Say which of the layers set a field, the last first; where none did, which one set the table it belongs to."""
    path = field.split(".")
    for length in range(len(path), 0, -1):
        for place, change in reversed(layers):
            if _sets(change, path[:length]):
                return place
    return None


def _sets(change: Mapping[str, Any], path: list[str]) -> bool:
    node: Any = change
    for part in path:
        if not isinstance(node, dict):  # the short form of a table, which sets all of it
            return True
        if part not in node:
            return False
        node = node[part]
    return True


def _find_folder(dataset: str) -> Path:
    text = dataset.removeprefix(PREFIX)
    try:
        folder = Path(text).expanduser()
    except RuntimeError:  # ~nobody has no home
        raise UserError(f"--dataset {dataset}: no such folder; valid: {PREFIX}PATH") from None
    if not text:
        raise UserError(f"--dataset {dataset}: which folder? valid: {PREFIX}PATH")
    return folder


def _refuse_equal_cells(grid: Grid, cells: list[Cell]) -> None:
    by_run_id: dict[str, Cell] = {}
    by_label: dict[str, Cell] = {}
    for cell in cells:
        twin = by_run_id.setdefault(cell.config.run_id, cell)
        if twin is not cell:
            raise UserError(
                f"{grid.source}: {twin.label!r} and {cell.label!r} are the same configuration: "
                "do the levels set different values, and do --set or --dataset override what they set?"
            )
        if by_label.setdefault(cell.label, cell) is not cell:
            raise UserError(f"{grid.source}: two variants are called {cell.label!r}: rename a factor or a level")


def _label(grid: Grid, levels: Mapping[str, str]) -> str:
    """Name a cell: every level of a factorial design, the one changed level of a one-at-a-time design."""
    if grid.design == "factorial":
        shown = dict(levels)
    else:
        shown = {name: level for name, level in levels.items() if level != grid.factors[name].baseline}
    return ", ".join(f"{name.replace('_', ' ')} {level}" for name, level in shown.items()) or "baseline"


def _parse_override(text: str) -> dict[str, Any]:
    source = f"--set {shorten(text)}"
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"{source}: valid: path=value, such as loss.real_label=0.9")
    try:
        parsed, *others = tomllib.loads(f"value = {value}").values()
    except (ValueError, RecursionError):  # not TOML, or of more digits than Python converts: a bare word
        parsed, others = value.strip(), []
    if others or "\n" in value:
        raise UserError(f"--set {shorten(repr(text))}: one line with one value; repeat --set for more")
    check_depth({path.strip(): parsed}, source)
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
