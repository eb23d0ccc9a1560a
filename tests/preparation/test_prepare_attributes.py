"""`python -m csl prepare attributes`: the split, both ways to balance, the files, and what is left when it is interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from csl import InputError
from csl import __main__ as tools
from csl.data.loader import EpochBatches
from csl.labels import parse_attributes, read_attributes
from csl.plots import draw_distribution, value_counts
from csl.preparation import attributes as preparation
from csl.preparation.attributes import prepare_attributes
from csl.preparation.augmentation import augmented, copy_generator
from csl.preparation.balance import original_copies, sampling_weights, value_indices
from csl.preparation.split import grouped_split, kept_together
from csl.runs.config import TrainConfig
from csl.training.data import load_data

COLUMNS = {
    "neck": (0.6, 0.2, 0.1, 0.04, 0.03, 0.03),
    "sleeve_length": (0.8, 0.1, 0.05, 0.05),
    "pattern": (0.7, 0.2, 0.1),
}
SIZES = parse_attributes("neck:7,sleeve_length:4,pattern:10")


def quietly(*args, **options):
    return prepare_attributes(*args, **{"workers": 0, "say": lambda line: None, **options})


def draw_table(rng, count, unknown=0.2):
    """A long-tailed table with unknowns, as CSV cells."""
    table = {"filename": [f"{row:03d}.jpg" for row in range(count)]}
    for name, shares in COLUMNS.items():
        cells = rng.choice(len(shares), size=count, p=shares).astype(str).astype(object)
        cells[rng.random(count) < unknown] = "#N/A"
        table[name] = cells
    return pd.DataFrame(table)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """The fork's layout: 60 photos of noise, of which 5 are others' copies, byte for byte or in another format."""
    folder = tmp_path_factory.mktemp("flixstock")
    images = folder / "images_cleaned" / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    table = draw_table(rng, 60)
    for row, name in enumerate(table.filename):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(images / name, quality=90)
        if row in (10, 20, 30):
            (images / name).write_bytes((images / f"{row // 10:03d}.jpg").read_bytes())
    for row, source in ((40, 4), (50, 5)):  # the same pixels in other bytes
        name = f"{row:03d}.png"
        Image.open(images / f"{source:03d}.jpg").save(images / name)
        (images / f"{row:03d}.jpg").unlink()
        table.loc[row, "filename"] = name
    table.to_csv(folder / "attributes_cleaned.csv", index=False)
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    """A copy of it to write into."""
    data = tmp_path / "data"
    subprocess.run(["cp", "-r", str(pristine), str(data)], check=True)
    return data


def read_csv(file):
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------------------- the split


@given(st.integers(10, 200), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_without_copies_the_split_is_that_of_split_folders(count, seed):
    names = [f"{row:04d}.jpg" for row in np.random.default_rng(count).permutation(count)]
    splits = grouped_split(names, np.arange(count), seed)
    files = sorted(names)  # what that package does: sort, shuffle, cut
    random.Random(seed).shuffle(files)
    train, val = int(0.8 * count), int(0.1 * count)
    for split, part in (("train", files[:train]), ("val", files[train : train + val]), ("test", files[train + val :])):
        assert {name for name, side in zip(names, splits, strict=True) if side == split} == set(part)


@given(arrays.arrays(np.int64, st.integers(3, 60), elements=st.integers(0, 12)), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_group_is_on_one_side_and_no_side_is_empty(groups, seed):
    names = [f"{row}.jpg" for row in range(len(groups))]
    if len(np.unique(groups)) < 3:
        with pytest.raises(InputError, match="different images, expected 3 or more"):
            grouped_split(names, groups, seed)
        return
    splits = grouped_split(names, groups, seed)
    sides = pd.DataFrame({"group": groups, "side": splits}).groupby("group").side.nunique()
    assert (sides == 1).all()
    assert set(splits) == {"train", "val", "test"}
    np.testing.assert_array_equal(splits, grouped_split(names, groups, seed))
    given_splits = np.random.default_rng(seed).choice(["train", "val", "test"], len(groups)).astype(object)
    kept, moved = kept_together(given_splits, groups)
    frame = pd.DataFrame({"group": groups, "given": given_splits, "kept": kept})
    order = {"train": 0, "val": 1, "test": 2}
    for _, part in frame.groupby("group"):
        assert set(part.kept) == {min(part.given, key=order.get)}
    assert moved == (kept != given_splits).sum()


def test_identical_images_are_on_one_side(folder):
    said = []
    quietly(folder, say=said.append)
    side = {p.name: p.parents[1].name for p in (folder / "images_split").rglob("*.*") if p.is_file()}
    assert len(side) == 60
    for a, b in (("010.jpg", "001.jpg"), ("020.jpg", "002.jpg"), ("030.jpg", "003.jpg"), ("040.png", "004.jpg"),
                 ("050.png", "005.jpg")):  # fmt: skip
        assert side[a] == side[b]
    assert "5 of the 60 images have the pixels of another, and stay on its side of the split" in said
    assert any(line.startswith("60 hard links; train ") for line in said)
    table = read_csv(folder / "attributes_cleaned.csv").set_index("filename")
    for split in ("train", "val", "test"):
        written = read_csv(folder / f"attributes_{split}.csv").set_index("filename")
        assert [name for name in table.index if side[name] == split] == list(written.index)
        pd.testing.assert_frame_equal(written[list(COLUMNS)], table.loc[written.index])
        for name in written.index:
            linked = folder / "images_split" / split / "images" / name
            assert linked.samefile(folder / "images_cleaned" / "images" / name)


def test_a_split_column_is_kept_but_for_copies(folder):
    table = read_csv(folder / "attributes_cleaned.csv")
    table["split"] = ["val" if row < 8 else "train" for row in range(60)]
    (folder / "images_cleaned" / "images").rename(folder / "images")
    (folder / "attributes_cleaned.csv").unlink()
    table.to_csv(folder / "attributes.csv", index=False)  # our own layout
    said = []
    quietly(folder, balance="none", say=said.append)
    assert "the split is that of the column 'split', but for 5 such images" in said
    assert list(read_csv(folder / "attributes_val.csv").filename) == ["000.jpg", "006.jpg", "007.jpg"]
    assert len(read_csv(folder / "attributes_train.csv")) == 57
    assert not (folder / "attributes_test.csv").exists()
    assert len(read_attributes(folder, split="val")) == 3  # the reader prefers it to attributes.csv


# ------------------------------------------------------------------------------------------------------------- balancing


def copies_by_pandas(table):
    """The fork's rule on a DataFrame of floats with NaN."""
    weights, common = pd.DataFrame(index=table.index), pd.Series(dtype=float)
    for name, column in table.items():
        counts = column.dropna().value_counts()
        weights[name] = (counts.max() / column.map(counts)).fillna(0)
        common[name] = counts[counts == counts.max()].index.min() if len(counts) else np.nan
    total = weights.sum(axis=1)
    away = pd.DataFrame({name: table[name] != common[name] for name in table}).sum(
        axis=1
    )  # NaN is not the common value
    copies = pd.cut(total, [-1, 5, 15, 20, np.inf], right=False, labels=[0, 19, 29, 39]).astype(int)
    return copies.where(away >= 2, 0).to_numpy()


