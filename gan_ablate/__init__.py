"""An ablation benchmark suite for GANs: what helps, by how much, how surely, at what cost.

``load_grid`` reads a grid, and ``plan`` resolves it into runs. ``run_grid`` computes those that are missing,
``run_until_settled`` as many as the grid's questions need. ``load_results`` gives the tidy table, and ``write_report``
writes the pages. ``estimate_effects`` and ``judge`` analyse any table of runs, and ``score_images`` scores any images.
"""

from importlib import metadata
from typing import TYPE_CHECKING, Any

from gan_ablate.analysis.table import load_results
from gan_ablate.api import estimate_effects, judge, run_grid, run_grids, run_until_settled
from gan_ablate.design.grid import Grid, load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.execution.context import Compute, RunObserver

if TYPE_CHECKING:
    from gan_ablate.reporting.report import write_report
    from gan_ablate.scoring.image_scores import score_images

__version__ = metadata.version("gan-ablate")

__all__ = [
    "Compute",
    "Grid",
    "Plan",
    "RunObserver",
    "__version__",
    "estimate_effects",
    "judge",
    "load_grid",
    "load_results",
    "plan",
    "run_grid",
    "run_grids",
    "run_until_settled",
    "score_images",
    "write_report",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import the functions that need PyTorch or matplotlib when they are first used: that takes seconds."""
    if name == "score_images":
        from gan_ablate.scoring.image_scores import score_images

        return score_images
    if name == "write_report":
        from gan_ablate.reporting.report import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
