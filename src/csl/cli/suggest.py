"""The flags of `csl suggest`."""

import argparse

from csl.cli import flags
from csl.suggest.options import FORMATS, PURPOSES, SuggestOptions

DESCRIPTION = "Rank what to look at first: unknown labels to fill in, known ones that are probably wrong."
EPILOG = """examples:
  python -m csl suggest outputs --for training --top 300
  python -m csl suggest outputs --for errors
  python -m csl suggest --for positives --per_class 20 --format parquet"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool; its names are the fields of `SuggestOptions`."""
    p, group = flags.parser_of(SuggestOptions, DESCRIPTION, EPILOG)
    p.usage = "%(prog)s [RUN] [flags]"
    g = group("what")
    g.add("model_path", nargs="?", metavar="RUN", help="folder of a run, or its checkpoint (the last run)")
    about = "; ".join(f"{name}: {purpose.about}" for name, purpose in PURPOSES.items())
    g.add("--for", dest="purpose", choices=list(PURPOSES), help=about)
    g.add("--split", metavar="NAME", help="train, val or test (train; of an audit val)")
    g.add("--top", type=int, metavar="N", help="most suggestions; of an audit, questions")
    g.add("--per_class", type=int, metavar="N", help="most suggestions of one class (any number)")
    g.add("--folds", type=int, metavar="K", help="heads, each of which scores images that it was not trained on")
    g.add(
        "--from_runs",
        nargs="+",
        metavar="RUN",
        help="in place of such heads: folders of runs, each of which scores images that it was not trained on",
    )
    g.add("--seed", type=int, metavar="S", help="of the folds; of an audit's sample")
    g = group("file")
    g.add("--output", metavar="FILE", help="the file to write (suggestions.csv in the folder of the run)")
    g.add("--format", choices=list(FORMATS), help="of the file")
    g = group("data")
    g.add("--data", metavar="DIR", help="folder or file of annotations (the run's own)")
    g.shared(*flags.DATA)
    g = group("network and machine")
    g.shared("weights_key", "model_name", "num_classes", "image_size", "background")
    g.shared(*(name for name in flags.MACHINE if name not in ("compile", "engine")))
    return p


def main(given: dict) -> None:
    """Suggest as the flags say."""
    from csl.suggest.command import suggest

    suggest(SuggestOptions(**given))
