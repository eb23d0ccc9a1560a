"""Every flag of train.py changes something in the setting stated here, and is refused where it would change nothing."""

import hashlib
import itertools
import json
import re
import shutil
from contextlib import chdir
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from killing import without_pictures
from PIL import Image

import csl.losses
from csl import InputError
from csl.cli import parsing
from csl.cli import train as train_cli
from csl.labels import Annotations, LabelMatrix
from csl.labels.read import read_split
from csl.losses.options import LossOptions, settings_of
from csl.models import create_model
from csl.runs.config import TrainConfig
from csl.training.checks import check_used, idle_settings
from csl.training.data import Data, check_known_labels, with_simulated_labels
from csl.training.experiment import train
from csl.training.recipes import RECIPES, idle_line, recipe_line, with_recipe

BASE = {
    "data": "garments", "path_dest": "run", "model_name": "test_resnet", "image_size": 32, "batch_size": 8, "epochs": 1,
    "max_steps": 1, "workers": 0, "lr": 1e-3, "augment": "none", "device": "cpu",
}  # fmt: skip
SELECTIVE = {"partial_loss_mode": "selective"}
PRIOR = {**SELECTIVE, "prior_path": "prior.csv"}
EARLY = {**SELECTIVE, "prior_path": "none.csv"}  # stops once data and network are there: there is no such file
PROBED = {**SELECTIVE, "prior_path": "auto", "prior_estimator": "probe"}
RPS = {**EARLY, "simulate_partial_type": "rps"}
TRESNET = {**EARLY, "model_name": "tresnet_m"}
START = "training on "  # of the line that training begins with
TWO_STEPS = {"max_steps": 2, "print_freq": 1}

# flag -> (a setting, the value there[, the line at which the run may end]): `seen` shows that it changes something
EFFECT = {
    "prior_epochs": ({**SELECTIVE, "prior_path": "auto"}, 2, START),
    "prior_loss": ({**SELECTIVE, "prior_path": "auto"}, "focal"),
    "prior_estimator": ({**SELECTIVE, "prior_path": "auto"}, "em"), "labels_per_image": (SELECTIVE, 6.0),
    "data": (EARLY, "coco"), "images": (EARLY, "nowhere"), "metadata": (EARLY, "nowhere"), "debug_mode": (EARLY, "hyperml"),
    "reviews": (EARLY, "none.csv"),
    "attributes": (EARLY, "neck:9"), "ignore_columns": (EARLY, ["neck"]), "columns": (EARLY, ["neck"]),
    "filename_column": (EARLY, "neck"), "roles": (EARLY, "neck=ignored"),
    "minus_one": ({**EARLY, "data": "table", "ignore_columns": ["share"]}, "negative"),
    "unlisted": ({**EARLY, "data": "table", "ignore_columns": ["cat"]}, "unknown"),
    "no_label": ({**EARLY, "data": "table", "ignore_columns": ["cat"]}, ["healthy"]),
    "vote_threshold": ({**EARLY, "data": "table", "ignore_columns": ["cat"]}, 0.5),
    "keep_unlabelled_images": ({**EARLY, "data": "coco"}, True), "classes_file": ({**EARLY, "data": "openimages"}, "mids.txt"),
    "strict_labels": ({**EARLY, "data": "openimages"}, True), "follow_links": ({**EARLY, "data": "outside"}, True),
    "val_split": ({**EARLY, "data": "unsplit"}, 0.2),
    "on_bad_image": ({**EARLY, "data": "bad"}, "skip"), "num_classes": (EARLY, 5), "simulate_partial_type": (EARLY, "rps"),
    "simulate_partial_param": (RPS, 0.9), "seed": (RPS, 1), "deterministic": (EARLY, True),
    "model_name": (EARLY, "test_byobnet"), "model_path": (EARLY, "none.pth"),
    "weights_key": ({**EARLY, "model_path": "two.pth"}, "state_dict"),
    "head": (EARLY, "ml_decoder"),
    "abn": (TRESNET, "torch"), "sync_abn": (TRESNET, True), "memory": (TRESNET, "save"),
    "device": ({**EARLY, "model_name": "tresnet_m"}, "tpu"),
    "image_size": ({}, 40, START), "batch_size": ({}, 4, START), "grad_accum": ({}, 2, START), "workers": ({}, 1, START),
    "amp": ({}, "bf16", START), "cache": ({}, "cache", START), "path_dest": ({}, "other", START), "epochs": ({}, 2, START),
    "augment": ({}, "fast"), "dropout": ({}, 0.5), "lr": ({}, 2e-3), "schedule": ({}, "constant"), "weight_decay": ({}, 1.0),
    "optimizer": ({}, "adamw"), "ema_decay": ({}, 0.0), "stop_epoch": ({"epochs": 2, "max_steps": 3}, 1),
    "max_steps": (TWO_STEPS, 1), "print_freq": (TWO_STEPS, 64), "save_every": (TWO_STEPS, 1), "eval_every": (TWO_STEPS, 1),
    "background": ({"data": "table", "ignore_columns": ["share", "cat"]}, "white"),
    "group_loss": ({}, "softmax"), "loss_options": ({"loss": "asl"}, "disable_torch_grad_focal_loss=false"),
    "refit_head": ({}, True), "mix": ({}, "logic"), "progressive_size": ({}, 16),
    "frozen_epochs": ({"model_path": "two.pth", "epochs": 2}, 1),
    "shallow_epochs": ({"model_name": "tresnet_m", "epochs": 2, "max_steps": 1}, 1),
    "skip_nonfinite": ({"lr": 1e30, "max_steps": 2}, 5), "resume": ({}, True), "select_by": (PRIOR, "estimated"),
}  # fmt: skip

