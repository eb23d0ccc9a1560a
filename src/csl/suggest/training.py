"""Unknown entries that would teach the most."""

import numpy as np
import pandas as pd
import torch

from csl.suggest.best import Best
from csl.suggest.material import Material


def suggest(material: Material) -> pd.DataFrame:
    """The unknown entries nearest to the threshold, weighed by how rare a class is among known labels."""
    best = Best(material.options.top, len(material.annotations.classes), material.options.per_class)
    rarity = 1 / np.sqrt(1 + material.annotations.labels.counts().positives)  # [C]
    for seen in material.batches(progress="scoring"):
        p = torch.sigmoid(seen.logits).numpy()
        best.add(np.where(seen.known.numpy() == -1, p * (1 - p) * rarity, -np.inf), seen.rows, score=p)
    found = best.entries()
    return pd.DataFrame({"image": found["row"], "class": found["class"], "score": found["score"], "known": -1})
