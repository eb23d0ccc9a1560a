"""What every test may ask for: the golden numbers, the real photos, a clean generator."""

import functools
import json
import os
import zipfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker has a core: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton, which reads it then

# No test asks a hub, and none starts from what a developer has of it: a test of downloads has a server of its own.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HUB_CACHE"] = os.path.join(os.path.dirname(__file__), "no_hub")
os.environ.setdefault("CSL_ENGINE", "torch")  # exporting each small network anew takes longer than running it

# The same examples everywhere, however busy the machine: HYPOTHESIS_PROFILE=default looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A conftest.py of a folder would hide this one from the tests that import from it.
pytest_plugins = ["report_fixtures", "review_fixtures"]

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _abn_as_it_was():
    """--abn of a test is not the next one's."""
    yield
    from csl.ops import set_abn_backend  # after the variables above

    set_abn_backend("auto")


def golden(name):
    """Cases of tests/golden/NAME.json, and the arrays of NAME.npz (None where there is none)."""
    cases = json.loads((GOLDEN / f"{name}.json").read_text())
    arrays = GOLDEN / f"{name}.npz"
    return cases, np.load(arrays) if arrays.exists() else None


def real_data():
    """The folder of real photos: CSL_TEST_DATA, else ../shared/data beside the checkout."""
    return Path(os.environ.get("CSL_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """real("fashion80.zip") -> the unpacked folder, or the file itself; skips by name where it is missing."""
    unpacked = {}

    def find(name):
        source = real_data() / name
        if not source.exists():
            pytest.skip(f"real data not here: {name} (set CSL_TEST_DATA to the folder that holds it)")
        if source.suffix != ".zip":
            return source
        if name not in unpacked:
            folder = tmp_path_factory.mktemp(source.stem)
            with zipfile.ZipFile(source) as archive:
                archive.extractall(folder)
            inner = folder / source.stem
            unpacked[name] = inner if inner.is_dir() else folder
        return unpacked[name]

    return find


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """drawn(num_train, num_val, size) -> the folder of a drawn data set, made once: a test that changes it copies it."""
    from csl.garments import make_garments

    @functools.cache
    def draw(num_train, num_val, size):
        folder = tmp_path_factory.mktemp("garments") / "set"
        return make_garments(folder, num_train=num_train, num_val=num_val, size=size, progress=False)

    return draw


@pytest.fixture(scope="session")
def garments(drawn):
    """A small drawn data set. A file whose tests count steps or epochs on another size has a fixture of this name."""
    return drawn(20, 12, 48)


@pytest.fixture
def in_float32(monkeypatch):
    """A processor that does not compute in bf16, for what is compared to more digits than that has."""
    monkeypatch.setattr("csl.machine.precision.cpu_bf16", lambda: None)


@pytest.fixture
def no_pictures(monkeypatch):
    """Runs draw none: pictures take longer than the rest of a small run, and are tested elsewhere."""
    from killing import without_pictures

    for owner, name, nothing in without_pictures():
        monkeypatch.setattr(owner, name, nothing)


@pytest.fixture(scope="session")
def server():
    """A `killing.Server` of training processes that draw no pictures."""
    from killing import Server

    with Server(pictures=False) as started:
        yield started


@pytest.fixture
def triton():
    """InPlace-ABN and what stands beside it on Triton's kernels: on a GPU, else in Triton's interpreter; skips without."""
    from csl import InputError
    from csl.ops import resolve_backend, set_abn_backend

    pytest.importorskip("triton", reason="Triton is not installed")
    try:
        resolve_backend("triton", "cuda" if torch.cuda.is_available() else "cpu")
    except InputError as error:
        pytest.skip(str(error))
    set_abn_backend("triton")
    yield
    set_abn_backend("auto")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def short_run(garments, tmp_path):
    """short_run(folder, ...) trains a small network in the folder, two epochs of three steps; returns what was said."""

    def go(folder, **settings):
        from csl import TrainConfig, train

        said = []
        network = {"model_name": "test_resnet", "image_size": 32, "batch_size": 8, "augment": "none", "epochs": 2}
        machine = {"workers": 0, "device": "cpu", "path_dest": str(tmp_path / folder), "data": str(garments)}
        train(TrainConfig(**{**network, **machine, **settings}), said.append)
        return said

    return go
