"""What the known labels of a split cannot tell is said, with why and where to look."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csl import __main__ as tools
from csl.labels import Annotations, LabelMatrix
from csl.labels.inspection import label_warnings

CASES = {
    "all is known": ([[1, 0], [0, 1]], []),
    "nothing is known": ([[-1, -1], [-1, -1]], ["no label is known, .*undefined.* csl inspect DATA"]),
    "no positive": ([[0, 0], [-1, 0]], ["no known positive in any.*undefined.*--roles", "no known positive in 2 "]),
    "no negative": ([[1, 1], [-1, 1]], ["no known negative in any.*undefined.*--unlisted", "negative in 2 of 2 "]),
    "a class without positives": ([[0, 1], [0, 0]], [r"no known positive in 1 of 2 classes \(a\); .* counts in no mAP"]),
    "a class without either": ([[-1, 1], [-1, 0]], [r"positive in 1 and no known negative in 1 of 2 classes \(a\)"]),
    "no class with both": ([[1, 0], [1, 0]], ["no class has both .*undefined", r"positive in 1 and no .* \(a, b\)"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_labels_cannot_tell_is_said(case):
    dense, expected = CASES[case]
    annotations = Annotations(["1.jpg", "2.jpg"], LabelMatrix.from_dense(np.array(dense, np.int8), -1), ["a", "b"])
    lines = label_warnings("val", annotations)
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert line.startswith("warning: val: ")
        assert re.search(words, line), line
    assert not any("mAP" in line for line in label_warnings("train", annotations))


def test_train_validate_and_inspect_warn(tmp_path, monkeypatch, no_pictures, capsys):
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    rng = np.random.default_rng(0)
    for n in range(12):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(f"{n}.png")
    rows = [f"{n}.png,{n % 2 if n < 8 else ''},{n % 2},{'train' if n < 8 else 'val'}\n" for n in range(12)]
    Path("labels.csv").write_text("filename,hat,tie,split\n" + "".join(rows))
    network = (
        "--model_name test_resnet --image_size 32 --batch_size 4 --epochs 1 --workers 0 --augment none --device cpu"
    )
    warning = "warning: val: no known positive in 1 and no known negative in 1 of 2 classes (hat); "
    for command in (f"train --data . {network}", "validate --workers 0", "inspect ."):
        assert tools.main(command.split()) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
        assert [line.startswith(warning) for line in lines] == [True]
    text = Path("labels.csv").read_text().splitlines()
    unknown = [f"{line.split(',')[0]},,,val" if line.endswith("val") else line for line in text]
    Path("labels.csv").write_text("\n".join(unknown) + "\n")
    assert tools.main(["validate", "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert "warning: val: no label is known, so that mAP on annotated entries is undefined (nan): " in said
    assert json.loads(Path("outputs/validation.json").read_text())["mAP"] is None
