"""The run context: where and how runs are computed. It does not affect their results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from gan_ablate.design.validation import Model, check_device_name
from gan_ablate.errors import UserError

CHECKPOINT_SEC = 60.0
"""Seconds of training between two checkpoints, unless it is said otherwise."""


AbsolutePath = Annotated[str, AfterValidator(lambda path: str(Path(path).absolute()))]
"""Workers, nodes of a cluster and jobs of a scheduler start in folders of their own."""


class RunContext(Model):
    """Where and how a run is computed: nothing in here changes its answer.

    Paths are made absolute. ``folders`` says where each ``folder:NAME@HASH`` data set lies; ``checkpoint_sec`` how many
    seconds of training lie between two checkpoints, and ``keeps_checkpoints`` whether the last one stays when the run
    is over.
    """

    out: AbsolutePath
    data_dir: AbsolutePath
    device: str = "cpu"
    inception_weights: AbsolutePath | None = None
    folders: dict[str, str] = {}
    checkpoint_sec: float = CHECKPOINT_SEC
    keeps_checkpoints: bool = False


def check_context(device: str, inception_weights: str | Path | None, checkpoint_sec: float = CHECKPOINT_SEC) -> None:
    """Refuse what no machine could run with, without loading PyTorch; a worker checks what this one has.

    Raises:
        UserError: if the device is of no kind that training supports, the weights' file is not there, or the seconds
            are below none.
    """
    if not 0 <= checkpoint_sec < math.inf:
        raise UserError(f"--checkpoint-every {checkpoint_sec:g}: valid: a number of seconds from 0")
    check_device_name(device)
    if inception_weights is not None and not Path(inception_weights).is_file():
        raise UserError(f"--inception-weights {inception_weights}: no such file")
