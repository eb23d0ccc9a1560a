"""csl.checkpoint: every format in the wild, and nothing executed."""

import argparse
import json
import pickle
import re
import signal
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from csl import InputError, checkpoint
from csl.errors import MachineError
from csl.models import create_model
from csl.models.recognition import recognise


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("tresnet_m", num_classes=6)


@pytest.fixture(scope="module")
def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def without_counters(state):
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def wrapped(state, prefix):
    return {prefix + k: v for k, v in state.items()}


FORMATS = {
    "release": lambda s: {"model": s, "num_classes": 6, "idx_to_class": {i: f"/m/{i}" for i in range(6)}},
    "release of old NumPy": lambda s: {
        "model": s, "num_classes": np.int64(6), "idx_to_class": {np.int64(i): np.str_(f"/m/{i}") for i in range(6)},
    },
    "model": lambda s: {"model": s},
    "state_dict": lambda s: {"state_dict": s},
    "bare": lambda s: s,
    "DataParallel": lambda s: {"model": wrapped(s, "module.")},
    "compiled and wrapped": lambda s: wrapped(s, "module._orig_mod."),
    "old inplace-abn": lambda s: {"state_dict": without_counters(s)},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_network(name, model, state, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(FORMATS[name](state), path)
    loaded, read = checkpoint.load_model(path)
    assert (read.model_name, read.head, read.num_classes) == ("tresnet_m", "linear", 6)
    if name.startswith("release"):
        assert read.classes == [f"/m/{i}" for i in range(6)]
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x), model.eval()(x))


def test_safetensors_with_and_without_metadata(state, tmp_path):
    save_file(state, tmp_path / "plain.safetensors")
    assert checkpoint.load_model(tmp_path / "plain.safetensors")[1].model_name == "tresnet_m"
    save_file(
        state, tmp_path / "named.safetensors", metadata={"classes": json.dumps(list("abcdef")), "note": "free text"}
    )
    assert checkpoint.read(tmp_path / "named.safetensors").classes == list("abcdef")


@pytest.mark.parametrize("name", ["tresnet_m", "tresnet_l", "tresnet_xl", "tresnet_l_v2"])
@pytest.mark.parametrize("head", ["linear", "bottleneck", "hidden", "ml_decoder", "boostlu"])
def test_tensors_tell_network_and_head(name, head):
    with torch.device("meta"):
        state = create_model(name, num_classes=11, head=head, num_groups=4).state_dict()
    assert recognise(state) == (name, head, 11, 4 if head == "ml_decoder" else None)


def test_backbone_loads_all_but_the_head_and_counts(state, tmp_path):
    torch.save({"state_dict": state}, tmp_path / "backbone.pth")
    other = create_model("tresnet_m", num_classes=9, bottleneck_head=True)
    before = other.head.fc.FC.weight.clone()
    line = checkpoint.load_backbone(other, checkpoint.read(tmp_path / "backbone.pth"))
    assert "432 tensors loaded, 2 skipped (the head among them), 0 missing" in line
    assert torch.equal(other.body.conv1[0].weight, state["body.conv1.0.weight"])
    assert torch.equal(other.head.fc.FC.weight, before)
    with pytest.raises(InputError, match="holds tresnet_m, not this one"):
        checkpoint.load_backbone(create_model("resnet18", num_classes=9), checkpoint.read(tmp_path / "backbone.pth"))


def test_timm_network_round_trip(tmp_path):
    net = create_model("resnet18", num_classes=5)
    checkpoint.write(tmp_path / "ours.ckpt", {"model": net.state_dict(), "model_name": "resnet18", "num_classes": 5})
    assert checkpoint.load_model(tmp_path / "ours.ckpt")[1].model_name == "resnet18"
    torch.save(net.state_dict(), tmp_path / "foreign.pth")
    with pytest.raises(InputError, match="give its --model_name"):
        checkpoint.load_model(tmp_path / "foreign.pth")
    assert checkpoint.load_model(tmp_path / "foreign.pth", "resnet18")[1].num_classes == 5
    other = create_model("resnet18", num_classes=3)
    assert "2 skipped" in checkpoint.load_backbone(other, checkpoint.read(tmp_path / "foreign.pth"))


