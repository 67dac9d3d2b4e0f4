"""Plans: resolve a grid and options into the variants of the design, with a RunConfig for each variant and seed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, Field

from gan_ablate.design.claims import DesignKind, Factor, label_levels
from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import PREFIX, KnownFolders
from gan_ablate.design.external import AnyConfig, ExternalConfig
from gan_ablate.design.grid import (
    DEFAULT_BUDGETS,
    MAX_SEEDS,
    Budget,
    BudgetName,
    Grid,
    count_variants,
    list_combinations,
)
from gan_ablate.design.resolve import budget_settings, list_options, reference_notes, resolve_variant, unscored_notes
from gan_ablate.design.resolve_external import (
    check_external,
    folder_notes,
    grid_folder,
    resolve_program,
    unpaired_notes,
)
from gan_ablate.design.run_fields import MAX_STEPS
from gan_ablate.design.settings import TELLING, Block, count_blocks, file_name, list_blocks, look_up, tell_apart
from gan_ablate.design.user_code import UserCode
from gan_ablate.design.validation import Model, choices, shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gan_ablate.design.settings import Layer

MAX_VARIANTS = 10_000
MAX_RUNS = 1_000_000
"""Of a plan: all of their names are held at once."""

Intervals = Literal["fixed", "sequential"]


class Variant(Model):
    """One variant: a level for every factor, and the configuration it stands for (with the plan's first seed)."""

    label: str
    levels: dict[str, str]
    config: AnyConfig
    block: dict[str, str] = {}
    """Field → value, of what sets its block apart from the grid as its file has it; see ``design.blocks``."""

    @property
    def trained(self) -> RunConfig:
        """The configuration of a variant that this program trains, as all are but those of ``[external]``."""
        assert isinstance(self.config, RunConfig)
        return self.config

    def with_seed(self, seed: int) -> AnyConfig:
        """Return this variant's configuration for one seed."""
        return self.config.with_seed(seed)

    def run_id(self, seed: int) -> str:
        """Return the name of this variant's run of one seed."""
        return self.config.run_id_of(seed)


class Plan(Model):
    """Everything a grid will train: its variants, the baseline first, times its seeds."""

    grid: Grid
    budget: BudgetName
    seeds: Annotated[tuple[int, ...], Field(strict=False)]
    variants: Annotated[
        tuple[Variant, ...], Field(strict=False, validation_alias=AliasChoices("variants", "cells"))  # its earlier name
    ]
    folders: dict[str, str] = {}
    """Where each ``folder:NAME@HASH`` lies on this machine."""
    sources: dict[str, Annotated[tuple[str, ...], Field(strict=False)]] = {}
    """The files whose content each ``NAME@HASH`` of a user's code stands for."""
    intervals: Intervals = "fixed"
    """Whether the number of seeds was settled before any was looked at, or they are added as answers come in."""
    until_settled: bool = False
    """Whether the answers say how many seeds there are."""
    stopped: dict[str, int] = {}
    """How many of the seeds a variant gets, by its label, where its questions were settled before the others'."""
    notes: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """What is to be known before anything is trained."""

    @property
    def factors(self) -> dict[str, Factor]:
        """What the grid varies."""
        return self.grid.factors

    @property
    def kind(self) -> DesignKind:
        """How the grid combines them."""
        return self.grid.design

    @property
    def log_margin(self) -> float:
        """The grid's margin, of a log ratio."""
        return self.grid.log_margin

    @property
    def name(self) -> str:
        """What its file and folder are called among results: ``beta1``, or ``beta1@fashion-mnist`` for a block."""
        words = [
            value.removeprefix(PREFIX) if field in TELLING else f"{field}-{value}"
            for field, value in self.baseline.block.items()
        ]
        return "@".join([self.grid.name, *map(file_name, words)])

    @property
    def blocks(self) -> tuple[Plan, ...]:
        """A plan for each block, within which its variants are compared; of one block, itself."""
        by_block: dict[tuple[tuple[str, str], ...], list[Variant]] = {}
        for variant in self.variants:
            by_block.setdefault(tuple(variant.block.items()), []).append(variant)
        return tuple(self.model_copy(update={"variants": tuple(variants)}) for variants in by_block.values())

    @property
    def run_names(self) -> dict[str, str]:
        """Words for every run, by its id: its variant's label, behind its block where there are several."""
        blocks = self.blocks
        return {
            variant.run_id(seed): f"{words}: {variant.label}" if len(blocks) > 1 else variant.label
            for block, words in zip(blocks, name_blocks(blocks), strict=True)
            for variant, seed in block.places
        }

    @property
    def runs(self) -> Iterator[tuple[Variant, AnyConfig]]:
        """Every run: seeds outermost, so that an unfinished grid has whole seeds to compare."""
        return ((variant, variant.with_seed(seed)) for variant, seed in self.places)

    @property
    def places(self) -> Iterator[tuple[Variant, int]]:
        """The variant and the seed of every run, in the same order."""
        num_seeds = [(variant, len(self.seeds_of(variant))) for variant in self.variants]
        return ((variant, seed) for number, seed in enumerate(self.seeds) for variant, num in num_seeds if number < num)

    @property
    def run_ids(self) -> Iterator[str]:
        """The name of every run, in the same order."""
        return (variant.run_id(seed) for variant, seed in self.places)

    @property
    def num_runs(self) -> int:
        """How many there are."""
        return sum(len(self.seeds_of(variant)) for variant in self.variants)

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """Return the seeds of one variant."""
        return self.seeds[: self.stopped.get(variant.label, len(self.seeds))]

    @property
    def baseline(self) -> Variant:
        """The variant in which every factor is at its baseline."""
        return self.variants[0]


def name_blocks(plans: Sequence[Plan]) -> list[str]:
    """Say what sets plans of one grid apart, in a few words each: ``fashion-mnist``; nothing where nothing does.

    Args:
        plans: of a block each.
    """
    fields = max((plan.baseline.block for plan in plans), key=len)
    fields = {**fields, **{field: "" for plan in plans for field in plan.baseline.block}}
    return [", ".join(_block_words(plan, field) for field in fields) for plan in plans]


def _block_words(plan: Plan, field: str) -> str:
    value: Any = plan.baseline.block.get(field)
    if value is None:  # as the grid's file has it
        value = plan.grid.base if field == "preset" else look_up(plan.baseline.config, field)
    return str(value) if field in TELLING else f"{field.replace('_', ' ').replace('.', ' ')} {value}"


def plan(
    grid: Grid,
    *,
    budget: BudgetName = "standard",
    seeds: int | None = None,
    steps: int | None = None,
    dataset: str | Sequence[str] | None = None,
    base: str | Sequence[str] | None = None,
    features: Literal["inception"] | None = None,
    overrides: Sequence[str] = (),
    allow_code: bool = False,
) -> Plan:
    """Resolve every variant of a grid into configurations of runs.

    >>> from gan_ablate import load_grid, plan
    >>> planned = plan(load_grid("bn_label_smooth"), budget="smoke", seeds=2)
    >>> len(planned.variants), planned.num_runs
    (4, 8)

    Args:
        grid: what to resolve.
        budget: how much to spend.
        seeds: how many seeds, instead of the budget's number; they count from 0.
        steps: generator steps of a run, instead of the budget's number.
        dataset: instead of the grid's and its preset's data set; several make a block each.
        base: instead of the grid's base preset; several make a block each.
        features: score with this extractor instead of the data set's own.
        overrides: ``path=value`` settings for every variant, the value in TOML's notation or a bare word.
        allow_code: allow the scripts and modules of users that the grid names to be run.

    What lies over what, from the bottom: the preset, the budget, the grid's ``[set]``, its ``[blocks]``, the levels,
    the options.

    Raises:
        UserError: if any variant is not a valid configuration, or two are the same or have the same name; or if the
            grid runs user code and that is not allowed.
    """
    resolved = _resolve_budget(grid, budget, seeds, steps)
    if grid.external is not None:
        check_external(grid, grid.external, steps, _as_sequence(base), allow_code=allow_code)
    common = budget_settings(resolved)
    options = list_options(features, overrides)
    own_budget: list[Layer] = []
    if budget in grid.budget:
        own = grid.budget[budget].model_dump(include={*common["scoring"]}, exclude_none=True)
        own_budget.append((f"{grid.source}, [budget.{budget}]", {"scoring": own}))
    folders = KnownFolders()
    is_file = Path(grid.source).suffix == ".toml"
    code = UserCode(grid_folder(grid) if is_file else None, is_allowed=allow_code)
    datasets, bases = _as_sequence(dataset), _as_sequence(base)
    num_variants = count_blocks(grid, datasets, bases) * count_variants(grid)
    if num_variants > MAX_VARIANTS:
        raise UserError(f"{grid.source}: {num_variants:,} variants; valid: at most {MAX_VARIANTS:,}")

    def resolve(levels: Mapping[str, str], block: Block) -> AnyConfig:
        if grid.external is not None:
            return resolve_program(grid, levels, block, resolved, options, folders)
        return resolve_variant(grid, levels, block, common, own_budget, options, folders, code)

    variants = [
        variant for block in list_blocks(grid, datasets, bases) for variant in _resolve_block(grid, block, resolve)
    ]
    _refuse_equal_variants(grid, variants)
    for variant in variants:
        if isinstance(variant.config, ExternalConfig):
            code.places[variant.config.code] = str(grid_folder(grid))
            code.files[variant.config.code] = variant.config.files
    folders.places.update(code.places)
    num_seeds = resolved.seeds or 1
    if len(variants) * num_seeds > MAX_RUNS:
        size = f"{len(variants):,} variants × {num_seeds:,} seeds are {len(variants) * num_seeds:,} runs"
        advice = f"valid: at most {MAX_RUNS:,}, here {MAX_RUNS // len(variants):,} seeds"
        raise UserError(f"{grid.source}: {size}; {advice}")
    return Plan(
        grid=grid,
        budget=budget,
        seeds=tuple(range(num_seeds)),
        variants=tuple(variants),
        folders=folders.places,
        sources=code.files,
        notes=(
            *folders.notes,
            *folder_notes(grid, (variant.config for variant in variants)),
            *unscored_notes(variant.config for variant in variants),
            *reference_notes((variant.config for variant in variants), folders),
            *unpaired_notes(grid),
        ),
    )


def _resolve_block(grid: Grid, block: Block, resolve: Callable[[Mapping[str, str], Block], AnyConfig]) -> list[Variant]:
    """Resolve every variant of a block, and say what sets the block apart."""
    every = [(levels, resolve(levels, block)) for levels in list_combinations(grid)]
    apart: dict[str, str] = {}
    if block.fields:
        baseline, config = every[0]
        apart = tell_apart(grid, block, config, functools.partial(resolve, baseline))
    return [
        Variant(label=label_levels(grid.design, grid.factors, levels), levels=levels, config=config, block=apart)
        for levels, config in every
    ]


def _as_sequence(values: str | Sequence[str] | None) -> Sequence[str]:
    return (values,) if isinstance(values, str) else values or ()


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


def _refuse_equal_variants(grid: Grid, variants: list[Variant]) -> None:
    by_run_id: dict[str, Variant] = {}
    by_label: dict[tuple[str, ...], Variant] = {}
    for variant in variants:
        twin = by_run_id.setdefault(variant.config.run_id, variant)
        if twin is not variant:
            raise UserError(
                f"{grid.source}: {shorten(repr(twin.label))} and {shorten(repr(variant.label))} are the same "
                "configuration: do levels and blocks set different values, or do --set or --dataset override them?"
            )
        if by_label.setdefault((variant.label, *variant.block.values()), variant) is not variant:
            raise UserError(
                f"{grid.source}: two variants are called {shorten(repr(variant.label))}: rename a factor or a level"
            )
