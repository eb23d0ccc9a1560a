"""Measure a network on annotated images: `python validate.py --help` explains the flags."""

import sys

from csl.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]], prog="validate.py"))
