"""Tables on the console: grids, presets, data sets, fields, and claims with their verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from gan_ablate.design.datasets import DATASETS
from gan_ablate.design.fields import find_field, find_levels, list_fields
from gan_ablate.design.grid import describe_preset, list_grids, list_presets, list_studies, load_grid
from gan_ablate.design.shipped import load_study

if TYPE_CHECKING:
    from rich.console import Console

    from gan_ablate.execution.store import Store


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
    """Print what a field means, what it may be, and which shipped grids vary it.

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
    """Print the claims that shipped grids test, with their verdicts in a results folder, or what is missing there."""
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
        from gan_ablate.analysis.results import GridResults  # pandas: a second that is spent only where runs are
        from gan_ablate.reporting.sentences import verdict_words

        # A plan of an older version knows no claims.
        grid = plan.grid.model_copy(update={"claims": shipped.claims})
        results = GridResults.of(store, plan.model_copy(update={"grid": grid}))
        left = plan.num_runs - len(results.runs)
        missing[name] = f"{left} of {plan.num_runs} runs are missing" if left else "no scores to judge it by"
        for judgement in results.verdicts.judgements():
            words = verdict_words(judgement, is_complete=results.is_complete)
            verdicts[name, judgement.claim.sentence] = words.replace("**", "").replace("`", "")
    table = Table("id", "claim", "grid", f"verdict in {store.root}", title="Claims", title_justify="left")
    claims = sorted(
        ((claim, name) for name in list_grids() for claim in load_grid(name).claims), key=lambda pair: pair[0].order
    )
    for claim, name in claims:
        table.add_row(claim.id, claim.sentence, name, verdicts.get((name, claim.sentence), missing[name]))
    console.print(table)
