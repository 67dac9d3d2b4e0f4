"""TensorBoard: export the histories, curves, scores, sample grids and factors of runs as event files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from PIL import Image

from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from gan_ablate.design.plan import Plan
    from gan_ablate.execution.store import Record, Store

FOLDER = "tensorboard"
"""In the results folder: grid, then variant, then seed."""


def check_tensorboard() -> None:
    """Look for the package before anything is trained.

    Raises:
        UserError: if it is not there.
    """
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "--tensorboard: needs the package tensorboard; valid: pip install 'gan-ablate[tensorboard]'"
        ) from None


def write_events(store: Store, plans: Sequence[Plan]) -> Path:
    """Write an event file for every run of some plans that is over, in the place of those that were there.

    Returns:
        The folder to give to ``tensorboard --logdir``.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams import summary_v2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    root = store.root / FOLDER
    for plan in plans:
        shutil.rmtree(root / plan.name, ignore_errors=True)
        for levels, label, record in store.records(plan):
            folder = root / plan.name / label.replace("/", "-") / f"seed-{record.config.seed}"
            writer = EventFileWriter(str(folder))
            # Its clock is that of the training: an event file's x-axis may be steps or seconds.
            factors = {**levels, "seed": record.config.seed}
            writer.add_event(
                Event(step=0, wall_time=0.0, summary=summary_v2.hparams_pb(factors, trial_id=record.run_id))
            )
            for step, value in _values(store, record):
                event = Event(step=step, wall_time=0.0)
                event.summary.value.append(value)
                writer.add_event(event)
            writer.close()
    return root


def _values(store: Store, record: Record) -> Iterator[tuple[int, Any]]:
    """Give every value of a run with its step."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    steps = [int(step) for step in record.history.get("step", [])]
    for name, values in record.history.items():
        if name != "step":
            for step, value in zip(steps, values, strict=True):
                yield step, Summary.Value(tag=f"training/{name}", simple_value=value)
    if record.scoring is not None:
        for step, fid in zip(record.scoring.curve_steps, record.scoring.curve_fid, strict=True):
            yield step, Summary.Value(tag="fid_along_training", simple_value=fid)
        if record.scoring.final is not None:
            for name, score in record.scoring.final.as_row().items():
                yield record.config.steps, Summary.Value(tag=f"scores/{name}", simple_value=score)
    for sheet in store.sample_sheets(record.run_id):
        with Image.open(sheet) as picture:
            image = Summary.Image(
                height=picture.height,
                width=picture.width,
                colorspace=len(picture.getbands()),
                encoded_image_string=sheet.read_bytes(),
            )
        yield int(sheet.stem.removeprefix("step-")), Summary.Value(tag="samples", image=image)
