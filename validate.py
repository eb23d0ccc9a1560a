"""Measure a network on annotated images: `python validate.py --help`."""

import sys

from csl.cli import validate
from csl.cli.parsing import run

if __name__ == "__main__":
    sys.exit(run(validate.main, validate.parser()))
