"""Where and how runs are computed: what changes nothing of their answer."""

from __future__ import annotations

from pathlib import Path

from gan_ablate.design.validation import Model, check_device_name
from gan_ablate.errors import UserError

CHECKPOINT_SEC = 60.0
"""Seconds of training between two checkpoints, unless it is said otherwise."""


class RunContext(Model):
    """Where and how a run is computed: nothing in here changes its answer.

    ``folders`` says where each ``folder:NAME@HASH`` data set lies; ``checkpoint_sec`` how many seconds of training lie
    between two checkpoints, and ``keeps_checkpoints`` whether the last one stays when the run is over.
    """

    out: str
    data_dir: str
    device: str = "cpu"
    inception_weights: str | None = None
    folders: dict[str, str] = {}
    checkpoint_sec: float = CHECKPOINT_SEC
    keeps_checkpoints: bool = False


def check_context(device: str, inception_weights: str | Path | None, checkpoint_sec: float = CHECKPOINT_SEC) -> None:
    """Refuse what no machine could run with, without loading PyTorch; a worker checks what this one has.

    Raises:
        UserError: if the device is of no kind that training supports, the weights' file is not there, or the seconds
            are below none.
    """
    if not checkpoint_sec >= 0:
        raise UserError(f"--checkpoint-every {checkpoint_sec:g}: valid: a number of seconds from 0")
    check_device_name(device)
    if inception_weights is not None and not Path(inception_weights).is_file():
        raise UserError(f"--inception-weights {inception_weights}: no such file")
