"""Pictures of labels, priors, predictions and training, one file each. matplotlib is imported when one is made."""

from csl.plots.curves import choose_classes, named_classes, plot_precision_recall
from csl.plots.distribution import plot_distribution, value_counts
from csl.plots.heat_maps import plot_heat_maps
from csl.plots.labels import plot_labels
from csl.plots.optional import tried
from csl.plots.predictions import Sheet, choose_images, plot_contact_sheet, plot_predictions, sheet_of, title_of
from csl.plots.prior import plot_prior
from csl.plots.training import plot_run_annotation, plot_run_prior, plot_training

__all__ = [
    "Sheet",
    "choose_classes",
    "choose_images",
    "named_classes",
    "plot_contact_sheet",
    "plot_distribution",
    "plot_heat_maps",
    "plot_labels",
    "plot_precision_recall",
    "plot_predictions",
    "plot_prior",
    "plot_run_annotation",
    "plot_run_prior",
    "plot_training",
    "sheet_of",
    "title_of",
    "tried",
    "value_counts",
]