values = st.integers(1, 4).flatmap(
    lambda width: arrays.arrays(np.int64, st.tuples(st.integers(1, 50), st.just(width)), elements=st.integers(-1, 6))
)


@given(values)
@settings(max_examples=100, deadline=None)
def test_the_original_rule_is_that_of_pandas(values):
    table = pd.DataFrame(np.where(values < 0, np.nan, values))
    np.testing.assert_array_equal(original_copies(values), copies_by_pandas(table))


def test_the_original_rule_by_hand():
    rare = np.array([[0, 1]] * 12 + [[0, 0]] * 7 + [[1, 0]])  # the last: 19 / 1 + 12 / 8, and at home in neither
    assert original_copies(rare).tolist() == [0] * 19 + [39]
    unknown = np.array([[0, 0]] * 8 + [[1, -1]])  # the last: 8 / 1 + 0, and unknown is not the most common value
    assert original_copies(unknown).tolist() == [0] * 8 + [19]
    assert original_copies(np.array([[0, 0]] * 8 + [[1, 0]])).tolist() == [0] * 9  # out of the ordinary in one alone
    assert original_copies(np.array([[0, 0]] * 15 + [[1, 1]])[:, [0, 1]]).tolist() == [0] * 15 + [39]
    assert original_copies(np.array([[0, 0]] * 8 + [[1, 1]])).tolist() == [0] * 8 + [29]


