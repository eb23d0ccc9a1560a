"""Known labels that are probably wrong, by heads and maps that were not trained on them."""

import numpy as np
import pandas as pd
import torch

from csl.errors import InputError
from csl.suggest.best import Best
from csl.suggest.material import Material
from csl.suggest.unknown import folded_of


def suggest(material: Material) -> pd.DataFrame:
    """The known entries of the least probability: `score` is that of a mistake, in [0, 1]."""
    annotations, options = material.annotations, material.options
    counts = annotations.labels.counts()
    if not counts.negatives.any():
        raise InputError(
            f"{annotations.source}: no class of the {options.split} split is known to be absent anywhere, so that nothing "
            "contradicts one that is there; expected some of both"
        )
    folded = folded_of(material)
    best = Best(options.top, len(annotations.classes), options.per_class)
    for seen in material.batches("scoring"):
        known = seen.known.numpy()
        t = folded.among_all(seen.rows, seen.features, seen.known)
        p = torch.sigmoid(t + folded.odds).numpy()
        wrong = np.where(known == 1, 1 - p, p)
        best.add(
            np.where(known == -1, -np.inf, wrong), seen.rows, known=known, network=torch.sigmoid(seen.logits).numpy()
        )
    found = best.entries()
    columns = {"image": "row", "class": "class", "score": "value", "known": "known", "network": "network"}
    return pd.DataFrame({name: found[column] for name, column in columns.items()})
