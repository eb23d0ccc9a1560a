"""Train on partially annotated images: `python train.py --help`."""

import sys

from csl.cli import train
from csl.cli.parsing import run

if __name__ == "__main__":
    sys.exit(run(train.main, train.parser()))
