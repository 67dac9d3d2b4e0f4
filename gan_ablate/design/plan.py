"""Plans: resolve a grid and options into the variants of the design, with a RunConfig for each variant and seed."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from gan_ablate.design.claims import label_levels
from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import ARRAY_PREFIX, PREFIX, KnownFolders
from gan_ablate.design.external import AnyConfig, ExternalConfig
from gan_ablate.design.grid import (
    DEFAULT_BUDGETS,
    MAX_SEEDS,
    Budget,
    BudgetName,
    Grid,
)
from gan_ablate.design.resolve import (
    Shared,
    list_budget_layers,
    list_options,
    reference_notes,
    resolve_variant,
    unscored_notes,
)
from gan_ablate.design.resolve_external import check_external, folder_notes, patch_notes, resolve_script, unpaired_notes
from gan_ablate.design.run_fields import MAX_STEPS
from gan_ablate.design.settings import (
    SELF_EXPLAINING,
    Block,
    count_blocks,
    count_variants,
    file_name,
    list_blocks,
    list_combinations,
    look_up,
    tell_apart,
)
from gan_ablate.design.user_code import UserCode
from gan_ablate.design.validation import Model, choices, shorten
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Resolve = Callable[[Grid, Mapping[str, str], Block, Shared], AnyConfig]

MAX_VARIANTS = 10_000
MAX_RUNS = 1_000_000
"""The most runs of a plan, whose names are all held at once."""

Intervals = Literal["fixed", "sequential"]


class Variant(Model):
    """One variant: a level for every factor, and the configuration it stands for (with the plan's first seed)."""

    label: str
    levels: dict[str, str]
    config: AnyConfig
    block: dict[str, str] = {}
    """Field → value where its block differs from the grid's file; see ``settings.Block``."""

    @property
    def trained(self) -> RunConfig:
        """The configuration, of a variant without a user's script."""
        assert isinstance(self.config, RunConfig)
        return self.config

    def with_seed(self, seed: int) -> AnyConfig:
        """Return this variant's configuration for one seed."""
        return self.config.with_seed(seed)

    def run_id(self, seed: int) -> str:
        """Return the name of this variant's run of one seed."""
        return self.config.run_id_of(seed)


class Plan(Model):
    """All runs of a grid: its variants, the baseline first, times its seeds."""

    grid: Grid
    budget: BudgetName
    seeds: Annotated[tuple[int, ...], Field(strict=False)]
    variants: Annotated[tuple[Variant, ...], Field(strict=False)]
    folders: dict[str, str] = {}
    """The path of each ``folder:NAME@HASH`` on this machine."""
    sources: dict[str, Annotated[tuple[str, ...], Field(strict=False)]] = {}
    """``NAME@HASH`` of user code → the files that the hash is made of."""
    intervals: Intervals = "fixed"
    """Whether the number of seeds was fixed beforehand, or seeds are added after interim analyses."""
    until_settled: bool = False
    """Whether seeds are added until every decision is made."""
    stopped: dict[str, int] = {}
    """A variant's label → how many seeds it gets, where its decisions were made before the others'."""
    notes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """What a user should know before training."""

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_name(cls, data: Any) -> Any:
        """Read ``cells``, the earlier name of ``variants``: results folders may hold plans that have it."""
        if isinstance(data, dict) and "cells" in data:
            return {"variants" if name == "cells" else name: value for name, value in data.items()}
        return data

    def _repr_html_(self) -> str:
        """Show the plan in a notebook: its size, and a row for every variant."""
        names: list[object] = [*self.baseline.levels, "seeds", "steps", "data set"]
        rows = [
            [*variant.levels.values(), len(self.seeds_of(variant)), variant.config.steps, variant.config.dataset]
            for variant in self.variants
        ]
        lines: list[list[object]] = [[*names], *rows]
        head, *body = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in line) for line in lines)
        size = f"{len(rows):,} variants, {self.num_runs:,} runs, budget {self.budget}"
        table = f"<thead><tr>{head.replace('td>', 'th>')}</tr></thead><tbody><tr>{'</tr><tr>'.join(body)}</tr></tbody>"
        return f"<p><b>{html.escape(self.grid.title)}</b>: {size}</p><table>{table}</table>"

    @property
    def name(self) -> str:
        """The name of its file and folder among results: ``beta1``, or ``beta1@fashion-mnist`` for a block."""
        words = [
            value.removeprefix(PREFIX).removeprefix(ARRAY_PREFIX) if field in SELF_EXPLAINING else f"{field}-{value}"
            for field, value in self.baseline.block.items()
        ]
        return "@".join([self.grid.name, *map(file_name, words)])

    @property
    def blocks(self) -> tuple[Plan, ...]:
        """A plan for each block, within which variants are compared."""
        by_block: dict[tuple[tuple[str, str], ...], list[Variant]] = {}
        for variant in self.variants:
            by_block.setdefault(tuple(variant.block.items()), []).append(variant)
        return tuple(self.model_copy(update={"variants": tuple(variants)}) for variants in by_block.values())

    @property
    def run_names(self) -> dict[str, str]:
        """Run id → the variant's label, with the block before it where there are several."""
        blocks = self.blocks
        return {
            variant.run_id(seed): f"{words}: {variant.label}" if len(blocks) > 1 else variant.label
            for block, words in zip(blocks, name_blocks(blocks), strict=True)
            for variant, seed in block.seeded_variants
        }

    @property
    def runs(self) -> Iterator[tuple[Variant, AnyConfig]]:
        """The variant and the configuration of every run; all variants of one seed come before the next seed."""
        return ((variant, variant.with_seed(seed)) for variant, seed in self.seeded_variants)

    @property
    def seeded_variants(self) -> Iterator[tuple[Variant, int]]:
        """The variant and the seed of every run, in the order of ``runs``."""
        num_seeds = [(variant, len(self.seeds_of(variant))) for variant in self.variants]
        return ((variant, seed) for number, seed in enumerate(self.seeds) for variant, num in num_seeds if number < num)

    @property
    def run_ids(self) -> Iterator[str]:
        """The id of every run, in the order of ``runs``."""
        return (variant.run_id(seed) for variant, seed in self.seeded_variants)

    @property
    def num_runs(self) -> int:
        """The number of runs."""
        return sum(len(self.seeds_of(variant)) for variant in self.variants)

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """Return the seeds of one variant."""
        return self.seeds[: self.stopped.get(variant.label, len(self.seeds))]

    @property
    def baseline(self) -> Variant:
        """The variant in which every factor is at its baseline."""
        return self.variants[0]