# The settings of the loss, on fixed logits: `test_a_setting_of_the_loss_is_refused_exactly_where_it_changes_nothing`.
OF_THE_LOSS = {
    "partial_loss_mode": ["ignore", "ignore_normalize_classes", "selective"], "clip": [0.1], "gamma_pos": [3.0],
    "gamma_neg": [2.5], "gamma_unann": [5.0], "alpha_pos": [0.0, 2.0], "alpha_neg": [0.0, 0.5], "alpha_unann": [0.0, 2.0],
    "likelihood_topk": [0, 2], "topk_scope": ["sample"], "prior_threshold": [0.0, 0.5, 1.0], "prior_path": ["FILE"],
}  # fmt: skip
NEEDED = {"epr": "k=2", "role": "k=2"}  # options without which there is no such loss

ELSEWHERE = {
    "compile": "models/test_backends.py::test_training_compiled_is_the_same_training",  # takes a minute
    "cuda_graph": "training/test_gpu_training.py::test_a_graphed_step_is_the_same_step",
    "probe": "training/test_probe.py::test_a_probe_leaves_a_network_that_scores_as_it_says",  # flags of `BASE` are refused
}

IGNORING = [{"partial_loss_mode": mode} for mode in ("ignore", "ignore_normalize_classes")]
# flag -> settings, with its value, in which it would change nothing
IDLE = {
    "partial_loss_mode": [{"loss": "asl", **SELECTIVE}, {"alpha_unann": 0.0, **SELECTIVE},
        {"likelihood_topk": 0, **SELECTIVE}],
    "clip": [{"clip": 0.1, "alpha_neg": 0.0, **other} for other in ({"alpha_unann": 0.0}, *IGNORING)],
    "gamma_pos": [{"gamma_pos": 2.0, "alpha_pos": 0.0}],
    "gamma_neg": [{"gamma_neg": 2.0, "alpha_neg": 0.0}],
    "gamma_unann": [{"gamma_unann": 4.0, **other} for other in ({"loss": "asl"}, {"alpha_unann": 0.0}, *IGNORING)],
    "alpha_pos": [{"alpha_pos": 2.0, "loss": "asl"}],
    "alpha_neg": [{"alpha_neg": 2.0, "loss": "asl_optimized"}],
    "alpha_unann": [{"alpha_unann": 2.0, **other} for other in ({"loss": "asl"}, *IGNORING)],
    "likelihood_topk": [{"likelihood_topk": 3, **other} for other in (
        {}, {"partial_loss_mode": "negative"}, {"partial_loss_mode": "ignore"}, {"loss": "asl"})],
    "topk_scope": [{"topk_scope": "sample", **other} for other in ({}, {"loss": "asl"}, {**SELECTIVE, "likelihood_topk": 0})],
    "prior_path": [{"prior_path": path, **other} for path in ("prior.csv", "auto") for other in (
        {}, {"partial_loss_mode": "negative"}, {"partial_loss_mode": "ignore"}, {"loss": "asl"},
        {**SELECTIVE, "prior_threshold": 0.0}, {**SELECTIVE, "prior_threshold": 1.0})],
    "prior_threshold": [{"prior_threshold": 0.5, **other} for other in ({}, SELECTIVE, {"partial_loss_mode": "ignore"})],
    "prior_epochs": [{"prior_epochs": 3, **other} for other in ({}, SELECTIVE, PRIOR, PROBED)],
    "prior_loss": [{"prior_loss": "focal", **other} for other in (
        {}, SELECTIVE, PRIOR, PROBED, {**SELECTIVE, "prior_path": "auto", "gamma_neg": 0.0})],
    "prior_estimator": [{"prior_estimator": "em", **other} for other in ({}, SELECTIVE, PRIOR)],
    "labels_per_image": [{"labels_per_image": 6.0, **other} for other in (
        {}, PRIOR, {"loss": "asl"}, {**SELECTIVE, "prior_threshold": 1.0}, {"loss": "auto"})],
    "simulate_partial_param": [{"simulate_partial_param": 0.5, "simulate_partial_type": scheme}
                               for scheme in (None, "single_positive", "positives_only")],
    "dropout": [{"dropout": 0.1, "model_name": "tresnet_m"}, {"dropout": 0.1, "head": "ml_decoder"}],
    "abn": [{"abn": "torch"}], "sync_abn": [{"sync_abn": True}], "memory": [{"memory": "fast"}],
    "stop_epoch": [{"stop_epoch": 3, "epochs": 2}], "weights_key": [{"weights_key": "ema"}],
    "group_loss": [{"group_loss": "softmax", "data": "coco"}],
    "progressive_size": [{"progressive_size": 32}, {"progressive_size": (32, 48)}],
    "frozen_epochs": [{"frozen_epochs": 1}],
    "shallow_epochs": [{"shallow_epochs": 1}, {"shallow_epochs": 2, "model_name": "tresnet_m", "epochs": 2}],
    "mix": [{"mix": "logic", "loss": "ll_cp"}, {"mix": "logic", "group_loss": "softmax"}],
    "loss_options": [{"loss_options": "tau=0.6"}, {"loss_options": ""}],
    "metadata": [{"metadata": "coco", "debug_mode": "on_farm"}],
    "images": [{"images": "coco", "data": "shards-{0..1}.tar"}],
    "val_split": [{"val_split": 0.2}, {"val_split": 0.2, "data": "coco"}],
    "attributes": [{"attributes": "neck:7", "data": "coco"}],
    "ignore_columns": [{"ignore_columns": ["cat"], "data": "coco"}, {"ignore_columns": ["no_such"]}],
    "columns": [{"columns": ["neck"], "data": "coco"}, {"columns": ["no_such"]}],
    "filename_column": [{"filename_column": "a", "data": "coco"}, {"filename_column": "no_such"}],
    "roles": [{"roles": "a=list", "data": "coco"}, {"roles": "no_such=list"}],
    "minus_one": [{"minus_one": "negative", "data": "coco"}, {"minus_one": "negative"}],
    "unlisted": [{"unlisted": "unknown", "data": "coco"}, {"unlisted": "unknown"}],
    "no_label": [{"no_label": ["none"], "data": "coco"}, {"no_label": ["none"]}],
    "vote_threshold": [{"vote_threshold": 0.5, "data": "coco"}, {"vote_threshold": 0.5}],
    "keep_unlabelled_images": [{"keep_unlabelled_images": True}, {"keep_unlabelled_images": True, "data": "nuswide"}],
    "classes_file": [{"classes_file": "mids.txt"}], "strict_labels": [{"strict_labels": True}],
}  # fmt: skip

