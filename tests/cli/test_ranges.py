"""Every numeric flag of every command is looked at first: what is out of range is one line that names it, status 2."""

import importlib

import pytest
import torch

from csl import InputError, TrainConfig, train
from csl.__main__ import COMMANDS
from csl.cli import parsing
from csl.labels.simulation import WITHOUT_PARAM, schemes
from csl.losses import PartialSelectiveLoss
from csl.predict.scoring import choose_device
from csl.ranges import RANGES

VALUES = ("nan", "inf", "-inf", "-1", "-0.5", "0", "1", "2", "0.5", "1e300", str(10**30), "x", "", "1x", "9" * 5000)
NEVER = set(VALUES) - {"0", "1", "2", "0.5", "1e300", str(10**30)}


def numeric(command):
    parser = importlib.import_module(COMMANDS[command]).parser()
    return [action for action in parser._actions if action.type in (int, float, parsing.size)]


def required(parser):
    """Words for what a command cannot do without."""
    for action in parser._actions:
        if action.required:
            yield from ([*action.option_strings[-1:], "DIR"])


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_out_of_range_are_one_line_that_names_the_flag(command, capsys):
    module = importlib.import_module(COMMANDS[command])
    for action in numeric(command):
        assert action.dest in RANGES
        taken = set()
        for value in VALUES:
            parser, flag = module.parser(), action.option_strings[-1]
            try:
                status = parsing.run(lambda flags: None, parser, [*required(parser), f"{flag}={value}"])
            except SystemExit as left:
                status = left.code
            lines = capsys.readouterr().err.splitlines()
            assert (status, len(lines)) == ((2, 1) if status else (0, 0)), (flag, value, lines)
            if status:
                assert action.dest in lines[0]
                assert "expected" in lines[0]
            else:
                taken.add(value)
        assert taken, flag
        assert not taken & NEVER, (flag, taken)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_value_is_one_line_that_names_the_flag(command, capsys):
    module = importlib.import_module(COMMANDS[command])
    for action in module.parser()._actions:
        if action.nargs == 0 or not action.option_strings:
            continue
        for value in ("", " "):
            parser, flag = module.parser(), action.option_strings[-1]
            with pytest.raises(SystemExit) as left:
                parsing.parse(parser, [*required(parser), f"{flag}={value}"])
            (line,) = capsys.readouterr().err.splitlines()
            assert left.value.code == 2
            assert action.option_strings[-1] in line
            assert "expected" in line or "invalid choice" in line


def test_the_largest_numbers_train(garments, tmp_path, no_pictures):
    whole = {
        name: 2**31 - 1 for name in ("epochs", "stop_epoch", "batch_size", "save_every", "eval_every", "skip_nonfinite")
    }
    config = TrainConfig(
        data=str(garments), path_dest=str(tmp_path), model_name="test_resnet", image_size=32, workers=0, augment="none",
        device="cpu", seed=2**63 - 1, max_steps=1, print_freq=1, partial_loss_mode="selective", likelihood_topk=2**31 - 1,
        weight_decay=1e9, gamma_neg=1e9, **whole,
    )  # fmt: skip
    said = []
    train(config, said.append)
    assert any(line.startswith("epoch 1, step 1/1: ") and line.endswith(" left") for line in said)


def test_the_losses_themselves_refuse_them():
    for settings in ({"gamma_neg": float("nan")}, {"alpha_pos": -1.0}, {"prior_threshold": 2.0}, {"clip": 1.0}):
        with pytest.raises(InputError, match=f"--{next(iter(settings))} .*: expected a number from 0"):
            PartialSelectiveLoss(**settings)


@pytest.mark.parametrize(
    "name", ["gpu", "cuda:99", "cuda:-1", "meta", "xla", "lazy", "xpu", "hpu", "privateuseone"], ids=repr
)
def test_a_device_that_is_not_there_is_one_line(name):
    with pytest.raises(InputError, match=rf"^--device {name}: not there \(.*\), expected one of cpu"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_cuda_without_a_gpu_is_one_line():
    with pytest.raises(InputError, match=r"^--device cuda: not there .*, expected one of cpu$"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("device", "gpu"), ("lr", -1.0), ("lr", 0.0),
        ("weight_decay", float("nan")), ("workers", -1), ("dropout", 1.5), ("seed", -1),
        ("gamma_neg", float("nan")), ("alpha_pos", -1.0), ("prior_threshold", 2.0), ("image_size", 0), ("image_size", (32, 0)),
        ("batch_size", 0), ("optimizer", "sgd"), ("amp", "bf8"), ("simulate_partial_param", 1.5), ("cache", __file__),
        ("simulate_partial_type", "all"),
    ],
)  # fmt: skip
def test_flags_are_looked_at_before_data_is_read_or_an_earlier_run_moves(flag, value, tmp_path):
    (tmp_path / "log.jsonl").write_text("of an earlier run")
    settings = {"simulate_partial_type": "rps"} if flag == "simulate_partial_param" else {}
    with pytest.raises(InputError, match=f"^--{flag}\\b"):
        train(TrainConfig(data="nowhere", path_dest=str(tmp_path), **settings, **{flag: value}), lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize("scheme", schemes)
def test_every_scheme_of_partial_labels_is_looked_at_without_data(scheme):
    param = None if scheme in WITHOUT_PARAM else 1.0
    with pytest.raises(InputError, match="^nowhere: "):
        train(TrainConfig(data="nowhere", simulate_partial_type=scheme, simulate_partial_param=param), lambda _: None)
