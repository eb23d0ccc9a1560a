"""A terminal or a log that has no letters for a name: the commands go on, and their files are in UTF-8."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
from PIL import Image

COMMANDS = """
import sys
from csl.__main__ import main as run
data, folder = sys.argv[1:]
def done(line, *words):
    assert run([*line.split(), *words]) == 0, line
done("train --model_name test_resnet --image_size 32 --batch_size 4 --epochs 1 --loss asl --workers 0 --device cpu",
     "--data", data, "--path_dest", folder)
done("validate --workers 0")
done("infer --workers 0 --th 0 --pic_path", data + "/images")
done("reproduce", folder)
print("report")
done("inspect --json", data)
"""


def test_names_that_a_terminal_cannot_show_stop_nothing(tmp_path):
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (tmp_path / "outputs").mkdir()
    rows = []
    for n in range(8):
        rows.append(f"{n}红.jpg,{n % 2},{('č', 'ü')[n // 2 % 2]},{'train' if n < 4 else 'val'}\n")
        pixels = np.random.default_rng(n).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / "images" / f"{n}红.jpg")
    header = "filename,červená,größe,split\n"
    (data / "labels.csv").write_text(header + "".join(rows), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LC_ALL": "C", "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, data, "röd"], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode("cp1252")
    assert "0\\u7ea2.jpg: " in out
    assert "\\u010dervená" in out
    report = json.loads(out.partition("\nreport\n")[2].encode("ascii"))
    assert report["splits"]["train"]["classes"] == ["červená", "größe:ü", "größe:č"]
    named = pd.read_csv(tmp_path / "röd/results/predictions.csv")
    assert named["filename"].tolist()[0].endswith("images/0红.jpg")
    assert "červená" in set(named["class"])
    assert pd.read_csv(tmp_path / "röd/validation.csv").iloc[0, 0] == "červená"
    assert (tmp_path / "outputs/last_run.txt").read_bytes() == "röd\n".encode()