# Choices and quantities that always have a part (but in a probe: test_probe.py), permissions, and limits that are kept to where
# they are not reached.
NEVER = """
    loss data follow_links on_bad_image num_classes debug_mode simulate_partial_type seed model_name model_path head
    image_size augment batch_size grad_accum workers device amp cache epochs max_steps lr schedule weight_decay optimizer
    ema_decay print_freq save_every eval_every skip_nonfinite path_dest resume deterministic compile background
    probe select_by reviews refit_head cuda_graph
"""
FLAGS = {f.name for f in fields(TrainConfig)}


@pytest.fixture(scope="module")
def place(garments, tmp_path_factory):
    """A folder with a small data set of each kind."""
    folder = tmp_path_factory.mktemp("sets")
    shutil.copytree(garments, folder / "garments")
    with chdir(folder):
        names = [*(f"Neck {n}" for n in range(7)), *(f"Sleeve Length {n}" for n in range(4))]
        names += [f"Pattern {n}" for n in range(10)]
        Path("prior.csv").write_text("Classes,avg_pred\n" + "".join(f"{c},{0.04 * n}\n" for n, c in enumerate(names)))
        for data, second in (("coco", "2.png"), ("outside", "../2.png")):
            for split in ("train", "val"):
                images = [{"id": n, "file_name": name} for n, name in enumerate((f"{split}.png", second))]
                for image in images:
                    photo(Path(data, image["file_name"]))
                labelled = [{"id": n, "image_id": n, "category_id": 1} for n in range(1 if data == "coco" else 2)]
                content = {"images": images, "annotations": labelled, "categories": [{"id": 1, "name": "cat"}]}
                Path(data, f"{split}.json").write_text(json.dumps(content))
        for split in ("train", "validation"):
            photo(Path("openimages", split, f"{split}.jpg"))
            rows = (
                "ImageID,Source,LabelName,Confidence\nID,verification,/m/1,1\nID,verification,/m/2,0\nID,x,/m/3,seven\n"
            )
            file = Path("openimages", f"oidv6-{split}-annotations-human-imagelabels.csv")
            file.write_text(rows.replace("ID,", f"{split},").replace(f"Image{split}", "ImageID"))
        Path("openimages/oidv6-classes-trainable.txt").write_text("/m/1\n/m/2\n/m/3\n")
        Path("mids.txt").write_text("/m/2\n/m/1\n")
        state = create_model("test_resnet", 2).state_dict()
        torch.save({"state_dict": state, "state_dict_ema": state}, "two.pth")
        Path("nuswide").mkdir()
        for split in ("train", "test"):
            samples = [{"image_name": "1.jpg", "image_labels": ["sky"]}]
            Path("nuswide", f"{split}.json").write_text(json.dumps({"samples": samples, "labels": ["sky", "sea"]}))
        lists = ["red|blue", "red", "blue|green", "green|red|blue", "healthy", "blue"]
        rows = [f"{n}.png,{1 - 2 * (n % 2)},{words},{n / 10}" for n, words in enumerate(lists)]
        for n in range(6):
            photo(Path("table", f"{n}.png"), channels=4)  # all of it transparent
        Path("table", "labels.csv").write_text(
            "filename,cat,tags,share,split\n"
            + "".join(f"{row},{'train' if n < 4 else 'val'}\n" for n, row in enumerate(rows))
        )
        shutil.copytree(garments, "unsplit")
        table = pd.read_csv("unsplit/attributes.csv", dtype=str, keep_default_na=False).drop(columns="split")
        table.to_csv("unsplit/attributes.csv", index=False)
        shutil.copytree(garments, "bad")
        Path("bad/images/00003.jpg").unlink()
    return folder


