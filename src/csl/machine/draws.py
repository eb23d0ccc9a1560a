"""Random draws: each purpose has streams of its own, none of which is a stream of another."""

import numpy as np

PURPOSES = (
    "mask",
    "order",
    "augmentation",
    "copies",
    "photos shown",
    "split",
    "held out",
    "bootstrap",
    "mixing",
    "audit",
)
_FIRST = 1 << 31  # beyond what anybody takes for a seed: the drawn garments begin theirs with the seed itself


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """The generator for one of `PURPOSES`, of any non-negative numbers; a purpose always gives as many of them.

    Equal arguments give equal generators. NumPy pads seeds with zeros: without the purpose in front, the mask of (seed), the
    order of (seed, epoch) and the augmentation of (seed, epoch, place) began with the same draws.
    """
    return np.random.default_rng((_FIRST + PURPOSES.index(purpose), *numbers))
