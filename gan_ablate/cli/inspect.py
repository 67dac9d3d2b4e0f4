"""The command ``list``: grids, presets, data sets, budgets, fields and claims, and all about one of them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from gan_ablate.cli.options import describe_budgets, print_entries, print_text, study_hint
from gan_ablate.design.claims import describe_expectation
from gan_ablate.design.config import find_fields, list_fields
from gan_ablate.design.datasets import (
    ARRAY_PREFIX,
    DATASET_FILES,
    DATASETS,
    EXTRACTORS,
    NUM_CLASSES,
    NUM_FEATURES,
    NUM_HELD_OUT,
    NUM_TRAINING_IMAGES,
    PREFIX,
    count_channels,
    default_features,
)
from gan_ablate.design.grid import (
    DEFAULT_BUDGETS,
    Grid,
    describe_preset,
    list_grids,
    list_presets,
    list_studies,
    load_document,
    load_grid,
    load_study,
    read_preset,
)
from gan_ablate.design.networks import list_layers
from gan_ablate.design.outcomes import margin_text
from gan_ablate.design.resolve import plan_run
from gan_ablate.design.settings import count_variants, find_levels, write_settings
from gan_ablate.design.validation import shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from gan_ablate.design.claims import Claim
    from gan_ablate.design.validation import FieldHelp
    from gan_ablate.execution.store import Store

KINDS = ("grids", "presets", "datasets", "budgets", "fields", "claims")


def show(console: Console, what: str | None, store: Store) -> None:
    """Print what there is, one kind of it, or all about one thing: a grid and a field may share a name.

    Args:
        console: where to print.
        what: one of ``KINDS``, a name, or None for an overview.
        store: the results folder, for verdicts of claims.

    Raises:
        UserError: if there is nothing of that name.
    """
    if what is None:
        _show_overview(console)
    elif what in KINDS:
        _OF_KIND[what](console, store)
    else:
        found = list(_find(what))
        if not found:
            raise UserError(_describe_unknown(what))
        for number, show_one in enumerate(found):
            if number:
                console.print()
            show_one(console, store)


def _find(name: str) -> Iterator[Callable[[Console, Store], None]]:
    """Yield a function that prints all about each thing of a name."""
    if name in list_grids() or name.endswith(".toml"):
        yield lambda console, _: _show_grid(console, load_grid(name))
    if name in list_studies():
        yield lambda console, _: _show_study(console, name)
    if name in list_presets():
        yield lambda console, _: _show_preset(console, name)
    if name in DATASETS:
        yield lambda console, _: _show_dataset(console, name)
    if name in DEFAULT_BUDGETS:
        yield _show_budgets
    for grid, claim in _list_claims():
        if claim.id == name:
            yield lambda console, store, grid=grid, claim=claim: _show_claim(console, store, grid, claim)  # type: ignore[misc]
    for field in find_fields(name):
        yield lambda console, _, field=field: _show_field(console, field)  # type: ignore[misc]


def _describe_unknown(name: str) -> str:
    fields = [field.path for field in list_fields()]
    claims = [claim.id for _, claim in _list_claims() if claim.id]
    names = [*KINDS, *list_grids(), *list_studies(), *list_presets(), *DATASETS, *DEFAULT_BUDGETS, *claims]
    names += [*fields, *(path.rpartition(".")[2] for path in fields)]
    near = difflib.get_close_matches(shorten(name), dict.fromkeys(names), n=4, cutoff=0.55)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    kinds = "grid, study, preset, data set, budget, field or claim"
    return f"list {shorten(name)}: no such {kinds}; {hint}valid: {', '.join(KINDS)}, or a name of gan-ablate list"


def _show_overview(console: Console) -> None:
    console.print("Grids: each asks a question. gan-ablate run --grid NAME")
    print_entries(console, ((name, load_grid(name).title) for name in list_grids()))
    console.print("Studies: grids that are run together, by the same command")
    print_entries(
        console, ((name, f"{(study := load_study(name)).title}: {len(study.grids)} grids") for name in list_studies())
    )
    console.print("Budgets: what --budget spends")
    print_entries(console, describe_budgets())
    console.print("Presets: models that grids start from")
    print_text(console, ", ".join(list_presets()), indent=2)
    console.print("Data sets")
    print_text(console, ", ".join(DATASETS), indent=2)
    console.print(f"Fields that a level can set: {len(list_fields())}. Claims that grids test: {len(_list_claims())}.")
    console.print()
    print_entries(
        console,
        [
            ("gan-ablate list KIND", f"more of one kind: {', '.join(KINDS)}"),
            ("gan-ablate list NAME", "all about one: normalisation, dcgan-28, mnist, batch_size, C4, my.toml"),
        ],
        indent=0,
    )


def _show_grids(console: Console, _: Store) -> None:
    for name in list_grids():
        grid = load_grid(name)
        console.print(f"{name}: {grid.title}", highlight=False, soft_wrap=True)
        print_text(console, grid.question, indent=4)
        print_text(console, f"Factors: {', '.join(grid.factors)}", indent=4)
    for name in list_studies():
        console.print()
        _show_study(console, name)


def _show_study(console: Console, name: str) -> None:
    study = load_study(name)
    console.print(f"Study {name}: {study.title}", highlight=False, soft_wrap=True)
    print_text(console, study.question, indent=4)
    print_text(console, f"Grids: {', '.join(study.grids)}", indent=4)
    print_text(console, f"Run it: gan-ablate run --grid {name}", indent=4)


def _show_grid(console: Console, grid: Grid) -> None:
    name = grid.name if grid.name in list_grids() else grid.source
    console.print(f"Grid {grid.name}: {grid.title}", highlight=False, soft_wrap=True)
    print_text(console, grid.question, indent=2)
    ways = {"factorial": "every combination of levels", "one-at-a-time": "each level against one baseline"}
    base = f"preset {grid.base}" if grid.external is None else f"a script, {' '.join(grid.external.command)}"
    facts = [
        ("base", base),
        ("design", f"{grid.design}: {ways[grid.design]}, {count_variants(grid)} variants"),
        ("margin", f"changes of FID from {margin_text(grid.log_margin)} do not matter"),
        *(("every variant sets", text) for text in ["\n".join(write_settings(grid.set))] if text),
        *((f"blocks of {field}", ", ".join(map(str, values))) for field, values in grid.blocks.items()),
        *(
            (f"budget {budget}", ", ".join(write_settings(changes.model_dump(exclude_none=True))))
            for budget, changes in grid.budget.items()
        ),
    ]
    print_entries(console, facts)
    for factor_name, factor in grid.factors.items():
        console.print(f"\nFactor {factor_name}: its levels, and what each sets", highlight=False, soft_wrap=True)
        levels = []
        for level, change in factor.levels.items():
            is_baseline = " (baseline)" if level == factor.baseline else ""
            label = [factor.labels[level]] if level in factor.labels else []
            text = "\n".join([*label, *(write_settings(change) or ["nothing: the base as it is"])])
            levels.append((f"{level}{is_baseline}", text))
        print_entries(console, levels)
    if grid.claims:
        console.print("\nClaims that it tests")
        print_entries(console, ((claim.id or "–", claim.sentence) for claim in grid.claims))
    console.print()
    console.print(f"Run it: gan-ablate run --grid {name}", highlight=False, soft_wrap=True)


def _show_presets(console: Console, _: Store) -> None:
    print_entries(console, ((name, describe_preset(name)) for name in list_presets()))
    console.print("\nTrain one: gan-ablate train NAME. Start a grid from one: gan-ablate run --grid GRID --base NAME")


def _show_preset(console: Console, name: str) -> None:
    print_text(console, f"Preset {name}: {describe_preset(name)}")
    settings = {field: value for field, value in read_preset(name).items() if field not in ("description", "document")}
    console.print("\nSettings; other fields have their defaults, see gan-ablate list fields")
    plain = {field: value for field, value in settings.items() if field not in ("generator", "discriminator")}
    for part in (plain, *({field: settings[field]} for field in ("generator", "discriminator"))):
        for line in write_settings(part, is_flat=True):
            console.print(f"  {line}", highlight=False, soft_wrap=True)
    config = plan_run(name).config
    for title, layers in zip(("Generator", "Discriminator"), list_layers(config), strict=True):
        console.print(f"\n{title}: layers, and the size of what each gives")
        print_entries(console, ((layer.size, layer.what) for layer in layers))
    console.print()
    document = load_document(name)
    if document is not None:
        print_text(console, f"As its document trains it: {document.command(name)}")
        if document.repaired:
            print_text(console, f"Repaired: {document.repaired}")
    grids = [grid for grid in list_grids() if load_grid(grid).base == name]
    print_text(console, f"Grids that start from it: {', '.join(grids) or 'none'}")


def _show_datasets(console: Console, _: Store) -> None:
    for number, name in enumerate(DATASETS):
        if number:
            console.print()
        _show_dataset(console, name)


def _show_dataset(console: Console, name: str) -> None:
    print_text(console, f"Data set {name}: {DATASETS[name]}")
    features = default_features(name)
    if features in EXTRACTORS:
        extractor = f"{features}: {NUM_FEATURES[features]} features of {EXTRACTORS[features]}"
    else:
        small = "" if count_channels(name) == 1 else f"--features objects compares those of {EXTRACTORS['objects']}; "
        extractor = (
            f"none of its own; {small}--features inception compares {NUM_FEATURES['inception']:,} features of "
            "Inception, whose weights (95 MB) are downloaded or given by --inception-weights; or --features names one "
            "of yours"
        )
    if name.startswith(ARRAY_PREFIX):
        facts = [
            ("images", "five of six train, every sixth is held out to compare with"),
            ("size", "resized to the preset's image_size; grey or colour, as they are"),
            ("classes", "those of the labels, whole numbers from 0"),
        ]
    elif name.startswith(PREFIX):
        facts = [
            ("images", "five of six train, every sixth is held out to compare with"),
            ("size", "the preset's image_size, colour"),
            ("classes", "the folders directly below PATH, if there are at least two"),
        ]
    else:
        size, place = DATASET_FILES[name]
        facts = [
            ("images", f"{NUM_TRAINING_IMAGES[name]:,} to train, {NUM_HELD_OUT[name]:,} held out to compare with"),
            ("size", f"{size}; resized to the preset's image_size"),
            ("classes", str(NUM_CLASSES[name])),
            ("files", place),
        ]
    print_entries(console, [*facts, ("extractor", extractor)])


def _show_budgets(console: Console, _: Store) -> None:
    console.print("Budgets: what --budget spends; --steps and --seeds change it")
    print_entries(console, describe_budgets(is_long=True))


def _show_fields(console: Console, _: Store) -> None:
    group = ""
    for field in list_fields():
        now = field.path.split(".")[0] if field.kinds or "." in field.path else "the run itself"
        if now != group:
            console.print(f"{'' if not group else chr(10)}Fields of {now}", highlight=False)
            group = now
        default = f"; default {field.default}" if field.default else ""
        console.print(f"  {field.path}", highlight=False, soft_wrap=True)
        print_text(console, f"{field.valid}{default}", indent=6)
        print_text(console, field.meaning, indent=6)


def _show_field(console: Console, field: FieldHelp) -> None:
    console.print(f"Field {field.path}: {field.valid}", highlight=False, soft_wrap=True)
    print_text(console, field.meaning, indent=2)
    print_text(console, f"Default: {field.default or 'none; every preset sets it'}", indent=2)
    print_entries(console, field.kinds.items(), indent=4)
    inner = [other.path for other in list_fields() if other.path.startswith(f"{field.path}.")]
    if inner:
        print_text(console, f"Its fields: {', '.join(inner)}", indent=2)
    levels = [(f"{one.grid}, {one.factor} {one.level}", one.value) for one in find_levels(field.path)]
    if not levels:
        console.print("  No shipped grid varies it.")
        return
    console.print("  Levels of shipped grids that set it")
    for name, value in levels:
        print_text(console, f"{name}: {value}", indent=4)


def _list_claims() -> list[tuple[str, Claim]]:
    """List the claims of shipped grids, each with its grid's name."""
    claims = [(name, claim) for name in list_grids() for claim in load_grid(name).claims]
    return sorted(claims, key=lambda pair: pair[1].order)