def photo(file, channels=3):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((24, 24, channels), np.uint8)).save(file)


def config_of(place, settings):
    """The settings over those of `BASE`, with the whole path of the data."""
    config = TrainConfig(**{**BASE, **settings})
    return replace(config, data=str(place / config.data))


@pytest.fixture(scope="module")
def seen(place, tmp_path_factory):
    """seen(settings, end) -> all that a run leaves: what it said, the files there were then, its state, how it ended."""
    known = {}

    def look(settings, end=None):
        key = json.dumps([settings, end])
        if key not in known:
            with chdir(tmp_path_factory.mktemp("case")):
                for file in ("prior.csv", "mids.txt", "two.pth"):
                    Path(file).symlink_to(place / file)
                if settings.get("resume"):
                    train(config_of(place, {**settings, "resume": False}), lambda _: None)
                known[key] = run(config_of(place, settings), end)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        for owner, name, nothing in without_pictures():
            patch.setattr(owner, name, nothing)
        yield look


def run(config, end):
    moments = []

    def say(line):
        files = {
            str(f) for folder in ("run", "other", "cache") for f in Path(folder).rglob("*") if "events" not in f.name
        }
        line = re.sub(r"[\d.]+ img/s.*|took \d+ s", "", line)
        moments.append((line, files, torch.are_deterministic_algorithms_enabled()))
        if end is not None and line.startswith(end):
            raise InputError("the line was reached")

    try:
        train(config, say)
    except (InputError, RuntimeError) as error:
        moments.append(re.sub(r"\d+ steps", "", str(error)))
    last = Path(config.path_dest, "last.ckpt")
    return moments, digest(torch.load(last, weights_only=True)) if last.exists() else None


