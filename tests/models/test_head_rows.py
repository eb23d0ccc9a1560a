"""A head goes on with the classes that it knows: by name, in any order, in every form of head."""

import pytest
import torch

from csl import checkpoint
from csl.labels.class_set import ClassSet
from csl.labels.matching import same_names
from csl.models import create_model
from csl.runs.config import TrainConfig
from csl.training.experiment import create_network

OLD = ["cat", "dog", "bird", "fish", "cow", "hen", "pig"]


def saved(path, name, classes, head="linear", keys=None, **options):
    torch.manual_seed(1)
    model = create_model(name, len(classes), head=head, **options)
    content = {"model": model.state_dict(), "model_name": name, "num_classes": len(classes), "head": head}
    checkpoint.write(path, content | {"classes": classes, "idx_to_class": dict(enumerate(keys or classes))})
    return model.eval()


def started(path, name, classes, head="linear", **options):
    torch.manual_seed(2)
    model = create_model(name, len(classes), head=head, **options)
    line = checkpoint.load_backbone(model, checkpoint.read(path), ClassSet(classes, classes))
    return model.eval(), line


def same_logits(new, old, classes, kept, before=OLD):
    """The new network gives the logits of the old one for the kept classes, to rounding."""
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        ours, theirs = new(x), old(x)
    columns = [classes.index(name) for name in kept], [before.index(name) for name in kept]
    assert torch.allclose(ours[:, columns[0]], theirs[:, columns[1]], atol=1e-5)
    return ours


NETWORKS = [("test_resnet", "linear"), ("test_resnet", "bottleneck"), ("test_resnet", "ml_decoder"),
            ("test_resnet", "hidden"),            ("test_resnet", "boostlu"), ("test_vit", "linear"), ("tresnet_m", "linear"),
            ("convnext_atto", "linear")]  # fmt: skip


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_classes_in_another_order_keep_their_logits(name, head, tmp_path):
    old = saved(tmp_path / "w.ckpt", name, OLD, head)
    classes = ["pig", "ant", "bird", "cat", "yak"]
    new, line = started(tmp_path / "w.ckpt", name, classes, head)
    assert line.endswith("; head: 3 of 5 classes kept by name; new: 'ant', 'yak'")
    same_logits(new, old, classes, ["pig", "bird", "cat"])
    again, line = started(tmp_path / "w.ckpt", name, OLD, head)
    assert line.endswith("; head: 7 of 7 classes kept by name")
    same_logits(again, old, OLD, OLD)


def test_the_rows_of_new_classes_are_those_of_a_new_head(tmp_path):
    saved(tmp_path / "w.ckpt", "test_resnet", OLD)
    new, _ = started(tmp_path / "w.ckpt", "test_resnet", ["ant", "cat"])
    torch.manual_seed(2)
    fresh = create_model("test_resnet", 2)
    assert torch.equal(new.fc.weight[0], fresh.fc.weight[0])
    assert not torch.equal(new.fc.weight[1], fresh.fc.weight[1])


def test_classes_that_share_a_query_are_kept_together(tmp_path):
    old = saved(
        tmp_path / "w.ckpt", "test_resnet", OLD, "ml_decoder", num_groups=4
    )  # cat dog | bird fish | cow hen | pig
    classes = ["dog", "cat", "ant", "hen", "fish", "cow"]
    new, line = started(tmp_path / "w.ckpt", "test_resnet", classes, "ml_decoder", num_groups=3)
    assert (
        "head: 3 of 6 classes kept by name; new: 'ant'; anew, as they share what they have with others: 'fish', 'cow'"
        in line
    )
    same_logits(new, old, classes, ["dog", "cat", "hen"])
    _, line = started(tmp_path / "w.ckpt", "test_resnet", ["fish", "cow"], "ml_decoder", num_groups=1)
    assert line.endswith("; head: starts anew, 2 of its classes are in the file, whose head is of another form")


@pytest.mark.parametrize(
    ("classes", "head", "said"),
    [
        (["ant", "yak"], "linear", "; head: starts anew, none of its classes is called as one of the file"),
        (
            ["cat", "ant"],
            "bottleneck",
            "; head: starts anew, 1 of its classes are in the file, whose head is of another form",
        ),
        (["cat", "CAT", "Dog"], "linear", "; head: 2 of 3 classes kept by name; new: 'CAT'"),
        (["Cat", "DOG", "ant"], "linear", "; head: 2 of 3 classes kept by name; new: 'ant'"),
        (["dog", "cat", "cat"], "linear", "; head: 1 of 3 classes kept by name; new: 'cat', 'cat'"),
    ],
)
def test_what_is_not_kept_is_said(classes, head, said, tmp_path):
    saved(tmp_path / "w.ckpt", "test_resnet", OLD)
    _, line = started(tmp_path / "w.ckpt", "test_resnet", classes, head)
    assert line.endswith(said)


def test_without_names_the_head_starts_anew_whatever_its_size(tmp_path):
    model = create_model("test_resnet", 3)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pth")
    new, line = started(tmp_path / "w.pth", "test_resnet", ["a", "b", "c"])
    assert "2 skipped (the head among them), 0 missing" in line
    assert line.endswith("missing")
    assert not torch.equal(new.fc.weight, model.fc.weight)


def test_keys_outlive_a_change_of_names(tmp_path):
    saved(tmp_path / "w.ckpt", "test_resnet", ["cat", "dog"], keys=["/m/1", "/m/2"])
    config = TrainConfig(model_name="test_resnet", model_path=str(tmp_path / "w.ckpt"))
    _, line = create_network(config, ClassSet(["Felis", "Canis"], ["/m/2", "/m/1"]))
    assert line.endswith("; head: 2 of 2 classes kept by name")


def test_a_network_with_two_heads_keeps_neither_by_position(tmp_path):
    name = "deit_tiny_distilled_patch16_224"
    model = create_model(name, 2)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    new, line = started(tmp_path / "w.pth", name, ["a", "b"])
    assert "4 skipped (the head among them)" in line
    assert not torch.equal(new.head_dist.weight, model.head_dist.weight)


def test_names_that_are_the_same():
    assert same_names(["a", "b", "c"], ["c", "x", "a"]) == {0: 2, 2: 0}
    assert same_names(["A", "b"], ["B", "a"]) == {0: 1, 1: 0}
    assert same_names(["b", "A", "a"], ["a", "b", "A"]) == {0: 1, 1: 2, 2: 0}
    assert same_names(["b", "A"], ["a", "b"]) == {0: 1, 1: 0}
    assert same_names(["a", "a", "b"], ["a", "b"]) == {2: 1}
    assert same_names(["a"], ["b"]) == {}
