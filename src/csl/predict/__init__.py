"""Trained networks over images: scores and names."""

from csl.predict.predictor import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_IMAGE_SIZE,
    Prediction,
    Predictor,
    attribute_table,
    attribute_values,
    find_images,
    name_scores,
)

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "DEFAULT_IMAGE_SIZE",
    "Prediction",
    "Predictor",
    "attribute_table",
    "attribute_values",
    "find_images",
    "name_scores",
]
