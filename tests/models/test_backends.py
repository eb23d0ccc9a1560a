"""--abn, --sync_abn and --compile of the three scripts: what they say, what they refuse, what they leave as it is."""

from importlib.util import find_spec

import pytest
import torch

import csl.models.compiling
import csl.training.preflight
from csl import InputError
from csl.models import create_model
from csl.models.abn import InPlaceABN, describe_abn
from csl.models.compiling import compile_network
from csl.models.tresnet import TResNet, TResNetConfig
from csl.ops import get_abn_backend, set_abn_backend
from csl.predict import Predictor
from csl.runs.config import TrainConfig
from csl.training.experiment import train


@pytest.fixture
def eager(monkeypatch):
    """torch.compile with graphs captured and no code generated, which takes minutes."""
    compiled = torch.compile

    def captured(model, *args, **kwargs):
        return compiled(model, *args, **{**kwargs, "backend": "eager"})

    monkeypatch.setattr(torch, "compile", captured)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda m: setattr(m, "_compiled_call_impl", captured(m._call_impl)))
    csl.models.compiling._obstacle.cache_clear()
    yield
    csl.models.compiling._obstacle.cache_clear()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of a TResNet-M."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    torch.save({"model": create_model("tresnet_m", num_classes=3).state_dict()}, path)
    return path


def test_one_line_says_what_runs_and_why():
    model = TResNet(TResNetConfig((1, 1, 1, 1), width=0.15), 3)
    assert describe_abn(model, "cpu") == "InPlace-ABN: torch (Triton needs a CUDA device, not cpu)"
    set_abn_backend("torch")
    assert describe_abn(model, "cpu") == "InPlace-ABN: torch (as asked)"
    assert describe_abn(torch.nn.Linear(2, 2), "cpu") is None


def test_a_backend_that_does_not_run_is_one_line(weights):
    for name in ("cudnn", *(["inplace-abn"] if find_spec("inplace_abn") is None else [])):
        with pytest.raises(InputError, match=rf"--abn {name}: .*expected"):
            Predictor.load(weights, abn=name, device="cpu")
        with pytest.raises(InputError, match=rf"--abn {name}: .*expected"):
            train(TrainConfig(data="nowhere", abn=name, device="cpu"))


def test_named_backend_keeps_the_layers_and_the_scores(weights):
    fused, layers = Predictor.load(weights, device="cpu"), Predictor.load(weights, abn="torch", device="cpu")
    assert fused.abn is None
    assert layers.abn == "InPlace-ABN: torch (as asked)"
    assert get_abn_backend() == "torch"
    kinds = [any(isinstance(m, InPlaceABN) for m in p.model.modules()) for p in (fused, layers)]
    assert kinds == [False, True]
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(layers.model(x), fused.model(x), rtol=1e-3, atol=1e-5)


def test_compiled_network_keeps_its_names_and_its_numbers(eager):
    torch.manual_seed(0)
    model = TResNet(TResNetConfig((1, 1, 1, 1), width=0.15), 3).eval()
    x = torch.rand(2, 3, 32, 32)
    names = list(model.state_dict())
    with torch.inference_mode():
        plain = model(x)
        assert compile_network(model, "cpu") is model
        assert model._compiled_call_impl is not None
        torch.testing.assert_close(model(x), plain, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names
    assert not any("_orig_mod" in name for name in names)


def test_without_a_compiler_it_is_one_line(monkeypatch):
    csl.models.compiling._obstacle.cache_clear()

    def broken(function):
        def call(x):
            raise RuntimeError("No working C++ compiler found\nlong story")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError) as error:
        compile_network(torch.nn.Linear(2, 2), "cpu")
    csl.models.compiling._obstacle.cache_clear()
    message = str(error.value)
    assert message.startswith("--compile: torch.compile does not work here (RuntimeError: No working C++ compiler")
    assert "\n" not in message


def small(garments, folder, **more):
    return TrainConfig(
        data=str(garments), path_dest=str(folder), model_name="test_resnet", image_size=32, epochs=1, batch_size=12,
        workers=0, device="cpu", augment="none", **more,
    )  # fmt: skip


def test_training_compiled_is_the_same_training(eager, no_pictures, garments, tmp_path):
    found = []
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        train(small(garments, folder, compile=compiled), lambda line: None)
        written = torch.load(folder / "last.ckpt", weights_only=False)
        for state in (written["model"], written["ema"]["state"]):
            assert not any("_orig_mod" in key for key in state)
        found.append((written["model"], (folder / "log.jsonl").read_text()))
    assert found[0][0].keys() == found[1][0].keys()
    for key, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][key], value, rtol=1e-4, atol=1e-4)
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        plain, compiled = (
            Predictor.load(folder / "last.ckpt", device="cpu", compile=c).model(x) for c in (False, True)
        )
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-5)


def test_nothing_is_moved_where_a_flag_cannot_be_had(monkeypatch, garments, tmp_path):
    (tmp_path / "log.jsonl").write_text("an earlier run")

    def refuse(device):
        raise InputError("--compile: no compiler")

    monkeypatch.setattr(csl.training.preflight, "check_compiler", refuse)
    with pytest.raises(InputError, match="--compile: no compiler"):
        train(small(garments, tmp_path, compile=True), lambda line: None)
    assert (tmp_path / "log.jsonl").read_text() == "an earlier run"


def test_synchronised_statistics_need_layers_that_have_them(monkeypatch, tmp_path):
    said = []
    csl.training.preflight.check_backends(
        create_model("tresnet_m", 3), small(tmp_path, tmp_path, sync_abn=True), said.append
    )
    assert said[-1] == "--sync_abn: one process, whose batch statistics are its own in any case"
    with pytest.raises(InputError, match="--sync_abn changes nothing with --model_name test_resnet"):
        train(small(tmp_path, tmp_path, sync_abn=True), said.append)
    monkeypatch.setattr("csl.machine.distributed.world_size", lambda: 2)
    config = small(tmp_path, tmp_path, sync_abn=True)
    with pytest.raises(InputError, match="--sync_abn: test_resnet with --abn auto, expected a TResNet"):
        csl.training.preflight.check_backends(create_model("test_resnet", 3), config, print)
