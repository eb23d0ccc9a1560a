"""Two small runs, with their pages."""

import warnings

import pytest
from killing import without_pictures

import csl


@pytest.fixture(scope="session")
def runs(garments, tmp_path_factory):
    """The folders of two runs that differ in their seed, and the lines that the first printed."""
    folder, said = tmp_path_factory.mktemp("runs"), []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*report.html: left out")
        for owner, name, nothing in without_pictures():
            if name != "write_report":
                patch.setattr(owner, name, nothing)
        for seed, say in ((0, said.append), (1, lambda _: None)):
            config = csl.TrainConfig(
                data=str(garments), model_name="test_resnet", image_size=32, batch_size=5, epochs=2, workers=0, device="cpu",
                partial_loss_mode="ignore", lr=1e-3, seed=seed, path_dest=str(folder / f"seed{seed}"),
            )  # fmt: skip
            csl.train(config, say)
    return folder / "seed0", folder / "seed1", said
