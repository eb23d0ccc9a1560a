"""Benchmarks whose numbers the README and the docs name still run, on the code as it is."""

import argparse
import importlib
import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest
import torch

from csl.garments import make_garments
from csl.labels import read_annotations

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # they share machine.py
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_scaling_measures_a_step_of_one_process(tmp_path, monkeypatch):
    make_garments(tmp_path, num_train=4, num_val=1, size=32, progress=False)
    args = argparse.Namespace(repeats=1, batch=2, size=32, model="test_resnet", device="cpu", gpu_batch=2)
    found = load("scaling", monkeypatch).measure(torch.device("cpu"), tmp_path, args)
    assert found["seconds"]["alone"] > 0
    assert found["loader_images_per_s"]["alone"] > 0


@pytest.mark.parametrize("protocol", ["fpc_30", "single_positive"])
def test_partial_labels_chooses_among_the_settings_of_a_method_by_what_is_known(protocol, monkeypatch):
    torch.manual_seed(0)
    weights, x = torch.randn(6, 4), torch.randn(400, 6)
    y = (x @ weights > 2).to(torch.int8)
    monkeypatch.setattr(importlib.import_module("csl.training.linear"), "LEAST_STEPS", 100)
    benchmark = load("partial_labels", monkeypatch)
    data = benchmark.Data(x[:300], y[:300], x[300:], y[300:], None, {})
    for method in ("annotation", "csl", "all labels known"):
        row = benchmark.run(data, protocol, 0, method)
        assert len(row["candidates"]) == 2 * len(benchmark.L2)
        assert row["mAP"] in [c["mAP"] for c in row["candidates"]]
        assert row["estimated_mAP"] == max(c["estimated_mAP"] for c in row["candidates"])
        assert row["mAP"] > 50
    for method in ("SPLC", "LL-Ct"):  # which change with the epoch
        row = benchmark.run(data, protocol, 0, method)
        assert len(row["candidates"]) == len(benchmark.L2)
        assert 0 < row["mAP"] <= 100


def test_suggest_ranks_what_is_hidden_and_what_was_turned_round(monkeypatch):
    torch.manual_seed(0)
    weights, x = torch.randn(6, 4), torch.randn(400, 6)
    y = (x @ weights > 2).to(torch.int8)
    data = {"train": (x[:300], y[:300]), "val": (x[300:], y[300:])}
    for module in ("csl.training.linear", "csl.suggest.relations"):
        monkeypatch.setattr(importlib.import_module(module), "LEAST_STEPS", 100)
    benchmark = load("suggest", monkeypatch)
    monkeypatch.setattr(benchmark, "FIRST", (10, 50))
    rows = {(row["part"], row["order"]): row for row in benchmark.unknown_rows(data, "rps_50", 0)}
    assert rows["precision", "--for positives"]["of 50"] > rows["precision", "random"]["of 50"] + 30
    assert {order for part, order in rows if part == "training"} > {"no answers", "random", "--for training"}
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    rows = {row["order"]: row for row in benchmark.error_rows(data, "rps_50", 0)}
    assert 10 <= rows["--for errors"]["turned"] <= 14  # 2 % of about 600
    assert rows["heads alone"]["found"] == rows["cleanlab, self_confidence"]["found"] > 20


@pytest.mark.parametrize(("protocol", "method"), [("fpc_30", "annotation"), ("rps_50", "ignore")])
def test_calibration_measures_heads_against_the_hidden_truth(protocol, method, monkeypatch):
    torch.manual_seed(0)
    weights, x = torch.randn(6, 4), torch.randn(500, 6)
    y = (x @ weights + torch.randn(500, 4) > 2).to(torch.int8)
    benchmark = load("calibration", monkeypatch)
    data = {"train": (x[:400], y[:400]), "val": (x[400:], y[400:])}
    row = benchmark.measure(*benchmark.of_head(data, protocol, 0, method))
    assert row["f1_class"] > 50
    assert 0 < row["ece_after"] < 25
    p, truth = torch.tensor([[0.9], [0.8], [0.1], [0.05]]).numpy(), torch.tensor([[1], [0], [0], [1]]).numpy()
    assert benchmark.calibration_error(p, truth) == pytest.approx(100 * (0.1 + 0.8 + 0.1 + 0.95) / 4)