def test_mismatches_name_what_disagrees(state, tmp_path):
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(InputError, match=r"--num_classes 80: .*m\.pth has 6 classes"):
        checkpoint.load_model(tmp_path / "m.pth", num_classes=80)
    with pytest.raises(InputError, match="--model_name tresnet_l: .* holds tresnet_m"):
        checkpoint.load_model(tmp_path / "m.pth", model_name="tresnet_l")
    broken = {k: v for k, v in state.items() if k != "body.conv1.0.weight"} | {"extra": torch.zeros(1)}
    torch.save(broken, tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"1 missing \(body.conv1.0.weight\); 1 unexpected \(extra\)"):
        checkpoint.load_model(tmp_path / "b.pth", model_name="tresnet_m")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_file_is_executed(state, tmp_path, recwarn):
    torch.save({"model": state, "evil": Evil(tmp_path / "ran")}, tmp_path / "a.pth")
    assert re.search(
        r"no tensors and plain values stay unread \(_?io.open\)", checkpoint.read(tmp_path / "a.pth").origin
    )
    torch.save(Evil(tmp_path / "ran"), tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"expected a state dict of tensors; .* stay unread \(_?io\.open\)"):
        checkpoint.read(tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(InputError, match="not a checkpoint, or a damaged one"):
        checkpoint.read(tmp_path / "c.pth")
    assert not recwarn.list
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return create_model("test_resnet", num_classes=3)


def with_others(state):
    return {"state_dict": state, "optimizer": {"state": {"w": state}}, "epoch": 3, "rng": torch.zeros(9)}


# What programs write -> what the line on it says
OF_THE_WILD = {
    "PyTorch's tutorial": (lambda s: {"epoch": 3, "model_state_dict": s, "loss": 0.5}, "weights of 'model_state_dict' taken"),
    "nested": (lambda s: {"state": {"net": {"params": s}}}, "weights of 'state.net.params' taken"),
    "timm": (lambda s: {"arch": "x", "args": argparse.Namespace(lr=1), "state_dict": zeros(s), "state_dict_ema": s},
             "'state_dict_ema' taken (also there: 'state_dict'; --weights_key KEY chooses); objects in it.*argparse.Namespace"),
    "model_ema": (lambda s: {"model": zeros(s), "model_ema": {"module": s}}, "'model_ema.module' taken (also there: 'model';"),
    "BasicSR": (lambda s: {"params": zeros(s), "params_ema": s}, "'params_ema' taken"),
    "Lightning": (lambda s: {"state_dict": wrapped(s, "model.net.") | {"loss.weight": torch.ones(2)}, "hyper_parameters": 1},
                  "prefix 'model.net.' taken off; left out what is not under it: 1 tensors (loss.weight)"),
    "an average beside": (lambda s: wrapped(zeros(s), "online.") | wrapped(s, "ema."), "prefix 'ema.' taken off"),
    "wrapped twice": (lambda s: wrapped(s, "module.backbone."), "prefix 'module.backbone.' taken off"),
    "any name": (lambda s: wrapped(s, "my_lovely_net."), "prefix 'my_lovely_net.' taken off"),
    "one layer compiled": (lambda s: {k.replace("conv1.", "conv1._orig_mod."): v for k, v in s.items()}, None),
    "beside counts": (lambda s: {**s, "epoch": 3}, None),
    "an optimizer's": (with_others, None),
    "a tuple": (lambda s: (s, with_others(zeros(s))["optimizer"]), "weights of '0' taken"),
    "a plain one": (lambda s: {"state_dict": s}, None),
    "other facts": (lambda s: {"state_dict": s, "config": ["a"], "head": {"type": "x"}, "model_name": 5, "groups": 3,
                               "classes": 80}, None),
}  # fmt: skip


def zeros(state):
    return {k: torch.zeros_like(v) for k, v in state.items()}


@pytest.mark.parametrize("name", OF_THE_WILD)
def test_weights_are_found_under_any_key_and_prefix(name, resnet, tmp_path):
    make, said = OF_THE_WILD[name]
    path, state = tmp_path / "w.pth", resnet.state_dict()
    torch.save(make(state), path)
    loaded, read = checkpoint.load_model(path, "test_resnet")
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert (read.origin is None) if said is None else all(part in read.origin for part in said.split(".*"))
    other = create_model("test_resnet", num_classes=5)
    line = checkpoint.load_backbone(other, checkpoint.read(path))
    assert torch.equal(other.conv1[0].weight, state["conv1.0.weight"])
    assert said is None or all(part in line for part in said.split(".*"))


def test_a_prefix_of_a_tresnet_is_told_by_its_tensors(state, tmp_path):
    torch.save({"net": wrapped(state, "a.b.") | {"c.weight": torch.ones(2, 2)}}, tmp_path / "w.pth")
    read = checkpoint.read(tmp_path / "w.pth")
    assert (read.model_name, read.num_classes) == ("tresnet_m", 6)
    assert read.origin.endswith(
        "weights of 'net' taken; prefix 'a.b.' taken off; left out what is not under it: 1 tensors (c.weight)"
    )


def test_the_key_of_the_weights_can_be_chosen(resnet, tmp_path):
    path, state = tmp_path / "w.pth", resnet.state_dict()
    torch.save({"model": {"now": zeros(state)}, "ema": {"state": state, "updates": 3}}, path)
    assert torch.equal(checkpoint.read(path).state_dict["fc.weight"], state["fc.weight"])
    assert not checkpoint.read(path, "model").state_dict["fc.weight"].any()
    with pytest.raises(InputError, match=r"--weights_key x: no weights there in .*under 'model\.now', 'ema\.state'"):
        checkpoint.read(path, "x")
    torch.save(state, path)
    with pytest.raises(InputError, match="--weights_key x: no weights there in .*no key, but as the file itself"):
        checkpoint.read(path, "x")
    ours = {"model": state, "ema": {"state": zeros(state)}, "best_weights": "model", "model_name": "test_resnet"}
    checkpoint.write(path, ours)
    assert checkpoint.read(path).origin is None
    assert not checkpoint.read(path, "ema").state_dict["fc.weight"].any()


def test_a_whole_pickled_network_is_read_by_its_parts(resnet, tmp_path):
    resnet.register_buffer("passing", torch.ones(2, 2), persistent=False)
    torch.save({"model": resnet, "epoch": 3}, tmp_path / "w.pth")
    loaded, read = checkpoint.load_model(tmp_path / "w.pth", "test_resnet")
    assert list(read.state_dict) == list(resnet.state_dict())
    assert all(torch.equal(value, resnet.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert "csl.models.heads.Classifier" in read.origin
    torch.save(resnet, tmp_path / "bare.pth")
    assert list(checkpoint.read(tmp_path / "bare.pth").state_dict) == list(resnet.state_dict())


def test_damaged_files_are_one_line(state, tmp_path):
    torch.save(state, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    files = {"empty": b"", "text": b"hello", "half": content[: len(content) // 2], "tail": content[-1000:]}
    for name, data in files.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
        with pytest.raises(InputError, match=f"{name}.pth: ") as caught:
            checkpoint.read(tmp_path / f"{name}.pth")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "none.pth")
    torch.save({"model": 3}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match="expected a state dict"):
        checkpoint.read(tmp_path / "odd.pth")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    checkpoint.write(path, {"model": {"w": torch.ones(1)}})
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MachineError, match="No space.*the file that was there before is whole"):
        checkpoint.write(path, {"model": {"w": torch.zeros(1)}})
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_interrupts_a_write_is_what_is_raised(tmp_path):
    path = tmp_path / "last.ckpt"
    checkpoint.write(path, {"step": 1})

    def died(number, frame):  # as PyTorch's loader tells that one of its workers is gone
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    def write_until_it_dies():
        while True:
            signal.setitimer(signal.ITIMER_REAL, 0.02)  # once: in the middle of writing 256 MiB
            checkpoint.write(path, content)

    before = signal.signal(signal.SIGALRM, died)
    content = {f"part {i}": torch.zeros(1 << 20) for i in range(64)}
    try:
        with pytest.raises(RuntimeError, match="DataLoader worker"):
            write_until_it_dies()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [([0, 1, 2, 3], None), (["3", "1", "0", "2"], None), ([1, 2, 3, 4], "1 to 4"), (["1", "3", "4", "9"], "1 to 9")],
)
def test_class_numbers_that_do_not_count_from_0_keep_their_order(tmp_path, numbers, said):
    names = dict(zip(sorted(map(int, numbers)), ["cat", "dog", "bird", "fish"], strict=True))
    model = create_model("test_resnet", 4)
    content = {"model": model.state_dict(), "num_classes": 4, "idx_to_class": {n: names[int(n)] for n in numbers}}
    torch.save({"model_name": "test_resnet", **content}, tmp_path / "w.pth")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = checkpoint.load_model(tmp_path / "w.pth", "test_resnet")[1]
    assert found.classes == ["cat", "dog", "bird", "fish"]
    text = "\n".join(str(one.message) for one in caught)
    assert (said is None) == ("and not from 0" not in text)
    assert said is None or said in text


@pytest.mark.parametrize("numbers", [range(5), range(7), [0, 1, 2, 3, 4, "4"]])
def test_another_count_of_class_numbers_is_refused(state, tmp_path, numbers):
    torch.save({"model": state, "idx_to_class": {n: f"c{n}" for n in numbers}}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=rf"classes has {len(numbers)} numbers of classes, 0 to .*; expected 6"):
        checkpoint.read(tmp_path / "w.pth")
