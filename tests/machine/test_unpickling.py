"""Pickles with more in them than tensors: read, and nothing of them runs."""

import argparse
import builtins
import collections
import contextlib
import copyreg
import dataclasses
import datetime
import enum
import functools
import io
import os
import pathlib
import pickle
import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from csl.machine.unpickling import StandIn, load_inert


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Settings:
    lr: float = 0.1


@dataclasses.dataclass(slots=True)
class Slots:
    lr: float = 0.1


class Config(dict):
    """As those of yacs and others: a dict with attributes."""


class Names(list):
    pass


Pair = collections.namedtuple("Pair", "a b")

OBJECTS = {
    "argparse": argparse.Namespace(lr=0.1, nested=argparse.Namespace(a=[1])),
    "path": [pathlib.PurePosixPath("a/b"), pathlib.Path("x")],
    "array": np.arange(6.0).reshape(2, 3),
    "objects": np.array([{"a": 1}, None], dtype=object),
    "time": [datetime.datetime(2020, 1, 2), datetime.timedelta(3), datetime.date(2020, 1, 2)],
    "collections": [collections.defaultdict(list, a=[1]), collections.deque([1]), Pair(1, 2), collections.ChainMap({})],
    "enum": {Colour.RED: 1},
    "dataclasses": [Settings(), Slots()],
    "subclasses": [Config(a=1), Names([1, 2])],
    "functions": [len, os.path.join, functools.partial(print, 1), Settings().__init__],
    "sets": [{1, 2}, frozenset({3})],
    "types": [
        int,
        torch.nn.Linear,
        torch.float32,
        torch.device("cpu"),
        slice(1, 2),
        range(3),
        1j,
        b"x",
        bytearray(b"y"),
    ],
    "optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1),
    "module": torch.nn.Sequential(torch.nn.Linear(2, 2)),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("name", OBJECTS)
def test_objects_beside_tensors_are_passed_over(name, zipped, protocol, tmp_path):
    class Unknown:
        """Whose module is not there when the file is read."""

    Unknown.__module__, Unknown.__qualname__ = "nowhere.to.be.found", "Unknown"
    tensors = {"w": torch.randn(3, 2), "half": torch.ones(2).bfloat16(), "p": torch.nn.Parameter(torch.ones(2, 2))}
    content = {"x": OBJECTS[name], "state": collections.OrderedDict(tensors), "n": np.int64(7), "again": tensors["w"]}
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    torch.save(content, tmp_path / "a.pth", **options)
    read, replaced = load_inert(tmp_path / "a.pth")
    assert read["n"] == 7
    assert read["again"].data_ptr() == read["state"]["w"].data_ptr()
    for key, value in tensors.items():
        assert torch.equal(read["state"][key], value)
        assert read["state"][key].dtype == value.dtype
    assert replaced or protocol > 2 or name in ("sets", "types")


def test_what_stands_in_keeps_entries_and_attributes(tmp_path):
    content = {"a": Config(x=1), "b": collections.defaultdict(list, y=2), "c": argparse.Namespace(z=3)}
    torch.save(content, tmp_path / "a.pth")
    read, replaced = load_inert(tmp_path / "a.pth")
    assert [dict(read[key]) for key in "abc"] == [{"x": 1}, {"y": 2}, {"z": 3}]
    assert all(type(read[key]) is StandIn for key in "abc")
    assert replaced == ["argparse.Namespace", "builtins.list", "collections.defaultdict", f"{__name__}.Config"]


# ---------------------------------------------------------------------------------------------------------- nothing runs


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments, state=None, items=None, pairs=None):
        self.parts = (function, arguments, state, items and iter(items), pairs and iter(pairs))

    def __reduce__(self):
        return self.parts

    def __call__(self):
        """So that it may stand for a function."""


