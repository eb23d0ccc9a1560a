"""Multi-label image classification when most labels are unknown: the Class-aware Selective Loss (arXiv 2110.10955).

The names of `__all__` are the public ones; docs/api.md shows each by example. They are imported when first used, so that
`import csl` is cheap.
"""

import importlib

from csl.errors import InputError

__version__ = "0.1.0"

_HOME = {
    # what the three scripts do
    "train": "csl.training.experiment",
    "TrainConfig": "csl.runs.config",
    "validate": "csl.inference.validate",
    "ValidateOptions": "csl.inference.options",
    "infer": "csl.inference.infer",
    "InferenceOptions": "csl.inference.options",
    # networks
    "Predictor": "csl.predict",
    "create_model": "csl.models",
    "load_model": "csl.checkpoint",
    # labels
    "Annotations": "csl.labels",
    "LabelMatrix": "csl.labels",
    "read_annotations": "csl.labels",
    "simulate": "csl.labels",
    "make_garments": "csl.garments",
    # losses, the class prior, metrics
    "AnnotationLoss": "csl.losses",
    "AsymmetricLoss": "csl.losses",
    "PartialSelectiveLoss": "csl.losses",
    "create_loss": "csl.losses",
    "ClassPrior": "csl.prior",
    "estimate_prior": "csl.prior",
    "read_prior": "csl.prior",
    "write_prior": "csl.prior",
    "average_precision": "csl.metrics",
    "estimated_average_precision": "csl.metrics",
    "estimated_mean_average_precision": "csl.metrics",
    "mean_average_precision": "csl.metrics",
}

__all__ = ["InputError", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'csl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
