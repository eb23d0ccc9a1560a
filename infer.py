"""Name what is in photos: `python infer.py --help`."""

import sys

from csl.cli import infer
from csl.cli.parsing import run

if __name__ == "__main__":
    sys.exit(run(infer.main, infer.parser()))
