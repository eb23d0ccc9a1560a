"""Train on partially annotated images: `python train.py --help` explains the flags."""

import sys

from csl.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], prog="train.py"))
