"""Name what is in photos: `python infer.py --help` explains the flags."""

import sys

from csl.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]], prog="infer.py"))
