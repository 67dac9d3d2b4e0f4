"""A grid's records in, what they hold of the course of training out: FID and histories, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gan_ablate.execution.store import Record

    Records: TypeAlias = Sequence[tuple[str, Record]]
    """Of runs that are over, with their variants' labels."""


def first_point(records: Records) -> int:
    """The step of the first point of FID along training; what was reached by then was reached before."""
    firsts = [r.scoring.curve_steps[0] for _, r in records if r.scoring is not None and r.scoring.curve_steps]
    return min(firsts, default=0)


def tabulate_curves(records: Records, untimed: Collection[str]) -> pd.DataFrame:
    """FID along training: columns cell, seed, step, train_sec (missing where times do not compare), fid."""
    rows = []
    for label, record in records:
        if record.scoring is None:
            continue
        has_time = record.run_id not in untimed
        scoring = record.scoring
        for step, sec, fid in zip(scoring.curve_steps, scoring.curve_train_sec, scoring.curve_fid, strict=True):
            rows.append((label, record.config.seed, step, sec if has_time else np.nan, fid))
    return pd.DataFrame(rows, columns=["cell", "seed", "step", "train_sec", "fid"])


def tabulate_histories(records: Records) -> pd.DataFrame:
    """The histories of all runs, one below the other, with columns cell and seed."""
    parts = [
        pd.DataFrame(record.history).assign(cell=label, seed=record.config.seed)
        for label, record in records
        if record.history
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def tabulate_probes(records: Records) -> pd.DataFrame:
    """What linear classifiers made of features: columns cell, seed, num_labels, features, accuracy."""
    rows = [
        {"cell": label, "seed": record.config.seed, "num_labels": probe.num_labels, "features": name, "accuracy": value}
        for label, record in records
        if record.scoring is not None and record.scoring.representation is not None
        for probe in record.scoring.representation.probes
        for name, value in (
            ("D's features", probe.trained), ("untrained D's", probe.untrained), ("raw pixels", probe.pixels),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["cell", "seed", "num_labels", "features", "accuracy"])
