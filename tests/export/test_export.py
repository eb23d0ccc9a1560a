"""csl.export: the file that is written gives PyTorch's numbers, says what it is, and is not there if anything is wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import images, set_golden_weights
from PIL import Image

from csl import InputError, checkpoint
from csl.engines.form import ExportForm
from csl.export import ExportOptions, export
from csl.export.int8 import quantise
from csl.labels.class_set import ClassSet
from csl.models import create_model
from csl.models.description import Architecture, Description
from csl.models.tresnet import TResNet, TResNetConfig

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = ["Neck 0", "Neck 1", "Neck 2", "colour:grün", "dog"]
GROUPS = {"neck": [0, 3]}
KEYS = {i: f"/m/{i}" for i in range(5)}
FAMILIES = {  # narrow and shallow ones of each family: basic blocks first, and bottlenecks from the first stage on
    "m": TResNetConfig((2, 1, 2, 1), width=0.25),
    "xl": TResNetConfig((1, 2, 2, 2), width=0.25 * 1.3),
    "l_v2": TResNetConfig((1, 1, 2, 1), width=0.25, basic_stages=0, stem_slope=1e-6, slope=1e-6),
}
HEADS = [("linear", None), ("bottleneck", None), ("hidden", None), ("ml_decoder", 3), ("boostlu", None)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of noise, in which no two photos are alike."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize((80, 60), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint of a small network of timm, as a run would leave it."""
    path = tmp_path_factory.mktemp("tiny") / "best.ckpt"
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=5).eval()
    with torch.no_grad():  # logits of some size: a test against zeros would pass whatever comes
        next(p for n, p in model.named_parameters() if n.endswith("fc.weight")).mul_(30)
    content = {
        "model_name": "test_resnet",
        "num_classes": 5,
        "classes": CLASSES,
        "groups": GROUPS,
        "idx_to_class": KEYS,
    }
    checkpoint.write(path, {"model": model.state_dict(), **content, "config": {"image_size": (64, 48)}})
    return path


