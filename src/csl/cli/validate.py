"""The flags of validate.py."""

import argparse

from csl.cli import flags, parsing
from csl.errors import InputError
from csl.inference.options import ValidateOptions

DESCRIPTION = "Measure a network on annotated images: mAP, precision, recall and F1, a table of all classes."
EPILOG = """without flags the last run of train.py is measured on its own validation split.
every flag may be written with - or _."""
UNUSED = {"dataset_type": "the format is detected", "print_freq": "there is a progress bar"}


def parser() -> argparse.ArgumentParser:
    """The parser of validate.py; its names are the fields of `ValidateOptions`."""
    p, group = flags.parser_of(ValidateOptions, DESCRIPTION, EPILOG)
    g = group("data")
    g.add("data_dir", nargs="?", metavar="data", help="folder or file of annotations (the run's own; else ./data)")
    g.add("--data", metavar="DIR", help="the same")
    g.add("--split", metavar="NAME", help="train, val or test")
    g.shared(*flags.DATA)
    g.add("--dataset_type", metavar="NAME", help="accepted and not used: the format is detected")
    group("network").shared(*flags.NETWORK)
    g = group("measuring")
    g.add("--thre", type=float, metavar="T", help="threshold of P_C ... F_O")
    g.add("--calibrate", action="store_true", help="make probabilities and thresholds, and keep them for infer.py")
    g.add("--target", metavar="GOAL", help="of the thresholds: precision=0.9, recall=0.8 (best F1); with --calibrate")
    g.add(
        "--prior_path", metavar="FILE", help="CSV of the class prior that the estimated mAP rests on (that of the run)"
    )
    g.add(
        "--path_dest", metavar="DIR", help="folder for validation.csv and validation.json (the run's; else ./outputs)"
    )
    g.add("--plots", action="store_true", help="draw labels, prior, predictions and PR curves into plots/")
    g.add("--plot_classes", metavar="A,B", type=parsing.names, help="classes of the PR curves; implies --plots")
    g = group("machine")
    g.shared(*flags.MACHINE)
    g.add("-p", "--print_freq", "--printfreq", dest="print_freq", type=int, metavar="N", help="accepted and not used")
    return p


def main(given: dict) -> None:
    """Measure as the flags say."""
    from csl.inference.validate import validate
    from csl.machine import distributed

    for name, why in UNUSED.items():  # of the original's command lines
        if given.pop(name, None) is not None:
            distributed.on_rank0(print)(f"--{name}: not used, {why}")
    if "data_dir" in given:
        if "data" in given:
            raise InputError(f"--data {given['data']}: given beside {given['data_dir']}, expected one of them")
        given["data"] = given.pop("data_dir")
    validate(ValidateOptions(**given))
