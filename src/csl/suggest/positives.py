"""Unknown entries that are most likely there, to confirm."""

import pandas as pd

from csl.suggest.material import Material
from csl.suggest.unknown import first, folded_of, table


def suggest(material: Material) -> pd.DataFrame:
    """The unknown entries of the highest probability."""
    options = material.options
    return table(first(material, folded_of(material), lambda p: p, options.top, options.per_class))
