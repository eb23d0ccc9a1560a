"""What a `.pt2` file may hold, looked at before PyTorch reads it.

`torch.export.load` unpickles what it finds, loads compiled libraries, and evaluates the expressions of sizes. Of a network
that `csl.export` writes nothing of that is needed: its file holds tensors, and a graph of PyTorch's own operators.
"""

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csl.errors import InputError
from csl.machine.archive import check_archive
from csl.machine.files import parse_json

# Members behind the archive's own folder: those of PyTorch 2.9 and later, and of those before.
_MEMBER = re.compile(
    r"archive_format|archive_version|version|byteorder|\.data/(serialization_id|version)|\.format_version|\.storage_alignment"
    r"|models/\w+\.json|data/(weights|constants)/((weight|tensor)_\d+|\w+_config\.json)|data/sample_inputs/\w+\.pt"
    r"|extra/csl\.json"
    r"|serialized_(exported_program\.json|(state_dict|constants|example_inputs)\.(pt|json))|extra_files/csl\.json"
)
# Operators that compute. `from_file` maps a file of this machine.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten(?!\.(from_file|save|load)\b)|prims|higher_order)(\.\w+)+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|pow|getitem)"
    r"|math\.(ceil|floor|trunc)|torch\.sym_\w+"
)
# Expressions of sizes as sympy prints them: symbols of sizes, numbers, arithmetic, and sympy's functions in capitals.
_EXPRESSION = re.compile(
    r"('?[su]\d+'?|[A-Z][A-Za-z]*(?=\()|(positive|integer|nonnegative)=True|\d{1,20}|[-+*/%()<>=,. ])*"
)
_MOST_CHARACTERS = 4096  # of an expression


def screen(path: Path) -> None:
    """Refuse a file that holds more than tensors and operators.

    Raises:
        InputError: what was found, or that it is no archive.
    """
    with open(path, "rb") as file:
        begins_as_archive = file.read(4) == b"PK\3\4"  # else `check_archive` leaves it to the reader
    if not begins_as_archive:
        raise InputError(f"{path}: not a network that torch.export reads, expected an archive")
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not _MEMBER.fullmatch(name.partition("/")[2]) and not _MEMBER.fullmatch(name):
                raise InputError(f"{path}: holds {name[:80]!r}, expected a graph and its tensors, and was not loaded")
            if name.endswith(".json"):
                try:
                    content = archive.read(name)
                except Exception as error:  # zipfile trips over damage in many ways: struct.error, EOFError, ...
                    raise InputError(f"{path}, {name}: a damaged file ({error})") from error
                for key, value in _texts(parse_json(content, f"{path}, {name}")):
                    _check(key, value, path)


def _texts(content) -> Iterator[tuple[str, object]]:
    """(key, value) of all objects in a JSON value."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check(key, value, path):
    def refuse(what):
        raise InputError(f"{path}: holds {what} {str(value)[:80]!r}, expected a graph of operators, and was not loaded")

    if key == "target" and isinstance(value, str) and not _OPERATOR.fullmatch(value):
        refuse("the operator")
    is_expression = key == "expr_str" and isinstance(value, str)
    if is_expression and (len(value) > _MOST_CHARACTERS or not _EXPRESSION.fullmatch(value)):
        refuse("the expression")
    if key == "use_pickle" and value is not False:
        refuse("a pickle:")
    if key == "path_name" and not (isinstance(value, str) and re.fullmatch(r"(weight|tensor)_\d+", value)):
        refuse("an object in")


@contextmanager
def tensors_only() -> Iterator[None]:
    """Have every `torch.load` in here refuse what is no tensor or plain value, even where it is told not to."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
