"""csl.prior: the mean prediction, and both published files."""

import numpy as np
import pytest
import torch

from csl import InputError
from csl.prior import ClassPrior, read_prior, read_prior_interval, write_prior

NAMES = ["cat", "dog", "bird"]


def test_prior_is_the_mean_probability():
    prior = ClassPrior(3)
    batches = [torch.randn(n, 3) for n in (4, 1, 7)]
    for logits in batches:
        prior.update(logits)
    expected = torch.cat(batches).double().sigmoid().mean(0)
    torch.testing.assert_close(prior.value().double(), expected, rtol=1e-6, atol=1e-7)


def test_prior_goes_on_from_its_state():
    a, b = torch.randn(4, 3), torch.randn(2, 3)
    whole = ClassPrior(3)
    whole.update(a)
    rest = ClassPrior(3)
    rest.load_state_dict(whole.state_dict())
    for prior in (whole, rest):
        prior.update(b)
    assert torch.equal(whole.value(), rest.value())


def test_written_prior_reads_back_in_any_order(tmp_path):
    write_prior(tmp_path / "p.csv", NAMES, torch.tensor([0.5, 0.25, 0.125]))
    assert (tmp_path / "p.csv").read_text().splitlines()[0] == "Classes,avg_pred"
    assert read_prior(tmp_path / "p.csv", ["bird", "cat", "dog"]).tolist() == [0.125, 0.5, 0.25]


def test_the_ends_of_its_interval_are_read_back_too(tmp_path):
    ends = (torch.tensor([0.25, 0.125, 0.0625]), torch.tensor([0.75, 0.5, 0.25]))
    write_prior(tmp_path / "p.csv", NAMES, torch.tensor([0.5, 0.25, 0.125]), ends)
    assert read_prior(tmp_path / "p.csv", ["bird", "cat", "dog"]).tolist() == [0.125, 0.5, 0.25]
    low, high = read_prior_interval(tmp_path / "p.csv", ["bird", "cat", "dog"])
    assert (low.tolist(), high.tolist()) == ([0.0625, 0.25, 0.125], [0.25, 0.75, 0.5])
    write_prior(tmp_path / "p.csv", NAMES, torch.tensor([0.5, 0.25, 0.125]))
    assert read_prior_interval(tmp_path / "p.csv", NAMES) is None


def test_strangers_warn_and_missing_classes_are_named(tmp_path):
    (tmp_path / "p.csv").write_text("Classes,avg_pred\ncat,0.1\nfish,0.2\n")
    with pytest.warns(UserWarning, match="1 rows of unknown classes: 'fish'"):
        assert read_prior(tmp_path / "p.csv", ["cat"]).tolist() == [np.float32(0.1)]
    with (
        pytest.warns(UserWarning, match="unknown classes"),
        pytest.raises(InputError, match="2 of 3 classes: 'dog', 'bird'"),
    ):
        read_prior(tmp_path / "p.csv", NAMES)


def test_repeated_names_match_by_position_if_the_length_is_right(tmp_path):
    (tmp_path / "p.csv").write_text("Classes,avg_pred\ncat,0.1\ncat,0.2\ncat,0.3\n")
    with pytest.warns(UserWarning, match="by position"):
        assert read_prior(tmp_path / "p.csv", NAMES).tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="3 rows with repeated names, expected 2"):
        read_prior(tmp_path / "p.csv", NAMES[:2])


def test_a_name_that_agrees_is_never_read_by_position(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("Classes,avg_pred\nDog,0.1\nCat,0.2\nBird,0.3\n")
    with pytest.warns(UserWarning, match="upper or lower case"):
        assert read_prior(file, NAMES).tolist() == pytest.approx([0.2, 0.1, 0.3])
    file.write_text("Classes,avg_pred\ndog,0.1\ncat,0.2\ncat,0.3\n")
    with pytest.raises(InputError, match="'dog' is class 2 here and class 1 of the file; names repeat"):
        read_prior(file, NAMES)
    file.write_text("Classes,avg_pred\na,0.1\na,0.2\nb,0.3\n")
    with pytest.warns(UserWarning, match="no class is called as the file calls it .* matched by position"):
        assert read_prior(file, NAMES).tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Classes,avg_pred\ncat,1.5\n", "line 2: a prior of '1.5'"),
        ("Classes,avg_pred\ncat,\n", "line 2: a prior of ''"),
        ("Classes,avg_pred\ncat,0.5,0.25\n", "not a class prior .*Expected 2 fields in line 2, saw 3"),
        ("name,value\ncat,0.5\n", "expected Classes,avg_pred"),
        ("", "not a class prior"),
    ],
)
def test_bad_files_say_where_and_what(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_prior(tmp_path / "p.csv", ["cat"])
    with pytest.raises(InputError, match="not a class prior"):
        read_prior(tmp_path / "none.csv", ["cat"])


def test_published_coco_prior_loads_by_name(real):
    path = real("prior_fpc_1000.csv")
    names = [line.split(",")[0] for line in path.read_text().splitlines()[1:81]]
    with pytest.warns(UserWarning, match="1542867"):
        prior = read_prior(path, names[::-1])
    assert prior[-1] == pytest.approx(0.542279)
    assert prior[0] == pytest.approx(0.050358422)


def test_published_attribute_prior_loads_by_position(real):
    names = (
        [f"Neck {i}" for i in range(7)] + [f"Sleeve Length {i}" for i in range(4)] + [f"Pattern {i}" for i in range(10)]
    )
    with pytest.warns(UserWarning, match="by position"):
        prior = read_prior(real("flixstock_ignore_last_train_avg_preds.csv"), names)
    assert prior[:2].tolist() == pytest.approx([0.09372778, 0.09430071])