def logits(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def write_onnx(form, path):
    names = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        form, (torch.rand(2, 3, 36, 36),), str(path), dynamo=False, opset_version=17, input_names=["images"],
        output_names=["logits"], dynamic_axes={"images": names, "logits": {0: "batch"}},
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("head", "groups"), HEADS)
def test_every_family_and_head_gives_its_logits_at_any_batch_and_size(tmp_path, family, head, groups):
    model = set_golden_weights(TResNet(FAMILIES[family], 7, head, groups)).eval()
    form = ExportForm(model)
    write_onnx(form, tmp_path / "network.onnx")
    for batch, height, width in ((1, 36, 36), (3, 20, 56), (2, 44, 24)):
        x = images(batch, batch, (height, width))
        with torch.no_grad():
            expected = model(x)
            torch.testing.assert_close(form(x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        found = logits(tmp_path / "network.onnx", x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_form_leaves_the_network_alone():
    model = create_model("test_resnet", num_classes=4, head="ml_decoder").eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    form, x = ExportForm(model, sigmoid=True), images(1, 2, 64)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(form(x), model(x).sigmoid(), rtol=1e-4, atol=1e-5)


def test_an_earlier_file_is_moved_aside_once_there_is_another(tiny, tmp_path):
    out, said = tmp_path / "w.safetensors", []
    options = ExportOptions(model_path=str(tiny), format="safetensors", out=str(out))
    out.write_text("of another network")
    export(options, said.append)
    (aside,) = tmp_path.glob("earlier-*")
    assert (aside / out.name).read_text() == "of another network"
    assert [line for line in said if "is now in" in line] == [f"the file that was {out} is now in {aside}"]
    out.write_text("mine")
    with pytest.raises(InputError, match="--num_classes 6"):
        export(replace(options, num_classes=6))
    assert out.read_text() == "mine"


@pytest.mark.parametrize("sigmoid", [False, True])
def test_onnx_of_a_checkpoint(tiny, photos, tmp_path, sigmoid):
    out, said = tmp_path / "network.onnx", []
    assert (
        export(ExportOptions(model_path=str(tiny), out=str(out), sigmoid=sigmoid, check=str(photos)), said.append)
        == out
    )
    assert "any batch and image size" in said[-1]
    assert f"6 of {photos}" in said[-1]
    model, x = checkpoint.load_model(tiny)[0], images(2, 3, (64, 48))
    with torch.no_grad():
        expected = model(x)
    assert expected.std() > 0.5
    found = logits(out, x)
    torch.testing.assert_close(found, expected.sigmoid() if sigmoid else expected, rtol=1e-4, atol=1e-4)
    onnx.checker.check_model(str(out), full_check=True)
    graph = onnx.load(str(out)).graph
    assert [d.dim_param for d in graph.input[0].type.tensor_type.shape.dim if d.dim_param] == [
        "batch",
        "height",
        "width",
    ]


def test_metadata_says_all_that_a_program_needs(tiny, photos, tmp_path):
    export(ExportOptions(model_path=str(tiny), out=str(tmp_path / "a.onnx"), check=str(photos)), lambda line: None)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    found = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    version = found.pop("version")
    assert version.count(".") >= 1
    preprocessing = found.pop("preprocessing")
    assert (preprocessing["layout"], preprocessing["range"], preprocessing["mean"]) == ("NCHW", [0, 1], None)
    assert found == {
        "format": "csl-export-1", "model_name": "test_resnet", "head": "linear", "num_classes": 5, "classes": CLASSES,
        "keys": list(KEYS.values()), "groups": GROUPS, "image_size": [64, 48], "output": "logits", "precision": "float32",
    }  # fmt: skip


def test_a_transformer_has_one_size(tmp_path, photos):
    model = create_model("test_vit", num_classes=2)
    checkpoint.write(tmp_path / "w.ckpt", {"model": model.state_dict(), "model_name": "test_vit", "num_classes": 2})
    said = []
    options = ExportOptions(model_path=str(tmp_path / "w.ckpt"), image_size=96, check=str(photos))
    out = export(options, said.append)
    assert "any batch of 96x96 pixels" in said[-1]
    dims = onnx.load(str(out)).graph.input[0].type.tensor_type.shape.dim
    assert [(d.dim_param, d.dim_value) for d in dims] == [("batch", 0), ("", 3), ("", 96), ("", 96)]


def test_safetensors_are_the_checkpoint_bit_for_bit(tiny, tmp_path):
    out = export(
        ExportOptions(model_path=str(tiny), format="safetensors", out=str(tmp_path / "w.safetensors")), lambda _: None
    )
    model, found = checkpoint.load_model(out)
    expected = checkpoint.read(tiny)
    assert found.state_dict.keys() == expected.state_dict.keys()
    assert all(torch.equal(v, expected.state_dict[k]) for k, v in found.state_dict.items())
    assert (found.model_name, found.classes, found.groups) == ("test_resnet", CLASSES, {"neck": slice(0, 3)})
    assert found.extra["idx_to_class"] == {str(k): v for k, v in KEYS.items()}
    assert list(found.extra["config"]["image_size"]) == [64, 48]
    assert not model.training


def test_pt2_of_a_checkpoint(tiny, photos, tmp_path):
    out = export(
        ExportOptions(model_path=str(tiny), format="pt2", out=str(tmp_path / "n.pt2"), check=str(photos)),
        lambda _: None,
    )
    model, x = checkpoint.load_model(tiny)[0], images(2, 5, (64, 48))
    extra = {"csl.json": ""}
    program = torch.export.load(str(out), extra_files=extra)
    assert json.loads(json.loads(extra["csl.json"])["classes"]) == CLASSES
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-4)


class Wrong(ExportForm):
    """An export that loses a digit: what an operator with another meaning in another program would do."""

    def forward(self, x):
        y = super().forward(x)
        return y * 1.001 if torch.jit.is_tracing() else y


def test_a_file_with_other_numbers_is_an_error_and_leaves_nothing(tiny, photos, tmp_path, monkeypatch):
    out = tmp_path / "network.onnx"
    out.write_bytes(b"the one before")
    monkeypatch.setattr("csl.export.command.ExportForm", Wrong)
    with pytest.raises(InputError, match=r"other numbers than PyTorch on 6 of .*expected at most 0\.0001"):
        export(ExportOptions(model_path=str(tiny), out=str(out), check=str(photos)), lambda line: None)
    assert out.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [out]


def test_without_a_photo_garments_are_drawn(tiny, tmp_path):
    said = []
    export(ExportOptions(model_path=str(tiny), out=str(tmp_path / "n.onnx"), image_size=32), said.append)
    assert "16 of drawn garments" in said[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"format": "tflite"}, "--format tflite: unknown, expected one of onnx, pt2, safetensors"),
        ({"format": "pt2", "int8": True, "calibrate": "."}, "--int8: expected --format onnx"),
        ({"int8": True}, "--int8: expected --calibrate FOLDER"),
        ({"calibrate": "."}, "--calibrate: expected only with --int8"),
        ({"format": "safetensors", "sigmoid": True}, "--sigmoid: safetensors holds weights"),
        ({"out": "network.bin"}, "--out network.bin: expected a name that ends in .onnx"),
        ({"model_path": "nothing.ckpt"}, "nothing.ckpt: no such file"),
    ],
)
def test_flags_that_make_no_sense(tiny, flags, message):
    with pytest.raises(InputError, match=message):
        export(ExportOptions(**{"model_path": str(tiny), **flags}), lambda line: None)


