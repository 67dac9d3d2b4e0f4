"""An ablation benchmark suite for GANs: what helps, by how much, how surely, at what cost.

``load_grid`` reads a grid, and ``plan`` resolves it into runs. ``run_grid`` computes those that are missing,
``run_until_settled`` as many as the grid's questions need. ``load_results`` gives the tidy table of runs,
``rescore`` scores finished runs in another way. ``load_curves`` gives what is measured along training, and
``write_report`` writes the pages. ``write_comparison`` compares results folders. ``estimate_effects`` and ``judge``
analyse any table of runs. ``score_images`` scores any images, ``score_few_images`` as few as 200, and
``score_against_statistics`` compares them with a saved mean and covariance.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

from gan_ablate.analysis.table import load_results
from gan_ablate.api import list_grids, rescore, run_grid, run_grids, run_until_settled
from gan_ablate.design.grid import Grid, load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.context import Compute, RunObserver
from gan_ablate.reporting.judge import LeftOutWarning, TableWarning, estimate_effects, judge

if TYPE_CHECKING:
    from gan_ablate.analysis.results import load_curves, tabulate_plan
    from gan_ablate.reporting.comparison_page import write_comparison
    from gan_ablate.reporting.report import write_citation, write_report
    from gan_ablate.scoring.image_scores import score_few_images, score_images
    from gan_ablate.scoring.saved_statistics import score_against_statistics

__version__ = metadata.version("gan-ablate")

__all__ = [
    "Compute",
    "Grid",
    "LeftOutWarning",
    "Plan",
    "RunObserver",
    "TableWarning",
    "UserError",
    "__version__",
    "estimate_effects",
    "judge",
    "list_grids",
    "load_curves",
    "load_grid",
    "load_results",
    "plan",
    "rescore",
    "run_grid",
    "run_grids",
    "run_until_settled",
    "score_against_statistics",
    "score_few_images",
    "score_images",
    "tabulate_plan",
    "write_citation",
    "write_comparison",
    "write_report",
]


_MODULES = {
    "load_curves": "gan_ablate.analysis.results",
    "score_against_statistics": "gan_ablate.scoring.saved_statistics",
    "score_few_images": "gan_ablate.scoring.image_scores",
    "score_images": "gan_ablate.scoring.image_scores",
    "tabulate_plan": "gan_ablate.analysis.results",
    "write_citation": "gan_ablate.reporting.report",
    "write_comparison": "gan_ablate.reporting.comparison_page",
    "write_report": "gan_ablate.reporting.report",
}
"""Functions that need pandas, PyTorch or matplotlib. They are imported when they are first used: that takes seconds."""


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
