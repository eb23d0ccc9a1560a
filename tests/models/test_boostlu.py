"""The BoostLU head against its formula cell by cell, and trained."""

import json

import numpy as np
import pytest
import torch

from csl.models.heads import BOOST, BoostLUHead, LinearHead
from csl.predict import Predictor
from csl.runs.config import TrainConfig
from csl.training.experiment import train


def head_and_map():
    torch.manual_seed(0)
    head = BoostLUHead(5, 4).double()
    return head, torch.randn(3, 5, 2, 3, dtype=torch.float64)


def test_it_is_its_formula():
    head, x = head_and_map()
    weight, bias = head.cam.weight.tolist(), head.cam.bias.tolist()
    for image, logits in zip(x, head(x).tolist(), strict=True):
        for c, logit in enumerate(logits):
            cells = [
                sum(w * f for w, f in zip(weight[c], cell, strict=True)) + bias[c]
                for cell in image.flatten(1).T.tolist()
            ]
            assert logit == pytest.approx(np.mean([5 * m if m > 0 else m for m in cells]), rel=1e-12)


def test_its_gradient_and_its_limit(monkeypatch):
    head, x = head_and_map()
    assert torch.autograd.gradcheck(head, x.requires_grad_())
    linear = LinearHead(5, 4).double()
    linear.fc.load_state_dict(head.cam.state_dict())
    assert (head(x) > linear(x)).all()
    monkeypatch.setattr("csl.models.heads.BOOST", BOOST / 5)
    torch.testing.assert_close(head(x), linear(x))


def test_a_run_with_it_is_scored_again_from_its_file(garments, tmp_path):
    config = TrainConfig(
        data=str(garments), path_dest=str(tmp_path / "run"), model_name="test_resnet", head="boostlu", image_size=32,
        batch_size=8, epochs=2, max_steps=4, workers=0, lr=1e-2, augment="none", device="cpu", loss="ll_r",
    )  # fmt: skip
    train(config, lambda _: None)
    from csl.labels import read_annotations
    from csl.metrics import mean_average_precision

    predictor, val = (
        Predictor.load(tmp_path / "run" / "best.ckpt", device="cpu"),
        read_annotations(garments, split="val"),
    )
    scores = predictor.score(val.images, 8, 0, roots=val.roots).probabilities[0]
    recorded = json.loads((tmp_path / "run" / "results.json").read_text())["best"]["mAP"]
    assert mean_average_precision(scores, val.labels) == pytest.approx(recorded, abs=1e-6)
