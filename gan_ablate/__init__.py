"""An ablation benchmark suite for GANs: what helps, by how much, how surely, at what cost.

``load_grid`` reads a grid, ``plan`` resolves it into runs, ``run_grid`` computes those that are missing,
``run_until_settled`` as many as its questions need, ``load_results`` gives the tidy table, ``estimate_effects`` what
the levels change, and ``write_report`` the pages.
"""

from importlib import metadata
from typing import TYPE_CHECKING, Any

from gan_ablate.analysis.table import load_results
from gan_ablate.api import run_grid, run_grids, run_until_settled
from gan_ablate.design.grid import Grid, load_grid
from gan_ablate.design.planning import Plan, plan

if TYPE_CHECKING:
    from gan_ablate.analysis.effects import estimate_effects
    from gan_ablate.reporting.report import write_report

__version__ = metadata.version("gan-ablate")

__all__ = [
    "Grid",
    "Plan",
    "__version__",
    "estimate_effects",
    "load_grid",
    "load_results",
    "plan",
    "run_grid",
    "run_grids",
    "run_until_settled",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import what brings pandas, SciPy and matplotlib with it when it is first asked for: seconds that others save."""
    if name == "estimate_effects":
        from gan_ablate.analysis.effects import estimate_effects

        return estimate_effects
    if name == "write_report":
        from gan_ablate.reporting.report import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
