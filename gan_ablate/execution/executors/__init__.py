"""Executors: compute runs in local worker processes, on a Ray cluster or with Slurm."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, Protocol

from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from gan_ablate.design.configs import AnyConfig
    from gan_ablate.execution.context import RunContext
    from gan_ablate.execution.observer import RunObserver
    from gan_ablate.execution.store import Record

ExecutorName = Literal["local", "ray", "slurm"]


class Executor(Protocol):
    """Computes runs, in about the order given; closing what it returns stops all of them."""

    def __call__(
        self,
        configs: Sequence[AnyConfig],
        context: RunContext,
        jobs: int | None,
        observer: RunObserver,
        more: Callable[[], Sequence[AnyConfig]] | None = None,
        /,
    ) -> Generator[Record]:
        """See ``executors.local.run_local``."""


def check_settings(name: ExecutorName, ray_address: str | None, slurm: Mapping[str, str] | None) -> None:
    """Refuse settings of another executor.

    Raises:
        UserError: if there are some.
    """
    if ray_address is not None and name != "ray":
        raise UserError(f"--ray-address {ray_address}: valid: with --executor ray")
    if slurm and name != "slurm":
        raise UserError(f"--slurm {next(iter(slurm))}: valid: with --executor slurm")


def choose_executor(
    name: ExecutorName, *, ray_address: str | None = None, slurm: Mapping[str, str] | None = None
) -> Executor | None:
    """Return an executor by its name; None stands for this machine.

    Args:
        name: which.
        ray_address: of a Ray cluster, instead of one that is started here.
        slurm: settings of sbatch.

    Raises:
        UserError: if the package that it needs is not there, or a setting belongs to another one.
    """
    check_settings(name, ray_address, slurm)
    if name == "local":
        return None
    try:
        if name == "ray":
            from gan_ablate.execution.executors.ray import run_ray

            return functools.partial(run_ray, address=ray_address)
        from gan_ablate.execution.executors.slurm import run_slurm

        return functools.partial(run_slurm, settings=slurm)
    except ModuleNotFoundError as missing:
        raise UserError(
            f"--executor {name}: needs the package {missing.name}; valid: pip install 'gan-ablate[{name}]'"
        ) from None
