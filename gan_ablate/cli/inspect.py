"""The commands ``list``, ``status``, ``verify`` and ``clean``: what can be run, and the state of a results folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.table import Table

from gan_ablate.cli.options import RESULTS, OutOption
from gan_ablate.design.config import RunConfig
from gan_ablate.design.datasets import DATASETS
from gan_ablate.design.grid import describe_preset, list_grids, list_presets, list_studies, load_grid, load_study
from gan_ablate.design.settings import merge
from gan_ablate.design.validation import choices, printable
from gan_ablate.errors import RunFailedError, UserError
from gan_ablate.execution.progress import open_console
from gan_ablate.execution.store import Store, summarise_runs

if TYPE_CHECKING:
    from rich.console import Console


def show_all(console: Console) -> None:
    """Print the shipped grids, presets and data sets, and every field that a factor can set."""
    grids = Table("grid", "factors", "question", title="Grids", title_justify="left")
    for name in list_grids():
        grid = load_grid(name)
        grids.add_row(name, ", ".join(grid.factors), grid.question)
    studies = Table("study", "grids", "question", title="Studies: grids that are run together", title_justify="left")
    for name in list_studies():
        study = load_study(name)
        studies.add_row(name, ", ".join(study.grids), study.question)
    presets = Table("preset", "what", title="Presets", title_justify="left")
    for name in list_presets():
        presets.add_row(name, describe_preset(name))
    datasets = Table("data set", "what", title="Data sets", title_justify="left")
    for name, what in DATASETS.items():
        datasets.add_row(name, what)
    by_group: dict[str, Table] = {}
    for known in list_fields():
        group = known.path.split(".")[0] if known.kinds or "." in known.path else "the run itself"
        title = f"What a factor can set: {group}"
        fields = by_group.setdefault(
            group, Table("field", "valid", "default", "what", title=title, title_justify="left")
        )
        fields.add_row(known.path, known.valid, known.default, known.meaning)
    for table in (grids, studies, presets, datasets, *by_group.values()):
        console.print(table)
        console.print()


def show_field(console: Console, path: str) -> None:
    """Print a field's meaning, its valid values, and the shipped grids that vary it.

    Raises:
        UserError: if there is no such field.
    """
    field = find_field(path)
    console.print(f"{field.path}: {field.valid}", soft_wrap=True)
    console.print(field.meaning, soft_wrap=True)
    console.print(f"Default: {field.default or 'none; every preset says it'}")
    for kind, what in field.kinds.items():
        console.print(f"  {kind}: {what}", soft_wrap=True)
    levels = Table("grid", "factor", "level", "value", title="Levels of shipped grids", title_justify="left")
    for level in find_levels(field.path):
        levels.add_row(*level)
    console.print(levels if levels.row_count else "No shipped grid varies it.")


def show_claims(console: Console, store: Store) -> None:
    """Print the claims of shipped grids with their verdicts in a results folder, or what is missing for a verdict."""
    verdicts: dict[tuple[str, str], str] = {}
    missing: dict[str, str] = {}
    for name in list_grids():
        shipped = load_grid(name)
        if not shipped.claims:
            continue
        plan = store.find_plan(name)
        if plan is None:
            missing[name] = f"not run yet: --grid {name}"
            continue
        if plan.budget == "smoke":
            missing[name] = "only a smoke run"
            continue
        from gan_ablate.analysis.results import GridResults  # pandas: a second
        from gan_ablate.reporting.sentences import verdict_words

        # A plan of an older version knows no claims.
        grid = plan.grid.model_copy(update={"claims": shipped.claims})
        results = GridResults.of(store, plan.model_copy(update={"grid": grid}))
        left = plan.num_runs - len(results.runs)
        missing[name] = f"{left} of {plan.num_runs} runs are missing" if left else "no scores to judge it by"
        for claim_verdict in results.verdicts.claim_verdicts:
            words = verdict_words(claim_verdict, is_complete=results.is_complete)
            verdicts[name, claim_verdict.claim.sentence] = words.replace("**", "").replace("`", "")
    table = Table("id", "claim", "grid", f"verdict in {store.root}", title="Claims", title_justify="left")
    claims = sorted(
        ((claim, name) for name in list_grids() for claim in load_grid(name).claims), key=lambda pair: pair[0].order
    )
    for claim, name in claims:
        table.add_row(claim.id, claim.sentence, name, verdicts.get((name, claim.sentence), missing[name]))
    console.print(table)


def status(out: OutOption = RESULTS) -> None:
    """Show how far the grids of a results folder are."""
    store = Store(out)
    table = Table("grid", "budget", "completed", "diverged", "failed", "missing")
    for name in store.list_plans():
        plan = store.load_plan(name)
        ended = [run.status for run in summarise_runs(store, plan.run_ids).values()]
        counts = [ended.count(status) for status in ("completed", "diverged", "failed")]
        num_missing = plan.num_runs - len(ended)
        table.add_row(name, plan.budget, *(str(count) for count in (*counts, num_missing)))
    console = open_console()
    console.print(table if table.row_count else f"{out}: no grid was run into this folder yet")


def verify(out: OutOption = RESULTS) -> None:
    """Check every plan, record, weight file, checkpoint and cached file of a results folder against its checksum."""
    from gan_ablate.execution.maintenance import verify as check

    result = check(Store(out))
    for problem in result.problems:
        print(printable(problem))
    if result.problems:
        raise RunFailedError(f"{len(result.problems)} of {result.num_checked} in {out} are damaged")
    open_console().print(
        f"{result.num_checked} plans, runs, checkpoints and cached files in {out}: as they were written"
    )


def clean(
    out: OutOption = RESULTS,
    runs: Annotated[bool, typer.Option("--runs", help="Runs of no grid, too, those of train among them.")] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Checkpoints of finished runs, too: more --steps begin anew then.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete what nothing in a results folder refers to, after saying what."""
    from gan_ablate.execution.maintenance import find_waste, remove

    store = Store(out)
    found = find_waste(store, with_runs=runs, with_checkpoints=checkpoints)
    for waste in found:
        print(printable(f"{waste.path}: {waste.reason}, {waste.num_bytes / 1e6:.1f} MB"))
    if not found:
        open_console().print(f"{out}: nothing to delete")
    elif yes or typer.confirm(f"Delete these {len(found)}, {sum(w.num_bytes for w in found) / 1e6:.1f} MB?"):
        num_gone = sum(remove(store, waste) for waste in found)
        kept = f"; {len(found) - num_gone} that a command works on stay" if num_gone < len(found) else ""
        open_console().print(f"{num_gone} deleted{kept}")


