"""The drawn demo set: pictures of garments with three attributes, and the drawing of them.

Imports go one way: `dataset` makes the set of pictures that `scene` composes from the `garment` (of a `cut` and a
`fabric`) and the `extras`; all of them draw `outlines` in `colors` on a `canvas`.
"""

from csl.garments.cut import NECKS, SLEEVES
from csl.garments.dataset import ATTRIBUTES, make_garments
from csl.garments.fabric import PATTERNS

__all__ = ["ATTRIBUTES", "NECKS", "PATTERNS", "SLEEVES", "make_garments"]
