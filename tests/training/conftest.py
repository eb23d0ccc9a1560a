"""What tests of short runs share."""

import pytest

from csl import TrainConfig, train


@pytest.fixture
def short_run(garments, tmp_path):
    """short_run(folder, ...) trains a small network in the folder, two epochs of three steps; returns what was said."""

    def go(folder, **settings):
        said = []
        network = {"model_name": "test_resnet", "image_size": 32, "batch_size": 8, "augment": "none", "epochs": 2}
        machine = {"workers": 0, "device": "cpu", "path_dest": str(tmp_path / folder), "data": str(garments)}
        train(TrainConfig(**{**network, **machine, **settings}), said.append)
        return said

    return go
