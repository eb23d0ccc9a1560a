"""`python -m csl TOOL`: see `csl.cli.tools`."""

import sys

from csl.cli.tools import main

if __name__ == "__main__":
    sys.exit(main())
