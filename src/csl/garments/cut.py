"""The cut of a garment: its measures, and the outlines of its body, neckline and sleeves."""

import numpy as np
from numpy.random import Generator

from csl.garments.outlines import bezier, direction, mirrored

NECKS = ("crew", "v-neck", "scoop", "square", "collar", "turtleneck", "boat")
SLEEVES = ("sleeveless", "short", "three-quarter", "long")
_OPENINGS = {  # per neck: the least and the greatest half width of the opening, then of its depth in front
    "crew": (0.14, 0.16, 0.12, 0.14),
    "v-neck": (0.165, 0.19, 0.34, 0.41),
    "scoop": (0.19, 0.21, 0.3, 0.35),
    "square": (0.19, 0.21, 0.2, 0.23),
    "collar": (0.125, 0.15, 0.13, 0.18),
    "turtleneck": (0.14, 0.155, 0.06, 0.075),
    "boat": (0.265, 0.28, 0.1, 0.115),
}


class Cut:
    """Measures of one garment, in garment coordinates; the class values fix some, the generator the others.

    Args:
        rng: a `numpy.random.Generator`.
        neck: index into `NECKS`.
        sleeve: index into `SLEEVES`.

    Raises:
        IndexError: an index is too large.
    """

    def __init__(self, rng: Generator, neck: int, sleeve: int):
        uniform = rng.uniform
        self.neck, self.sleeve = NECKS[neck], SLEEVES[sleeve]
        limits = _OPENINGS[self.neck]
        self.opening, self.depth = uniform(*limits[:2]), uniform(*limits[2:])
        self.slope = uniform(0.2, 0.32)
        self.shoulder = uniform(0.29, 0.315)
        self.strap = max(self.opening + uniform(0.03, 0.05), 0.23)  # half width at the shoulder when sleeveless
        self.armpit = np.array([uniform(0.225, 0.255), uniform(0.235, 0.275)])
        self.dress = rng.random() < 0.25
        self.length = uniform(0.85, 1.0) if self.dress else uniform(0.62, 0.76)
        self.waist = uniform(0.16, 0.2) if self.dress else uniform(0.2, 0.25)
        self.hem = uniform(0.26, 0.36) if self.dress else self.waist + uniform(0.0, 0.05)
        self.reach = [0.0, uniform(0.28, 0.36), uniform(0.62, 0.68), 1.0][sleeve]  # share of the arm covered
        self.fit = uniform(0.9, 1.25)
        self.flare = uniform(1.7, 2.4) if self.sleeve == "three-quarter" else uniform(0.95, 1.25)  # of the sleeve's end
        self.arms = [(uniform(0.08, 0.3), uniform(-0.2, 0.15)) for _ in range(2)]  # radians: upper arm, elbow

    def shoulder_point(self, x: float) -> np.ndarray:
        """The point (x, y) of the right shoulder line at distance x from the middle."""
        return np.array([x, self.slope * (x - 0.1)])

    def torso(self) -> np.ndarray:
        """Outline [N, 2] of the body of the garment; its top runs along the back of the neck."""
        sleeveless = self.sleeve == "sleeveless"
        side = self.shoulder_point(self.strap if sleeveless else self.shoulder)
        neck = self.shoulder_point(self.opening)
        inner = min(side[0], self.armpit[0]) - (0.03 if sleeveless else 0.0)
        waist_y = 0.5 if self.dress else self.length * 0.68
        sag = self.length + (0.03 if self.dress else 0.012)
        rounded = side + np.array([0.006, 0.03])
        half = np.concatenate(
            [
                bezier((0, neck[1] + 0.03), (neck[0] * 0.7, neck[1] + 0.03), neck, steps=6),
                bezier(self.shoulder_point(side[0] - 0.04), side, rounded, steps=5),
                bezier(rounded, (inner, side[1] + 0.07), (inner, self.armpit[1] - 0.03), self.armpit, steps=8),
                bezier(self.armpit, (self.waist, waist_y - 0.1), (self.waist, waist_y + 0.02), (self.hem, self.length)),
                bezier((self.hem, self.length), (self.hem * 0.6, sag), (0, sag), steps=6),
            ]
        )
        return mirrored(half)

    def neckline(self) -> np.ndarray:
        """The front edge [N, 2] of the neck opening, from the left shoulder to the right one."""
        corner = self.shoulder_point(self.opening)
        x, d = self.opening, self.depth
        between = {
            "crew": [(x * 0.98, d * 0.75), (x * 0.6, d)],
            "v-neck": [(x * 0.55, d * 0.52)],
            "scoop": [(x * 1.05, d * 0.8), (x * 0.75, d)],
            "square": [(x * 0.93, d)],
            "collar": [],
            "turtleneck": [(x * 0.6, d)],
            "boat": [(x * 0.7, d)],
        }[self.neck]
        straight = self.neck in ("square", "collar")
        half = np.array([corner, *between, (0, d)]) if straight else bezier(corner, *between, (0, d))
        return np.concatenate([half * [-1, 1], half[::-1]])

    def arm(self, side: int, reach: float, fit: float) -> tuple[np.ndarray, np.ndarray]:
        """The outer and the inner edge of an arm or a sleeve from shoulder and armpit to `reach` (0 to 1).

        `side` is -1 (left in the picture) or 1; `fit` scales the width, and up to 0.8 it is a bare arm without flare.
        Both edges are [14, 2].
        """
        angle, bend = self.arms[(side + 1) // 2]
        top = self.shoulder_point(self.shoulder)
        elbow = top + np.array([-0.045, 0.06]) + 0.26 * np.array([np.sin(angle), np.cos(angle)])
        wrist = elbow + 0.27 * np.array([np.sin(angle + bend - 0.1), np.cos(angle + bend - 0.1)])
        across = direction(-angle)
        flare = 1 + (self.flare - 1) * (fit > 0.8)
        start = top + np.array([0.006, 0.03] if fit > 0.8 else [0.0, 0.05])
        outer = bezier(start, elbow + across * 0.062 * fit, wrist + across * 0.034 * fit * flare, end=reach)
        inner = bezier(self.armpit, elbow - across * 0.062 * fit, wrist - across * 0.034 * fit * flare, end=reach)
        return outer * [side, 1], inner * [side, 1]