def test_audit_counts_how_often_the_intervals_hold_the_hidden_truth(monkeypatch):
    torch.manual_seed(0)
    weights, x = torch.randn(6, 4), torch.randn(700, 6)
    y = (x @ weights + torch.randn(700, 4) > 2).to(torch.int8)
    benchmark = load("audit", monkeypatch)
    monkeypatch.setattr(benchmark, "ANSWERS", (60,))
    data = argparse.Namespace(x=x[:300], y=y[:300], x_val=x[300:], y_val=y[300:])
    rows, said = benchmark.rows_of(*benchmark.trained(data, "single_positive"), y[300:].numpy(), "single_positive", 10)
    assert [(row["design"], row["answers"]) for row in rows] == [("stratified", 60), ("uniform", 60)]
    for row in rows:
        assert row["labels_an_image"]["truth"] == pytest.approx(y[300:].sum().item() / 400)
        assert all(row[name]["covers"] >= 0.7 for name in benchmark.NUMBERS)
    assert said["known"] == pytest.approx((y[300:].sum(1) > 0).float().mean().item() / 4)


def test_review_loop_hides_labels_and_answers_some_at_random_with_the_truth(tmp_path, monkeypatch):
    benchmark, data = load("review_loop", monkeypatch), tmp_path / "garments"
    truth = benchmark.draw(data, argparse.Namespace(train=90, val=4, size=32, unknown=0.6), seed=0)
    before = read_annotations(data, split="train")
    assert before.labels.counts().unannotated.sum() / (90 * 21) == pytest.approx(0.6, abs=0.08)
    benchmark.at_random(data, truth, 50, seed=0)
    after, full = read_annotations(data, split="train"), read_annotations(data / "truth.csv", split="train")
    labels, true = after.labels.to_dense(), full.labels.to_dense()
    assert after.answers == 50
    assert (labels == 1).sum() == (before.labels.to_dense() == 1).sum() + 50
    assert (labels == true)[labels != -1].all()


def test_the_stages_of_a_gpu_fit_into_three_calls_of_nine_minutes(monkeypatch):
    benchmark, limits = load("gpu", monkeypatch), {1: 0, 2: 0, 3: 0}
    for call, limit, _ in benchmark.STAGES.values():
        limits[call] += limit
    assert max(limits.values()) <= benchmark.CALL_SECONDS == 9 * 60


def test_a_stage_of_a_gpu_is_ended_with_all_it_started_and_keeps_its_rows(tmp_path, monkeypatch):
    benchmark, rows = load("gpu", monkeypatch), []
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('{\"first\": 1}', flush=True)\n"
        "time.sleep(600)\n"
    )
    start = time.perf_counter()
    assert benchmark.run([sys.executable, "-c", code], 3, rows.append) == "cut short after 3 s"
    assert time.perf_counter() - start < 300  # what it had started held its output open
    assert benchmark.run([sys.executable, "-c", "print('{'); exit(3)"], 60, rows.append) == "failed (status 3)"
    assert rows == [{"first": 1}]


def test_the_stages_of_a_gpu_run_without_one(tmp_path, monkeypatch):
    benchmark, out = load("gpu", monkeypatch), tmp_path / "gpu.json"
    small = benchmark.sizes(dry=True)
    rows = [row for stage in ("profile", "eager", "loss", "loader") for row in benchmark.STAGES[stage][2](small)]
    assert [row["peer"] for row in rows[:2]] == ["csl", "timm"]
    assert rows[2]["ratios"].keys() >= {"timm"}
    assert rows[2]["ratios"]["timm"]["target"] == 1.25
    assert "csl selective" in [row.get("loss") for row in rows[3:]]
    assert [row["what"] for row in rows[-2:]] == ["loader, --augment original", "loader, --augment fast"]
    assert all(row["images_per_s"] > 0 for row in rows[-4:])

    def call(*more):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--dry", "--stages", "probe", "--out", str(out), *more])
        with pytest.raises(SystemExit) as ended:
            benchmark.main()
        assert not ended.value.code
        return json.loads(out.read_text())["stages"]["probe"]

    probe = call()
    assert [row["what"] for row in probe["rows"]] == ["device", "InPlace-ABN", "loss", "copy", "product"]
    assert probe["status"] == "done"
    assert call("--resume") == probe  # as it was: nothing ran
