"""LogicMix: labels by the logic of three values, pixels by their mean, and a data set that mixes by its seed."""

from itertools import product

import numpy as np
import pytest
import torch

from csl.data import logic_mix
from csl.data.dataset import ImageDataset, Key, collate
from csl.data.logic_mix import mixed_labels, mixed_pixels, partners
from csl.data.transforms import TrainTransform
from csl.labels import read_annotations


def test_labels_are_what_follows_whatever_the_unknown_ones_are():
    for count in (2, 3):
        for column in product((1, 0, -1), repeat=count):
            worlds = product(*[(0, 1) if y == -1 else (y,) for y in column])
            outcomes = {max(world) for world in worlds}
            expected = outcomes.pop() if len(outcomes) == 1 else -1
            assert mixed_labels([np.array([y], np.int8) for y in column]).tolist() == [expected]


def test_pixels_are_the_mean():
    photos = [torch.randint(0, 256, (4, 5, 3), dtype=torch.uint8).permute(2, 0, 1) for _ in range(3)]
    mixed = mixed_pixels(photos)
    expected = np.round(np.mean([photo.numpy().astype(np.float64) for photo in photos], axis=0))
    assert np.array_equal(mixed.numpy(), expected)
    assert (mixed.dtype, mixed.stride()) == (photos[0].dtype, photos[0].stride())


def test_half_are_mixed_with_one_or_two_of_all():
    drawn = [partners(np.random.default_rng(n), 50) for n in range(4000)]
    lengths = np.bincount([len(rows) for rows in drawn]) / 4000
    np.testing.assert_allclose(lengths, [0.5, 0.25, 0.25], atol=0.03)
    assert {row for rows in drawn for row in rows} == set(range(50))


@pytest.mark.parametrize("augment", ["none", "fast"])
def test_a_data_set_mixes_by_its_seed(garments, augment):
    train = read_annotations(garments, split="train")
    transform = TrainTransform(32, augment)
    plain, mixing, again, other = (
        ImageDataset(train, transform, seed=seed, mix=mix)
        for seed, mix in ((0, False), (0, True), (0, True), (1, True))
    )
    keys = [Key(0, place, place) for place in range(len(train))]
    batches = [collate([data[key] for key in keys]) for data in (plain, mixing, again, other)]
    assert batches[0].alone is None
    alone = batches[1].alone
    assert 0 < alone.sum() < len(alone)
    assert torch.equal(batches[1].images, batches[2].images)
    assert not torch.equal(batches[1].images, batches[3].images)
    assert torch.equal(batches[1].images[alone], batches[0].images[alone])
    assert torch.equal(batches[1].targets[alone], batches[0].targets[alone])
    assert not torch.equal(batches[1].targets[~alone], batches[0].targets[~alone])
    positive = batches[0].targets[~alone] == 1
    assert (batches[1].targets[~alone][positive] == 1).all()


def test_a_photo_that_cannot_be_read_is_named_though_another_is_asked_for(garments, monkeypatch):
    train = read_annotations(garments, split="train")
    monkeypatch.setattr(logic_mix, "PROBABILITY", 1.0)
    data = ImageDataset(train, TrainTransform(32, "none"), seed=0, mix=True)
    (row, *_) = partners(logic_mix_generator(), len(train))
    train.images[row] = "nowhere.jpg"
    found = data[Key(0, 0, (row + 1) % len(train))]
    assert (found.index, "nowhere.jpg" in found.reason) == (row, True)


def logic_mix_generator():
    from csl.machine.draws import generator

    return generator("mixing", 0, 0, 0)