def digest(value):
    if isinstance(value, dict):
        return {key: digest(part) for key, part in value.items() if key != "config"}
    if isinstance(value, list | tuple):
        return [digest(part) for part in value]
    return hashlib.sha256(value.numpy().tobytes()).hexdigest() if isinstance(value, torch.Tensor) else repr(value)


def test_every_flag_stands_in_the_tables():
    assert sorted([*EFFECT, *OF_THE_LOSS, *ELSEWHERE, "loss"]) == sorted(FLAGS)
    assert sorted([*IDLE, *NEVER.split()]) == sorted(FLAGS)
    for where in ELSEWHERE.values():
        file, _, name = where.partition("::")
        assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text()


@pytest.mark.parametrize("flag", EFFECT)
@pytest.mark.filterwarnings("ignore:.*human-imagelabels.csv")
def test_a_flag_changes_what_a_run_does(flag, seen):
    settings, value, *end = EFFECT[flag]
    check_used(TrainConfig(**{**BASE, **settings, flag: value}))
    assert seen({**settings, flag: value}, *end) != seen(settings, *end)


def test_a_run_does_the_same_without_another_flag(seen):
    for settings, end in (({}, None), ({}, START), (RPS, None)):
        assert seen({**settings, "workers": 0}, end) == seen(settings, end)


@pytest.mark.parametrize("flag", IDLE)
def test_a_flag_that_would_change_nothing_is_refused(flag, place):
    for settings in IDLE[flag]:
        with chdir(place), pytest.raises(InputError, match=f"^(--)?{flag}\\b|; --{flag} ") as refusal:
            train(config_of(place, settings), lambda _: None)
        assert "\n" not in str(refusal.value)
        assert not Path(place, "run").exists()


def loss_of(settings, logits, targets, prior):
    """Value and gradient of the loss of `settings`, as bytes."""
    config = TrainConfig(**settings)
    x = logits.clone().requires_grad_()
    known = torch.stack([(targets == y).float().mean(0) for y in (1, 0)])
    loss = config.create_loss(prior if config.prior_path else None, known, targets.shape)
    loss = loss(x, targets, *([torch.arange(len(x))] if getattr(loss, "by_image", False) else []))
    loss.backward()
    return loss.item(), x.grad.numpy().tobytes()