def name_blocks(plans: Sequence[Plan]) -> list[str]:
    """Say in a few words each how plans of one grid differ: ``fashion-mnist``; empty where they do not.

    Args:
        plans: each of one block.
    """
    fields = max((plan.baseline.block for plan in plans), key=len)
    fields = {**fields, **{field: "" for plan in plans for field in plan.baseline.block}}
    return [", ".join(_block_words(plan, field) for field in fields) for plan in plans]


def _block_words(plan: Plan, field: str) -> str:
    value: Any = plan.baseline.block.get(field)
    if value is None:  # as the grid's file has it
        value = plan.grid.base if field == "preset" else look_up(plan.baseline.config, field)
    return str(value) if field in SELF_EXPLAINING else f"{field.replace('_', ' ').replace('.', ' ')} {value}"


def plan(
    grid: Grid,
    *,
    budget: BudgetName = "standard",
    seeds: int | None = None,
    steps: int | None = None,
    dataset: str | Sequence[str] | None = None,
    base: str | Sequence[str] | None = None,
    holdout: str | None = None,
    features: str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    allow_code: bool = False,
) -> Plan:
    """Resolve every variant of a grid into configurations of runs.

    >>> from gan_ablate import load_grid, plan
    >>> planned = plan(load_grid("bn_label_smooth"), budget="smoke", seeds=2)
    >>> len(planned.variants), planned.num_runs
    (4, 8)

    Args:
        grid: the grid to resolve.
        budget: how many steps, seeds and samples to spend.
        seeds: how many seeds, instead of the budget's number; they count from 0.
        steps: generator steps of a run, instead of the budget's number.
        dataset: replaces the grid's and its preset's data set; several make a block each.
        base: replaces the grid's base preset; several make a block each.
        holdout: held-out images to compare with, ``folder:PATH`` or ``array:PATH``, instead of a sixth of those of a
            folder or an array.
        features: the extractor, instead of the data set's default: ``"inception"``, or yours as ``"MODULE:NAME"`` or
            ``"FILE.pt"``; or a table as a grid file has it, ``{"kind": "module", "path": "mine:embed", "size": 224}``.
        overrides: ``path=value`` settings for every variant, the value in TOML's notation or a bare word.
        allow_code: whether user code that the grid names may be run.

    Later settings replace earlier ones: the preset, the budget, the grid's ``[set]``, its ``[blocks]``, the levels, the
    options.

    Raises:
        UserError: if a variant is not a valid configuration, if two variants are the same or have the same name, or if
            the grid runs user code and that is not allowed.
    """
    if not isinstance(grid, Grid):
        raise UserError(f"{option('grid', grid)}: valid: what load_grid returns, such as load_grid({str(grid)!r})")
    chosen = _resolve_budget(grid, budget, seeds, steps)
    datasets, bases = _as_sequence(dataset), _as_sequence(base)
    if grid.external is not None:
        check_external(grid, grid.external, steps, bases, allow_code=allow_code)
    options = list_options(features, overrides, holdout)
    num_variants, num_seeds = count_blocks(grid, datasets, bases) * count_variants(grid), chosen.seeds or 1
    if num_variants > MAX_VARIANTS:
        raise UserError(f"{grid.source}: {num_variants:,} variants; valid: at most {MAX_VARIANTS:,}")
    is_file = Path(grid.source).suffix == ".toml"
    code = UserCode(grid.folder if is_file else Path.cwd(), is_allowed=allow_code)
    shared = Shared(chosen, list_budget_layers(grid, budget), options, KnownFolders(), code)
    blocks = list_blocks(grid, datasets, bases)
    variants = [variant for block in blocks for variant in _resolve_block(grid, block, shared)]
    _refuse_equal_variants(grid, variants)
    _check_num_runs(grid, num_variants, num_seeds)
    for config in (variant.config for variant in variants):
        if isinstance(config, ExternalConfig):
            code.paths[config.code], code.files[config.code] = str(grid.folder), config.files
    return Plan(
        grid=grid,
        budget=budget,
        seeds=tuple(range(num_seeds)),
        variants=tuple(variants),
        folders=shared.folders.paths | code.paths,
        sources=code.files,
        notes=_list_notes(grid, variants, shared.folders),
    )