def described(name, count, size):
    classes = ClassSet([f"c{i}" for i in range(count)], ["k"] * count)
    return Description(Architecture(name, "linear", count), classes, size, precision="int8")


@pytest.mark.filterwarnings("ignore")
def test_int8_of_a_small_tresnet_ranks_as_float32_does(tmp_path):
    model = set_golden_weights(TResNet(FAMILIES["m"], 7)).eval()
    write_onnx(ExportForm(model), tmp_path / "float32.onnx")
    x = torch.rand(12, 3, 3, 4, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(x, (36, 36), mode="bicubic").clamp(0, 1)
    description = described("tresnet_m", 7, 36)
    quantise(tmp_path / "float32.onnx", tmp_path / "int8.onnx", lambda: (one[None].numpy() for one in x), description)
    found, expected = logits(tmp_path / "int8.onnx", x), logits(tmp_path / "float32.onnx", x)
    assert not torch.equal(found, expected)
    spread = (expected - expected.mean(0)).square().mean().sqrt()  # what tells one photo from another
    assert (found - expected).square().mean().sqrt() < 0.3 * spread
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    weights = [kind for name, kind in stored.items() if name.endswith("_quantized")]
    assert len(weights) > 10
    assert onnx.TensorProto.INT8 in weights
    assert {node.op_type for node in graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Conv"}
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "float32.onnx").stat().st_size


def test_convolutions_that_share_a_bias_become_int8_all_the_same(tmp_path):
    torch.manual_seed(0)
    convolutions = [torch.nn.Conv2d(*channels, 3, padding=1) for channels in ((3, 8), (8, 8), (8, 8), (8, 8))]
    for conv in convolutions:
        torch.nn.init.zeros_(conv.bias)  # which the exporter stores once
    network = torch.nn.Sequential(*convolutions, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    x = torch.rand(4, 3, 16, 16)
    path = tmp_path / "float32.onnx"
    torch.onnx.export(network, (x,), str(path), dynamo=False, input_names=["images"], output_names=["logits"])
    description = described("any", 8, 16)
    quantise(path, tmp_path / "int8.onnx", lambda: (x.numpy() for _ in range(2)), description)
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    inputs = [[makers.get(name) for name in node.input] for node in graph.node if node.op_type == "Conv"]
    assert inputs[1:] == [["DequantizeLinear"] * 3] * 3  # which ONNX Runtime makes one operator of
    torch.testing.assert_close(logits(tmp_path / "int8.onnx", x), network(x).detach(), atol=0.02, rtol=0)


def test_int8_prints_the_map_before_and_after(tmp_path, photos):
    from csl.garments import make_garments
    from csl.labels import read_annotations

    data = make_garments(tmp_path / "set", num_train=4, num_val=12, size=48, progress=False)
    annotations = read_annotations(data, split="val")
    torch.manual_seed(0)
    model = create_model("test_resnet", num_classes=len(annotations.classes))
    content = {
        "model": model.state_dict(), "model_name": "test_resnet", "num_classes": len(annotations.classes),
        "classes": list(annotations.classes), "config": {"image_size": 32},
        "groups": {name: [group.start, group.stop] for name, group in annotations.groups.items()},
    }  # fmt: skip
    checkpoint.write(tmp_path / "w.ckpt", content)
    said = []
    options = ExportOptions(
        model_path=str(tmp_path / "w.ckpt"), int8=True, calibrate=str(photos), data=str(data), workers=0
    )
    out = export(options, said.append)
    assert out.name == "w.int8.onnx"
    assert [line.split()[:2] for line in said if line.startswith("mAP")] == [["mAP", "float32"], ["mAP", "int8"]]
    assert "calibrated on 6 of" in said[-1]
    assert "on 12 images of" in said[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "w.ckpt", "w.int8.onnx"]
