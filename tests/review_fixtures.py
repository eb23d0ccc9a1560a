"""A run with questions about drawn garments, as the page has them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from csl.labels import read_annotations

QUESTIONS = 400


@pytest.fixture(scope="session")
def drawn_run(drawn, tmp_path_factory):
    """The folder of a run whose photos are drawn, and its data folder: to be copied."""
    folder = tmp_path_factory.mktemp("review")
    data = shutil.copytree(drawn(60, 12, 48), folder / "garments")
    train = read_annotations(data, split="train")
    rows, columns = np.nonzero(train.labels.to_dense() == -1)
    few = np.random.default_rng(0).permutation(len(rows))[:QUESTIONS]
    table = pd.DataFrame({
        "image": [train.names[row] for row in rows[few]], "class": [train.classes[c] for c in columns[few]],
        "score": np.linspace(0.99, 0.01, len(few)).round(4),
    })  # fmt: skip
    (folder / "outputs").mkdir()
    table.to_csv(folder / "outputs" / "audit.csv", index=False)
    (folder / "outputs" / "config.json").write_text(json.dumps({"data": "garments"}))
    return folder


@pytest.fixture
def place(drawn_run, tmp_path, monkeypatch):
    """A copy of it, which is the working folder."""
    shutil.copytree(drawn_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