@given(values)
@settings(max_examples=100, deadline=None)
def test_sampling_weights_add_no_unknowns(values):
    weights = sampling_weights(values)
    assert weights.shape == (len(values),)
    assert (weights > 0).all()
    assert weights.mean() == pytest.approx(1)
    unknown = values < 0
    np.testing.assert_allclose(weights @ unknown / weights.sum(), unknown.mean(axis=0), atol=1e-6)


def test_sampling_weights_are_balanced_frequencies():
    from sklearn.utils.class_weight import compute_sample_weight

    values = np.random.default_rng(0).choice(4, size=(500, 3), p=(0.7, 0.2, 0.06, 0.04))
    expected = np.mean([compute_sample_weight("balanced", column) for column in values.T], axis=0)
    np.testing.assert_allclose(sampling_weights(values), expected / expected.mean(), rtol=1e-6)
    capped = sampling_weights(np.array([[0]] * 999 + [[1]]))
    assert capped[-1] / capped[0] == pytest.approx(10 / (1000 / (2 * 999)))


def test_rare_values_are_drawn_oftener():
    values = value_indices(read_frame(draw_table(np.random.default_rng(1), 2000)))
    weights = sampling_weights(values)
    for column in values.T:
        before = np.bincount(column[column >= 0]) / (column >= 0).sum()
        after = np.bincount(column[column >= 0], weights[column >= 0])
        after /= after.sum()
        assert after.max() < before.max()
        assert after.min() > 1.5 * before.min()


