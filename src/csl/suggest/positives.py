"""Unknown entries that are most likely there, to confirm."""

import numpy as np
import pandas as pd
import torch

from csl.suggest.best import Best
from csl.suggest.material import Material


def suggest(material: Material) -> pd.DataFrame:
    """The unknown entries of the highest probability: columns row, class, score."""
    best = Best(material.options.top, len(material.annotations.classes), material.options.per_class)
    for seen in material.batches(progress="scoring"):
        p = torch.sigmoid(seen.logits).numpy()
        best.add(np.where(seen.known.numpy() == -1, p, -np.inf), seen.rows)
    found = best.entries()
    return pd.DataFrame({"image": found["row"], "class": found["class"], "score": found["value"], "known": -1})
