"""train.py, validate.py and infer.py as they are run: on drawn garments, with interruptions and with bad input."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
import torch

from csl import InputError, checkpoint
from csl.cli import infer as infer_cli
from csl.cli import parsing
from csl.cli import train as train_cli
from csl.cli import validate as validate_cli
from csl.labels import LabelMatrix
from csl.runs.config import TrainConfig
from csl.training import progress
from csl.training.experiment import train
from csl.training.report import slow
from csl.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
# A network of half a million weights, where another would only take time and disk.
SMALL = {
    "model_name": "test_resnet", "image_size": 32, "batch_size": 8, "epochs": 2, "workers": 0, "lr": 1e-3,
    "augment": "original", "device": "cpu",
}  # fmt: skip
TRESNET = {**SMALL, "model_name": "tresnet_m"}


@pytest.fixture(scope="session")
def trained(garments, tmp_path_factory):
    """A finished run of both stages, and what it said."""
    folder = tmp_path_factory.mktemp("run")
    said = []
    config = TrainConfig(
        **TRESNET,
        data=str(garments),
        path_dest=str(folder),
        partial_loss_mode="selective",
        prior_path="auto",
        prior_epochs=1,
    )
    best = train(config, said.append)
    return folder, best, said


def script(name, *args, cwd=ROOT):
    """Run a script's command line in this process: starting Python and PyTorch anew takes longer than what is tested."""
    module = {"train": train_cli, "validate": validate_cli, "infer": infer_cli}[name]
    parser = module.parser()
    parser.prog = f"{name}.py"
    out, err = io.StringIO(), io.StringIO()
    showwarning = warnings.showwarning
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err):
        status = parsing.run(module.main, parser, [str(arg) for arg in args])
    warnings.showwarning = showwarning
    return subprocess.CompletedProcess(args, status, out.getvalue(), err.getvalue())


def states_equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(states_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(states_equal, a, b))
    return a == b


def last_state(folder):
    state = torch.load(folder / "last.ckpt", weights_only=True)
    del state["config"]
    return state


def test_a_run_leaves_what_it_promises(trained):
    folder, best, said = trained
    for name in ("config.json", "log.jsonl", "last.ckpt", "best.ckpt", "train_avg_preds.csv", "val_avg_preds.csv",
                 "results.json", "plots/training.png", "plots/labels.png", "prior/train_avg_preds.csv"):  # fmt: skip
        assert (folder / name).is_file(), name
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in log] == [1, 2]
    assert {"mAP_model", "mAP_ema", "mAP_negative_model", "mAP_negative_ema", "loss", "images_per_second"} <= log[
        0
    ].keys()
    assert best["mAP"] == max(max(e["mAP_model"] or -1, e["mAP_ema"] or -1) for e in log)
    assert json.loads((folder / "results.json").read_text()).keys() == {"best", "seconds", "mAP_all_labels", "estimate"}
    text = "\n".join(said)
    assert "stage 1 of 2" in text
    assert "highest prior: " in text
    assert "next: python validate.py" in text
    prior = pd.read_csv(folder / "train_avg_preds.csv")
    assert list(prior.columns) == ["Classes", "avg_pred"]
    assert prior.Classes[0] == "Neck 0"
    assert prior.avg_pred.between(0, 1).all()


def test_two_steps_and_two_resumed_equal_four_bit_for_bit(garments, tmp_path):
    base = TrainConfig(**TRESNET, data=str(garments), partial_loss_mode="selective", seed=3)  # three steps an epoch
    for path, max_steps, resume in (("a", 4, False), ("b", 1, False), ("b", 3, True), ("b", 4, True)):
        config = TrainConfig(
            **{**base.to_dict(), "path_dest": str(tmp_path / path), "max_steps": max_steps, "resume": resume}
        )
        train(config, lambda _: None)
    a, b = last_state(tmp_path / "a"), last_state(tmp_path / "b")
    # The stops were evaluated too, so only what the best epoch was, and the lines of the log, may differ.
    for state in (a, b):
        del state["best"], state["best_weights"], state["log_lines"]
    assert a["step"] == b["step"] == 4
    assert [k for k in a if not states_equal(a[k], b[k])] == []


