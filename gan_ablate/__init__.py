"""An ablation benchmark suite for GANs: what helps, by how much, how surely, at what cost.

``load_grid`` reads a grid, ``plan`` resolves it into runs, ``run_grid`` computes those that are missing, and
``load_results`` gives the tidy table.
"""

from gan_ablate.grid import Grid, load_grid
from gan_ablate.planning import Plan, plan
from gan_ablate.runner import run_grid
from gan_ablate.table import load_results

__all__ = ["Grid", "Plan", "load_grid", "load_results", "plan", "run_grid"]