NOT_IN_LEVELS = (
    "seed", "steps", "num_classes", "generator.code", "discriminator.code", "loss.code", "penalty.code",
)  # fmt: skip
"""Fields that no level sets: options, the data set and user code set them."""


class FieldHelp(NamedTuple):
    """A field that a level can set.

    Attributes:
        path: the name in a grid file, such as ``generator.norm``.
        valid: the valid values, in words.
        default: the default in TOML; empty where every preset sets the field.
        meaning: a sentence, with the paper that the field comes from.
        kinds: of a field that is a table: kind → description.
    """

    path: str
    valid: str
    default: str
    meaning: str
    kinds: dict[str, str]


class LevelHelp(NamedTuple):
    """A level of a shipped grid, and the value of a field in it, in TOML."""

    grid: str
    factor: str
    level: str
    value: str


def list_fields() -> list[FieldHelp]:
    """List every field that a level can set; fields of a network or a loss follow it."""
    schema = RunConfig.model_json_schema()
    found: dict[str, FieldHelp] = {}
    for field in _fields_of(schema, schema["$defs"], ""):
        if field.path in NOT_IN_LEVELS:
            continue
        known = found.setdefault(field.path, field)
        if field.default not in known.default.split(" or "):  # of another kind of network
            found[field.path] = known._replace(default=f"{known.default} or {field.default}")
    return list(found.values())


def find_field(path: str) -> FieldHelp:
    """Find a field by its path, or by the end of its path if no other field has the same end.

    Raises:
        UserError: if there is no such field.
    """
    fields = {field.path: field for field in list_fields()}
    if path in fields:
        return fields[path]
    ends = [known for known in fields if known.endswith(f".{path}")]
    if len(ends) == 1:
        return fields[ends[0]]
    raise UserError(f"{path}: no such field; {choices(path, ends or list(fields))}")


def find_levels(path: str) -> Iterator[LevelHelp]:
    """Yield the levels of shipped grids that set a field."""
    for name in list_grids():
        for factor_name, factor in load_grid(name).factors.items():
            for level_name, change in factor.levels.items():
                value: Any = merge({}, change)
                for part in path.split("."):
                    value = value.get(part) if isinstance(value, Mapping) else None
                if value is not None:
                    yield LevelHelp(name, factor_name, level_name, _in_toml(value))


def _fields_of(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[FieldHelp]:
    for name, field in schema["properties"].items():
        path = f"{prefix}{name}"
        refs = [part["$ref"] for part in field.get("oneOf", field.get("allOf", [field])) if "$ref" in part]
        nested = [definitions[ref.rsplit("/", 1)[1]] for ref in refs]
        kinds = {
            part["properties"]["kind"]["const"]: " ".join(part.get("description", "").split())
            for part in nested
            if "kind" in part["properties"]
        }
        meaning = " ".join(field.get("description", "").split())
        default = _in_toml(field["default"]) if field.get("default") is not None else ""
        if kinds or not nested:
            yield FieldHelp(path, " | ".join(kinds) or _valid_words(field), default, meaning, kinds)
        for part in nested:
            yield from (f for f in _fields_of(part, definitions, f"{path}.") if f.path != f"{path}.kind")


def _in_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        only_kind = value.get("kind") if list(value) == ["kind"] else None
        inner = ", ".join(f"{name} = {_in_toml(item)}" for name, item in value.items())
        return json.dumps(only_kind) if only_kind else f"{{ {inner} }}"
    return json.dumps(value)


def _valid_words(field: dict[str, Any]) -> str:
    for part in field.get("anyOf", ()):
        if part.get("type") != "null":
            return _valid_words(part)
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "items" in field:
        return f"list of {_valid_words(field['items'])}"
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in field
    ]
    return " ".join([str(field.get("type", "")), ", ".join(bounds)]).strip()
