"""csl.engines: what runs a checkpoint's network instead of PyTorch gives PyTorch's numbers, or PyTorch runs it."""

import json
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from csl import InputError, checkpoint
from csl.engines import choose_engine
from csl.engines.onnx_file import describe
from csl.garments import make_garments
from csl.inference.infer import infer
from csl.inference.options import InferenceOptions
from csl.models import create_model
from csl.predict import Predictor, find_images

pytest.importorskip("onnx")
CPU = torch.device("cpu")
CLASSES = 6


@pytest.fixture(params=["openvino", "onnx"])
def engine(request):
    pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}[request.param])
    return request.param


@pytest.fixture(autouse=True)
def _chosen_by_itself(monkeypatch, in_float32):
    monkeypatch.delenv("CSL_ENGINE", raising=False)


def write(path, seed=0):
    """A checkpoint of a small network whose probabilities differ."""
    torch.manual_seed(seed)
    model = create_model("test_resnet", num_classes=CLASSES).eval()
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if n.endswith("fc.weight")).mul_(30)
    content = {"model": model.state_dict(), "model_name": "test_resnet", "num_classes": CLASSES}
    checkpoint.write(path, content | {"config": {"image_size": 32}})
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint, exported and proved for the engines that are here."""
    path = write(tmp_path_factory.mktemp("made") / "best.ckpt")
    for name, package in (("openvino", "openvino"), ("onnx", "onnxruntime")):
        if find_spec(package):
            Predictor.load(path, engine=name, device="cpu", amp="off")
    return path


@pytest.fixture
def weights(made, tmp_path):
    """The same in a folder of the test's own."""
    return Path(shutil.copytree(made.parent, tmp_path / "run"), made.name)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return find_images(
        make_garments(tmp_path_factory.mktemp("g") / "set", num_train=1, num_val=8, size=48, progress=False)
    )


def streamed(predictor, photos):
    return np.concatenate([part.probabilities for part in predictor.stream(photos, batch_size=4, workers=0)])


def test_scores_are_pytorchs_in_batches_of_any_size_and_one_by_one(engine, weights, photos):
    ours, theirs = (Predictor.load(weights, engine=name) for name in (engine, "torch"))
    expected = theirs.score(photos, batch_size=4, workers=0).probabilities[0]
    assert expected.std() > 0.05
    assert len(photos) % 4
    for found in (
        ours.score(photos, batch_size=4, workers=0).probabilities[0],
        streamed(ours, photos),
        np.stack([ours.predict(photo) for photo in photos]),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_line_says_which_engine_and_infer_prints_it(weights, photos, tmp_path):
    said = []
    options = InferenceOptions(
        model_path=str(weights), pic_path=photos[0], output=str(tmp_path / "a.csv"), device="cpu"
    )
    infer(options, said.append)
    (line,) = [line for line in said if line.startswith("engine: ")]
    assert "in float32, equal to PyTorch's to" in line
    assert str(weights.parent / "engines") in line
    assert Predictor.load(weights, engine="torch").engine_line == "engine: PyTorch (as asked for)"


def kept(weights):
    return sorted(weights.parent.glob("engines/*.onnx"))


def test_an_export_is_made_and_proved_once_for_each_content_and_size(weights):
    pytest.importorskip("onnxruntime")
    (file,) = kept(weights)
    record = file.with_suffix(".json")
    proofs = json.loads(record.read_text())["proofs"]
    assert all(found <= 1e-4 for found in proofs.values())
    assert any("ONNX Runtime" in engine for engine in proofs)
    written = file.stat().st_mtime_ns, record.stat().st_mtime_ns
    Predictor.load(weights, engine="onnx")
    assert (file.stat().st_mtime_ns, record.stat().st_mtime_ns) == written
    Predictor.load(weights, engine="onnx", image_size=(32, 48))
    assert len(kept(weights)) == 2
    write(weights, seed=1)
    Predictor.load(weights, engine="onnx")
    assert file not in kept(weights)
    assert not record.exists()
    assert len(kept(weights)) == 2


@pytest.mark.parametrize("damage", ["file", "record"])
def test_a_damaged_export_is_made_anew(weights, photos, damage):
    pytest.importorskip("onnxruntime")
    expected = Predictor.load(weights, engine="onnx").predict(photos[0])
    (file,) = kept(weights)
    whole = file.stat().st_size
    broken = file if damage == "file" else file.with_suffix(".json")
    broken.write_bytes(broken.read_bytes()[:-20])
    found = Predictor.load(weights, engine="onnx")
    assert file.stat().st_size == whole
    np.testing.assert_allclose(found.predict(photos[0]), expected, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])  # with two, a second session is opened at the first photo
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_where_the_folder_cannot_be_written_nothing_is_kept(weights, photos, engine, threads):
    pytest.importorskip({"onnx": "onnxruntime"}.get(engine, engine))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    shutil.rmtree(weights.parent / "engines")
    (weights.parent / "engines").write_text("no folder")
    try:
        found = Predictor.load(weights, engine=engine)
        assert "cannot be written" in found.engine_line
        expected = Predictor.load(weights, engine="torch").score(photos, workers=0).probabilities[0]
        np.testing.assert_allclose(streamed(found, photos), expected, atol=1e-4)
    finally:
        torch.set_num_threads(before)


