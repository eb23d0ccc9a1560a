"""Pictures of labels, priors, predictions and training, one file each. matplotlib is imported when one is made.

A function `draw_...` returns a `csl.plots.style.Page`, whose `save` writes a PNG; `plot_...` writes those of a run.
"""

from csl.plots.curves import choose_classes, draw_precision_recall, named_classes
from csl.plots.distribution import draw_distribution, value_counts
from csl.plots.heat_maps import draw_heat_maps
from csl.plots.labels import draw_labels
from csl.plots.optional import tried
from csl.plots.predictions import Sheet, choose_images, draw_contact_sheet, draw_predictions, sheet_of
from csl.plots.prior import draw_prior
from csl.plots.training import plot_run_annotation, plot_run_prior, plot_training

__all__ = [
    "Sheet", "choose_classes", "choose_images", "draw_contact_sheet", "draw_distribution", "draw_heat_maps", "draw_labels",
    "draw_precision_recall", "draw_predictions", "draw_prior", "named_classes", "plot_run_annotation", "plot_run_prior",
    "plot_training", "sheet_of", "tried", "value_counts",
]  # fmt: skip
