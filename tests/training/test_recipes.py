"""csl.training.recipes: each sets flags that exist, prints them, and gives way to what is given."""

from dataclasses import fields

import pytest

from csl import InputError
from csl.cli import parsing, train
from csl.data.transforms import TrainTransform
from csl.labels import parse_attributes
from csl.losses import create_loss
from csl.models import HEADS, check_image_size, create_model, zoo
from csl.runs.config import TrainConfig
from csl.training.checks import OF_LOSS, PRIOR
from csl.training.optim import OPTIMIZERS, SCHEDULES
from csl.training.recipes import RECIPES, recipe_line, with_recipe

PAPERS = {
    "csl_coco_fpc": "--simulate_partial_type fpc --simulate_partial_param 1000 --gamma_pos 0 --gamma_neg 3 --gamma_unann 4 "
    "--partial_loss_mode selective --likelihood_topk 5 --prior_threshold 0.5 --lr 2e-4 --batch_size 64 --image_size 448 "
    "--epochs 30",
    "csl_coco_rps": "--simulate_partial_type rps --simulate_partial_param 0.5 --gamma_pos 0 --gamma_neg 1 --gamma_unann 4 "
    "--partial_loss_mode selective --likelihood_topk 5 --prior_threshold 0.5 --lr 2e-4 --batch_size 64 --image_size 448",
    "csl_openimages": "--image_size 224 --gamma_pos 1 --gamma_neg 2 --gamma_unann 7 --likelihood_topk 200 "
    "--prior_threshold 0.05",
    "asl_coco": "--loss asl --lr 1e-4 --batch_size 128 --image_size 224 --epochs 80 --stop_epoch 40 --weight_decay 1e-4 "
    "--gamma_neg 4 --gamma_pos 0 --clip 0.05",
    "lvis": "--lr 6e-4 --weight_decay 3e-4 --gamma_unann 1 --gamma_pos 0 --gamma_neg 0 --batch_size 64 --image_size 448",
    "flixstock": "--image_size 224 --epochs 15 --batch_size 8 --partial_loss_mode selective --gamma_pos 0 --gamma_neg 1 "
    "--gamma_unann 4 --likelihood_topk 3 --augment none --model_path csl_opim_86.72 "
    "--attributes neck:7,sleeve_length:4,pattern:10 --print-freq 100 --clip 0 --weight_decay 1e-4",
    "nuswide_tutorial": "--model_name resnext50_32x4d --dropout 0.2 --lr 1e-4 --batch_size 32 --epochs 36 --image_size 256 "
    "--weight_decay 0 --partial_loss_mode negative --schedule constant --ema_decay 0 --eval_every 200 --augment flip_affine "
    "--gamma_pos 0 --gamma_neg 0 --gamma_unann 0 --optimizer adam --amp off --model_path timm/resnext50_32x4d.tv_in1k",
}


@pytest.fixture
def settings_of(monkeypatch):
    """settings_of("--recipe lvis ...") -> the settings that train.py would start with."""
    started = []
    monkeypatch.setattr("csl.training.experiment.train", started.append)

    def run(line):
        train.main(parsing.parse(train.parser(), line.split()))
        return started.pop()

    return run


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_is_what_the_paper_says(name, settings_of):
    settings = settings_of(f"--recipe {name} --data DIR")
    for flag, value in parsing.parse(train.parser(), PAPERS[name].split()).items():
        assert getattr(settings, flag) == value, flag


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_exists_and_fits(name):
    settings = TrainConfig(**RECIPES[name])
    defaults = {f.name: f.default for f in fields(TrainConfig)}
    for key, value in RECIPES[name].items():
        assert type(value) is type(defaults[key]) or defaults[key] is None, key
    assert settings.head in HEADS
    assert settings.optimizer in OPTIMIZERS
    assert settings.schedule in SCHEDULES
    assert settings.model_path is None or zoo.is_published(settings.model_path)
    side = settings.image_size
    check_image_size(settings.model_name, (side, side))
    TrainTransform(side, settings.augment)
    if settings.loss != "auto":
        settings.create_loss()
    if settings.attributes:
        assert sum(len(values) if hasattr(values, "__len__") else values
                   for values in parse_attributes(settings.attributes).values()) == 21  # fmt: skip
    if name == "nuswide_tutorial":
        assert create_model(settings.model_name, 27, dropout=settings.dropout).get_classifier().out_features == 27


def test_a_recipe_is_printed_and_gives_way(settings_of, capsys):
    settings = settings_of("--recipe asl_coco --data DIR --lr 3e-4 --clip 0 --seed 5")
    assert (settings.lr, settings.clip, settings.seed, settings.batch_size) == (3e-4, 0.0, 5, 128)
    line = capsys.readouterr().out
    assert line.startswith("recipe asl_coco: --image_size 224 --batch_size 128 --weight_decay 0.0001")
    assert "--lr 0.0003" not in line
    assert line.endswith("(given: --lr, --clip)\n")
    assert line.count("\n") == 1