def test_a_setting_of_the_loss_is_refused_exactly_where_it_changes_nothing():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (6, 40)).astype(np.float32))
    targets = torch.from_numpy(rng.choice([-1, 0, 1], (6, 40), p=[0.6, 0.3, 0.1]))
    prior = torch.from_numpy((rng.uniform(0, 0.9, 40) * rng.integers(0, 2, 40)).astype(np.float32))
    values = OF_THE_LOSS
    assert values.keys() == {f.name for f in fields(LossOptions)} - {"loss", "loss_options", "group_loss"} | {
        "prior_path"
    }
    context = {name: [None, *values[name]] for name in ("partial_loss_mode", "prior_path", "prior_threshold", "likelihood_topk",
                                                        "alpha_unann", "alpha_pos", "alpha_neg")}  # fmt: skip
    used = idle = refused = 0
    combinations = []
    for loss in csl.losses.LOSSES:
        takes = {*settings_of(loss), *(["prior_path"] if "prior" in settings_of(loss) else [])}
        of_loss = {
            name: values for name, values in context.items() if name in takes
        }  # others are refused, one at a time
        for chosen in itertools.product(*of_loss.values()):
            combinations.append(
                {"loss": loss, "loss_options": NEEDED.get(loss), **dict(zip(of_loss, chosen, strict=True))}
            )
    for settings in combinations:
        if idle_settings(TrainConfig(**settings)):
            continue
        before = loss_of(settings, logits, targets, prior)
        for name, value in [(n, v) for n in values for v in values[n] if settings.get(n) is None]:
            changed = {**settings, name: value}
            found = idle_settings(TrainConfig(**changed))
            try:
                same = loss_of(changed, logits, targets, prior) == before
            except InputError:  # a setting that the loss does not take
                assert name in found, changed
                refused += 1
                continue
            if name in found:
                assert same, str(changed)
                idle += 1
            elif not found and value != 0.0 and name != "prior_threshold":
                assert not same, str(changed)
                used += 1
    assert min(used, idle, refused) > 50, (used, idle, refused)


GIVEN = [
    "--partial_loss_mode ignore", "--partial_loss_mode negative", "--loss asl", "--prior_path none", "--prior_path FILE",
    "--model_name resnet18", "--model_name tresnet_l", "--head ml_decoder", "--epochs 2", "--alpha_unann 0",
    "--simulate_partial_type none", "--simulate_partial_type single_positive", "--likelihood_topk 0",
]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_what_given_flags_make_idle_in_a_recipe_is_left_out_and_said(name):
    for line in ("", *GIVEN):
        flags = {"data": "DIR", **parsing.parse(train_cli.parser(), line.split())}
        settings = with_recipe(name, flags)
        idle = idle_settings(TrainConfig(**settings))
        assert idle.keys() <= flags.keys(), (line, idle)
        assert {flag: settings[flag] for flag in flags} == flags
        gone = RECIPES[name].keys() - settings.keys()
        said = idle_line(name, flags)
        assert (said is None) == (not gone)
        assert all(f"--{setting} (" in said and f"--{setting} " not in recipe_line(name, flags) for setting in gone)


@pytest.mark.parametrize("threshold", [0, 1])
def test_a_threshold_that_switches_off_the_prior_of_a_recipe_is_taken(threshold):
    for name in ("demo_csl", "csl_coco_fpc"):
        settings = with_recipe(name, {"data": "DIR", "prior_threshold": float(threshold)})
        assert "prior_path" not in settings
        check_used(TrainConfig(**settings))


def test_a_flag_over_the_demo_or_a_recipe_says_what_it_leaves_out(monkeypatch, capsys):
    started = []
    monkeypatch.setattr("csl.training.experiment.train", started.append)
    train_cli.main(parsing.parse(train_cli.parser(), ["--recipe", "demo_csl", "--loss", "asl"]))
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("recipe demo_csl: left out, as they change nothing: --gamma_unann (with --loss asl)")
    train_cli.main(parsing.parse(train_cli.parser(), ["--partial_loss_mode", "ignore"]))
    assert (
        capsys.readouterr().out == "recipe demo: left out, as they change nothing: --loss (with --partial_loss_mode)\n"
    )
    assert started[-1].loss == TrainConfig.loss
    train_cli.main(parsing.parse(train_cli.parser(), ["--epochs", "2"]))
    said = "recipe demo: left out, as they change nothing: --shallow_epochs (with --epochs 2)\n"
    assert capsys.readouterr().out == said
    train_cli.main(parsing.parse(train_cli.parser(), ["--loss", "asl"]))
    assert capsys.readouterr().out == ""
    line = "--recipe csl_coco_fpc --data DIR --partial_loss_mode ignore"
    train_cli.main(parsing.parse(train_cli.parser(), line.split()))
    kept, left_out = capsys.readouterr().out.splitlines()
    assert "--gamma_neg 3" in kept
    for name in ("prior_path", "prior_threshold", "likelihood_topk", "gamma_unann"):
        assert f"--{name} " not in kept
        assert f"--{name} (" in left_out
        assert getattr(started[-1], name) is None
    assert started[-1].gamma_neg == 3


