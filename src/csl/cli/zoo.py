"""The flags of `python -m csl zoo`: published weights and networks, to look at, fetch and take away."""

import argparse
from functools import cache

from csl.cli import parsing
from csl.errors import InputError

DESCRIPTION = "Published weights and networks: list them, describe one, download one, write one as timm's."
EPILOG = """a published name may stand wherever a script takes --model_path. CSL_ZOO_URL in the environment names a mirror.
examples:
  python -m csl zoo
  python -m csl zoo describe tresnet_m --layer layer4.0.conv1 --image_size 1024
  python -m csl zoo describe csl_opim_86.72
  python -m csl zoo get csl_opim_86.72
  python -m csl zoo to_timm outputs/best.ckpt weights.safetensors"""

_ARGUMENTS = {"list": 0, "describe": 1, "get": 1, "to_timm": 2}


def parser() -> argparse.ArgumentParser:
    """The parser of the tool."""
    p = parsing.create_parser(DESCRIPTION, EPILOG)
    p.usage = "%(prog)s [list | describe NAME | get NAME | to_timm FILE OUT] [flags]"
    p.add_argument("action", nargs="?", metavar="ACTION", help=f"one of {', '.join(_ARGUMENTS)} (list)")
    p.add_argument(
        "names", nargs="*", metavar="NAME", help="a published name, a file of weights, or a network's name (describe)"
    )
    g = p.add_argument_group("describe")
    g.add_argument(
        "--image_size", type=parsing.size, metavar="PX", help="side, or HEIGHTxWIDTH (the weights'; else 224)"
    )
    g.add_argument("--num_classes", type=int, metavar="C", help="classes of a network's head (80)")
    g.add_argument("--head", metavar="HEAD", help="a network's head: linear, bottleneck, hidden, ml_decoder or boostlu")
    g.add_argument("--layer", metavar="NAME", help="a TResNet only up to this layer, such as layer4.0.conv1")
    return p


def main(flags: dict) -> None:
    """Do what the flags say, and print it."""
    action, names = flags.get("action", "list"), flags.get("names", [])
    if action not in _ARGUMENTS:
        raise InputError(f"zoo {action}: unknown, expected one of {', '.join(_ARGUMENTS)}")
    if len(names) != _ARGUMENTS[action]:
        raise InputError(f"zoo {action}: {len(names)} names, expected {_ARGUMENTS[action]}")
    settings = {k: v for k, v in flags.items() if k not in ("action", "names")}
    if settings and action != "describe":
        raise InputError(f"zoo {action}: takes no --{next(iter(settings))}")
    {"list": _list, "describe": _describe, "get": _get, "to_timm": _to_timm}[action](*names, **settings)


def _list():
    from csl.models import zoo

    rows = [("name", "network", "head", "classes", "pixels", "MB", "data", "published")]
    for entry in zoo.PUBLISHED.values():
        path = zoo.local_path(entry.name)
        megabytes = f"{path.stat().st_size / 1e6:.1f}" if path.is_file() else ""
        network = entry.architecture
        if not megabytes and network.num_classes:
            megabytes = f"~{_bytes(network.name, network.num_classes, network.head or 'linear') / 1e6:.0f}"
        classes = f"{network.num_classes:,}" if network.num_classes else ""
        figure = f"mAP {entry.mAP}" if entry.mAP else entry.note
        pixels = str(entry.image_size or "")
        rows.append((entry.name, network.name, network.head or "", classes, pixels, megabytes, entry.data, figure))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        f"MB: of the files that are in {zoo.FOLDER}; ~ of others, by their parameters. Beside these, timm/NAME is any "
        "network of timm with its weights."
    )


@cache
def _bytes(network, num_classes, head):
    """What the weights of a network take, told by one without any values; several entries are of the same network."""
    import torch

    from csl.models import create_model

    with torch.device("meta"):
        model = create_model(network, num_classes, head=head)
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def _describe(name, image_size=None, num_classes=None, head=None, layer=None):
    from csl.export.describe import describe

    print(describe(name, image_size, num_classes, head, layer))


def _get(name):
    from csl.checkpoint import read

    loaded = read(name)
    head = f"{loaded.head} head, {loaded.num_classes:,} classes" if loaded.num_classes else "no classifier of ours"
    print(f"{loaded.origin or loaded.path}: {loaded.model_name or 'no TResNet'}, {head}")


def _to_timm(path, out):
    from csl.export.weights import write_as_timm

    print(write_as_timm(path, out))
