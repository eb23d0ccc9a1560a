"""Files that are no weights say what they are."""

import pytest
import torch
from safetensors.torch import save_file

from csl import InputError, checkpoint
from csl.models import create_model


def a_page(path, _):
    path.write_text("\ufeff\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>")


def a_pointer(path, _):
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n")


def a_script(path, model):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def an_onnx(path, model):
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    path.write_bytes(onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString())


def a_program(path, _):
    with open(path, "wb") as file:
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), file)


def half(path, model):
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])


def half_of_an_old_one(path, model):
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-5000])


def half_of_safetensors(path, model):
    save_file(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])


KINDS = [
    (a_page, "a web page and not weights"), (a_pointer, "a pointer of git-lfs and not the file itself: `git lfs pull`"),
    (a_script, "a TorchScript archive"), (an_onnx, "an ONNX network"), (a_program, "an exported program"),
    (half, "cut short: the archive has no end after [0-9,]+ bytes"), (half_of_an_old_one, "a damaged one"),
    (half_of_safetensors, "a safetensors file that is damaged or cut short"),
    (lambda path, _: path.write_bytes(b""), "an empty file"),
    (lambda path, _: path.write_text('{"error": "not found"}'), "a text and not weights, it begins with '{\"error\""),
    (lambda path, _: path.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "a compressed archive: unpack it"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "said"), KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_another_kind_is_named(make, said, tmp_path):
    make(tmp_path / "w.pth", create_model("test_resnet", 2))
    with pytest.raises(InputError, match=rf"w\.pth: .*{said}") as caught:
        checkpoint.read(tmp_path / "w.pth")
    assert str(caught.value).isprintable()


def test_safetensors_are_read_under_any_name(tmp_path):
    model = create_model("test_resnet", 2)
    save_file(model.state_dict(), tmp_path / "w.pth", {"note": "x"})
    loaded, read = checkpoint.load_model(tmp_path / "w.pth", "test_resnet")
    assert read.origin.endswith("w.pth: a safetensors file by what is in it")
    assert torch.equal(loaded.fc.weight, model.fc.weight)
