"""The settings of `csl review`. They import no PyTorch, so that --help is quick."""

from dataclasses import dataclass

from csl.labels.options import DataOptions

HOST, PORT = "127.0.0.1", 8765


@dataclass(kw_only=True)
class ReviewOptions(DataOptions):
    """The flags of `csl review` (`csl.cli.review` explains each). Of the data those of the run count where none is given.

    Attributes:
        run: the folder of a run, or a checkpoint in it; None for the last.
        questions: the table of questions; None for suggestions.csv in the run, else audit.csv there.
        host: the network interface that the page is served on.
        port: of it; 0 for any that is free.
        merge: do not ask, but write labels with the answers into this file or folder; True for `merged` in the run.
    """

    run: str | None = None
    questions: str | None = None
    host: str = HOST
    port: int = PORT
    merge: str | bool | None = None