def test_same_seed_same_mask_in_both_stages_and_saved(garments, tmp_path):
    said = []
    config = TrainConfig(
        **{**SMALL, "epochs": 1}, data=str(garments), path_dest=str(tmp_path), partial_loss_mode="selective",
        prior_path="auto", simulate_partial_type="rps", seed=9,
    )  # fmt: skip
    train(config, said.append)
    first = LabelMatrix.load(tmp_path / "partial_labels.npz")
    train(config, said.append)
    assert LabelMatrix.load(tmp_path / "partial_labels.npz") == first
    (aside,) = tmp_path.glob("earlier-*")
    assert LabelMatrix.load(aside / "partial_labels.npz") == first
    assert any("simulated rps" in line for line in said)
    assert any(re.search(r"Neck 0 +\d+ +\d+ +\d+", line) for line in said)


@pytest.mark.parametrize("loss", ["asl", "csl"])
def test_other_networks_and_losses_train(garments, tmp_path, loss):
    config = TrainConfig(
        **{**SMALL, "model_name": "resnet18", "epochs": 1, "augment": "none"}, loss=loss, data=str(garments),
        path_dest=str(tmp_path), max_steps=1, dropout=0.1,
    )  # fmt: skip
    train(config, lambda _: None)
    assert checkpoint.load_model(tmp_path / "best.ckpt")[1].model_name == "resnet18"


def test_fine_tuning_starts_from_the_body_of_a_run(garments, trained, tmp_path):
    said = []
    config = TrainConfig(
        **{**TRESNET, "epochs": 1}, data=str(garments), path_dest=str(tmp_path), max_steps=1, head="bottleneck",
        model_path=str(trained[0] / "best.ckpt"),
    )  # fmt: skip
    train(config, said.append)
    assert any("432 tensors loaded, 2 skipped (the head among them), 0 missing" in line for line in said)


def test_validate_prints_every_number_and_writes_every_class(trained, tmp_path):
    result = script("validate", "--model-path", trained[0], "--path_dest", tmp_path, "--thre=0.5", "-j", 0)
    assert result.returncode == 0, result.stderr
    for word in ("mAP on annotated entries", "mAP with un-annotated as negative", "mAP with all labels known",
                 "P_C", "F_O", "micro", "macro", "samples", "balanced_accuracy"):  # fmt: skip
        assert word in result.stdout
    numbers = json.loads((tmp_path / "validation.json").read_text())
    assert numbers["mAP"] == pytest.approx(trained[1]["mAP"], abs=0.01)
    table = pd.read_csv(tmp_path / "validation.csv")
    assert list(table.columns) == [
        "class", "AP", "positives", "negatives", "unannotated", "prior", "threshold", "reached", "low", "high", "basis"
    ]  # fmt: skip
    assert len(table) == 21
    assert (table.positives + table.negatives + table.unannotated == 12).all()


def test_infer_names_a_photo_a_folder_a_list_and_the_validation_set(trained, garments, tmp_path):
    folder, _, _ = trained
    photo = garments / "images" / "00001.jpg"
    (tmp_path / "list.txt").write_text(f"{photo}\n{garments / 'images' / '00002.jpg'}\n")
    for what, count in ((photo, 1), (garments / "images", 32), (tmp_path / "list.txt", 2)):
        result = script(
            "infer", "--pic_path", what, "--model_path", folder, "--path_dest", tmp_path, "--input_size=32", "-j0"
        )
        assert result.returncode == 0, result.stderr
        table = pd.read_csv(tmp_path / "results" / "predictions.csv")
        assert list(table.columns) == ["filename", "class", "score"]
        assert table.filename.nunique() == count
        assert (tmp_path / "results" / "predictions.png").stat().st_size > 1000
    result = script("infer", "--all_val_inference", "--model_path", folder, "--path_dest", tmp_path, "-j", 0)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "results" / "attributes_val_inference.csv", keep_default_na=False)
    assert list(table.columns) == [
        "filename", "neck", "sleeve_length", "pattern", "split",
        "Predicted Neck Type", "Predicted Sleeve Length Type", "Predicted Pattern Type",
    ]  # fmt: skip
    assert len(table) == 12
    assert table["Predicted Neck Type"].astype(str).isin([*"0123456", "unsure"]).all()