def attacks(mark):
    """Pickles of which each would make the file `mark`, if anything of it ran."""
    code = f"open({str(mark)!r}, 'w')"
    shell = Call(os.system, f"touch {mark}")
    yield from (shell, Call(eval, code), Call(exec, code), Call(open, str(mark), "w"), Call(pathlib.Path(mark).touch))
    yield Call(getattr(builtins, "__import__"), "this")  # noqa: B009
    yield Call(getattr, Call(__import__, "os"), "system")
    yield Call(Call(getattr, Call(__import__, "os"), "system"), f"touch {mark}")
    yield Call(functools.partial(eval, code))
    yield Call(copyreg._reconstructor, shutil.rmtree, object, None)
    yield Call(argparse.Namespace, state={"__class__": shell, "append": shell, "__setstate__": shell})
    yield Call(argparse.Namespace, state=(None, {"__setstate__": shell, "update": Call(eval, code)}))
    yield Call(argparse.Namespace, items=[shell], pairs=[(shell, Call(eval, code))])
    yield Call(torch.load, str(mark))
    yield Call(torch.storage._load_from_bytes, pickle.dumps(shell))
    yield Call(torch._utils._rebuild_tensor_v2, shell, 0, (2,), (1,), False, collections.OrderedDict())
    yield Call(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (code,), {})
    yield Call(torch.hub.load_state_dict_from_url, "http://localhost:1/x")
    yield Call(np.dtype, "O")
    yield Call(OBJECTS["array"].__reduce__()[0], shell, (0,), b"b", state=shell)


RAW = (
    b"cos\nsystem\n(S'touch MARK'\ntR.",
    b"(S'touch MARK'\nios\nsystem\n.",
    b"(cos\nsystem\nS'touch MARK'\no.",
    b"cos\nsystem\nS'touch MARK'\n\x85\x81.",
    b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'touch MARK'\ntR.",
    b"ctorch._utils\n_rebuild_tensor\nN}S'__code__'\ncbuiltins\neval\ns\x86b.",  # BUILD sets an attribute of a function
    b"ccollections\nOrderedDict\nN}S'x'\nK\x01s\x86b.",  # and of a class
    b"cargparse\nNamespace\nN}S'x'\nK\x01s\x86b.",
    b"cnumpy._core.multiarray\nscalar\nN}S'x'\nK\x01s\x86b.",
    b"\x80\x04\x8c\x0abuiltins.os\x8c\x06system\x93\x8c\x01x\x85R.",
    b"Pos.system\n.",
    b"\x82\x01.",
)


def archive_of(pickled):
    """A file of PyTorch whose content is that pickle."""
    file = io.BytesIO()
    torch.save({}, file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    return file.getvalue()


@pytest.mark.parametrize("raw", [b"Nr\0\0\0\x04.", b"N\x96" + (1 << 29).to_bytes(8, "little") + b"x."])
def test_a_pickle_takes_no_memory_that_it_only_names(raw, tmp_path):
    (tmp_path / "a.pth").write_bytes(archive_of(b"cx\ny\n" + raw))
    tracemalloc.start()
    with contextlib.suppress(Exception):
        load_inert(tmp_path / "a.pth")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def test_nothing_of_a_pickle_runs(tmp_path, monkeypatch):
    mark = tmp_path / "ran"

    def found(*_):
        raise AssertionError("a name of the file was looked up")

    before = [vars(torch._utils._rebuild_tensor).copy(), vars(StandIn).copy()]
    files = [archive_of(raw.replace(b"MARK", str(mark).encode())) for raw in RAW]
    for attack in attacks(mark):
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save({"w": torch.ones(2, 2), "x": attack}, file, _use_new_zipfile_serialization=zipped)
            files.append(file.getvalue())
    monkeypatch.setattr(os, "system", found)
    for content in files:
        (tmp_path / "a.pth").write_bytes(content)
        try:
            read, _ = load_inert(tmp_path / "a.pth")
        except Exception:
            continue
        assert not isinstance(read, dict) or "w" not in read or torch.equal(read["w"], torch.ones(2, 2))
    assert not mark.exists()
    assert before == [vars(torch._utils._rebuild_tensor), vars(StandIn)]
