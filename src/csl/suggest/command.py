"""`csl suggest`: a table of the labels to look at first."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from csl.errors import InputError
from csl.ranges import check_ranges
from csl.suggest.material import Material
from csl.suggest.options import FORMATS, PURPOSES, SuggestOptions
from csl.suggest.output import WRITERS


def suggest(options: SuggestOptions, say: Callable[[str], None] = print) -> Path:
    """Rank the entries of a run's data for a purpose, and write the first of them; returns the file.

    Args:
        options: as the flags of `csl suggest`.
        say: prints one line.

    Raises:
        InputError: no such run, data, purpose or format; other classes; no entry to suggest.
    """
    check_ranges(vars(options))
    for name, known in (("for", PURPOSES), ("format", FORMATS)):
        value = options.purpose if name == "for" else options.format
        if value not in known:
            raise InputError(f"--{name} {value}: unknown, expected one of {', '.join(known)}")
    if options.purpose == "audit" and options.from_runs:
        raise InputError("--from_runs changes nothing: --for audit asks what the network of RUN is worth; leave it out")
    purpose = PURPOSES[options.purpose]
    options = replace(options, split=options.split or purpose.split)
    material = Material.gather(options, say)
    file = Path(options.output or material.run.path / Path(purpose.file).with_suffix(FORMATS[options.format]))
    module = importlib.import_module(purpose.module)
    if options.purpose == "audit" and module.is_drawn(material, file):
        module.measure(material, file)  # a sample is drawn once, then its answers are read
        return file
    table = module.suggest(material)
    if material.bad:
        say(f"{len(material.bad):,} bad images left out, such as {material.bad[0].reason}")
    WRITERS[options.format](file, table, material.annotations)
    say(f"{len(table):,} suggestions in {file}")
    if options.format == "csv" and options.output is None:
        say(f"next: python -m csl review {material.run.path}")
    return file