def test_open_images_names_stand_in_for_mids(tmp_path, garments):
    from csl.models import create_model

    torch.manual_seed(0)
    state = create_model("tresnet_m", num_classes=3).state_dict()
    weights = {"model": state, "num_classes": 3, "idx_to_class": {0: "/m/1", 1: "/m/2", 2: "/m/3"}}
    torch.save(weights, tmp_path / "w.pth")
    (tmp_path / "names.csv").write_text("LabelName,DisplayName\n/m/1,Cat\n/m/2,Dog\n")
    line = ["--dataset_type=OpenImages", "--model_name=tresnet_m", f"--model_path={tmp_path / 'w.pth'}",
            f"--pic_path={garments / 'images' / '00001.jpg'}", "--input_size=32", "--th=0.01"]  # fmt: skip
    result = script("infer", *line, f"--class_description_path={tmp_path / 'names.csv'}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {"Cat", "Dog", "/m/3"} == set(pd.read_csv(tmp_path / "outputs" / "results" / "predictions.csv")["class"])
    result = script("infer", *line, cwd=tmp_path)
    assert "MIDs are shown" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_leaves_a_checkpoint_that_resume_continues_from(garments, tmp_path, number):
    command = [
        sys.executable, "-u", str(ROOT / "train.py"), "--data", str(garments), "--path_dest", str(tmp_path / "run"),
        "--model_name=test_resnet", "--image_size=32", "-b4", "--epochs=400", "--print-freq=1", "-j", "2", "--device=cpu",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(r"epoch 1, step 2/", line):
            os.killpg(process.pid, number)  # as a terminal, Slurm and systemd do: the workers get it too
            break
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, "".join(lines) + rest
    assert "Traceback" not in rest
    assert "with --resume goes on" in rest
    stopped = last_state(tmp_path / "run")
    assert stopped["epoch"] == 0
    assert stopped["step"] >= 2
    result = subprocess.run(
        [*command, "--resume", f"--max_steps={stopped['step'] + 1}"], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert f"resumed {tmp_path / 'run' / 'last.ckpt'} at epoch 1, step {stopped['step']}" in result.stdout
    assert last_state(tmp_path / "run")["step"] == stopped["step"] + 1


@pytest.mark.parametrize(("epochs", "told"), [(10**6, True), (2, False)])
def test_a_run_of_hours_on_a_processor_is_told_once_what_takes_less(garments, tmp_path, monkeypatch, epochs, told):
    class Enough(Exception): ...

    def say(line):
        said.append(line)
        if "epoch 2, step 1/" in line:
            raise Enough

    monkeypatch.setattr(progress, "STEADY_SECONDS", 0.0)
    said, settings = [], {**SMALL, "batch_size": 4, "epochs": epochs, "augment": "none", "print_freq": 1}
    with pytest.raises(Enough):
        train(TrainConfig(**settings, data=str(garments), path_dest=str(tmp_path / "run")), say)
    lines = [line for line in said if "on a processor" in line]
    assert len(lines) == told
    assert all("--image_size 16 " in line and "--probe" in line for line in lines)
    if told:
        third = next(place for place, line in enumerate(said) if "step 3/" in line)
        assert said.index(lines[0]) == third - 1  # not by the rate of the first


def test_half_of_a_size_keeps_its_shape():
    assert "--image_size 224 " in slow(1e4, (448, 448))
    assert "--image_size 224x160 " in slow(1e4, (448, 320))


def fails(message, **settings):
    with pytest.raises(InputError, match=message):
        train(TrainConfig(**{**SMALL, **settings}), lambda _: None)


def test_bad_settings_are_refused_before_anything_is_touched(garments, trained, tmp_path):
    folder = trained[0]
    before = {p: p.stat().st_mtime for p in folder.rglob("*")}
    here = {"data": str(garments), "path_dest": str(folder), "model_name": "tresnet_m"}
    fails("divide by 4 and are at least 20", **here | {"image_size": 30})
    fails("divide by 4 and are at least 20", **here | {"image_size": (32, 16)})
    fails("--num_classes 80: .* has 21 classes", num_classes=80, **here)
    fails("--loss focal", loss="focal", **here)
    fails("--model_name tresnet_s", **here | {"model_name": "tresnet_s"})
    fails("no such checkpoint", model_path=str(tmp_path / "none.pth"), **here)
    fails("expected from|from 0 to 1", simulate_partial_type="rps", simulate_partial_param=1.5, **here)
    selective = {**here, "partial_loss_mode": "selective"}
    fails("no prior for|not a class prior", prior_path=str(tmp_path / "none.csv"), **selective)
    (tmp_path / "prior.csv").write_text("Classes,avg_pred\ncat,0.5\n")
    with pytest.warns(UserWarning, match="unknown classes"):
        fails("no prior for 21 of 21 classes: 'Neck 0'", prior_path=str(tmp_path / "prior.csv"), **selective)
    fails("--prior_path changes nothing with --loss asl", loss="asl", prior_path="auto", **here)
    fails("none", data=str(tmp_path / "none"), path_dest=str(folder))
    assert {p: p.stat().st_mtime for p in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("batch_size", "grad_accum", "steps", "seen", "left_out"),
    [(5, 1, 2, 7, None), (6, 1, 1, 6, "1 of its 7"), (2, 2, 2, 4, "3 of its 7")],
)
def test_an_epoch_ends_with_what_is_left(
    drawn, tmp_path, no_pictures, monkeypatch, batch_size, grad_accum, steps, seen, left_out
):
    trained, train_step = [], Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, parts: trained.append(parts) or train_step(self, parts))
    said, settings = [], {**SMALL, "batch_size": batch_size, "grad_accum": grad_accum, "epochs": 2}
    train(TrainConfig(**settings, data=str(drawn(7, 4, 32)), path_dest=str(tmp_path)), said.append)
    rows = [batch.indices.tolist() for parts in trained for batch in parts]
    assert sum(map(len, rows)) == 2 * seen
    assert min(map(len, rows)) > 1
    state = last_state(tmp_path)
    assert (state["epoch"], state["step"], state["scheduler"]["total_steps"]) == (2, 2 * steps, 2 * steps)
    assert [line for line in said if "leaves out" in line] == (
        [f"each epoch leaves out {left_out} images, others each time: too few for a last step"] if left_out else []
    )


def test_stop_epoch_trains_that_many(garments, tmp_path):
    said = []
    train(TrainConfig(**{**SMALL, "epochs": 4}, stop_epoch=1, data=str(garments), path_dest=str(tmp_path)), said.append)
    state = last_state(tmp_path)
    assert (state["epoch"], state["step"]) == (1, 3)
    assert state["scheduler"]["total_steps"] == 12  # the schedule is that of --epochs
    assert state["scheduler"]["last_epoch"] == 3  # a step of it for each of the optimizer's


@pytest.mark.parametrize(("scheme", "param"), [("fpc", 20), ("rps", 0.5)])
def test_real_coco_photos_train_and_validate(real, tmp_path, scheme, param):
    data = real("coco_mini.zip")
    said = []
    config = TrainConfig(
        **{**SMALL, "image_size": 64}, data=str(data), path_dest=str(tmp_path), max_steps=2,
        simulate_partial_type=scheme, simulate_partial_param=param, partial_loss_mode="selective",
    )  # fmt: skip
    train(config, said.append)
    counts = LabelMatrix.load(tmp_path / "partial_labels.npz").counts()
    if scheme == "fpc":
        assert counts.positives.max() <= 20
        assert (counts.negatives == 20).all()
    assert any("80 classes" in line for line in said)
    result = script("validate", data, "--model-path", tmp_path / "best.ckpt", "--path_dest", tmp_path, "-j0")
    assert result.returncode == 0, result.stderr
    assert len(pd.read_csv(tmp_path / "validation.csv")) == 80


def test_a_bad_image_stops_before_training_or_is_left_out(garments, tmp_path):
    data = shutil.copytree(garments, tmp_path / "set")
    (data / "images" / "00003.jpg").unlink()
    (data / "images" / "00021.jpg").write_bytes((data / "images" / "00021.jpg").read_bytes()[:900])
    options = {"data": str(data), "path_dest": str(tmp_path / "run"), "epochs": 1}
    fails(r"1 of the 20 train images cannot be read, the first is .*00003\.jpg.*--on_bad_image skip", **options)
    assert not (tmp_path / "run").exists()
    said = []
    train(TrainConfig(**{**SMALL, **options, "on_bad_image": "skip"}), said.append)
    text = "\n".join(said)
    assert "train: 1 bad images left out, 19 left" in text
    assert "val: 1 bad images left out, 11 left" in text


def test_an_image_that_breaks_during_training_loses_nothing(garments, tmp_path, no_pictures):
    data = shutil.copytree(garments, tmp_path / "set")
    said = []

    def say(line):
        said.append(line)
        if line.startswith("epoch 1/"):  # the first epoch is over: now a file breaks
            (data / "images" / "00005.jpg").write_text("gone")

    config = {**SMALL, "data": str(data), "path_dest": str(tmp_path / "run"), "epochs": 3, "batch_size": 20}
    with pytest.raises(InputError, match=r"00005\.jpg.*state saved in .*--on_bad_image skip --resume"):
        train(TrainConfig(**config), say)
    assert last_state(tmp_path / "run")["epoch"] == 1
    state = last_state(tmp_path / "run")
    fails(r"00005\.jpg.*became unreadable during training", **config, resume=True)  # the files are not checked again,
    assert last_state(tmp_path / "run")["step"] == state["step"]  # and the step that needs it names it again
    train(TrainConfig(**config, resume=True, on_bad_image="skip"), said.append)
    assert said.count("image files: checked when the run was started, and not again") == 1
    assert any(re.match(r"bad image 1, left out: .*00005\.jpg", line) for line in said)
    assert last_state(tmp_path / "run")["epoch"] == 3
    fails(r"1 of the 20 train images cannot be read.*00005\.jpg", **config)  # a new run checks


def test_scripts_say_bad_input_in_one_line(tmp_path, garments):
    for name, args, message in (
        ("train", ["--data", tmp_path / "nowhere"], "nowhere"),
        ("train", ["--data", garments, "--image-size", 50], "divide by 4"),
        ("validate", ["--model-path", tmp_path / "w.pth"], "no such file, expected a checkpoint"),
        ("validate", [], "expected --model_path, or a run"),
        ("infer", ["--model_path", tmp_path / "w.pth"], "no such file"),
    ):
        result = script(name, *args, cwd=tmp_path)
        assert result.returncode == 2
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--data", "nowhere"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1)


def test_a_nan_loss_names_the_place_and_keeps_the_last_state(garments, tmp_path):
    config = {
        **SMALL,
        "data": str(garments),
        "path_dest": str(tmp_path),
        "lr": 1e30,
        "epochs": 3,
        "partial_loss_mode": "negative",
    }
    fails(r"loss is (nan|inf) in epoch \d at step \d+ \(images .*jpg", **config)
    assert not (tmp_path / "log.jsonl").exists()  # it did not train to the end of an epoch
