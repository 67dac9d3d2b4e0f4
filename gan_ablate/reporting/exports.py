"""Tables as files: CSV for programs, LaTeX for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gan_ablate.atomic_io import write_atomically
from gan_ablate.reporting.formats import change_text, escape_latex, number, p_text, rate_text
from gan_ablate.reporting.sentences import adjusted_estimate, answer_words, effect_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.results import GridResults


def write_tables(results: GridResults) -> None:
    """Write ``runs``, ``summary`` and ``effects`` into a grid's folder, as CSV, and for papers as LaTeX.

    ``runs.csv`` has a column more than ``load_results``: whether a run's times count.
    """
    untimed = results.runs["run_id"].isin(results.comparable.untimed)
    runs = results.runs.assign(has_comparable_times=~untimed)
    for name, table in (("runs", runs), ("summary", results.summary)):
        write_atomically(results.folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    write_atomically(results.folder / "effects.csv", effects_as_csv(results.verdicts.all_effects()))
    write_atomically(
        results.folder / "summary.tex", _to_latex(_paper_summary(results), "Variants", f"{results.name}-variants")
    )
    effects = results.verdicts.effects("fid")
    if effects:
        write_atomically(results.folder / "effects.tex", effects_as_latex(effects, results.name))
    else:
        (results.folder / "effects.tex").unlink(missing_ok=True)


def effects_as_csv(effects: pd.DataFrame) -> str:
    """Write effects, a row each, to twelve digits: in the last ones of a root or a p-value processors differ."""
    return effects.to_csv(index=False, lineterminator="\n", float_format="%.12g")


def effects_as_latex(effects: Sequence[Effect], name: str) -> str:
    """Tabulate the effects on one outcome for a paper; the label is ``tab:NAME-effects``."""
    caption = f"Effects on {effects[0].outcome.title}, with intervals adjusted for all of them"
    return _to_latex(_paper_effects(effects), caption, f"{name}-effects")


def _paper_summary(results: GridResults) -> pd.DataFrame:
    rows = []
    for row in results.summary.to_dict("records"):
        scores = {}
        if np.isfinite(float(row["fid"])):
            low, high = (number(row[f"fid_{end}"]) for end in ("low", "high"))
            scores = {"FID": f"{number(row['fid'])} [{low}, {high}]", "KID": number(row["kid"])}
        over = row["completed"] + row["diverged"]
        collapsed = f"{row['collapsed']}/{row['completed']}" if row["is_collapse_known"] else "–"
        rows.append(
            {
                "variant": row["cell"],
                **scores,
                "ms a step": number(row["step_ms_median"]),
                "diverged": rate_text(row["diverged"], over).split(" ")[0],
                "collapsed": collapsed,
                "seeds": str(row["completed"]),
            }
        )
    return pd.DataFrame(rows).fillna("–")


def _paper_effects(effects: Sequence[Effect]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "effect": effect_name(effect),
                f"change of {effect.outcome.title}": change_text(effect, adjusted_estimate(effect)).replace(
                    "-", "−"
                ),  # minus, no hyphen
                "p (Holm)": p_text(effect.test.p).removeprefix("= "),
                "answer": answer_words(effect),
                "seeds": str(effect.estimate.num_seeds),
            }
            for effect in effects
        ]
    )


def _to_latex(table: pd.DataFrame, caption: str, label: str) -> str:
    r"""Write a table for ``\usepackage{booktabs}``, whatever its cells hold."""
    shown = table.map(escape_latex).rename(columns=escape_latex)
    text: str = shown.style.hide(axis="index").to_latex(
        hrules=True, column_format="l" * len(table.columns), caption=escape_latex(caption), label=f"tab:{label}"
    )
    return text.replace(r"\begin{table}", "\\begin{table}\n\\centering\\small")
