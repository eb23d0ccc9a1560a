"""Where the decisions of a network are kept: in its checkpoint, or beside a file of another program or an exported one."""

from collections.abc import Mapping
from pathlib import Path

from csl import checkpoint
from csl.decisions import Decisions
from csl.machine.files import parse_json, write_json


def file_beside(path: str | Path) -> Path:
    """The file of the decisions of a network whose own file does not hold them."""
    return Path(path).with_name(f"{Path(path).name}.decisions.json")


def read_decisions(
    path: str | Path, stored: object, classes: int, groups: Mapping[str, slice] | None
) -> Decisions | None:
    """The decisions beside the file of a network, else those that are `stored` in it; None without any.

    Raises:
        InputError: they are damaged, or of other classes.
    """
    beside = file_beside(path)
    if beside.is_file():
        return Decisions.from_plain(parse_json(beside.read_bytes(), beside), beside, classes, groups)
    return Decisions.from_plain(stored, path, classes, groups)


def write_decisions(path: str | Path, decisions: Decisions, weights_key: str | None = None) -> Path:
    """Keep the decisions of a network; returns the file that holds them now, replaced whole or not at all.

    Args:
        path: a checkpoint of train.py's, which gets them; any other file stays as it is.
        decisions: of the network.
        weights_key: of the weights that were used, if the file holds several.
    """
    beside = file_beside(path)
    if (
        Path(path).suffix != ".onnx"
        and weights_key is None
        and checkpoint.with_entry(path, "decisions", decisions.to_plain())
    ):
        beside.unlink(missing_ok=True)
        return Path(path)
    write_json(beside, decisions.to_plain())
    return beside
