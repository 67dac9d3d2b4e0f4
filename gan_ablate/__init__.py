"""An ablation benchmark suite for GANs: what helps, by how much, how surely, at what cost.

``load_grid`` reads a grid, ``plan`` resolves it into runs, ``run_grid`` computes those that are missing,
``run_until_settled`` as many as its questions need, and ``load_results`` gives the tidy table.
"""

from gan_ablate.analysis.table import load_results
from gan_ablate.api import run_grid, run_until_settled
from gan_ablate.design.grid import Grid, load_grid
from gan_ablate.design.planning import Plan, plan

__all__ = ["Grid", "Plan", "load_grid", "load_results", "plan", "run_grid", "run_until_settled"]
