"""Outlines as arrays [N, 2] of points (x, y): rectangles, curves, ellipses and mirror images.

They have the unit of their arguments; angles are in radians.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The outline [4, 2] of an upright rectangle, clockwise as seen (y points down)."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def bezier(*control: ArrayLike, steps: int = 14, end: float = 1.0) -> np.ndarray:
    """Points [steps, 2] of the Bezier curve through the ends of `control`, from t = 0 to t = `end` (0 to 1)."""
    t = np.linspace(0, end, steps)[:, None]
    points = [np.asarray(point, float) for point in control]
    while len(points) > 1:
        points = [a * (1 - t) + b * t for a, b in pairwise(points)]
    return points[0]


def mirrored(half: ArrayLike) -> np.ndarray:
    """A symmetric outline [2 N, 2] from its right half [N, 2], listed from the top middle to the bottom middle."""
    half = np.asarray(half, float)
    return np.concatenate([half, half[::-1] * [-1, 1]])


def direction(angle: float) -> np.ndarray:
    """The unit vector (x, y) at `angle` from the x axis towards the y axis."""
    return np.array([np.cos(angle), np.sin(angle)])


def ellipse(center: ArrayLike, radii: tuple[float, float], angle: float = 0.0, steps: int = 24) -> np.ndarray:
    """Points [steps, 2] of an ellipse with radii (rx, ry), turned by `angle` from the x axis towards the y axis."""
    t = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    x, y = radii[0] * np.cos(t), radii[1] * np.sin(t)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([center[0] + c * x - s * y, center[1] + s * x + c * y], 1)
