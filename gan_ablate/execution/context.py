"""Where and how runs are computed: what changes nothing of their answer."""

from __future__ import annotations

import re
from pathlib import Path

from gan_ablate.design.validation import Model, shorten
from gan_ablate.errors import UserError


class RunContext(Model):
    """Where and how a run is computed: nothing in here changes its answer.

    ``folders`` says where each ``folder:NAME@HASH`` data set lies.
    """

    out: str
    data_dir: str
    device: str = "cpu"
    inception_weights: str | None = None
    folders: dict[str, str] = {}


def check_context(device: str, inception_weights: str | Path | None) -> None:
    """Refuse what no machine could run with, without loading PyTorch; a worker checks what this one has.

    Raises:
        UserError: if the device is of no kind that training supports, or the weights' file is not there.
    """
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device):
        raise UserError(f"--device {shorten(device)}: not supported; valid: cpu, cuda, cuda:0, …")
    if inception_weights is not None and not Path(inception_weights).is_file():
        raise UserError(f"--inception-weights {inception_weights}: no such file")
