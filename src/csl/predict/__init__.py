"""Trained networks over images: scores and names."""

from csl.predict.images import find_images
from csl.predict.names import Prediction, attribute_table, attribute_values, name_scores
from csl.predict.predictor import Predictor

__all__ = [
    "Prediction",
    "Predictor",
    "attribute_table",
    "attribute_values",
    "find_images",
    "name_scores",
]