def _resolve_block(grid: Grid, block: Block, shared: Shared) -> list[Variant]:
    """Resolve every variant of a block, and say how the block differs from the grid's file."""
    resolve: Resolve = resolve_variant if grid.external is None else resolve_script
    every = [(levels, resolve(grid, levels, block, shared)) for levels in list_combinations(grid)]
    apart: dict[str, str] = {}
    if block.fields:
        baseline, config = every[0]
        apart = tell_apart(grid, block, config, lambda plain: resolve(grid, baseline, plain, shared))
    return [
        Variant(label=label_levels(grid.design, grid.factors, levels), levels=levels, config=config, block=apart)
        for levels, config in every
    ]


def _check_num_runs(grid: Grid, num_variants: int, num_seeds: int) -> None:
    if num_variants * num_seeds > MAX_RUNS:
        size = f"{num_variants:,} variants × {num_seeds:,} seeds are {num_variants * num_seeds:,} runs"
        advice = f"valid: at most {MAX_RUNS:,}, here {MAX_RUNS // num_variants:,} seeds"
        raise UserError(f"{grid.source}: {size}; {advice}")


def _list_notes(grid: Grid, variants: Sequence[Variant], folders: KnownFolders) -> tuple[str, ...]:
    configs = [variant.config for variant in variants]
    return (
        *folders.notes,
        *patch_notes(grid),
        *folder_notes(grid, configs),
        *unscored_notes(configs),
        *reference_notes(configs, folders),
        *unpaired_notes(grid),
    )


def _as_sequence(values: str | Sequence[str] | None) -> Sequence[str]:
    return (values,) if isinstance(values, str) else values or ()


def _resolve_budget(grid: Grid, name: BudgetName, seeds: int | None, steps: int | None) -> Budget:
    if name not in DEFAULT_BUDGETS:
        raise UserError(f"{option('budget', name)}: no such budget; {choices(name, list(DEFAULT_BUDGETS))}")
    for parameter, number, most in (("seeds", seeds, MAX_SEEDS), ("steps", steps, MAX_STEPS)):
        if number is not None and not 1 <= number <= most:
            raise UserError(f"{option(parameter, number)}: valid: a whole number from 1 to {most}")
    asked = {"seeds": seeds, "steps": steps}
    of_grid = grid.budget[name].model_dump(exclude_none=True) if name in grid.budget else {}
    given = {key: value for key, value in asked.items() if value is not None}
    return DEFAULT_BUDGETS[name].model_copy(update={**of_grid, **given})


def _refuse_equal_variants(grid: Grid, variants: list[Variant]) -> None:
    by_run_id: dict[str, Variant] = {}
    by_label: dict[tuple[str, ...], Variant] = {}
    for variant in variants:
        twin = by_run_id.setdefault(variant.config.run_id, variant)
        if twin is not variant:
            raise UserError(
                f"{grid.source}: {shorten(repr(twin.label))} and {shorten(repr(variant.label))} are the same "
                f"configuration: do levels and blocks set different values, or do {option('overrides')} or "
                f"{option('dataset')} override them?"
            )
        if by_label.setdefault((variant.label, *variant.block.values()), variant) is not variant:
            raise UserError(
                f"{grid.source}: two variants are called {shorten(repr(variant.label))}: rename a factor or a level"
            )
