"""The flags of `python -m csl reproduce`."""

import argparse

from csl.cli import parsing

DESCRIPTION = "Print the command that made a run, and what has changed since."
EPILOG = """the run's config.json holds its settings, versions, git revision and fingerprints of data and mask.
example:
  python -m csl reproduce outputs"""


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    p.usage = "%(prog)s RUN [flags]"
    p.add_argument("run", metavar="RUN", help="folder of a run of train.py")
    p.add_argument("--no_data", action="store_true", help="do not read the data to compare its fingerprint")
    return p


def main(flags: dict) -> None:
    """Print the command on stdout, and the notes as comments of a shell."""
    from csl.training.reproduction import reproduce

    found = reproduce(flags["run"], look_at_data=not flags.get("no_data", False))
    for note in found.notes:
        print(f"# {note}")
    print(found.command)
