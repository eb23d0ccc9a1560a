"""The flags of the three scripts: frozen, in both spellings, explained."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from csl import __main__ as tools
from csl.cli import infer, parsing, train, validate
from csl.runs.config import TrainConfig

ROOT = Path(__file__).parents[2]

# The original's flags (its fork's included), then ours. A flag that disappears breaks somebody's script.
FLAGS = {
    train: (
        "data metadata lr epochs stop_epoch weight_decay model_name model_path num_classes workers image_size "
        "simulate_partial_type simulate_partial_param partial_loss_mode clip gamma_pos gamma_neg gamma_unann alpha_pos "
        "alpha_neg alpha_unann likelihood_topk prior_path prior_threshold batch_size print_freq printfreq path_dest debug_mode "
        "images attributes columns ignore_columns filename_column roles minus_one unlisted no_label vote_threshold "
        "keep_unlabelled_images classes_file strict_labels reviews follow_links on_bad_image head dropout augment loss "
        "topk_scope prior_epochs prior_loss prior_estimator max_steps grad_accum optimizer schedule ema_decay amp resume "
        "save_every eval_every seed device recipe skip_nonfinite deterministic val_split "
        "abn sync_abn compile cache weights_key background loss_options probe group_loss select_by refit_head mix "
        "progressive_size frozen_epochs shallow_epochs cuda_graph labels_per_image memory"
    ),
    validate: (
        "data model_name model_path num_classes workers image_size thre batch_size print_freq printfreq dataset_type "
        "split images metadata debug_mode attributes columns ignore_columns filename_column roles minus_one unlisted "
        "no_label vote_threshold keep_unlabelled_images classes_file strict_labels reviews follow_links path_dest plots "
        "plot_classes prior_path device amp engine abn compile cache weights_key background calibrate target"
    ),
    infer: (
        "model_path pic_path model_name input_size image_size dataset_type class_description_path th top_k num_classes "
        "all_val_inference data images reviews follow_links path_dest output heatmap batch_size workers device amp engine "
        "abn compile cache weights_key background"
    ),
}

ORIGINAL_LINES = [
    (train, "--data=DIR --model-path=FILE --gamma_pos=0 --gamma_neg=1 --gamma_unann=4 --simulate_partial_type=rps "
            "--simulate_partial_param=0.5 --partial_loss_mode=selective --likelihood_topk=5 --prior_threshold=0.5 "
            "--prior_path=FILE"),
    (train, "--data=DIR --gamma_neg=3 --simulate_partial_type=fpc --simulate_partial_param=1000"),
    (train, "--data ../Datasets/FlixstockTask/ --printfreq 10 --image-size 224 -j 8 -b 8 -p 3"),
    (infer, "--dataset_type=OpenImages --model_name=tresnet_m --model_path=FILE --pic_path=FILE --input_size=224"),
    (infer, "--dataset_type=MS-COCO --model_name=tresnet_l --model_path=FILE --pic_path=FILE --input_size=448"),
    (infer, "--all_val_inference"),
    (validate, "--model_name=tresnet_l --model_path=FILE"),
    (validate, "DIR --model-name tresnet_l --thre 0.8 -b 32 -j 8 --image-size 448"),
]  # fmt: skip


def flags_of(parser):
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("script", FLAGS, ids=lambda s: s.__name__)
def test_the_list_of_flags_is_frozen(script):
    long = {flag.removeprefix("--") for flag in flags_of(script.parser()) if flag.startswith("--")}
    assert long == set(FLAGS[script].split()) | {"help"}


@pytest.mark.parametrize(("script", "line"), ORIGINAL_LINES)
def test_lines_of_the_original_parse(script, line):
    assert parsing.parse(script.parser(), line.split())


def test_both_spellings_and_nothing_that_was_not_given():
    assert parsing.parse(train.parser(), ["--image-size=64x48", "--gamma_neg", "3"]) == {
        "image_size": (64, 48),
        "gamma_neg": 3.0,
    }
    assert parsing.parse(train.parser(), ["--image_size", "64"]) == {"image_size": 64}
    assert parsing.parse(train.parser(), []) == {}
    assert parsing.parse(infer.parser(), ["--images", "a", "--images", "b"]) == {"images": ["a", "b"]}
    assert parsing.parse(train.parser(), ["--partial_loss_mode", "none"]) == {"partial_loss_mode": None}


def test_flags_of_train_are_the_fields_of_its_settings():
    # A recipe is settings itself, and is spelled out before there is a TrainConfig.
    names = {action.dest for action in train.parser()._actions} - {"help", "recipe"}
    assert names == {f.name for f in fields(TrainConfig)}


@pytest.mark.parametrize("name", ["train", "validate", "infer"])
def test_help_groups_explains_and_fits(name):
    out = subprocess.run(
        [sys.executable, ROOT / f"{name}.py", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert len(out.splitlines()) <= 120
    assert max(map(len, out.splitlines())) <= 120
    for action in {"train": train, "validate": validate, "infer": infer}[name].parser()._actions:
        assert action.help
    assert "MISSING" not in out


def test_unknown_flags_are_refused():
    with pytest.raises(SystemExit):
        parsing.parse(train.parser(), ["--imagesize", "64"])


@pytest.mark.parametrize(
    ("words", "status", "lines"),
    [
        ("", 0, len(tools.COMMANDS)), ("--help", 0, len(tools.COMMANDS)), ("prepare", 0, 3), ("prepare --help", 0, 3),
        ("prepare x", 2, 0), ("x", 2, 0),
    ],
)  # fmt: skip
def test_tools_are_listed(capsys, words, status, lines):
    assert tools.main(words.split()) == status
    printed = capsys.readouterr()
    assert sum(line.startswith("  ") for line in printed.out.splitlines()) == lines
    assert len(printed.err.splitlines()) == (status > 0)