@pytest.mark.parametrize("name", RECIPES)
def test_the_printed_flags_are_the_recipe(name):
    flags = recipe_line(name, {}).removeprefix(f"recipe {name}: ").split()
    settings = with_recipe(name, {"data": RECIPES[name].get("data", "DIR")})
    assert parsing.parse(train.parser(), flags) == {key: settings[key] for key in settings if key in RECIPES[name]}
    left_out = {"prior_threshold"} if name == "flixstock" else set()  # it has no prior
    assert RECIPES[name].keys() - settings.keys() == left_out
    assert with_recipe("flixstock", {"data": "DIR", "prior_path": "FILE"})["prior_threshold"] == 0.5


def test_without_a_loss_the_program_chooses(settings_of, capsys):
    left = {"loss": "auto", "model_path": "auto", "epochs": None, "lr": None, "augment": None}
    for line in ("--data DIR", "--data DIR --loss auto"):
        assert settings_of(line) == TrainConfig(data="DIR", **left)
    assert settings_of("--data DIR --lr 0.1 --model_path none") == TrainConfig(
        data="DIR", **{**left, "lr": 0.1, "model_path": None}
    )
    assert settings_of("--data DIR --probe") == TrainConfig(data="DIR", probe=True, model_path="auto")
    assert capsys.readouterr().out == ""
    demo = settings_of("--probe")  # of the demo's recipe what a probe has a part for
    assert (demo.probe, demo.image_size, demo.batch_size) == (True, 64, 32)
    assert (
        "left out, as they change nothing: --epochs (with --probe), --shallow_epochs (with" in capsys.readouterr().out
    )


@pytest.mark.parametrize("flag", sorted({*OF_LOSS, *PRIOR, "simulate_partial_type", "simulate_partial_param"}))
def test_a_flag_of_a_loss_leaves_the_originals_defaults(settings_of, flag):
    words = {"loss": "asl", "group_loss": "softmax", "topk_scope": "sample", "loss_options": "tau=0.6"}
    settings = settings_of(f"--data DIR --{flag} {words.get(flag, 3)}")
    assert settings == TrainConfig(data="DIR", **{flag: getattr(settings, flag)})
    assert settings_of("--data DIR --recipe csl") == TrainConfig(data="DIR", partial_loss_mode="negative")


def test_no_recipe_leaves_the_demo(settings_of, capsys):
    assert settings_of("--epochs 9") == TrainConfig(**{**RECIPES["demo"], "epochs": 9})
    assert capsys.readouterr().out == ""
    assert settings_of("--epochs 2") == TrainConfig(**{**RECIPES["demo"], "epochs": 2, "shallow_epochs": 0})
    assert "left out, as they change nothing: --shallow_epochs (with --epochs 2)" in capsys.readouterr().out
    assert settings_of("--recipe demo") == TrainConfig(**RECIPES["demo"])


def test_unknown_recipes_and_missing_data():
    with pytest.raises(InputError, match="--recipe nus: unknown, expected one of demo, demo_csl, csl, csl_coco_fpc"):
        with_recipe("nus", {"data": "DIR"})
    with pytest.raises(InputError, match="--recipe lvis: needs data, expected --data DIR"):
        with_recipe("lvis", {})


def test_bce_is_the_loss_without_focusing():
    import torch
    import torch.nn.functional as F

    recipe = RECIPES["nuswide_tutorial"]
    loss = create_loss(recipe["loss"], mode=recipe["partial_loss_mode"], gamma_pos=0.0, gamma_neg=0.0, gamma_unann=0.0)
    logits = torch.randn(4, 27, generator=torch.Generator().manual_seed(0))
    targets = (torch.rand(4, 27, generator=torch.Generator().manual_seed(1)) > 0.8).to(torch.int8)
    expected = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="sum")
    torch.testing.assert_close(loss(logits, targets), expected)


def test_adam_does_not_see_that_the_loss_is_a_sum():
    import torch
    import torch.nn.functional as F

    from csl.training.optim import create_optimizer

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 40, generator=generator), (torch.rand(32, 27, generator=generator) > 0.8).float()
    weights = {}
    for reduction in ("sum", "mean"):
        torch.manual_seed(1)
        layer = torch.nn.Linear(40, 27)
        start = layer.weight.detach().clone()
        optimizer = create_optimizer(layer, "adam", lr=1e-4, weight_decay=0.0)
        for _ in range(20):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(layer(x), y, reduction=reduction).backward()
            optimizer.step()
        weights[reduction] = layer.weight.detach() - start
    assert weights["sum"].abs().mean() > 1e-3
    torch.testing.assert_close(weights["mean"], weights["sum"], rtol=0.02, atol=2e-6)


def test_the_tutorials_network_has_imagenets_statistics_and_dropout():
    recipe = RECIPES["nuswide_tutorial"]
    model = create_model(recipe["model_name"], 27, dropout=recipe["dropout"])
    assert [round(v, 3) for v in model.pixel_mean.flatten().tolist()] == [0.485, 0.456, 0.406]
    assert [round(v, 3) for v in model.pixel_std.flatten().tolist()] == [0.229, 0.224, 0.225]
    assert model.drop_rate == 0.2
