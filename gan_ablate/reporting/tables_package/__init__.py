"""Markdown tables of effects and verdicts, of variants and what they rest on."""

from gan_ablate.reporting.tables.effects import (
    claims_table,
    effects_table,
    other_effects_table,
    tests_table,
    unjudged_table,
    verdicts_table,
)
from gan_ablate.reporting.tables.layout import lay_out, picture_table
from gan_ablate.reporting.tables.variants import (
    cost_table,
    definitions_table,
    scores_table,
    setup_table,
    stability_table,
    variants_table,
)

__all__ = [
    "claims_table",
    "cost_table",
    "definitions_table",
    "effects_table",
    "lay_out",
    "other_effects_table",
    "picture_table",
    "scores_table",
    "setup_table",
    "stability_table",
    "tests_table",
    "unjudged_table",
    "variants_table",
    "verdicts_table",
]