@pytest.mark.parametrize("mode", [None, "negative", "ignore", "ignore_normalize_classes"])
def test_a_loss_in_which_nothing_has_a_weight_is_refused(mode):
    counted = ("pos", "neg") if str(mode).startswith("ignore") else ("pos", "neg", "unann")
    nothing = {f"alpha_{kind}": 0.0 for kind in counted}
    with pytest.raises(InputError, match="^--alpha_pos 0 --alpha_neg 0.*: no label has a weight"):
        check_used(TrainConfig(partial_loss_mode=mode, **nothing))
    for one in nothing:
        check_used(TrainConfig(partial_loss_mode=mode, **{name: 0.0 for name in nothing if name != one}))


def test_it_is_one_line_and_status_2(tmp_path, capsys):
    flags = ["--data", str(tmp_path), "--prior_path", "auto", "--likelihood_topk", "3"]
    assert parsing.run(train_cli.main, train_cli.parser(), flags) == 2
    why = "changes nothing without --partial_loss_mode selective"
    assert capsys.readouterr().err.endswith(f"error: --likelihood_topk {why}; --prior_path {why}: leave it out\n")


def test_command_lines_of_the_original_hold_nothing_idle():
    for line in (
        "--data=DIR --model-path=FILE --gamma_pos=0 --gamma_neg=1 --gamma_unann=4 --simulate_partial_type=rps "
        "--simulate_partial_param=0.5 --partial_loss_mode=selective --likelihood_topk=5 --prior_threshold=0.5 "
        "--prior_path=FILE",
        "--data=DIR --gamma_neg=3 --simulate_partial_type=fpc --simulate_partial_param=1000",
        "--data ../Datasets/FlixstockTask/ --printfreq 10 --image-size 224 -j 8 -b 8 -p 3",
    ):
        assert not idle_settings(TrainConfig(**parsing.parse(train_cli.parser(), line.split())))


def test_the_first_stage_of_a_run_may_hold_what_only_the_second_uses():
    stage = replace(TrainConfig(**RECIPES["csl_coco_fpc"]), partial_loss_mode="ignore", prior_path=None)
    assert {"gamma_unann", "likelihood_topk"} <= idle_settings(stage).keys()
    stage.create_loss()


def test_settings_of_unknown_labels_are_named_where_every_label_is_known(place):
    said = {}
    for data in ("nuswide", "garments"):
        config = TrainConfig(data=str(place / data), partial_loss_mode="ignore")
        train_split = read_split(config, "train")
        said[data] = []
        with_simulated_labels(Data(train_split, train_split), config, said[data].append)
    why = "train: every label is known, so that these change nothing: --partial_loss_mode"
    assert said == {"nuswide": [why], "garments": []}


@pytest.mark.parametrize("mode", ["ignore", "ignore_normalize_classes"])
def test_a_loss_of_known_labels_alone_is_refused_where_none_is_known(mode):
    some, none = (
        Data(*[Annotations(["a.png"], LabelMatrix.from_dense(np.array([row])), ["hat", "tie"], source="t.csv")] * 2)
        for row in ([-1, 1], [-1, -1])
    )
    config = TrainConfig(partial_loss_mode=mode)
    with pytest.raises(
        InputError, match=f"^t.csv: no label of a training image is known, .* --partial_loss_mode {mode} "
    ):
        check_known_labels(none, config, lambda _: None)
    check_known_labels(some, config, lambda _: None)
    check_known_labels(none, TrainConfig(), lambda _: None)
