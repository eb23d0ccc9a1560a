"""Known labels that are probably wrong, by heads that were not trained on them."""

import numpy as np
import pandas as pd
import torch

from csl.suggest.best import Best
from csl.suggest.folds import fold
from csl.suggest.material import Material


def suggest(material: Material) -> pd.DataFrame:
    """The known entries of the least probability: columns image, class, score (of a mistake), known, there (probability)."""
    folded, _, _ = fold(material)
    best = Best(material.options.top, len(material.annotations.classes), material.options.per_class)
    for seen in material.batches(progress="scoring"):
        known = seen.known.numpy()
        p = torch.sigmoid(folded.logits(seen.rows, seen.features)).numpy()
        wrong = np.where(known == 1, 1 - p, p)
        best.add(np.where(known == -1, -np.inf, wrong), seen.rows, known=known, there=p)
    found = best.entries()
    return pd.DataFrame(
        {
            name: found[column]
            for name, column in {
                "image": "row",
                "class": "class",
                "score": "value",
                "known": "known",
                "there": "there",
            }.items()
        }
    )