def _show_claims(console: Console, store: Store) -> None:
    """Print the claims of shipped grids with their verdicts in a results folder, or what is missing for a verdict."""
    claims = _list_claims()
    if store.list_plans():
        from gan_ablate.reporting.run_sentences import judge_grid  # pandas: a second

        verdicts = {name: judge_grid(store, load_grid(name)) for name in dict.fromkeys(name for name, _ in claims)}
        console.print(f"Claims, the grid that tests each, and its verdict in {store.root}", soft_wrap=True)
    else:
        verdicts = {}
        console.print("Claims, and the grid that tests each")
    print_entries(
        console,
        (
            (claim.id or "–", f"{claim.sentence}\n{name}{f': {verdicts[name][claim.sentence]}' if verdicts else ''}")
            for name, claim in claims
        ),
    )
    if not verdicts:
        print_text(console, f"No verdicts: no grid was run into {store.root} yet; {study_hint()}")


def _show_claim(console: Console, store: Store, grid_name: str, claim: Claim) -> None:
    grid = load_grid(grid_name)
    print_text(console, f"Claim {claim.id}: {claim.sentence}")
    console.print(f"  Tested by grid {grid_name}: gan-ablate run --grid {grid_name}", highlight=False, soft_wrap=True)
    console.print("  True if")
    for expectation in claim.decisive:
        print_text(console, describe_expectation(expectation, grid.factors), indent=4)
    if claim.beside:
        console.print("  Also shown, without deciding it")
        for expectation in claim.beside:
            print_text(console, describe_expectation(expectation, grid.factors), indent=4)
    if store.list_plans():
        from gan_ablate.reporting.run_sentences import judge_grid  # pandas: a second

        verdict = judge_grid(store, grid)[claim.sentence]
        print_text(console, f"Verdict in {store.root}: {verdict}", indent=2)
    else:
        print_text(console, f"No verdict: no grid was run into {store.root} yet; {study_hint()}", indent=2)


_OF_KIND: dict[str, Callable[[Console, Store], None]] = {
    "grids": _show_grids,
    "presets": _show_presets,
    "datasets": _show_datasets,
    "budgets": _show_budgets,
    "fields": _show_fields,
    "claims": _show_claims,
}
