"""Exported files behind infer.py and validate.py: the scores of the checkpoint that they were made from."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from csl import InputError, checkpoint
from csl.engines.onnx_network import OnnxNetwork
from csl.export import ExportOptions, export
from csl.garments import make_garments
from csl.inference.validate import evaluate
from csl.labels import read_annotations
from csl.models import create_model
from csl.predict import Predictor, find_images, name_scores
from csl.predict.streaming import copies

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a checkpoint of a small network, two .onnx files made of it, and drawn garments."""
    folder = tmp_path_factory.mktemp("run")
    data = make_garments(folder / "set", num_train=4, num_val=9, size=48, progress=False)
    annotations = read_annotations(data, split="val")
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=len(annotations.classes)).eval()
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if n.endswith("fc.weight")).mul_(30)
    content = {
        "model": model.state_dict(), "model_name": "test_resnet", "num_classes": len(annotations.classes),
        "classes": list(annotations.classes), "config": {"image_size": 32, "data": str(data)},
        "groups": {name: [group.start, group.stop] for name, group in annotations.groups.items()},
    }  # fmt: skip
    checkpoint.write(folder / "best.ckpt", content)
    for options in ({"format": "onnx"}, {"format": "onnx", "sigmoid": True, "out": str(folder / "sigmoid.onnx")}):  # fmt: skip
        export(ExportOptions(model_path=str(folder / "best.ckpt"), **options), lambda line: None)
    return folder


FILES = ["best.onnx", "sigmoid.onnx"]


@pytest.mark.parametrize("file", FILES)
def test_scores_equal_the_checkpoints(run, file):
    ours, theirs = Predictor.load(run / file), Predictor.load(run / "best.ckpt", amp="off")
    assert (ours.classes, ours.groups, ours.image_size) == (theirs.classes, theirs.groups, 32)
    images = find_images(run / "set" / "images")
    a, b = (p.score(images, batch_size=4, workers=0) for p in (ours, theirs))
    assert b.probabilities.std() > 0.05
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-5)
    streamed = np.concatenate([s.probabilities for s in ours.stream(images, batch_size=4, workers=0)])
    np.testing.assert_allclose(streamed, b.probabilities[0], atol=1e-5)


def script(name, *args, **options):
    return subprocess.run([sys.executable, str(ROOT / f"{name}.py"), *map(str, args)], capture_output=True, text=True,
                          timeout=600, **options)  # fmt: skip


def test_the_scripts_run_an_exported_file(run, tmp_path):
    theirs = Predictor.load(run / "best.ckpt", device="cpu", amp="off")
    result = script("infer", "--model_path", run / "best.onnx", "--pic_path", run / "set" / "images", "--path_dest",
                    tmp_path, "--th=0.5", "--input_size=32", "-j0", "--device=cpu")  # fmt: skip
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "results" / "predictions.csv")
    images = find_images(run / "set" / "images")
    probabilities = theirs.score(images, workers=0).probabilities[0]
    named = [
        (i, p)
        for i, row in zip(images, probabilities, strict=True)
        for p in name_scores(row, theirs.classes, theirs.groups, 0.5)
    ]
    assert list(zip(table.filename, table["class"], strict=True)) == [(image, p.name) for image, p in named]
    np.testing.assert_allclose(table.score, [p.score for _, p in named], atol=1e-5)

    result = script(
        "validate", "--model-path", run / "best.onnx", run / "set", "--path_dest", tmp_path, "-j0", "--device=cpu"
    )
    assert result.returncode == 0, result.stderr
    expected = evaluate(theirs, read_annotations(run / "set", split="val"), workers=0)
    np.testing.assert_allclose(pd.read_csv(tmp_path / "validation.csv").AP, expected.classes.AP, atol=1e-3)


def test_another_size_and_copies_on_one_thread(run):
    network = OnnxNetwork(run / "best.onnx", (40, 56), threads=2)
    x = torch.rand(3, 3, 40, 56).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = checkpoint.load_model(run / "best.ckpt")[0](x)
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        others = copies(network, torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    assert len(others) == 2
    for other in others:
        torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-4)


def test_refused_in_one_line(run, tmp_path):
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    (tmp_path / "broken.onnx").write_bytes(b"nothing of the kind")
    (tmp_path / "broken.pt2").write_bytes(b"nothing of the kind")
    ends = [helper.make_tensor_value_info(n, number, s) for n, s in (("images", [1, 3, 8, 8]), ("y", [1, 192]))]
    graph = helper.make_graph([helper.make_node("Flatten", ["images"], ["y"])], "foreign", ends[:1], ends[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "foreign.onnx"
    )
    content = onnx.load(run / "best.onnx")
    for entry in content.metadata_props:
        if entry.key == "classes":
            entry.value = '["cat", "dog"]'
    onnx.save(content, tmp_path / "classes.onnx")
    for file, options, message in (
        (tmp_path / "none.onnx", {}, "no such file"),
        (tmp_path / "broken.onnx", {}, "not a network that ONNX Runtime reads"),
        (tmp_path / "broken.pt2", {}, r".pt2 files do not run here, use the .onnx file or the checkpoint"),
        (tmp_path / "foreign.onnx", {}, "classes and preprocessing are not in it"),
        (tmp_path / "classes.onnx", {}, "2 class names for 18 classes"),
        (run / "best.onnx", {"num_classes": 3}, "--num_classes 3: .* has 18 classes"),
        (run / "best.onnx", {"model_name": "tresnet_m"}, "--model_name tresnet_m: .* holds test_resnet"),
        (run / "best.onnx", {"amp": "bf16"}, "--amp bf16: .* is exported and runs as it is"),
        (run / "best.onnx", {"compile": True}, "--compile: .* is exported"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            Predictor.load(file, **options)
        assert "\n" not in str(caught.value)


def test_without_onnxruntime_the_error_says_what_to_install(run, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')\n")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from csl.cli import infer; from csl.cli.parsing import run;"
    code += "sys.exit(run(infer.main, infer.parser(), sys.argv[2:]))"
    args = [
        str(tmp_path), "--model_path", str(run / "best.onnx"), "--pic_path", str(run / "set"), "--engine", "onnx",
    ]  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=300)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "pip install onnx onnxruntime onnxscript" in result.stderr


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="has CUDA")
def test_a_gpu_that_onnxruntime_does_not_have(run):
    with pytest.raises(InputError, match="this ONNX Runtime has no CUDA.*onnxruntime-gpu"):
        OnnxNetwork(run / "best.onnx", device="cuda")