def read_frame(table, folder=None):
    """Annotations of a table, by way of a file."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        table.to_csv(Path(place) / "attributes.csv", index=False)
        return read_attributes(Path(place) / "attributes.csv")


def test_values_of_every_kind_of_column():
    frame = pd.DataFrame(
        {"filename": list("abc"), "neck": ["2", "", "0"], "tie": ["1", "0", "#N/A"], "hue": ["red", "blue", ""]}
    )
    assert value_indices(read_frame(frame)).tolist() == [[2, 1, 1], [-1, 0, 0], [0, -1, -1]]


def test_the_original_way_writes_copies(folder):
    said = []
    quietly(folder, balance="original", say=said.append)
    train = read_csv(folder / "attributes_train.csv")
    source = read_csv(folder / "attributes_cleaned.csv").set_index("filename")
    originals = [name for name in train.filename if "_aug_" not in name]
    table = source.loc[originals].replace("#N/A", np.nan).astype(float)
    expected = []
    for name, number in zip(originals, copies_by_pandas(table), strict=True):
        expected += [name, *(f"{Path(name).stem}_aug_{j}.jpg" for j in range(1, number + 1))]
    assert list(train.filename) == expected
    assert len(expected) > len(originals)
    for name, row in zip(train.filename, train[list(COLUMNS)].to_numpy().tolist(), strict=True):
        original = name if name in source.index else f"{name.partition('_aug_')[0]}.jpg"
        original = original if original in source.index else original.replace(".jpg", ".png")
        assert row == source.loc[original].tolist()
    written = {p.name for p in (folder / "images_augmented" / "train" / "images").iterdir()}
    assert written == set(expected)
    copy = folder / "images_augmented" / "train" / "images" / next(name for name in expected if "_aug_" in name)
    assert Image.open(copy).size == (24, 20)
    assert any("augmented copies of" in line for line in said)
    assert set(read_attributes(folder, split="train").images) == {
        str(folder / "images_augmented" / "train" / "images" / name) for name in expected
    }


def test_transparent_photos_are_compared_and_copied_on_the_background_that_training_will_have(tmp_path):
    (tmp_path / "images").mkdir()
    for n in range(20):
        pixels = np.zeros((16, 16, 4), np.uint8)  # black, under a transparency of which one pixel is another
        pixels[0, n % 16, 3] = 255 - n
        pixels[1, 0] = *[40 * min(n, 5)] * 3, 255  # of 15 photos the same
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n}.png")
    values = ["red,long", *["blue,short"] * 19]  # the first is copied
    rows = "".join(f"{n}.png,{values[n]},{'val' if n in (1, 2) else 'train'}\n" for n in range(20))
    (tmp_path / "attributes.csv").write_text("filename,colour,sleeve,split\n" + rows)
    brightness = []
    for background, alike in (("black", 14), ("white", 0)):
        out, said = tmp_path / background, []
        prepare_attributes(
            tmp_path, out, "original", background=background, workers=0, on_bad_image="skip", say=said.append
        )
        assert said[0].startswith("14 of the 20 images have the pixels of another") == bool(alike)
        assert said[-1].endswith(f" --background {background}")
        copies = list((out / "images_augmented").rglob("*_aug_*.jpg"))
        brightness.append(np.mean([np.asarray(Image.open(copy)).mean() for copy in copies]))
    assert brightness[0] < 60 < 200 < brightness[1]
    with pytest.raises(InputError, match="^--background whit: expected a colour"):
        prepare_attributes(tmp_path, tmp_path / "c", background="whit")


def test_augmentation_changes_size_never_and_depends_on_its_seed_alone():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 22, 3), dtype=np.uint8))
    copies = [augmented(image, copy_generator(0, "a.jpg", j)) for j in range(40)]
    assert {copy.size for copy in copies} == {(22, 30)}
    assert {copy.mode for copy in copies} == {"RGB"}
    assert len({copy.tobytes() for copy in copies}) == 40
    again = augmented(image, copy_generator(0, "a.jpg", 7))
    assert again.tobytes() == copies[7].tobytes()
    assert augmented(image, copy_generator(0, "b.jpg", 7)).tobytes() != again.tobytes()
    assert augmented(image, copy_generator(1, "a.jpg", 7)).tobytes() != again.tobytes()
    white = Image.new("RGB", (40, 12), (255, 255, 255))  # nothing is uncovered: borders are reflected, corners drawn in
    for j in range(60):
        copy = np.asarray(augmented(white, copy_generator(0, "white", j)))
        assert (copy == copy[0, 0]).all()
    assert augmented(Image.new("RGB", (1, 1)), copy_generator(0, "one", 3)).size == (1, 1)


# ------------------------------------------------------------------------------------------------- what it leaves behind


def test_the_same_command_makes_the_same_files_with_any_number_of_processes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_ALONE", 1)
    quietly(folder, tmp_path / "a", balance="original", attributes=SIZES)
    quietly(folder, tmp_path / "b")
    quietly(folder, tmp_path / "b", balance="original", attributes=SIZES, workers=2)  # over what is there
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []
    assert json.loads(a["preparation.json"])["balance"] == "original"
    quietly(folder, tmp_path / "b", seed=1)
    assert not (tmp_path / "b" / "images_augmented").exists()  # of the balance before
    assert contents(tmp_path / "b")["attributes_val.csv"] != b["attributes_val.csv"]


def test_an_interruption_changes_nothing(folder, monkeypatch):
    quietly(folder)
    before = contents(folder)
    for place in ("draw_distribution", "_link"):
        with monkeypatch.context() as patch:
            patch.setattr(preparation, place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                quietly(folder, balance="original", seed=4)
        assert contents(folder) == before


def interrupt(*args, **options):
    raise KeyboardInterrupt


def test_ctrl_c_while_augmenting_ends_in_one_line(folder):
    rng = np.random.default_rng(0)
    for name in read_csv(folder / "attributes_cleaned.csv").filename:  # enough to do for some seconds
        pixels = rng.integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images_cleaned" / "images" / name)
    line = ["prepare", "attributes", "--data", str(folder), "--balance", "original", "--workers", "2", "--seed", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "csl", *line],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background may ignore it
    )
    draft = folder / ".preparation" / "images_augmented" / "train" / "images"
    while process.poll() is None and not any(draft.glob("*_aug_*")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "python -m csl prepare attributes: interrupted"
    assert "Traceback" not in errors
    assert sorted(p.name for p in folder.iterdir()) == ["attributes_cleaned.csv", "images_cleaned"]


def test_files_of_others_are_not_touched(folder):
    (folder / "attributes_train.csv").write_text("filename,neck\na.jpg,1\n")
    with pytest.raises(
        InputError, match=r"attributes_train\.csv already exists and was not written by this tool: .*--out"
    ):
        quietly(folder)
    assert sorted(p.name for p in folder.iterdir()) == [
        "attributes_cleaned.csv",
        "attributes_train.csv",
        "images_cleaned",
    ]


def test_without_hard_links_there_are_copies(folder, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    said = []
    quietly(folder, tmp_path / "out", say=said.append)
    assert any("0 hard links, 60 copies where the file system has none" in line for line in said)
    assert len(list((tmp_path / "out" / "images_split").rglob("*.jpg"))) == 58


def test_bad_input_is_one_line_and_leaves_nothing(folder, capsys):
    def fails(message, **options):
        before = sorted(p.name for p in folder.iterdir())
        with pytest.raises(InputError, match=message) as error:
            quietly(folder, **options)
        assert len(str(error.value).splitlines()) == 1
        assert sorted(p.name for p in folder.iterdir()) == before

    fails("--balance half: unknown, expected one of sampler, original, none", balance="half")
    images = folder / "images_cleaned" / "images"
    (images / "007.jpg").write_bytes((images / "007.jpg").read_bytes()[:300])
    (images / "008.jpg").unlink()
    fails(r"2 of the 60 images cannot be read, the first is .*007\.jpg.*--on_bad_image skip")
    said = []
    quietly(folder, on_bad_image="skip", say=said.append)
    assert sum(len(read_csv(folder / f"attributes_{split}.csv")) for split in ("train", "val", "test")) == 58
    assert sum(line.startswith("bad image: ") for line in said) == 2
    (images / "009_aug_1.jpg").write_bytes((images / "009.jpg").read_bytes())
    (folder / "attributes_cleaned.csv").write_text("filename,neck\n../009.jpg,1\n")
    fails("outside of the data folder|expected a path relative to")
    (folder / "attributes_cleaned.csv").write_text("filename,neck\n009.jpg,1\n000.jpg,2\n")
    fails("found 2 different images, expected 3 or more to split")
    (folder / "attributes_cleaned.csv").unlink()
    fails("expected attributes_cleaned.csv with images_cleaned/images or attributes.csv with images")
    assert tools.main(["prepare", "attributes", "--data", str(folder / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_names_that_collide(folder):
    images = folder / "images_cleaned" / "images"
    table = read_csv(folder / "attributes_cleaned.csv")
    copied = next(name for name in quietly_copied(folder) if name.endswith(".jpg"))
    clash = f"{Path(copied).stem}_aug_3.jpg"
    Image.new("RGB", (9, 9)).save(images / clash)
    pd.concat([table, table.iloc[:1].assign(filename=clash)]).to_csv(folder / "attributes_cleaned.csv", index=False)
    with pytest.raises(InputError, match=rf"images '{clash}' and '{copied}': a copy of one has the other's name"):
        quietly(folder, balance="original")


def quietly_copied(folder):
    """Training images that the original rule copies whatever the seed of the split: those it copies with most seeds."""
    quietly(folder, folder / "out", balance="original")
    train = read_csv(folder / "out" / "attributes_train.csv").filename
    found = [name for name in train if f"{Path(name).stem}_aug_1.jpg" in set(train)]
    subprocess.run(["rm", "-r", str(folder / "out")], check=True)
    return found


# --------------------------------------------------------------------------------------------------------- the picture


def test_the_table_of_what_is_seen():
    frame = pd.DataFrame({"filename": list("abcd"), "neck": ["2", "", "0", "0"], "tie": ["1", "0", "#N/A", "0"]})
    table = value_counts(read_frame(frame), np.array([3.0, 1, 1, 1]))
    assert table.to_numpy().tolist() == [
        ["neck", "Neck 0", 2, 50.0, 33.33],
        ["neck", "Neck 1", 0, 0.0, 0.0],
        ["neck", "Neck 2", 1, 25.0, 50.0],
        ["neck", "unknown", 1, 25.0, 16.67],
        ["tie", "no", 2, 50.0, 33.33],
        ["tie", "yes", 1, 25.0, 50.0],
        ["tie", "unknown", 1, 25.0, 16.67],
    ]


@pytest.mark.parametrize("kinds", ["strings", "yes/no", "all"])
def test_every_kind_of_attribute_is_drawn(kinds):
    rng, frame = np.random.default_rng(0), {"filename": [f"{i}.jpg" for i in range(300)]}
    if kinds in ("all",):
        frame["neck"] = rng.integers(0, 7, 300)
    if kinds in ("strings", "all"):
        frame["colour"] = [f"shade {i}" for i in rng.integers(0, 60, 300)]
    if kinds in ("yes/no", "all"):
        frame |= {f"has_{i}": rng.integers(0, 2, 300) for i in range(25)}
    annotations = read_frame(pd.DataFrame(frame))
    page = draw_distribution(value_counts(annotations, np.ones(300)), annotations.groups, "title")
    pixels = np.asarray(Image.fromarray(page.pixels()).convert("L"))
    assert pixels.shape[1] > 1000
    assert (pixels < 250).mean() > 0.02


# ------------------------------------------------------------------------------------- training with the column `weight`


def test_weights_of_the_file_reach_the_batches(folder):
    quietly(folder)
    said = []
    data = load_data(TrainConfig(data=str(folder), attributes="neck:7,sleeve_length:4,pattern:10"), said.append)
    written = read_csv(folder / "attributes_train.csv")
    np.testing.assert_allclose(data.train.weights, written.weight.astype(np.float32))
    assert data.train.weights.dtype == np.float32
    assert len(data.train.classes) == 21
    assert data.val.weights is None
    assert said[-1] == (
        f"train: each epoch draws {len(written)} images by the weight column of {data.train.source}, with replacement"
    )
    rows = np.array([3, 0])
    np.testing.assert_array_equal(data.train.select(rows).weights, data.train.weights[rows])
    assert data.train.with_labels(data.train.labels).weights is data.train.weights


def _rows_of_one(count, batch_size, seed, epoch, weights):
    """The rows that one process with a batch of that size has in an epoch."""
    batches = EpochBatches(count, batch_size, seed, weights=weights)
    batches.set_epoch(epoch)
    return [key.row for batch in batches for key in batch]


@given(st.integers(1, 60), st.integers(1, 7), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_draws_depend_on_seed_and_epoch_alone(count, batch_size, seed, epoch):
    weights = np.random.default_rng(count).random(count, dtype=np.float32) + 0.01

    def draws(start=0, **options):
        batches = EpochBatches(count, batch_size, seed, weights=weights, **options)
        batches.set_epoch(epoch, start)
        return list(batches)

    whole = draws()
    assert sum(map(len, whole)) == count - (count > 1 and count % batch_size == 1 and batch_size > 1)
    assert draws(start=1) == whole[1:]
    keys = [key for batch in whole for key in batch]
    assert all(key.epoch == epoch and 0 <= key.row < count for key in keys)
    assert [key.place for key in keys] == list(range(len(keys)))
    if count >= 2:
        shared = [draws(rank=rank, world_size=2) for rank in (0, 1)]
        both = [key for pair in zip(*shared, strict=True) for part in pair for key in part]
        assert [key.row for key in both] == _rows_of_one(count, 2 * batch_size, seed, epoch, weights)[: len(both)]
        assert count - len(both) < 4


def test_draws_follow_the_weights():
    weights = np.array([1, 2, 3, 4], dtype=np.float32).repeat(5000)
    batches = EpochBatches(20000, 1000, seed=0, weights=weights)
    drawn = np.array([key.row for batch in batches for key in batch])
    shares = np.bincount(drawn // 5000, minlength=4) / 20000
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.015)
    assert len(np.unique(drawn)) < 20000  # with replacement


def test_a_weight_column_is_no_attribute_unless_it_is_said_to_be(tmp_path):
    file = tmp_path / "attributes.csv"
    file.write_text("filename,neck,weight\na.jpg,2,0.5\nb.jpg,0,3\n")
    annotations = read_attributes(file)
    assert annotations.classes == ["Neck 0", "Neck 1", "Neck 2"]
    assert annotations.weights.tolist() == [0.5, 3.0]
    assert read_attributes(file, ignore_columns="weight").weights is None
    file.write_text("filename,neck,weight\na.jpg,2,0\nb.jpg,0,3\n")
    sized = read_attributes(file, attributes={"weight": 4})
    assert sized.classes[-1] == "Weight 3"
    assert sized.weights is None
    assert read_attributes(file, classes=sized.classes, groups=sized.groups).weights is None
    with pytest.raises(
        InputError, match=r"attributes\.csv, line 2, column 'weight': found '0', expected .*positive number"
    ):
        read_attributes(file)
    for wrong in ("", "heavy", "-1", "inf", "nan"):
        file.write_text(f"filename,neck,weight\na.jpg,2,1\n\nb.jpg,0,{wrong}\n")
        with pytest.raises(InputError, match=r"line 4, column 'weight'"):
            read_attributes(file)
