"""Tables in, figures out: one message each, a variant's colour and marker the same in all of them."""

from gan_ablate.reporting.plots.blocks import plot_block_curves, plot_block_effects, plot_block_quality
from gan_ablate.reporting.plots.courses import plot_courses, plot_settling
from gan_ablate.reporting.plots.front import plot_front
from gan_ablate.reporting.plots.quality import plot_cost, plot_effects, plot_interactions, plot_quality
from gan_ablate.reporting.plots.representation import enlarge_picture, plot_probes
from gan_ablate.reporting.plots.samples import plot_samples, write_animation
from gan_ablate.reporting.plots.style import MAX_LINES, Style, also_as_pdf
from gan_ablate.reporting.plots.training import plot_curves, plot_losses, plot_stability

__all__ = [
    "MAX_LINES",
    "Style",
    "also_as_pdf",
    "enlarge_picture",
    "plot_block_curves",
    "plot_block_effects",
    "plot_block_quality",
    "plot_cost",
    "plot_courses",
    "plot_curves",
    "plot_effects",
    "plot_front",
    "plot_interactions",
    "plot_losses",
    "plot_probes",
    "plot_quality",
    "plot_samples",
    "plot_settling",
    "plot_stability",
    "write_animation",
]
