"""The settings of `csl suggest`. They import no PyTorch, so that --help is quick."""

from dataclasses import dataclass
from typing import NamedTuple

from csl.inference.options import NetworkOptions
from csl.labels.options import DataOptions


class Purpose(NamedTuple):
    """What labels are suggested for.

    Attributes:
        module: has `suggest(material: csl.suggest.material.Material) -> pd.DataFrame`, the table that is written: its
            first columns are image (row of the annotations), class (row of the classes), score; the first row is the first
            to be asked.
        file: of the table, in the folder of the run.
        about: what comes first, for --help.
        split: of the data, where none is named.
    """

    module: str
    file: str
    about: str
    split: str = "train"


PURPOSES = {
    "positives": Purpose("csl.suggest.positives", "suggestions.csv", "unknown, and most likely there: to confirm"),
    "training": Purpose("csl.suggest.training", "suggestions.csv", "unknown, and would teach the most"),
    "errors": Purpose("csl.suggest.mistakes", "suggestions.csv", "known, and probably wrong"),
    "audit": Purpose(
        "csl.suggest.audit",
        "audit.csv",
        "unknown, at random: once answered, what the network is worth (docs/audit.md)",
        "val",
    ),
}
"""To add one: a line here, and its module."""

FORMATS = {"csv": ".csv", "parquet": ".parquet", "label_studio": ".json", "fiftyone": ".json"}
"""Of the table: the ending of its file."""


@dataclass(kw_only=True)
class SuggestOptions(NetworkOptions, DataOptions):
    """The flags of `csl suggest` (`csl.cli.suggest` explains each).

    Attributes:
        purpose: one of `PURPOSES`.
        split: "train", "val" or "test"; None for that of the purpose.
        top: most suggestions, 1 or more.
        per_class: most suggestions of one class, None for any number.
        folds: heads on frozen features, each of which scores the images that it was not trained on; 2 or more.
        from_runs: folders of runs, which score the images that they were not trained on, in place of heads on features.
        seed: of the folds, of an audit's sample, and of the images that heads are trained on where there are very many.
        format: one of `FORMATS`.
        output: the file; None for that of the purpose, in the folder of the run.
    """

    purpose: str = "positives"
    split: str | None = None
    top: int = 1000
    per_class: int | None = None
    folds: int = 3
    from_runs: list[str] | None = None
    seed: int = 0
    format: str = "csv"
    output: str | None = None
