"""GPUs of this machine: which a command uses, which worker gets which, and which are given up."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.design.validation import list_devices
from gan_ablate.errors import UserError, option

if TYPE_CHECKING:
    from collections.abc import Collection

    from gan_ablate.design.external import AnyConfig

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that lists a process's GPUs: by number, UUID or the name of a part (MIG)."""

MAX_LOST = 2
"""How many runs in a row a GPU may lose before it is given up, if others are left."""


def list_visible() -> list[str]:
    """List the GPUs that CUDA shows to this process, as ``CUDA_VISIBLE_DEVICES`` names them; none where it is unknown.

    As in CUDA, the list ends at the first entry that is no GPU.
    """
    listed = os.environ.get(VISIBLE)
    if listed is None:
        numbers = sorted(int(path.name.removeprefix("nvidia")) for path in Path("/dev").glob("nvidia[0-9]*"))
        return [str(place) for place in range(len(numbers))]
    names = [name.strip() for name in listed.split(",")]
    ends = [place for place, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
    return names[: ends[0]] if ends else names


def choose_gpus(device: str) -> list[str]:
    """Return the names of the GPUs that runs are spread over.

    Args:
        device: ``cuda`` for all that are visible, ``cuda:1`` for the second of them, ``cuda:0,cuda:2`` for two.

    Returns:
        Names for ``CUDA_VISIBLE_DEVICES``; none on a CPU, and where the GPUs are not known: a worker then says so.

    Raises:
        UserError: if there are fewer GPUs.
    """
    if device == "cpu":
        return []
    visible = list_visible()
    if device == "cuda" or not visible:
        return visible
    places = [int(name.partition(":")[2] or 0) for name in list_devices(device)]
    if max(places) >= len(visible):
        valid = ", ".join(f"cuda:{place}" for place in range(len(visible)))
        raise UserError(f"{option('device', device)}: this machine shows {len(visible)}; valid: {valid}")
    return [visible[place] for place in places]


class Assignment:
    """Which worker has which GPU. A run that a GPU lost goes to another one; a GPU that loses many is given up.

    Args:
        names: of the GPUs, for ``CUDA_VISIBLE_DEVICES``; none on a CPU.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._lost_in_a_row: Counter[str] = Counter()
        self._lost_on: dict[str, str] = {}

    @property
    def are_several(self) -> bool:
        """Whether a run that one GPU lost may go to another."""
        return len(self._names) > 1

    def of_worker(self, number: int) -> str | None:
        """Return the GPU of a worker, by turns; None on a CPU."""
        return self._names[number % len(self._names)] if self._names else None

    def accepts(self, gpu: str | None, run: AnyConfig, served: Collection[str | None]) -> bool:
        """Whether a run may go to a GPU: it was not lost there, or no other is left.

        Args:
            gpu: of an idle worker.
            run: the run.
            served: the GPUs of all workers.
        """
        others = [name for name in served if name != gpu and not self.is_given_up(name, served)]
        return gpu is None or not others or self._lost_on.get(run.run_id) != gpu

    def lost(self, gpu: str | None, run: AnyConfig) -> None:
        """Note that a run ran out of a GPU's memory, or ended with it."""
        if gpu is not None:
            self._lost_in_a_row[gpu] += 1
            self._lost_on[run.run_id] = gpu

    def finished(self, gpu: str | None) -> None:
        """Note that a run was finished on a GPU."""
        if gpu is not None:
            self._lost_in_a_row[gpu] = 0

    def is_given_up(self, gpu: str | None, served: Collection[str | None]) -> bool:
        """Whether a GPU gets no more runs: it lost several in a row, and another one of a worker lost fewer."""
        if gpu is None or self._lost_in_a_row[gpu] < MAX_LOST:
            return False
        return any(name is not None and self._lost_in_a_row[name] < MAX_LOST for name in served)


def show_one(gpu: str | None) -> None:
    """Show this process and its children one GPU, as their first. CUDA must not have been started in it."""
    if gpu is not None:
        os.environ[VISIBLE] = gpu