def test_bf16_is_openvinos_and_as_near_as_pytorchs(weights, photos):
    pytest.importorskip("openvino")
    exact = Predictor.load(weights, engine="torch", device="cpu").score(photos, workers=0).probabilities[0]
    found = Predictor.load(weights, amp="bf16", device="cpu")
    assert "OpenVINO" in found.engine
    assert "in bf16" in found.engine
    assert np.abs(streamed(found, photos) - exact).max() < 0.05


def test_onnx_runtime_is_not_asked_for_bf16(weights):
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match="--engine onnx: ONNX Runtime .* computes in float32 on a CPU, not in bf16"):
        Predictor.load(weights, amp="bf16", engine="onnx", device="cpu")


def test_onnx_runtime_by_name_has_float32_where_auto_would_be_bf16(weights, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("csl.machine.precision.cpu_bf16", lambda: "avx512_bf16")
    found = Predictor.load(weights, engine="onnx", device="cpu")
    assert "ONNX Runtime" in found.engine
    assert "in float32" in found.engine
    assert found.amp == "off"


def test_what_only_pytorch_has(tmp_path):
    model = create_model("tresnet_m", num_classes=2)
    path = tmp_path / "best.ckpt"
    checkpoint.write(path, {"model": model.state_dict(), "model_name": "tresnet_m", "num_classes": 2})
    line = Predictor.load(path, image_size=32, abn="torch", device="cpu").engine_line
    assert line == "engine: PyTorch (InPlace-ABN is kept as layers)"
    with pytest.raises(InputError, match="--engine onnx: InPlace-ABN is kept as layers"):
        Predictor.load(path, image_size=32, abn="torch", device="cpu", engine="onnx")


def test_what_looks_into_the_network_has_pytorch(weights, photos, tmp_path):
    said = []
    options = InferenceOptions(model_path=str(weights), pic_path=photos[0], path_dest=str(tmp_path), heatmap=True)
    infer(options, said.append)
    assert "engine: PyTorch (--heatmap looks into the network)" in said
    with pytest.raises(InputError, match="--engine onnx: --heatmap looks into the network, expected torch"):
        infer(replace(options, engine="onnx"), said.append)


class Untranslated(nn.Module):
    """Has an operator that ONNX lacks."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.linalg.svdvals(x.mean(1))[:, :CLASSES]


class Counting(nn.Module):
    """Does something else for a single image, which a trace of two does not show."""

    def forward(self, x):
        return x.mean((2, 3)).repeat(1, 2) * (2.0 if len(x) == 1 else 1.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("network", "why"), [(Untranslated(), "cannot be exported"), (Counting(), "other numbers than PyTorch's, by ")]
)
def test_a_network_that_an_engine_cannot_run_stays_with_pytorch(engine, weights, network, why):
    description = describe(checkpoint.load_model(weights)[1])
    shutil.rmtree(weights.parent / "engines")
    with pytest.raises(InputError, match=f"--engine {engine}: .*{why}"):
        choose_engine(engine, network, network, weights, description, CPU)
    calls = getattr(network, "calls", None)
    with pytest.raises(InputError, match=f"--engine {engine}: .*{why}"):  # as remembered
        choose_engine(engine, network, network, weights, description, CPU)
    assert getattr(network, "calls", None) == calls
    if engine == "openvino":  # the first of both
        found = choose_engine("auto", network, network, weights, description, CPU)
        assert found.network is network
        assert found.line.startswith("engine: PyTorch (")
        assert why in found.line
        assert "\n" not in found.line


def test_without_an_engine_pytorch_runs_it(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert Predictor.load(weights, device="cpu").engine_line == (
        "engine: PyTorch (no other engine is installed: pip install openvino onnx)"
    )
    with pytest.raises(InputError, match="--engine openvino: OpenVINO is not installed .*: pip install openvino onnx"):
        Predictor.load(weights, engine="openvino", device="cpu")


def test_the_variable_says_what_auto_is(weights, monkeypatch):
    monkeypatch.setenv("CSL_ENGINE", "torch")
    assert Predictor.load(weights).engine == "PyTorch"
    monkeypatch.setenv("CSL_ENGINE", "tensorrt")
    with pytest.raises(InputError, match="CSL_ENGINE tensorrt: unknown, expected one of auto, torch, openvino, onnx"):
        Predictor.load(weights)
    assert Predictor.load(weights, engine="torch").engine == "PyTorch"
    with pytest.raises(InputError, match="--engine tensorrt: unknown"):
        Predictor.load(weights, engine="tensorrt")


def test_an_exported_file_runs_in_either_engine(engine, weights, photos):
    found = Predictor.load(kept(weights)[0], engine=engine)
    expected = Predictor.load(weights, engine="torch").score(photos, workers=0).probabilities[0]
    np.testing.assert_allclose(streamed(found, photos), expected, atol=1e-4)
    with pytest.raises(InputError, match="--engine torch: .* is exported, expected openvino, onnx, or a checkpoint"):
        Predictor.load(kept(weights)[0], engine="torch")
    broken = Path(weights.parent, "broken.onnx")
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="not a network that"):
        Predictor.load(broken, engine=engine)
