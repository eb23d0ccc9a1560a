"""Reads files of PyTorch without running anything of them: what is no tensor and no plain value becomes a stand-in."""

import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

# Published files hold class numbers as NumPy scalars. Rebuilding a scalar runs only these functions; such files use the
# module's old name.
_scalar = np.float64(0).__reduce__()[0]
_SCALAR_NAMES = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_SAFE_GLOBALS = [
    _scalar,
    *((_scalar, name) for name in _SCALAR_NAMES),
    np.dtype,
    *{type(np.dtype(t)) for t in ("int32", "int64", "float32", "float64", "uint8", "bool", "str")},
]
# What a pickle may do, by Python's own reader: the one in C takes as much memory as a file asks for. Not extensions, which
# are found elsewhere; and a byte array is read as bytes, since making it takes memory for what may not be in the file.
_OPERATIONS = {op: load for op, load in pickle._Unpickler.dispatch.items() if op not in (*b"\x82\x83\x84",)}
_OPERATIONS[pickle.BYTEARRAY8[0]] = _OPERATIONS[pickle.BINBYTES8[0]]


class _Dict(dict):
    """What an OrderedDict is read as: a dict that takes a state, such as the versions in a state dict, and drops it."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class StandIn(dict):
    """What any object that a file may not bring along is read as, of whatever class: it does nothing.

    It takes all that a pickle does to an object. Its entries are those of a dict of another class, or its attributes.
    """

    __slots__ = ()
    dump_patches = False  # PyTorch asks the class of a whole network in an old file, and would write a file

    def __new__(cls, *_: Any, **__: Any) -> "StandIn":
        """Of any arguments, which are dropped."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def __call__(self, *_: Any, **__: Any) -> "StandIn":
        """Itself."""
        return self

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)

    def append(self, *_: Any) -> None:
        """Nothing, as for a list or a set of another class."""

    extend = add = append
    __hash__ = object.__hash__
    __eq__ = object.__eq__


def load_inert(path: Path) -> tuple[Any, list[str]]:
    """The content of a file that `torch.save` wrote, on the CPU, and the names of the classes that `StandIn` stands for.

    PyTorch's reader of tensors and plain values is the first way. Where it refuses the file, every name that is not one of
    the few below becomes `StandIn`: none is imported, and nothing of the file is called.

    Raises:
        Exception: of many types, the unpickler's own or IndexError, TypeError, AssertionError of its stack and of rebuilt
            tensors: the file is damaged or another one.
    """
    with torch.serialization.safe_globals(_SAFE_GLOBALS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of pickle protocols that it does not write itself
        try:
            return torch.load(path, map_location="cpu", weights_only=True), []
        except pickle.UnpicklingError:  # and nothing else: PyTorch would run a TorchScript archive, and unpack a .tar
            pass
        unpickler, replaced = _unpickler()
        module = SimpleNamespace(
            __name__="csl", Unpickler=unpickler, load=lambda file, **options: unpickler(file, **options).load()
        )
        # `weights_only` would be PyTorch's own unpickler again. This one is stricter in what it calls.
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=module)
    return content, sorted(replaced)


def _unpickler():
    """An unpickler class that finds the functions here and no others, and the set of the other names it meets.

    The functions are made anew each time: a pickle may set attributes of what it finds, and these nobody else uses.
    """

    def plain_dtype(name, *_):
        dtype = np.dtype(str(name), False, True)  # a copy, as pickles set its byte order
        if dtype.kind not in "biufUS":
            return StandIn()  # of objects
        return dtype

    allowed = {
        "torch._utils._rebuild_tensor": lambda *parts: torch._utils._rebuild_tensor(*parts),
        "torch._utils._rebuild_tensor_v2": lambda *parts: torch._utils._rebuild_tensor(*parts[:4]),
        "torch._utils._rebuild_parameter": lambda data, *_: data,
        "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
        "torch._tensor._rebuild_from_type_v2": lambda rebuild, _, parts, __: rebuild(*parts),
        "torch.Size": lambda sizes=(): tuple(sizes),
        "collections.OrderedDict": lambda items=(): _Dict(items),
        "builtins.set": lambda items=(): set(items),
        "_codecs.encode": lambda text, *_: text.encode("latin1"),  # bytes
        "numpy.dtype": plain_dtype,
        **dict.fromkeys(
            _SCALAR_NAMES, lambda dtype, *value: _scalar(dtype, *value) if isinstance(dtype, np.dtype) else StandIn()
        ),
    }
    replaced = set()

    class Unpickler(pickle._Unpickler):
        dispatch = _OPERATIONS

        def find_class(self, module, name):
            full = f"{module.replace('__builtin__', 'builtins')}.{name}"  # as Python 2 and protocol 2 call it
            if full not in allowed:
                replaced.add(full)
            return allowed.get(full, StandIn)

    return Unpickler, replaced
