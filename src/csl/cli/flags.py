"""The flags that several scripts take, each written once, and groups of flags that show the defaults of their options."""

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from csl.cli import parsing

TABLE = (
    "attributes", "columns", "ignore_columns", "filename_column", "roles", "minus_one", "unlisted", "no_label",
    "vote_threshold",
)  # fmt: skip
"""How a table is read."""

DATA = (
    "images", "metadata", "debug_mode", *TABLE, "keep_unlabelled_images", "classes_file", "strict_labels", "reviews",
    "follow_links",
)  # fmt: skip
"""How annotations are read: the fields of `DataOptions` beside `data`."""

NETWORK = ("model_path", "weights_key", "model_name", "num_classes", "image_size", "background")
"""Which trained network is used."""

MACHINE = ("batch_size", "workers", "cache", "device", "amp", "engine", "abn", "compile")
"""What a trained network runs on."""

_SHARED: dict[str, dict[str, Any]] = {
    "images": dict(
        metavar="DIR", action="append", help="folder of the images, if not beside the annotations; may be repeated"
    ),
    "metadata": dict(metavar="DIR", help="folder of train.json and val.json, if not in --data"),
    "debug_mode": dict(metavar="LAYOUT", help="COCO layout on_farm or hyperml (detected)"),
    "attributes": dict(metavar="SPEC", help="sizes of the attributes in a CSV: neck:7,sleeve_length:4,pattern:10"),
    "ignore_columns": dict(metavar="A,B", type=parsing.names, help="CSV columns that are not attributes"),
    "columns": dict(
        metavar="A,B", type=parsing.names, help="columns with labels, no others: names, has_*, first..last"
    ),
    "filename_column": dict(metavar="NAME", help="column that names the images (found)"),
    "roles": dict(
        metavar="A=ROLE,...",
        help="image, split, weight, class or class:WORD_FOR_YES, attribute, list or list:SEPARATOR, ignored (found)",
    ),
    "minus_one": dict(choices=("negative", "unknown"), help="what -1 in a yes/no column means"),
    "unlisted": dict(choices=("negative", "unknown"), help="what a label that a list lacks counts as (negative)"),
    "no_label": dict(metavar="A,B", type=parsing.names, help="words for an empty list (No Finding)"),
    "vote_threshold": dict(metavar="X", type=float, help="shares of votes: from which on yes"),
    "keep_unlabelled_images": dict(action="store_true", help="COCO: keep images without any annotation"),
    "classes_file": dict(metavar="FILE", help="OpenImages: list of MIDs, instead of the trainable classes"),
    "strict_labels": dict(action="store_true", help="OpenImages: stop at the first malformed row"),
    "reviews": dict(
        metavar="FILE", help="answers of `csl review`, or none (reviews.csv beside the data, if it is there)"
    ),
    "follow_links": dict(
        action="store_true", help="allow image paths and links that lead out of the data folder, and linked folders"
    ),
    "on_bad_image": dict(choices=("stop", "skip"), help="stop at an unreadable image, or skip it"),
    "model_path": dict(metavar="FILE", help="checkpoint, run or .onnx (the run in --path_dest, else the last)"),
    "weights_key": dict(metavar="KEY", help="which weights of a file that holds several, such as model or ema (said)"),
    "model_name": dict(metavar="NAME", help="network of a file that does not name it, such as timm's (the file's)"),
    "num_classes": dict(type=int, metavar="C", help="expected number of classes (the file's)"),
    "image_size": dict(type=parsing.size, metavar="PX", help="side, or HEIGHTxWIDTH (the run's; else 448)"),
    "background": dict(
        metavar="COLOUR", help="laid under transparent images: white, #808080; none drops the transparency"
    ),
    "batch_size": dict(flags=("-b", "--batch_size"), type=int, metavar="B", help="images at a time"),
    "workers": dict(
        flags=("-j", "--workers"), type=int, metavar="N", help="processes that decode images (one per core, at most 8)"
    ),
    "cache": dict(metavar="DIR", help="folder that keeps resized photos for the next epoch or run"),
    "device": dict(metavar="DEV", help="cuda, cuda:1 or cpu (a GPU if there is one)"),
    "amp": dict(
        choices=("auto", "bf16", "fp16", "off"),
        help="low precision; auto: where the device computes in it; fp16 needs a GPU",
    ),
    "engine": dict(
        choices=("auto", "torch", "openvino", "onnx"),
        help="what runs the network on a CPU; auto: the fastest that is installed, proved equal at first",
    ),
    "abn": dict(metavar="NAME", help="keep InPlace-ABN as layers, run by auto, triton, torch or inplace-abn"),
    "compile": dict(action="store_true", help="torch.compile the network: takes minutes before the first image"),
    "print_freq": dict(
        flags=("-p", "--print_freq", "--printfreq"),
        type=int,
        metavar="N",
        help="steps between printed lines, without a terminal",
    ),
}
"""Of each flag what `argparse` takes; `flags` where it is not called `--NAME` alone."""


def parser_of(
    options: Callable[..., Any], description: str, epilog: str
) -> tuple[argparse.ArgumentParser, Callable[[str], "Group"]]:
    """A parser, and a function that adds a `Group` with a title to it.

    Args:
        options: a dataclass or function; the flags have the names and the defaults of its arguments.
        description, epilog: of the help.
    """
    parser = parsing.create_parser(description, epilog)
    defaults = {name: parameter.default for name, parameter in inspect.signature(options).parameters.items()}
    return parser, lambda title: Group(parser.add_argument_group(title), defaults)


class Group:
    """An argument group. The help of a flag ends with the default of its option, if that is a number or a word.

    Args:
        group: of the parser.
        defaults: of the options, by name.
    """

    def __init__(self, group: argparse._ArgumentGroup, defaults: dict[str, Any]):
        self._group, self._defaults = group, defaults

    def add(self, *flags: str, help: str, default: str | None = None, **settings: Any) -> None:
        """Add a flag as `argparse` does; `default` is shown in place of the option's."""
        name = settings.get("dest") or flags[-1].removeprefix("--")
        value = self._defaults.get(name)
        if default is None and type(value) in (int, float, str):
            default = f"{value:g}" if type(value) is not str else value
        self._group.add_argument(*flags, help=help if default is None else f"{help} ({default})", **settings)

    def shared(self, *names: str) -> None:
        """Add flags that several scripts take."""
        for name in names:
            settings = {"flags": (f"--{name}",), **_SHARED[name]}
            self.add(*settings.pop("flags"), dest=name, **settings)
